//! Decides what runs where: our tasks out there, others' tasks here.
//!
//! Two pure machines decide, [`requester`] and [`renderer`]; [`placement`] ranks nodes for the first. The actor feeds
//! them, commits the records of a step in one fsync, and only then performs its other actions. A task on this
//! machine's own ComfyUI goes through both machines over a link inside the actor, unsealed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::api::Ranges;
use scenemesh_protocol::ids::{BootId, JobId, NodeId, TaskId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::lease::Preview;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::studio::StudioRules;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::executor::policy::{Policy, WhyDenied};
use crate::executor::{self, Executor};
use crate::gpu::GpuReading;
use crate::network::{Network, TaskEvent};
use crate::store::{Replay, ReplayError, Store};
use crate::supervisor::Tasks;

mod actor;
pub mod batch;
mod bounds;
pub mod conversation;
mod discretion;
mod draining;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod giving;
pub mod lend;
pub mod link;
pub mod placement;
mod planning;
pub mod record;
pub mod renderer;
pub mod requester;
mod smoke;
pub mod story;
pub mod suspicion;
mod telling;
pub mod view;

#[cfg(test)]
mod tests;

use batch::Batch;
pub use conversation::Barred;
pub use draining::DrainWish;
use giving::GivingView;
use lend::{Lend, Lending};
pub use planning::{JobSpec, Needs, STAGES_LIMIT, StageSpec, SubmitError, refuse_partners};
use renderer::ParkedSlot;
pub use requester::{KeepOn, NoDeputy};
use story::Why;
pub use view::{JobEvent, JobState, JobView, LogLine, OpenTasks, TaskPhase, TaskView};

/// Most bytes of a job's graph and extra data together: with its tasks it must fit one record of the journal.
pub const GRAPH_LIMIT: usize = 15 << 20;
/// Most bytes of a task's sealed inputs together.
pub const INPUT_BYTES_LIMIT: u64 = 64 << 30;
/// Most node classes, and most models, that one workflow may need: an offer names them all.
pub const SHAPE_LIMIT: usize = 1024;
/// Most tasks of one job.
pub const COUNT_LIMIT: u32 = 10_000;
/// Callers that wait at once; they are local, so the next one waits for a place.
const COMMANDS_WAITING: usize = 64;
/// News that a slow watcher may fall behind before it has to ask for whole jobs again.
const NEWS_KEPT: usize = 1024;

/// How this node schedules.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most that any task may execute here, whatever its requester allows.
    pub time_limit: Duration,
    /// Most bytes that the results of any task may take here.
    pub output_bytes: u64,
    /// Folders of ComfyUI whose models other studios may see.
    pub shared_folders: BTreeSet<String>,
    /// To whom this machine is lent, and when.
    pub lend: Lend,
    /// What one requester may take of this node.
    pub limits: renderer::Limits,
    /// How long jobs and their results are kept after their end; `None`: for ever.
    pub keep_results: Option<Duration>,
    /// How long an origin must be out of sight before its jobs that are held here go on without it.
    pub keep_after: Duration,
}

/// How long jobs and their results are kept unless the configuration says otherwise.
pub const KEEP_RESULTS: Duration = Duration::from_hours(30 * 24);

/// What many have anyway. Never LoRAs or embeddings, which name people and projects.
const SHARED_FOLDERS: [&str; 11] = [
    "animatediff_models",
    "checkpoints",
    "clip",
    "clip_vision",
    "diffusion_models",
    "latent_upscale_models",
    "text_encoders",
    "unet",
    "upscale_models",
    "vae",
    "vae_approx",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_hours(12),
            output_bytes: 64 << 30,
            shared_folders: SHARED_FOLDERS.iter().map(ToString::to_string).collect(),
            lend: Lend::default(),
            limits: renderer::Limits::default(),
            keep_results: Some(KEEP_RESULTS),
            keep_after: requester::KEEP_AFTER,
        }
    }
}

/// This node's own keys and run.
#[derive(Clone, Debug)]
pub struct Me {
    pub node: SecretKey,
    pub kem: KemSecret,
    pub boot: BootId,
}

/// What the scheduler stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    pub network: Network,
    pub executor: Executor,
    pub store: Store,
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
    /// Projects of this node's studio, and the key for its memos.
    pub studio: watch::Receiver<Arc<StudioRules>>,
    /// Who is shut out, by revocation or block.
    pub barred: watch::Receiver<Arc<Barred>>,
    pub gpus: watch::Receiver<Arc<Vec<GpuReading>>>,
    /// Has the GPUs read at once.
    pub look_at_gpus: Arc<Notify>,
    /// Which node classes run here.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// What was said by hand of lending this machine.
    pub lending: watch::Receiver<Lending>,
    /// Cancelled when the node is drained and was to end then.
    pub exit: CancellationToken,
}

/// What it hears from below.
#[derive(Debug)]
pub struct Inputs {
    pub network: mpsc::Receiver<TaskEvent>,
    pub executor: mpsc::Receiver<executor::Event>,
}

