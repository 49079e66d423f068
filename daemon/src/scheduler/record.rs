//! What the two machines write into the journal. A machine changes its durable state by applying one of these and
//! in no other way, so replaying them gives exactly the state that was left.
//!
//! Variants are only ever added at the end: an old journal stays readable.

use std::fmt;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::deputy::GrantRight;
use scenemesh_protocol::ids::{ClaimId, ContentHash, JobId, MsgId, NodeId, ProjectId, TaskId};
use scenemesh_protocol::lease::{AcceptedTerms, BlobRef, Finished, Grant, RefusalReason};
use scenemesh_protocol::receipt::WipeRecord;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Class, Failure, InputFile, OnSuspect, OutputFile, Reach, Shape};

use super::batch::Batch;
use super::conversation::AttemptKey;
use super::suspicion::Suspect;
use crate::store::Record;

/// A job as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submission {
    pub job: JobId,
    pub label: String,
    /// Who submitted it; never leaves the studio.
    pub person: String,
    pub class: Class,
    pub reach: Reach,
    /// Whose rules hold for it besides its own.
    pub project: Option<ProjectId>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub recipes: Vec<Recipe>,
    pub tasks: Vec<TaskPlan>,
}

/// A graph with what it needs: many tasks are made from one.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Recipe {
    /// ComfyUI's API format, as JSON bytes.
    pub graph: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub inputs: Vec<InputFile>,
    pub shape: Shape,
    pub previews: bool,
    pub time_limit_ms: u64,
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe")
            .field("graph_bytes", &self.graph.len())
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

/// One task of a job: a recipe, and how it is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskPlan {
    pub task: TaskId,
    /// Index into the job's recipes.
    pub recipe: u16,
    /// Added to every literal `seed` and `noise_seed`.
    pub add_to_seeds: u64,
}

/// What the requester's machine wrote down. Times are wall time in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RequesterRecord {
    Submitted(Box<Submission>),
    /// Before the grant leaves. The grant's bytes are kept: the same claim always gets the same.
    Granted {
        task: TaskId,
        attempt: u32,
        node: NodeId,
        claim: ClaimId,
        grant: Box<Grant>,
        roots: Vec<BlobRef>,
        at_ms: u64,
    },
    Accepted {
        task: TaskId,
        attempt: u32,
        accepted: Box<Signed<AcceptedTerms>>,
    },
    /// The renderer did not take the grant; nobody's failure.
    Refused {
        task: TaskId,
        attempt: u32,
        reason: RefusalReason,
    },
    /// The lease ran out. A late result is still taken.
    Lost {
        task: TaskId,
        attempt: u32,
    },
    /// The renderer came back before anybody else got the task.
    Revived {
        task: TaskId,
        attempt: u32,
    },
    /// The renderer does not hold the attempt, and never will.
    Unheld {
        task: TaskId,
        attempt: u32,
    },
    Failed {
        task: TaskId,
        attempt: u32,
        failure: Failure,
        /// After running out of memory: the video memory that was not enough.
        more_vram_than_mib: Option<u32>,
        at_ms: u64,
    },
    /// The result is in our blobs, verified and fsynced.
    Stored {
        task: TaskId,
        attempt: u32,
        outputs: Vec<OutputFile>,
        exec_ms: u64,
        at_ms: u64,
    },
    Cancelled {
        tasks: Vec<TaskId>,
        at_ms: u64,
    },
    Retried {
        tasks: Vec<TaskId>,
        at_ms: u64,
    },
    /// What the renderer says it removed after an attempt; checked, and the first that came.
    Wiped {
        task: TaskId,
        attempt: u32,
        wipe: Box<Signed<WipeRecord>>,
    },
    /// These jobs ended, and nothing of them is kept any longer: neither inputs nor results.
    Forgotten {
        jobs: Vec<JobId>,
    },
    /// What is left of a grant when its task has ended: a compaction writes it.
    Tried {
        task: TaskId,
        attempt: u32,
        node: NodeId,
        claim: ClaimId,
        grant: ContentHash,
    },
    /// A job whose tasks differ in more than their seeds, or build on each other.
    SubmittedBatch(Box<Batch>),
    /// A person wants these not to begin.
    Paused {
        tasks: Vec<TaskId>,
        at_ms: u64,
    },
    Resumed {
        tasks: Vec<TaskId>,
        at_ms: u64,
    },
    /// Every node that could take it has failed it: it is over.
    GivenUp {
        task: TaskId,
        at_ms: u64,
    },
    /// Some of the results that were just stored look wrong.
    Suspected {
        task: TaskId,
        suspects: Vec<Suspect>,
    },
    /// Before anything of the job is sent to this deputy: from here on it may grant while we are away.
    KeptWith {
        job: JobId,
        deputy: NodeId,
        at_ms: u64,
    },
    /// The deputy holds nothing of the job any more, or never will.
    KeptNoMore {
        job: JobId,
    },
    /// A job of another node of this studio; its inputs are here.
    Keeping {
        right: Box<Signed<GrantRight>>,
        batch: Box<Batch>,
        at_ms: u64,
    },
    /// The origin of a job that is kept here is away: its tasks are ours to grant, for the so-manieth time.
    TakenUp {
        job: JobId,
        term: u32,
        at_ms: u64,
    },
    /// Before the origin is told so: they are the origin's to grant again.
    GivenBack {
        job: JobId,
        at_ms: u64,
    },
}

