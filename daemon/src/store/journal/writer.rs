//! The journal's files: opening, appending, rolling, and staying consistent when the disk does not play along.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scenemesh_protocol::ids::random_bytes;

use super::format::{self, BadHeader, Ending, Follow, HEADER_LEN, Header, JournalId, RawEntry};
use super::{Entry, JournalError, Position};
use crate::platform;
use crate::store::Finding;
use crate::store::index::Watermark;

/// A segment that has grown to this many bytes is followed by a new one.
pub(in crate::store) const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of the write buffer that are kept between batches.
const KEEP_BUFFER: usize = 1 << 20;

/// Why the journal cannot be opened. Nothing was changed by trying.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    #[error("{tried} {path}: {source}")]
    Io { tried: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the journal is damaged in {path} at byte {offset}: what was recorded there does not read any more; \
         restore this file from a backup or check the disk"
    )]
    Damaged { path: PathBuf, offset: usize },
    #[error(
        "the journal ends in {path} at position {end}, but records up to {acknowledged} were acknowledged; restore this \
         file from a backup, or move the index directory away to go on without them"
    )]
    LostEnd { path: PathBuf, end: u64, acknowledged: u64 },
    #[error("the journal's segment {path} cannot be read: {why}")]
    Segment { path: PathBuf, why: String },
    #[error(
        "a part of the journal is missing before {path}: positions {from} to {to}; restore it from a backup"
    )]
    Missing { path: PathBuf, from: u64, to: u64 },
}

/// A segment as it was read at the start.
#[derive(Debug)]
pub(in crate::store) struct Segment {
    pub(in crate::store) file: Vec<u8>,
    pub(in crate::store) entries: Vec<RawEntry>,
}

/// Everything the journal held at the start.
#[derive(Debug)]
pub(in crate::store) struct Loaded {
    pub(in crate::store) journal: JournalId,
    pub(in crate::store) segments: Vec<Segment>,
}

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
}

/// The segment that grows.
#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    start: u64,
    /// Bytes of the file that hold complete, synced commits.
    len: u64,
}

impl Current {
    fn end(&self) -> u64 {
        self.start + self.len - HEADER_LEN as u64
    }
}

impl Writer {
    /// Reads the whole journal, repairs a torn tail, and stands behind the last good commit.
    ///
    /// A tail that `indexed` knows of was acknowledged: its loss is damage, not an unfinished write.
    pub(in crate::store) fn open(
        dir: &Path,
        segment_bytes: u64,
        indexed: Option<Watermark>,
        findings: &mut Vec<Finding>,
    ) -> Result<(Self, Loaded), JournalOpenError> {
        let io = |tried, path: &Path| {
            let path = path.to_owned();
            move |source| JournalOpenError::Io { tried, path, source }
        };
        platform::create_private_dir(dir).map_err(io("creating", dir))?;
        let paths = segment_paths(dir).map_err(io("listing", dir))?;
        let mut read: Vec<(PathBuf, Header, Segment)> = Vec::new();
        let mut cut = None;
        for (i, (start, path)) in paths.iter().enumerate() {
            let newest = i + 1 == paths.len();
            let file = fs::read(path).map_err(io("reading", path))?;
            let previous_end = read.last().map(|(_, header, segment)| end_of(header, segment));
            let header = match Header::decode(&file) {
                Ok(header) if header.start == *start => Ok(header),
                Ok(_) => Err(BadHeader::Damaged),
                Err(error) => Err(error),
            };
            // A segment is created only when the one before is complete: the newest may be half a header.
            let empty = file.len() <= HEADER_LEN && !matches!(header, Err(BadHeader::Version(_)));
            let unused =
                newest && empty && (header.is_err() || previous_end.is_some_and(|end| end != *start));
            if unused {
                fs::remove_file(path).map_err(io("removing", path))?;
                findings.push(Finding::TornJournal { path: path.clone(), bytes: file.len() as u64 });
                continue;
            }
            let header = header.map_err(|error| match error {
                BadHeader::Damaged => JournalOpenError::Damaged { path: path.clone(), offset: 0 },
                newer => JournalOpenError::Segment { path: path.clone(), why: newer.to_string() },
            })?;
            if let Some((_, first, _)) = read.first()
                && first.journal != header.journal
            {
                let why = "it belongs to another journal; remove it or restore the right one".into();
                return Err(JournalOpenError::Segment { path: path.clone(), why });
            }
            if let Some(end) = previous_end
                && end != header.start
            {
                return Err(JournalOpenError::Missing { path: path.clone(), from: end, to: header.start });
            }
            let scan = format::scan(&file, &header);
            match scan.ending {
                Ending::Clean => {}
                Ending::Torn if newest => {
                    let end = header.start + (scan.good_len - HEADER_LEN) as u64;
                    if let Some(indexed) = indexed.filter(|it| it.journal == header.journal && it.end > end) {
                        let acknowledged = indexed.end;
                        return Err(JournalOpenError::LostEnd { path: path.clone(), end, acknowledged });
                    }
                    cut = Some((scan.good_len, file.len() - scan.good_len));
                }
                Ending::Torn => {
                    return Err(JournalOpenError::Damaged { path: path.clone(), offset: scan.good_len });
                }
                Ending::Damaged { offset } => {
                    return Err(JournalOpenError::Damaged { path: path.clone(), offset });
                }
            }
            let mut file = file;
            file.truncate(scan.good_len);
            read.push((path.clone(), header, Segment { file, entries: scan.entries }));
        }
        let (journal, current) = match read.last() {
            Some((path, header, segment)) => {
                let file = File::options().write(true).open(path).map_err(io("opening", path))?;
                let len = segment.file.len() as u64;
                if let Some((good_len, bytes)) = cut {
                    file.set_len(good_len as u64)
                        .and_then(|()| file.sync_all())
                        .map_err(io("truncating the torn end of", path))?;
                    findings.push(Finding::TornJournal { path: path.clone(), bytes: bytes as u64 });
                }
                (header.journal, Current { file, path: path.clone(), start: header.start, len })
            }
            None => {
                // A torn first segment leaves its name's position behind; a new journal may as well begin there.
                let start = paths.first().map_or(0, |(start, _)| *start);
                let header = Header { start, journal: random_bytes() };
                let path = segment_path(dir, start);
                (header.journal, create(dir, &header).map_err(io("creating", &path))?)
            }
        };
        let segments = read.into_iter().map(|(_, _, segment)| segment).collect();
        let dir = dir.to_owned();
        let writer = Self { dir, journal, segment_bytes, current, refusing: None, buffer: Vec::new() };
        Ok((writer, Loaded { journal, segments }))
    }

