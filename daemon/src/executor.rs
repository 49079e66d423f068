//! Runs tasks on the ComfyUIs beside this node: one slot per endpoint, one run per slot.
//!
//! Inputs and outputs cross this door only as sealed blobs; plaintext is streamed between the store and
//! ComfyUI and never spooled here. When [`Event::Ended`] is out, the outputs are on disk and ComfyUI is clean.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::receipt::{WipeCount, Wiped};
use scenemesh_protocol::task::{Failure, FailureClass, InputFile, ModelName, OutputFile};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::store::Blobs;
use crate::supervisor::Tasks;

mod actor;
mod comfyui;
pub mod definitions;
#[cfg(any(test, feature = "test-util"))]
pub mod fake;
pub mod graph;
pub mod policy;

pub use comfyui::BadEndpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use comfyui::fuzzing;
pub use comfyui::inventory::{Inventory, MOST_DEFINITIONS};

use graph::Graph;
use policy::{Policy, Whose};

/// Which ComfyUIs there are.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub endpoints: Vec<EndpointConfig>,
    /// Tells this node's leftovers from those of other nodes that share a ComfyUI: letters and digits, stable
    /// over restarts. The short node id will do.
    pub owner: String,
}

/// One ComfyUI. The folders need to be given only where it runs in a container or on another host whose disks
/// are mounted here; otherwise it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointConfig {
    /// `http://HOST:PORT`, optionally with a path in front of ComfyUI's own.
    pub url: String,
    pub input_dir: Option<PathBuf>,
    pub output_dir: Option<PathBuf>,
    pub temp_dir: Option<PathBuf>,
}

/// A slot: the position of its endpoint in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// What a slot is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Not yet asked.
    Starting,
    /// `/system_stats` and `/object_info` answered, leftovers are swept.
    Ready,
    Busy {
        task: TaskId,
        attempt: u32,
    },
    NotReady {
        why: String,
    },
}

/// A device as ComfyUI sees it: the fallback where no driver tells more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceReading {
    pub name: String,
    /// `cuda`, `cpu`, `mps` …
    pub kind: String,
    pub vram_mib: Option<u32>,
    pub vram_free_mib: Option<u32>,
}

/// A slot as everybody else sees it.
#[derive(Clone, Debug)]
pub struct SlotView {
    pub slot: SlotId,
    pub url: String,
    pub state: SlotState,
    /// As of the last time it answered; empty before that.
    pub inventory: Arc<Inventory>,
    /// Models of the latest runs, most recent first.
    pub warm: Vec<ModelName>,
    pub devices: Vec<DeviceReading>,
    pub comfyui_version: String,
    /// Whether a run's files can be removed afterwards.
    pub hygiene: Hygiene,
    /// Prompts in ComfyUI's queue that are not ours: its owner is at work.
    pub others_queued: u32,
}

/// One attempt to run. What was sealed is wiped when dropped.
#[derive(Clone)]
pub struct Run {
    pub slot: SlotId,
    pub task: TaskId,
    pub attempt: u32,
    /// The graph in API format.
    pub graph: Zeroizing<Vec<u8>>,
    /// ComfyUI's `extra_data` as JSON, or nothing.
    pub extra_data: Zeroizing<Vec<u8>>,
    pub inputs: Vec<InputFile>,
    pub previews: bool,
    pub full_hygiene: bool,
    /// No earlier run can have posted it: it is not looked for before it is posted.
    pub fresh: bool,
    /// Measured from the start of execution.
    pub time_limit: Duration,
    /// Most bytes of all its results together.
    pub most_output_bytes: u64,
    pub rules: Rules,
}

/// What a run must keep to, as it holds when the prompt is posted.
#[derive(Clone, Debug)]
pub struct Rules {
    pub policy: watch::Receiver<Arc<Policy>>,
    pub whose: Whose,
}

impl Rules {
    /// Checks a graph as it is about to be posted. `attached` are the names of the files that come with it.
    ///
    /// # Errors
    /// The failure that the attempt ends with.
    pub fn check(&self, graph: &Graph, extra_data: &[u8], attached: &[String]) -> Result<(), Failure> {
        let policy = self.policy.borrow().clone();
        let found = policy.findings(graph, extra_data, attached, self.whose);
        if found.is_empty() { Ok(()) } else { Err(policy::failure(&found)) }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("slot", &self.slot)
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What happened to a run. After [`Event::Ended`] nothing more comes for its attempt.
#[derive(Clone, Debug)]
pub enum Event {
    /// ComfyUI began to execute.
    Started { task: TaskId, attempt: u32 },
    /// May be skipped when nobody keeps up.
    Progress {
        task: TaskId,
        attempt: u32,
        /// The node at work.
        node: String,
        step: u32,
        max: u32,
        nodes_done: u32,
        nodes_total: u32,
    },
    /// A small picture of the work so far; may be skipped when nobody keeps up.
    Preview {
        task: TaskId,
        attempt: u32,
        /// Media type, `image/jpeg` for instance.
        format: &'static str,
        bytes: bytes::Bytes,
    },
    Ended {
        task: TaskId,
        attempt: u32,
        outcome: Outcome,
        /// What was removed afterwards; none where nothing had reached ComfyUI, or the node stopped before its end.
        wipe: Option<Wipe>,
    },
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done {
        /// Sealed and fsynced.
        outputs: Vec<OutputFile>,
        /// From ComfyUI's own start to its own end, without queue and transfers, in milliseconds.
        exec_ms: u64,
    },
    Failed(Failure),
}

/// What was removed from ComfyUI after a run, and what could not be. Counts only: names would tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wipe {
    /// What could be removed at all there.
    pub hygiene: Hygiene,
    pub wiped: Vec<WipeCount>,
    pub left: Vec<WipeCount>,
}

impl Wipe {
    /// How many of a kind were removed.
    pub fn wiped(&self, what: Wiped) -> u32 {
        count_in(&self.wiped, what)
    }

