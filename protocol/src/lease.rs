//! How a task finds its renderer: offer, claim, grant, and the reports until the ack.
//!
//! Every message names its task and attempt (or reservation), so that any of them may be lost, repeated or late.

use crate::codec::{Decode, Encode, Message};
use crate::deputy::GrantRight;
use crate::ids::{ClaimId, ContentHash, JobId, MsgId, NodeId, PoolId, ReservationId, TaskId};
use crate::keys::Domain;
use crate::receipt::{Quote, UsageClaim, WipeRecord};
use crate::signed::{Signable, Signed};
use crate::studio::SealedMemo;
use crate::task::{Class, Failure, Shape};

/// Longest sentence in a refusal, in bytes; readers cut what is longer.
pub const SENTENCE_LIMIT: usize = 512;

/// Requester → renderer: would you take tasks of this job? One per job and node, sticky until either side restarts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    pub reservation: ReservationId,
    pub job: JobId,
    pub shape: Shape,
    pub class: Class,
    /// Tasks of the job that wait for a renderer now; zero withdraws the offer.
    pub ready: u32,
    /// Shown by a deputy; without one the sender is the job's origin.
    pub right: Option<Signed<GrantRight>>,
}

/// Answer to an [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OfferReply {
    /// In line: place counted from 0; estimate in milliseconds when there is one.
    Waiting { position: u32, eta_ms: Option<u64> },
    /// Not this node, and why, in words.
    Refused(Refusal),
    /// A slot is free and held for two seconds.
    Claim(ClaimId),
}

/// Why a node does not take an offer or a grant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// A sentence for people; names no path, person or project.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RefusalReason {
    /// No ComfyUI is ready here.
    NotReady,
    /// A node class is missing.
    MissingClass,
    MissingModel,
    TooLittleVram,
    /// The sender or the task is not allowed here. Of a node class the detail says
    /// `node class "CLASS" is not allowed there (FAMILY)`.
    NotAllowed,
    /// No slot now: not a failure.
    Busy,
    Stopping,
    DiskFull,
    /// The envelope, the graph or the terms are not acceptable.
    BadGrant,
    /// This node has given this attempt up.
    Tombstone,
    /// The sender runs another release and cannot be understood.
    Version,
    /// It takes no such work of this sender now. It never says why, or until when.
    NotNow,
}

/// Renderer → requester: a slot is free for your reservation, held two seconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    pub reservation: ReservationId,
    pub claim: ClaimId,
}

/// Answer to a [`Claim`]: the grant follows, or there is nothing left to do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ClaimReply {
    Coming,
    Gone,
}

/// What both sides agree on; signed by the requester, shown to others as proof of the task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GrantTerms {
    pub pool: PoolId,
    pub claim: ClaimId,
    pub task: TaskId,
    pub attempt: u32,
    pub from: NodeId,
    pub to: NodeId,
    /// The envelope that carries the payload.
    pub msg_id: MsgId,
    pub envelope: ContentHash,
    /// Sealed inputs (and the payload, when it is a blob) by manifest root.
    pub roots: Vec<BlobRef>,
    /// The renderer's right to the attempt, in milliseconds on its own monotonic clock, renewed by every answer.
    pub lease_ms: u32,
    pub class: Class,
    pub quote: Option<Quote>,
    /// For the requester's own studio: who and for what. Others see that there is one.
    pub memo: Option<SealedMemo>,
}

impl Message for GrantTerms {
    const TYPE: u16 = 0x0303;
    const LIMIT: usize = 64 << 10;
}

impl Signable for GrantTerms {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/grant");
}

/// A sealed blob by its root, with its sealed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRef {
    pub root: ContentHash,
    pub sealed_bytes: u64,
}

/// Requester → renderer: run this.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    pub terms: Signed<GrantTerms>,
    /// The sealed task, as `envelope.rs` has it.
    pub envelope: Vec<u8>,
}

/// Answer to a [`Grant`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GrantReply {
    Accepted(Signed<AcceptedTerms>),
    /// With a failure when the graph itself was found wanting; without, it counts as nobody's failure.
    Rejected {
        refusal: Refusal,
        failure: Option<Failure>,
    },
}

