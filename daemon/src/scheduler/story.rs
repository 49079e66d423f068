//! What people are told of a task, as data: why it stands where it stands, and what happened to it.
//!
//! The sentence is made where it is read, in the reader's language. `Display` has the English one, and every `code`
//! is for programs: it stays what it is. Nodes go by the names that people know them by.

use std::fmt;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::lease::{Phase, Progress, RefusalReason};
use scenemesh_protocol::task::{Failure, ModelName};

use super::placement::WhyNot;
use crate::executor::policy::WhyDenied;

/// Why a task stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing more is known of it.
    Waits,
    /// This machine has no ComfyUI and is in no pool.
    NoNodes,
    /// This node was shut out of its pool, and its own ComfyUI does not take it.
    Outside {
        words: String,
    },
    /// Some node would take it, but it is another job's turn.
    BehindOthers,
    InLine {
        places: Vec<(String, Place)>,
    },
    /// No node is asked; what is closest to working comes first.
    Nobody {
        reasons: Vec<(String, WhyNot)>,
        /// Nodes that are not named.
        more: usize,
        /// A model that somebody lacks, and who in this studio has it.
        elsewhere: Option<(ModelName, Vec<String>)>,
    },
    Claimed {
        node: String,
    },
    Held {
        node: String,
        at: Held,
        /// Seconds without a word, once that is long.
        silent_s: Option<u64>,
    },
    Done {
        node: String,
        exec_ms: u64,
    },
    Failed {
        failures: Vec<(String, Failure)>,
    },
    Cancelled,
    /// A person wants it not to begin.
    Paused,
    /// This deputy may have gone on with the job: its answer comes first.
    AsksDeputy {
        node: String,
    },
    /// It is another node's, which is there and has it rendered itself.
    KeptFor {
        node: String,
    },
    /// It takes results of tasks that have not been rendered: this one of its job, and so many more.
    BuildsOn {
        on: u32,
        more: usize,
    },
    /// This task of its job, whose result it takes, failed or was cancelled.
    Skipped {
        on: u32,
        failed: bool,
    },
    /// Of a whole job.
    AllDone {
        tasks: usize,
    },
    /// Of a whole job: it is where this one of its tasks is, by its index.
    OfTask {
        index: u32,
        of: usize,
        why: Box<Self>,
    },
}

/// A job's place in a node's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The offer is under way.
    Asked,
    /// So many are before it.
    Waiting { position: u32, eta_ms: Option<u64> },
}

/// How far a node is with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It has not said yet that it takes it.
    Granted,
    Accepted,
    At(Doing),
    Fetching,
    FetchBroke {
        why: String,
    },
    /// It is the job's deputy and has it rendered.
    ByDeputy,
    Somehow,
}

/// What a renderer does, as it last said.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Doing {
    FetchingInputs,
    QueuedInComfyui,
    Steps { graph_node: String, step: u32, max: u32 },
    Nodes { done: u32, of: u32 },
    Sealing,
}

/// A no, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum No {
    /// Its own words, cut to what is agreed on; they may be none.
    Refused {
        reason: RefusalReason,
        detail: String,
    },
    /// It does not run this node class of others.
    Class {
        class: String,
        why: WhyDenied,
    },
    NoAnswer {
        why: String,
    },
    /// It claimed, and then did not take it, again and again.
    Balks,
    /// It failed so many tasks of the job that it gets none of it for a while.
    FailedMany {
        tasks: usize,
    },
    /// The task could not be sealed for it.
    NotSealed {
        why: String,
    },
}

