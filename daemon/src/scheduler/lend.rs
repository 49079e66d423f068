//! To whom this machine is lent: studios, classes, most video memory, hours. Pure.
//!
//! `[lend]` binds what other studios ask for, and the own studio's tasks in nothing. What is said by hand binds all
//! other machines: whoever sits here wants the GPU.

use std::collections::BTreeSet;
use std::time::Duration;

use scenemesh_protocol::ids::StudioId;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::Class;

mod hours;
pub mod keeper;
mod lending;
mod moment;

pub use hours::{BadHours, Hours, LocalTime};
pub use lending::{FINISH, Hand, LONGEST_FINISH, Lending, Owner};
pub use moment::{BadMoment, moment, on_the_wall};

/// As the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lend {
    /// Names or ids of studios; none: all.
    pub to: Option<BTreeSet<String>>,
    /// None: all.
    pub classes: Option<BTreeSet<Class>>,
    /// Tasks that declare more are refused.
    pub max_vram_mib: Option<u32>,
    /// None: always.
    pub hours: Option<Hours>,
    /// How long others' work may take to finish once the GPU is wanted back; none: as usual.
    pub finish: Option<Duration>,
}

/// As it holds at one moment, for one roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LendFacts {
    /// Within the hours.
    pub open: bool,
    pub to: Option<BTreeSet<StudioId>>,
    pub classes: Option<BTreeSet<Class>>,
    pub max_vram_mib: Option<u32>,
}

impl Default for LendFacts {
    fn default() -> Self {
        Self { open: true, to: None, classes: None, max_vram_mib: None }
    }
}

impl Lend {
    /// How long others' work may take to finish once the GPU is wanted back.
    pub fn finish(&self) -> Duration {
        self.finish.unwrap_or(FINISH).min(LONGEST_FINISH)
    }

    /// What holds at a moment; `utc_offset_s` tells how far clocks on the wall are ahead of UTC then.
    pub fn facts(
        &self,
        roster: Option<&Roster>,
        wall_ms: u64,
        utc_offset_s: impl Fn(u64) -> i32,
    ) -> LendFacts {
        let open = self
            .hours
            .as_ref()
            .is_none_or(|hours| hours.contain(LocalTime::at(wall_ms, utc_offset_s(wall_ms))));
        let studios = roster.map(|roster| roster.settings().studios.as_slice()).unwrap_or_default();
        let named = |names: &BTreeSet<String>| {
            let lent = studios
                .iter()
                .filter(|studio| names.contains(&studio.name) || names.contains(&studio.id.to_string()));
            lent.map(|studio| studio.id).collect()
        };
        LendFacts {
            open,
            to: self.to.as_ref().map(named),
            classes: self.classes.clone(),
            max_vram_mib: self.max_vram_mib,
        }
    }
}

impl LendFacts {
    /// Whether work like this of another studio is taken.
    pub fn takes(&self, studio: StudioId, class: Class, vram_mib: Option<u32>) -> bool {
        let too_much = vram_mib.zip(self.max_vram_mib).is_some_and(|(need, most)| need > most);
        self.open
            && self.to.as_ref().is_none_or(|to| to.contains(&studio))
            && self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
            && !too_much
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_a_limit_of_its_own() {
        let [birch, cedar] = [1, 2].map(|n| StudioId::from_bytes([n; 16]));
        let open = LendFacts::default();
        assert!(open.takes(birch, Class::Batch, Some(1 << 20)));
        let to = LendFacts { to: Some(BTreeSet::from([birch])), ..open.clone() };
        assert!(to.takes(birch, Class::Urgent, None) && !to.takes(cedar, Class::Urgent, None));
        let classes = LendFacts { classes: Some(BTreeSet::from([Class::Batch])), ..open.clone() };
        assert!(classes.takes(birch, Class::Batch, None) && !classes.takes(birch, Class::Normal, None));
        let small = LendFacts { max_vram_mib: Some(20 << 10), ..open.clone() };
        assert!(small.takes(birch, Class::Normal, Some(20 << 10)) && small.takes(birch, Class::Normal, None));
        assert!(!small.takes(birch, Class::Normal, Some((20 << 10) + 1)));
        assert!(!LendFacts { open: false, ..open }.takes(birch, Class::Normal, None));
    }
}
