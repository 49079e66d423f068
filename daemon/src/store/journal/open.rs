//! Opening a journal: reading all of it, and going on from whatever a crash, a bad disk or a careless hand left.
//!
//! What was being written at a crash is cut off: nobody was told that it is safe. What was safe once and does not read
//! any more is said, its file is kept aside, and everything else goes on with the positions it had.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scenemesh_protocol::ids::random_bytes;

use super::format::{self, BadHeader, HEADER_LEN, Header, JournalId, RawEntry, Scan};
use super::writer::{Current, Writer, create, segment_path, segment_paths};
use crate::platform;
use crate::store::Finding;
use crate::store::disk::Disk;
use crate::store::index::Watermark;

/// Damaged files that are kept for whoever wants to look.
const KEEP_ASIDE: usize = 32;

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    #[error("{tried} {}: {source}; check the disk and its free space", path.display())]
    Io { tried: &'static str, path: PathBuf, source: io::Error },
    #[error("the journal's segment {} cannot be read: {why}", path.display())]
    Segment { path: PathBuf, why: String },
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

/// A journal being opened.
pub(in crate::store) struct Opening<'a> {
    pub(in crate::store) dir: &'a Path,
    /// Where damaged files are kept.
    pub(in crate::store) aside: &'a Path,
    pub(in crate::store) segment_bytes: u64,
    pub(in crate::store) disk: Arc<dyn Disk>,
    pub(in crate::store) findings: &'a mut Vec<Finding>,
}

/// A segment that has been read.
struct Read {
    path: PathBuf,
    header: Header,
    file: Vec<u8>,
    scan: Scan,
}