    /// Appends commits and syncs them, all or none.
    pub(super) fn append(&mut self, commits: &[&[Entry]]) -> Result<Written, JournalError> {
        if let Some(refusing) = &self.refusing {
            return Err(refusing.clone());
        }
        if self.current.len >= self.segment_bytes {
            self.roll()?;
        }
        let base = self.current.end();
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
        written.watermark = Some(Watermark { journal: self.journal, end: self.current.end(), crc });
        Ok(written)
    }

    /// Says, at an orderly end, that all of this was safe: what is missing at the next start is then damage.
    pub(super) fn close(&mut self) -> Result<(), JournalError> {
        if self.refusing.is_some() || self.current.len == HEADER_LEN as u64 {
            return Ok(());
        }
        self.buffer.clear();
        format::push_mark(&mut self.buffer, &self.journal, self.current.end());
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<(), JournalError> {
        let bytes = self.buffer.len();
        let Current { file, path, len, .. } = &mut self.current;
        if let Err(error) = platform::write_all_at(file, &self.buffer, *len) {
            // Half of it may be there; a later batch must not follow it.
            if let Err(error) = file.set_len(*len) {
                return Err(self.refuse("truncated to its last good entry", &error));
            }
            return Err(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    JournalError::NoSpace { path: path.clone(), bytes }
                }
                _ => JournalError::Write { path: path.clone(), bytes, source: Arc::new(error) },
            });
        }
        if let Err(error) = file.sync_data() {
            // Whether these bytes are there after a restart is unknown; taking them back is worth the try.
            drop(file.set_len(*len));
            return Err(self.refuse("synced", &error));
        }
        *len += bytes as u64;
        Ok(())
    }

    /// Closes the current segment and begins the next. On failure the current one goes on.
    fn roll(&mut self) -> Result<(), JournalError> {
        // A truncation after a failed write must be durable before a segment follows.
        if let Err(error) = self.current.file.sync_all() {
            return Err(self.refuse("synced", &error));
        }
        let header = Header { start: self.current.end(), journal: self.journal };
        match create(&self.dir, &header) {
            Ok(next) => {
                self.current = next;
                Ok(())
            }
            Err(error) => {
                let path = segment_path(&self.dir, header.start);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(self.refuse("followed by a new segment", &error))
                    }
                    _ if error.kind() == io::ErrorKind::StorageFull => {
                        Err(JournalError::NoSpace { path, bytes: HEADER_LEN })
                    }
                    _ => Err(JournalError::Write { path, bytes: HEADER_LEN, source: Arc::new(error) }),
                }
            }
        }
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

fn end_of(header: &Header, segment: &Segment) -> u64 {
    header.start + (segment.file.len() - HEADER_LEN) as u64
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

fn segment_paths(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
        let start = stem.and_then(|stem| stem.parse().ok());
        if let Some(start) = start.filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            paths.push((start, path));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Creates a segment that holds only its header, durably.
fn create(dir: &Path, header: &Header) -> io::Result<Current> {
    let path = segment_path(dir, header.start);
    let file = platform::private_file().write(true).create(true).truncate(true).open(&path)?;
    platform::write_all_at(&file, &header.encode(), 0)?;
    file.sync_all()?;
    platform::sync_dir(dir)?;
    Ok(Current { file, path, start: header.start, len: HEADER_LEN as u64 })
}
