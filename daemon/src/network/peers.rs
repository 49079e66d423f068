//! What is known of each member: links, Hello, traffic, and the row it makes in the table of peers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;
use scenemesh_protocol::advert::{Advert, Inventory};
use scenemesh_protocol::codec::DecodeError;
use scenemesh_protocol::ids::{BootId, ContentHash, StudioId};
use scenemesh_protocol::messages::{Hello, Request, Response};
use scenemesh_protocol::roster::RosterDigest;
use tokio::time::Instant;

use super::calls::Calls;
use super::exchange::Purpose;
use super::links::Side;
use super::{Link, PeerView, hello};

/// Requests of a peer that has said Hello but not answered ours yet.
pub(super) const HELD: usize = 32;
/// First pause before Hello is tried again on a link where it failed.
const HELLO_PAUSE: Duration = Duration::from_millis(200);
/// A peer that was refused is asked again after this: its clock may have been set, its roster may have come.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(30);

pub(super) type Channel = ResponseChannel<Result<Response, DecodeError>>;

/// One connection to a peer.
#[derive(Debug)]
pub(super) struct LinkTo {
    pub(super) id: ConnectionId,
    pub(super) side: Side,
    /// Where the peer is, as the connection has it.
    pub(super) address: Multiaddr,
    /// Given up for another one; its close has not been seen yet.
    pub(super) closing: bool,
    pub(super) heard_at: Instant,
}

/// How far two nodes have come on a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// No link.
    None,
    /// Our Hello is on its way.
    Sent,
    /// Our Hello failed or is due: say it at this time.
    Due(Instant),
    /// Our Hello was answered with a good one.
    Up,
    /// One of the two does not want the other; ask again at this time.
    Refused { words: String, again: Instant },
}

/// A member.
pub(super) struct Peer {
    pub(super) studio: StudioId,
    pub(super) links: Vec<LinkTo>,
    pub(super) greeting: Greeting,
    pub(super) hello_failures: u32,
    /// Counts our Hellos.
    pub(super) hello_round: u32,
    /// The boot of its Hello, judged good: its verbs are heard.
    pub(super) heard_boot: Option<BootId>,
    /// Its verbs that came before our own Hello was answered.
    pub(super) held: Vec<(Request, Channel)>,
    pub(super) calls: Calls,
    pub(super) in_flight: usize,
    pub(super) queue: VecDeque<(Request, Purpose)>,
    pub(super) rtt: Option<Duration>,
    pub(super) agent: Option<String>,
    pub(super) versions: Option<(u8, u8)>,
    pub(super) skew_ms: Option<i64>,
    /// Of the roster it named in its last good Hello.
    pub(super) digest: Option<RosterDigest>,
    pub(super) inventory: Option<(ContentHash, Arc<Inventory>)>,
    /// When to ask for the inventory at the earliest.
    pub(super) inventory_at: Instant,
    pub(super) last_seen_ms: Option<u64>,
    pub(super) last_error: Option<String>,
}

impl Peer {
    pub(super) fn new(studio: StudioId, now: Instant) -> Self {
        Self {
            studio,
            links: Vec::new(),
            greeting: Greeting::None,
            hello_failures: 0,
            hello_round: 0,
            heard_boot: None,
            held: Vec::new(),
            calls: Calls::new(now),
            in_flight: 0,
            queue: VecDeque::new(),
            rtt: None,
            agent: None,
            versions: None,
            skew_ms: None,
            digest: None,
            inventory: None,
            inventory_at: now,
            last_seen_ms: None,
            last_error: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.greeting == Greeting::Up
    }

    /// The link that stays.
    pub(super) fn link(&self) -> Option<&LinkTo> {
        self.links.iter().find(|link| !link.closing)
    }

    /// Notes what a Hello tells, good or not.
    pub(super) fn note_hello(&mut self, hello: &Hello, now_ms: u64) {
        self.agent = Some(hello.agent.chars().take(80).collect());
        self.versions = Some(hello.versions);
        self.skew_ms = Some(hello::skew(now_ms, hello.now_ms));
    }

    /// Hello failed on a link that lives: try again, less and less often.
    pub(super) fn hello_failed(&mut self, now: Instant) {
        self.hello_failures += 1;
        let pause = HELLO_PAUSE.saturating_mul(1 << self.hello_failures.min(8)).min(REFUSED_PAUSE);
        self.greeting = Greeting::Due(now + pause);
    }

    pub(super) fn refuse(&mut self, now: Instant, words: String) {
        self.heard_boot = None;
        self.greeting = Greeting::Refused { words, again: now + REFUSED_PAUSE };
    }

    /// Ends what rests on the present run of the peer; true if it was up.
    pub(super) fn start_over(&mut self) -> bool {
        let was_up = self.is_up();
        self.greeting = Greeting::None;
        self.heard_boot = None;
        self.hello_failures = 0;
        self.held.clear();
        was_up
    }

    /// When Hello is to be said, if it is.
    pub(super) fn hello_due(&self) -> Option<Instant> {
        match self.greeting {
            Greeting::Due(at) => Some(at),
            Greeting::Refused { again, .. } => Some(again),
            _ => None,
        }
    }

    /// The row in the table.
    pub(super) fn view(&self, advert: Option<Arc<Advert>>, known: Option<Multiaddr>) -> PeerView {
        let link = match &self.greeting {
            Greeting::Up => Link::Up,
            Greeting::Refused { words, .. } => Link::Refused { words: words.clone() },
            _ => Link::Down,
        };
        let address = self.link().map(|link| link.address.clone()).or(known);
        PeerView {
            studio: self.studio,
            link,
            address: address.map(|address| address.to_string()),
            rtt: self.rtt,
            agent: self.agent.clone(),
            versions: self.versions,
            boot: self.heard_boot,
            skew_ms: self.skew_ms,
            advert,
            inventory: self.inventory.as_ref().map(|(_, inventory)| inventory.clone()),
            last_seen_ms: self.last_seen_ms,
            last_error: self.last_error.clone(),
        }
    }
}
