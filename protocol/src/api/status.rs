//! This node, its peers, and what `doctor` finds.

use serde::{Deserialize, Serialize};

use crate::advert::{Availability, Hygiene};
use crate::ids::{NodeId, PoolId, TaskId};

/// How this node stands to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// In no pool: `init` or `join` comes next.
    Alone,
    /// Waits to be let in.
    Joining,
    Member,
    /// In a pool that does not count it among its members now: revoked or expired.
    Outside,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// Release of the daemon.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    pub data_dir: String,
    pub standing: Standing,
    pub node: NodeId,
    pub name: Option<String>,
    pub pool: Option<PoolId>,
    pub pool_name: Option<String>,
    pub studio_name: Option<String>,
    pub epoch: Option<u64>,
    /// The pool opens no socket but loopback.
    #[serde(default)]
    pub solo: bool,
    /// What a join waits for, or why this node is outside.
    pub why: Option<String>,
    /// What the operator should know, newest last.
    pub warnings: Vec<String>,
    pub peers_up: u32,
    pub peers_total: u32,
    /// Addresses that peers can dial, as multiaddrs.
    pub listening: Vec<String>,
    /// Where the porch listens: joiners knock there.
    pub porch: Vec<String>,
    pub slots: Vec<SlotView>,
    pub gpus: Vec<GpuView>,
    /// Tasks of this node's own jobs.
    pub tasks_queued: u32,
    pub tasks_running: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    Starting,
    Ready,
    Busy,
    NotReady,
}

/// One ComfyUI endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    pub url: String,
    pub state: SlotState,
    /// Why it is not ready.
    pub why: Option<String>,
    pub task: Option<TaskId>,
    pub comfyui: Option<String>,
    pub models: u32,
    pub hygiene: Option<Hygiene>,
    /// Why it takes nothing of others' for a while, though it is ready: too much failed there.
    #[serde(default)]
    pub parked: Option<String>,
}

/// One GPU. What the driver does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuView {
    pub name: String,
    pub vram_mib: Option<u32>,
    pub vram_free_mib: Option<u32>,
    /// CUDA compute capability times ten (8.9 is 89).
    pub cc: Option<u16>,
    pub utilisation_percent: Option<u32>,
    pub temperature_c: Option<u32>,
    pub power_w: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    Up,
    Down,
    /// Reached, but one side will not talk: `why` says what about.
    Refused,
}

/// Every other member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersReply {
    pub peers: Vec<PeerView>,
    /// Nodes that are shut out here.
    #[serde(default)]
    pub shut: Vec<ShutView>,
    /// Why this node is outside its pool, if it is.
    #[serde(default)]
    pub outside: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutState {
    Revoked,
    /// It goes on under a new key.
    Rotated,
    Blocked,
}

/// A node that every verb is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutView {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    pub state: ShutState,
    /// The reason that was given.
    pub reason: String,
    /// When a block ends, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    pub link: LinkState,
    /// Why the link is down or refused, where that is known.
    pub why: Option<String>,
    pub address: Option<String>,
    pub rtt_us: Option<u64>,
    pub agent: Option<String>,
    /// Its clock minus ours.
    pub skew_ms: Option<i64>,
    pub availability: Option<Availability>,
    pub hygiene: Option<Hygiene>,
    pub slots_total: u32,
    pub slots_free: u32,
    pub queue: u32,
    pub gpus: Vec<GpuView>,
    /// Models it shows us; `None` while its inventory is unknown.
    pub models: Option<u32>,
    pub comfyui: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
}

/// A ComfyUI that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComfyuiView {
    pub url: String,
    /// Whether the configuration names it, so that it renders.
    pub configured: bool,
    /// Its version, when it answered.
    pub version: Option<String>,
    /// What happened instead of an answer.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    Ok,
    /// Works, but somebody should look.
    Warn,
    Fail,
}

/// One finding of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// `data_dir`, `disk`, `comfyui` …: stable, for programs.
    pub name: String,
    pub state: CheckState,
    /// What was found, in one sentence.
    pub found: String,
    /// One thing to do about it.
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReply {
    pub checks: Vec<CheckView>,
}