impl RequesterRecord {
    /// How a job is written down.
    pub fn submitted(batch: Box<Batch>) -> Self {
        if batch.stages.is_empty() && batch.on_suspect == OnSuspect::Keep {
            Self::Submitted(Box::new(batch.submission))
        } else {
            Self::SubmittedBatch(batch)
        }
    }

    /// Whose it is and what it says, for tests and their tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "requester.submitted",
            Self::Granted { .. } => "requester.granted",
            Self::Accepted { .. } => "requester.accepted",
            Self::Refused { .. } => "requester.refused",
            Self::Lost { .. } => "requester.lost",
            Self::Revived { .. } => "requester.revived",
            Self::Unheld { .. } => "requester.unheld",
            Self::Failed { .. } => "requester.failed",
            Self::Stored { .. } => "requester.stored",
            Self::Cancelled { .. } => "requester.cancelled",
            Self::Retried { .. } => "requester.retried",
            Self::Wiped { .. } => "requester.wiped",
            Self::Forgotten { .. } => "requester.forgotten",
            Self::Tried { .. } => "requester.tried",
            Self::SubmittedBatch(_) => "requester.submitted_batch",
            Self::Paused { .. } => "requester.paused",
            Self::Resumed { .. } => "requester.resumed",
            Self::GivenUp { .. } => "requester.given_up",
            Self::Suspected { .. } => "requester.suspected",
            Self::KeptWith { .. } => "requester.kept_with",
            Self::KeptNoMore { .. } => "requester.kept_no_more",
            Self::Keeping { .. } => "requester.keeping",
            Self::TakenUp { .. } => "requester.taken_up",
            Self::GivenBack { .. } => "requester.given_back",
        }
    }

    /// The tasks it is about.
    pub fn tasks(&self) -> Vec<TaskId> {
        match self {
            Self::Submitted(submission) => submission.tasks.iter().map(|plan| plan.task).collect(),
            Self::SubmittedBatch(batch) | Self::Keeping { batch, .. } => {
                batch.submission.tasks.iter().map(|plan| plan.task).collect()
            }
            Self::Cancelled { tasks, .. }
            | Self::Retried { tasks, .. }
            | Self::Paused { tasks, .. }
            | Self::Resumed { tasks, .. } => tasks.clone(),
            Self::Forgotten { .. }
            | Self::KeptWith { .. }
            | Self::KeptNoMore { .. }
            | Self::TakenUp { .. }
            | Self::GivenBack { .. } => Vec::new(),
            Self::Granted { task, .. }
            | Self::Tried { task, .. }
            | Self::Accepted { task, .. }
            | Self::Refused { task, .. }
            | Self::Lost { task, .. }
            | Self::Revived { task, .. }
            | Self::Unheld { task, .. }
            | Self::Failed { task, .. }
            | Self::Wiped { task, .. }
            | Self::GivenUp { task, .. }
            | Self::Suspected { task, .. }
            | Self::Stored { task, .. } => vec![*task],
        }
    }
}

