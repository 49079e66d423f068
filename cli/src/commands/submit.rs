//! `submit`: a workflow in, pictures out.

use std::collections::VecDeque;
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures::FutureExt;
use scenemesh_protocol::api::{
    ErrorCode, GRAPH_LIMIT, INPUT_LIMIT, InputName, JobState, JobView, NeedsRequest, ReachWords, Setting,
    StageRequest, SubmitRequest, TaskState, Variation,
};
use scenemesh_protocol::task::{Class, OnSuspect};
use tokio_util::io::ReaderStream;

use super::Context;
use crate::client::ApiClient;
use crate::error::{CliError, os_words};
use crate::follow::{Change, Follower};
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::progress::{Progress, lines};
use crate::save::{self, Shelf};
use crate::typed::{self, NamedFile, Over, Stage, Vary};
use crate::ui::{Outcome, Ui};
use crate::wipes;
use crate::{INTERRUPTED, human};

#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// ComfyUI workflow in API format; - reads stdin
    #[arg(value_name = "WORKFLOW.json")]
    workflow: PathBuf,
    /// Replace a literal of the workflow
    #[arg(long, value_name = "NODE.INPUT=VALUE", value_parser = typed::setting)]
    set: Vec<Setting>,
    /// Send a file along; NAME is how the workflow calls it
    #[arg(long, value_name = "NAME=FILE", value_parser = typed::named_file)]
    input: Vec<NamedFile>,
    /// Render this many; task i gets i added to every seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = typed::count)]
    count: u32,
    /// Render once for each value: 1..5, 0.5..1/0.1, a,b,c or @FILE; several make all combinations
    #[arg(long, value_name = "NODE.INPUT=VALUES", value_parser = typed::variation)]
    vary: Vec<Vary>,
    /// Go on with a workflow whose file NAME is what NODE of the workflow before has made
    #[arg(long, value_name = "FILE:NAME=NODE", value_parser = typed::stage)]
    then: Vec<Stage>,
    /// Render pictures that look wrong elsewhere: retry, keep
    #[arg(long, value_name = "WHAT", default_value = "keep", value_parser = on_suspect)]
    on_suspect: OnSuspect,
    /// Have this node of the studio hold the job too and go on with it when this machine is gone; or none
    #[arg(long, value_name = "NODE")]
    keep_on: Option<String>,
    /// How soon it is wanted: urgent, normal, batch
    #[arg(long, value_name = "CLASS", default_value = "normal", value_parser = class)]
    class: Class,
    /// How far it may travel: machine, studio, pool, or names of studios; the studio otherwise, or less with a project
    #[arg(long, value_name = "REACH")]
    reach: Option<ReachWords>,
    /// Hold it to the rules of this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// What a node must have: vram=24GB,cc=8.9
    #[arg(long, value_name = "NEEDS", value_parser = typed::needs)]
    needs: Option<NeedsRequest>,
    /// Render only where every trace can be removed
    #[arg(long)]
    full_hygiene: bool,
    /// Save results below this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the latest preview picture in this file
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    preview: Option<PathBuf>,
    /// Do not wait
    #[arg(long, short, conflicts_with = "out")]
    detach: bool,
}

fn class(text: &str) -> Result<Class, String> {
    match text {
        "urgent" => Ok(Class::Urgent),
        "normal" => Ok(Class::Normal),
        "batch" => Ok(Class::Batch),
        _ => Err("urgent, normal, batch".into()),
    }
}

fn on_suspect(text: &str) -> Result<OnSuspect, String> {
    match text {
        "keep" => Ok(OnSuspect::Keep),
        "retry" => Ok(OnSuspect::Retry),
        _ => Err("retry, keep".into()),
    }
}

pub(crate) async fn run(args: SubmitArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let workflow = read_workflow(&args.workflow)?;
    let sizes = args.input.iter().map(input_size).collect::<Result<Vec<u64>, _>>()?;
    let vary = args.vary.into_iter().map(values).collect::<Result<Vec<_>, _>>()?;
    let stages = args.then.into_iter().map(read_stage).collect::<Result<Vec<_>, _>>()?;
    let shelf = args.out.as_deref().map(Shelf::open).transpose()?;
    let client = context.connection.open()?;

    let mut inputs = Vec::new();
    for (file, bytes) in args.input.iter().zip(sizes) {
        inputs.push(upload(&client, file, bytes).await?);
    }
    let (inputs, then) = share_out(inputs, stages);
    let request = SubmitRequest {
        label: label(&args.workflow),
        workflow,
        set: args.set,
        inputs,
        count: args.count,
        vary,
        then,
        class: args.class,
        reach: args.reach,
        project: args.project,
        needs: args.needs.unwrap_or_default(),
        on_suspect: args.on_suspect,
        keep_on: args.keep_on,
        previews: args.preview.is_some(),
        full_hygiene: args.full_hygiene,
    };
    let job = client.submit(&request).await.map_err(|error| match error.code {
        ErrorCode::NotJson
        | ErrorCode::UiFormat
        | ErrorCode::InvalidGraph
        | ErrorCode::NoSuchSetting
        | ErrorCode::MissingInput
        | ErrorCode::UnknownClass
        | ErrorCode::MissingModel
        | ErrorCode::NoEligibleNode => error.about(&args.workflow),
        _ => error,
    })?;
    ui.talk(&Message::Submitted {
        job: job.short.clone(),
        tasks: job.tasks.len(),
        reach: job.reach.to_string(),
    });
    if args.detach {
        ui.result(&job.job.to_string());
        ui.talk(&Message::NextShow { job: job.short.clone() });
        return Ok(Outcome::of(job_view::json(&job, &Places::default())));
    }
    let follower = Follower::start(&context.connection, &job.job.to_string()).await?;
    Watch { context, shelf, preview: args.preview }.until_the_end(follower).await
}

