//! All that differs between operating systems.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// What became of a file that is another user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// That user alone can read it.
    Over,
    /// It is still ours: only root gives files away.
    Kept,
    NoSuchUser,
}

/// A file that was not there, readable by its owner alone.
pub(crate) fn new_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a user of this machine the owner of a file.
#[cfg(unix)]
pub(crate) fn hand_over(file: &File, user: &str) -> Handed {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Some((uid, gid)) = ids_of(user) else { return Handed::NoSuchUser };
    let mine = file.metadata().is_ok_and(|file| file.uid() == uid);
    if mine || fchown(file, Some(uid), Some(gid)).is_ok() { Handed::Over } else { Handed::Kept }
}

#[cfg(not(unix))]
pub(crate) fn hand_over(_file: &File, _user: &str) -> Handed {
    Handed::Kept
}

/// User and group of a name, as the system's own database has it: directories of a network are asked too.
#[cfg(unix)]
fn ids_of(user: &str) -> Option<(u32, u32)> {
    if user.starts_with('-') {
        return None;
    }
    let asked = std::process::Command::new("getent").args(["passwd", "--", user]).output().ok();
    let told = asked.filter(|told| told.status.success()).map(|told| told.stdout);
    let text = match told {
        Some(told) => String::from_utf8(told).ok()?,
        None => std::fs::read_to_string("/etc/passwd").ok()?,
    };
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(user);
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        named.then_some((uid, gid))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_its_owners_alone_and_never_overwritten() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = new_private_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(new_private_file(&path).is_err());
        assert_eq!(ids_of("root"), Some((0, 0)));
        assert_eq!(hand_over(&file, "no such user here"), Handed::NoSuchUser);
        assert_eq!(hand_over(&file, "--help"), Handed::NoSuchUser);
    }
}
