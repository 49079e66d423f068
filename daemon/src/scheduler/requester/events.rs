//! What the requester's machine hears, and what it wants done.

use std::sync::Arc;

use scenemesh_protocol::deputy::{Keep, KeepNews, KeepReply, Release, TakeBack, TakeBackReply};
use scenemesh_protocol::ids::{BootId, ClaimId, ContentHash, JobId, NodeId, ReservationId, TaskId};
use scenemesh_protocol::lease::{
    Ack, AttemptState as Report, BlobRef, Cancel, Claim, Finished, FinishedReply, Grant, GrantReply, Offer,
    OfferReply, Preview, Probe, Progress,
};
use scenemesh_protocol::messages::Response;
use scenemesh_protocol::studio::StudioRules;
use scenemesh_protocol::task::{Class, OutputFile};

use super::deputies::SealedKeep;
use crate::scheduler::batch::Batch;
use crate::scheduler::conversation::{Answer, Barred, Ticket};
use crate::scheduler::placement::Nodes;
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::Line;
use crate::scheduler::suspicion::Suspect;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// One record of the journal, in order, before anything else.
    Restored(RequesterRecord),
    /// The journal is read. From here on silence is judged: one full lease from now.
    Started,
    /// What is known of the pool's machines changed.
    Nodes(Arc<Nodes>),
    /// What the studio's projects say now; told again every half minute at least, so that what ends by the clock ends.
    Rules(Arc<StudioRules>),
    /// Nodes that are shut out from now on, and only these.
    Barred(Arc<Barred>),
    PeerUp {
        node: NodeId,
        boot: BootId,
    },
    PeerDown {
        node: NodeId,
    },
    Submitted {
        batch: Box<Batch>,
        /// Who is to hold it as well; chosen by [`super::Requester::deputy_for`].
        deputy: Option<NodeId>,
    },
    /// A person wants these tasks stopped.
    CancelWanted(Vec<TaskId>),
    /// A person wants these failed or cancelled tasks to run again.
    RetryWanted(Vec<TaskId>),
    /// A person wants these tasks not to begin.
    PauseWanted(Vec<TaskId>),
    ResumeWanted(Vec<TaskId>),
    Claimed {
        node: NodeId,
        claim: Claim,
        ticket: Ticket,
    },
    Progressed {
        node: NodeId,
        progress: Box<Progress>,
        ticket: Ticket,
    },
    Finished {
        node: NodeId,
        finished: Box<Finished>,
        ticket: Ticket,
    },
    /// A renderer asks where an attempt stands with us.
    Probed {
        node: NodeId,
        probe: Probe,
        ticket: Ticket,
    },
    OfferAnswered {
        node: NodeId,
        reservation: ReservationId,
        answer: Answer<OfferReply>,
    },
    /// The grant asked for by [`Action::SealGrant`], or why there is none.
    GrantSealed {
        task: TaskId,
        node: NodeId,
        claim: ClaimId,
        sealed: Result<SealedGrant, String>,
    },
    GrantAnswered {
        task: TaskId,
        attempt: u32,
        answer: Answer<GrantReply>,
    },
    ProbeAnswered {
        task: TaskId,
        attempt: u32,
        answer: Answer<Report>,
    },
    CancelAnswered {
        task: TaskId,
        attempt: u32,
        answer: Answer<Report>,
    },
    Fetched {
        task: TaskId,
        attempt: u32,
        result: Result<Brought, FetchTrouble>,
    },
    /// The job asked for by [`Action::SealKept`].
    KeptSealed {
        job: JobId,
        sealed: Result<SealedKeep, String>,
    },
    KeepAnswered {
        job: JobId,
        answer: Answer<KeepReply>,
    },
    TakenBack {
        job: JobId,
        answer: Answer<TakeBackReply>,
    },
    NewsAnswered {
        job: JobId,
        answer: Answer<()>,
    },
    ReleaseAnswered {
        job: JobId,
        answer: Answer<()>,
    },
    /// A node of this studio wants a job held here.
    KeepAsked {
        node: NodeId,
        keep: Box<Keep>,
        ticket: Ticket,
    },
    /// The job asked for by [`Action::BringKept`].
    KeptBrought {
        job: JobId,
        brought: Result<Box<Batch>, String>,
    },
    NewsTold {
        node: NodeId,
        news: KeepNews,
        ticket: Ticket,
    },
    TakeBackAsked {
        node: NodeId,
        ask: TakeBack,
        ticket: Ticket,
    },
    Released {
        node: NodeId,
        ask: Release,
        ticket: Ticket,
    },
    /// The origin of a kept job does not want an attempt of it any more.
    CancelAsked {
        node: NodeId,
        cancel: Cancel,
        ticket: Ticket,
    },
    /// A result that we brought is stored, or not wanted.
    Acked {
        node: NodeId,
        ack: Ack,
        ticket: Ticket,
    },
    DeliveryAnswered {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        answer: Answer<FinishedReply>,
    },
    /// A result that is to be brought cannot be: its files are not what they were.
    Undeliverable {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    /// Jobs that ended before this wall time need not be kept.
    Forget {
        before_ms: u64,
    },
    /// [`super::Requester::deadline`] has come.
    Tick,
}

