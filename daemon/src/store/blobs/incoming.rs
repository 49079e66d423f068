//! Receiving a blob: segments in any order, each verified on arrival, what arrived remembered across restarts.

use std::fs::{self, File};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::Manifest;
use tokio::sync::OwnedMutexGuard;

use super::BlobError;
use super::spool::{Spool, failed};
use crate::store::disk::Existing;

/// Received bytes after which what arrived is made safe against a restart.
const CHECKPOINT_BYTES: u64 = 64 << 20;
const HAVE_MAGIC: &[u8; 8] = b"SMHAVE\x01\x00";

/// A transfer under way; several streams may share it. Dropping it keeps what arrived for the next try.
#[derive(Debug)]
pub struct Incoming {
    transfer: Arc<Transfer>,
    /// `None` once it is handed to the last checkpoint.
    turn: Option<OwnedMutexGuard<()>>,
}

#[derive(Debug)]
struct Transfer {
    spool: Arc<Spool>,
    root: ContentHash,
    manifest: Manifest,
    path: PathBuf,
    /// `None` when the blob was complete from the start.
    part: Option<File>,
    progress: Mutex<Progress>,
    /// Held while syncing; `progress` is only ever held for a moment.
    saving: Mutex<Saving>,
}

#[derive(Debug, PartialEq, Eq)]
enum Saving {
    Good,
    /// After a failed sync the system may have dropped what it took, and the next sync would not say so.
    Failed,
}

#[derive(Debug)]
struct Progress {
    have: Have,
    /// Bytes that no checkpoint covers.
    unsafe_bytes: u64,
    finished: bool,
}

impl Incoming {
    pub(super) async fn begin(spool: Arc<Spool>, manifest: Manifest) -> Result<Self, BlobError> {
        let root = manifest.root();
        manifest.check_shape().map_err(|source| BlobError::Manifest { root, source })?;
        let turn = spool.turn(root).lock_owned().await;
        let tasks = spool.tasks.clone();
        let beginning = tasks.blocking(move || {
            let transfer = Transfer::begin(spool, root, manifest)?;
            Ok(Self { transfer: Arc::new(transfer), turn: Some(turn) })
        });
        beginning.await.map_err(|_| BlobError::Stopping)?
    }

    pub fn root(&self) -> ContentHash {
        self.transfer.root
    }

    pub fn manifest(&self) -> &Manifest {
        &self.transfer.manifest
    }

    /// Segments that have not arrived yet, as few ranges as possible, in order.
    pub fn missing(&self) -> Vec<Range<u32>> {
        self.transfer.progress().have.missing()
    }

    /// Takes one sealed segment: verifies it against the manifest and writes it where it belongs.
    ///
    /// # Errors
    /// When it is not the segment it claims to be, or the disk refuses; the transfer can go on.
    pub async fn write_segment(&self, index: u32, sealed: Bytes) -> Result<(), BlobError> {
        let transfer = self.transfer.clone();
        let writing = self.transfer.spool.tasks.blocking(move || transfer.write(index, &sealed));
        writing.await.map_err(|_| BlobError::Stopping)?
    }

    /// Makes the complete blob durable and gives it its name. Doing it twice does no harm.
    ///
    /// # Errors
    /// When segments are missing or the disk refuses; the transfer can go on.
    pub async fn finish(&self) -> Result<(), BlobError> {
        let transfer = self.transfer.clone();
        let finishing = self.transfer.spool.tasks.blocking(move || transfer.finish());
        finishing.await.map_err(|_| BlobError::Stopping)?
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (transfer, turn) = (self.transfer.clone(), self.turn.take());
        let last_checkpoint = move || {
            if let Err(error) = transfer.checkpoint() {
                tracing::warn!(%error, root = %transfer.root.short(), "a resumed transfer will repeat some segments");
            }
            drop(turn);
        };
        if !self.transfer.is_unsafe() {
            return;
        }
        // The next transfer of this root waits for its turn, which ends with the checkpoint.
        if tokio::runtime::Handle::try_current().is_ok() {
            let tasks = self.transfer.spool.tasks.clone();
            self.transfer.spool.tasks.spawn("blob checkpoint", async move {
                tasks.blocking(last_checkpoint).await?;
                Ok(())
            });
        } else {
            last_checkpoint();
        }
    }
}