/// One event of a task's story.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Line {
    Queued,
    QueuedAgain,
    Offered {
        node: String,
    },
    InLine {
        node: String,
        position: u32,
    },
    SaidNo {
        node: String,
        no: No,
    },
    Claimed {
        node: String,
    },
    NotSealed {
        node: String,
        why: String,
    },
    Granted {
        node: String,
        attempt: u32,
    },
    BadSignature {
        node: String,
    },
    Accepted {
        node: String,
    },
    /// The graph was found wanting.
    Rejected {
        node: String,
        no: No,
    },
    /// Nobody's failure.
    NotTaken {
        node: String,
        no: No,
    },
    Doing {
        node: String,
        doing: Doing,
    },
    Silent {
        node: String,
    },
    Lost {
        node: String,
        silent_s: u64,
    },
    Unheld {
        node: String,
    },
    Back {
        node: String,
    },
    Finished {
        node: String,
    },
    FetchBroke {
        node: String,
        why: String,
    },
    Done {
        node: String,
        files: usize,
    },
    Failed {
        node: String,
        failure: Failure,
    },
    FailedForGood,
    Cancelled,
    Paused,
    Resumed,
    /// Some of the results look wrong.
    Suspect {
        node: String,
        files: u32,
    },
    /// Its renderer could not remove everything from its ComfyUI.
    NotWiped {
        node: String,
    },
    /// This node holds the job too, and goes on with it when this one is gone.
    KeptOn {
        node: String,
    },
    /// It does not hold the job.
    NotKept {
        node: String,
        why: String,
    },
    /// The job is this node's, and held here as well.
    KeptFor {
        node: String,
    },
    /// That node is gone: the job goes on from here.
    TakenUp {
        node: String,
    },
    /// It is back and goes on with its job itself.
    GivenBack {
        node: String,
    },
    /// The deputy had it rendered, or has it rendered, while this node was away.
    InHand {
        node: String,
    },
}

impl Why {
    /// For programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::NoNodes => "no_nodes",
            Self::Outside { .. } => "outside",
            Self::BehindOthers => "behind_others",
            Self::InLine { .. } => "in_line",
            Self::Nobody { .. } => "nobody",
            Self::Claimed { .. } => "claimed",
            Self::Held { at, .. } => match at {
                Held::Granted => "granted",
                Held::Accepted | Held::Somehow => "accepted",
                Held::ByDeputy => "by_deputy",
                Held::At(doing) => doing.code(),
                Held::Fetching => "fetching",
                Held::FetchBroke { .. } => "fetch_broke",
            },
            Self::Done { .. } | Self::AllDone { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::AsksDeputy { .. } => "asks_deputy",
            Self::KeptFor { .. } => "kept_for",
            Self::BuildsOn { .. } => "builds_on",
            Self::Skipped { .. } => "skipped",
            Self::OfTask { why, .. } => why.code(),
        }
    }
}

impl Doing {
    const fn code(&self) -> &'static str {
        match self {
            Self::FetchingInputs => "fetching_inputs",
            Self::QueuedInComfyui => "queued_in_comfyui",
            Self::Steps { .. } | Self::Nodes { .. } => "rendering",
            Self::Sealing => "sealing",
        }
    }
}

impl Line {
    /// For programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::QueuedAgain => "queued_again",
            Self::Offered { .. } => "offered",
            Self::InLine { .. } => "in_line",
            Self::SaidNo { .. } => "said_no",
            Self::Claimed { .. } => "claimed",
            Self::NotSealed { .. } => "not_sealed",
            Self::Granted { .. } => "granted",
            Self::BadSignature { .. } => "bad_signature",
            Self::Accepted { .. } => "accepted",
            Self::Rejected { .. } => "rejected",
            Self::NotTaken { .. } => "not_taken",
            Self::Doing { doing, .. } => doing.code(),
            Self::Silent { .. } => "silent",
            Self::Lost { .. } => "lost",
            Self::Unheld { .. } => "unheld",
            Self::Back { .. } => "back",
            Self::Finished { .. } => "finished",
            Self::FetchBroke { .. } => "fetch_broke",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::FailedForGood => "failed_for_good",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Suspect { .. } => "suspect",
            Self::NotWiped { .. } => "not_wiped",
            Self::KeptOn { .. } => "kept_on",
            Self::NotKept { .. } => "not_kept",
            Self::KeptFor { .. } => "kept_for",
            Self::TakenUp { .. } => "taken_up",
            Self::GivenBack { .. } => "given_back",
            Self::InHand { .. } => "in_hand",
        }
    }
}

impl Doing {
    pub(super) fn of(progress: &Progress) -> Self {
        match progress.phase {
            Phase::Fetching => Self::FetchingInputs,
            Phase::Queued => Self::QueuedInComfyui,
            Phase::Sealing => Self::Sealing,
            Phase::Running if progress.max > 0 => {
                Self::Steps { graph_node: cut(progress.node.clone()), step: progress.step, max: progress.max }
            }
            Phase::Running => Self::Nodes { done: progress.nodes_done, of: progress.nodes_total },
        }
    }
}

