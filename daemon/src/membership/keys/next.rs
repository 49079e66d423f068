//! Exchanging the node's keys: the new ones lie beside the old until an admin has countersigned, and take their place
//! at the next start.
//!
//! ```text
//! DIR/keys/next/node.key, kem.key     made by the first `rotate`, kept until they are used
//! DIR/keys/next/go                    the point of no return: from here on every start finishes the exchange
//! ```
//! A crash before `go` leaves the old keys, one after it the new ones, whichever files were renamed already.

use std::io;
use std::path::Path;

use scenemesh_protocol::keys::PublicKey;

use super::{KeysError, NodeKeys, keys_dir, load_or_create_in, platform, read_secret, write};

const NEXT: &str = "next";
const GO: &str = "go";

/// The keys that this node asks to go on under; made when there are none.
///
/// # Errors
/// When a file is damaged, open to others, or cannot be read or written.
pub(in crate::membership) fn next_keys(dir: &Path) -> Result<NodeKeys, KeysError> {
    let next = keys_dir(dir)?.join(NEXT);
    platform::create_private_dir(&next).map_err(|source| KeysError::Io {
        path: next.clone(),
        tried: "create the directory",
        source,
    })?;
    load_or_create_in(&next)
}

/// Decides that the next start is made with the next keys. False when they are not `expected`: then nothing changed.
///
/// # Errors
/// As [`next_keys`] says.
pub(in crate::membership) fn commit_next(dir: &Path, expected: &PublicKey) -> Result<bool, KeysError> {
    let next = keys_dir(dir)?.join(NEXT);
    let Some(seed) = read_secret(&next.join("node.key"), "node")? else { return Ok(false) };
    if scenemesh_protocol::keys::SecretKey::from_seed(&seed).public() != *expected {
        return Ok(false);
    }
    write(&next.join(GO), "scenemesh rotation 1\n")?;
    Ok(true)
}

/// Puts committed keys in the place of the old ones.
pub(super) fn finish(keys: &Path) -> Result<(), KeysError> {
    let next = keys.join(NEXT);
    let failed = |path: &Path, tried| {
        let path = path.to_owned();
        move |source| KeysError::Io { path, tried, source }
    };
    let go = next.join(GO);
    if !go.try_exists().map_err(failed(&go, "look for it"))? {
        return Ok(());
    }
    for name in ["kem.key", "node.key"] {
        let (from, to) = (next.join(name), keys.join(name));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed(&from, "put it in the place of the old one"))?,
        }
    }
    platform::sync_dir(keys).map_err(failed(keys, "make it durable"))?;
    std::fs::remove_dir_all(&next).map_err(failed(&next, "remove it"))?;
    platform::sync_dir(keys).map_err(failed(keys, "make it durable"))
}

#[cfg(test)]
mod tests {
    use super::super::load_or_create;
    use super::*;

    #[test]
    fn keys_are_exchanged_at_the_next_start_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let old = load_or_create(dir.path()).unwrap().node.public();
        let next = next_keys(dir.path()).unwrap();
        assert_eq!(next_keys(dir.path()).unwrap().node.public(), next.node.public(), "made once");
        assert_eq!(load_or_create(dir.path()).unwrap().node.public(), old);
        assert!(!commit_next(dir.path(), &old).unwrap(), "other keys than those that were countersigned");
        assert_eq!(load_or_create(dir.path()).unwrap().node.public(), old);
        assert!(commit_next(dir.path(), &next.node.public()).unwrap());
        let read = load_or_create(dir.path()).unwrap();
        assert_eq!((read.node.public(), read.kem.public()), (next.node.public(), next.kem.public()));
        assert!(!dir.path().join("keys/next").exists());
        assert_ne!(next_keys(dir.path()).unwrap().node.public(), next.node.public(), "each only once");
    }

    #[cfg(unix)]
    #[test]
    fn keys_that_wait_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let next = next_keys(dir.path()).unwrap();
        commit_next(dir.path(), &next.node.public()).unwrap();
        let waiting = dir.path().join("keys/next");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&waiting), 0o700);
        for name in ["node.key", "kem.key", "go"] {
            assert_eq!(mode(&waiting.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_crash_at_any_point_leaves_a_pair_of_keys() {
        // After the commit: nothing renamed, the first, both, and the mark still there.
        for renamed in [&[][..], &["kem.key"], &["kem.key", "node.key"]] {
            let dir = tempfile::tempdir().unwrap();
            load_or_create(dir.path()).unwrap();
            let next = next_keys(dir.path()).unwrap();
            assert!(commit_next(dir.path(), &next.node.public()).unwrap());
            let keys = dir.path().join("keys");
            for name in renamed {
                std::fs::rename(keys.join("next").join(name), keys.join(name)).unwrap();
            }
            let read = load_or_create(dir.path()).unwrap();
            assert_eq!((read.node.public(), read.kem.public()), (next.node.public(), next.kem.public()));
        }
    }
}