impl Transfer {
    fn begin(spool: Arc<Spool>, root: ContentHash, manifest: Manifest) -> Result<Self, BlobError> {
        let count = manifest.segment_count();
        let path = spool.path(root, "part");
        if spool.holds(root) {
            let progress = Mutex::new(Progress { have: Have::all(count), unsafe_bytes: 0, finished: true });
            return Ok(Self {
                spool,
                root,
                manifest,
                path,
                part: None,
                progress,
                saving: Mutex::new(Saving::Good),
            });
        }
        let have_path = spool.path(root, "have");
        let have = fs::read(&have_path).ok().and_then(|bytes| Have::decode(&bytes, count));
        let have = have.filter(|_| path.exists()).unwrap_or_else(|| Have::none(count));
        let missing = manifest.sealed_bytes() - have.bytes(&manifest);
        spool.promise(root, manifest.sealed_bytes(), missing)?;
        let prepared = spool.write_manifest(root, &manifest).and_then(|()| {
            let disk = &*spool.disk;
            let part = disk.create(&path, Existing::Keep);
            let part = part.map_err(|error| spool.write_failed(&path, 0, error))?;
            disk.set_len(&part, manifest.sealed_bytes())
                .map_err(|error| spool.write_failed(&path, missing, error))?;
            disk.sync_dir(&spool.dir).map_err(failed("syncing", &spool.dir))?;
            Ok(part)
        });
        match prepared {
            Ok(part) => {
                let progress = Mutex::new(Progress { have, unsafe_bytes: 0, finished: false });
                Ok(Self {
                    spool,
                    root,
                    manifest,
                    path,
                    part: Some(part),
                    progress,
                    saving: Mutex::new(Saving::Good),
                })
            }
            Err(error) => {
                spool.release_promise(missing);
                Err(error)
            }
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unsafe(&self) -> bool {
        let progress = self.progress();
        !progress.finished && progress.unsafe_bytes > 0
    }

    fn write(&self, index: u32, sealed: &[u8]) -> Result<(), BlobError> {
        let bad = |source| BlobError::Segment { root: self.root, source };
        self.manifest.check(index, sealed).map_err(bad)?;
        let Some(part) = self.part.as_ref().filter(|_| !self.progress().have.has(index)) else {
            return Ok(());
        };
        let range = self.manifest.sealed_range(index).unwrap_or_default();
        let bytes = sealed.len() as u64;
        let disk = &*self.spool.disk;
        disk.write_all_at(part, sealed, range.start)
            .map_err(|error| self.spool.write_failed(&self.path, bytes, error))?;
        let due = {
            let mut progress = self.progress();
            if !progress.have.set(index) {
                return Ok(());
            }
            progress.unsafe_bytes += bytes;
            progress.unsafe_bytes >= CHECKPOINT_BYTES
        };
        self.spool.release_promise(bytes);
        if due { self.checkpoint() } else { Ok(()) }
    }

    /// Syncs what arrived, then writes down that it did: a restart believes only what is safe.
    fn checkpoint(&self) -> Result<(), BlobError> {
        let Some(part) = &self.part else { return Ok(()) };
        let mut saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let have = {
            let mut progress = self.progress();
            if progress.finished || progress.unsafe_bytes == 0 {
                return Ok(());
            }
            progress.unsafe_bytes = 0;
            progress.have.encode()
        };
        self.sync(part, &mut saving)?;
        let path = self.spool.path(self.root, "have");
        let disk = &*self.spool.disk;
        disk.replace_file(&path, &have)
            .map_err(|error| self.spool.write_failed(&path, have.len() as u64, error))
    }

    fn sync(&self, part: &File, saving: &mut Saving) -> Result<(), BlobError> {
        if *saving == Saving::Failed {
            return Err(BlobError::Unsafe { root: self.root });
        }
        self.spool.disk.sync_data(part).map_err(|error| {
            *saving = Saving::Failed;
            failed("syncing", &self.path)(error)
        })
    }

    fn finish(&self) -> Result<(), BlobError> {
        let mut saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = {
            let progress = self.progress();
            if progress.finished {
                return Ok(());
            }
            progress.have.missing()
        };
        let missing = missing.iter().map(|range| range.end - range.start).sum();
        let Some(part) = self.part.as_ref().filter(|_| missing == 0) else {
            return Err(BlobError::Incomplete { root: self.root, missing });
        };
        self.sync(part, &mut saving)?;
        self.spool.install(self.root, self.manifest.sealed_bytes(), &self.path)?;
        self.progress().finished = true;
        // A leftover is removed at the next start.
        drop(self.spool.disk.remove(&self.spool.path(self.root, "have")));
        Ok(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let progress = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.spool.release_promise(self.manifest.sealed_bytes() - progress.have.bytes(&self.manifest));
    }
}

/// Which segments are there. PURE.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Have {
    count: u32,
    bits: Vec<u8>,
}

impl Have {
    fn none(count: u32) -> Self {
        Self { count, bits: vec![0; count.div_ceil(8) as usize] }
    }

    fn all(count: u32) -> Self {
        let mut have = Self::none(count);
        for index in 0..count {
            have.set(index);
        }
        have
    }

    fn has(&self, index: u32) -> bool {
        self.bits.get(index as usize / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Whether this was news.
    fn set(&mut self, index: u32) -> bool {
        let news = index < self.count && !self.has(index);
        if news {
            self.bits[index as usize / 8] |= 1 << (index % 8);
        }
        news
    }

    fn missing(&self) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for index in (0..self.count).filter(|index| !self.has(*index)) {
            match ranges.last_mut() {
                Some(range) if range.end == index => range.end += 1,
                _ => ranges.push(index..index + 1),
            }
        }
        ranges
    }

    fn bytes(&self, manifest: &Manifest) -> u64 {
        let lengths = (0..self.count).filter(|index| self.has(*index));
        lengths.filter_map(|index| manifest.sealed_range(index)).map(|range| range.end - range.start).sum()
    }

    /// Magic with version · bits · CRC-32 of both.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = [HAVE_MAGIC, &self.bits[..]].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let bits = content.strip_prefix(HAVE_MAGIC)?;
        let good = crc32fast::hash(content).to_le_bytes() == *crc && bits.len() == count.div_ceil(8) as usize;
        good.then(|| Self { count, bits: bits.to_vec() })
    }
}
