//! The blobs' directory: what lies there, what it may still take, and how files come and go. Blocking.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::Manifest;
use tokio::time::Instant;

use super::access::Access;
use super::{BlobError, Swept};
use crate::platform;
use crate::store::Finding;
use crate::store::disk::{Disk, is_full};
use crate::supervisor::Tasks;

/// How long a sweep leaves a finished blob to whoever is about to journal it: a render that streams its pictures has
/// sealed the first of them hours before its end.
const SWEEP_GRACE: Duration = Duration::from_hours(24);
/// Manifests kept at hand: one is read per segment that is served, and takes up to 2 MiB.
const MANIFESTS: usize = 8;

#[derive(Debug)]
pub(super) struct Spool {
    pub(super) dir: PathBuf,
    pub(super) tasks: Tasks,
    pub(super) disk: Arc<dyn Disk>,
    quota: u64,
    reserve: u64,
    state: Mutex<State>,
    access: Mutex<Access>,
    /// Nobody else opens this directory while a handle lives.
    _lock: Arc<File>,
}

#[derive(Debug, Default)]
struct State {
    /// Complete blobs and their sealed bytes.
    complete: HashMap<ContentHash, u64>,
    /// Unfinished transfers and the sealed bytes they will have.
    parts: HashMap<ContentHash, u64>,
    /// Bytes of all complete blobs, unfinished transfers, and sealings so far.
    used: u64,
    /// Bytes that transfers under way have yet to write.
    promised: u64,
    /// One transfer per root at a time.
    transfers: HashMap<ContentHash, Weak<tokio::sync::Mutex<()>>>,
    finished: VecDeque<(Instant, ContentHash)>,
    manifests: VecDeque<(ContentHash, Arc<Manifest>)>,
    /// Blobs that stay whatever becomes of the jobs that use them.
    kept: HashSet<ContentHash>,
}

/// Bytes of the quota held by a sealing that is not finished; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    spool: Arc<Spool>,
    bytes: AtomicU64,
}

impl Claim {
    pub(super) fn new(spool: Arc<Spool>) -> Self {
        Self { spool, bytes: AtomicU64::new(0) }
    }

    /// Claims room for more bytes before they are written.
    pub(super) fn grow(&self, bytes: u64) -> Result<(), BlobError> {
        let mut state = self.spool.state();
        self.spool.check_room(&state, bytes, bytes)?;
        state.used += bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.spool.state().used -= *self.bytes.get_mut();
    }
}

pub(super) fn failed(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { tried, path, source }
}