/// Cuts what a peer says to the length that is agreed on, and control characters out of it.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(scenemesh_protocol::lease::SENTENCE_LIMIT));
    text.retain(|c| !c.is_control());
    text
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits => f.write_str("waits"),
            Self::NoNodes => {
                f.write_str("no node is known: this machine has no ComfyUI and is in no pool yet")
            }
            Self::Outside { words } => write!(f, "{words}"),
            Self::BehindOthers => f.write_str("waits behind other jobs of this machine"),
            Self::InLine { places } => {
                let places: Vec<String> =
                    places.iter().map(|(node, place)| format!("{node} ({place})")).collect();
                write!(f, "waits for a free slot at {}", places.join(", "))
            }
            Self::Nobody { reasons, more, elsewhere } => {
                let reasons: Vec<String> =
                    reasons.iter().map(|(node, why)| format!("{node} {why}")).collect();
                write!(f, "no node takes it now: {}", reasons.join("; "))?;
                if *more > 0 {
                    write!(f, "; and {more} more")?;
                }
                match elsewhere {
                    Some((model, nodes)) => write!(f, " ({model} is on {})", nodes.join(", ")),
                    None => Ok(()),
                }
            }
            Self::Claimed { node } => write!(f, "claimed by {node}, being sealed for it"),
            Self::Held { node, at, silent_s } => {
                match at {
                    Held::Granted => write!(f, "granted to {node}, which has not answered yet")?,
                    Held::Accepted => write!(f, "accepted by {node}")?,
                    Held::At(doing) => write!(f, "{doing} on {node}")?,
                    Held::Fetching => write!(f, "rendered by {node}; fetching the results")?,
                    Held::FetchBroke { why } => write!(
                        f,
                        "rendered by {node}; fetching the results broke off ({why}) and is tried again"
                    )?,
                    Held::ByDeputy => {
                        write!(f, "{node}, its deputy, has it rendered and brings the results")?;
                    }
                    Held::Somehow => write!(f, "with {node}")?,
                }
                silent_s.map_or(Ok(()), |silent| write!(f, "; silent for {silent} s"))
            }
            Self::Done { node, exec_ms } => write!(f, "done by {node} in {} s", seconds(*exec_ms)),
            Self::Failed { failures } => {
                let failures: Vec<String> =
                    failures.iter().map(|(node, failure)| format!("{node}: {failure}")).collect();
                write!(f, "failed: {}", failures.join("; "))
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::Paused => f.write_str("paused: it waits for `scenemesh resume`"),
            Self::AsksDeputy { node } => {
                write!(
                    f,
                    "asks its deputy {node} first, which may have gone on with it while this node was away"
                )
            }
            Self::KeptFor { node } => {
                write!(f, "held for {node}, which has it rendered itself while it is there")
            }
            Self::BuildsOn { on, more: 0 } => write!(f, "builds on task #{on}, which is not rendered yet"),
            Self::BuildsOn { on, more } => {
                write!(f, "builds on task #{on} and {more} more, which are not rendered yet")
            }
            Self::Skipped { on, failed } => {
                let how = if *failed { "failed" } else { "was cancelled" };
                write!(
                    f,
                    "not rendered: task #{on}, on which it builds, {how}; `scenemesh retry` runs both again"
                )
            }
            Self::AllDone { tasks } => write!(f, "all {tasks} tasks are done"),
            Self::OfTask { index, of, why } => write!(f, "task #{index} of {of}: {why}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked"),
            Self::Waiting { position, eta_ms: None } => write!(f, "{position} ahead"),
            Self::Waiting { position, eta_ms: Some(eta) } => {
                write!(f, "{position} ahead, about {} s", eta / 1000)
            }
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FetchingInputs => f.write_str("fetching inputs"),
            Self::QueuedInComfyui => f.write_str("queued in ComfyUI"),
            Self::Sealing => f.write_str("sealing the results"),
            Self::Steps { graph_node, step, max } => {
                write!(f, "rendering, node {graph_node}, step {step} of {max}")
            }
            Self::Nodes { done, of } => write!(f, "rendering, {done} of {of} nodes done"),
        }
    }
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { reason, detail } if detail.trim().is_empty() => f.write_str(words(*reason)),
            Self::Refused { detail, .. } => f.write_str(detail),
            Self::Class { class, why } => write!(f, "it does not run node class {class} of others: {why}"),
            Self::NoAnswer { why } => write!(f, "no answer to the offer ({why})"),
            Self::Balks => {
                f.write_str("it keeps claiming what it then does not take; it is asked again later")
            }
            Self::FailedMany { tasks } => {
                write!(
                    f,
                    "it failed {tasks} tasks of this job and gets none of it for five hours, or until a retry"
                )
            }
            Self::NotSealed { why } => f.write_str(why),
        }
    }
}

