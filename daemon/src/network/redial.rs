//! PURE: whom to dial when, and where.
//!
//! libp2p never dials again by itself. Every member without a link has a next attempt: soon after a link was lost, later
//! and later while nobody answers. The smaller NodeId dials first, the larger gives it a head start, so that two nodes
//! that see each other at once open one link, not two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::Multiaddr;
use scenemesh_protocol::ids::NodeId;
use tokio::time::Instant;

/// Head start of the smaller NodeId.
const HEAD_START: Duration = Duration::from_secs(3);
/// First pause after a failed attempt; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A lost link is dialled again after this at the earliest.
const AFTER_LOSS: Duration = Duration::from_millis(250);
/// A peer that said goodbye is looked for now and then only: it may be unable to dial us.
const AFTER_GOODBYE: Duration = Duration::from_secs(5 * 60);
/// Addresses remembered per node, and tried in one attempt.
const REMEMBERED: usize = 16;
const TRIED: usize = 8;

/// Where an address comes from; the first are the most trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The configuration.
    Fixed,
    /// It worked before.
    LastGood,
    /// The local network.
    Neighbour,
    /// Somebody told us: an invite, a person.
    Hint,
    /// The node's own advert.
    Advert,
    /// The node's own list of listeners.
    Identify,
}

/// An address and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    address: Multiaddr,
    source: Source,
    /// Wall time when a peer came up through it.
    good_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No link; dial at this time.
    Waiting(Instant),
    Dialing,
    Linked,
}

#[derive(Debug)]
struct Route {
    known: Vec<Known>,
    state: State,
    /// Attempts in a row that did not bring the peer up.
    failures: u32,
    left: bool,
}

/// One attempt: all these addresses at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) node: NodeId,
    pub(super) addresses: Vec<Multiaddr>,
}

/// The supervisor of all links that are missing.
#[derive(Debug)]
pub(super) struct Redial {
    me: NodeId,
    /// Members, and others that somebody gave addresses for.
    known: BTreeMap<NodeId, Vec<Known>>,
    routes: BTreeMap<NodeId, Route>,
    jitter: Jitter,
}

impl Redial {
    /// `seed` spreads the attempts of nodes that lost each other at the same moment.
    pub(super) fn new(me: NodeId, seed: u64) -> Self {
        Self { me, known: BTreeMap::new(), routes: BTreeMap::new(), jitter: Jitter(seed | 1) }
    }

    /// Supervises exactly these nodes from now on.
    pub(super) fn set_members(&mut self, now: Instant, members: &BTreeSet<NodeId>) {
        let gone: Vec<_> = self.routes.keys().filter(|node| !members.contains(node)).copied().collect();
        for node in gone {
            if let Some(route) = self.routes.remove(&node) {
                self.known.insert(node, route.known);
            }
        }
        for node in members {
            if *node != self.me && !self.routes.contains_key(node) {
                let known = self.known.remove(node).unwrap_or_default();
                let state = State::Waiting(now + self.head_start(node));
                self.routes.insert(*node, Route { known, state, failures: 0, left: false });
            }
        }
    }

    /// Forgets every link and attempt: the swarm is gone, or new.
    pub(super) fn reset(&mut self, now: Instant) {
        let members: BTreeSet<_> = self.routes.keys().copied().collect();
        self.set_members(now, &BTreeSet::new());
        self.set_members(now, &members);
    }

    /// Notes an address, and tries soon when it is news about a missing member.
    pub(super) fn learn(&mut self, now: Instant, node: NodeId, address: Multiaddr, source: Source) {
        if node == self.me {
            return;
        }
        // A hint comes with an invite: the other side knows no address of ours yet and cannot dial first.
        let head_start = if source == Source::Hint { Duration::ZERO } else { self.head_start(&node) };
        let soon = now + head_start.max(AFTER_LOSS);
        let Some(route) = self.routes.get_mut(&node) else {
            remember(self.known.entry(node).or_default(), address, source, None);
            return;
        };
        if remember(&mut route.known, address, source, None)
            && let State::Waiting(until) = &mut route.state
            && !route.left
        {
            *until = soon.min(*until);
        }
    }

    /// Notes an address that worked in an earlier life.
    pub(super) fn restore(&mut self, node: NodeId, address: Multiaddr, good_ms: u64) {
        let known = match self.routes.get_mut(&node) {
            Some(route) => &mut route.known,
            None => self.known.entry(node).or_default(),
        };
        remember(known, address, Source::LastGood, Some(good_ms));
    }

    /// A link is there, whoever dialled it.
    pub(super) fn linked(&mut self, node: NodeId) {
        if let Some(route) = self.routes.get_mut(&node) {
            route.state = State::Linked;
            route.left = false;
        }
    }

