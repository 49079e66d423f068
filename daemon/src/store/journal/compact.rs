//! Forgetting: closed segments are written again without the records that have done their duty.
//!
//! What stays keeps its position. The result takes the first old segment's place by one rename, and the others go: a
//! crash leaves either all of the old ones, or the new one and leftovers that the next start removes.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use scenemesh_protocol::codec;

use super::format::{self, CONTINUES, Follow, Header, JUMP, MARK, RawEntry};
use super::writer::segment_paths;
use super::{Journal, Position, Record};
use crate::store::disk::{Disk, is_full};

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<R> {
    Keep,
    Drop,
    /// A shorter record says all that is still of use. A longer one is not taken.
    Shorten(R),
}

enum Fate {
    Keep,
    Drop,
    Shorten(Vec<u8>),
}

type JudgeFn = Box<dyn Fn(&[u8]) -> Fate + Send + Sync>;

/// Says of every record whether it is still of use. Records of kinds that it does not know stay.
#[derive(Default)]
pub struct Judge {
    kinds: HashMap<u16, JudgeFn>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("kinds", &self.kinds.keys()).finish()
    }
}

impl Judge {
    /// Adds one kind. A record that does not read stays.
    #[must_use]
    pub fn on<R: Record>(mut self, judge: impl Fn(&R) -> Verdict<R> + Send + Sync + 'static) -> Self {
        let judge =
            move |body: &[u8]| match codec::decode_body::<R>(body, R::LIMIT).map(|record| judge(&record)) {
                Ok(Verdict::Keep) | Err(_) => Fate::Keep,
                Ok(Verdict::Drop) => Fate::Drop,
                Ok(Verdict::Shorten(short)) => Fate::Shorten(codec::encode_body(&short)),
            };
        self.kinds.insert(R::KIND, Box::new(judge));
        self
    }

    /// What it says of one record.
    #[cfg(test)]
    pub(crate) fn verdict<R: Record>(&self, record: &R) -> Verdict<R> {
        match self.fate(R::KIND, &codec::encode_body(record)) {
            Fate::Keep => Verdict::Keep,
            Fate::Drop => Verdict::Drop,
            Fate::Shorten(body) => Verdict::Shorten(codec::decode_body(&body, R::LIMIT).unwrap()),
        }
    }

    fn fate(&self, kind: u16, body: &[u8]) -> Fate {
        self.kinds.get(&kind).map_or(Fate::Keep, |judge| judge(body))
    }
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Records that were dropped or shortened.
    pub records: u64,
    /// Bytes of the closed segments before and after.
    pub before: u64,
    pub after: u64,
}

/// Why a compaction was not done, or not to its end. What was not done changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error("compacting {}: the disk is full; free some space, nothing is lost", path.display())]
    NoSpace { path: PathBuf },
    #[error("compacting {}: {source}; nothing is lost", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CompactError {
    let path = path.to_owned();
    move |source| {
        if is_full(&source) { CompactError::NoSpace { path } } else { CompactError::Io { path, source } }
    }
}

impl Journal {
    /// Writes what was committed before `line` again without what `judge` finds of no use. The line is where a segment
    /// was closed, and the judge knows all that was committed before it.
    ///
    /// # Errors
    /// As [`CompactError`] says.
    pub async fn compact(&self, line: Position, judge: Judge) -> Result<Compacted, CompactError> {
        let place = self.place.clone();
        let turn = place.rewriting.clone().lock_owned().await;
        let work = move || {
            let compacted = compact(&place.segments, &*place.disk, line.0, place.segment_bytes, &judge);
            drop(turn);
            compacted
        };
        self.place.tasks.blocking(work).await.map_err(|_| CompactError::Stopping)?
    }
}

/// Segments that become one.
struct Group {
    paths: Vec<PathBuf>,
    /// Bytes of the old files.
    before: u64,
    records: u64,
    out: Vec<u8>,
    /// Position behind what was written so far.
    at: u64,
    /// Position behind all that the old files held.
    end: u64,
}

