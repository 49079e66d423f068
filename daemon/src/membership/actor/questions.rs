//! PURE: who is being asked what is missing here, and whose turn it is next. One question per machine at a time.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::ids::NodeId;

#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Machines being asked; true: ask once more afterwards.
    open: BTreeMap<NodeId, bool>,
    /// The machine that was asked last by the clock.
    turn: Option<NodeId>,
}

impl Questions {
    /// Whether to ask now. A machine that is being asked is asked once more afterwards.
    pub(super) fn may_ask(&mut self, peer: &NodeId) -> bool {
        self.open.get_mut(peer).map(|again| *again = true).is_none()
    }

    /// The question is out.
    pub(super) fn asked(&mut self, peer: NodeId) {
        self.open.insert(peer, false);
    }

    /// The answer is here, or there is none; true: ask once more.
    pub(super) fn answered(&mut self, peer: &NodeId) -> bool {
        self.open.remove(peer).unwrap_or_default()
    }

    /// Whom to ask by the clock: all that are up, in turn.
    pub(super) fn next(&mut self, up: &BTreeSet<NodeId>) -> Option<NodeId> {
        let after = self.turn.and_then(|last| up.range(last..).find(|id| **id != last));
        self.turn = after.or_else(|| up.first()).copied();
        self.turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn a_machine_is_asked_once_at_a_time_and_once_more_afterwards() {
        let mut questions = Questions::default();
        assert!(questions.may_ask(&node(1)));
        questions.asked(node(1));
        assert!(!questions.may_ask(&node(1)) && questions.may_ask(&node(2)));
        assert!(questions.answered(&node(1)));
        assert!(questions.may_ask(&node(1)) && !questions.answered(&node(1)));
    }

    #[test]
    fn all_that_are_up_get_their_turn_whoever_comes_and_goes() {
        let mut questions = Questions::default();
        let up = |nodes: &[u8]| nodes.iter().copied().map(node).collect::<BTreeSet<_>>();
        let mut turn = |nodes: &[u8]| questions.next(&up(nodes));
        let turns = [turn(&[1, 2]), turn(&[1, 2, 3]), turn(&[1, 3]), turn(&[1, 3]), turn(&[]), turn(&[3])];
        assert_eq!(turns, [Some(node(1)), Some(node(2)), Some(node(3)), Some(node(1)), None, Some(node(3))]);
    }
}
