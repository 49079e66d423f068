//! All that differs between Unix and the rest: permissions, positioned I/O, directory syncs, free disk space, core
//! dumps.
//!
//! Elsewhere than on Unix the fallbacks are plain: untried, correct as far as std goes, with what they cannot do said.

mod zone;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Creates a directory and its missing parents for this user only (0700).
///
/// An existing directory keeps its content and, on Unix, is narrowed to 0700.
///
/// # Errors
/// When it cannot be created or is somebody else's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    imp::create_dir(path)?;
    imp::narrow_dir(path)
}

/// Whether nobody but this user may open the file. Not asked elsewhere than on Unix, where folders are per user.
///
/// # Errors
/// When the system refuses to say.
pub fn is_private(file: &File) -> io::Result<bool> {
    imp::is_private(file)
}

/// Options that create files for this user only (0600); the caller adds access.
pub fn private_file() -> OpenOptions {
    imp::private_file()
}

/// Writes a small file so that after a crash it holds either the old or the new content: a sibling is written, synced
/// and renamed over it. The directory entry itself is durable after [`sync_dir`].
///
/// # Errors
/// When any step fails; the old content is then still there.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = private_file().write(true).create(true).truncate(true).open(&fresh)?;
    let written = io::Write::write_all(&mut file, content).and_then(|()| file.sync_all());
    drop(file);
    let renamed = written.and_then(|()| fs::rename(&fresh, path));
    if renamed.is_err() {
        // The leftover is overwritten by the next try; the first error is the one to report.
        drop(fs::remove_file(&fresh));
    }
    renamed
}

/// Makes created, renamed and removed entries of a directory durable. Nothing elsewhere than on Unix.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    imp::sync_dir(path)
}

/// Fills `buffer` from `offset`; several readers may share one file.
///
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    imp::read_exact_at(file, buffer, offset)
}

/// Writes all of `bytes` at `offset`; several writers may share one file.
///
/// # Errors
/// `StorageFull` when the disk is, or whatever the system says.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    imp::write_all_at(file, bytes, offset)
}

/// Bytes this user may still write on the disk of `path`; `None` where the system is not asked.
///
/// # Errors
/// When the system refuses to say.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    imp::free_bytes(path)
}

/// Seconds that clocks on the wall here are ahead of UTC at a moment, given in milliseconds since the epoch: as the system's
/// zone has it, or `TZ`. Zero (UTC) where neither tells, Windows among them unless `TZ` is set there.
pub fn utc_offset_s(wall_ms: u64) -> i32 {
    let unix_s = i64::try_from(wall_ms / 1000).unwrap_or(0);
    zone::offset_s(unix_s, std::env::var("TZ").ok().as_deref())
}

/// Files and directories that this process makes from here on are for its user only, whoever makes them: libraries
/// know nothing of [`private_file`].
pub fn make_private_files_only() {
    imp::make_private_files_only();
}

/// Keeps this process's memory out of core dumps and, on Linux, out of the hands of this user's other processes:
/// `/proc/PID/mem` and debuggers need root from here on.
///
/// # Errors
/// When the system refuses; nothing else is different then.
pub fn keep_memory_private() -> io::Result<()> {
    imp::keep_memory_private()
}

/// Stops this process as `kill -STOP` does, until somebody continues it. Does nothing where there is no such signal.
pub fn stand_still() {
    imp::stand_still();
}

/// Resolves when the operator or the service manager asks the process to stop.
pub async fn stop_signal() {
    imp::stop_signal().await;
}

#[cfg(unix)]
mod imp {
    use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    pub(super) fn stand_still() {
        use rustix::process::{Signal, getpid, kill_process};
        if let Err(error) = kill_process(getpid(), Signal::STOP) {
            tracing::error!(%error, "this process cannot stop itself");
        }
    }

    pub(super) fn create_dir(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub(super) fn narrow_dir(path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(0o700))
    }

    pub(super) fn is_private(file: &File) -> io::Result<bool> {
        Ok(file.metadata()?.permissions().mode() & 0o077 == 0)
    }

    pub(super) fn private_file() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.mode(0o600);
        options
    }

    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    pub(super) fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    pub(super) fn make_private_files_only() {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }

    pub(super) fn keep_memory_private() -> io::Result<()> {
        use rustix::process::{Resource, Rlimit, setrlimit};
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        #[cfg(target_os = "linux")]
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
        Ok(())
    }

    pub(super) async fn stop_signal() {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
            // Without a handler SIGTERM ends the process at once, which loses nothing.
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
    }
}

#[cfg(windows)]
mod imp {
    use std::fs::{self, File, OpenOptions};
    use std::io;
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    pub(super) fn stand_still() {}

    pub(super) fn create_dir(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    pub(super) fn narrow_dir(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_private(_file: &File) -> io::Result<bool> {
        Ok(true)
    }

    pub(super) fn private_file() -> OpenOptions {
        OpenOptions::new()
    }

    pub(super) fn sync_dir(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = file.seek_read(buffer, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }

    pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = file.seek_write(bytes, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    pub(super) fn free_bytes(_path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    pub(super) fn make_private_files_only() {}

    pub(super) fn keep_memory_private() -> io::Result<()> {
        Ok(())
    }

    pub(super) async fn stop_signal() {
        drop(tokio::signal::ctrl_c().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn dirs_and_files_are_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data/journal");
        create_private_dir(&dir).unwrap();
        let file = dir.join("file");
        replace_file(&file, b"old").unwrap();
        replace_file(&file, b"new").unwrap();
        sync_dir(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(dir.parent().unwrap()), mode(&file)), (0o700, 0o700, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(free_bytes(&dir).unwrap().is_some_and(|free| free > 0));
    }

    #[test]
    fn positioned_io_neither_needs_nor_moves_a_cursor() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let file = private_file().read(true).write(true).create_new(true).open(path).unwrap();
        write_all_at(&file, b"world", 5).unwrap();
        write_all_at(&file, b"hello", 0).unwrap();
        let mut buffer = [0; 4];
        read_exact_at(&file, &mut buffer, 3).unwrap();
        assert_eq!(&buffer, b"lowo");
        let beyond = read_exact_at(&file, &mut buffer, 8).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }
}
