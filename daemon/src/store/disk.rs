//! Every change that the store makes to a disk, in one place: tests record them, play through what a power cut may
//! leave of them, and let any one fail.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::platform;

/// What is to become of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Refuse,
    Empty,
    Keep,
}

/// Files are for this user only. A file's bytes are durable after a sync of it, its name after a sync of its directory.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file for reading and writing, and creates it where it is missing.
    fn create(&self, path: &Path, existing: Existing) -> io::Result<File>;
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, file: &File, len: u64) -> io::Result<()>;
    /// Content and length; what else is known of the file may wait.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    fn sync_all(&self, file: &File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Writes a file so that after a crash it holds either the old or the new content; its name is durable after
    /// [`Disk::sync_dir`]. When any step fails the old content is still there.
    fn replace_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let replaced = self.create(&fresh, Existing::Empty).and_then(|file| {
            self.write_all_at(&file, content, 0)?;
            self.sync_all(&file)?;
            drop(file);
            self.rename(&fresh, path)
        });
        if replaced.is_err() {
            // The leftover is overwritten by the next try; the first error is the one to report.
            drop(self.remove(&fresh));
        }
        replaced
    }
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path, existing: Existing) -> io::Result<File> {
        let mut options = platform::private_file();
        options.read(true).write(true);
        match existing {
            Existing::Refuse => options.create_new(true),
            Existing::Empty => options.create(true).truncate(true),
            Existing::Keep => options.create(true).truncate(false),
        };
        options.open(path)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        platform::write_all_at(file, bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        platform::sync_dir(dir)
    }
}

/// Whether a write failed because there is no room for it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(all(test, unix))]
pub(super) mod tape;
