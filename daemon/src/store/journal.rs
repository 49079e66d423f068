//! The private log of what this node has done: append-only, fsynced before anything is acknowledged.
//!
//! One writer serves all callers; whoever commits while it syncs shares the next sync. A commit is atomic: after a crash
//! all of its records are replayed, or none.

pub(super) mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(super) mod writer;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::codec::{self, Decode, DecodeError, Encode};
use tokio::sync::{mpsc, oneshot};

use super::index::{Index, IndexBatch};
use crate::supervisor::Tasks;
use writer::Writer;

/// Callers that may wait for the writer at once; the next one waits for a place.
const INBOX: usize = 256;
/// Bytes of bodies after which a batch takes no more commits.
const BATCH_BYTES: usize = 8 << 20;
/// After the node began to stop, how long the journal waits for the last words of its actors.
const LINGER: Duration = Duration::from_millis(500);

/// Where an entry begins: bytes of entries since the journal's beginning. Grows with every entry, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(super) u64);

impl Position {
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that is journaled. Its owner reads it back at the next start, in order.
pub trait Record: Encode + Decode<()> + Send + 'static {
    /// Number in the journal, 1 to 0x7fff; never reused. A changed layout is a new kind.
    const KIND: u16;
    /// Most bytes of the encoded record, at most 16 MiB.
    const LIMIT: usize;

    /// What this record changes in the index. Runs when it is committed and again whenever the index is rebuilt.
    fn index(&self, _at: Position, _batch: &mut IndexBatch) {}
}

/// A record, encoded and ready to be committed.
#[derive(Clone)]
pub struct Entry {
    kind: u16,
    limit: usize,
    body: Vec<u8>,
    index: IndexFn,
}

/// Decodes a body of its kind and lets the record index itself.
pub(super) type IndexFn = fn(&[u8], Position, &mut IndexBatch) -> Result<(), DecodeError>;

pub(super) fn index_record<R: Record>(
    body: &[u8],
    at: Position,
    batch: &mut IndexBatch,
) -> Result<(), DecodeError> {
    codec::decode_body::<R>(body, R::LIMIT)?.index(at, batch);
    Ok(())
}

impl Entry {
    pub fn new<R: Record>(record: &R) -> Self {
        const { assert!(R::KIND > 0 && R::KIND < 0x8000 && R::LIMIT <= 16 << 20) };
        Self { kind: R::KIND, limit: R::LIMIT, body: codec::encode_body(record), index: index_record::<R> }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Why records were not made durable. Except after [`JournalError::Refusing`], none of the commit will be replayed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("record of kind {kind} takes {len} bytes, its limit is {limit}")]
    TooLong { kind: u16, len: usize, limit: usize },
    #[error("writing {bytes} bytes to {path}: the disk is full; free some space, nothing was recorded")]
    NoSpace { path: PathBuf, bytes: usize },
    #[error("writing {bytes} bytes to {path}: {source}; nothing was recorded")]
    Write { path: PathBuf, bytes: usize, source: Arc<std::io::Error> },
    /// After a failed sync the system may have dropped what it still claims to hold, so nothing more is promised.
    #[error(
        "the journal takes no more records since {path} could not be {tried} ({why}); check the disk and restart the node"
    )]
    Refusing { path: PathBuf, tried: &'static str, why: String },
    #[error("the node is stopping, the journal takes no more records")]
    Stopping,
}

/// Handle to the journal; cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    inbox: mpsc::Sender<Commit>,
}

#[derive(Debug)]
struct Commit {
    entries: Vec<Entry>,
    reply: oneshot::Sender<Result<Position, JournalError>>,
}

impl Journal {
    /// Makes records durable, all or none, and gives the position of the first.
    ///
    /// When it returns they are on stable storage and in the index. Dropping the future does not take them back.
    ///
    /// # Errors
    /// As [`JournalError`] says.
    pub async fn commit(&self, entries: Vec<Entry>) -> Result<Position, JournalError> {
        if let Some(Entry { kind, limit, body, .. }) =
            entries.iter().find(|entry| entry.body.len() > entry.limit)
        {
            return Err(JournalError::TooLong { kind: *kind, len: body.len(), limit: *limit });
        }
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Commit { entries, reply }).await.map_err(|_| JournalError::Stopping)?;
        answer.await.map_err(|_| JournalError::Stopping)?
    }
}

/// Starts the one writer. It keeps the data directory's lock until it has written its last batch.
pub(super) fn spawn(writer: Writer, index: Index, lock: Arc<File>, tasks: &Tasks) -> Journal {
    let (inbox, commits) = mpsc::channel(INBOX);
    let serving = serve(writer, index, commits, tasks.clone());
    tasks.spawn("journal", async move {
        let ended = serving.await;
        drop(lock);
        ended
    });
    Journal { inbox }
}

async fn serve(
    mut writer: Writer,
    index: Index,
    mut commits: mpsc::Receiver<Commit>,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let stopping = tasks.stopping();
    loop {
        let first = tokio::select! {
            commit = commits.recv() => commit,
            () = async {
                stopping.cancelled().await;
                tokio::time::sleep(LINGER).await;
            } => {
                commits.close();
                commits.recv().await
            }
        };
        let Some(first) = first else { break };
        let mut batch = vec![first];
        let mut bytes = bytes_of(&batch[0]);
        while bytes < BATCH_BYTES
            && let Ok(next) = commits.try_recv()
        {
            bytes += bytes_of(&next);
            batch.push(next);
        }
        let index = index.clone();
        writer = tasks
            .blocking(move || {
                write(&mut writer, &index, batch);
                writer
            })
            .await?;
    }
    // Nothing is lost without that last mark: damage at the very end would pass for a torn write.
    if let Err(error) = tasks.blocking(move || writer.close()).await? {
        tracing::warn!(%error, "the journal ends without its mark");
    }
    Ok(())
}

fn bytes_of(commit: &Commit) -> usize {
    commit.entries.iter().map(|entry| entry.body.len()).sum()
}

/// One batch: one write, one sync, one index batch, then the answers. A caller that went away does not mind.
fn write(writer: &mut Writer, index: &Index, batch: Vec<Commit>) {
    let commits: Vec<&[Entry]> = batch.iter().map(|commit| &commit.entries[..]).collect();
    match writer.append(&commits) {
        Ok(written) => {
            if let Some(watermark) = written.watermark {
                let mut changes = IndexBatch::default();
                for (entry, at) in commits.iter().copied().flatten().zip(&written.entries) {
                    if let Err(error) = (entry.index)(&entry.body, *at, &mut changes) {
                        tracing::error!(kind = entry.kind, %at, %error, "a record does not read back as it was written");
                    }
                }
                index.apply(changes, watermark);
            }
            for (commit, at) in batch.into_iter().zip(written.commits) {
                drop(commit.reply.send(Ok(at)));
            }
        }
        Err(error) => {
            for commit in batch {
                drop(commit.reply.send(Err(error.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
