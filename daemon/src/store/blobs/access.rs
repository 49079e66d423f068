//! PURE. Which node may fetch which blob, and until when.

use std::collections::HashMap;

use scenemesh_protocol::ids::{ContentHash, NodeId};
use tokio::time::Instant;

/// Expired grants are dropped whenever this many have been added since the last time.
const TIDY_EVERY: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Access {
    grants: HashMap<ContentHash, HashMap<NodeId, Instant>>,
    since_tidy: usize,
}

impl Access {
    pub(super) fn allow(&mut self, root: ContentHash, node: NodeId, until: Instant) {
        self.grants.entry(root).or_default().insert(node, until);
        self.since_tidy += 1;
    }

    pub(super) fn is_allowed(&mut self, root: ContentHash, node: NodeId, now: Instant) -> bool {
        if self.since_tidy >= TIDY_EVERY {
            self.tidy(now);
        }
        self.grants.get(&root).and_then(|nodes| nodes.get(&node)).is_some_and(|until| now < *until)
    }

    pub(super) fn disallow(&mut self, root: ContentHash) {
        self.grants.remove(&root);
    }

    fn tidy(&mut self, now: Instant) {
        self.since_tidy = 0;
        for nodes in self.grants.values_mut() {
            nodes.retain(|_, until| now < *until);
        }
        self.grants.retain(|_, nodes| !nodes.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_grant_is_for_one_node_and_ends() {
        let mut access = Access::default();
        let (root, now) = (ContentHash::of(b"blob"), Instant::now());
        let [guest, stranger] = [1, 2].map(|id| NodeId::from_bytes([id; 32]));
        let until = now + Duration::from_secs(5);
        access.allow(root, guest, until);
        assert!(access.is_allowed(root, guest, now));
        assert!(!access.is_allowed(root, stranger, now));
        assert!(!access.is_allowed(ContentHash::of(b"other"), guest, now));
        assert!(!access.is_allowed(root, guest, until));
        access.disallow(root);
        assert!(!access.is_allowed(root, guest, now));
    }

    #[test]
    fn ended_grants_are_forgotten() {
        let mut access = Access::default();
        let (now, node) = (Instant::now(), NodeId::from_bytes([1; 32]));
        for i in 0..TIDY_EVERY {
            access.allow(ContentHash::of(&i.to_le_bytes()), node, now);
        }
        assert!(!access.is_allowed(ContentHash::of(b"x"), node, now));
        assert!(access.grants.is_empty());
    }
}
