//! PURE: which of two links to the same peer stays.
//!
//! Both ends must answer alike without asking each other. Two links that came up together are a simultaneous dial: the one
//! dialled by the smaller NodeId stays. A link that comes long after the other means that the peer has lost the old one
//! (it dials only without a link): the new one stays.

use std::time::Duration;

use scenemesh_protocol::ids::NodeId;
use tokio::time::Instant;

/// A dial takes no longer than this, so later links are no part of the same race.
pub(super) const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// Who opened a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    ByUs,
    ByPeer,
}

/// Which link stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Close the new one.
    Old,
    /// Close the old one; the two dialled at once, the peer is the same process.
    New,
    /// Close the old one and start over with Hello: the peer may have restarted.
    Fresh,
}

/// One of two links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) opened: Opened,
    pub(super) since: Instant,
}

/// Decides between a link and a newer one.
pub(super) fn choose(me: NodeId, peer: NodeId, old: Side, new: Side) -> Keep {
    if old.opened == new.opened || new.since.saturating_duration_since(old.since) > SIMULTANEOUS {
        return Keep::Fresh;
    }
    let preferred = if me < peer { Opened::ByUs } else { Opened::ByPeer };
    if new.opened == preferred { Keep::New } else { Keep::Old }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId::from_bytes([1; 32]);
    const LARGE: NodeId = NodeId::from_bytes([2; 32]);

    fn flipped(side: Side) -> Side {
        let opened = match side.opened {
            Opened::ByUs => Opened::ByPeer,
            Opened::ByPeer => Opened::ByUs,
        };
        Side { opened, ..side }
    }

    #[test]
    fn both_ends_of_a_simultaneous_dial_keep_the_smaller_nodes_link() {
        let now = Instant::now();
        let dialled_by_small = Side { opened: Opened::ByUs, since: now };
        let dialled_by_large = Side { opened: Opened::ByPeer, since: now + Duration::from_millis(20) };
        // Seen from the small end, then from the large end, which may see them in the other order.
        assert_eq!(choose(SMALL, LARGE, dialled_by_small, dialled_by_large), Keep::Old);
        assert_eq!(choose(LARGE, SMALL, flipped(dialled_by_small), flipped(dialled_by_large)), Keep::Old);
        let early = Side { since: now, ..flipped(dialled_by_large) };
        let late = Side { since: now + Duration::from_millis(5), ..flipped(dialled_by_small) };
        assert_eq!(choose(LARGE, SMALL, early, late), Keep::New);
    }

    #[test]
    fn a_late_link_replaces_one_that_the_peer_has_lost() {
        let now = Instant::now();
        let old = Side { opened: Opened::ByUs, since: now };
        let new = Side { opened: Opened::ByPeer, since: now + SIMULTANEOUS + Duration::from_secs(1) };
        assert_eq!(choose(SMALL, LARGE, old, new), Keep::Fresh);
    }

    #[test]
    fn a_second_dial_of_the_same_side_replaces_the_first() {
        let now = Instant::now();
        let old = Side { opened: Opened::ByPeer, since: now };
        let new = Side { opened: Opened::ByPeer, since: now + Duration::from_millis(1) };
        assert_eq!(choose(SMALL, LARGE, old, new), Keep::Fresh);
    }
}
