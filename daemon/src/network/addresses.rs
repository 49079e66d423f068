//! `addresses.json`: where members were last reached, so that a restart does not begin blind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::Multiaddr;
use scenemesh_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::platform;

const FILE: &str = "addresses.json";
/// Larger files are not ours.
const LARGEST: u64 = 4 << 20;
/// News of nodes that are in the file already is written at most this often.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    nodes: BTreeMap<NodeId, Vec<Entry>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    address: String,
    /// When a peer last came up through it, in milliseconds since the Unix epoch.
    good_ms: u64,
}

/// Good addresses by node, newest first.
pub(super) type Good = BTreeMap<NodeId, Vec<(Multiaddr, u64)>>;

/// Reads what an earlier run left. It is only a convenience: a damaged file counts as empty.
pub(super) fn load(dir: &Path) -> Good {
    let path = dir.join(FILE);
    let document = match read(&path) {
        Ok(Some(document)) => document,
        Ok(None) => return Good::new(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "known addresses cannot be read and are left out");
            return Good::new();
        }
    };
    let parse = |entry: Entry| Some((entry.address.parse().ok()?, entry.good_ms));
    document
        .nodes
        .into_iter()
        .map(|(node, entries)| (node, entries.into_iter().filter_map(parse).collect()))
        .collect()
}

fn read(path: &Path) -> std::io::Result<Option<Document>> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > LARGEST {
        return Err(std::io::Error::other(format!("{size} bytes are too many")));
    }
    serde_json::from_slice(&std::fs::read(path)?).map(Some).map_err(std::io::Error::other)
}

/// Replaces the file as a whole. Two nodes that lose power together find each other by it alone.
fn save(dir: &Path, good: &Good) -> std::io::Result<()> {
    let entry =
        |(address, good_ms): &(Multiaddr, u64)| Entry { address: address.to_string(), good_ms: *good_ms };
    let nodes = good.iter().map(|(node, good)| (*node, good.iter().map(entry).collect())).collect();
    let text = serde_json::to_vec_pretty(&Document { version: 1, nodes })?;
    platform::replace_file(&dir.join(FILE), &text)?;
    platform::sync_dir(dir)
}

/// When what was learnt is written: at once for a node that the file does not have, else now and then.
#[derive(Debug, Default)]
pub(super) struct Writing {
    written: BTreeSet<NodeId>,
    due: Option<Instant>,
    turns: u64,
    /// Newest turn that was written.
    newest: Arc<Mutex<u64>>,
}

/// One write of the file: one after the other, and never an older after a newer.
#[derive(Debug)]
pub(super) struct Turn {
    number: u64,
    newest: Arc<Mutex<u64>>,
}

impl Turn {
    pub(super) fn save(&self, dir: &Path, good: &Good) -> std::io::Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest < self.number {
            save(dir, good)?;
            *newest = self.number;
        }
        Ok(())
    }
}

impl Writing {
    /// The file has these.
    pub(super) fn new(written: impl IntoIterator<Item = NodeId>) -> Self {
        Self { written: written.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn learnt(&mut self, now: Instant, node: NodeId) {
        if self.written.insert(node) {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + PAUSE);
        }
    }

    pub(super) fn turn(&mut self) -> Turn {
        self.turns += 1;
        Turn { number: self.turns, newest: self.newest.clone() }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be written now; said once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_node_is_written_at_once_and_more_of_it_now_and_then() {
        let now = Instant::now();
        let [old, new] = [1, 2].map(|n| NodeId::from_bytes([n; 32]));
        let mut writing = Writing::new([old]);
        writing.learnt(now, old);
        assert!(!writing.is_due(now), "the file has one of it");
        writing.learnt(now, new);
        assert!(writing.is_due(now) && writing.due().is_none(), "a crash now must not lose it");
        writing.learnt(now, new);
        writing.learnt(now + PAUSE / 2, old);
        assert_eq!(writing.due(), Some(now + PAUSE), "not put off again and again");
        assert!(!writing.is_due(now + PAUSE / 2) && writing.is_due(now + PAUSE));
    }

    #[test]
    fn good_addresses_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        let address: Multiaddr = "/ip4/10.0.0.7/tcp/7872".parse().unwrap();
        let good = Good::from([(NodeId::from_bytes([3; 32]), vec![(address, 1_800_000_000_000)])]);
        save(dir.path(), &good).unwrap();
        assert_eq!(load(dir.path()), good);
    }

    #[test]
    fn a_damaged_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{\"version\":1,\"nodes\":{\"x\"").unwrap();
        assert!(load(dir.path()).is_empty());
    }
}
