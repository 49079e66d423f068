//! Sealing a file while it streams in: cut, seal, hash and write a few segments at once.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scenemesh_protocol::ids::{ContentHash, JobId};
use scenemesh_protocol::sealed::{
    BlobKey, MAX_SEGMENTS, Manifest, Place, SEGMENT_LEN, TAG_LEN, seal_segment,
};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::spool::{Claim, Spool, failed};
use super::{AHEAD, BlobError, Sealed};
use crate::store::disk::Existing;

const FULL: usize = SEGMENT_LEN as usize;
/// What was written is synced in the background every so many segments: the disk works while the next are sealed, and the
/// last sync has little left to wait for.
const SYNC_EVERY: u32 = 64;
/// Buffers up to here grow as they are filled; a longer one is allocated for a whole segment at once.
const SMALL: usize = 64 << 10;

/// A sealing under way. Dropping it without [`Sealer::finish`] removes what was written.
pub struct Sealer {
    sealing: Arc<Sealing>,
    file: Option<Arc<File>>,
    /// Plaintext of the next segment; sealed in place, so it does not linger.
    buffer: Zeroizing<Vec<u8>>,
    next: u32,
    bytes: u64,
    running: VecDeque<AbortOnDropHandle<Result<ContentHash, BlobError>>>,
    hashes: Vec<ContentHash>,
    /// The last sync in the background. Its failure is the sealing's: the next sync would not tell of it again.
    syncing: Option<AbortOnDropHandle<Result<(), BlobError>>>,
    failed: bool,
}

/// What the segments of one sealing share.
struct Sealing {
    spool: Arc<Spool>,
    key: BlobKey,
    path: PathBuf,
    claim: Claim,
    installed: AtomicBool,
}

