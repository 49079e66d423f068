//! `addresses.json`: where members were last reached, so that a restart does not begin blind.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use libp2p::Multiaddr;
use scenemesh_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

const FILE: &str = "addresses.json";
/// Larger files are not ours.
const LARGEST: u64 = 4 << 20;

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

/// Replaces the file as a whole. No fsync: after a power cut the addresses are learnt again.
pub(super) fn save(dir: &Path, good: &Good) -> std::io::Result<()> {
    let entry =
        |(address, good_ms): &(Multiaddr, u64)| Entry { address: address.to_string(), good_ms: *good_ms };
    let nodes = good.iter().map(|(node, good)| (*node, good.iter().map(entry).collect())).collect();
    let text = serde_json::to_vec_pretty(&Document { version: 1, nodes })?;
    let path: PathBuf = dir.join(FILE);
    let draft = dir.join(format!("{FILE}.new"));
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(&text)?;
    drop(file);
    std::fs::rename(&draft, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