impl Spool {
    pub(super) fn open(
        dir: &Path,
        quota: u64,
        reserve: u64,
        tasks: Tasks,
        lock: Arc<File>,
        disk: Arc<dyn Disk>,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, BlobError> {
        platform::create_private_dir(dir).map_err(failed("creating", dir))?;
        let mut files: HashMap<PathBuf, u64> = HashMap::new();
        for entry in fs::read_dir(dir).map_err(failed("listing", dir))? {
            let entry = entry.map_err(failed("listing", dir))?;
            let meta = entry.metadata().map_err(failed("looking at", &entry.path()))?;
            if meta.is_file() {
                files.insert(entry.path(), meta.len());
            }
        }
        let mut state = State::default();
        let (mut leftovers, mut bytes) = (0, 0);
        for (path, len) in &files {
            let has = |extension| files.contains_key(&path.with_extension(extension));
            let root = path.file_stem().and_then(|stem| stem.to_str()?.parse::<ContentHash>().ok());
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let keep = match (root, extension) {
                (Some(root), "blob") if has("manifest") => {
                    state.complete.insert(root, *len);
                    true
                }
                (Some(root), "part") if has("manifest") && !has("blob") => {
                    state.parts.insert(root, *len);
                    true
                }
                (Some(_), "manifest") => has("blob") || has("part"),
                (Some(_), "have") => has("part") && !has("blob"),
                (Some(_), "blob" | "part" | "new") => false,
                (_, "sealing") => false,
                // Not ours: leave it alone.
                _ => true,
            };
            if !keep {
                disk.remove(path).map_err(failed("removing", path))?;
                leftovers += 1;
                bytes += len;
            }
        }
        if leftovers > 0 {
            findings.push(Finding::BlobLeftovers { files: leftovers, bytes });
        }
        state.used = state.complete.values().chain(state.parts.values()).sum();
        let (state, access) = (Mutex::new(state), Mutex::default());
        Ok(Self { dir: dir.into(), tasks, disk, quota, reserve, state, access, _lock: lock })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, root: ContentHash, extension: &str) -> PathBuf {
        self.dir.join(format!("{root}.{extension}"))
    }

    pub(super) fn holds(&self, root: ContentHash) -> bool {
        self.state().complete.contains_key(&root)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.state().used
    }

    /// `more` is what the quota is charged, `to_write` what the disk has yet to take.
    fn check_room(&self, state: &State, more: u64, to_write: u64) -> Result<(), BlobError> {
        if state.used.saturating_add(more) > self.quota {
            return Err(BlobError::Quota { need: more, used: state.used, quota: self.quota });
        }
        let free = platform::free_bytes(&self.dir).map_err(failed("asking for free space in", &self.dir))?;
        match free.map(|free| free.saturating_sub(state.promised)) {
            Some(free) if free < self.reserve.saturating_add(to_write) => {
                Err(BlobError::NoSpace { dir: self.dir.clone(), need: to_write, free, reserve: self.reserve })
            }
            _ => Ok(()),
        }
    }

    /// A failed write, in words: a full disk is told from a broken one.
    pub(super) fn write_failed(&self, path: &Path, need: u64, error: io::Error) -> BlobError {
        if is_full(&error) {
            let free = platform::free_bytes(&self.dir).ok().flatten().unwrap_or(0);
            return BlobError::NoSpace { dir: self.dir.clone(), need, free, reserve: self.reserve };
        }
        failed("writing", path)(error)
    }

    pub(super) fn manifest(&self, root: ContentHash) -> Result<Arc<Manifest>, BlobError> {
        if let Some(manifest) = {
            let state = self.state();
            if !state.complete.contains_key(&root) {
                return Err(BlobError::Unknown { root });
            }
            state.manifests.iter().find(|(of, _)| *of == root).map(|(_, manifest)| manifest.clone())
        } {
            return Ok(manifest);
        }
        let path = self.path(root, "manifest");
        let body = fs::read(&path).map_err(failed("reading", &path))?;
        let manifest = Manifest::open(&body, &root).map_err(|source| BlobError::Manifest { root, source })?;
        let manifest = Arc::new(manifest);
        let mut state = self.state();
        state.manifests.truncate(MANIFESTS - 1);
        state.manifests.push_front((root, manifest.clone()));
        Ok(manifest)
    }

    pub(super) fn open_blob(&self, root: ContentHash) -> Result<File, BlobError> {
        if !self.holds(root) {
            return Err(BlobError::Unknown { root });
        }
        let path = self.path(root, "blob");
        File::open(&path).map_err(failed("opening", &path))
    }

    /// Writes the manifest beside the blob, durably except for its name.
    pub(super) fn write_manifest(&self, root: ContentHash, manifest: &Manifest) -> Result<(), BlobError> {
        let path = self.path(root, "manifest");
        let body = codec::encode_body(manifest);
        self.disk
            .replace_file(&path, &body)
            .map_err(|error| self.write_failed(&path, body.len() as u64, error))
    }

    /// Names a synced file as the complete blob of `root`, whose manifest is written already, and makes both names
    /// durable.
    pub(super) fn install(&self, root: ContentHash, bytes: u64, from: &Path) -> Result<(), BlobError> {
        let path = self.path(root, "blob");
        self.disk.rename(from, &path).map_err(failed("renaming to", &path))?;
        self.disk.sync_dir(&self.dir).map_err(failed("syncing", &self.dir))?;
        let mut state = self.state();
        let replaced = state.complete.insert(root, bytes).or_else(|| state.parts.remove(&root));
        state.used = state.used + bytes - replaced.unwrap_or(0);
        let now = Instant::now();
        state.finished.push_back((now, root));
        while state.finished.front().is_some_and(|(at, _)| *at + SWEEP_GRACE <= now) {
            state.finished.pop_front();
        }
        Ok(())
    }

    /// Whoever locks this may change the files of an unfinished transfer of this root.
    pub(super) fn turn(&self, root: ContentHash) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.transfers.retain(|_, turn| turn.strong_count() > 0);
        let turn = state.transfers.get(&root).and_then(Weak::upgrade).unwrap_or_default();
        state.transfers.insert(root, Arc::downgrade(&turn));
        turn
    }

