//! Stand-in for the store until its branch lands: sealed blobs kept in memory. Dropped at the merge.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::BlobKey;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("no blob {0}")]
    Missing(ContentHash),
    #[error("disk full")]
    DiskFull,
}

#[derive(Clone, Debug, Default)]
pub struct Blobs {
    held: Arc<Mutex<HashMap<ContentHash, Bytes>>>,
}

#[derive(Clone, Debug)]
pub struct Sealed {
    pub root: ContentHash,
    pub key: BlobKey,
    pub bytes: u64,
    pub sealed_bytes: u64,
}

impl Blobs {
    pub fn seal(&self) -> Sealer {
        Sealer { blobs: self.clone(), bytes: Vec::new() }
    }

    pub fn open(&self, root: ContentHash, _key: &BlobKey) -> Opener {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&root).cloned();
        Opener { root, bytes: held, done: false }
    }
}

#[derive(Debug)]
pub struct Sealer {
    blobs: Blobs,
    bytes: Vec<u8>,
}

#[expect(clippy::unused_async, reason = "stand-in")]
impl Sealer {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub async fn finish(self) -> Result<Sealed, BlobError> {
        let root = ContentHash::of(&self.bytes);
        let bytes = self.bytes.len() as u64;
        let mut held = self.blobs.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(root, Bytes::from(self.bytes));
        Ok(Sealed { root, key: BlobKey::generate(), bytes, sealed_bytes: bytes })
    }
}

#[derive(Debug)]
pub struct Opener {
    root: ContentHash,
    bytes: Option<Bytes>,
    done: bool,
}

#[expect(clippy::unused_async, reason = "stand-in")]
impl Opener {
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.done {
            return Ok(None);
        }
        self.done = true;
        self.bytes.take().map(Some).ok_or(BlobError::Missing(self.root))
    }
}
