//! Keeps what was said by hand: one actor owns it, a file holds it over restarts, everybody else watches. It turns
//! round by itself when its time is over.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::lending::{Hand, Lending};
use crate::supervisor::Tasks;
use crate::{clock, platform};

/// Where it is kept, in the data directory.
pub const FILE: &str = "lending.toml";
/// Callers are people at this machine.
const INBOX: usize = 16;
/// The clock on the wall is looked at this often at least: it may be set.
const LOOK: Duration = Duration::from_secs(20);
/// Most bytes of the file.
const LONGEST: u64 = 4096;

/// A file that cannot be used. Starting again does not help.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    #[error("{} cannot be read: {source}; check who owns it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} does not say whether this machine is lent; remove it, then it is", path.display())]
    Malformed { path: PathBuf },
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{} cannot be written: {source}; check the disk and who owns the directory", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

#[derive(Debug)]
struct Command {
    hand: Hand,
    until_ms: Option<u64>,
    reply: oneshot::Sender<Result<Lending, ChangeError>>,
}

/// Handle to the keeper; cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    inbox: mpsc::Sender<Command>,
    lending: watch::Receiver<Lending>,
}

/// Reads `DIR/lending.toml`, when there is one, and keeps it.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn spawn(dir: &Path, tasks: &Tasks) -> Result<Keeper, BadFile> {
    let path = dir.join(FILE);
    let (shown, lending) = watch::channel(read(&path)?.at(clock::wall_ms()));
    let (inbox, commands) = mpsc::channel(INBOX);
    let (stopping, workers) = (tasks.stopping(), tasks.clone());
    tasks.spawn("lending", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = keep(path, commands, shown, workers) => {}
        }
        Ok(())
    });
    Ok(Keeper { inbox, lending })
}

async fn keep(
    path: PathBuf,
    mut commands: mpsc::Receiver<Command>,
    shown: watch::Sender<Lending>,
    workers: Tasks,
) {
    loop {
        let known = *shown.borrow();
        let left = known.until_ms.map(|until| Duration::from_millis(until.saturating_sub(clock::wall_ms())));
        tokio::select! {
            // What the file still says comes to the same once its time is over.
            () = tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)), if left.is_some() => {
                let now = known.at(clock::wall_ms());
                if now != known {
                    tracing::info!(lend = now.hand.word(), "as it was said to hold until now");
                    shown.send_replace(now);
                }
            }
            command = commands.recv() => {
                let Some(Command { hand, until_ms, reply }) = command else { return };
                let lending = Lending { hand, until_ms, since_ms: clock::wall_ms() };
                let file = path.clone();
                let written = workers.blocking(move || write(&file, &lending)).await;
                let answer = written.unwrap_or(Err(ChangeError::Stopping)).map(|()| {
                    shown.send_replace(lending);
                    lending
                });
                // Whoever asked may be gone; what they said stands.
                drop(reply.send(answer));
            }
        }
    }
}

fn write(path: &Path, lending: &Lending) -> Result<(), ChangeError> {
    let written = platform::replace_file(path, lending.write().as_bytes())
        .and_then(|()| path.parent().map_or(Ok(()), platform::sync_dir));
    written.map_err(|source| ChangeError::Write { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Lending, BadFile> {
    let unreadable = |source| BadFile::Unreadable { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(found) if found.len() > LONGEST => return Err(BadFile::Malformed { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lending::default()),
        Err(error) => return Err(unreadable(error)),
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Lending::read(&text).ok_or_else(|| BadFile::Malformed { path: path.to_owned() })
}

impl Keeper {
    /// What holds, kept up to date.
    pub fn lending(&self) -> watch::Receiver<Lending> {
        self.lending.clone()
    }

    /// Says something else; resolves when that is on disk and holds.
    ///
    /// # Errors
    /// As [`ChangeError`] says.
    pub async fn say(&self, hand: Hand, until_ms: Option<u64>) -> Result<Lending, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Command { hand, until_ms, reply }).await.map_err(|_| ChangeError::Stopping)?;
        answer.await.map_err(|_| ChangeError::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Supervisor;

    #[tokio::test]
    async fn it_holds_over_a_restart_and_turns_round_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Supervisor::new(Duration::from_secs(1));
        let keeper = spawn(dir.path(), &first.tasks()).unwrap();
        assert_eq!(keeper.lending().borrow().hand, Hand::Lent, "lent until somebody says otherwise");
        let until = clock::wall_ms() + 3_600_000;
        keeper.say(Hand::BackNow, Some(until)).await.unwrap();
        first.run_until(std::future::ready(())).await.unwrap();

        let second = Supervisor::new(Duration::from_secs(1));
        let keeper = spawn(dir.path(), &second.tasks()).unwrap();
        let held = *keeper.lending().borrow();
        assert_eq!((held.hand, held.until_ms), (Hand::BackNow, Some(until)));
        keeper.say(Hand::Back, Some(clock::wall_ms() + 30)).await.unwrap();
        let mut lending = keeper.lending();
        let lent = lending.wait_for(|lending| lending.hand == Hand::Lent).await.unwrap().until_ms;
        assert_eq!(lent, None);
        second.run_until(std::future::ready(())).await.unwrap();

        let third = Supervisor::new(Duration::from_secs(1));
        let keeper = spawn(dir.path(), &third.tasks()).unwrap();
        assert_eq!(keeper.lending().borrow().hand, Hand::Lent, "its time went by while nobody ran");
        std::fs::write(dir.path().join(FILE), "perhaps\n").unwrap();
        let error = spawn(dir.path(), &third.tasks()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
        third.run_until(std::future::ready(())).await.unwrap();
    }
}
