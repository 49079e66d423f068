//! Decides what runs where: our tasks out there, others' tasks here.
//!
//! Two pure machines decide, [`requester`] and [`renderer`]; [`placement`] ranks nodes for the first. The actor feeds
//! them, commits the records of a step in one fsync, and only then performs its other actions. A task on this
//! machine's own ComfyUI goes through both machines over a link inside the actor, unsealed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::ids::{BootId, JobId, NodeId, ProjectId, TaskId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::lease::Preview;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::studio::StudioRules;
use scenemesh_protocol::task::{Class, InputFile, Reach, Shape};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::executor::graph::{Graph, GraphError};
use crate::executor::policy::{self, Policy, WhyDenied};
use crate::executor::{self, Executor};
use crate::gpu::GpuReading;
use crate::network::{Network, TaskEvent};
use crate::store::{BlobError, JournalError, Replay, ReplayError, Store};
use crate::supervisor::Tasks;

mod actor;
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
pub mod record;
pub mod renderer;
pub mod requester;
pub mod story;
pub mod view;

#[cfg(test)]
mod tests;

pub use conversation::Barred;
pub use draining::DrainWish;
use giving::GivingView;
use lend::{Lend, Lending};
use record::{Recipe, Submission, TaskPlan};
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

/// What a person wants rendered.
#[derive(Clone)]
pub struct JobSpec {
    pub label: String,
    pub person: String,
    /// ComfyUI's API format, as JSON.
    pub graph: Vec<u8>,
    /// ComfyUI's `extra_data`, as JSON; may be empty.
    pub extra_data: Vec<u8>,
    /// Sealed inputs, by the names that stand in the graph.
    pub inputs: Vec<InputFile>,
    /// Tasks; task i gets i added to every `seed` and `noise_seed` literal.
    pub count: u32,
    pub class: Class,
    pub reach: Reach,
    /// A project of this studio; its rules hold besides the job's own.
    pub project: Option<ProjectId>,
    pub needs: Needs,
    pub previews: bool,
    pub full_hygiene: bool,
    /// Most that one task may execute.
    pub time_limit: Duration,
}

impl fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("graph_bytes", &self.graph.len())
            .field("count", &self.count)
            .field("class", &self.class)
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

/// What a node must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub vram_mib: Option<u32>,
    /// CUDA compute capability, times ten.
    pub min_cc: Option<u16>,
}