    /// How many of a kind are still there.
    pub fn left(&self, what: Wiped) -> u32 {
        count_in(&self.left, what)
    }
}

fn count_in(counts: &[WipeCount], what: Wiped) -> u32 {
    counts.iter().filter(|count| count.what == what).map(|count| count.count).sum()
}

/// How a run ended, and what it left.
#[derive(Clone, Debug)]
pub struct RunEnd {
    pub outcome: Outcome,
    pub wipe: Option<Wipe>,
}

impl From<Outcome> for RunEnd {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, wipe: None }
    }
}

/// Video memory of the GPU behind a slot, as its ComfyUI tells, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Used by anybody.
    pub used_mib: u32,
    /// Held by this ComfyUI, whether it uses it or not.
    pub held_mib: u32,
    pub total_mib: u32,
}

/// What came of giving a GPU's memory back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    pub before: Option<Memory>,
    pub after: Option<Memory>,
    pub verdict: Verdict,
}

/// Whether memory was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Seen to be free.
    Freed,
    /// It was asked for, and ComfyUI still holds it.
    StillHeld,
    /// It was asked for, and nothing tells whether it went.
    Unknown { why: String },
    /// A prompt runs there, of this machine or of whoever sits at it: nothing was unloaded.
    InUse,
    /// Nobody answers there: what is gone holds nothing.
    NotRunning,
    /// A stopped prompt of ours goes on there. Worth another try.
    Stuck { why: String },
}

impl Freed {
    pub fn of(verdict: Verdict) -> Self {
        Self { before: None, after: None, verdict }
    }
}

/// Why a run was not accepted. Nothing happened yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("there is no {0}; the configuration has fewer [[comfyui]] blocks")]
    NoSuchSlot(SlotId),
    #[error("{0} is busy with another task")]
    Busy(SlotId),
    #[error("the ComfyUI of {slot} is not ready: {why}")]
    NotReady { slot: SlotId, why: String },
    #[error("the node is stopping")]
    Stopping,
}

/// Handle to the executor; cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    slots: watch::Receiver<Arc<Vec<SlotView>>>,
    inboxes: Arc<Vec<mpsc::Sender<Command>>>,
}

#[derive(Debug)]
enum Command {
    Run { run: Box<Run>, reply: oneshot::Sender<Result<(), RunError>> },
    Cancel { task: TaskId, attempt: u32 },
    Free { reply: oneshot::Sender<Freed> },
}

/// Starts one actor per endpoint. Slots begin as [`SlotState::Starting`] and are probed at once.
///
/// # Errors
/// When an endpoint's URL cannot be one of a ComfyUI.
pub fn spawn(
    config: Config,
    store: Blobs,
    tasks: &Tasks,
) -> Result<(Executor, mpsc::Receiver<Event>), BadEndpoint> {
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    for endpoint in config.endpoints {
        backends.push(Box::new(comfyui::Comfyui::new(endpoint, &config.owner, store.clone())?));
    }
    Ok(spawn_with(backends, tasks))
}

/// Starts one actor per backend.
pub fn spawn_with(backends: Vec<Box<dyn Backend>>, tasks: &Tasks) -> (Executor, mpsc::Receiver<Event>) {
    actor::spawn(backends, tasks)
}

/// Asks a ComfyUI that may not be configured for its version. The error is a sentence for people.
///
/// # Errors
/// When nothing answers there, or not as ComfyUI does.
pub async fn look(url: &str) -> Result<String, String> {
    comfyui::look(url).await
}

impl Executor {
    /// All slots, kept up to date.
    pub fn slots(&self) -> watch::Receiver<Arc<Vec<SlotView>>> {
        self.slots.clone()
    }

