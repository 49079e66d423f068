//! The secrets of a studio's keys, one file each: `DIR/keys/studio-VERSION.key`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use scenemesh_protocol::studio::StudioSecret;

use super::{KeysError, keys_dir, read_secret, secret_text, write};
use crate::platform;

/// Files looked at; a studio has one for each revocation of its life and one more.
const FILES: usize = 256;

/// The files that hold a studio's secrets.
#[derive(Clone, Debug)]
pub(in crate::membership) struct StudioFiles {
    dir: PathBuf,
}

impl StudioFiles {
    pub(in crate::membership) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self, version: u32) -> PathBuf {
        self.dir.join(format!("keys/studio-{version}.key"))
    }

    /// What is there.
    pub(in crate::membership) fn read(&self) -> Result<BTreeMap<u32, StudioSecret>, KeysError> {
        let mut secrets = BTreeMap::new();
        for version in self.versions()? {
            if let Some(secret) = read_secret(&self.path(version), "studio")? {
                secrets.insert(version, StudioSecret::from_bytes(*secret));
            }
        }
        Ok(secrets)
    }

    /// Writes one to the side, synced and renamed.
    pub(in crate::membership) fn write(&self, version: u32, secret: &StudioSecret) -> Result<(), KeysError> {
        keys_dir(&self.dir)?;
        write(&self.path(version), &secret_text("studio", secret.as_bytes()))
    }

    /// Removes all of them.
    pub(in crate::membership) fn forget(&self) -> Result<(), KeysError> {
        for version in self.versions()? {
            let path = self.path(version);
            let failed = |source| KeysError::Io { path: path.clone(), tried: "remove it", source };
            std::fs::remove_file(&path).map_err(failed)?;
        }
        let dir = self.dir.join("keys");
        let failed = |source| KeysError::Io { path: dir.clone(), tried: "make it durable", source };
        platform::sync_dir(&dir).map_err(failed)
    }

    fn versions(&self) -> Result<Vec<u32>, KeysError> {
        let dir = self.dir.join("keys");
        let failed = |source| KeysError::Io { path: dir.clone(), tried: "list it", source };
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(failed)?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix("studio-")?.strip_suffix(".key"));
            versions.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
        }
        versions.sort_unstable();
        versions.truncate(FILES);
        Ok(versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn secrets_are_private_come_back_and_are_forgotten() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = StudioFiles::of(dir.path());
        assert!(files.read().unwrap().is_empty());
        let (first, second) = (StudioSecret::generate(), StudioSecret::generate());
        files.write(1, &first).unwrap();
        files.write(2, &second).unwrap();
        let mode = std::fs::metadata(files.path(1)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(files.read().unwrap(), BTreeMap::from([(1, first), (2, second)]));
        std::fs::set_permissions(files.path(2), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(files.read(), Err(KeysError::TooOpen { .. })));
        files.forget().unwrap();
        assert!(files.read().unwrap().is_empty());
    }
}