fn io(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalOpenError {
    let path = path.to_owned();
    move |source| JournalOpenError::Io { tried, path, source }
}

impl Opening<'_> {
    /// Reads the whole journal, repairs it, and stands behind its last good commit. `indexed` is how far the index got:
    /// what it knows of was acknowledged.
    pub(in crate::store) fn open(
        mut self,
        indexed: Option<Watermark>,
    ) -> Result<(Writer, Loaded), JournalOpenError> {
        platform::create_private_dir(self.dir).map_err(io("creating", self.dir))?;
        self.remove_drafts()?;
        let paths = segment_paths(self.dir).map_err(io("listing", self.dir))?;
        let mut read: Vec<Read> = Vec::new();
        for (i, (start, path)) in paths.iter().enumerate() {
            let newest = i + 1 == paths.len();
            if let Some(segment) = self.read(path, *start, newest, read.last(), indexed)? {
                self.join(read.last_mut(), &segment)?;
                read.push(segment);
            }
        }
        for segment in &mut read {
            self.mend(segment, None)?;
        }
        if let Some(first) = read.first()
            && first.header.start > 0
        {
            let opener = self.bridge(0, first.header.start, first.header.journal)?;
            read.insert(0, opener);
        }
        let (journal, current) = match read.last_mut() {
            Some(newest) => (newest.header.journal, self.stand_behind(newest)?),
            None => {
                let header = Header { start: 0, journal: random_bytes(), jumps: false };
                let path = segment_path(self.dir, 0);
                (header.journal, create(&*self.disk, self.dir, &header).map_err(io("creating", &path))?)
            }
        };
        match indexed {
            Some(indexed) if indexed.journal == journal && indexed.end > current.end => {
                self.findings.push(Finding::LostEnd { bytes: indexed.end - current.end });
            }
            Some(indexed) if read.is_empty() && indexed.end > 0 => self.findings.push(Finding::LostJournal),
            _ => {}
        }
        let segments = read.into_iter().map(|Read { mut file, scan, .. }| {
            file.truncate(scan.good_len);
            Segment { file, entries: scan.entries }
        });
        let loaded = Loaded { journal, segments: segments.collect() };
        let writer = Writer::new(self.dir.into(), journal, self.segment_bytes, current, self.disk);
        Ok((writer, loaded))
    }

    /// What a rewriting left that never took a segment's place.
    fn remove_drafts(&self) -> Result<(), JournalOpenError> {
        for entry in fs::read_dir(self.dir).map_err(io("listing", self.dir))? {
            let path = entry.map_err(io("listing", self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                self.disk.remove(&path).map_err(io("removing", &path))?;
            }
        }
        Ok(())
    }

    /// Reads one segment; `None` when there is nothing in it that counts.
    fn read(
        &mut self,
        path: &Path,
        start: u64,
        newest: bool,
        previous: Option<&Read>,
        indexed: Option<Watermark>,
    ) -> Result<Option<Read>, JournalOpenError> {
        let file = fs::read(path).map_err(io("reading", path))?;
        let header = match Header::decode(&file) {
            Ok(header) if header.start == start => Ok(header),
            Ok(_) => Err(BadHeader::Damaged),
            Err(error) => Err(error),
        };
        // A segment is created only when the one before is complete: the newest may be half a header.
        let empty = file.len() <= HEADER_LEN && !matches!(header, Err(BadHeader::Version(_)));
        if newest && empty && (header.is_err() || previous.is_some_and(|previous| previous.scan.end > start))
        {
            self.disk.remove(path).map_err(io("removing", path))?;
            self.findings.push(Finding::TornJournal { path: path.into(), bytes: file.len() as u64 });
            return Ok(None);
        }
        let known = previous.map(|previous| previous.header.journal).or(indexed.map(|it| it.journal));
        let header = match header {
            Ok(header) => header,
            Err(BadHeader::Version(version)) => {
                let why = BadHeader::Version(version).to_string();
                return Err(JournalOpenError::Segment { path: path.into(), why });
            }
            Err(BadHeader::Damaged) => {
                let known = known.map(|journal| Header { start, journal, jumps: true });
                let Some(header) = Header::recover(&file, start).or(known) else {
                    let kept = self.keep_aside(path)?;
                    self.disk.remove(path).map_err(io("removing", path))?;
                    self.findings.push(Finding::UnreadableSegment { bytes: file.len() as u64, kept });
                    return Ok(None);
                };
                return self.replace_header(path, &header, file).map(Some);
            }
        };
        if previous.is_some_and(|previous| previous.header.journal != header.journal) {
            let why = "it belongs to another journal; remove it or restore the right one".into();
            return Err(JournalOpenError::Segment { path: path.into(), why });
        }
        let scan = format::scan(&file, &header);
        if let Some(previous) = previous {
            // A compaction was cut short after its result took the place of several segments.
            if previous.header.jumps && scan.end <= previous.scan.end && start < previous.scan.end {
                self.disk.remove(path).map_err(io("removing", path))?;
                return Ok(None);
            }
            if start < previous.scan.end {
                let why =
                    "it begins before the one ahead of it ends; restore the journal from a backup".into();
                return Err(JournalOpenError::Segment { path: path.into(), why });
            }
        }
        Ok(Some(Read { path: path.into(), header, file, scan }))
    }

    fn replace_header(
        &mut self,
        path: &Path,
        header: &Header,
        mut file: Vec<u8>,
    ) -> Result<Read, JournalOpenError> {
        let kept = self.keep_aside(path)?;
        file.splice(..HEADER_LEN.min(file.len()), header.encode());
        self.replace(path, &file)?;
        self.findings.push(Finding::MendedHeader { kept });
        let scan = format::scan(&file, header);
        Ok(Read { path: path.into(), header: *header, file, scan })
    }

    /// Sees to it that the segment before `next` ends where `next` begins.
    fn join(&mut self, previous: Option<&mut Read>, next: &Read) -> Result<(), JournalOpenError> {
        let Some(previous) = previous else { return Ok(()) };
        if previous.scan.torn || previous.scan.end != next.header.start {
            self.mend(previous, Some(next.header.start))?;
        }
        Ok(())
    }

    /// Rewrites a segment without what does not read. `until` is where the next one begins, if there is one.
    fn mend(&mut self, segment: &mut Read, until: Option<u64>) -> Result<(), JournalOpenError> {
        let Read { path, header, file, scan } = segment;
        let end = until.unwrap_or(scan.end);
        let hole = end - scan.end;
        let stray = if until.is_some() { file.len() - scan.good_len } else { 0 };
        if scan.lost.is_empty() && hole == 0 && stray == 0 {
            return Ok(());
        }
        let kept = self.keep_aside(path)?;
        // A mark says nothing that the entries around it do not say.
        let (marks, lost): (Vec<_>, Vec<_>) =
            scan.lost.iter().partition(|lost| lost.kind == Some(format::MARK));
        let kinds = lost.iter().filter_map(|lost| lost.kind).collect();
        let lost: u64 = lost.iter().map(|lost| lost.bytes.len() as u64).sum();
        let stray = stray + marks.iter().map(|mark| mark.bytes.len()).sum::<usize>();
        if lost > 0 {
            self.findings.push(Finding::LostRecords { bytes: lost, kinds, kept: kept.clone() });
        }
        if hole > 0 {
            self.findings.push(Finding::LostRecords { bytes: hole, kinds: Vec::new(), kept: kept.clone() });
        }
        if stray > 0 && hole == 0 {
            self.findings.push(Finding::StrayBytes { bytes: stray as u64, kept: kept.clone() });
        }
        let mut mended = format::without_losses(file, header, scan, end);
        if until.is_none() {
            // A torn tail is the newest segment's own affair.
            mended.extend_from_slice(&file[scan.good_len..]);
        }
        self.replace(path, &mended)?;
        header.jumps = true;
        *scan = format::scan(&mended, header);
        *file = mended;
        Ok(())
    }

    /// A segment that stands for a missing beginning.
    fn bridge(&mut self, start: u64, until: u64, journal: JournalId) -> Result<Read, JournalOpenError> {
        let header = Header { start, journal, jumps: true };
        let mut file = header.encode().to_vec();
        format::push_jump(&mut file, until);
        let path = segment_path(self.dir, start);
        self.replace(&path, &file)?;
        self.findings.push(Finding::MissingSegments { bytes: until - start });
        let scan = format::scan(&file, &header);
        Ok(Read { path, header, file, scan })
    }

    /// Opens the newest segment for writing, without its torn end.
    fn stand_behind(&mut self, newest: &mut Read) -> Result<Current, JournalOpenError> {
        let Read { path, file: bytes, scan, .. } = newest;
        let file = fs::File::options().write(true).open(&*path).map_err(io("opening", path))?;
        let len = scan.good_len as u64;
        if scan.torn {
            let cut = self.disk.set_len(&file, len).and_then(|()| self.disk.sync_all(&file));
            cut.map_err(io("truncating the torn end of", path))?;
            let torn = bytes.len() as u64 - len;
            self.findings.push(Finding::TornJournal { path: path.clone(), bytes: torn });
        }
        Ok(Current { file, path: path.clone(), len, end: scan.end })
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), JournalOpenError> {
        let replaced = self.disk.replace_file(path, content);
        replaced.and_then(|()| self.disk.sync_dir(self.dir)).map_err(io("writing", path))
    }

    /// Gives a damaged file a second name where nobody changes it.
    fn keep_aside(&self, path: &Path) -> Result<PathBuf, JournalOpenError> {
        platform::create_private_dir(self.aside).map_err(io("creating", self.aside))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut n = 1;
        let kept = loop {
            let kept = self.aside.join(format!("{name}.{n}"));
            if !kept.exists() {
                break kept;
            }
            n += 1;
        };
        let linked = fs::hard_link(path, &kept).or_else(|_| fs::copy(path, &kept).map(drop));
        linked.and_then(|()| platform::sync_dir(self.aside)).map_err(io("keeping a copy of", path))?;
        self.forget_oldest();
        Ok(kept)
    }

    fn forget_oldest(&self) {
        let Ok(listed) = fs::read_dir(self.aside) else { return };
        let mut files: Vec<_> = listed
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let many = files.len().saturating_sub(KEEP_ASIDE);
        // What cannot be removed only takes space.
        files.into_iter().take(many).for_each(|(_, path)| drop(fs::remove_file(path)));
    }
}
