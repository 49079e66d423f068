//! Which blobs are served to whom, and for which attempts. A blob can be wanted by several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use tokio::time::Instant;

use crate::store::Blobs;

/// Longer than any attempt and any unclaimed result lasts; serving ends when its attempt does.
const SERVED_FOR: Duration = Duration::from_hours(8 * 24);

/// Why a blob is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum For {
    /// An attempt of ours needs them.
    Inputs(TaskId, u32),
    /// They are an attempt's of theirs, and wait.
    Results(TaskId, u32),
    /// A job that its deputy fetches, or a result that both are to have.
    Kept(TaskId, u32),
}

#[derive(Debug)]
pub(super) struct Shelf {
    blobs: Blobs,
    served: BTreeMap<ContentHash, BTreeSet<(For, NodeId)>>,
    roots: BTreeMap<(For, NodeId), Vec<ContentHash>>,
}

impl Shelf {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self { blobs, served: BTreeMap::new(), roots: BTreeMap::new() }
    }

    pub(super) fn serve(&mut self, why: For, node: NodeId, roots: Vec<ContentHash>) {
        let until = Instant::now() + SERVED_FOR;
        for root in &roots {
            self.served.entry(*root).or_default().insert((why, node));
            self.blobs.allow(*root, node, until);
        }
        self.roots.insert((why, node), roots);
    }

    /// Ends it, and gives the blobs that were served for it.
    pub(super) fn end(&mut self, why: For, node: NodeId) -> Vec<ContentHash> {
        let roots = self.roots.remove(&(why, node)).unwrap_or_default();
        let until = Instant::now() + SERVED_FOR;
        for root in &roots {
            let others = self.served.entry(*root).or_default();
            others.remove(&(why, node));
            self.blobs.disallow(*root);
            for (_, other) in others.iter() {
                self.blobs.allow(*root, *other, until);
            }
            if others.is_empty() {
                self.served.remove(root);
            }
        }
        roots
    }
}
