//! An exported journal comes back: checked to its last byte, laid beside the empty one, put in its place at the next
//! start.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scenemesh_protocol::ids::NodeId;

use super::export::{FRAME_LEN, HASH_LEN, MAGIC, PREAMBLE_LEN, VERSION};
use super::format::{self, Header};
use super::writer::{segment_path, segment_paths};
use super::{Journal, Place};
use crate::platform;
use crate::store::disk::is_full;
use crate::store::{Finding, JournalOpenError};

/// What arrives.
const PART: &str = "import.part";
/// Segments as they are checked, and when all of them are good.
const STAGED: &str = "journal.import.part";
const READY: &str = "journal.import";
/// Largest segment that is read: a full one and the largest batch behind it.
const SEGMENT_LIMIT: u64 = 256 << 20;

/// Why a journal is not imported. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("this daemon's journal is not empty")]
    NotEmpty,
    #[error("another import is under way, or waits for a restart")]
    Busy,
    #[error("this is no exported journal")]
    NotAnExport,
    #[error(
        "the export has format {version}, this daemon reads {VERSION}: it was written by a newer release"
    )]
    Version { version: u16 },
    #[error("the export is of node {node}, this is node {me}")]
    Foreign { node: NodeId, me: NodeId },
    #[error("the export is damaged or was cut off: {why}")]
    Damaged { why: &'static str },
    #[error("writing the import: the disk is full")]
    NoSpace,
    #[error("{tried}: {source}")]
    Io { tried: &'static str, source: io::Error },
    #[error("the node is stopping")]
    Stopping,
}

fn io(tried: &'static str) -> impl FnOnce(io::Error) -> ImportError {
    move |source| if is_full(&source) { ImportError::NoSpace } else { ImportError::Io { tried, source } }
}

/// An import under way. Dropping it without [`Import::finish`] leaves nothing.
#[derive(Debug)]
pub struct Import {
    place: Arc<Place>,
    me: NodeId,
    file: Arc<File>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Drop for Import {
    fn drop(&mut self) {
        // A leftover is overwritten by the next import.
        drop(fs::remove_file(self.place.dir.join(PART)));
    }
}

impl Journal {
    /// Begins to take an export in. `me` is this node: nobody else's journal is of use here.
    ///
    /// # Errors
    /// When this journal holds something already.
    pub async fn import(&self, me: NodeId) -> Result<Import, ImportError> {
        let turn = self.place.importing.clone().try_lock_owned().map_err(|_| ImportError::Busy)?;
        let place = self.place.clone();
        let beginning = self.place.tasks.blocking(move || {
            if place.dir.join(READY).exists() {
                return Err(ImportError::Busy);
            }
            if !is_empty(&place.segments).map_err(io("reading the journal"))? {
                return Err(ImportError::NotEmpty);
            }
            let mut options = platform::private_file();
            options.read(true).write(true).create(true).truncate(true);
            let file = options.open(place.dir.join(PART)).map_err(io("creating a file for the import"))?;
            Ok(Import { place, me, file: Arc::new(file), _turn: turn })
        });
        beginning.await.map_err(|_| ImportError::Stopping)?
    }
}

impl Import {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<(), ImportError> {
        let file = self.file.clone();
        let writing = self.place.tasks.blocking(move || (&*file).write_all(bytes.as_ref()));
        writing.await.map_err(|_| ImportError::Stopping)?.map_err(io("writing the import"))
    }

    /// Checks all of it and lays it ready for the next start; gives the number of its records.
    ///
    /// # Errors
    /// As [`ImportError`] says.
    pub async fn finish(self) -> Result<u64, ImportError> {
        let tasks = self.place.tasks.clone();
        tasks.blocking(move || self.stage()).await.map_err(|_| ImportError::Stopping)?
    }

    fn stage(self) -> Result<u64, ImportError> {
        let staged = self.place.dir.join(STAGED);
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(io("removing an older import"))?;
        }
        platform::create_private_dir(&staged).map_err(io("creating a directory for the import"))?;
        let records = unpack(&self.file, self.me, &staged).and_then(|records| {
            platform::sync_dir(&staged).map_err(io("syncing the import"))?;
            fs::rename(&staged, self.place.dir.join(READY)).map_err(io("naming the import"))?;
            platform::sync_dir(&self.place.dir).map_err(io("syncing the data directory"))?;
            Ok(records)
        });
        if records.is_err() {
            drop(fs::remove_dir_all(&staged));
        }
        records
    }
}

/// Reads and hashes.
struct Source<'a> {
    file: &'a File,
    hash: blake3::Hasher,
}

