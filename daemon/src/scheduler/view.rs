//! What people are shown of jobs and tasks.

use std::fmt;
use std::sync::Arc;

use scenemesh_protocol::ids::{JobId, NodeId, ProjectId, TaskId};
use scenemesh_protocol::lease::Progress;
use scenemesh_protocol::receipt::WipeRecord;
use scenemesh_protocol::task::{Class, Failure, OutputFile, Reach};

use super::story::{Line, Why};
use super::suspicion::Suspect;

/// A job and its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    pub job: JobId,
    pub label: String,
    pub person: String,
    pub state: JobState,
    pub class: Class,
    pub reach: Reach,
    pub project: Option<ProjectId>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The deputy that holds it as well, by name.
    pub kept_on: Option<String>,
    /// Whose it is, by name, when it is only held here.
    pub kept_for: Option<String>,
    pub tasks: Vec<TaskView>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub task: TaskId,
    pub job: JobId,
    /// Place in the job, from 0.
    pub index: u32,
    pub state: TaskPhase,
    /// Who renders it, or rendered it.
    pub node: Option<NodeId>,
    pub node_name: String,
    /// Attempts that were granted so far.
    pub attempts: u32,
    pub progress: Option<Progress>,
    pub outputs: Vec<OutputFile>,
    /// Failed attempts: node name and failure, oldest first.
    pub failures: Vec<(String, Failure)>,
    /// Milliseconds of execution of the result.
    pub exec_ms: Option<u64>,
    /// Why it stands where it stands.
    pub why: Why,
    pub ended_ms: Option<u64>,
    /// The task insists on leaving nothing, not even in a cache.
    pub full_hygiene: bool,
    /// What renderers say they removed, oldest attempt first.
    pub wipes: Vec<WipeView>,
    /// What sets it apart from the other tasks of its job: `NODE.INPUT`, and the value as JSON.
    pub varied: Vec<(String, String)>,
    /// Outputs that look wrong.
    pub suspects: Vec<Suspect>,
}

/// Tasks of this node's jobs that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenTasks {
    /// They wait for a renderer.
    pub queued: usize,
    /// A renderer has them, or their result is being fetched.
    pub running: usize,
}

/// What one renderer removed after one attempt, signed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipeView {
    pub attempt: u32,
    pub node_name: String,
    pub record: Arc<WipeRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Queued,
    Running,
    Done,
    /// Over, and at least one task failed.
    Failed,
    /// Over, none failed, at least one was cancelled.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    Queued,
    /// A node has the grant and has not said yes yet.
    Granted,
    Running,
    /// Rendered; the results are on their way here.
    Fetching,
    Done,
    Failed,
    Cancelled,
}

impl TaskPhase {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Granted => "granted",
            Self::Running => "running",
            Self::Fetching => "fetching",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for TaskPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl JobState {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// What a job is when its tasks are these.
    pub fn of(tasks: impl Iterator<Item = TaskPhase> + Clone) -> Self {
        let any = |wanted: &dyn Fn(TaskPhase) -> bool| tasks.clone().any(wanted);
        if any(&|task| !task.is_over()) {
            let untouched = !any(&|task| task != TaskPhase::Queued);
            return if untouched { Self::Queued } else { Self::Running };
        }
        if any(&|task| task == TaskPhase::Failed) {
            Self::Failed
        } else if any(&|task| task == TaskPhase::Cancelled) {
            Self::Cancelled
        } else {
            Self::Done
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// News of a job. Whoever misses some asks for the whole job again.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// A job came, or ended, or goes on again.
    Job {
        job: JobId,
    },
    /// A task changed in more than its progress.
    Task {
        job: JobId,
        task: Arc<TaskView>,
    },
    Progress {
        job: JobId,
        task: TaskId,
        progress: Progress,
    },
    /// A newer preview picture can be had.
    Preview {
        job: JobId,
        task: TaskId,
    },
    /// A binary frame of the renderer's ComfyUI, for whoever speaks as that one does. It is not kept.
    Relayed {
        job: JobId,
        frame: bytes::Bytes,
    },
    Log {
        job: JobId,
        line: LogLine,
    },
}

/// One line of a task's story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub task: TaskId,
    /// Index of that task within its job.
    pub index: u32,
    pub line: Line,
}