/// A grant ready to be sent.
#[derive(Clone, Debug)]
pub struct SealedGrant {
    pub grant: Grant,
    /// What the renderer may fetch.
    pub roots: Vec<BlobRef>,
}

/// A result that is here, verified, and what was found by looking at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    pub outputs: Vec<OutputFile>,
    pub suspects: Vec<Suspect>,
}

/// Why a result is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchTrouble {
    /// The renderer could not be reached, or the transfer broke off.
    Unreachable(String),
    /// What came is not what was signed.
    DoesNotVerify(String),
    /// This machine could not store it.
    Here(String),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write it down; before everything else of the step.
    Record(RequesterRecord),
    Offer {
        node: NodeId,
        offer: Offer,
    },
    /// Seal the task for this node and answer with [`Input::GrantSealed`].
    SealGrant {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        claim: ClaimId,
        class: Class,
    },
    Grant {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        grant: Arc<Grant>,
    },
    Cancel {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    Probe {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    Ack {
        node: NodeId,
        ack: Ack,
    },
    /// Open the keys, fetch every root, verify, store, and answer with [`Input::Fetched`].
    Fetch {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        grant: ContentHash,
        finished: Box<Finished>,
    },
    /// Let this node fetch these blobs until [`Action::Unserve`].
    Serve {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        roots: Vec<ContentHash>,
    },
    Unserve {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    /// These results are not wanted.
    DropBlobs(Vec<ContentHash>),
    /// Seal this job for its deputy and answer with [`Input::KeptSealed`].
    SealKept {
        node: NodeId,
        job: JobId,
    },
    /// Let the deputy fetch the job and its inputs until [`Action::Unkeep`], and ask it to.
    Keep {
        node: NodeId,
        job: JobId,
        keep: Box<Keep>,
    },
    Unkeep {
        node: NodeId,
        job: JobId,
        /// Blobs that were made for it alone.
        sealed: Vec<ContentHash>,
    },
    KeepNews {
        node: NodeId,
        news: KeepNews,
    },
    TakeBack {
        node: NodeId,
        ask: TakeBack,
    },
    Release {
        node: NodeId,
        ask: Release,
    },
    /// Fetch a job that is to be held here, with its inputs, and answer with [`Input::KeptBrought`].
    BringKept {
        node: NodeId,
        job: JobId,
        keep: Box<Keep>,
    },
    /// Let this node fetch the result of an attempt until [`Action::Undeliver`], and tell it as a renderer does.
    Deliver {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    Undeliver {
        node: NodeId,
        task: TaskId,
        attempt: u32,
    },
    Reply {
        ticket: Ticket,
        response: Response,
    },
    /// A job was forgotten: nothing of it is shown any more.
    Forgotten {
        job: JobId,
        tasks: Vec<TaskId>,
    },
    /// A task's state is another: tell whoever watches.
    Changed(TaskId),
    /// A task moved on within its state.
    Moved(TaskId),
    Preview {
        task: TaskId,
        preview: Preview,
    },
    /// A line for the task's log, for people.
    Log {
        task: TaskId,
        line: Line,
    },
}