/// A reason that comes without words.
const fn words(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::NotReady => "its ComfyUI is not ready",
        RefusalReason::MissingClass => "it lacks a node class",
        RefusalReason::MissingModel => "it lacks a model",
        RefusalReason::TooLittleVram => "it has too little video memory",
        RefusalReason::NotAllowed => "it does not allow this",
        RefusalReason::Busy => "it is busy",
        RefusalReason::Stopping => "it is stopping",
        RefusalReason::DiskFull => "its disk is full",
        RefusalReason::BadGrant => "it cannot accept the grant",
        RefusalReason::Tombstone => "it has given this attempt up",
        RefusalReason::Version => "it runs another release",
        RefusalReason::NotNow => "not now",
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued => f.write_str("queued"),
            Self::QueuedAgain => f.write_str("queued again"),
            Self::Offered { node } => write!(f, "offered to {node}"),
            Self::InLine { node, position } => write!(f, "waits at {node}, {position} ahead"),
            Self::SaidNo { node, no } => write!(f, "refused by {node}: {no}"),
            Self::Claimed { node } => write!(f, "claimed by {node}"),
            Self::NotSealed { node, why } => write!(f, "could not be sealed for {node}: {why}"),
            Self::Granted { node, attempt } => write!(f, "granted to {node}, attempt {attempt}"),
            Self::BadSignature { node } => write!(f, "{node} accepted with a signature that does not hold"),
            Self::Accepted { node } => write!(f, "accepted by {node}"),
            Self::Rejected { node, no } => write!(f, "rejected by {node}: {no}"),
            Self::NotTaken { node, no } => write!(f, "not taken by {node}: {no}"),
            Self::Doing { node, doing } => write!(f, "{node}: {doing}"),
            Self::Silent { node } => write!(f, "{node} is silent: asking it"),
            Self::Lost { node, silent_s } => write!(f, "lease lost: {node} has been silent for {silent_s} s"),
            Self::Unheld { node } => write!(f, "{node} does not have it any more"),
            Self::Back { node } => write!(f, "{node} is back and still has it"),
            Self::Finished { node } => write!(f, "finished by {node}: fetching the results"),
            Self::FetchBroke { node, why } => write!(f, "fetching from {node} broke off: {why}"),
            Self::Done { node, files } => write!(f, "done: {files} files from {node}"),
            Self::Failed { node, failure } => write!(f, "failed at {node}: {failure}"),
            Self::FailedForGood => f.write_str("failed for good"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Paused => f.write_str("paused"),
            Self::Resumed => f.write_str("resumed"),
            Self::Suspect { node, files } => write!(f, "{files} files from {node} look wrong: see show"),
            Self::NotWiped { node } => {
                write!(f, "{node} could not remove everything from its ComfyUI: show says what")
            }
            Self::KeptOn { node } => write!(f, "held by {node} too: it goes on when this node is gone"),
            Self::NotKept { node, why } => write!(f, "not held by {node}: {why}"),
            Self::KeptFor { node } => write!(f, "held for {node}"),
            Self::TakenUp { node } => write!(f, "{node} is gone: goes on from here"),
            Self::GivenBack { node } => write!(f, "{node} is back and goes on itself"),
            Self::InHand { node } => {
                write!(f, "{node}, its deputy, had it rendered meanwhile: its result is awaited")
            }
        }
    }
}

/// With one digit.
pub fn seconds(ms: u64) -> String {
    format!("{:.1}", std::time::Duration::from_millis(ms).as_secs_f64())
}
