//! Sealed files by root: what this node wants rendered, has rendered, or is fetching. Ciphertext only.
//!
//! ```text
//! <root>.blob       all sealed segments, one after the other       <root>.manifest   the encoded manifest
//! <root>.part       a transfer's segments where they belong        <root>.have       which of them are safe
//! <random>.sealing  a sealing that has no root yet; worthless after a restart
//! ```
//! Cutting, sealing, hashing and opening run on blocking threads, a few segments at a time, whatever the file's size.

mod access;
mod incoming;
mod opener;
mod sealer;
mod spool;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use scenemesh_protocol::ids::{ContentHash, NodeId};
use scenemesh_protocol::sealed::{BadManifest, BadSegment, BlobKey, Manifest};
use tokio::time::Instant;

use super::Finding;
use super::disk::Disk;
use crate::supervisor::Tasks;
pub use incoming::Incoming;
pub use opener::Opener;
pub use sealer::Sealer;
use spool::Spool;

/// Segments that one sealing or opening works on at once: enough to keep a disk and some cores busy, 4 MiB of memory.
const AHEAD: usize = 4;

/// What a sealing produced. Whoever has root and key can read it.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub root: ContentHash,
    pub key: BlobKey,
    /// Plaintext bytes.
    pub bytes: u64,
    pub sealed_bytes: u64,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub blobs: usize,
    pub bytes: u64,
}

/// Why a blob could not be written, read or received.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("blob {} is not here", root.short())]
    Unknown { root: ContentHash },
    #[error(
        "{need} more bytes of blobs would be over the quota: {used} of {quota} are in use; fetch results or raise the quota"
    )]
    Quota { need: u64, used: u64, quota: u64 },
    #[error(
        "{need} bytes of a blob do not fit on the disk of {dir}: {free} are free, {reserve} stay reserved; free some space"
    )]
    NoSpace { dir: PathBuf, need: u64, free: u64, reserve: u64 },
    #[error("blob {}: {source}", root.short())]
    Segment { root: ContentHash, source: BadSegment },
    #[error("blob {} has no usable manifest: {source}", root.short())]
    Manifest { root: ContentHash, source: BadManifest },
    #[error("blob {} is not complete: {missing} segments are missing", root.short())]
    Incomplete { root: ContentHash, missing: u32 },
    #[error("what arrived of blob {} may not be on disk after a failed sync; check the disk and receive it again", root.short())]
    Unsafe { root: ContentHash },
    #[error("an earlier write of this sealing failed")]
    Abandoned,
    #[error("a blob of more than {max} bytes cannot be sealed; cut the file")]
    TooLong { max: u64 },
    #[error("{tried} {path}: {source}")]
    Io { tried: &'static str, path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

/// Handle to all blobs; cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    spool: Arc<Spool>,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("dir", &self.spool.dir).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Reads the directory and removes what cannot be continued.
    pub(super) fn open_dir(
        dir: &Path,
        quota: u64,
        reserve: u64,
        tasks: Tasks,
        lock: Arc<File>,
        disk: Arc<dyn Disk>,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, BlobError> {
        let spool = Spool::open(dir, quota, reserve, tasks, lock, disk, findings)?;
        Ok(Self { spool: Arc::new(spool) })
    }

    /// Begins to seal a file under a fresh key.
    pub fn seal(&self) -> Sealer {
        Sealer::new(self.spool.clone())
    }

    /// Opens a complete blob; every segment is checked against manifest and key as it is read.
    ///
    /// # Errors
    /// When it is not here or its manifest is not that of this root.
    pub async fn open(&self, root: ContentHash, key: &BlobKey) -> Result<Opener, BlobError> {
        let (spool, key) = (self.spool.clone(), key.clone());
        self.blocking(move || {
            let manifest = spool.manifest(root)?;
            let file = spool.open_blob(root)?;
            Ok(Opener::new(spool.tasks.clone(), root, key, manifest, file))
        })
        .await
    }

    /// Begins or resumes to receive the blob with this manifest. Waits while another transfer of it is under way.
    ///
    /// # Errors
    /// When the manifest is impossible, or there is no room for it: nothing is written then.
    pub async fn receive(&self, manifest: Manifest) -> Result<Incoming, BlobError> {
        Incoming::begin(self.spool.clone(), manifest).await
    }

    /// The manifest of a blob that is complete here.
    ///
    /// # Errors
    /// When it is not here or does not read.
    pub async fn manifest(&self, root: ContentHash) -> Result<Arc<Manifest>, BlobError> {
        let spool = self.spool.clone();
        self.blocking(move || spool.manifest(root)).await
    }

    /// One sealed segment, as it is stored: the receiver verifies it.
    ///
    /// # Errors
    /// When the blob is not here or has no such segment.
    pub async fn segment(&self, root: ContentHash, index: u32) -> Result<Bytes, BlobError> {
        let spool = self.spool.clone();
        self.blocking(move || {
            let manifest = spool.manifest(root)?;
            let file = spool.open_blob(root)?;
            opener::read_segment(root, &manifest, &file, index).map(Bytes::from)
        })
        .await
    }

    /// Whether the whole blob is here.
    pub fn holds(&self, root: ContentHash) -> bool {
        self.spool.holds(root)
    }

    /// Bytes that all blobs take, unfinished transfers at their full size.
    pub fn used_bytes(&self) -> u64 {
        self.spool.used_bytes()
    }

    /// Removes a blob, its grants of access, and an unfinished transfer of it unless that is under way. Readers that
    /// have it open read on. A blob that is not here is as removed as can be.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove(&self, root: ContentHash) -> Result<(), BlobError> {
        self.disallow(root);
        let spool = self.spool.clone();
        self.blocking(move || spool.remove(root).map(drop)).await
    }

    /// Lets a blob stay until it is released, whoever removes it and whatever is swept: it is somebody's upload, and the
    /// jobs that use it come and go. Not written down: whoever keeps says so again after a start, before anything is swept.
    pub fn keep(&self, root: ContentHash) {
        self.spool.keep(root);
    }

    /// Ends [`Self::keep`]. It stays until it is removed or swept.
    pub fn release(&self, root: ContentHash) {
        self.spool.release(root);
    }

    /// Removes every blob that is not in `keep`, except what was finished in the last minutes or is being received:
    /// its owner may not have said yet that it wants it.
    ///
    /// # Errors
    /// When the disk refuses; what was removed until then stays removed.
    pub async fn sweep(&self, keep: HashSet<ContentHash>) -> Result<Swept, BlobError> {
        let (spool, now) = (self.spool.clone(), Instant::now());
        self.blocking(move || spool.sweep(&keep, now)).await
    }

    /// Lets a node fetch a blob until then.
    pub fn allow(&self, root: ContentHash, node: NodeId, until: Instant) {
        self.spool.access().allow(root, node, until);
    }

    pub fn is_allowed(&self, root: ContentHash, node: NodeId, now: Instant) -> bool {
        self.spool.access().is_allowed(root, node, now)
    }

    /// Lets nobody fetch this blob any more.
    pub fn disallow(&self, root: ContentHash) {
        self.spool.access().disallow(root);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        self.spool.tasks.blocking(work).await.map_err(|_| BlobError::Stopping)?
    }
}

#[cfg(test)]
mod tests;
