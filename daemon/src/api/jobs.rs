//! Looking at jobs; cancelling, retrying, pausing and resuming them.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use scenemesh_protocol::api::{ErrorCode, JobView, JobsReply, LogReply, Ranges, WhyReply};
use scenemesh_protocol::ids::{JobId, TaskId};

use super::eyes::{self, Who};
use super::guard::Caller;
use super::trouble::Trouble;
use super::views::{self, Shorts};
use super::{Node, korean};
use crate::messages::{Lang, Message};
use crate::scheduler::story::Why;
use crate::scheduler::{Id, ResolveError, SubmitError, Which};
use crate::store::JournalError;

/// Reads any unambiguous beginning of a job's or task's id.
pub(super) async fn resolve(node: &Node, given: &str) -> Result<Id, Trouble> {
    let plain = (1..=32).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !plain {
        let given = given.chars().take(80).collect();
        return Err(Trouble::new(ErrorCode::Usage, &Message::BadId { given }).hint(&Message::HintJobs));
    }
    node.ports.scheduler.resolve(&given.to_ascii_lowercase()).await.map_err(|error| {
        let given = given.to_owned();
        match error {
            ResolveError::None { .. } => {
                Trouble::new(ErrorCode::NotFound, &Message::NoSuchId { given }).hint(&Message::HintJobs)
            }
            ResolveError::Ambiguous { .. } => {
                Trouble::new(ErrorCode::Ambiguous, &Message::AmbiguousId { given })
                    .hint(&Message::HintLongerId)
            }
            ResolveError::Stopping => Trouble::stopping(),
        }
    })
}

/// Reads an id, with numbers of the job's tasks behind a colon or without.
async fn which(node: &Node, given: &str) -> Result<Which, Trouble> {
    let (id, ranges) = Ranges::split(given).map_err(|_| {
        let given = given.chars().take(80).collect();
        Trouble::new(ErrorCode::Usage, &Message::BadRange { given }).hint(&Message::HintRange)
    })?;
    let id = resolve(node, id).await?;
    if matches!(id, Id::Task { .. }) && !ranges.is_all() {
        let given = given.chars().take(80).collect();
        return Err(Trouble::new(ErrorCode::Usage, &Message::RangeOfTask { given }).hint(&Message::HintRange));
    }
    Ok(Which { id, ranges })
}

/// The job that an id means, itself or the one its task belongs to.
pub(super) async fn job_of(node: &Node, given: &str) -> Result<JobId, Trouble> {
    match resolve(node, given).await? {
        Id::Job(job) => Ok(job),
        Id::Task { job, .. } => Ok(job),
    }
}

/// The task that an id means; a job of one task means that task.
pub(super) async fn task_of(node: &Node, given: &str) -> Result<(JobId, TaskId), Trouble> {
    let nothing = || no_such(given);
    match resolve(node, given).await? {
        Id::Task { job, task } => Ok((job, task)),
        Id::Job(job) => {
            let view = node.ports.scheduler.show(job).await.ok_or_else(nothing)?;
            match view.tasks.as_slice() {
                [task] => Ok((job, task.task)),
                _ => Err(nothing()),
            }
        }
    }
}

pub(super) async fn view(node: &Node, caller: &Caller, job: JobId, lang: Lang) -> Result<JobView, Trouble> {
    views::job(node, job, caller, lang).await.ok_or_else(|| no_such(&job.short()))
}

pub(super) fn no_such(given: &str) -> Trouble {
    let given = given.to_owned();
    Trouble::new(ErrorCode::NotFound, &Message::NoSuchId { given }).hint(&Message::HintJobs)
}

/// Nothing of what was named is in a state for this.
fn nothing_to(count: usize, message: &Message) -> Result<(), Trouble> {
    if count > 0 { Ok(()) } else { Err(Trouble::new(ErrorCode::Conflict, message).hint(&Message::HintShow)) }
}

