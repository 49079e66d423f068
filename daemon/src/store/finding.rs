//! What opening the store noticed, and what it did about it.

use std::fmt;
use std::path::PathBuf;

/// Something that opening noticed. Unless [`Finding::is_loss`], nothing that was acknowledged is lost by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A write that was cut short; its sender was never told that it is safe.
    TornJournal {
        path: PathBuf,
        bytes: u64,
    },
    /// A segment whose first bytes were damaged; they could be written again.
    MendedHeader {
        kept: PathBuf,
    },
    /// Bytes behind a segment's end that nobody wrote.
    StrayBytes {
        bytes: u64,
        kept: PathBuf,
    },
    /// Records that do not read any more; `kinds` are known where single records are gone.
    LostRecords {
        bytes: u64,
        kinds: Vec<u16>,
        kept: PathBuf,
    },
    /// A segment of which nothing can be read.
    UnreadableSegment {
        bytes: u64,
        kept: PathBuf,
    },
    /// The journal's beginning is not there.
    MissingSegments {
        bytes: u64,
    },
    /// The index knew of more than the journal holds: its end was lost, or an older copy was put back.
    LostEnd {
        bytes: u64,
    },
    /// The index knew of a journal that is not there.
    LostJournal,
    DamagedIndex {
        moved_to: PathBuf,
        why: String,
    },
    /// Not even a fresh index can be had, on a full disk for example: lookups fail until it can.
    NoIndex {
        why: String,
    },
    /// Files of sealings or transfers that cannot be continued.
    BlobLeftovers {
        files: usize,
        bytes: u64,
    },
    /// An imported journal was put in place.
    Imported {
        records: u64,
    },
    /// An imported journal waits, but this one has records by now.
    ImportLeft {
        path: PathBuf,
    },
}

impl Finding {
    /// Whether something that was acknowledged is gone.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::LostRecords { .. }
                | Self::UnreadableSegment { .. }
                | Self::MissingSegments { .. }
                | Self::LostEnd { .. }
                | Self::LostJournal
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornJournal { path, bytes } => {
                write!(f, "cut {bytes} bytes of an unfinished write from the end of {}", path.display())
            }
            Self::MendedHeader { kept } => {
                write!(
                    f,
                    "mended the damaged first bytes of a journal segment, kept as {}; no record is lost",
                    kept.display()
                )
            }
            Self::StrayBytes { bytes, kept } => {
                write!(
                    f,
                    "left out {bytes} stray bytes behind a journal segment, kept as {}; no record is lost",
                    kept.display()
                )
            }
            Self::LostRecords { bytes, kinds, kept } => {
                write!(f, "{bytes} bytes of the journal do not read any more")?;
                for kind in kinds {
                    write!(f, ", a record of kind {kind:#06x}")?;
                }
                write!(f, "; the damaged file is kept as {}, everything else goes on", kept.display())
            }
            Self::UnreadableSegment { bytes, kept } => {
                write!(f, "nothing reads of a journal segment of {bytes} bytes, kept as {}", kept.display())
            }
            Self::MissingSegments { bytes } => {
                write!(f, "the first {bytes} bytes of the journal are missing, everything else goes on")
            }
            Self::LostEnd { bytes } => write!(
                f,
                "the journal ends {bytes} bytes before what was acknowledged: its end was lost, or an older copy was put back"
            ),
            Self::LostJournal => {
                write!(f, "the journal is gone, though the index knew of one; a new one was begun")
            }
            Self::DamagedIndex { moved_to, why } => {
                write!(f, "the index was damaged ({why}): moved to {}, rebuilding it", moved_to.display())
            }
            Self::NoIndex { why } => {
                write!(f, "no index can be made now ({why}); it is made when there is room")
            }
            Self::BlobLeftovers { files, bytes } => {
                write!(f, "removed {files} files ({bytes} bytes) of blobs that were never finished")
            }
            Self::ImportLeft { path } => {
                write!(
                    f,
                    "the journal is not empty any more, so the import in {} is left alone",
                    path.display()
                )
            }
            Self::Imported { records } => write!(f, "put an imported journal of {records} records in place"),
        }
    }
}