/// What a varied input is varied over.
fn values(vary: Vary) -> Result<Variation, CliError> {
    let values = match vary.over {
        Over::Values(values) => values,
        Over::File(path) => {
            let lines = read_workflow(&path)?;
            lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
        }
    };
    Ok(Variation { path: vary.path, values })
}

fn read_stage(stage: Stage) -> Result<StageRequest, CliError> {
    let workflow = read_workflow(&stage.path)?;
    let (set, inputs, vary, feeds) = (Vec::new(), Vec::new(), Vec::new(), stage.feeds);
    Ok(StageRequest { workflow, set, inputs, count: 1, vary, feeds })
}

/// Files go to the workflows that name them, and to the first when none does: it is told so then.
fn share_out(inputs: Vec<InputName>, mut stages: Vec<StageRequest>) -> (Vec<InputName>, Vec<StageRequest>) {
    let mut first = Vec::new();
    for input in inputs {
        let named = serde_json::Value::from(input.name.as_str()).to_string();
        let later = stages.iter_mut().filter(|stage| stage.workflow.contains(&named));
        let taken = later.map(|stage| stage.inputs.push(input.clone())).count();
        if taken == 0 {
            first.push(input);
        }
    }
    (first, stages)
}

fn label(path: &Path) -> String {
    match path.file_stem() {
        Some(stem) if stem != "-" => stem.to_string_lossy().into_owned(),
        _ => "stdin".into(),
    }
}

pub(super) fn read_workflow(path: &Path) -> Result<String, CliError> {
    let shown = path.display().to_string();
    let mut bytes = Vec::new();
    let limit = GRAPH_LIMIT as u64 + 1;
    let read = if shown == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        let message = Message::CannotRead { path: shown.clone(), why: os_words(&error) };
        CliError::file(message, Message::HintCheckPath)
    })?;
    if bytes.len() > GRAPH_LIMIT {
        let limit = human::bytes(GRAPH_LIMIT as u64);
        let message = Message::WorkflowTooLarge { path: shown, limit };
        return Err(CliError::new(ErrorCode::TooLarge, message, Message::HintNotEmbedded));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map_or(bytes.as_slice(), |rest| rest);
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        CliError::new(ErrorCode::NotJson, Message::WorkflowNotText { path: shown }, Message::HintExportApi)
    })
}

fn input_size(file: &NamedFile) -> Result<u64, CliError> {
    let path = file.path.display().to_string();
    let cannot = |why: String| {
        CliError::new(
            ErrorCode::MissingInput,
            Message::CannotReadInput { name: file.name.clone(), path: path.clone(), why },
            Message::HintCheckPath,
        )
    };
    let metadata = std::fs::metadata(&file.path).map_err(|error| cannot(os_words(&error)))?;
    if !metadata.is_file() {
        return Err(cannot("not a file".into()));
    }
    if metadata.len() > INPUT_LIMIT {
        let limit = human::bytes(INPUT_LIMIT);
        let message = Message::InputTooLarge { path, bytes: human::bytes(metadata.len()), limit };
        return Err(CliError::new(ErrorCode::TooLarge, message, Message::HintSmallerInput));
    }
    Ok(metadata.len())
}

async fn upload(client: &ApiClient, file: &NamedFile, bytes: u64) -> Result<InputName, CliError> {
    let open = tokio::fs::File::open(&file.path).await.map_err(|error| {
        let path = file.path.display().to_string();
        let message = Message::CannotReadInput { name: file.name.clone(), path, why: os_words(&error) };
        CliError::new(ErrorCode::MissingInput, message, Message::HintCheckPath)
    })?;
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(open, 1 << 18));
    let reply = client.upload(body, bytes).await?;
    Ok(InputName { name: file.name.clone(), input: reply.input })
}

/// Saving goes on while events come in.
type Saving<'a> = Pin<Box<dyn Future<Output = (Shelf, Result<(), CliError>)> + 'a>>;

