//! What only a studio's own machines know: its projects, whom it blocks, and the key under which it keeps its memos.
//!
//! These records are signed like those of the roster, but they travel between nodes of one studio only. What another
//! studio gets to see of a project is the signed [`Project`] inside a task that it renders: rules, no name.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::advert::Hygiene;
use crate::codec::{Decode, Encode, Message};
use crate::ids::{ContentHash, NodeId, PoolId, ProjectId, StudioId, TaskId, random_bytes};
use crate::keys::{Domain, KemPublic, KemSecret, PublicKey};
use crate::signed::{Signable, Signed, Verified};
use crate::task::Reach;

mod memo;

pub use memo::{BadMemo, Memo, SealedMemo};

/// Longest name of a project, in bytes.
pub const PROJECT_NAME_LIMIT: usize = 64;
/// Most nodes that a project can be bound to.
pub const PROJECT_NODE_LIMIT: usize = 128;

/// How far a project's tasks may travel and what is left of them. Signed by an admin of the studio; the highest version
/// holds, then the lower hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Project {
    pub pool: PoolId,
    pub studio: StudioId,
    pub project: ProjectId,
    /// [`ProjectName::commitment`]: binds the name without telling it.
    pub name: ContentHash,
    pub version: u32,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// No task goes further, whatever its submitter says.
    pub max_reach: Reach,
    /// Where set, only these nodes render it.
    pub nodes: Option<Vec<NodeId>>,
    /// Where `Full`, only nodes that can remove everything render it.
    pub hygiene: Hygiene,
    /// Seconds after the end of a job until its inputs, results and graph are removed from the studio's own machines; a
    /// renderer keeps an unfetched result no longer either. `None`: no limit of its own.
    pub retention_s: Option<u32>,
    /// Takes no new jobs.
    pub closed: bool,
}

impl Message for Project {
    const TYPE: u16 = 0x0006;
    const LIMIT: usize = 8 << 10;
}

impl Signable for Project {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/project");
}

/// A project's name, and the salt that keeps its commitment from being guessed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProjectName {
    pub salt: [u8; 16],
    pub name: String,
}

impl ProjectName {
    /// With a fresh salt.
    pub fn new(name: impl Into<String>) -> Self {
        Self { salt: random_bytes(), name: name.into() }
    }

    /// BLAKE3(`"scenemesh/v1/project-name\0" ‖ salt ‖ name`).
    pub fn commitment(&self) -> ContentHash {
        let label: &[u8] = b"scenemesh/v1/project-name\0";
        ContentHash::of(&[label, &self.salt, self.name.as_bytes()].concat())
    }
}

impl fmt::Debug for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProjectName(…)")
    }
}

/// A node of the studio refuses a key, for itself and its studio's machines, until a time; signed by that node. Of two
/// records of one key the later `issued_ms` holds, then the lower hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block {
    pub pool: PoolId,
    pub studio: StudioId,
    pub key: PublicKey,
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// Not later than 72 h after `issued_ms`; not later than `issued_ms` lifts the block.
    pub until_ms: u64,
}

impl Block {
    /// Longest block, in milliseconds: 72 h. Who must stay out longer is revoked.
    pub const LONGEST_MS: u64 = 72 * 3_600_000;
}

impl Message for Block {
    const TYPE: u16 = 0x0007;
    const LIMIT: usize = 1024;
}

impl Signable for Block {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/block");
}

/// The public half of the key under which a studio seals its memos; signed by an admin of it. The highest version seals,
/// all of them open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StudioKey {
    pub pool: PoolId,
    pub studio: StudioId,
    pub version: u32,
    pub kem: KemPublic,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
}

impl Message for StudioKey {
    const TYPE: u16 = 0x0009;
    const LIMIT: usize = 512;
}

impl Signable for StudioKey {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/studio-key");
}

/// The secret half of a [`StudioKey`]. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct StudioSecret([u8; 32]);

impl StudioSecret {
    #[must_use]
    pub fn generate() -> Self {
        Self(random_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn kem(&self) -> KemSecret {
        KemSecret::from_bytes(&self.0)
    }
}

impl fmt::Debug for StudioSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StudioSecret(…)")
    }
}

/// A record that stays inside its studio.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StudioRecord {
    Project { record: Signed<Project>, name: ProjectName },
    Block(Signed<Block>),
    Key(Signed<StudioKey>),
}

impl StudioRecord {
    pub fn hash(&self) -> ContentHash {
        match self {
            Self::Project { record, .. } => record.hash(),
            Self::Block(record) => record.hash(),
            Self::Key(record) => record.hash(),
        }
    }
}

/// What a node of the same studio holds, to be told what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StudioSync {
    /// Hashes of the studio records that hold here.
    pub records: Vec<ContentHash>,
    /// Versions of the studio key whose secret is here.
    pub secrets: Vec<u32>,
}

/// Studio records that a node of the same studio lacks. Never sent to anybody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StudioDiff {
    pub records: Vec<StudioRecord>,
    /// Secrets by the version of their key.
    pub secrets: Vec<(u32, StudioSecret)>,
}

impl StudioDiff {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.secrets.is_empty()
    }
}

/// What holds in a studio now, as far as its tasks are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudioRules {
    /// None while the node is in no pool.
    pub home: Option<(PoolId, StudioId)>,
    pub projects: BTreeMap<ProjectId, Verified<Project>>,
    /// The key that memos are sealed to.
    pub key: Option<StudioKey>,
}

/// What a memo is bound to: sealed for one attempt, it cannot be moved to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemoPlace {
    pub pool: PoolId,
    pub studio: StudioId,
    pub task: TaskId,
    pub attempt: u32,
}
