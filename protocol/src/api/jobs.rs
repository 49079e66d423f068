//! Jobs and tasks: submitting, looking, following.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::advert::Hygiene;
use crate::ids::{JobId, NodeId, TaskId};
use crate::task::{Class, FailureClass, OnSuspect, OutputKind};

/// How far a job may travel, as people write it: `machine`, `studio`, `pool`, or names or ids of studios with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReachWords {
    Machine,
    #[default]
    Studio,
    Pool,
    Studios(Vec<String>),
}

impl fmt::Display for ReachWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("machine"),
            Self::Studio => f.write_str("studio"),
            Self::Pool => f.write_str("pool"),
            Self::Studios(names) => f.write_str(&names.join(",")),
        }
    }
}

impl FromStr for ReachWords {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "machine" => Self::Machine,
            "studio" => Self::Studio,
            "pool" => Self::Pool,
            names => Self::Studios(names.split(',').map(|name| name.trim().to_owned()).collect()),
        })
    }
}

impl Serialize for ReachWords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReachWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Asks for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// What the person calls it; the workflow's file name, as a rule.
    pub label: String,
    /// The workflow as its file has it, so that a syntax error has a line and a column.
    pub workflow: String,
    #[serde(default)]
    pub set: Vec<Setting>,
    #[serde(default)]
    pub inputs: Vec<InputName>,
    /// Tasks for each combination of varied inputs; task i of them gets i added to every `seed` and `noise_seed` literal.
    pub count: u32,
    /// Inputs that are another from task to task; there is a task for each combination of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vary: Vec<Variation>,
    /// Workflows that take results of the one before, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<StageRequest>,
    #[serde(default)]
    pub class: Class,
    /// `None`: the studio, or less where the project allows less.
    #[serde(default)]
    pub reach: Option<ReachWords>,
    /// Name or id of a project of the studio.
    #[serde(default)]
    pub project: Option<String>,
    #[serde(default)]
    pub needs: NeedsRequest,
    /// What is done with pictures that look wrong.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_suspect: OnSuspect,
    /// Which node holds the job too and goes on with it when this one is gone: a name or id of a node of the studio with
    /// the role `keep`, or `none`. `None`: such a node, if there is one; never for a job that stays on its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_on: Option<String>,
    /// Whether preview pictures are wanted.
    #[serde(default)]
    pub previews: bool,
    /// Run only where every trace can be removed.
    #[serde(default)]
    pub full_hygiene: bool,
}

/// A workflow that takes results of earlier ones of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRequest {
    /// As [`SubmitRequest::workflow`].
    pub workflow: String,
    #[serde(default)]
    pub set: Vec<Setting>,
    #[serde(default)]
    pub inputs: Vec<InputName>,
    /// Tasks for each task that it builds on, and each combination of varied inputs.
    #[serde(default = "one")]
    pub count: u32,
    #[serde(default)]
    pub vary: Vec<Variation>,
    /// Which results are inputs here.
    #[serde(default)]
    pub feeds: Vec<FeedRequest>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn one() -> u32 {
    1
}

/// Gives a result of an earlier workflow the name of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRequest {
    /// As the workflow calls it. With `{i}` in it, the results of all tasks are taken together, `{i}` being their number.
    pub name: String,
    /// Id of the earlier workflow's node that makes the file.
    pub node: String,
    /// Which of that node's files, from 0.
    #[serde(default)]
    pub file: u16,
    /// Place of the earlier workflow in the job, from 0; the one just before when it is not said.
    #[serde(default)]
    pub stage: Option<u16>,
}

/// An input with one value for each task, or for each combination of several such inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// `NODE.INPUT`, for instance `3.cfg`.
    pub path: String,
    /// Each as in [`Setting::value`].
    pub values: Vec<String>,
}

/// Replaces one literal of the workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// `NODE.INPUT`, for instance `3.seed`.
    pub path: String,
    /// As typed: text where text stood, otherwise JSON.
    pub value: String,
}

/// Binds an uploaded input to the name that stands in the workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputName {
    pub name: String,
    /// From [`InputReply`].
    pub input: String,
}

/// What a node must have. `None` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedsRequest {
    pub vram_mib: Option<u32>,
    /// CUDA compute capability times ten (8.9 is 89).
    pub min_cc: Option<u16>,
}

/// An uploaded input. The handle is good until the daemon stops, or for an hour if no job uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReply {
    pub input: String,
    /// Bytes received.
    pub bytes: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen unless somebody retries.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a node; `why` says for what.
    Queued,
    /// A node claimed it and is getting its inputs.
    Granted,
    /// ComfyUI works on it.
    Running,
    /// Rendered; its result is on its way here.
    Fetching,
    Done,
    Failed,
    Cancelled,
}