impl RendererRecord {
    /// Whose it is and what it says, for tests and their tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "renderer.accepted",
            Self::Sealed { .. } => "renderer.sealed",
            Self::Dropped { .. } => "renderer.dropped",
            Self::Purged { .. } => "renderer.purged",
            Self::Keeping { .. } => "renderer.keeping",
            Self::Withdrawn(_) => "renderer.withdrawn",
        }
    }
}

impl Record for RequesterRecord {
    const KIND: u16 = 0x0201;
    /// A submission with the largest graph.
    const LIMIT: usize = 16 << 20;
}

impl Record for RendererRecord {
    const KIND: u16 = 0x0202;
    /// A grant or a result as it travels, and what we say about it.
    const LIMIT: usize = 4 << 20;
}

/// What the renderer's machine wrote down. Times are wall time in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RendererRecord {
    /// Before `Accepted` leaves: the attempt, its replay id and the grant's bytes in one.
    Accepted(Box<Acceptance>),
    /// The result is sealed and fsynced, ComfyUI is clean. Before `Finished` leaves.
    Sealed {
        from: NodeId,
        task: TaskId,
        attempt: u32,
        finished: Box<Finished>,
        /// Roots of the sealed results, to be served until they are acknowledged.
        roots: Vec<ContentHash>,
        at_ms: u64,
    },
    /// Acknowledged, discarded, cancelled or never held: from now on a grant for it is refused.
    Dropped { from: NodeId, task: TaskId, attempt: u32, at_ms: u64 },
    /// Replay ids of envelopes that expired up to here are forgotten; such envelopes are refused whatever the
    /// clock says.
    Purged { expires_ms: u64 },
    /// A sealed result is kept no longer than this after it was sealed, in milliseconds: its project says so.
    Keeping { from: NodeId, task: TaskId, attempt: u32, keep_ms: u64 },
    /// Its requester was shut out while we held it: stopped and wiped. What was done for it stays on record.
    Withdrawn(Withdrawn),
}

/// Work for a requester that was shut out before it could take the result: nobody will confirm it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Withdrawn {
    pub from: NodeId,
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the signed grant, which proves that it was asked for.
    pub grant: ContentHash,
    /// Since it was given to ComfyUI in this run of the daemon, in milliseconds.
    pub ran_ms: u64,
    pub at_ms: u64,
}

impl Withdrawn {
    pub fn key(&self) -> AttemptKey {
        AttemptKey { from: self.from, task: self.task, attempt: self.attempt }
    }
}

/// A grant that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Acceptance {
    pub from: NodeId,
    pub task: TaskId,
    pub attempt: u32,
    pub claim: ClaimId,
    /// The slot, by what it is called in the configuration: indexes move when the configuration changes.
    pub slot: String,
    pub msg_id: MsgId,
    /// When the envelope expires, on the sender's clock.
    pub expires_ms: u64,
    pub grant: Grant,
    pub accepted: Signed<AcceptedTerms>,
    /// Sealed blobs to fetch: the inputs, and the payload when it is a blob.
    pub roots: Vec<BlobRef>,
    pub class: Class,
    pub at_ms: u64,
}

impl Acceptance {
    pub fn key(&self) -> AttemptKey {
        AttemptKey { from: self.from, task: self.task, attempt: self.attempt }
    }
}

#[cfg(test)]
mod tests;
