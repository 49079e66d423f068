//! What can be looked up by key: derived from the journal, and rebuilt from it whenever it is missing or damaged.
//!
//! The only file that names sled. sled's `open` may return an error, panic, or hang on a damaged file, so it runs in a
//! thread of its own under a watchdog; whatever goes wrong there costs a rebuild, never data. All logical trees live
//! in one sled tree, so that a batch over several of them, with the watermark of what is indexed, is atomic.

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::Duration;

use super::Finding;
use super::journal::IndexFn;
use super::journal::format::JournalId;
use crate::platform;

/// How long sled may take to open; on sound files it takes well under a second.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// sled's own default of 1 GiB is far more than an index of ours.
const CACHE_BYTES: u64 = 64 << 20;
/// What a power cut may cost the index: it is caught up from the journal at the next start.
const FLUSH_EVERY_MS: u64 = 500;
/// Damaged indexes that are kept for whoever wants to look.
const KEEP_DAMAGED: u64 = 2;
/// No tree has an empty name, so no key collides with this one.
const WATERMARK_KEY: [u8; 1] = [0];
const WATERMARK_LEN: usize = 28;

/// Why something cannot be looked up. The journal holds it nevertheless.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the index is behind the journal and has not been caught up yet")]
    Behind,
    #[error("the index does not read any more ({0}); it is rebuilt when the node restarts")]
    Broken(String),
}

/// How far the index follows the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) journal: JournalId,
    /// Position right behind the last indexed entry.
    pub(super) end: u64,
    /// That entry's CRC: an older copy of the journal with other entries is recognised.
    pub(super) crc: u32,
}

impl Watermark {
    fn encode(&self) -> [u8; WATERMARK_LEN] {
        let mut bytes = [0; WATERMARK_LEN];
        bytes[..16].copy_from_slice(&self.journal);
        bytes[16..24].copy_from_slice(&self.end.to_le_bytes());
        bytes[24..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; WATERMARK_LEN] = bytes.try_into().ok()?;
        let (journal, rest) = bytes.split_first_chunk()?;
        let (end, crc) = rest.split_first_chunk()?;
        let crc = crc.first_chunk()?;
        Some(Self { journal: *journal, end: u64::from_le_bytes(*end), crc: u32::from_le_bytes(*crc) })
    }
}

/// Changes that reach the index together.
#[derive(Debug, Default)]
pub struct IndexBatch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl IndexBatch {
    /// Sets `key` in the tree of this name, which has 1 to 255 bytes.
    pub fn put(&mut self, tree: &'static str, key: &[u8], value: impl Into<Vec<u8>>) {
        self.changes.push((full_key(tree, key), Some(value.into())));
    }

    pub fn remove(&mut self, tree: &'static str, key: &[u8]) {
        self.changes.push((full_key(tree, key), None));
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }
}

fn full_key(tree: &str, key: &[u8]) -> Vec<u8> {
    let mut full = tree_prefix(tree);
    full.extend_from_slice(key);
    full
}

fn tree_prefix(tree: &str) -> Vec<u8> {
    let len =
        u8::try_from(tree.len()).ok().filter(|len| *len > 0).expect("trees have names of 1 to 255 bytes");
    let mut prefix = Vec::with_capacity(1 + tree.len() + 32);
    prefix.push(len);
    prefix.extend_from_slice(tree.as_bytes());
    prefix
}

/// Handle to the index; cheap to clone. Lookups touch memory and now and then the disk, briefly.
#[derive(Clone, Debug)]
pub struct Index {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// `None` while not even a fresh one can be had: the state says why.
    database: RwLock<Option<sled::Db>>,
    state: Mutex<State>,
    /// How records index themselves, for a rebuild while the node runs.
    kinds: Mutex<HashMap<u16, IndexFn>>,
    /// Nobody else opens this directory while a handle lives: sled itself would only say that it is damaged.
    _lock: Arc<File>,
}

#[derive(Debug)]
enum State {
    Current,
    /// Waits for a rebuild; what is committed meanwhile is indexed after it.
    Behind {
        later: Vec<(IndexBatch, Watermark)>,
    },
    Broken(String),
}

/// One named part of the index.
#[derive(Clone, Debug)]
pub struct Tree {
    index: Index,
    prefix: Vec<u8>,
}

impl Index {
    /// The tree of this name, which has 1 to 255 bytes. Trees need not be created.
    pub fn tree(&self, name: &'static str) -> Tree {
        Tree { index: self.clone(), prefix: tree_prefix(name) }
    }