/// Why a job was not accepted. Nothing is queued then.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(
        "the workflow takes {bytes} bytes, at most {GRAPH_LIMIT} are allowed: give large files with --input"
    )]
    TooLarge { bytes: usize },
    #[error("a job of {count} tasks: between 1 and {COUNT_LIMIT} are allowed")]
    Count { count: u32 },
    #[error("the workflow names the file {name:?}, which was not given: add --input {name}=FILE")]
    MissingInput { name: String },
    #[error("no node of the workflow names the input {name:?}; it names {known}")]
    UnusedInput { name: String, known: String },
    #[error(
        "node {node} ({class}) is a partner node, which spends somebody's money: those run on no machine of a pool; take it out"
    )]
    Partner { node: String, class: String },
    #[error(
        "node {node} carries a comfy.org credential ({key}): those leave this machine in no task; take it out"
    )]
    Token { node: String, key: String },
    #[error(
        "the job has {count} inputs, one task may have at most {}; bring frames as a video, or split the job",
        renderer::INPUTS_LIMIT
    )]
    TooManyInputs { count: usize },
    #[error("the inputs take {bytes} bytes together, one task may bring at most 64 GiB; split the job")]
    InputsTooLarge { bytes: u64 },
    #[error(
        "the workflow needs {count} different node classes or models, at most {SHAPE_LIMIT} are allowed; split it"
    )]
    TooVaried { count: usize },
    #[error("the extra data is not a JSON object: {0}")]
    ExtraData(String),
    #[error("the sealed input {name:?} is not in the store any more, give it again: {source}")]
    Input { name: String, source: Box<BlobError> },
    #[error("the job could not be written down: {0}")]
    Journal(#[from] JournalError),
    #[error("the node is stopping")]
    Stopping,
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
    Submit { submission: Box<Submission>, reply: oneshot::Sender<Result<(), JournalError>> },
    Jobs { reply: oneshot::Sender<Vec<JobView>> },
    OpenTasks { reply: oneshot::Sender<OpenTasks> },
    Show { job: JobId, reply: oneshot::Sender<Option<JobView>> },
    Task { task: TaskId, reply: oneshot::Sender<Option<TaskView>> },
    Why { id: Id, reply: oneshot::Sender<Option<Why>> },
    Cancel { id: Id, reply: oneshot::Sender<usize> },
    Retry { id: Id, reply: oneshot::Sender<usize> },
    Resolve { prefix: String, reply: oneshot::Sender<Result<Id, ResolveError>> },
    Preview { task: TaskId, reply: oneshot::Sender<Option<Arc<Preview>>> },
    Log { id: Id, reply: oneshot::Sender<Vec<LogLine>> },
    RefusedClasses { reply: oneshot::Sender<RefusedClasses> },
    Drain { wish: DrainWish, reply: oneshot::Sender<Load> },
    Giving { reply: oneshot::Sender<GivingView> },
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
    let mut actor = actor::Actor::new(config, me, ports, news.clone(), load_sender, tasks.clone());
    actor.restore(replay)?;
    tasks.spawn("scheduler", actor.run(inbox, inputs));
    Ok(Scheduler { commands, news, load, store })
}