struct Watch<'a> {
    context: &'a Context<'a>,
    shelf: Option<Shelf>,
    preview: Option<PathBuf>,
}

impl<'a> Watch<'a> {
    async fn until_the_end(mut self, mut follower: Follower) -> Result<Outcome, CliError> {
        let ui = self.context.ui;
        let mut progress = Progress::new(ui);
        progress.show(follower.job());
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut queue = VecDeque::new();
        let mut queued = vec![false; follower.job().tasks.len()];
        let mut saving: Option<Saving<'a>> = None;
        loop {
            enqueue(follower.job(), &mut queued, &mut queue);
            if saving.is_none()
                && let Some(shelf) = self.shelf.take()
            {
                match queue.pop_front() {
                    Some(at) => saving = Some(self.save(shelf, follower.job().clone(), at)),
                    None => self.shelf = Some(shelf),
                }
            }
            let ended = follower.job().state.is_final();
            if ended && saving.is_none() {
                break;
            }
            tokio::select! {
                biased;
                _ = &mut interrupted => {
                    progress.end();
                    return Ok(self.detached(follower.job(), ui));
                }
                (shelf, result) = async { saving.as_mut().expect("guarded").await }, if saving.is_some() => {
                    saving = None;
                    self.shelf = Some(shelf);
                    result.inspect_err(|_| progress.end())?;
                }
                change = follower.next(), if !ended => {
                    match change.inspect_err(|_| progress.end())? {
                        Change::Preview(task) => self.save_preview(&task.to_string()).await?,
                        Change::Away => progress.talk(&Message::DaemonWentAway),
                        Change::Back => progress.talk(&Message::DaemonIsBack),
                        _ => {}
                    }
                    progress.show(follower.job());
                }
            }
        }
        progress.end();
        Ok(self.finished(follower.job(), ui))
    }

    fn save(&self, mut shelf: Shelf, job: JobView, at: usize) -> Saving<'a> {
        let connection = &self.context.connection;
        async move {
            let result = async {
                let client = connection.open()?;
                for output in &job.tasks[at].outputs {
                    shelf.save(&client, &job, &job.tasks[at], output).await?;
                }
                Ok(())
            };
            let result = result.await;
            (shelf, result)
        }
        .boxed_local()
    }

    async fn save_preview(&self, task: &str) -> Result<(), CliError> {
        let Some(path) = &self.preview else { return Ok(()) };
        // A preview that cannot be had now is no reason to stop: the next one is on its way.
        if let Ok(client) = self.context.connection.open()
            && let Ok(Some(bytes)) = client.preview(task).await
        {
            save::replace(path, &bytes)?;
        }
        Ok(())
    }

    fn detached(&self, job: &JobView, ui: &Ui) -> Outcome {
        ui.talk(&Message::Detached { job: job.short.clone() });
        let places = self.shelf.as_ref().map(|shelf| shelf.places.clone()).unwrap_or_default();
        Outcome { exit_code: Some(INTERRUPTED), ..Outcome::of(job_view::json(job, &places)) }
    }

    fn finished(self, job: &JobView, ui: &Ui) -> Outcome {
        let saved = self.shelf.is_some();
        let places = self.shelf.map(|shelf| shelf.places).unwrap_or_default();
        job_view::print(job, &places, ui);
        wipes::warn(job, ui);
        if !saved && job.tasks.iter().any(|task| !task.outputs.is_empty()) {
            ui.talk(&Message::NextFetch { job: job.short.clone() });
        }
        Outcome::of(job_view::json(job, &places)).failing(failure(job))
    }
}

/// Tasks whose results can be saved now, each once.
fn enqueue(job: &JobView, queued: &mut Vec<bool>, queue: &mut VecDeque<usize>) {
    queued.resize(job.tasks.len(), false);
    for (at, task) in job.tasks.iter().enumerate() {
        if task.state == TaskState::Done && !task.outputs.is_empty() && !queued[at] {
            queued[at] = true;
            queue.push_back(at);
        }
    }
}

fn failure(job: &JobView) -> Option<CliError> {
    let short = job.short.clone();
    match job.state {
        JobState::Failed => {
            let failed: Vec<_> = job.tasks.iter().filter(|task| task.state == TaskState::Failed).collect();
            let why = failed.first().map(|task| lines::last_failure(task)).unwrap_or_default();
            let message = Message::JobFailed { failed: failed.len(), total: job.tasks.len(), why };
            Some(CliError::new(ErrorCode::WorkFailed, message, Message::HintRetry { job: short }))
        }
        JobState::Cancelled => Some(CliError::new(
            ErrorCode::Cancelled,
            Message::JobCancelled { job: short.clone() },
            Message::HintRetry { job: short },
        )),
        JobState::Queued | JobState::Running | JobState::Done => None,
    }
}
