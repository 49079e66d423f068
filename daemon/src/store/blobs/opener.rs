//! Reading a blob back: a few segments ahead, each verified before its plaintext leaves.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::{BadSegment, BlobKey, Manifest, SEGMENT_LEN, TAG_LEN, open_segment};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::{AHEAD, BlobError};
use crate::platform;
use crate::supervisor::Tasks;

/// A blob being read. Dropping it stops the reading.
pub struct Opener {
    blob: Arc<Blob>,
    tasks: Tasks,
    next: u32,
    ahead: VecDeque<AbortOnDropHandle<Result<Bytes, BlobError>>>,
}

struct Blob {
    root: ContentHash,
    key: BlobKey,
    manifest: Arc<Manifest>,
    file: File,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("root", &self.blob.root)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Opener {
    pub(super) fn new(
        tasks: Tasks,
        root: ContentHash,
        key: BlobKey,
        manifest: Arc<Manifest>,
        file: File,
    ) -> Self {
        Self { blob: Arc::new(Blob { root, key, manifest, file }), tasks, next: 0, ahead: VecDeque::new() }
    }

    /// Plaintext bytes of the whole blob.
    pub fn bytes(&self) -> u64 {
        self.blob.manifest.plain_bytes()
    }

    /// Goes on with the segment that holds this byte; says how many bytes of it come before. To be called before the
    /// first [`Self::next`].
    pub fn seek(&mut self, byte: u64) -> usize {
        let segment = u64::from(SEGMENT_LEN);
        self.next = u32::try_from(byte / segment).unwrap_or(u32::MAX);
        usize::try_from(byte % segment).unwrap_or_default()
    }

    /// The next plaintext, up to 1 MiB; `None` after the last.
    ///
    /// # Errors
    /// When a segment does not read, does not match the manifest, or does not open with the key. What was returned
    /// before is genuine, but the blob is not whole: use nothing of it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        while self.ahead.len() < AHEAD && self.next < self.blob.manifest.segment_count() {
            let (blob, index) = (self.blob.clone(), self.next);
            self.ahead.push_back(self.tasks.start_blocking(move || blob.open(index)));
            self.next += 1;
        }
        let Some(reading) = self.ahead.pop_front() else { return Ok(None) };
        let plain = reading.await.map_err(|_| BlobError::Stopping).flatten();
        if plain.is_err() {
            self.ahead.clear();
            self.next = self.blob.manifest.segment_count();
        }
        plain.map(Some)
    }
}

impl Blob {
    fn open(&self, index: u32) -> Result<Bytes, BlobError> {
        let Self { root, key, manifest, file } = self;
        let bad = |source| BlobError::Segment { root: *root, source };
        let sealed = read_segment(*root, manifest, file, index)?;
        manifest.check(index, &sealed).map_err(bad)?;
        let plain = open_segment(key, index, manifest.place(index), sealed).map_err(bad)?;
        Ok(Bytes::from_owner(Zeroizing::new(plain)))
    }
}

/// Reads one sealed segment without judging it.
pub(super) fn read_segment(
    root: ContentHash,
    manifest: &Manifest,
    file: &File,
    index: u32,
) -> Result<Vec<u8>, BlobError> {
    let bad = |source| BlobError::Segment { root, source };
    let none = || bad(BadSegment::NoSuchSegment { index, count: manifest.segments().len() });
    let range = manifest.sealed_range(index).ok_or_else(none)?;
    let need = range.end - range.start;
    let mut sealed = vec![0; usize::try_from(need).unwrap_or(TAG_LEN)];
    match platform::read_exact_at(file, &mut sealed, range.start) {
        Ok(()) => Ok(sealed),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(bad(BadSegment::Length { index, have: 0, need }))
        }
        Err(source) => Err(BlobError::Io { tried: "reading", path: format!("{root}.blob").into(), source }),
    }
}
