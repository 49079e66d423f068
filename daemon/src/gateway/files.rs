//! Private files of the gateway: one for each prompt, one for each upload. Written whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use super::desk::Key;
use super::record::Record;
use crate::platform;

/// The gateway's part of the data directory.
#[derive(Clone, Debug)]
pub(super) struct Files {
    prompts: PathBuf,
    uploads: PathBuf,
}

impl Files {
    /// Makes the directories.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("gateway");
        let files = Self { prompts: dir.join("prompts"), uploads: dir.join("uploads") };
        for dir in [&dir, &files.prompts, &files.uploads] {
            platform::create_private_dir(dir)?;
        }
        Ok(files)
    }

    fn prompt(&self, key: &Key) -> PathBuf {
        self.prompts.join(named(&[&key.scope, &key.id]))
    }

    /// Durable when it returns; says how many bytes it has. Blocks.
    pub(super) fn write(&self, record: &Record) -> io::Result<u64> {
        let path = self.prompts.join(named(&[&record.scope, &record.id]));
        let bytes = record.to_bytes();
        platform::replace_file(&path, &bytes)?;
        platform::sync_dir(&self.prompts)?;
        Ok(bytes.len() as u64)
    }

    /// Writes what has come of a prompt into its file. Whole or not at all: after a power cut it may be the file as it was before,
    /// and what has come is asked of the scheduler again. Blocks.
    pub(super) fn update(&self, record: &Record) -> io::Result<()> {
        platform::replace_file(&self.prompts.join(named(&[&record.scope, &record.id])), &record.to_bytes())
    }

    /// Blocks. None when there is none, or none that can be read.
    pub(super) fn read(&self, key: &Key) -> Option<Record> {
        let record = Record::read(&std::fs::read(self.prompt(key)).ok()?).ok()?;
        (*record.scope == *key.scope && *record.id == *key.id).then_some(record)
    }

    /// Blocks. A file that stays is read again after the next start, and forgotten again.
    pub(super) fn remove(&self, key: &Key) {
        drop(std::fs::remove_file(self.prompt(key)));
    }

    /// Every prompt that can be read, and how many bytes it has; blocks.
    pub(super) fn prompts(&self) -> impl Iterator<Item = (Record, u64)> {
        contents(&self.prompts, "prompt").filter_map(|(path, bytes)| match Record::read(&bytes) {
            Ok(record) => Some((record, bytes.len() as u64)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a prompt of the gateway cannot be read and is left out");
                None
            }
        })
    }

    /// Where an upload's record is.
    pub(super) fn upload(&self, parts: &[&str]) -> PathBuf {
        self.uploads.join(named(parts))
    }

    /// Every upload's record; blocks.
    pub(super) fn uploads(&self) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
        contents(&self.uploads, "upload")
    }
}

/// Names are anybody's: they become hashes.
fn named(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    format!("{}.json", &hasher.finalize().to_hex()[..40])
}

fn contents(dir: &Path, what: &'static str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> + use<> {
    let entries = std::fs::read_dir(dir).map_err(|error| {
        tracing::warn!(dir = %dir.display(), %error, what, "records of the gateway cannot be listed");
    });
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    records.filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::gateway::record::Asked;

    fn record(scope: &str, id: &str) -> Record {
        let asked = Asked {
            number: 0.into(),
            client: None,
            prompt: Map::new(),
            extra_data: Map::new(),
            outputs_to_execute: Vec::new(),
        };
        Record::new(scope, id, "j".into(), 1, asked)
    }

    fn key(scope: &str, id: &str) -> Key {
        Key { scope: scope.into(), id: id.into() }
    }

    #[test]
    fn prompts_of_two_scopes_do_not_meet_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        files.write(&record("a", "same")).unwrap();
        files.write(&record("b", "same")).unwrap();
        std::fs::write(dir.path().join("gateway/prompts/torn.json"), b"{\"version\":").unwrap();
        let files = Files::open(dir.path()).unwrap();
        let mut scopes: Vec<String> = files.prompts().map(|(record, _)| record.scope).collect();
        scopes.sort();
        assert_eq!(scopes, ["a", "b"]);
        files.remove(&key("a", "same"));
        assert!(files.read(&key("a", "same")).is_none());
        assert_eq!(files.read(&key("b", "same")), Some(record("b", "same")));
        assert_ne!(named(&["ab", "c"]), named(&["a", "bc"]));
    }
}
