//! Looking at jobs, cancelling and retrying them.

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use scenemesh_protocol::api::{ErrorCode, JobView, JobsReply, LogReply, WhyReply};
use scenemesh_protocol::ids::{JobId, TaskId};

use super::trouble::Trouble;
use super::views::{self, Shorts};
use super::{Node, korean};
use crate::messages::{Lang, Message};
use crate::scheduler::story::Why;
use crate::scheduler::{Id, ResolveError, SubmitError};
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

/// The job that an id means, itself or the one its task belongs to.
pub(super) async fn job_of(node: &Node, given: &str) -> Result<JobId, Trouble> {
    match resolve(node, given).await? {
        Id::Job(job) => Ok(job),
        Id::Task { job, .. } => Ok(job),
    }
}

/// The task that an id means; a job of one task means that task.
pub(super) async fn task_of(node: &Node, given: &str) -> Result<(JobId, TaskId), Trouble> {
    let nothing = || {
        let given = given.to_owned();
        Trouble::new(ErrorCode::NotFound, &Message::NoSuchId { given }).hint(&Message::HintJobs)
    };
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

pub(super) async fn view(node: &Node, job: JobId, lang: Lang) -> Result<JobView, Trouble> {
    views::job(node, job, lang).await.ok_or_else(|| {
        let given = job.short();
        Trouble::new(ErrorCode::NotFound, &Message::NoSuchId { given }).hint(&Message::HintJobs)
    })
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
        SubmitError::MissingInput { .. } | SubmitError::UnusedInput { .. } | SubmitError::Input { .. } => {
            Trouble::of(ErrorCode::MissingInput, error, korean)
        }
        SubmitError::Partner { .. } | SubmitError::Token { .. } => {
            Trouble::of(ErrorCode::Refused, error, korean)
        }
        SubmitError::ExtraData(_) => Trouble::of(ErrorCode::Usage, error, korean),
    }
}

pub(super) async fn list(State(node): State<Node>, Extension(lang): Extension<Lang>) -> Json<JobsReply> {
    let jobs = views::jobs(&node).await;
    let shorts = Shorts::of(&jobs);
    Json(JobsReply { jobs: jobs.iter().map(|job| views::job_view(&node, job, &shorts, lang)).collect() })
}

pub(super) async fn show(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let job = job_of(&node, &id).await?;
    view(&node, job, lang).await.map(Json)
}

pub(super) async fn why(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<WhyReply>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    let why = node.ports.scheduler.why(resolved).await.unwrap_or(Why::Waits);
    let code = why.code().into();
    Ok(Json(WhyReply { id: resolved.to_string(), why: views::why(&why, lang), code }))
}

pub(super) async fn log(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<LogReply>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    let lines = node.ports.scheduler.log(resolved).await;
    Ok(Json(LogReply { lines: lines.iter().map(|line| views::log_line(line, lang)).collect() }))
}

pub(super) async fn cancel(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    nothing_to(node.ports.scheduler.cancel(resolved).await, &Message::NothingToCancel)?;
    view(&node, resolved.job(), lang).await.map(Json)
}

pub(super) async fn retry(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Trouble> {
    let resolved = resolve(&node, &id).await?;
    nothing_to(node.ports.scheduler.retry(resolved).await, &Message::NothingToRetry)?;
    view(&node, resolved.job(), lang).await.map(Json)
}
