//! Keeps the owner's choices: one actor owns them, a file holds them, everybody else watches.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::Policy;
use super::choices::{BadChoices, Choices, FILE};
use crate::platform;
use crate::supervisor::Tasks;

/// Callers are people at this machine.
const INBOX: usize = 16;
/// Most bytes of the file.
const LONGEST: u64 = 4 << 20;

/// What is done with classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Allow,
    Deny,
    /// As the list has it.
    Reset,
}

/// A file of choices that cannot be used. Starting again does not help.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    #[error("{} cannot be read: {source}; check who owns it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Malformed { path: PathBuf, why: BadChoices },
}

/// Why a change was not made. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Choices(#[from] BadChoices),
    #[error(transparent)]
    File(#[from] BadFile),
    #[error("{} cannot be written: {source}; check the disk and who owns the directory", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

struct Command {
    change: Change,
    classes: Vec<String>,
    reply: oneshot::Sender<Result<Arc<Policy>, ChangeError>>,
}

/// Handle to the keeper; cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    inbox: mpsc::Sender<Command>,
    policy: watch::Receiver<Arc<Policy>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("change", &self.change).finish_non_exhaustive()
    }
}

/// Reads `DIR/policy.toml`, when there is one, and keeps it.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn spawn(dir: &Path, tasks: &Tasks) -> Result<Keeper, BadFile> {
    let path = dir.join(FILE);
    let (shown, policy) = watch::channel(Arc::new(Policy { choices: read(&path)? }));
    let (inbox, commands) = mpsc::channel(INBOX);
    let stopping = tasks.stopping();
    tasks.spawn("policy", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = keep(path, commands, shown) => {}
        }
        Ok(())
    });
    Ok(Keeper { inbox, policy })
}

async fn keep(path: PathBuf, mut commands: mpsc::Receiver<Command>, shown: watch::Sender<Arc<Policy>>) {
    while let Some(Command { change, classes, reply }) = commands.recv().await {
        let file = path.clone();
        let changed = tokio::task::spawn_blocking(move || make(&file, change, &classes)).await;
        let answer = changed.unwrap_or(Err(ChangeError::Stopping)).map(|choices| {
            let policy = Arc::new(Policy { choices });
            shown.send_replace(policy.clone());
            policy
        });
        // Whoever asked may be gone; the change stands.
        drop(reply.send(answer));
    }
}

/// The file is read anew: somebody may have edited it, and what they wrote must not be lost.
fn make(path: &Path, change: Change, classes: &[String]) -> Result<Choices, ChangeError> {
    let mut choices = read(path)?;
    choices.change(change, classes)?;
    let written = platform::replace_file(path, choices.write().as_bytes())
        .and_then(|()| path.parent().map_or(Ok(()), platform::sync_dir));
    written.map_err(|source| ChangeError::Write { path: path.to_owned(), source })?;
    Ok(choices)
}

fn read(path: &Path) -> Result<Choices, BadFile> {
    let unreadable = |source| BadFile::Unreadable { path: path.to_owned(), source };
    let text = match std::fs::metadata(path) {
        Ok(found) if found.len() > LONGEST => {
            return Err(BadFile::Malformed { path: path.to_owned(), why: BadChoices::TooMany });
        }
        Ok(_) => std::fs::read_to_string(path).map_err(unreadable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Choices::default()),
        Err(error) => return Err(unreadable(error)),
    };
    Choices::read(&text).map_err(|why| BadFile::Malformed { path: path.to_owned(), why })
}

impl Keeper {
    /// What may run here, kept up to date.
    pub fn policy(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.clone()
    }

    /// Changes the owner's choices; resolves when that is on disk and holds.
    ///
    /// # Errors
    /// As [`ChangeError`] says.
    pub async fn change(&self, change: Change, classes: Vec<String>) -> Result<Arc<Policy>, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { change, classes, reply };
        self.inbox.send(command).await.map_err(|_| ChangeError::Stopping)?;
        answer.await.map_err(|_| ChangeError::Stopping)?
    }
}
