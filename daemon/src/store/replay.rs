//! What the journal held at the start: handed out by kind, and used to catch the index up. Dropped afterwards.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use scenemesh_protocol::codec::{self, DecodeError};

use super::Finding;
use super::index::{Index, IndexBatch, IndexError, IndexOpenError, Watermark};
use super::journal::format::RawEntry;
use super::journal::open::{Loaded, Segment};
use super::journal::{IndexFn, Position, Record, index_record};
use crate::supervisor::Tasks;

/// Index changes that a rebuild hands to the index at once.
const REBUILD_BATCH: usize = 4096;

/// Brings records into an index that is behind, in the journal's order.
pub(super) struct Rebuilding<'a> {
    index: &'a Index,
    kinds: &'a HashMap<u16, IndexFn>,
    batch: IndexBatch,
    applied: u64,
}

impl<'a> Rebuilding<'a> {
    pub(super) fn new(index: &'a Index, kinds: &'a HashMap<u16, IndexFn>) -> Self {
        Self { index, kinds, batch: IndexBatch::default(), applied: 0 }
    }

    /// One record; kinds that nobody indexes are passed over.
    pub(super) fn take(&mut self, kind: u16, at: Position, body: &[u8]) -> Result<(), RebuildError> {
        let Some(index_record) = self.kinds.get(&kind) else { return Ok(()) };
        index_record(body, at, &mut self.batch).map_err(|source| ReplayError { at, kind, source })?;
        self.applied += 1;
        if self.batch.len() >= REBUILD_BATCH {
            self.index.write_rebuilt(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    /// Everything up to the watermark is in it; how many records were indexed.
    pub(super) fn finish(self, watermark: Option<Watermark>) -> Result<u64, RebuildError> {
        self.index.write_rebuilt(self.batch)?;
        self.index.finish_rebuild(watermark)?;
        Ok(self.applied)
    }
}

/// A record that this release cannot read back.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the journal's record at position {at} (kind {kind}) does not read: {source}; was it written by a newer release?"
)]
pub struct ReplayError {
    pub at: Position,
    pub kind: u16,
    pub source: DecodeError,
}

/// Why the index could not be caught up.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Record(#[from] ReplayError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Renew(#[from] IndexOpenError),
    #[error("reading {}: {source}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

/// The journal as it was at the start. It is held in memory until this is dropped, so drop it when all have read.
#[derive(Debug)]
pub struct Replay {
    past: Arc<Past>,
    tasks: Tasks,
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct Past {
    segments: Vec<Segment>,
    index: Index,
    /// Entries that end at or before this position are indexed already.
    indexed: u64,
    /// Where the index stands after a rebuild; `None` for an empty journal.
    watermark: Option<Watermark>,
}

impl Replay {
    pub(super) fn new(
        loaded: Loaded,
        index: Index,
        indexed: Option<Watermark>,
        findings: Vec<Finding>,
        tasks: Tasks,
    ) -> Result<Self, IndexError> {
        let Loaded { journal, segments } = loaded;
        let last = segments.iter().rev().find_map(|segment| segment.entries.last());
        let watermark = last.map(|entry| Watermark { journal, end: entry.end(), crc: entry.crc });
        let known = indexed.filter(|indexed| {
            let mut entries = segments.iter().flat_map(|segment| &segment.entries);
            indexed.journal == journal
                && entries.any(|entry| entry.end() == indexed.end && entry.crc == indexed.crc)
        });
        if known.is_none() && !index.is_broken() {
            index.clear()?;
        }
        if watermark != known && !index.is_broken() {
            index.set_behind();
        }
        let past = Past { segments, index, indexed: known.map_or(0, |known| known.end), watermark };
        Ok(Self { past: Arc::new(past), tasks, findings })
    }

    /// The records of one kind, in the order in which they were committed.
    pub fn records<R: Record>(&self) -> impl Iterator<Item = Result<(Position, R), ReplayError>> + '_ {
        self.past.entries().filter(|(_, entry)| entry.kind == R::KIND).map(|(body, entry)| {
            codec::decode_body(body, R::LIMIT)
                .map(|record| (entry.at, record))
                .map_err(|source| ReplayError { at: entry.at, kind: entry.kind, source })
        })
    }

    /// What was noticed and repaired while opening, for the log and for people who ask.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether lookups fail until [`IndexRebuild::finish`]: the index was lost, or a crash left it a little behind.
    pub fn index_is_behind(&self) -> bool {
        self.past.index.is_behind()
    }

    /// Catches the index up. Name every indexed kind with [`IndexRebuild::apply`], then call [`IndexRebuild::finish`]:
    /// at every start, for it costs nothing when there is nothing to do.
    pub fn index(&self) -> IndexRebuild {
        IndexRebuild { past: self.past.clone(), tasks: self.tasks.clone(), kinds: HashMap::new() }
    }
}

impl Past {
    fn entries(&self) -> impl Iterator<Item = (&[u8], &RawEntry)> {
        self.segments.iter().flat_map(|segment| {
            segment.entries.iter().map(|entry| (&segment.file[entry.body.clone()], entry))
        })
    }

    fn rebuild(&self, kinds: &HashMap<u16, IndexFn>) -> Result<u64, RebuildError> {
        if !self.index.is_behind() {
            return Ok(0);
        }
        let mut rebuilding = Rebuilding::new(&self.index, kinds);
        for (body, entry) in self.entries().filter(|(_, entry)| entry.end() > self.indexed) {
            rebuilding.take(entry.kind, entry.at, body)?;
        }
        rebuilding.finish(self.watermark)
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        self.index.give_up_if_behind();
    }
}

/// Goes through the journal once, in order, and lets records index themselves.
#[derive(Debug)]
pub struct IndexRebuild {
    past: Arc<Past>,
    tasks: Tasks,
    kinds: HashMap<u16, IndexFn>,
}

impl IndexRebuild {
    /// Lets records of this kind index themselves.
    #[must_use]
    pub fn apply<R: Record>(mut self) -> Self {
        self.kinds.insert(R::KIND, index_record::<R>);
        self
    }

    /// Indexes what is missing and gives the number of records that were.
    ///
    /// # Errors
    /// When a record does not read or the index does not write. Lookups then go on failing.
    pub async fn finish(self) -> Result<u64, RebuildError> {
        let Self { past, tasks, kinds } = self;
        past.index.kinds().clone_from(&kinds);
        tasks.blocking(move || past.rebuild(&kinds)).await.map_err(|_| RebuildError::Stopping)?
    }
}
