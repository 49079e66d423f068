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
//!
//! A jump is an entry of kind 0x7fff whose body is the position of what comes next: what lay between was dropped by a
//! compaction or lost by a disk, and everything else keeps its position. Segments with jumps are of version 2.

use std::ops::Range;

use super::Position;

const MAGIC: [u8; 4] = *b"SMJL";
/// What this daemon reads at most, and what it writes where there are jumps.
const VERSION: u16 = 2;
const WITHOUT_JUMPS: u16 = 1;
pub(super) const HEADER_LEN: usize = 36;
/// Length and CRC before each entry's kind.
const PREFIX_LEN: usize = 8;
const KIND_LEN: usize = 2;
/// Most bytes of one record: what the largest wire message takes, and some room.
pub(super) const MAX_BODY: usize = (16 << 20) + (64 << 10);
/// No journal gets this far: a segment, a jump or a mark that says it does is damaged, whatever its checksum says.
pub(super) const FURTHEST: u64 = 1 << 62;
pub(super) const CONTINUES: u16 = 0x8000;
pub(super) const MARK: u16 = 0;
pub(super) const JUMP: u16 = 0x7fff;
const MARK_BODY_LEN: usize = 24;

/// Identity of one journal, random at its creation: an index or a segment of another one is recognised.
pub(in crate::store) type JournalId = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) start: u64,
    pub(super) journal: JournalId,
    /// Positions in it may jump.
    pub(super) jumps: bool,
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
        let version = if self.jumps { VERSION } else { WITHOUT_JUMPS };
        bytes[4..6].copy_from_slice(&version.to_le_bytes());
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
        if !(WITHOUT_JUMPS..=VERSION).contains(&version) {
            return Err(BadHeader::Version(version));
        }
        let mut journal = JournalId::default();
        journal.copy_from_slice(&header[16..32]);
        let start = read_u64(&header[8..]);
        if start > FURTHEST {
            return Err(BadHeader::Damaged);
        }
        Ok(Self { start, journal, jumps: version > WITHOUT_JUMPS })
    }

    /// The header that a file with a damaged one had: its name has the position, its first mark the journal.
    pub(super) fn recover(file: &[u8], start: u64) -> Option<Self> {
        let (mark, _) = entry_at(file, HEADER_LEN, start).filter(|(entry, _)| entry.kind == MARK)?;
        let body = &file[mark.body.clone()];
        let journal = *body.first_chunk()?;
        (body == mark_body(&journal, start)).then_some(Self { start, journal, jumps: true })
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

pub(super) fn push_jump(out: &mut Vec<u8>, to: u64) {
    push_entry(out, JUMP, Follow::End, &to.to_le_bytes());
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
    /// The whole entry in the segment's file.
    pub(in crate::store) fn bytes(&self) -> Range<usize> {
        self.body.start - PREFIX_LEN - KIND_LEN..self.body.end
    }

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
    /// Position right behind it.
    pub(super) end: u64,
    /// Whether bytes follow `good_len`: they were being written when the machine stopped, and nobody was told that
    /// they are safe.
    pub(super) torn: bool,
    /// Stretches of good entries and marks, in order: where they lie and the position of their first byte.
    pub(super) good: Vec<(Range<usize>, u64)>,
    /// What was safe once and does not read any more.
    pub(super) lost: Vec<Lost>,
}

/// A stretch of a segment that does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) bytes: Range<usize>,
    /// What kind of record it seems to have been, where just one is gone.
    pub(super) kind: Option<u16>,
}

/// Reads a segment's file, header included. Behind a damaged stretch it goes on where that can be trusted: at a mark,
/// whose journal id nobody else knows, or at entries that lead to one.
pub(super) fn scan(file: &[u8], header: &Header) -> Scan {
    let mut scan = Scan {
        entries: Vec::new(),
        good_len: HEADER_LEN,
        end: header.start,
        torn: false,
        good: Vec::new(),
        lost: Vec::new(),
    };
    let (mut offset, mut at, mut committed) = (HEADER_LEN, header.start, 0);
    let (mut stretch, mut stretch_at) = (offset, at);
    loop {
        if let Some((entry, then_at)) = entry_at(file, offset, at) {
            let begins = offset;
            (offset, at) = (entry.body.end, then_at);
            let continues = entry.kind & CONTINUES != 0;
            let kind = entry.kind & !CONTINUES;
            if kind == JUMP {
                scan.good.push((stretch..begins, stretch_at));
                (stretch, stretch_at) = (offset, at);
            } else if kind != MARK {
                scan.entries.push(RawEntry { kind, ..entry });
            }
            if !continues {
                (scan.good_len, scan.end, committed) = (offset, at, scan.entries.len());
            }
            continue;
        }
        if offset >= file.len() {
            break;
        }
        let Some((mark, mark_at)) = find_mark(file, offset, header, at) else { break };
        scan.good.push((stretch..offset, stretch_at));
        let (resume, resume_at, kind) = match lone_loss(file, header, offset, at, (mark, mark_at)) {
            Some((next, next_at, kind)) => (next, next_at, Some(kind & !CONTINUES)),
            None => (mark, mark_at, None),
        };
        scan.lost.push(Lost { bytes: offset..resume, kind });
        // What reads of a commit that lost a part of itself is all there is of it.
        committed = scan.entries.len();
        (offset, at) = (resume, resume_at);
        (stretch, stretch_at) = (offset, at);
        (scan.good_len, scan.end) = (offset, at);
    }
    scan.entries.truncate(committed);
    scan.good.push((stretch..scan.good_len.max(stretch), stretch_at));
    scan.good.retain(|(bytes, _)| !bytes.is_empty());
    scan.torn = scan.good_len < file.len();
    scan
}

