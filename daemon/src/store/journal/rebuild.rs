//! Making the index anew from the segments while the node runs. Blocking; the one writer waits meanwhile.

use std::fs;
use std::io;
use std::path::Path;

use super::format::{self, Header};
use super::writer::segment_paths;
use crate::store::index::{Index, Watermark};
use crate::store::replay::{RebuildError, Rebuilding};

pub(super) fn rebuild(segments: &Path, index: &Index) -> Result<u64, RebuildError> {
    index.renew()?;
    let rebuilt = read_into(segments, index);
    if let Err(error) = &rebuilt {
        index.break_off(&error.to_string());
    }
    rebuilt
}

fn read_into(segments: &Path, index: &Index) -> Result<u64, RebuildError> {
    let failed = |path: &Path, source| RebuildError::Journal { path: path.into(), source };
    let kinds = index.kinds().clone();
    let mut rebuilding = Rebuilding::new(index, &kinds);
    let mut watermark = None;
    for (_, path) in segment_paths(segments).map_err(|source| failed(segments, source))? {
        let file = fs::read(&path).map_err(|source| failed(&path, source))?;
        let header = Header::decode(&file)
            .map_err(|error| failed(&path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        for entry in format::scan(&file, &header).entries {
            watermark = Some(Watermark { journal: header.journal, end: entry.end(), crc: entry.crc });
            rebuilding.take(entry.kind, entry.at, &file[entry.body.clone()])?;
        }
    }
    rebuilding.finish(watermark)
}
