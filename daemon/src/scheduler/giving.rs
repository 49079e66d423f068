//! How a GPU goes back to whoever sits at it, as people are shown it. The decisions are the renderer's.

use std::time::Duration;

use scenemesh_protocol::ids::StudioId;

use super::lend::Owner;
use crate::executor::{Freed, Verdict};

/// Longer than this an interrupt is not on its way any more: whatever runs does not look for it.
pub const REACTS_WITHIN: Duration = Duration::from_secs(10);

/// What others have of this machine, and how giving it back goes or went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivingView {
    pub owner: Owner,
    /// Attempts of other machines that have a slot here.
    pub running: Vec<LentRun>,
    /// Each slot, while the GPU is wanted back.
    pub slots: Vec<(String, SlotBack)>,
    /// The last time that it was given back since this node started.
    pub last: Option<GivenBack>,
}

/// One attempt of another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LentRun {
    pub studio: Option<StudioId>,
    pub slot: String,
    /// Steps of the node at work, where it has any.
    pub steps: Option<(u32, u32)>,
    /// What is left of it, where that is known.
    pub left: Option<Duration>,
    /// It was told to stop, and has not yet.
    pub stopping: bool,
}

/// How far a slot is with going back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotBack {
    /// What runs for others may finish, for so long at most.
    Finishing {
        at_most: Duration,
    },
    /// Told to stop so long ago.
    Stopping {
        since: Duration,
    },
    /// Its ComfyUI was asked to let the memory go.
    Freeing,
    /// A task of this machine's own runs.
    OwnWork,
    /// A stopped prompt goes on there; it is asked again.
    Stuck {
        why: String,
    },
    Done(Report),
}

/// What became of a slot's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub freed: Freed,
    /// Used before and after as the driver tells, in MiB, where it is known which GPU the slot's is.
    pub driver: Option<(u32, u32)>,
}

/// One whole giving back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// From the moment it was wanted until every slot was done.
    pub took: Duration,
    /// When it was wanted, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub slots: Vec<(String, SlotBack)>,
}

/// Whether memory is known to be free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Free,
    /// Somebody's prompt of this machine runs there and keeps what it needs.
    Yours,
    Held,
    Unverified {
        why: String,
    },
}

/// A drop smaller than this may be anybody's, in MiB.
const TELLING_MIB: u32 = 512;

impl Report {
    /// What is known of it. Where the driver tells, its word counts: ComfyUI knows its own part only.
    pub fn known(&self) -> Known {
        let let_go = match (self.freed.before, self.freed.after) {
            (Some(before), Some(after)) => Some(before.held_mib.saturating_sub(after.held_mib)),
            _ => None,
        };
        let driver_saw = self.driver.map(|(before, after)| before.saturating_sub(after));
        match &self.freed.verdict {
            Verdict::InUse => Known::Yours,
            Verdict::NotRunning => Known::Free,
            Verdict::StillHeld => Known::Held,
            Verdict::Freed => match (let_go, driver_saw) {
                (Some(let_go), Some(saw)) if let_go > TELLING_MIB && saw < let_go / 2 => {
                    // A driver that had not seen it come says nothing of its going.
                    let had_seen = self.driver.is_some_and(|(before, _)| before >= let_go);
                    if had_seen { Known::Held } else { Known::Free }
                }
                _ => Known::Free,
            },
            Verdict::Unknown { why } | Verdict::Stuck { why } => match driver_saw {
                Some(saw) if saw > TELLING_MIB => Known::Free,
                _ => Known::Unverified { why: why.clone() },
            },
        }
    }

    /// Used before and after, in MiB: by the driver where it tells, else by ComfyUI.
    pub fn used_mib(&self) -> Option<(u32, u32)> {
        let told = || Some((self.freed.before?.used_mib, self.freed.after?.used_mib));
        self.driver.or_else(told)
    }
}

impl SlotBack {
    /// Nothing more is to be waited for.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::OwnWork | Self::Done(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Memory;

    fn report(held: (u32, u32), verdict: Verdict, driver: Option<(u32, u32)>) -> Report {
        let memory = |held_mib| Some(Memory { used_mib: held_mib + 1000, held_mib, total_mib: 24_000 });
        Report { freed: Freed { before: memory(held.0), after: memory(held.1), verdict }, driver }
    }

    #[test]
    fn the_drivers_word_counts_where_it_tells() {
        let free = report((9000, 100), Verdict::Freed, None);
        assert_eq!((free.known(), free.used_mib()), (Known::Free, Some((10_000, 1100))));
        let seen = report((9000, 100), Verdict::Freed, Some((11_000, 2000)));
        assert_eq!((seen.known(), seen.used_mib()), (Known::Free, Some((11_000, 2000))));
        assert_eq!(report((9000, 100), Verdict::Freed, Some((11_000, 10_900))).known(), Known::Held);
        assert_eq!(
            report((100, 100), Verdict::Freed, Some((900, 900))).known(),
            Known::Free,
            "nothing was held"
        );
        assert_eq!(report((9000, 8000), Verdict::StillHeld, None).known(), Known::Held);
        let stale = report((1900, 30), Verdict::Freed, Some((1446, 1446)));
        assert_eq!(stale.known(), Known::Free, "read before the models came");
    }

    #[test]
    fn what_nobody_saw_is_not_verified() {
        let unknown = || Freed::of(Verdict::Unknown { why: "no figures".into() });
        assert!(matches!(Report { freed: unknown(), driver: None }.known(), Known::Unverified { .. }));
        let seen = Report { freed: unknown(), driver: Some((9000, 400)) };
        assert_eq!((seen.known(), seen.used_mib()), (Known::Free, Some((9000, 400))));
        let gone = Report { freed: Freed::of(Verdict::NotRunning), driver: None };
        assert_eq!((gone.known(), gone.used_mib()), (Known::Free, None));
    }
}
