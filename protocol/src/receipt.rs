//! Usage: what a task is quoted at, and what its renderer claims for it.

use crate::advert::Hygiene;
use crate::codec::{Decode, Encode, Message};
use crate::ids::{ContentHash, NodeId, PoolId, TaskId};
use crate::keys::Domain;
use crate::signed::Signable;

/// What a task is expected to cost, agreed before it runs. Amounts are milli-RGS, thousandths of a reference
/// GPU-second.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quote {
    /// Version of the pool parameters it was computed with.
    pub params_version: u32,
    /// Task kind: the row of the estimate table.
    pub kind: String,
    pub est_mrgs: u64,
    pub w_vram_milli: u32,
    pub w_class_milli: u32,
    /// BLAKE3 of the task payload that was quoted.
    pub payload: ContentHash,
}

/// The newest entry of a usage feed, for comparing notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FeedHead {
    /// Hash of the feed's key and incarnation.
    pub feed: ContentHash,
    pub seq: u64,
    pub head: ContentHash,
}

/// What a renderer says it did for a requester.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UsageClaim {
    pub pool: PoolId,
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the grant's signed terms.
    pub grant: ContentHash,
    pub requester: NodeId,
    pub renderer: NodeId,
    /// Milliseconds of execution, without queue, model load and transfer.
    pub exec_ms: u64,
    /// Null until both sides compute quotes.
    pub charge_mrgs: Option<u64>,
}

impl Message for UsageClaim {
    const TYPE: u16 = 0x0401;
    const LIMIT: usize = 1024;
}

impl Signable for UsageClaim {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/usage-claim");
}

/// What a renderer removed after an attempt, and what it could not. Signed before `Finished` leaves; counts only, since
/// names would tell.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WipeRecord {
    pub pool: PoolId,
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the grant's signed terms.
    pub grant: ContentHash,
    /// What this renderer is able to remove: `Partial` where it cannot reach ComfyUI's folders.
    pub hygiene: Hygiene,
    pub wiped: Vec<WipeCount>,
    pub left: Vec<WipeCount>,
}

/// How many things of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WipeCount {
    pub what: Wiped,
    pub count: u32,
}

/// What a render leaves behind in a ComfyUI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Wiped {
    /// Entries of ComfyUI's history.
    History,
    /// Uploaded files.
    Inputs,
    /// Saved files.
    Outputs,
    /// Previews and other temporary files.
    Temp,
    /// The execution cache in memory, with models and pictures.
    Cache,
}

impl Message for WipeRecord {
    const TYPE: u16 = 0x0402;
    const LIMIT: usize = 512;
}

impl Signable for WipeRecord {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/wipe");
}