impl Scheduler {
    /// Queues a job. Resolves when it is written down, not when it has run.
    ///
    /// # Errors
    /// As [`SubmitError`] says.
    pub async fn submit(&self, spec: JobSpec) -> Result<JobId, SubmitError> {
        let submission = Box::new(self.plan(spec).await?);
        let job = submission.job;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Submit { submission, reply }).await.map_err(|()| SubmitError::Stopping)?;
        answer.await.map_err(|_| SubmitError::Stopping)??;
        Ok(job)
    }

    /// Parses what was given and refuses what cannot run anywhere.
    async fn plan(&self, spec: JobSpec) -> Result<Submission, SubmitError> {
        let bytes = spec.graph.len() + spec.extra_data.len();
        if bytes > GRAPH_LIMIT {
            return Err(SubmitError::TooLarge { bytes });
        }
        if spec.count == 0 || spec.count > COUNT_LIMIT {
            return Err(SubmitError::Count { count: spec.count });
        }
        if spec.inputs.len() > renderer::INPUTS_LIMIT {
            return Err(SubmitError::TooManyInputs { count: spec.inputs.len() });
        }
        let graph = Graph::parse(&spec.graph)?;
        refuse_partners(&graph)?;
        let files: std::collections::BTreeSet<String> =
            graph.file_inputs().iter().map(|file| file.name().to_owned()).collect();
        let given = |name: &String| spec.inputs.iter().any(|input| without_annotation(&input.name) == *name);
        if let Some(name) = files.iter().find(|name| !given(name)) {
            return Err(SubmitError::MissingInput { name: name.clone() });
        }
        let mut input_bytes = 0;
        for input in &spec.inputs {
            if !files.contains(without_annotation(&input.name)) {
                let known = files.iter().cloned().collect::<Vec<_>>().join(", ");
                return Err(SubmitError::UnusedInput { name: input.name.clone(), known });
            }
            let manifest = self.store.blobs.manifest(input.root).await;
            let manifest = manifest.map_err(|source| SubmitError::Input {
                name: input.name.clone(),
                source: Box::new(source),
            })?;
            input_bytes += manifest.sealed_bytes();
        }
        let shape = Shape {
            classes: graph.classes(),
            models: graph.models(),
            vram_mib: spec.needs.vram_mib,
            min_cc: spec.needs.min_cc,
            input_bytes,
            full_hygiene: spec.full_hygiene,
        };
        if input_bytes > INPUT_BYTES_LIMIT {
            return Err(SubmitError::InputsTooLarge { bytes: input_bytes });
        }
        let varied = shape.classes.len().max(shape.models.len());
        if varied > SHAPE_LIMIT {
            return Err(SubmitError::TooVaried { count: varied });
        }
        let recipe = Recipe {
            graph: graph.to_bytes(),
            extra_data: without_tokens(&spec.extra_data)
                .map_err(|error| SubmitError::ExtraData(error.to_string()))?,
            inputs: spec.inputs,
            shape,
            previews: spec.previews,
            time_limit_ms: u64::try_from(spec.time_limit.as_millis()).unwrap_or(u64::MAX),
        };
        let plan = |i| TaskPlan { task: TaskId::random(), recipe: 0, add_to_seeds: u64::from(i) };
        Ok(Submission {
            job: JobId::random(),
            label: spec.label,
            person: spec.person,
            class: spec.class,
            reach: spec.reach,
            project: spec.project,
            created_ms: clock::wall_ms(),
            recipes: vec![recipe],
            tasks: (0..spec.count).map(plan).collect(),
        })
    }

    /// All jobs, newest first.
    pub async fn jobs(&self) -> Vec<JobView> {
        self.ask(|reply| Command::Jobs { reply }).await.unwrap_or_default()
    }

    /// How many tasks have not ended; whatever lies behind costs nothing.
    pub async fn open_tasks(&self) -> OpenTasks {
        self.ask(|reply| Command::OpenTasks { reply }).await.unwrap_or_default()
    }

    pub async fn show(&self, job: JobId) -> Option<JobView> {
        self.ask(|reply| Command::Show { job, reply }).await.flatten()
    }

    pub async fn task(&self, task: TaskId) -> Option<TaskView> {
        self.ask(|reply| Command::Task { task, reply }).await.flatten()
    }

    /// Why a job or task stands where it stands.
    pub async fn why(&self, id: Id) -> Option<Why> {
        self.ask(|reply| Command::Why { id, reply }).await.flatten()
    }

    /// Stops a job or a task; resolves when that is written down. Says how many tasks it concerned.
    pub async fn cancel(&self, id: Id) -> usize {
        self.ask(|reply| Command::Cancel { id, reply }).await.unwrap_or_default()
    }

    /// Queues failed and cancelled tasks again. Says how many.
    pub async fn retry(&self, id: Id) -> usize {
        self.ask(|reply| Command::Retry { id, reply }).await.unwrap_or_default()
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

fn without_annotation(name: &str) -> &str {
    executor::graph::without_annotation(name)
}

/// Drops the keys under which editors put comfy.org logins: they are the submitter's own and go nowhere.
fn without_tokens(extra_data: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    if extra_data.is_empty() {
        return Ok(Vec::new());
    }
    let data: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(extra_data)?;
    let mut data = serde_json::Value::Object(data);
    policy::strip_tokens(&mut data);
    serde_json::to_vec(&data)
}

/// Partner nodes and comfy.org credentials run nowhere and go nowhere.
///
/// # Errors
/// When there is one in the graph.
pub fn refuse_partners(graph: &Graph) -> Result<(), SubmitError> {
    if let Some((node, class)) = policy::partner_nodes(graph).into_iter().next() {
        return Err(SubmitError::Partner { node, class });
    }
    let token = policy::tokens_in(graph, &[]).into_iter().find_map(|found| match found.what {
        policy::Forbidden::Token { key } => Some((found.node, key)),
        _ => None,
    });
    token.map_or(Ok(()), |(node, key)| Err(SubmitError::Token { node, key }))
}

impl Me {
    pub fn id(&self) -> NodeId {
        self.node.public().node()
    }
}
