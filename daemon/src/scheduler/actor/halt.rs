//! Where a test wants this process to stand still: it kills there whom it likes, or cuts a link, and lets it go on.
//!
//! Wanted by the environment, and only in a build with the feature `halts`, which the testnet has and a node has not.

use std::time::Duration;

use crate::platform;

/// `requester.granted:before` stands still just before the first such record is written, `…:after` once it is on disk
/// and nothing has been done about it.
const VARIABLE: &str = "SCENEMESH_HALT";

/// Longer than it takes until every thread has stopped.
const STOPPING: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Halt {
    /// Name of the record; none: it goes on as if nothing were.
    record: Option<String>,
    after: bool,
    /// The record waits for its commit.
    due: bool,
}

impl Halt {
    pub(super) fn wanted() -> Self {
        let wanted = if cfg!(feature = "halts") { std::env::var(VARIABLE).ok() } else { None };
        let point = wanted.as_deref().and_then(|wanted| wanted.rsplit_once(':'));
        point.map_or_else(Self::default, |(record, when)| Self {
            record: Some(record.to_owned()),
            after: when == "after",
            due: false,
        })
    }

    /// A record will be in the next commit.
    pub(super) fn sees(&mut self, record: &str) {
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
        tracing::warn!(record, after = self.after, "standing still, as the environment wants it");
        platform::stand_still();
        // The signal stops one thread after the other; this one must not be the last.
        std::thread::sleep(STOPPING);
    }
}
