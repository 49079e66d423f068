//! The node's own log: out as a file, in again, and the index over it made anew.

use serde::{Deserialize, Serialize};

/// An export was taken in; the daemon puts it in place at its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReply {
    pub records: u64,
    pub bytes: u64,
}

/// The index was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildReply {
    /// Records that are indexed.
    pub records: u64,
    pub took_ms: u64,
}