    /// Opens the index at `dir`, or moves a damaged one aside and begins anew. Blocks up to [`OPEN_LIMIT`].
    pub(super) fn open(
        dir: &Path,
        lock: Arc<File>,
        findings: &mut Vec<Finding>,
    ) -> Result<(Self, Option<Watermark>), IndexOpenError> {
        let (database, watermark) = match open_watched(dir, OPEN_LIMIT) {
            Ok(opened) => opened,
            Err(why) => {
                let moved_to = move_aside(dir).map_err(|source| IndexOpenError::MoveAside {
                    dir: dir.into(),
                    why: why.clone(),
                    source,
                })?;
                findings.push(Finding::DamagedIndex { moved_to, why });
                match open_watched(dir, OPEN_LIMIT) {
                    Ok(opened) => opened,
                    // A full disk is enough. The journal has everything; the index follows when there is room.
                    Err(why) => return Ok((Self::absent(dir, lock, why, findings), None)),
                }
            }
        };
        let shared = Shared {
            dir: dir.into(),
            database: RwLock::new(Some(database)),
            state: Mutex::new(State::Current),
            kinds: Mutex::default(),
            _lock: lock,
        };
        Ok((Self { shared: Arc::new(shared) }, watermark))
    }

    fn absent(dir: &Path, lock: Arc<File>, why: String, findings: &mut Vec<Finding>) -> Self {
        findings.push(Finding::NoIndex { why: why.clone() });
        let shared = Shared {
            dir: dir.into(),
            database: RwLock::new(None),
            state: Mutex::new(State::Broken(why)),
            kinds: Mutex::default(),
            _lock: lock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Forgets everything: what is there belongs to another journal, or to a future of this one that never was.
    pub(super) fn clear(&self) -> Result<(), IndexError> {
        guarded(|| self.database()?.clear())
    }

    /// Begins again with an empty database; what is there is thrown away, or kept aside when it does not read.
    pub(super) fn renew(&self) -> Result<(), IndexOpenError> {
        let Shared { dir, database, .. } = &*self.shared;
        let was_broken = self.is_broken();
        self.set_behind();
        let renewed: Result<(), IndexOpenError> = (|| {
            let moved_to = dir.exists().then(|| move_aside(dir)).transpose().map_err(|source| {
                IndexOpenError::MoveAside { dir: dir.clone(), why: "it is rebuilt".into(), source }
            })?;
            let (fresh, _) = open_watched(dir, OPEN_LIMIT)
                .map_err(|why| IndexOpenError::Open { dir: dir.clone(), why })?;
            *database.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            if let Some(old) = moved_to.filter(|_| !was_broken) {
                // What stays behind only takes space.
                drop(fs::remove_dir_all(old));
            }
            Ok(())
        })();
        if let Err(error) = &renewed {
            self.break_off(&error.to_string());
        }
        renewed
    }

    /// A rebuild came to nothing.
    pub(super) fn break_off(&self, why: &str) {
        *self.state() = State::Broken(why.to_owned());
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(*self.state(), State::Broken(_))
    }

    /// Why lookups fail, if they do.
    pub fn trouble(&self) -> Option<IndexError> {
        self.readable().err()
    }

    pub(super) fn kinds(&self) -> MutexGuard<'_, HashMap<u16, IndexFn>> {
        self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> sled::Result<sled::Db> {
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner).clone();
        database.ok_or_else(|| sled::Error::Unsupported("there is no index now".into()))
    }

    pub(super) fn set_behind(&self) {
        *self.state() = State::Behind { later: Vec::new() };
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(*self.state(), State::Behind { .. })
    }

    /// Indexes what was just committed. A failure breaks the index, not the commit.
    pub(super) fn apply(&self, batch: IndexBatch, watermark: Watermark) {
        match &mut *self.state() {
            State::Current => {}
            State::Behind { later } => return later.push((batch, watermark)),
            State::Broken(_) => return,
        }
        // Not under the lock, so that lookups go on: only the journal's one writer comes here.
        if let Err(error) = self.write(batch, Some(watermark)) {
            tracing::error!(%error, "the index stops following the journal");
            *self.state() = State::Broken(error.to_string());
        }
    }

    /// Writes a part of a rebuild, without saying how far it got.
    pub(super) fn write_rebuilt(&self, batch: IndexBatch) -> Result<(), IndexError> {
        self.write(batch, None)
    }

    /// Ends a rebuild: everything up to `watermark` is indexed, now comes what was committed meanwhile.
    pub(super) fn finish_rebuild(&self, watermark: Option<Watermark>) -> Result<(), IndexError> {
        let mut state = self.state();
        let State::Behind { later } = &mut *state else { return Ok(()) };
        let later = std::mem::take(later);
        if let Some(watermark) = watermark {
            self.write(IndexBatch::default(), Some(watermark))?;
        }
        for (batch, watermark) in later {
            self.write(batch, Some(watermark))?;
        }
        guarded(|| self.database()?.flush().map(drop))?;
        *state = State::Current;
        Ok(())
    }

    /// Nobody is going to rebuild any more: better no answers than old ones.
    pub(super) fn give_up_if_behind(&self) {
        let mut state = self.state();
        if matches!(*state, State::Behind { .. }) {
            *state = State::Broken("it was not caught up at the start".into());
        }
    }

    fn write(&self, batch: IndexBatch, watermark: Option<Watermark>) -> Result<(), IndexError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        if let Some(watermark) = watermark {
            changes.insert(&WATERMARK_KEY, &watermark.encode());
        }
        guarded(|| self.database()?.apply_batch(changes))
    }

