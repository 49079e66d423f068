//! Names and owns every task: a task that fails or panics stops the node, by name.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A task that ended when it should not have.
#[derive(Debug, thiserror::Error)]
#[error("task {name} failed: {cause:#}")]
pub struct TaskFailure {
    pub name: &'static str,
    pub cause: anyhow::Error,
}

/// Handle with which actors start tasks; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failures: mpsc::Sender<TaskFailure>,
}

impl Tasks {
    /// Cancelled when the node stops; every long-running task selects on it.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. An error or a panic stops the whole node and names the task.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let failures = self.failures.clone();
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let cause = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(cause)) => cause,
                Err(panic) => anyhow::anyhow!("panicked: {}", panic_text(panic.as_ref())),
            };
            // A full inbox means a failure is already being reported; the stop below is what matters.
            drop(failures.try_send(TaskFailure { name, cause }));
            stop.cancel();
        });
    }

    /// Runs blocking work (file I/O, hashing) on tokio's blocking pool.
    ///
    /// # Errors
    /// When the work panicked or the runtime is shutting down.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T, tokio::task::JoinError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.tracker.spawn_blocking(work).await
    }

    /// Starts blocking work without waiting for it, for owners that keep a few pieces going at once. Dropping the
    /// handle takes back what has not begun.
    pub fn start_blocking<T, F>(&self, work: F) -> AbortOnDropHandle<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        AbortOnDropHandle::new(self.tracker.spawn_blocking(work))
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// Owns all tasks of one node.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    failures: mpsc::Receiver<TaskFailure>,
    grace: Duration,
}

impl Supervisor {
    /// `grace` is how long `shutdown` waits for tasks to end by themselves.
    pub fn new(grace: Duration) -> Self {
        // A handful is enough: the first failure stops the node, later ones are echoes of it.
        let (sender, failures) = mpsc::channel(8);
        let tasks = Tasks { tracker: TaskTracker::new(), stop: CancellationToken::new(), failures: sender };
        Self { tasks, failures, grace }
    }

    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Waits until `signal` resolves or a task fails, then stops everything.
    ///
    /// # Errors
    /// The failure of the first task that failed, if one did.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), TaskFailure> {
        let failed = tokio::select! {
            () = signal => None,
            failure = self.failures.recv() => failure,
        };
        self.tasks.stop.cancel();
        self.tasks.tracker.close();
        if tokio::time::timeout(self.grace, self.tasks.tracker.wait()).await.is_err() {
            tracing::warn!(grace = ?self.grace, "some tasks did not stop in time and are abandoned");
        }
        failed.or_else(|| self.failures.try_recv().ok()).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_task_stops_the_node_by_name() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        supervisor.tasks().spawn("bad", async { anyhow::bail!("no disk") });
        let failure = supervisor.run_until(std::future::pending()).await.unwrap_err();
        assert_eq!(failure.to_string(), "task bad failed: no disk");
    }

    #[tokio::test]
    async fn a_panic_stops_the_node_too_and_others_are_told() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let stop = supervisor.tasks().stopping();
        supervisor.tasks().spawn("worker", async move {
            stop.cancelled().await;
            Ok(())
        });
        supervisor.tasks().spawn("bad", async { panic!("bug") });
        let failure = supervisor.run_until(std::future::pending()).await.unwrap_err();
        assert_eq!(failure.to_string(), "task bad failed: panicked: bug");
    }
}