    /// Makes room for a transfer: charges the quota unless an earlier try did, and promises the disk's bytes.
    pub(super) fn promise(&self, root: ContentHash, bytes: u64, missing: u64) -> Result<(), BlobError> {
        let mut state = self.state();
        let more = if state.parts.contains_key(&root) { 0 } else { bytes };
        self.check_room(&state, more, missing)?;
        state.parts.insert(root, bytes);
        state.used += more;
        state.promised += missing;
        Ok(())
    }

    /// Bytes of a transfer that are written now, or will not be written by it any more.
    pub(super) fn release_promise(&self, bytes: u64) {
        let mut state = self.state();
        state.promised = state.promised.saturating_sub(bytes);
    }

    /// Removes all files of a root; gives what the quota gets back.
    pub(super) fn remove(&self, root: ContentHash) -> Result<u64, BlobError> {
        // Held to the end, so that no new transfer begins among files that are going away.
        let turn = self.turn(root).try_lock_owned();
        let (complete, part) = {
            let mut state = self.state();
            if state.kept.contains(&root) {
                return Ok(0);
            }
            state.manifests.retain(|(of, _)| *of != root);
            let complete = state.complete.remove(&root);
            let part = if turn.is_ok() { state.parts.remove(&root) } else { None };
            let freed = complete.unwrap_or(0) + part.unwrap_or(0);
            state.used -= freed;
            (complete, part)
        };
        let mut extensions = Vec::new();
        if complete.is_some() {
            extensions.extend(["blob", "manifest"]);
        }
        if part.is_some() {
            extensions.extend(["part", "have", "manifest"]);
        }
        for extension in extensions {
            let path = self.path(root, extension);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("removing", &path)(error));
                }
                _ => {}
            }
        }
        Ok(complete.unwrap_or(0) + part.unwrap_or(0))
    }

    pub(super) fn keep(&self, root: ContentHash) {
        self.state().kept.insert(root);
    }

    pub(super) fn release(&self, root: ContentHash) {
        self.state().kept.remove(&root);
    }

    pub(super) fn sweep(&self, keep: &HashSet<ContentHash>, now: Instant) -> Result<Swept, BlobError> {
        let doomed: Vec<ContentHash> = {
            let state = self.state();
            let young = state.finished.iter().filter(|(at, _)| *at + SWEEP_GRACE > now);
            let fresh: HashSet<&ContentHash> = young.map(|(_, root)| root).chain(&state.kept).collect();
            let under_way = |root| state.transfers.get(root).is_some_and(|turn| turn.strong_count() > 0);
            let all = state.complete.keys().chain(state.parts.keys());
            all.filter(|root| !keep.contains(root) && !fresh.contains(root) && !under_way(*root))
                .copied()
                .collect()
        };
        let mut swept = Swept::default();
        for root in doomed {
            swept.bytes += self.remove(root)?;
            swept.blobs += 1;
        }
        Ok(swept)
    }
}
