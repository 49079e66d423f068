//! What becomes of a job as it was asked for: parsed, checked, cut into tasks. Nothing is queued here.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use scenemesh_protocol::ids::{JobId, ProjectId, TaskId};
use scenemesh_protocol::task::{Class, InputFile, ModelName, OnSuspect, Reach, Shape};

use super::batch::{Batch, Feed, GATHERED, Stage, Varied};
use super::record::{Recipe, Submission, TaskPlan};
use super::requester::{KeepOn, NoDeputy};
use super::{COUNT_LIMIT, GRAPH_LIMIT, INPUT_BYTES_LIMIT, SHAPE_LIMIT, renderer};
use crate::clock;
use crate::executor::graph::{Graph, GraphError, without_annotation};
use crate::executor::policy;
use crate::store::{BlobError, Blobs, JournalError};

/// Most different needs that varied inputs may make: each is offered by itself.
const KINDS_LIMIT: usize = 64;
/// Most workflows that one job puts one after the other.
pub const STAGES_LIMIT: usize = 16;

/// What a person wants rendered.
#[derive(Clone)]
pub struct JobSpec {
    pub label: String,
    pub person: String,
    /// The first of them; each later one may take results of earlier ones.
    pub stages: Vec<StageSpec>,
    pub class: Class,
    pub reach: Reach,
    /// A project of this studio; its rules hold besides the job's own.
    pub project: Option<ProjectId>,
    pub needs: Needs,
    pub on_suspect: OnSuspect,
    /// Who is to hold it as well, and goes on with it when this node is gone.
    pub keep_on: KeepOn,
    pub previews: bool,
    pub full_hygiene: bool,
    /// Most that one task may execute.
    pub time_limit: Duration,
}

/// One workflow of a job.
#[derive(Clone, Default)]
pub struct StageSpec {
    /// ComfyUI's API format, as JSON.
    pub graph: Vec<u8>,
    /// ComfyUI's `extra_data`, as JSON; may be empty.
    pub extra_data: Vec<u8>,
    /// Sealed inputs, by the names that stand in the graph.
    pub inputs: Vec<InputFile>,
    /// Tasks for each combination of varied inputs; task i of them gets i added to every `seed` and `noise_seed`.
    pub count: u32,
    pub vary: Vec<Varied>,
    pub feeds: Vec<Feed>,
}

impl fmt::Debug for StageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageSpec")
            .field("graph_bytes", &self.graph.len())
            .field("count", &self.count)
            .field("vary", &self.vary)
            .field("feeds", &self.feeds)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("stages", &self.stages)
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
    Count { count: u64 },
    #[error(
        "the varied inputs make {count} different sets of models and files, at most {KINDS_LIMIT} are allowed; split the job"
    )]
    TooManyKinds { count: usize },
    #[error("the varied input {path} has no values")]
    NothingVaried { path: String },
    #[error("a job has at most {STAGES_LIMIT} stages, this one has {count}; split it")]
    TooManyStages { count: usize },
    #[error(
        "the input {name:?} cannot come from node {node}: the workflow before has no such node; it has {known}"
    )]
    NoSuchSource { name: String, node: String, known: String },
    #[error(
        "the input {name:?} comes from a stage of {from} tasks and another input from one of {other}: one by one is not possible then; gather them with {GATHERED}"
    )]
    UnevenSources { name: String, from: u32, other: u32 },
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
    #[error("{node} {why}")]
    Deputy { node: String, why: NoDeputy },
    #[error("the job could not be written down: {0}")]
    Journal(#[from] JournalError),
    #[error("the node is stopping")]
    Stopping,
}

/// Parses what was given, refuses what cannot run anywhere, and says which tasks there are.
///
/// # Errors
/// As [`SubmitError`] says.
pub(super) async fn plan(blobs: &Blobs, job: JobId, spec: JobSpec) -> Result<Batch, SubmitError> {
    if spec.stages.len() > STAGES_LIMIT {
        return Err(SubmitError::TooManyStages { count: spec.stages.len() });
    }
    let bytes = spec.stages.iter().map(|stage| stage.graph.len() + stage.extra_data.len()).sum();
    if bytes > GRAPH_LIMIT {
        return Err(SubmitError::TooLarge { bytes });
    }
    let plain = matches!(&spec.stages[..], [only] if only.vary.is_empty());
    let mut planned = Planned::default();
    for stage in &spec.stages {
        planned.add(blobs, &spec, stage).await?;
    }
    let recipes = planned.recipes.iter().map(|recipe| recipe.graph.len() + recipe.extra_data.len());
    let values = planned.stages.iter().flat_map(|stage| &stage.varied).flat_map(|varied| &varied.values);
    let bytes = recipes.chain(values.map(String::len)).sum();
    if bytes > GRAPH_LIMIT {
        return Err(SubmitError::TooLarge { bytes });
    }
    if planned.tasks.is_empty() {
        return Err(SubmitError::Count { count: 0 });
    }
    let submission = Submission {
        job,
        label: spec.label,
        person: spec.person,
        class: spec.class,
        reach: spec.reach,
        project: spec.project,
        created_ms: clock::wall_ms(),
        recipes: planned.recipes,
        tasks: planned.tasks,
    };
    let stages = if plain { Vec::new() } else { planned.stages };
    Ok(Batch { submission, stages, on_suspect: spec.on_suspect })
}

