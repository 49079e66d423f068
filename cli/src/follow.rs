//! Follows a job: keeps a picture of it up to date, and finds the daemon again when it restarts.

use std::time::Duration;

use scenemesh_protocol::api::{ErrorCode, Event, JobView, LogLine};
use scenemesh_protocol::ids::TaskId;
use tokio::time::Instant;

use crate::client::{Connection, Events};
use crate::error::CliError;
use crate::messages::Message;

/// A daemon that restarts replays its journal first; after this long somebody should look.
const RECONNECT_FOR: Duration = Duration::from_mins(1);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

/// What an event changed. Numbers are positions in the job's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// Anything may have.
    Job,
    Task(usize),
    Progress(usize),
    Preview(TaskId),
    Log(LogLine),
    /// The daemon does not answer any more, and is looked for.
    Away,
    Back,
}

/// A job as its events have it.
#[derive(Debug)]
pub(crate) struct Follower {
    connection: Connection,
    job: JobView,
    /// `None` while the daemon is away.
    events: Option<Events>,
    away_since: Option<Instant>,
}

impl Follower {
    /// Begins to listen; `id` is any job's or task's.
    pub(crate) async fn start(connection: &Connection, id: &str) -> Result<Self, CliError> {
        let mut events = connection.open()?.job_events(id).await?;
        loop {
            match events.next().await {
                Some(Event::Job { job }) => {
                    let connection = connection.clone();
                    return Ok(Self { connection, job, events: Some(events), away_since: None });
                }
                Some(_) => {}
                None => return Err(gone()),
            }
        }
    }

    pub(crate) fn job(&self) -> &JobView {
        &self.job
    }

    /// The next change. May be dropped and called again at any time.
    pub(crate) async fn next(&mut self) -> Result<Change, CliError> {
        loop {
            if let Some(events) = &mut self.events {
                if let Some(event) = events.next().await {
                    let change = apply(&mut self.job, event);
                    return Ok(if self.away_since.take().is_some() { Change::Back } else { change });
                }
                self.events = None;
            }
            match self.away_since {
                None => {
                    self.away_since = Some(Instant::now());
                    return Ok(Change::Away);
                }
                Some(since) if since.elapsed() > RECONNECT_FOR => return Err(gone()),
                Some(_) => tokio::time::sleep(RECONNECT_EVERY).await,
            }
            self.reconnect().await?;
        }
    }

    async fn reconnect(&mut self) -> Result<(), CliError> {
        let opened = match self.connection.open() {
            Ok(client) => client.job_events(&self.job.job.to_string()).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(events) => self.events = Some(events),
            // A starting daemon is not there yet, or its file still holds the token of the one before.
            Err(error) if matches!(error.code.exit_code(), 3 | 4 | 7) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn gone() -> CliError {
    CliError::new(ErrorCode::NotRunning, Message::DaemonStaysAway, Message::HintJobGoesOn)
}

/// Brings the picture up to date.
pub(crate) fn apply(job: &mut JobView, event: Event) -> Change {
    match event {
        Event::Job { job: newer } if newer.job == job.job => {
            *job = newer;
            Change::Job
        }
        Event::Task { job: of, task } if of == job.job => {
            let Some(at) = job.tasks.iter().position(|known| known.task == task.task) else {
                return Change::Nothing;
            };
            job.tasks[at] = *task;
            Change::Task(at)
        }
        Event::Progress { job: of, task, progress } if of == job.job => {
            let Some(at) = job.tasks.iter().position(|known| known.task == task) else {
                return Change::Nothing;
            };
            job.tasks[at].progress = Some(progress);
            Change::Progress(at)
        }
        Event::Preview { job: of, task } if of == job.job => Change::Preview(task),
        Event::Log { job: of, line } if of == job.job => Change::Log(line),
        _ => Change::Nothing,
    }
}