    /// Checks a graph against what a slot's ComfyUI has, before a byte is moved. `inputs` are the names of the
    /// files that come with the task. No I/O.
    ///
    /// # Errors
    /// The failure the attempt would end with.
    pub fn preflight(&self, slot: SlotId, graph: &[u8], inputs: &[String]) -> Result<(), Failure> {
        let slots = self.slots.borrow().clone();
        let Some(view) = slots.get(usize::from(slot.0)) else {
            return Err(Failure::new(FailureClass::ComfyuiDied, RunError::NoSuchSlot(slot).to_string()));
        };
        let graph = Graph::parse(graph)
            .map_err(|error| Failure::new(FailureClass::InvalidGraph, error.to_string()))?;
        view.inventory.check(&graph, inputs)
    }

    /// Hands a run to its slot. Resolves when it is accepted, not when it has run; accepting the same attempt
    /// twice is one run.
    ///
    /// # Errors
    /// When the slot does not exist, is busy or not ready, or the node stops.
    pub async fn run(&self, run: Run) -> Result<(), RunError> {
        let inbox = self.inboxes.get(usize::from(run.slot.0)).ok_or(RunError::NoSuchSlot(run.slot))?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Run { run: Box::new(run), reply };
        inbox.send(command).await.map_err(|_| RunError::Stopping)?;
        answer.await.map_err(|_| RunError::Stopping)?
    }

    /// Cancels an attempt wherever it runs; [`Event::Ended`] follows if it did. One that an earlier run of this
    /// node left in ComfyUI is stopped and removed too, without an event.
    pub async fn cancel(&self, task: TaskId, attempt: u32) {
        for inbox in self.inboxes.iter() {
            // A closed inbox means the node is stopping, which cancels everything.
            drop(inbox.send(Command::Cancel { task, attempt }).await);
        }
    }
}

impl Executor {
    /// Has a slot's ComfyUI unload its models and empty its cache, and looks whether the memory went. Takes seconds;
    /// a slot that runs something keeps what it has.
    pub async fn free(&self, slot: SlotId) -> Freed {
        let stopping = || Freed::of(Verdict::Unknown { why: RunError::Stopping.to_string() });
        let Some(inbox) = self.inboxes.get(usize::from(slot.0)) else {
            return Freed::of(Verdict::Unknown { why: RunError::NoSuchSlot(slot).to_string() });
        };
        let (reply, answer) = oneshot::channel();
        if inbox.send(Command::Free { reply }).await.is_err() {
            return stopping();
        }
        answer.await.unwrap_or_else(|_| stopping())
    }
}

/// What renders: ComfyUI, or a script in tests. Owned by one slot's actor, which calls one method at a time.
pub trait Backend: Send + 'static {
    fn url(&self) -> String;

    /// Proves that work could start now, and tells what there is. The error is a sentence for people.
    fn probe(&mut self) -> futures::future::BoxFuture<'_, Result<Probe, String>>;

    /// Runs one attempt to its end, cleaning up behind it. When `stop` is cancelled it ends soon, as cancelled.
    fn run<'a>(
        &'a mut self,
        run: &'a Run,
        report: &'a Reporter,
        stop: tokio_util::sync::CancellationToken,
    ) -> futures::future::BoxFuture<'a, RunEnd>;

    /// Gives the GPU's memory back, and says what came of it.
    fn free(&mut self) -> futures::future::BoxFuture<'_, Freed> {
        Box::pin(std::future::ready(Freed::of(Verdict::Unknown { why: "it has no GPU".to_owned() })))
    }

    /// An attempt that does not run here now, but may still from before a restart, is not wanted any more.
    fn abandon(&mut self, _task: TaskId, _attempt: u32) {}
}

/// What a ready backend tells.
#[derive(Clone, Debug)]
pub struct Probe {
    pub inventory: Arc<Inventory>,
    pub warm: Vec<ModelName>,
    pub devices: Vec<DeviceReading>,
    pub comfyui_version: String,
    pub hygiene: Hygiene,
    pub others_queued: u32,
}

/// Where a backend says how its run is going.
#[derive(Clone, Debug)]
pub struct Reporter {
    task: TaskId,
    attempt: u32,
    events: mpsc::Sender<Event>,
}

impl Reporter {
    /// Execution began.
    pub async fn started(&self) {
        let event = Event::Started { task: self.task, attempt: self.attempt };
        // Nobody listens only while the node stops.
        drop(self.events.send(event).await);
    }

    /// Progress is dropped rather than waited with: the next one says more.
    pub fn progress(&self, node: String, (step, max): (u32, u32), (nodes_done, nodes_total): (u32, u32)) {
        let (task, attempt) = (self.task, self.attempt);
        self.offer(Event::Progress { task, attempt, node, step, max, nodes_done, nodes_total });
    }

    pub fn preview(&self, format: &'static str, bytes: bytes::Bytes) {
        let (task, attempt) = (self.task, self.attempt);
        self.offer(Event::Preview { task, attempt, format, bytes });
    }

    fn offer(&self, event: Event) {
        if self.events.capacity() > actor::KEPT_FOR_ENDINGS {
            drop(self.events.try_send(event));
        }
    }
}

#[cfg(test)]
mod tests;