/// Why the scheduler did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// A job or a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Job(JobId),
    Task { job: JobId, task: TaskId },
}

impl Id {
    /// The job itself, or the one that the task is of.
    pub fn job(self) -> JobId {
        match self {
            Self::Job(job) | Self::Task { job, .. } => job,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
            Self::Task { task, .. } => task.fmt(f),
        }
    }
}

/// Tasks of one job: a task, a job, or some of a job's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    pub id: Id,
    /// Indexes of the job's tasks; a task's own id means that task whatever they are.
    pub ranges: Ranges,
}

impl From<Id> for Which {
    fn from(id: Id) -> Self {
        Self { id, ranges: Ranges::default() }
    }
}

/// Why a prefix is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("no job or task begins with {prefix:?}: see `scenemesh jobs`")]
    None { prefix: String },
    #[error("{count} jobs and tasks begin with {prefix:?}: give more of the id")]
    Ambiguous { prefix: String, count: usize },
    #[error("the node is stopping")]
    Stopping,
}

enum Command {
    Submit { batch: Box<Batch>, keep_on: KeepOn, reply: oneshot::Sender<Result<(), SubmitError>> },
    Jobs { reply: oneshot::Sender<Vec<JobView>> },
    OpenTasks { reply: oneshot::Sender<OpenTasks> },
    Show { job: JobId, reply: oneshot::Sender<Option<JobView>> },
    Task { task: TaskId, reply: oneshot::Sender<Option<TaskView>> },
    Why { id: Id, reply: oneshot::Sender<Option<Why>> },
    Cancel { which: Which, reply: oneshot::Sender<usize> },
    Retry { which: Which, reply: oneshot::Sender<usize> },
    Pause { which: Which, reply: oneshot::Sender<usize> },
    Resume { which: Which, reply: oneshot::Sender<usize> },
    Resolve { prefix: String, reply: oneshot::Sender<Result<Id, ResolveError>> },
    Preview { task: TaskId, reply: oneshot::Sender<Option<Arc<Preview>>> },
    Log { id: Id, reply: oneshot::Sender<Vec<LogLine>> },
    RefusedClasses { reply: oneshot::Sender<RefusedClasses> },
    Drain { wish: DrainWish, reply: oneshot::Sender<Load> },
    Giving { reply: oneshot::Sender<GivingView> },
    Parked { reply: oneshot::Sender<Vec<ParkedSlot>> },
    Held { node: Option<NodeId>, reply: oneshot::Sender<(usize, usize)> },
}

/// Node classes that other nodes said they do not run.
pub type RefusedClasses = BTreeMap<NodeId, BTreeMap<String, WhyDenied>>;

/// Handle to the scheduler; cheap to clone.
#[derive(Clone, Debug)]
pub struct Scheduler {
    commands: mpsc::Sender<Command>,
    news: broadcast::Sender<JobEvent>,
    load: watch::Receiver<Load>,
    store: Store,
}

/// How busy the renderer here is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Slots that would take work now.
    pub slots_free: usize,
    /// Offers that wait here.
    pub queue: usize,
    pub draining: bool,
    /// Nothing runs and nothing is promised.
    pub idle: bool,
    /// Attempts that are here, results that nobody has taken yet included.
    pub held: usize,
    /// Of these, attempts that have not ended.
    pub running: usize,
    /// The node ends when it is drained.
    pub exits: bool,
    /// Until others' work is given back, while it drains with a limit.
    pub left: Option<Duration>,
    /// Whoever sits here wants the GPU.
    pub wanted_back: bool,
    /// No slot that is ready takes anything of others': too much failed there.
    pub parked: bool,
}

/// Restores both machines from the journal and starts them. Attempts that were held go on; the node's advert is
/// published from here on.
///
/// # Errors
/// When a record of the journal does not read.
pub fn spawn(
    config: Config,
    me: Me,
    ports: Ports,
    inputs: Inputs,
    replay: &Replay,
    tasks: &Tasks,
) -> Result<Scheduler, SpawnError> {
    let (commands, inbox) = mpsc::channel(COMMANDS_WAITING);
    let (news, _) = broadcast::channel(NEWS_KEPT);
    let (load_sender, load) = watch::channel(Load::default());
    let store = ports.store.clone();
    telling::spawn(config.shared_folders.clone(), &ports, tasks);
    let mut actor = actor::Actor::new(config, me, ports, news.clone(), load_sender, tasks.clone());
    actor.restore(replay)?;
    tasks.spawn("scheduler", actor.run(inbox, inputs));
    Ok(Scheduler { commands, news, load, store })
}

/// The node is stopping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopping;

impl Scheduler {
    /// Queues a job. Resolves when it is written down, not when it has run.
    ///
    /// # Errors
    /// As [`SubmitError`] says.
    pub async fn submit(&self, spec: JobSpec) -> Result<JobId, SubmitError> {
        let job = JobId::random();
        self.submit_as(job, spec).await?;
        Ok(job)
    }

