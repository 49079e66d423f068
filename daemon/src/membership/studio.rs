//! PURE: the records that only a studio's own machines know, which of them hold, and what a sister machine lacks.
//!
//! A [`Shelf`] keeps verified records. Whether one holds *now* is judged against the roster each time: a project signed
//! by an admin who was revoked since does not hold, and gives way to any that does.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::{ContentHash, ProjectId, StudioId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::roster::{Added, Roster, STUDIO_LIMIT, is_name};
use scenemesh_protocol::signed::{Unverified, Verified};
use scenemesh_protocol::studio::{
    Block, PROJECT_NAME_LIMIT, PROJECT_NODE_LIMIT, Project, ProjectName, StudioDiff, StudioKey, StudioRecord,
    StudioSecret, StudioSync,
};
use scenemesh_protocol::task::Reach;

use super::roster::SKEW_MS;

mod own;
mod plane;
mod projects;
#[cfg(test)]
mod tests;

pub use own::{NoSuchProject, OwnProject, OwnStudio};
pub use projects::{CannotProject, ProjectChange, ProjectRules, ProjectWish};

/// Records of each kind that a studio may have; together they fit a [`StudioSync`]. More keys than revocations of a
/// lifetime, more blocks than machines of a pool.
const PROJECT_LIMIT: usize = 1024;
const BLOCK_LIMIT: usize = 512;
const KEY_LIMIT: usize = 256;
/// Most bytes of one diff: below the limit of a control frame, with room for the frame itself.
const DIFF_BYTES: usize = 900 << 10;

/// A studio record that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedStudioRecord {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error("the record is of another pool or studio")]
    OtherStudio,
    #[error("its signer is no admin of the studio")]
    NotItsAdmin,
    #[error("its signer is no machine of the studio")]
    NotItsMachine,
    #[error("its name is empty, too long, has control characters, or is not the one it commits to")]
    BadName,
    #[error("it names more studios or nodes than a project may")]
    TooMuch,
    #[error("a block lasts 72 h at most")]
    TooLong,
    #[error("it is dated in the future; one of the clocks is wrong")]
    Future,
    #[error("it is over")]
    Over,
    #[error("the key is weak")]
    WeakKey,
    #[error("the studio has as many records of this kind as it may have")]
    Full,
}

/// By what a record is judged: the roster, the studio whose machine this is, and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home<'a> {
    pub roster: &'a Roster,
    pub studio: StudioId,
    pub now_ms: u64,
}

impl Home<'_> {
    fn is_admin(&self, key: &PublicKey) -> bool {
        let of = self.roster.settings().studio_of_admin(key).map(|studio| studio.id);
        of == Some(self.studio) && !self.roster.revoked_keys().contains(key)
    }

    fn is_machine(&self, key: &PublicKey) -> bool {
        self.roster.member(&key.node(), self.now_ms).is_some_and(|member| member.studio == self.studio)
    }
}

/// A studio's own records and the secrets of its keys, as far as they are here.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    projects: BTreeMap<ProjectId, (Verified<Project>, ProjectName)>,
    blocks: BTreeMap<PublicKey, Verified<Block>>,
    keys: BTreeMap<u32, Verified<StudioKey>>,
    secrets: BTreeMap<u32, StudioSecret>,
}

impl Shelf {
    /// Adds a record, if it holds and is not beaten by one that does.
    ///
    /// # Errors
    /// When it does not hold here and now.
    pub(super) fn add(
        &mut self,
        record: &StudioRecord,
        home: Home<'_>,
    ) -> Result<Added, RefusedStudioRecord> {
        match record {
            StudioRecord::Project { record, name } => self.add_project(record.verify()?, name, home),
            StudioRecord::Block(record) => self.add_block(record.verify()?, home),
            StudioRecord::Key(record) => self.add_key(record.verify()?, home),
        }
    }