/// What is planned so far.
#[derive(Default)]
struct Planned {
    graphs: Vec<Graph>,
    stages: Vec<Stage>,
    recipes: Vec<Recipe>,
    tasks: Vec<TaskPlan>,
}

/// What a graph asks of a node, as far as varied inputs may change it: models, and files of the submitter.
type Kind = (Vec<ModelName>, BTreeSet<String>);

fn kind(graph: &Graph) -> Kind {
    (graph.models(), graph.file_inputs().iter().map(|file| file.name().to_owned()).collect())
}

impl Planned {
    async fn add(&mut self, blobs: &Blobs, spec: &JobSpec, asked: &StageSpec) -> Result<(), SubmitError> {
        let mut graph = Graph::parse(&asked.graph)?;
        refuse_partners(&graph)?;
        let stage = self.stage(asked)?;
        let kinds = Kinds::of(&mut graph, &stage)?;
        self.check_files(&kinds, asked, &stage)?;
        let first_recipe = self.recipes.len();
        let extra_data =
            without_tokens(&asked.extra_data).map_err(|error| SubmitError::ExtraData(error.to_string()))?;
        for (models, files) in &kinds.kinds {
            let wanted = |input: &&InputFile| files.contains(without_annotation(&input.name));
            let inputs: Vec<InputFile> = asked.inputs.iter().filter(wanted).cloned().collect();
            let input_bytes = sealed_bytes(blobs, &inputs).await?;
            let shape = Shape {
                classes: graph.classes(),
                models: models.clone(),
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
            self.recipes.push(Recipe {
                graph: graph.to_bytes(),
                extra_data: extra_data.clone(),
                inputs,
                shape,
                previews: spec.previews,
                time_limit_ms: u64::try_from(spec.time_limit.as_millis()).unwrap_or(u64::MAX),
            });
        }
        for index in stage.first..stage.first + stage.tasks {
            let recipe = first_recipe + kinds.of_task(&stage, index);
            let recipe = u16::try_from(recipe).map_err(|_| SubmitError::TooManyKinds { count: recipe })?;
            self.tasks.push(TaskPlan { task: TaskId::random(), recipe, add_to_seeds: stage.choice(index).0 });
        }
        self.graphs.push(graph);
        self.stages.push(stage);
        Ok(())
    }

    /// How many tasks there are, and what each builds on.
    fn stage(&self, asked: &StageSpec) -> Result<Stage, SubmitError> {
        if let Some(varied) = asked.vary.iter().find(|varied| varied.values.is_empty()) {
            return Err(SubmitError::NothingVaried { path: varied.path.clone() });
        }
        let mut each: Option<u32> = None;
        for feed in &asked.feeds {
            let from = usize::from(feed.stage);
            let (Some(before), Some(graph)) = (self.stages.get(from), self.graphs.get(from)) else {
                let (name, node) = (feed.name.clone(), feed.node.clone());
                return Err(SubmitError::NoSuchSource { name, node, known: String::new() });
            };
            if graph.node(&feed.node).is_none() {
                let known = graph.nodes().map(|node| format!("{} ({})", node.id, node.class));
                let (name, node) = (feed.name.clone(), feed.node.clone());
                return Err(SubmitError::NoSuchSource { name, node, known: some(known) });
            }
            if feed.gathers() || before.tasks == 1 {
                continue;
            }
            match each {
                Some(other) if other != before.tasks => {
                    let (name, from) = (feed.name.clone(), before.tasks);
                    return Err(SubmitError::UnevenSources { name, from, other });
                }
                _ => each = Some(before.tasks),
            }
        }
        let first = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let (count, varied, feeds) = (asked.count, asked.vary.clone(), asked.feeds.clone());
        let stage = Stage { first, tasks: 0, count, varied, feeds };
        let tasks = stage.combinations().saturating_mul(u64::from(each.unwrap_or(1)));
        let all = tasks.saturating_add(u64::from(first));
        if tasks == 0 || all > u64::from(COUNT_LIMIT) {
            return Err(SubmitError::Count { count: if tasks == 0 { 0 } else { all } });
        }
        Ok(Stage { tasks: u32::try_from(tasks).unwrap_or(u32::MAX), ..stage })
    }

    /// Every file that a task names comes along or from another task, and nothing comes in vain.
    fn check_files(&self, kinds: &Kinds, asked: &StageSpec, stage: &Stage) -> Result<(), SubmitError> {
        let mut given: BTreeSet<String> =
            asked.inputs.iter().map(|input| without_annotation(&input.name).to_owned()).collect();
        for feed in &stage.feeds {
            let places = if feed.gathers() { 0..self.stages[usize::from(feed.stage)].tasks } else { 0..1 };
            given.extend(places.map(|place| without_annotation(&feed.name_of(place)).to_owned()));
        }
        let mut named = BTreeSet::new();
        for (_, files) in &kinds.kinds {
            if let Some(name) = files.iter().find(|name| !given.contains(*name)) {
                return Err(SubmitError::MissingInput { name: name.clone() });
            }
            // A result is there for every task of the stage.
            let fed = stage.feeds.iter().filter(|feed| !feed.gathers());
            let fed = fed.map(|feed| without_annotation(&feed.name));
            if let Some(name) = fed.into_iter().find(|name| !files.contains(*name)) {
                return Err(SubmitError::UnusedInput { name: name.to_owned(), known: some(files.iter()) });
            }
            named.extend(files.iter());
            // Those that the graph names are taken into the task by it.
            let count = files.len();
            if count > renderer::INPUTS_LIMIT {
                return Err(SubmitError::TooManyInputs { count });
            }
        }
        if let Some(name) = given.iter().find(|name| !named.contains(name)) {
            return Err(SubmitError::UnusedInput { name: name.clone(), known: some(named.iter()) });
        }
        Ok(())
    }
}

/// The different needs of a stage's tasks.
struct Kinds {
    kinds: Vec<Kind>,
    /// Which varied inputs make them, by their place among all; and for each combination of these, the kind.
    by: Vec<usize>,
    table: Vec<usize>,
}

impl Kinds {
    fn of(graph: &mut Graph, stage: &Stage) -> Result<Self, SubmitError> {
        let plain = kind(graph);
        let mut by = Vec::new();
        let original = graph.clone();
        for (at, varied) in stage.varied.iter().enumerate() {
            for value in &varied.values {
                graph.set(&varied.path, json(value))?;
                if kind(graph) != plain {
                    by.push(at);
                    break;
                }
            }
            *graph = original.clone();
        }
        let sizes = by.iter().map(|at| stage.varied[*at].values.len());
        let many = sizes.clone().fold(1_usize, usize::saturating_mul);
        if many > KINDS_LIMIT {
            return Err(SubmitError::TooManyKinds { count: many });
        }
        let (mut kinds, mut table) = (Vec::new(), Vec::new());
        for combination in 0..many {
            let mut rest = combination;
            for at in by.iter().rev() {
                let varied = &stage.varied[*at];
                graph.set(&varied.path, json(&varied.values[rest % varied.values.len()]))?;
                rest /= varied.values.len();
            }
            let kind = kind(graph);
            *graph = original.clone();
            let known = kinds.iter().position(|known| *known == kind);
            table.push(known.unwrap_or(kinds.len()));
            if known.is_none() {
                kinds.push(kind);
            }
        }
        Ok(Self { kinds, by, table })
    }

    fn of_task(&self, stage: &Stage, index: u32) -> usize {
        let (_, digits) = stage.digits(index);
        let combination = self.by.iter().fold(0, |sum, at| {
            sum * stage.varied[*at].values.len() + digits.get(*at).copied().unwrap_or_default()
        });
        self.table.get(combination).copied().unwrap_or_default()
    }
}

fn json(value: &str) -> serde_json::Value {
    serde_json::from_str(value).unwrap_or(serde_json::Value::Null)
}

/// So many names are in one sentence.
fn some(names: impl Iterator<Item = impl ToString>) -> String {
    const NAMED: usize = 12;
    names.take(NAMED).map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

async fn sealed_bytes(blobs: &Blobs, inputs: &[InputFile]) -> Result<u64, SubmitError> {
    let mut bytes = 0;
    for input in inputs {
        let manifest = blobs.manifest(input.root).await;
        let manifest = manifest
            .map_err(|source| SubmitError::Input { name: input.name.clone(), source: Box::new(source) })?;
        bytes += manifest.sealed_bytes();
    }
    Ok(bytes)
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
