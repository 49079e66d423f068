//! The journal's one writer: appending, rolling, and staying consistent when the disk does not play along.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, Follow, HEADER_LEN, Header, JournalId};
use super::{Entry, JournalError, Position};
use crate::store::disk::{Disk, Existing, is_full};
use crate::store::index::Watermark;

/// A segment that has grown to this many bytes is followed by a new one.
pub(in crate::store) const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of the write buffer that are kept between batches.
const KEEP_BUFFER: usize = 1 << 20;

/// What an append made durable.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Position of the first entry of each commit.
    pub(super) commits: Vec<Position>,
    pub(super) entries: Vec<Position>,
    /// `None` when nothing was written.
    pub(super) watermark: Option<Watermark>,
}

/// The one writer of a journal.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    dir: PathBuf,
    journal: JournalId,
    segment_bytes: u64,
    current: Current,
    refusing: Option<JournalError>,
    buffer: Vec<u8>,
    disk: Arc<dyn Disk>,
}

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Bytes of the file that hold complete, synced commits.
    pub(super) len: u64,
    /// Position behind them.
    pub(super) end: u64,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        journal: JournalId,
        segment_bytes: u64,
        current: Current,
        disk: Arc<dyn Disk>,
    ) -> Self {
        Self { dir, journal, segment_bytes, current, refusing: None, buffer: Vec::new(), disk }
    }

    /// Appends commits and syncs them, all or none.
    pub(super) fn append(&mut self, commits: &[&[Entry]]) -> Result<Written, JournalError> {
        if let Some(refusing) = &self.refusing {
            return Err(refusing.clone());
        }
        if self.current.len >= self.segment_bytes {
            self.roll()?;
        }
        let base = self.current.end;
        let mut written = Written::default();
        self.buffer.clear();
        format::push_mark(&mut self.buffer, &self.journal, base);
        for commit in commits {
            written.commits.push(Position(base + self.buffer.len() as u64));
            for (i, entry) in commit.iter().enumerate() {
                written.entries.push(Position(base + self.buffer.len() as u64));
                let follow = if i + 1 == commit.len() { Follow::End } else { Follow::More };
                format::push_entry(&mut self.buffer, entry.kind, follow, &entry.body);
            }
        }
        let Some(last) = written.entries.last() else { return Ok(written) };
        let crc = format::entry_crc(&self.buffer[(last.0 - base) as usize..]);
        self.write_buffer()?;
        self.buffer.shrink_to(KEEP_BUFFER);
        written.watermark = Some(Watermark { journal: self.journal, end: self.current.end, crc });
        Ok(written)
    }

    /// Says, at an orderly end, that all of this was safe: what is missing at the next start is then damage.
    pub(super) fn close(&mut self) -> Result<(), JournalError> {
        if self.refusing.is_some() || self.current.len == HEADER_LEN as u64 {
            return Ok(());
        }
        self.buffer.clear();
        format::push_mark(&mut self.buffer, &self.journal, self.current.end);
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<(), JournalError> {
        let bytes = self.buffer.len();
        let Current { file, path, len, end } = &mut self.current;
        if let Err(error) = self.disk.write_all_at(file, &self.buffer, *len) {
            // Half of it may be there; a later batch must not follow it.
            if let Err(error) = self.disk.set_len(file, *len) {
                return Err(self.refuse("truncated to its last good entry", &error));
            }
            return Err(match error {
                full if is_full(&full) => JournalError::NoSpace { path: path.clone(), bytes },
                error => JournalError::Write { path: path.clone(), bytes, source: Arc::new(error) },
            });
        }
        if let Err(error) = self.disk.sync_data(file) {
            // Whether these bytes are there after a restart is unknown; taking them back is worth the try.
            drop(self.disk.set_len(file, *len));
            return Err(self.refuse("synced", &error));
        }
        *len += bytes as u64;
        *end += bytes as u64;
        Ok(())
    }

    /// Closes the current segment and begins the next. On failure the current one goes on.
    fn roll(&mut self) -> Result<(), JournalError> {
        // A truncation after a failed write must be durable before a segment follows.
        if let Err(error) = self.disk.sync_all(&self.current.file) {
            return Err(self.refuse("synced", &error));
        }
        let header = Header { start: self.current.end, journal: self.journal, jumps: false };
        match create(&*self.disk, &self.dir, &header) {
            Ok(next) => {
                self.current = next;
                Ok(())
            }
            Err(error) => {
                let path = segment_path(&self.dir, header.start);
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(self.refuse("followed by a new segment", &error))
                    }
                    _ if is_full(&error) => Err(JournalError::NoSpace { path, bytes: HEADER_LEN }),
                    _ => Err(JournalError::Write { path, bytes: HEADER_LEN, source: Arc::new(error) }),
                }
            }
        }
    }

    /// Begins a new segment unless the current one is empty; gives the position where it begins. What was committed
    /// before it does not change any more.
    pub(super) fn close_segment(&mut self) -> Result<Position, JournalError> {
        if let Some(refusing) = &self.refusing {
            return Err(refusing.clone());
        }
        if self.current.len > HEADER_LEN as u64 {
            self.roll()?;
        }
        Ok(Position(self.current.end))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    #[cfg(test)]
    pub(super) fn break_file(&mut self, file: File) {
        self.current.file = file;
    }

    fn refuse(&mut self, tried: &'static str, error: &io::Error) -> JournalError {
        let refusing =
            JournalError::Refusing { path: self.current.path.clone(), tried, why: error.to_string() };
        tracing::error!(error = %refusing, "the journal stops recording");
        self.refusing.insert(refusing).clone()
    }
}

pub(super) fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

/// All segments in order, by the position of their first entry.
pub(super) fn segment_paths(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
        let start = stem.and_then(|stem| stem.parse().ok()).filter(|start| *start <= format::FURTHEST);
        if let Some(start) = start.filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            paths.push((start, path));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Creates a segment that holds only its header, durably.
pub(super) fn create(disk: &dyn Disk, dir: &Path, header: &Header) -> io::Result<Current> {
    let path = segment_path(dir, header.start);
    let file = disk.create(&path, Existing::Empty)?;
    disk.write_all_at(&file, &header.encode(), 0)?;
    disk.sync_all(&file)?;
    disk.sync_dir(dir)?;
    Ok(Current { file, path, len: HEADER_LEN as u64, end: header.start })
}
