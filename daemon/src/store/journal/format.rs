//! PURE. The bytes of a journal segment: header, entries, marks, and how to read what a crash or a bad disk left.
//!
//! ```text
//! segment = header · batch…            header = "SMJL" · version u16 · zero u16 · start u64 · journal id 16 · crc32 u32
//! batch   = mark · commit…             what one write and one fdatasync made durable together
//! commit  = entry…                     what one caller committed: all of it is replayed, or nothing
//! entry   = len u32 · crc32 u32 · kind u16 · body          len and crc32 (IEEE) are of kind and body
//! ```
//! All integers are little-endian. The highest bit of `kind` says that the commit goes on with the next entry. A mark is
//! an entry of kind 0 whose body is the journal's id and its own position: it stands where everything before it
//! was already on stable storage, which is how a damaged middle is told from a torn tail. A [`Position`] counts entry
//! bytes from the journal's beginning, headers not included; a segment's file is named by the position of its first.

use std::ops::Range;

use super::Position;

const MAGIC: [u8; 4] = *b"SMJL";
const VERSION: u16 = 1;
pub(super) const HEADER_LEN: usize = 36;
/// Length and CRC before each entry's kind.
const PREFIX_LEN: usize = 8;
const KIND_LEN: usize = 2;
/// Most bytes of one record: what the largest wire message takes, and some room.
pub(super) const MAX_BODY: usize = (16 << 20) + (64 << 10);
/// No journal gets this far: a segment that says it does is damaged, whatever its checksum says.
const FURTHEST: u64 = 1 << 62;
const CONTINUES: u16 = 0x8000;
const MARK: u16 = 0;
const MARK_BODY_LEN: usize = 24;

/// Identity of one journal, random at its creation: an index or a segment of another one is recognised.
pub(in crate::store) type JournalId = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) start: u64,
    pub(super) journal: JournalId,
}

/// Why the first bytes of a segment are not a header this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    #[error("its header is damaged")]
    Damaged,
    #[error("its format is version {0}, this daemon reads {VERSION}: it was written by a newer release")]
    Version(u16),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.journal);
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(BadHeader::Damaged)?;
        if header[..4] != MAGIC || read_u32(&header[32..]) != crc32fast::hash(&header[..32]) {
            return Err(BadHeader::Damaged);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let mut journal = JournalId::default();
        journal.copy_from_slice(&header[16..32]);
        let start = read_u64(&header[8..]);
        if start > FURTHEST {
            return Err(BadHeader::Damaged);
        }
        Ok(Self { start, journal })
    }
}

/// Whether more entries of the same commit follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    More,
    End,
}

pub(super) fn push_entry(out: &mut Vec<u8>, kind: u16, follow: Follow, body: &[u8]) {
    let kind = if follow == Follow::More { kind | CONTINUES } else { kind }.to_le_bytes();
    let len = u32::try_from(KIND_LEN + body.len()).expect("bodies are at most MAX_BODY");
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind);
    crc.update(body);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(&kind);
    out.extend_from_slice(body);
}

pub(super) fn push_mark(out: &mut Vec<u8>, journal: &JournalId, at: u64) {
    push_entry(out, MARK, Follow::End, &mark_body(journal, at));
}

fn mark_body(journal: &JournalId, at: u64) -> [u8; MARK_BODY_LEN] {
    let mut body = [0; MARK_BODY_LEN];
    body[..16].copy_from_slice(journal);
    body[16..].copy_from_slice(&at.to_le_bytes());
    body
}

/// One record as it lies in a scanned segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct RawEntry {
    pub(in crate::store) kind: u16,
    pub(in crate::store) at: Position,
    /// Where the body lies in the segment's file.
    pub(in crate::store) body: Range<usize>,
    pub(in crate::store) crc: u32,
}

impl RawEntry {
    /// Position right behind this entry.
    pub(in crate::store) fn end(&self) -> u64 {
        self.at.0 + (PREFIX_LEN + KIND_LEN + self.body.len()) as u64
    }
}

/// What a segment's file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) entries: Vec<RawEntry>,
    /// Length of the file up to the last complete commit.
    pub(super) good_len: usize,
    pub(super) ending: Ending,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The file ends with a complete commit.
    Clean,
    /// What follows `good_len` was being written when the machine stopped: nobody was told that it is safe.
    Torn,
    /// What lies at this offset was safe once and does not read any more.
    Damaged { offset: usize },
}

/// Reads a segment's file, header included, up to the first thing that is not a good entry.
pub(super) fn scan(file: &[u8], header: &Header) -> Scan {
    let mut scan = Scan { entries: Vec::new(), good_len: HEADER_LEN, ending: Ending::Clean };
    let (mut offset, mut committed) = (HEADER_LEN, 0);
    while let Some(entry) = entry_at(file, offset, header.start) {
        offset = entry.body.end;
        let continues = entry.kind & CONTINUES != 0;
        if entry.kind != MARK {
            scan.entries.push(RawEntry { kind: entry.kind & !CONTINUES, ..entry });
        }
        if !continues {
            (scan.good_len, committed) = (offset, scan.entries.len());
        }
    }
    scan.entries.truncate(committed);
    if scan.good_len < file.len() {
        scan.ending = match find_mark(file, offset, header) {
            Some(_) => Ending::Damaged { offset },
            None => Ending::Torn,
        };
    }
    scan
}

fn entry_at(file: &[u8], offset: usize, start: u64) -> Option<RawEntry> {
    let rest = file.get(offset..)?;
    let (prefix, rest) = rest.split_at_checked(PREFIX_LEN)?;
    let (len, crc) = (read_u32(prefix) as usize, read_u32(&prefix[4..]));
    if !(KIND_LEN..=KIND_LEN + MAX_BODY).contains(&len) {
        return None;
    }
    let content = rest.get(..len)?;
    if crc32fast::hash(content) != crc {
        return None;
    }
    let body = offset + PREFIX_LEN + KIND_LEN..offset + PREFIX_LEN + len;
    let at = Position(start + (offset - HEADER_LEN) as u64);
    Some(RawEntry { kind: u16::from_le_bytes([content[0], content[1]]), at, body, crc })
}

/// The CRC of the encoded entry that these bytes begin with.
pub(super) fn entry_crc(entry: &[u8]) -> u32 {
    read_u32(&entry[4..])
}

/// The first mark of this journal behind `from` that stands where it says it stands.
fn find_mark(file: &[u8], from: usize, header: &Header) -> Option<usize> {
    let bodies = file.get(from..)?.windows(MARK_BODY_LEN).enumerate();
    bodies
        .filter(|(_, window)| window[..16] == header.journal)
        .filter_map(|(at, _)| (from + at).checked_sub(PREFIX_LEN + KIND_LEN))
        .filter(|&offset| offset > from)
        .find(|&offset| {
            entry_at(file, offset, header.start).is_some_and(|entry| {
                entry.kind == MARK && file[entry.body.clone()] == mark_body(&header.journal, entry.at.0)
            })
        })
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn read_u64(bytes: &[u8]) -> u64 {
    u64::from(read_u32(bytes)) | u64::from(read_u32(&bytes[4..])) << 32
}
