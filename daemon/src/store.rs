//! The floor every module stands on: the journal (truth), the index (derived), the blobs (sealed files).
//!
//! ```text
//! DIR/lock                  held while a daemon runs
//! DIR/journal/<start>.log   append-only segments                     store/journal.rs
//! DIR/index/                sled, rebuilt from the journal            store/index.rs
//! DIR/blobs/                ciphertext and manifests, by root         store/blobs.rs
//! ```
//! Directories are 0700, files 0600. Truth is the journal alone: an index that is missing, damaged or behind costs time.

mod blobs;
mod index;
mod journal;
mod replay;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blobs::{BlobError, Blobs, Incoming, Opener, Sealed, Sealer, Swept};
pub use index::{Index, IndexBatch, IndexError, IndexOpenError, Tree};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use journal::fuzzing;
pub use journal::writer::JournalOpenError;
pub use journal::{Entry, Journal, JournalError, Position, Record};
pub use replay::{IndexRebuild, RebuildError, Replay, ReplayError};

use crate::platform;
use crate::supervisor::Tasks;

/// Where the store lives and how much of the disk the blobs may take.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    /// Most bytes of all blobs together.
    pub quota: u64,
    /// Bytes of the disk that blobs leave free: for the journal, and for everybody else.
    pub reserve: u64,
}

impl Config {
    /// 200 GiB of blobs at most, 2 GiB always left free.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), quota: 200 << 30, reserve: 2 << 30 }
    }
}

/// Handles to all that is kept on disk; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub journal: Journal,
    pub index: Index,
    pub blobs: Blobs,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {dir}: {tried}: {source}; choose another with --data-dir or fix its permissions")]
    Dir { dir: PathBuf, tried: &'static str, source: io::Error },
    #[error("data directory {dir} is in use by another daemon; stop it or choose another with --data-dir")]
    Locked { dir: PathBuf },
    #[error(transparent)]
    Journal(#[from] JournalOpenError),
    #[error(transparent)]
    Index(#[from] IndexOpenError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("the node is stopping")]
    Stopping,
}

/// Something that opening noticed and repaired. Nothing that was acknowledged is lost by any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A write that was cut short; its sender was never told that it is safe.
    TornJournal {
        path: PathBuf,
        bytes: u64,
    },
    DamagedIndex {
        moved_to: PathBuf,
        why: String,
    },
    /// Files of sealings or transfers that cannot be continued.
    BlobLeftovers {
        files: usize,
        bytes: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornJournal { path, bytes } => {
                write!(f, "cut {bytes} bytes of an unfinished write from the end of {}", path.display())
            }
            Self::DamagedIndex { moved_to, why } => {
                write!(f, "the index was damaged ({why}): moved to {}, rebuilding it", moved_to.display())
            }
            Self::BlobLeftovers { files, bytes } => {
                write!(f, "removed {files} files ({bytes} bytes) of blobs that were never finished")
            }
        }
    }
}

/// Opens the store: takes the lock, reads the journal, repairs what a crash left.
///
/// The caller lets every module read its records from [`Replay`], catches the index up with [`Replay::index`], and
/// drops the replay.
///
/// # Errors
/// As [`OpenError`] says. While the lock is held nothing is touched; a damaged journal is left as it is.
pub async fn open(config: &Config, tasks: &Tasks) -> Result<(Store, Replay), OpenError> {
    open_with(config, tasks, journal::writer::SEGMENT_BYTES).await
}

async fn open_with(config: &Config, tasks: &Tasks, segment_bytes: u64) -> Result<(Store, Replay), OpenError> {
    let (owned, blob_tasks) = (config.clone(), tasks.clone());
    let opened = tasks.blocking(move || open_blocking(&owned, segment_bytes, blob_tasks)).await;
    let Opened { lock, writer, index, blobs, replay } = opened.map_err(|_| OpenError::Stopping)??;
    for finding in replay.findings() {
        tracing::warn!("{finding}");
    }
    let journal = journal::spawn(writer, index.clone(), lock, tasks);
    Ok((Store { journal, index, blobs }, replay))
}

struct Opened {
    lock: Arc<File>,
    writer: journal::writer::Writer,
    index: Index,
    blobs: Blobs,
    replay: Replay,
}

fn open_blocking(config: &Config, segment_bytes: u64, tasks: Tasks) -> Result<Opened, OpenError> {
    let mut findings = Vec::new();
    let Config { dir, quota, reserve } = config;
    let lock = Arc::new(lock(dir)?);
    // The index goes first: it may know of records whose loss must not pass for an unfinished write.
    let (index, indexed) = Index::open(&dir.join("index"), lock.clone(), &mut findings)?;
    let (writer, loaded) =
        journal::writer::Writer::open(&dir.join("journal"), segment_bytes, indexed, &mut findings)?;
    let blobs =
        Blobs::open_dir(&dir.join("blobs"), *quota, *reserve, tasks.clone(), lock.clone(), &mut findings)?;
    let replay = Replay::new(loaded, index.clone(), indexed, findings, tasks)
        .map_err(|error| OpenError::Index(error.into()))?;
    // Names of directories are not durable by themselves either.
    platform::sync_dir(dir).map_err(|source| OpenError::Dir {
        dir: dir.clone(),
        tried: "syncing it",
        source,
    })?;
    Ok(Opened { lock, writer, index, blobs, replay })
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |tried| move |source| OpenError::Dir { dir: dir.into(), tried, source };
    let is_new = !dir.exists();
    platform::create_private_dir(dir).map_err(failed("creating it"))?;
    if let Some(parent) = dir.parent().filter(|parent| is_new && !parent.as_os_str().is_empty()) {
        platform::sync_dir(parent).map_err(failed("syncing its parent"))?;
    }
    let path = dir.join("lock");
    let file = platform::private_file().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed("opening its lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.into() }),
        Err(TryLockError::Error(source)) => {
            Err(OpenError::Dir { dir: dir.into(), tried: "locking it", source })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