impl Source<'_> {
    fn take(&mut self, len: usize) -> Result<Vec<u8>, ImportError> {
        let mut bytes = vec![0; len];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => {
                self.hash.update(&bytes);
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ImportError::Damaged { why: "it ends too early" })
            }
            Err(source) => Err(ImportError::Io { tried: "reading the import", source }),
        }
    }

    fn number(&mut self) -> Result<u64, ImportError> {
        let bytes = self.take(8)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }
}

fn unpack(file: &File, me: NodeId, into: &Path) -> Result<u64, ImportError> {
    let mut file = file;
    file.rewind().map_err(io("reading the import"))?;
    let length = file.metadata().map_err(io("reading the import"))?.len();
    if length < (PREAMBLE_LEN + 8 + HASH_LEN) as u64 {
        return Err(ImportError::NotAnExport);
    }
    let mut source = Source { file, hash: blake3::Hasher::new() };
    let preamble = source.take(PREAMBLE_LEN)?;
    if preamble[..4] != MAGIC {
        return Err(ImportError::NotAnExport);
    }
    let version = u16::from_le_bytes([preamble[4], preamble[5]]);
    if version != VERSION {
        return Err(ImportError::Version { version });
    }
    let node = preamble.last_chunk().map(|node| NodeId::from_bytes(*node)).unwrap_or(me);
    if node != me {
        return Err(ImportError::Foreign { node, me });
    }
    let (mut records, mut end, mut journal) = (0, None, None);
    let mut read = PREAMBLE_LEN as u64;
    loop {
        // A start of 0 with a length is the first segment; the end has no length.
        let start = source.number()?;
        if start == 0 && read + 8 + HASH_LEN as u64 == length {
            break;
        }
        let len = source.number()?;
        read += FRAME_LEN as u64 + len;
        if len > SEGMENT_LIMIT || read > length {
            return Err(ImportError::Damaged { why: "a length makes no sense" });
        }
        let content = source.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        let header =
            Header::decode(&content).map_err(|_| ImportError::Damaged { why: "a segment's header" })?;
        let scan = format::scan(&content, &header);
        let follows = end.is_none_or(|end| end == start) && journal.is_none_or(|id| id == header.journal);
        if header.start != start || !follows || scan.torn || !scan.lost.is_empty() {
            return Err(ImportError::Damaged { why: "a segment does not read" });
        }
        (end, journal) = (Some(scan.end), Some(header.journal));
        records += scan.entries.len() as u64;
        let path = segment_path(into, start);
        let mut options = platform::private_file();
        let mut file = options.write(true).create_new(true).open(path).map_err(io("writing the import"))?;
        file.write_all(&content).and_then(|()| file.sync_all()).map_err(io("writing the import"))?;
    }
    let expected = source.hash.finalize();
    let hash = source.take(HASH_LEN)?;
    if expected.as_bytes()[..] != hash[..] {
        return Err(ImportError::Damaged { why: "its checksum" });
    }
    Ok(records)
}

/// Whether no segment holds a record.
fn is_empty(segments: &Path) -> io::Result<bool> {
    let paths = match segment_paths(segments) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    for (_, path) in paths {
        let file = fs::read(&path)?;
        let holds = match Header::decode(&file) {
            Ok(header) => !format::scan(&file, &header).entries.is_empty(),
            Err(_) => file.len() > format::HEADER_LEN,
        };
        if holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// At a start: an import that lies ready takes the place of an empty journal.
pub(in crate::store) fn put_in_place(
    dir: &Path,
    findings: &mut Vec<Finding>,
) -> Result<(), JournalOpenError> {
    let (ready, segments) = (dir.join(READY), dir.join("journal"));
    if !ready.exists() {
        return Ok(());
    }
    let failed = |tried, path: &Path| {
        let path: PathBuf = path.into();
        move |source| JournalOpenError::Io { tried, path, source }
    };
    if !is_empty(&segments).map_err(failed("reading", &segments))? {
        findings.push(Finding::ImportLeft { path: ready });
        return Ok(());
    }
    let mut records = 0;
    for (_, path) in segment_paths(&ready).map_err(failed("reading", &ready))? {
        let file = fs::read(&path).map_err(failed("reading", &path))?;
        records +=
            Header::decode(&file).map_or(0, |header| format::scan(&file, &header).entries.len() as u64);
    }
    if segments.exists() {
        fs::remove_dir_all(&segments).map_err(failed("removing the empty journal", &segments))?;
    }
    fs::rename(&ready, &segments).map_err(failed("putting the import in place of", &segments))?;
    platform::sync_dir(dir).map_err(failed("syncing", dir))?;
    findings.push(Finding::Imported { records });
    Ok(())
}