    fn add_project(
        &mut self,
        record: Verified<Project>,
        name: &ProjectName,
        home: Home<'_>,
    ) -> Result<Added, RefusedStudioRecord> {
        if (record.pool, record.studio) != (home.roster.pool(), home.studio) {
            return Err(RefusedStudioRecord::OtherStudio);
        }
        let fits = name.name.len() <= PROJECT_NAME_LIMIT && is_name(&name.name);
        if !fits || name.commitment() != record.name {
            return Err(RefusedStudioRecord::BadName);
        }
        let studios = if let Reach::Studios(chosen) = &record.max_reach { chosen.len() } else { 1 };
        let nodes = record.nodes.as_ref().map_or(1, Vec::len);
        if !(1..=STUDIO_LIMIT).contains(&studios) || !(1..=PROJECT_NODE_LIMIT).contains(&nodes) {
            return Err(RefusedStudioRecord::TooMuch);
        }
        if !home.is_admin(&record.signer()) {
            return Err(RefusedStudioRecord::NotItsAdmin);
        }
        match self.projects.get(&record.project) {
            Some((have, _)) if home.is_admin(&have.signer()) => {
                if (have.version, record.hash()) >= (record.version, have.hash()) {
                    return Ok(Added::Known);
                }
            }
            None if self.projects.len() >= PROJECT_LIMIT => return Err(RefusedStudioRecord::Full),
            Some(_) | None => {}
        }
        self.projects.insert(record.project, (record, name.clone()));
        Ok(Added::New)
    }

    fn add_block(&mut self, record: Verified<Block>, home: Home<'_>) -> Result<Added, RefusedStudioRecord> {
        if (record.pool, record.studio) != (home.roster.pool(), home.studio) {
            return Err(RefusedStudioRecord::OtherStudio);
        }
        if record.until_ms > record.issued_ms.saturating_add(Block::LONGEST_MS) {
            return Err(RefusedStudioRecord::TooLong);
        }
        if record.issued_ms > home.now_ms.saturating_add(SKEW_MS) {
            return Err(RefusedStudioRecord::Future);
        }
        if is_over(&record, home.now_ms) {
            return Err(RefusedStudioRecord::Over);
        }
        if !home.is_machine(&record.signer()) {
            return Err(RefusedStudioRecord::NotItsMachine);
        }
        match self.blocks.get(&record.key) {
            Some(have) if home.is_machine(&have.signer()) => {
                if (have.issued_ms, record.hash()) >= (record.issued_ms, have.hash()) {
                    return Ok(Added::Known);
                }
            }
            None if self.blocks.len() >= BLOCK_LIMIT => return Err(RefusedStudioRecord::Full),
            Some(_) | None => {}
        }
        self.blocks.insert(record.key, record);
        Ok(Added::New)
    }

    fn add_key(&mut self, record: Verified<StudioKey>, home: Home<'_>) -> Result<Added, RefusedStudioRecord> {
        if (record.pool, record.studio) != (home.roster.pool(), home.studio) {
            return Err(RefusedStudioRecord::OtherStudio);
        }
        if !record.kem.is_sound() {
            return Err(RefusedStudioRecord::WeakKey);
        }
        if !home.is_admin(&record.signer()) {
            return Err(RefusedStudioRecord::NotItsAdmin);
        }
        match self.keys.get(&record.version) {
            Some(have) if home.is_admin(&have.signer()) => {
                if have.hash() <= record.hash() {
                    return Ok(Added::Known);
                }
            }
            None if self.keys.len() >= KEY_LIMIT => return Err(RefusedStudioRecord::Full),
            Some(_) | None => {}
        }
        let version = record.version;
        self.keys.insert(version, record);
        self.drop_misfits();
        Ok(Added::New)
    }

    /// Takes the secret of a key that is here; false when it is none or known.
    pub(super) fn add_secret(&mut self, version: u32, secret: StudioSecret) -> bool {
        let fits = self.keys.get(&version).is_some_and(|key| key.kem == secret.kem().public());
        fits && self.secrets.insert(version, secret.clone()).as_ref() != Some(&secret)
    }