/// The renderer's word that it runs the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AcceptedTerms {
    /// Hash of the grant's signed terms.
    pub grant: ContentHash,
    pub task: TaskId,
    pub attempt: u32,
    /// Calibrated speed of this node for the quoted kind, in thousandths of the reference; null until calibrated.
    pub sigma_milli: Option<u32>,
}

impl Message for AcceptedTerms {
    const TYPE: u16 = 0x0304;
    const LIMIT: usize = 512;
}

impl Signable for AcceptedTerms {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/accepted");
}

/// Renderer → requester, at least every five seconds: where the attempt stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    pub task: TaskId,
    pub attempt: u32,
    /// Counts the renderer's reports of this attempt.
    pub seq: u64,
    pub phase: Phase,
    /// Graph node that runs, empty before the first.
    pub node: String,
    pub step: u32,
    pub max: u32,
    pub nodes_done: u32,
    pub nodes_total: u32,
    pub preview: Option<Preview>,
}

/// What a renderer is doing with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Fetching inputs.
    Fetching,
    /// Given to ComfyUI, not started yet.
    Queued,
    Running,
    /// Sealing results and cleaning up.
    Sealing,
}

/// A preview picture as ComfyUI made it, or another binary frame of its event socket.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Preview {
    /// `image/jpeg` or `image/png`; [`RELAYED`] for a frame.
    pub mime: String,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Preview({}, {} bytes)", self.mime, self.bytes.len())
    }
}

/// Largest preview that is passed on, in bytes; larger ones are dropped.
pub const PREVIEW_LIMIT: usize = 256 << 10;

/// Media type of a whole binary frame of ComfyUI's event socket, as it came: a text that a node shows, or what only a
/// client of some extension understands.
pub const RELAYED: &str = "application/vnd.comfyui.frame";

/// Largest frame that is passed on, in bytes; larger ones are dropped.
pub const RELAYED_LIMIT: usize = 32 << 10;

/// Answer to a [`Progress`], and to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// The lease is renewed.
    Continue,
    Cancel,
    /// Finish this one; no more will come.
    Drain,
    /// The requester does not hold this attempt any more: stop, and refuse it for ever.
    Unknown,
}

/// How an attempt ended at the renderer; signed by it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FinishedTerms {
    pub pool: PoolId,
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the grant's signed terms.
    pub grant: ContentHash,
    pub outcome: Outcome,
    /// Milliseconds of execution in ComfyUI.
    pub exec_ms: u64,
}

impl Message for FinishedTerms {
    const TYPE: u16 = 0x0305;
    const LIMIT: usize = 256 << 10;
}

impl Signable for FinishedTerms {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/finished");
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Sealed results by root, and the hash of the envelope that carries their keys and names.
    Done {
        roots: Vec<BlobRef>,
        keys: ContentHash,
    },
    Failed(Failure),
}

/// Renderer → requester: the attempt ended, the sealed result is safe here, ComfyUI is clean.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Finished {
    pub terms: Signed<FinishedTerms>,
    /// `ResultKeys` sealed to the requester; empty for a failure.
    pub keys: Vec<u8>,
    pub usage: Option<Signed<UsageClaim>>,
    /// What was removed from ComfyUI; null when the attempt never reached it.
    pub wipe: Option<Signed<WipeRecord>>,
}

/// Answer to a [`Finished`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FinishedReply {
    /// Noted; the result will be fetched, an [`Ack`] follows.
    Noted,
    /// Stored already, or not wanted: drop it.
    Discard,
}

/// Requester → renderer: the result is stored, or not wanted; the renderer drops its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    pub task: TaskId,
    pub attempt: u32,
    pub kind: AckKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AckKind {
    Stored,
    Discard,
}

/// Requester → renderer: stop this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cancel {
    pub task: TaskId,
    pub attempt: u32,
}

/// Either side: where does this attempt stand with you? Asked at every contact and when a lease falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Probe {
    pub task: TaskId,
    pub attempt: u32,
}

/// Answer to a [`Probe`] and a [`Cancel`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AttemptState {
    /// Not held here, and from now on refused.
    Unknown,
    Running(Phase),
    Finished(Box<Finished>),
}