impl Group {
    fn new(header: &Header) -> Self {
        let header = Header { jumps: true, ..*header };
        let (out, start) = (header.encode().to_vec(), header.start);
        Self { paths: Vec::new(), before: 0, records: 0, out, at: start, end: start }
    }

    /// Takes a segment's records in; false when the file does not read to its end, and then takes nothing.
    fn take(&mut self, path: &Path, file: &[u8], header: &Header, judge: &Judge) -> bool {
        let scan = format::scan(file, header);
        if scan.torn || !scan.lost.is_empty() || header.start != self.end {
            return false;
        }
        let mut mark: Option<RawEntry> = None;
        for entry in format::raw_entries(file, header) {
            let kind = entry.kind & !CONTINUES;
            if kind == MARK {
                mark = Some(entry);
                continue;
            }
            if kind == JUMP {
                continue;
            }
            let fate = judge.fate(kind, &file[entry.body.clone()]);
            if matches!(fate, Fate::Drop) {
                self.records += 1;
                continue;
            }
            if let Some(mark) = mark.take() {
                self.put(mark.at.0, &file[mark.bytes()]);
            }
            match fate {
                Fate::Shorten(body) if body.len() < entry.body.len() => {
                    self.records += 1;
                    let follow = if entry.kind & CONTINUES == 0 { Follow::End } else { Follow::More };
                    let mut short = Vec::new();
                    format::push_entry(&mut short, kind, follow, &body);
                    self.put(entry.at.0, &short);
                }
                _ => self.put(entry.at.0, &file[entry.bytes()]),
            }
        }
        self.end = scan.end;
        self.before += file.len() as u64;
        self.paths.push(path.into());
        true
    }

    fn put(&mut self, at: u64, entry: &[u8]) {
        if self.at != at {
            format::push_jump(&mut self.out, at);
        }
        self.out.extend_from_slice(entry);
        self.at = at + entry.len() as u64;
    }

    /// Puts the result in the first old file's place, and removes the others.
    fn finish(mut self, dir: &Path, disk: &dyn Disk, compacted: &mut Compacted) -> Result<(), CompactError> {
        let Some((first, others)) = self.paths.split_first() else { return Ok(()) };
        if self.records == 0 && others.is_empty() {
            compacted.before += self.before;
            compacted.after += self.before;
            return Ok(());
        }
        if self.at != self.end {
            format::push_jump(&mut self.out, self.end);
        }
        disk.replace_file(first, &self.out).map_err(failed(first))?;
        disk.sync_dir(dir).map_err(failed(dir))?;
        for path in others {
            disk.remove(path).map_err(failed(path))?;
        }
        disk.sync_dir(dir).map_err(failed(dir))?;
        compacted.records += self.records;
        compacted.before += self.before;
        compacted.after += self.out.len() as u64;
        Ok(())
    }
}

pub(super) fn compact(
    dir: &Path,
    disk: &dyn Disk,
    line: u64,
    segment_bytes: u64,
    judge: &Judge,
) -> Result<Compacted, CompactError> {
    let mut compacted = Compacted::default();
    let mut group: Option<Group> = None;
    let paths = segment_paths(dir).map_err(failed(dir))?;
    for (start, path) in paths.into_iter().filter(|(start, _)| *start < line) {
        let file = fs::read(&path).map_err(failed(&path))?;
        let header = Header::decode(&file).ok().filter(|header| header.start == start);
        let mut next = match group.take() {
            Some(group) if (group.out.len() + file.len()) as u64 <= segment_bytes => Some(group),
            full => {
                full.map_or(Ok(()), |group| group.finish(dir, disk, &mut compacted))?;
                header.as_ref().map(Group::new)
            }
        };
        let taken = match (&mut next, &header) {
            (Some(into), Some(header)) => into.take(&path, &file, header, judge),
            _ => false,
        };
        group = next;
        if !taken {
            // Damage is for the next start to mend. What it holds may come back then, without what ended it if that
            // were dropped behind it: everything behind it stays.
            tracing::warn!(path = %path.display(), "a journal segment does not read to its end, nothing is compacted from there on");
            break;
        }
    }
    group.map_or(Ok(()), |group| group.finish(dir, disk, &mut compacted))?;
    Ok(compacted)
}
