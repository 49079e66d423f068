//! Decides what runs where: our tasks out there, others' tasks here.

pub mod conversation;
pub mod link;
pub mod placement;
pub mod record;
pub mod renderer;
pub mod requester;
pub mod view;

#[cfg(test)]
mod tests;
// Stand-in until the actor is here.
use scenemesh_protocol::ids::{JobId, TaskId};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Scheduler {
    news: tokio::sync::broadcast::Sender<view::JobEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Job(JobId),
    Task { job: JobId, task: TaskId },
}
impl Id {
    pub fn job(self) -> JobId {
        match self {
            Self::Job(job) | Self::Task { job, .. } => job,
        }
    }
}
impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(id) => id.fmt(f),
            Self::Task { task, .. } => task.fmt(f),
        }
    }
}
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("none")]
    None,
    #[error("ambiguous")]
    Ambiguous,
    #[error("stopping")]
    Stopping,
}
#[derive(Clone, Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("stopping")]
    Stopping,
    #[error("over")]
    Over,
}
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("stopping")]
    Stopping,
    #[error("over")]
    Bad(String),
}

#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub vram_mib: Option<u32>,
    pub min_cc: Option<u16>,
}
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub label: String,
    pub person: String,
    pub graph: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub inputs: Vec<scenemesh_protocol::task::InputFile>,
    pub count: u32,
    pub class: scenemesh_protocol::task::Class,
    pub reach: scenemesh_protocol::task::Reach,
    pub needs: Needs,
    pub previews: bool,
    pub full_hygiene: bool,
    pub time_limit: std::time::Duration,
}

#[allow(clippy::unused_async)]
impl Scheduler {
    pub async fn submit(&self, _spec: JobSpec) -> Result<JobId, SubmitError> {
        Err(SubmitError::Stopping)
    }
    pub async fn jobs(&self) -> Vec<view::JobView> {
        Vec::new()
    }
    pub async fn show(&self, _job: JobId) -> Option<view::JobView> {
        None
    }
    pub async fn why(&self, _id: Id) -> Option<String> {
        None
    }
    pub async fn log(&self, _id: Id) -> Vec<view::LogLine> {
        Vec::new()
    }
    pub async fn cancel(&self, _id: Id) -> Result<(), SchedulerError> {
        Err(SchedulerError::Over)
    }
    pub async fn retry(&self, _id: Id) -> Result<(), SchedulerError> {
        Err(SchedulerError::Over)
    }
    pub async fn resolve(&self, _prefix: &str) -> Result<Id, ResolveError> {
        Err(ResolveError::None)
    }
    pub async fn preview(&self, _task: TaskId) -> Option<Arc<scenemesh_protocol::lease::Preview>> {
        None
    }
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<view::JobEvent> {
        self.news.subscribe()
    }
}
