//! Where a test wants this process to stand still: it kills there whom it likes, or cuts a link, and lets it go on.
//!
//! Wanted by the environment, and only in a build with the feature `halts`, which the testnet has and a node has not.

use std::path::PathBuf;
use std::time::Duration;

use crate::platform;

/// `requester.granted:before` stands still just before the first such record is written, `…:after` once it is on disk
/// and nothing has been done about it. `@FILE`: the same from a file, read anew for every record until it is there; it is
/// removed by whoever stands still.
const VARIABLE: &str = "SCENEMESH_HALT";

/// Longer than it takes until every thread has stopped.
const STOPPING: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Halt {
    /// Where a point may turn up.
    file: Option<PathBuf>,
    /// Name of the record; none: it goes on as if nothing were.
    record: Option<String>,
    after: bool,
    /// The record waits for its commit.
    due: bool,
}

impl Halt {
    pub(super) fn wanted() -> Self {
        let wanted = if cfg!(feature = "halts") { std::env::var(VARIABLE).ok() } else { None };
        let wanted = wanted.unwrap_or_default();
        let mut halt = Self::default();
        match wanted.strip_prefix('@') {
            Some(file) => halt.file = Some(file.into()),
            None => halt.set(&wanted),
        }
        halt
    }

    fn set(&mut self, point: &str) {
        if let Some((record, when)) = point.trim().rsplit_once(':') {
            (self.record, self.after) = (Some(record.to_owned()), when == "after");
        }
    }

    /// A record will be in the next commit.
    pub(super) fn sees(&mut self, record: &str) {
        if let Some(file) = self.file.clone().filter(|_| !self.due) {
            self.record = None;
            self.set(&std::fs::read_to_string(file).unwrap_or_default());
        }
        self.due |= self.record.as_deref() == Some(record);
    }

    pub(super) fn before_commit(&mut self) {
        if self.due && !self.after {
            self.stand_still();
        }
    }

    pub(super) fn after_commit(&mut self) {
        if self.due && self.after {
            self.stand_still();
        }
    }

    fn stand_still(&mut self) {
        let record = self.record.take();
        self.due = false;
        if let Some(file) = &self.file {
            drop(std::fs::remove_file(file));
        }
        tracing::warn!(record, after = self.after, "standing still, as the environment wants it");
        platform::stand_still();
        // The signal stops one thread after the other; this one must not be the last.
        std::thread::sleep(STOPPING);
    }
}