impl TaskState {
    /// Whether nothing more will happen unless somebody retries.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A node as people know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    pub id: NodeId,
    /// Its name in the roster, or the short form of its id.
    pub name: String,
    pub studio: Option<String>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    pub job: JobId,
    /// The shortest prefix, of eight characters at least, that no other job of this node shares.
    pub short: String,
    /// Empty for somebody else's job.
    pub label: String,
    /// Who submitted it, and for which project; for those who may see it.
    #[serde(default)]
    pub person: Option<String>,
    #[serde(default)]
    pub project: Option<String>,
    /// Somebody else's job: its state is shown, and nothing of what it is about.
    #[serde(default)]
    pub hidden: bool,
    pub state: JobState,
    pub class: Class,
    pub reach: ReachWords,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The node that holds it too, and goes on with it when this one is gone.
    #[serde(default)]
    pub kept_on: Option<String>,
    /// The node whose job it is, when it is only held here.
    #[serde(default)]
    pub kept_for: Option<String>,
    /// In the order of their index.
    pub tasks: Vec<TaskView>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub task: TaskId,
    /// As [`JobView::short`], among tasks.
    pub short: String,
    /// Counts from 0 within the job.
    pub index: u32,
    pub state: TaskState,
    /// Where it runs or ran last.
    pub node: Option<NodeRef>,
    /// Attempts begun.
    pub attempts: u32,
    pub progress: Option<ProgressView>,
    pub outputs: Vec<OutputView>,
    pub failures: Vec<FailureView>,
    pub usage: UsageView,
    /// While queued, for what; and of a task that never ran, because of which other. One sentence of the asker's language.
    pub waiting: Option<String>,
    /// The same for programs: as [`WhyReply::code`].
    pub waiting_code: Option<String>,
    /// It insists on leaving nothing behind, not even in a cache.
    #[serde(default)]
    pub full_hygiene: bool,
    /// What renderers signed that they removed, oldest attempt first.
    #[serde(default)]
    pub wipes: Vec<WipeView>,
    /// What its varied inputs are set to, each as JSON.
    #[serde(default)]
    pub varied: Vec<Setting>,
}

/// What one renderer removed after one attempt, and what it could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeView {
    pub attempt: u32,
    /// Name of the node.
    pub node: String,
    /// What could be removed there at all.
    pub hygiene: Hygiene,
    pub wiped: WipeCounts,
    pub left: WipeCounts,
}

/// How many of each kind of trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WipeCounts {
    /// Entries of ComfyUI's history.
    pub history: u32,
    /// Uploaded files.
    pub inputs: u32,
    /// Saved files.
    pub outputs: u32,
    /// Previews and other temporary files.
    pub temp: u32,
    /// Its execution cache.
    pub cache: u32,
}

impl WipeCounts {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How far ComfyUI is with a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// Class or id of the graph's node at work.
    pub node: String,
    pub step: u32,
    /// Steps of the node at work; zero when it does not count.
    pub max: u32,
    pub nodes_done: u32,
    pub nodes_total: u32,
}

/// One result file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// Position among the task's outputs, for `/v1/tasks/ID/outputs/N`.
    pub index: u32,
    /// Id of the graph's node that made it.
    pub node: String,
    pub kind: OutputKind,
    /// As ComfyUI named it; chosen by another machine, so not to be trusted as a path.
    pub filename: String,
    pub bytes: u64,
    /// What looks wrong with it, in the asker's language.
    #[serde(default)]
    pub suspect: Option<String>,
    /// The same for programs: `undecodable`, `uniform` or `wrong_size`; more may be added.
    #[serde(default)]
    pub suspect_code: Option<String>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Name of the node that tried.
    pub node: String,
    pub class: FailureClass,
    /// Class and detail, in the asker's language: `out of memory: …`.
    pub why: String,
}

/// What a task took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Milliseconds that ComfyUI executed, without queue and transfer.
    pub exec_ms: Option<u64>,
    /// Thousandths of a reference GPU-second, once there are books.
    pub rgs_milli: Option<u64>,
}

/// All jobs, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsReply {
    pub jobs: Vec<JobView>,
}

/// Why a job or task is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply {
    pub id: String,
    /// One sentence in the asker's language.
    pub why: String,
    /// `in_line`, `nobody`, `rendering` …: stable, for programs; more may be added.
    pub code: String,
}

/// What happened to a job or task, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReply {
    pub lines: Vec<LogLine>,
}

/// One line of a task's story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub task: Option<TaskId>,
    /// Index of that task within its job.
    pub index: Option<u32>,
    /// One sentence in the asker's language.
    pub text: String,
    /// `offered`, `granted`, `lost` …: stable, for programs; more may be added.
    pub code: String,
}

/// What a client of the event streams hears. Each is the `data` of one server-sent event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The whole job: first of a job's stream, again when its state changes or events were missed.
    Job {
        job: JobView,
    },
    /// A task changed in more than its progress.
    Task {
        job: JobId,
        task: Box<TaskView>,
    },
    Progress {
        job: JobId,
        task: TaskId,
        progress: ProgressView,
    },
    /// A newer preview picture can be had.
    Preview {
        job: JobId,
        task: TaskId,
    },
    Log {
        job: JobId,
        line: LogLine,
    },
    /// Of a newer release.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_is_written_as_people_write_it() {
        for words in ["machine", "studio", "pool", "amber,birch"] {
            let reach: ReachWords = words.parse().unwrap();
            assert_eq!(reach.to_string(), words);
            assert_eq!(serde_json::to_string(&reach).unwrap(), format!("\"{words}\""));
        }
    }

    #[test]
    fn events_of_a_newer_release_are_passed_over() {
        let event: Event = serde_json::from_str(r#"{"event":"approved","job":1}"#).unwrap();
        assert_eq!(event, Event::Unknown);
    }
}
