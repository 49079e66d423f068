//! The journal as one file: to keep, to move to another disk, or to look at.
//!
//! ```text
//! export  = "SMJX" · version u16 · zero u16 · node 32 · segment… · 0 u64 · BLAKE3 of everything before it, 32
//! segment = start u64 · len u64, not 0 · a segment's file                            all integers are little-endian
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scenemesh_protocol::ids::NodeId;

use super::writer::segment_paths;
use super::{Journal, JournalError, Place};
use crate::platform;

pub(super) const MAGIC: [u8; 4] = *b"SMJX";
pub(super) const VERSION: u16 = 1;
pub(super) const PREAMBLE_LEN: usize = 40;
/// Start and length before each segment.
pub(super) const FRAME_LEN: usize = 16;
pub(super) const HASH_LEN: usize = 32;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Why the journal cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("reading {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

/// An export under way: the journal as it was when it began, whatever is written or compacted meanwhile.
#[derive(Debug)]
pub struct Export {
    place: Arc<Place>,
    /// Bytes of the whole export.
    bytes: u64,
    hash: blake3::Hasher,
    preamble: Option<Vec<u8>>,
    segments: VecDeque<Segment>,
    ended: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    start: u64,
    len: u64,
    read: u64,
}

impl Journal {
    /// Begins an export of everything that is committed by now.
    ///
    /// # Errors
    /// When the journal takes no more records or its files cannot be opened.
    pub async fn export(&self, node: NodeId) -> Result<Export, ExportError> {
        let line = self.close_segment().await?;
        let turn = self.place.rewriting.clone().lock_owned().await;
        let place = self.place.clone();
        let opening = self.place.tasks.blocking(move || {
            let opened = segments(&place.segments, line.0);
            drop(turn);
            opened
        });
        let segments = opening.await.map_err(|_| ExportError::Stopping)??;
        let framed: u64 = segments.iter().map(|segment| segment.len + FRAME_LEN as u64).sum();
        let mut preamble = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 2]].concat();
        preamble.extend_from_slice(node.as_bytes());
        Ok(Export {
            place: self.place.clone(),
            bytes: (PREAMBLE_LEN + 8 + HASH_LEN) as u64 + framed,
            hash: blake3::Hasher::new(),
            preamble: Some(preamble),
            segments,
            ended: false,
        })
    }
}

fn segments(dir: &Path, line: u64) -> Result<VecDeque<Segment>, ExportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Io { path, source }
    };
    let mut segments = VecDeque::new();
    for (start, path) in
        segment_paths(dir).map_err(failed(dir))?.into_iter().filter(|(start, _)| *start < line)
    {
        let file = File::open(&path).map_err(failed(&path))?;
        let len = file.metadata().map_err(failed(&path))?.len();
        segments.push_back(Segment { path, file: Arc::new(file), start, len, read: 0 });
    }
    Ok(segments)
}

impl Export {
    /// Bytes of the whole export.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// When a segment does not read. What came before is then of no use.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(piece) = self.piece().await? else { return Ok(None) };
        self.hash.update(&piece);
        Ok(Some(piece))
    }

    async fn piece(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        if let Some(preamble) = self.preamble.take() {
            return Ok(Some(preamble));
        }
        while self.segments.front().is_some_and(|segment| segment.read > 0 && segment.read == segment.len) {
            self.segments.pop_front();
        }
        let Some(segment) = self.segments.front_mut() else {
            if std::mem::replace(&mut self.ended, true) {
                return Ok(None);
            }
            let zero = 0u64.to_le_bytes();
            self.hash.update(&zero);
            let hash = self.hash.finalize();
            return Ok(Some([&zero[..], hash.as_bytes()].concat()));
        };
        let mut piece = Vec::new();
        if segment.read == 0 {
            piece.extend_from_slice(&segment.start.to_le_bytes());
            piece.extend_from_slice(&segment.len.to_le_bytes());
        }
        let more = usize::try_from(segment.len - segment.read).unwrap_or(PIECE).min(PIECE);
        let (file, offset, path) = (segment.file.clone(), segment.read, segment.path.clone());
        segment.read += more as u64;
        let reading = self.place.tasks.blocking(move || {
            let filled = piece.len();
            piece.resize(filled + more, 0);
            platform::read_exact_at(&file, &mut piece[filled..], offset).map(|()| piece)
        });
        let read = reading.await.map_err(|_| ExportError::Stopping)?;
        read.map(Some).map_err(|source| ExportError::Io { path, source })
    }
}