/// Everything in a segment's file up to the first thing that does not read, marks and jumps too: `kind` is as written.
pub(super) fn raw_entries(file: &[u8], header: &Header) -> impl Iterator<Item = RawEntry> {
    let (mut offset, mut at) = (HEADER_LEN, header.start);
    std::iter::from_fn(move || {
        let (entry, then_at) = entry_at(file, offset, at)?;
        (offset, at) = (entry.body.end, then_at);
        Some(entry)
    })
}

/// When only the entry at `offset` is damaged, and not its length: where the next one begins, and its kind.
fn lone_loss(
    file: &[u8],
    header: &Header,
    offset: usize,
    at: u64,
    mark: (usize, u64),
) -> Option<(usize, u64, u16)> {
    let rest = file.get(offset..)?;
    let prefix = rest.first_chunk::<{ PREFIX_LEN + KIND_LEN }>()?;
    let mark_len = KIND_LEN + MARK_BODY_LEN;
    let is_mark =
        rest.get(PREFIX_LEN + KIND_LEN..PREFIX_LEN + mark_len) == Some(&mark_body(&header.journal, at));
    let len = if is_mark { mark_len } else { read_u32(prefix) as usize };
    if !(KIND_LEN..=KIND_LEN + MAX_BODY).contains(&len) {
        return None;
    }
    let next = offset + PREFIX_LEN + len;
    let next_at = at + (PREFIX_LEN + len) as u64;
    let (mut walk, mut walk_at) = (next, next_at);
    while walk < mark.0 {
        let (entry, then_at) = entry_at(file, walk, walk_at)?;
        (walk, walk_at) = (entry.body.end, then_at);
    }
    let kind = u16::from_le_bytes([prefix[PREFIX_LEN], prefix[PREFIX_LEN + 1]]);
    ((walk, walk_at) == mark).then_some((next, next_at, if is_mark { MARK } else { kind }))
}

/// A segment's file without what does not read and with `until` as the position behind its end.
pub(super) fn without_losses(file: &[u8], header: &Header, scan: &Scan, until: u64) -> Vec<u8> {
    let mut out = Header { jumps: true, ..*header }.encode().to_vec();
    let mut at = header.start;
    for (bytes, from) in &scan.good {
        if *from != at {
            push_jump(&mut out, *from);
        }
        out.extend_from_slice(&file[bytes.clone()]);
        at = from + bytes.len() as u64;
    }
    if at != until {
        push_jump(&mut out, until);
    }
    out
}

/// The entry that lies there, and the position of what follows: behind it, or where it jumps to, which is always ahead.
fn entry_at(file: &[u8], offset: usize, at: u64) -> Option<(RawEntry, u64)> {
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
    let entry = RawEntry { kind: u16::from_le_bytes([content[0], content[1]]), at: Position(at), body, crc };
    if entry.kind & !CONTINUES != JUMP {
        let end = entry.end();
        return Some((entry, end));
    }
    let to = u64::from_le_bytes(content[KIND_LEN..].try_into().ok()?);
    (entry.kind == JUMP && at < to && to <= FURTHEST).then_some((entry, to))
}

/// The CRC of the encoded entry that these bytes begin with.
pub(super) fn entry_crc(entry: &[u8]) -> u32 {
    read_u32(&entry[4..])
}

/// The first mark of this journal behind `from`, and its position: it says so itself. Positions never go back.
fn find_mark(file: &[u8], from: usize, header: &Header, least: u64) -> Option<(usize, u64)> {
    let bodies = file.get(from..)?.windows(MARK_BODY_LEN).enumerate();
    bodies
        .filter(|(_, window)| window[..16] == header.journal)
        .filter_map(|(at, _)| (from + at).checked_sub(PREFIX_LEN + KIND_LEN))
        .filter(|&offset| offset > from)
        .find_map(|offset| {
            let (entry, _) = entry_at(file, offset, 0).filter(|(entry, _)| entry.kind == MARK)?;
            let at = file[entry.body.clone()].last_chunk().map(|at| u64::from_le_bytes(*at))?;
            let ours = file[entry.body] == mark_body(&header.journal, at);
            (ours && (least..=FURTHEST).contains(&at)).then_some((offset, at))
        })
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn read_u64(bytes: &[u8]) -> u64 {
    u64::from(read_u32(bytes)) | u64::from(read_u32(&bytes[4..])) << 32
}