pub(super) fn submit_trouble(error: &SubmitError) -> Trouble {
    let korean = Some(korean::submit(error));
    match error {
        SubmitError::Stopping => Trouble::stopping(),
        SubmitError::Journal(JournalError::NoSpace { .. }) => Trouble::of(ErrorCode::DiskFull, error, korean),
        SubmitError::Journal(_) => Trouble::broke(error),
        SubmitError::TooLarge { .. } | SubmitError::Count { .. } => {
            Trouble::of(ErrorCode::TooLarge, error, korean)
        }
        SubmitError::Graph(_) => Trouble::of(ErrorCode::InvalidGraph, error, korean),
        SubmitError::TooManyInputs { .. }
        | SubmitError::TooManyKinds { .. }
        | SubmitError::TooManyStages { .. }
        | SubmitError::InputsTooLarge { .. }
        | SubmitError::TooVaried { .. } => Trouble::of(ErrorCode::TooLarge, error, korean),
        SubmitError::MissingInput { .. }
        | SubmitError::UnusedInput { .. }
        | SubmitError::NoSuchSource { .. }
        | SubmitError::Input { .. } => Trouble::of(ErrorCode::MissingInput, error, korean),
        SubmitError::NothingVaried { .. } | SubmitError::UnevenSources { .. } => {
            Trouble::of(ErrorCode::Usage, error, korean)
        }
        SubmitError::Deputy { .. } => Trouble::of(ErrorCode::Conflict, error, korean),
        SubmitError::Partner { .. } | SubmitError::Token { .. } => {
            Trouble::of(ErrorCode::Refused, error, korean)
        }
        SubmitError::ExtraData(_) => Trouble::of(ErrorCode::Usage, error, korean),
    }
}

pub(super) async fn list(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
) -> Json<JobsReply> {
    let jobs = views::jobs(&node).await;
    let shorts = Shorts::of(&jobs);
    let view = |job| views::job_view(&node, job, &shorts, &caller, lang);
    Json(JobsReply { jobs: jobs.iter().map(view).collect() })
}

pub(super) async fn show(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let job = job_of(&node, &id).await?;
    view(&node, &caller, job, lang).await.map(Json)
}

pub(super) async fn why(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<WhyReply>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    eyes::own(&node, &caller, resolved.job()).await?;
    let why = node.ports.scheduler.why(resolved).await.unwrap_or(Why::Waits);
    let code = why.code().into();
    Ok(Json(WhyReply { id: resolved.to_string(), why: views::why(&why, lang), code }))
}

pub(super) async fn log(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<LogReply>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    eyes::own(&node, &caller, resolved.job()).await?;
    let lines = node.ports.scheduler.log(resolved).await;
    Ok(Json(LogReply { lines: lines.iter().map(|line| views::log_line(line, lang)).collect() }))
}

/// Tasks of the caller's own that an id means, and their job.
async fn own_tasks(node: &Node, caller: &Caller, given: &str) -> Result<(Which, JobId), Trouble> {
    let which = which(node, given).await?;
    let job = which.id.job();
    eyes::own(node, caller, job).await?;
    Ok((which, job))
}

pub(super) async fn cancel(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let (which, job) = own_tasks(&node, &caller, &id).await?;
    nothing_to(node.ports.scheduler.cancel(which).await, &Message::NothingToCancel)?;
    view(&node, &caller, job, lang).await.map(Json)
}

pub(super) async fn retry(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let (which, job) = own_tasks(&node, &caller, &id).await?;
    nothing_to(node.ports.scheduler.retry(which).await, &Message::NothingToRetry)?;
    view(&node, &caller, job, lang).await.map(Json)
}

pub(super) async fn pause(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let (which, job) = own_tasks(&node, &caller, &id).await?;
    nothing_to(node.ports.scheduler.pause(which).await, &Message::NothingToPause)?;
    view(&node, &caller, job, lang).await.map(Json)
}

pub(super) async fn resume(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let (which, job) = own_tasks(&node, &caller, &id).await?;
    nothing_to(node.ports.scheduler.resume(which).await, &Message::NothingToResume)?;
    view(&node, &caller, job, lang).await.map(Json)
}
