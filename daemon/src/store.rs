//! The floor every module stands on: the journal (truth), the index (derived), the blobs (sealed files).
//!
//! ```text
//! DIR/lock                  held while a daemon runs
//! DIR/journal/<start>.log   append-only segments                     store/journal.rs
//! DIR/index/                sled, rebuilt from the journal            store/index.rs
//! DIR/blobs/                ciphertext and manifests, by root         store/blobs.rs
//! DIR/damaged/              what did not read any more, as it was found
//! ```
//! Directories are 0700, files 0600. Truth is the journal alone: an index that is missing, damaged or behind costs time.

mod blobs;
mod disk;
mod finding;
mod index;
mod journal;
mod replay;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blobs::{BlobError, Blobs, Incoming, Opener, Sealed, Sealer, Swept};
pub use finding::Finding;
pub use index::{Index, IndexBatch, IndexError, IndexOpenError, Tree};
pub use journal::compact::{CompactError, Compacted, Judge, Verdict};
pub use journal::export::{Export, ExportError};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use journal::fuzzing;
pub use journal::import::{Import, ImportError};
pub use journal::open::JournalOpenError;
pub use journal::{Entry, Journal, JournalError, Position, Record};
pub use replay::{IndexRebuild, RebuildError, Replay, ReplayError};

use crate::platform;
use crate::supervisor::Tasks;
use disk::{Disk, RealDisk};
use journal::open::Opening;

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
    /// What opening noticed, and what it did about it.
    pub findings: Arc<[Finding]>,
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

/// Opens the store: takes the lock, reads the journal, repairs what a crash left.
///
/// The caller lets every module read its records from [`Replay`], catches the index up with [`Replay::index`], and
/// drops the replay.
///
/// # Errors
/// As [`OpenError`] says. While another daemon holds the lock nothing is touched.
pub async fn open(config: &Config, tasks: &Tasks) -> Result<(Store, Replay), OpenError> {
    open_with(config, tasks, journal::writer::SEGMENT_BYTES, Arc::new(RealDisk)).await
}

async fn open_with(
    config: &Config,
    tasks: &Tasks,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
) -> Result<(Store, Replay), OpenError> {
    let (owned, blob_tasks) = (config.clone(), tasks.clone());
    let opened = tasks.blocking(move || open_blocking(&owned, segment_bytes, blob_tasks, disk)).await;
    let Opened { lock, writer, index, blobs, replay } = opened.map_err(|_| OpenError::Stopping)??;
    for finding in replay.findings() {
        tracing::warn!("{finding}");
    }
    let findings = replay.findings().into();
    let journal = journal::spawn(config.dir.clone(), writer, index.clone(), lock, tasks);
    Ok((Store { journal, index, blobs, findings }, replay))
}

struct Opened {
    lock: Arc<File>,
    writer: journal::writer::Writer,
    index: Index,
    blobs: Blobs,
    replay: Replay,
}

fn open_blocking(
    config: &Config,
    segment_bytes: u64,
    tasks: Tasks,
    disk: Arc<dyn Disk>,
) -> Result<Opened, OpenError> {
    let mut findings = Vec::new();
    let Config { dir, quota, reserve } = config;
    let lock = Arc::new(lock(dir)?);
    // The index goes first: it may know of records whose loss must not pass for an unfinished write.
    let (index, indexed) = Index::open(&dir.join("index"), lock.clone(), &mut findings)?;
    journal::import::put_in_place(dir, &mut findings)?;
    let opening = Opening {
        dir: &dir.join("journal"),
        aside: &dir.join("damaged"),
        segment_bytes,
        disk: disk.clone(),
        findings: &mut findings,
    };
    let (writer, loaded) = opening.open(indexed)?;
    let blobs_dir = dir.join("blobs");
    let blobs =
        Blobs::open_dir(&blobs_dir, *quota, *reserve, tasks.clone(), lock.clone(), disk, &mut findings)?;
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