    fn readable(&self) -> Result<(), IndexError> {
        match &*self.state() {
            State::Current => Ok(()),
            State::Behind { .. } => Err(IndexError::Behind),
            State::Broken(why) => Err(IndexError::Broken(why.clone())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// # Errors
    /// When the index is behind or does not read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.readable()?;
        let full = self.full(key);
        guarded(|| self.index.database()?.get(full)).map(|value| value.map(|value| value.to_vec()))
    }

    /// Remembers a hint that may get lost with the index. What must not get lost is a record that indexes itself.
    ///
    /// # Errors
    /// When the index is behind or does not write.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        self.index.readable()?;
        let full = self.full(key);
        guarded(|| self.index.database()?.insert(full, value)).map(drop)
    }

    /// Keys (without the tree's name) and values whose key begins with `prefix`, in the keys' order.
    pub fn scan_prefix(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), IndexError>> + use<> {
        let opened = self.index.readable().and_then(|()| guarded(|| self.index.database()));
        let (rows, failed) = match opened {
            Ok(database) => (Some(database.scan_prefix(self.full(prefix))), None),
            Err(error) => (None, Some(error)),
        };
        let name = self.prefix.len();
        let mut rows = rows.into_iter().flatten();
        let rows = std::iter::from_fn(move || {
            let row = guarded(|| rows.next().transpose()).transpose()?;
            Some(row.map(|(key, value)| (key[name..].to_vec(), value.to_vec())))
        });
        failed.map(Err).into_iter().chain(rows)
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix[..], key].concat()
    }
}

/// Why not even a fresh index could be opened.
#[derive(Debug, thiserror::Error)]
pub enum IndexOpenError {
    #[error(
        "the index in {dir} is damaged ({why}) and cannot be moved aside: {source}; move it away by hand"
    )]
    MoveAside { dir: PathBuf, why: String, source: std::io::Error },
    #[error("opening a fresh index in {dir}: {why}")]
    Open { dir: PathBuf, why: String },
    #[error("reading the index: {0}")]
    Read(#[from] IndexError),
}

/// Turns sled's panics on damaged pages into errors.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| IndexError::Broken(error.to_string())),
        Err(_) => Err(IndexError::Broken("sled panicked".into())),
    }
}

/// Opens and reads through the whole index in a thread that may be given up.
fn open_watched(dir: &Path, limit: Duration) -> Result<(sled::Db, Option<Watermark>), String> {
    platform::create_private_dir(dir).map_err(|error| error.to_string())?;
    let dir = dir.to_owned();
    watched(limit, move || open_and_read(&dir))
}

fn open_and_read(dir: &Path) -> sled::Result<(sled::Db, Option<Watermark>)> {
    // sled finishes in threads of its own after it was dropped, and lets go of its file last. Within one process that
    // may be a moment too late for the next open, which would not wait. Across processes our own lock comes first.
    match File::open(dir.join("db")) {
        Ok(file) => file.lock()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let database = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()?;
    for row in database.iter() {
        row?;
    }
    let watermark = database.get(WATERMARK_KEY)?.and_then(|bytes| Watermark::decode(&bytes));
    Ok((database, watermark))
}

/// Runs what may panic or never return. A thread that never returns is left behind: it holds nothing of ours.
fn watched<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> sled::Result<T> + Send + 'static,
) -> Result<T, String> {
    let (done, outcome) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("index-open".into()).spawn(move || {
        // Nobody listens after the limit: an index that opens late is closed again.
        drop(done.send(guarded(work)));
    });
    thread.map_err(|error| format!("no thread to open it in: {error}"))?;
    match outcome.recv_timeout(limit) {
        Ok(result) => result.map_err(|error| match error {
            IndexError::Broken(why) => why,
            IndexError::Behind => error.to_string(),
        }),
        Err(_) => Err(format!("it did not open within {} s", limit.as_secs())),
    }
}

/// Renames the index to `index.corrupt-<n>` and keeps the newest few of those.
fn move_aside(dir: &Path) -> std::io::Result<PathBuf> {
    let numbered = |n: u64| dir.with_extension(format!("corrupt-{n}"));
    let parent = dir.parent().unwrap_or(Path::new("."));
    let prefix = format!("{}.corrupt-", dir.file_name().unwrap_or_default().to_string_lossy());
    let mut taken = Vec::new();
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        taken.extend(name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok()));
    }
    let next = taken.iter().max().map_or(1, |n| n + 1);
    for old in taken.into_iter().filter(|n| n + KEEP_DAMAGED <= next) {
        fs::remove_dir_all(numbered(old))?;
    }
    fs::rename(dir, numbered(next))?;
    platform::sync_dir(parent)?;
    Ok(numbered(next))
}

#[cfg(test)]
mod tests;