    /// The same under an id that its submitter drew, and may have written down before. After [`SubmitError::Stopping`] the
    /// job may be there or not.
    ///
    /// # Errors
    /// As [`SubmitError`] says.
    pub async fn submit_as(&self, job: JobId, spec: JobSpec) -> Result<(), SubmitError> {
        let keep_on = spec.keep_on;
        let batch = Box::new(planning::plan(&self.store.blobs, job, spec).await?);
        let (reply, answer) = oneshot::channel();
        self.send(Command::Submit { batch, keep_on, reply }).await.map_err(|()| SubmitError::Stopping)?;
        answer.await.map_err(|_| SubmitError::Stopping)?.map(drop)
    }

    /// All jobs, newest first.
    pub async fn jobs(&self) -> Vec<JobView> {
        self.ask(|reply| Command::Jobs { reply }).await.unwrap_or_default()
    }

    /// How many tasks have not ended; whatever lies behind costs nothing.
    pub async fn open_tasks(&self) -> OpenTasks {
        self.ask(|reply| Command::OpenTasks { reply }).await.unwrap_or_default()
    }

    /// None for a job that is not known, and when the node stops.
    pub async fn show(&self, job: JobId) -> Option<JobView> {
        self.look_up(job).await.ok().flatten()
    }

    /// None for a job that is not known.
    ///
    /// # Errors
    /// When the node stops, and nobody can say.
    pub async fn look_up(&self, job: JobId) -> Result<Option<JobView>, Stopping> {
        self.ask(|reply| Command::Show { job, reply }).await.ok_or(Stopping)
    }

    pub async fn task(&self, task: TaskId) -> Option<TaskView> {
        self.ask(|reply| Command::Task { task, reply }).await.flatten()
    }

    /// Why a job or task stands where it stands.
    pub async fn why(&self, id: Id) -> Option<Why> {
        self.ask(|reply| Command::Why { id, reply }).await.flatten()
    }

    /// Stops tasks; resolves when that is written down. Says how many it concerned.
    pub async fn cancel(&self, which: Which) -> usize {
        self.ask(|reply| Command::Cancel { which, reply }).await.unwrap_or_default()
    }

    /// Queues failed and cancelled tasks again, with those that they build on. Says how many of these there were.
    pub async fn retry(&self, which: Which) -> usize {
        self.ask(|reply| Command::Retry { which, reply }).await.unwrap_or_default()
    }

    /// Lets tasks that wait not begin; what a node has goes on. Says how many it concerned.
    pub async fn pause(&self, which: Which) -> usize {
        self.ask(|reply| Command::Pause { which, reply }).await.unwrap_or_default()
    }

    /// Ends a pause. Says how many tasks were paused.
    pub async fn resume(&self, which: Which) -> usize {
        self.ask(|reply| Command::Resume { which, reply }).await.unwrap_or_default()
    }

    /// The job or task whose id begins like this.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn resolve(&self, prefix: &str) -> Result<Id, ResolveError> {
        let prefix = prefix.to_owned();
        let answer = self.ask(|reply| Command::Resolve { prefix, reply }).await;
        answer.ok_or(ResolveError::Stopping)?
    }

    /// News of all jobs from now on.
    pub fn events(&self) -> broadcast::Receiver<JobEvent> {
        self.news.subscribe()
    }

    /// The latest preview picture of a task, while it is remembered.
    pub async fn preview(&self, task: TaskId) -> Option<Arc<Preview>> {
        self.ask(|reply| Command::Preview { task, reply }).await.flatten()
    }

    /// What happened to a job or task since this node started, oldest first.
    pub async fn log(&self, id: Id) -> Vec<LogLine> {
        self.ask(|reply| Command::Log { id, reply }).await.unwrap_or_default()
    }

    /// Takes nothing new from anybody, or takes work again. What runs is finished.
    pub async fn drain(&self, wish: DrainWish) -> Load {
        self.ask(|reply| Command::Drain { wish, reply }).await.unwrap_or_default()
    }

    /// What others have of this machine, and how giving it back goes.
    pub async fn giving(&self) -> GivingView {
        self.ask(|reply| Command::Giving { reply }).await.unwrap_or_default()
    }

    /// Slots here that take nothing of others' because too much failed there.
    pub async fn parked(&self) -> Vec<ParkedSlot> {
        self.ask(|reply| Command::Parked { reply }).await.unwrap_or_default()
    }

    /// Attempts of ours that a node has, and attempts of its that are held here; all of both without a node.
    pub async fn held_with(&self, node: Option<NodeId>) -> (usize, usize) {
        self.ask(|reply| Command::Held { node, reply }).await.unwrap_or_default()
    }

    /// Node classes that other nodes lately said they do not run.
    pub async fn refused_classes(&self) -> RefusedClasses {
        self.ask(|reply| Command::RefusedClasses { reply }).await.unwrap_or_default()
    }

    /// How busy the renderer here is.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.load.clone()
    }

    async fn send(&self, command: Command) -> Result<(), ()> {
        self.commands.send(command).await.map_err(|_| ())
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Me {
    pub fn id(&self) -> NodeId {
        self.node.public().node()
    }
}