impl Drop for Sealing {
    fn drop(&mut self) {
        if self.installed.load(Ordering::Acquire) {
            return;
        }
        // Removing a long file takes its time. What stays behind goes at the next start.
        let path = std::mem::take(&mut self.path);
        let disk = self.spool.disk.clone();
        let remove = move || drop(disk.remove(&path));
        match tokio::runtime::Handle::try_current() {
            Ok(_) => drop(self.spool.tasks.start_blocking(remove).detach()),
            Err(_) => remove(),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(spool: Arc<Spool>) -> Self {
        let path = spool.dir.join(format!("{}.sealing", JobId::random()));
        let claim = Claim::new(spool.clone());
        let sealing = Arc::new(Sealing {
            spool,
            key: BlobKey::generate(),
            path,
            claim,
            installed: AtomicBool::new(false),
        });
        Self {
            sealing,
            file: None,
            buffer: Zeroizing::default(),
            next: 0,
            bytes: 0,
            running: VecDeque::new(),
            hashes: Vec::new(),
            syncing: None,
            failed: false,
        }
    }

    /// Takes the next plaintext. Waits while enough segments are being worked on.
    ///
    /// # Errors
    /// When quota, reserve or disk refuse, or the blob gets too long. The sealing is then good for nothing but dropping.
    pub async fn write(&mut self, mut plain: &[u8]) -> Result<(), BlobError> {
        while !plain.is_empty() {
            // A full buffer is sealed only when more follows: the last segment is sealed differently.
            if self.buffer.len() == FULL {
                self.start(Place::Inner).await?;
            }
            let (now, later) = plain.split_at(plain.len().min(FULL - self.buffer.len()));
            self.make_room(now.len());
            self.buffer.extend_from_slice(now);
            self.bytes += now.len() as u64;
            plain = later;
        }
        Ok(())
    }

    /// Seals the rest and makes blob and manifest durable.
    ///
    /// # Errors
    /// As [`Sealer::write`]; nothing is left behind then.
    pub async fn finish(mut self) -> Result<Sealed, BlobError> {
        self.start(Place::Last).await?;
        while let Some(running) = self.running.pop_front() {
            self.hashes.push(running.await.map_err(|_| BlobError::Stopping)??);
        }
        if let Some(syncing) = self.syncing.take() {
            syncing.await.map_err(|_| BlobError::Stopping)??;
        }
        let sealed_bytes = self.bytes + self.hashes.len() as u64 * TAG_LEN as u64;
        let manifest = Manifest::new(sealed_bytes, std::mem::take(&mut self.hashes))
            .expect("a sealing cuts as manifests require");
        let root = manifest.root();
        let (sealing, file) = (self.sealing.clone(), self.file.take());
        let finished = self.sealing.spool.tasks.blocking(move || {
            let Sealing { spool, path, installed, .. } = &*sealing;
            if let Some(file) = file {
                sealing.sync(&file)?;
            }
            spool.write_manifest(root, &manifest)?;
            spool.install(root, sealed_bytes, path)?;
            installed.store(true, Ordering::Release);
            Ok(())
        });
        finished.await.map_err(|_| BlobError::Stopping)??;
        Ok(Sealed { root, key: self.sealing.key.clone(), bytes: self.bytes, sealed_bytes })
    }

    /// Room for more plaintext and the tag behind it, in a new buffer where it is too little: one that grows by itself
    /// leaves what it held where it was.
    fn make_room(&mut self, more: usize) {
        let need = self.buffer.len() + more + TAG_LEN;
        if need <= self.buffer.capacity() {
            return;
        }
        let room = if need <= SMALL { need.next_power_of_two() } else { FULL + TAG_LEN };
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(&self.buffer);
        self.buffer = larger;
    }

    async fn start(&mut self, place: Place) -> Result<(), BlobError> {
        if self.failed {
            return Err(BlobError::Abandoned);
        }
        // Whatever fails or is cancelled from here on leaves a hole.
        self.failed = true;
        if self.next as usize >= MAX_SEGMENTS {
            return Err(BlobError::TooLong { max: MAX_SEGMENTS as u64 * u64::from(SEGMENT_LEN) });
        }
        let file = self.file().await?;
        if self.running.len() >= AHEAD
            && let Some(oldest) = self.running.pop_front()
        {
            self.hashes.push(oldest.await.map_err(|_| BlobError::Stopping)??);
        }
        if self.next > 0 && self.next.is_multiple_of(SYNC_EVERY) {
            self.sync_behind(&file).await?;
        }
        let (sealing, index) = (self.sealing.clone(), self.next);
        let plain = std::mem::take(&mut *self.buffer);
        let tasks = self.sealing.spool.tasks.clone();
        self.running.push_back(tasks.start_blocking(move || sealing.segment(&file, index, place, plain)));
        self.next += 1;
        self.failed = false;
        Ok(())
    }

    /// Lets the disk begin with what was written so far, one sync after the other.
    async fn sync_behind(&mut self, file: &Arc<File>) -> Result<(), BlobError> {
        if let Some(before) = self.syncing.take_if(|before| before.is_finished()) {
            before.await.map_err(|_| BlobError::Stopping)??;
        }
        if self.syncing.is_none() {
            let (sealing, file) = (self.sealing.clone(), file.clone());
            let tasks = self.sealing.spool.tasks.clone();
            self.syncing = Some(tasks.start_blocking(move || sealing.sync(&file)));
        }
        Ok(())
    }

    async fn file(&mut self) -> Result<Arc<File>, BlobError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let path = self.sealing.path.clone();
        let spool = self.sealing.spool.clone();
        let created = self.sealing.spool.tasks.blocking(move || {
            let created = spool.disk.create(&path, Existing::Refuse);
            created.map_err(|error| spool.write_failed(&path, 0, error))
        });
        let file = Arc::new(created.await.map_err(|_| BlobError::Stopping)??);
        Ok(self.file.insert(file).clone())
    }
}

impl Sealing {
    fn segment(
        &self,
        file: &File,
        index: u32,
        place: Place,
        plain: Vec<u8>,
    ) -> Result<ContentHash, BlobError> {
        let bytes = (plain.len() + TAG_LEN) as u64;
        self.claim.grow(bytes)?;
        let sealed = seal_segment(&self.key, index, place, plain);
        let offset = u64::from(index) * (FULL + TAG_LEN) as u64;
        let disk = &*self.spool.disk;
        disk.write_all_at(file, &sealed, offset)
            .map_err(|error| self.spool.write_failed(&self.path, bytes, error))?;
        Ok(ContentHash::of(&sealed))
    }

    fn sync(&self, file: &File) -> Result<(), BlobError> {
        self.spool.disk.sync_data(file).map_err(failed("syncing", &self.path))
    }
}