    fn drop_misfits(&mut self) {
        let keys = &self.keys;
        self.secrets
            .retain(|version, secret| keys.get(version).is_some_and(|key| key.kem == secret.kem().public()));
    }

    /// Forgets blocks that neither hold nor lift anything any more.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.blocks.retain(|_, block| !is_over(block, now_ms));
    }

    pub(super) fn has_over(&self, now_ms: u64) -> bool {
        self.blocks.values().any(|block| is_over(block, now_ms))
    }

    fn projects(&self, home: Home<'_>) -> impl Iterator<Item = (&Verified<Project>, &ProjectName)> {
        self.projects
            .values()
            .filter(move |(record, _)| home.is_admin(&record.signer()))
            .map(|(record, name)| (record, name))
    }

    /// Blocks that hold now, by the key that they refuse.
    pub(super) fn blocks(&self, home: Home<'_>) -> BTreeMap<PublicKey, Block> {
        let holds = |block: &&Verified<Block>| {
            // One that ends when it begins lifts what was before, whatever the clock says.
            let blocks = block.issued_ms < block.until_ms && home.now_ms < block.until_ms;
            blocks && home.is_machine(&block.signer())
        };
        self.blocks.values().filter(holds).map(|block| (block.key, (**block).clone())).collect()
    }

    fn keys(&self, home: Home<'_>) -> impl Iterator<Item = &Verified<StudioKey>> {
        self.keys.values().filter(move |key| home.is_admin(&key.signer()))
    }

    fn records(&self, home: Home<'_>) -> impl Iterator<Item = StudioRecord> {
        let projects = self.projects(home).map(|(record, name)| StudioRecord::Project {
            record: record.signed().clone(),
            name: name.clone(),
        });
        let blocks = self
            .blocks
            .values()
            .filter(move |block| home.is_machine(&block.signer()) && !is_over(block, home.now_ms))
            .map(|block| StudioRecord::Block(block.signed().clone()));
        let keys = self.keys(home).map(|key| StudioRecord::Key(key.signed().clone()));
        keys.chain(blocks).chain(projects)
    }

    /// What this node holds, to be told what it lacks.
    pub(super) fn sync(&self, home: Home<'_>) -> StudioSync {
        StudioSync {
            records: self.records(home).map(|record| record.hash()).collect(),
            secrets: self.secrets.keys().copied().collect(),
        }
    }

    /// Whether the sender of `theirs` holds something that is not here.
    pub(super) fn lacks(&self, theirs: &StudioSync, home: Home<'_>) -> bool {
        let mine: BTreeSet<_> = self.records(home).map(|record| record.hash()).collect();
        theirs.records.iter().any(|hash| !mine.contains(hash))
            || theirs.secrets.iter().any(|version| !self.secrets.contains_key(version))
    }

    /// What the sender of `theirs` lacks. Bounded: a part comes first, the rest after the next question.
    pub(super) fn lacking(&self, theirs: &StudioSync, home: Home<'_>) -> StudioDiff {
        let held: BTreeSet<ContentHash> = theirs.records.iter().copied().collect();
        let mut room = DIFF_BYTES;
        let fits = |record: &StudioRecord| {
            let left = room.checked_sub(codec::encode_body(record).len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let records = self.records(home).filter(|record| !held.contains(&record.hash()));
        let good: BTreeSet<_> = self.keys(home).map(|key| key.version).collect();
        let secrets = self
            .secrets
            .iter()
            .filter(|(version, _)| good.contains(version) && !theirs.secrets.contains(version))
            .map(|(version, secret)| (*version, secret.clone()));
        StudioDiff { records: records.take_while(fits).collect(), secrets: secrets.collect() }
    }

    /// The version that the next record of a project or the next key has: above all that were ever seen here.
    pub(super) fn next_key_version(&self) -> u32 {
        self.keys.keys().next_back().map_or(1, |last| last.saturating_add(1))
    }
}

/// Whatever a block did or lifted ended by then.
fn is_over(block: &Block, now_ms: u64) -> bool {
    now_ms >= block.issued_ms.saturating_add(Block::LONGEST_MS)
}