    /// Hello was answered; `dialled` is the address we reached it at, if we dialled.
    pub(super) fn up(&mut self, node: NodeId, dialled: Option<Multiaddr>, wall_ms: u64) {
        if let Some(route) = self.routes.get_mut(&node) {
            route.failures = 0;
            if let Some(address) = dialled {
                remember(&mut route.known, address, Source::LastGood, Some(wall_ms));
            }
        }
    }

    /// The last link is gone; `was_up` when Hello had been answered on it.
    pub(super) fn unlinked(&mut self, now: Instant, node: NodeId, was_up: bool) {
        let head_start = self.head_start(&node);
        let Some(route) = self.routes.get_mut(&node) else { return };
        let pause = if route.left {
            AFTER_GOODBYE
        } else if was_up {
            self.jitter.spread(AFTER_LOSS * 2) + head_start
        } else {
            route.failures += 1;
            self.jitter.spread(pause(route.failures))
        };
        route.state = State::Waiting(now + pause);
    }

    /// An attempt came to nothing.
    pub(super) fn dial_failed(&mut self, now: Instant, node: NodeId) {
        if let Some(route) = self.routes.get_mut(&node)
            && route.state == State::Dialing
        {
            route.failures += 1;
            let pause = if route.left { AFTER_GOODBYE } else { pause(route.failures) };
            route.state = State::Waiting(now + self.jitter.spread(pause));
        }
    }

    /// The peer leaves on purpose.
    pub(super) fn goodbye(&mut self, node: NodeId) {
        if let Some(route) = self.routes.get_mut(&node) {
            route.left = true;
        }
    }

    /// Attempts to make now. Each is over when `linked`, `unlinked` or `dial_failed` says so.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (node, route) in &mut self.routes {
            if !route.known.is_empty() && matches!(route.state, State::Waiting(until) if until <= now) {
                route.state = State::Dialing;
                dials.push(Dial { node: *node, addresses: best(&route.known) });
            }
        }
        dials
    }

    /// The most promising address of a member.
    pub(super) fn address(&self, node: &NodeId) -> Option<Multiaddr> {
        best(&self.routes.get(node)?.known).into_iter().next()
    }

    /// Every address that is known, for the next life; 0 for those that nobody has tried: a peer that always dialled
    /// us must be found again too.
    pub(super) fn known(&self) -> BTreeMap<NodeId, Vec<(Multiaddr, u64)>> {
        let routes = self.routes.iter().map(|(node, route)| (node, &route.known));
        routes
            .chain(&self.known)
            .map(|(node, known)| {
                let lasting = known.iter().filter(|known| known.source != Source::Fixed);
                let known = lasting.map(|known| (known.address.clone(), known.good_ms.unwrap_or(0)));
                (*node, known.collect::<Vec<_>>())
            })
            .filter(|(_, known)| !known.is_empty())
            .collect()
    }

    /// Whether an address of a node is known that outlives this run.
    pub(super) fn finds(&self, node: &NodeId) -> bool {
        let known = self.routes.get(node).map(|route| &route.known).or_else(|| self.known.get(node));
        known.is_some_and(|known| known.iter().any(|known| known.source != Source::Fixed))
    }

    fn head_start(&self, node: &NodeId) -> Duration {
        if self.me < *node { Duration::ZERO } else { HEAD_START }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

fn best(known: &[Known]) -> Vec<Multiaddr> {
    let mut ranked: Vec<_> = known.iter().collect();
    ranked.sort_by_key(|known| (std::cmp::Reverse(known.good_ms), known.source));
    ranked.into_iter().take(TRIED).map(|known| known.address.clone()).collect()
}

/// Notes an address; true when it is new. The least trusted one makes room.
fn remember(known: &mut Vec<Known>, address: Multiaddr, source: Source, good_ms: Option<u64>) -> bool {
    if let Some(known) = known.iter_mut().find(|known| known.address == address) {
        known.source = known.source.min(source);
        known.good_ms = known.good_ms.max(good_ms);
        return false;
    }
    known.push(Known { address, source, good_ms });
    if known.len() > REMEMBERED {
        known.sort_by_key(|known| {
            (known.source != Source::Fixed, std::cmp::Reverse(known.good_ms), known.source)
        });
        known.truncate(REMEMBERED);
    }
    true
}

/// Marsaglia's xorshift64 (<https://doi.org/10.18637/jss.v008.i14>): enough to keep nodes from acting in step.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// Between three and five quarters of `span`.
    fn spread(&mut self, span: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = u32::try_from(self.0 % 1024).unwrap_or(0);
        span * 3 / 4 + span * share / 2048
    }
}

#[cfg(test)]
mod tests;
