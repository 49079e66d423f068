//! The node's links to its pool: who is up, what they offer, requests and answers, sealed blobs.
//!
//! An actor owns two libp2p swarms under the node's own key. The *main* swarm knows the members of the roster and nobody
//! else; a peer on it is up once Hello has been answered. The *porch* talks to strangers, in two verbs. Both exist only
//! while [`Network::start`] asks for them. The actor never waits for anybody: it turns commands, swarm events and ticks
//! into calls of the pure parts (`redial`, `links`, `hello`, `adverts`) and performs what they say.
//!
//! libp2p is named nowhere outside this module.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scenemesh_protocol::advert::{Advert, Availability, GpuAdvert, Hygiene, Inventory};
use scenemesh_protocol::ids::{BootId, ContentHash, NodeId, PoolId, StudioId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::messages::{
    Decline, Declined, PorchRequest, PorchResponse, Request, Response, RosterDiff,
};
use scenemesh_protocol::roster::RosterDigest;
use scenemesh_protocol::task::ModelName;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::Blobs;
use crate::supervisor::Tasks;

mod actor;
mod addresses;
mod adverts;
mod behaviour;
mod bucket;
mod calls;
mod exchange;
mod hello;
mod links;
mod peers;
mod porch;
mod reachable;
mod redial;
mod room;
mod shares;
mod swarm;
mod transfer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use porch::PorchError;
pub use transfer::{FetchError, Traffic};

/// Events that wait for a consumer; beyond this a peer is told that we are busy.
const EVENTS_WAITING: usize = 1024;
/// Commands that wait for the actor; callers beyond this wait, they are local.
const COMMANDS_WAITING: usize = 64;

/// Where to listen and whom to find how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the main swarm, as multiaddr text; port 0 takes a free one.
    pub listen: Vec<String>,
    /// Addresses of the porch, likewise.
    pub porch: Vec<String>,
    /// Addresses under which others reach this node from outside; they go into adverts and invites.
    pub external: Vec<String>,
    /// Whether others are told the addresses that are listened on, besides `external`.
    pub announce_listen: bool,
    /// Members at fixed addresses: multiaddr text that ends in `/p2p/NODE`.
    pub peers: Vec<String>,
    /// Whether to look for members on the local network.
    pub mdns: bool,
    /// Porch requests that one address may make at once, and how many it gets back per minute.
    pub porch_burst: u32,
    pub porch_per_minute: u32,
    /// Where `addresses.json` keeps the addresses that worked; none keeps them in memory only.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/0.0.0.0/tcp/7872".into()],
            porch: vec!["/ip4/0.0.0.0/tcp/7873".into()],
            external: Vec::new(),
            announce_listen: true,
            peers: Vec::new(),
            mdns: true,
            porch_burst: 20,
            porch_per_minute: 60,
            dir: None,
        }
    }
}

impl Config {
    /// Free ports that were taken once are asked for again: a node that starts again in place stays where it was.
    pub fn stay(&mut self, listened: Listening) {
        let any = |addresses: &[String]| addresses.iter().all(|address| address.ends_with("/tcp/0"));
        for (wanted, had) in [(&mut self.listen, listened.main), (&mut self.porch, listened.porch)] {
            if any(wanted) && !had.is_empty() {
                *wanted = had;
            }
        }
    }
}

/// Who this node is towards others.
#[derive(Clone, Debug)]
pub struct Identity {
    pub key: SecretKey,
}

/// What the network hands up: one receiver per consumer.
#[derive(Debug)]
pub struct Events {
    /// The scheduler's.
    pub tasks: mpsc::Receiver<TaskEvent>,
    /// The membership's.
    pub roster: mpsc::Receiver<RosterEvent>,
}

/// Links that come and go, and what peers ask about tasks.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "requests are the common case, links the rare one")]
pub enum TaskEvent {
    /// Hello was answered; requests may be sent. A peer that restarted is down first.
    PeerUp {
        peer: NodeId,
        boot: BootId,
    },
    PeerDown {
        peer: NodeId,
    },
    /// One of the verbs from `Offer` to `Probe`.
    Request {
        from: NodeId,
        request: Request,
        reply: Reply,
    },
}

/// What concerns the roster.
#[derive(Debug)]
pub enum RosterEvent {
    /// A peer said Hello and holds this roster.
    Hello { peer: NodeId, digest: RosterDigest },
    /// `RosterSync` or `Roster`.
    Request { from: NodeId, request: Request, reply: Reply },
    /// Somebody, member or not, at the porch; `from` is proven by the handshake.
    Porch { from: NodeId, address: String, request: PorchRequest, reply: PorchReply },
    /// A peer closes our links before Hello: it may lack our record. It was reached at this address.
    ShutOut { peer: NodeId, address: String },
}

/// Answers one request. Dropped unsent, it answers that this node is busy.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Response>);

impl Reply {
    /// A reply and what is sent through it, for tests of those who answer.
    pub fn channel() -> (Self, oneshot::Receiver<Response>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub fn send(self, response: impl Into<Response>) {
        // The asker may have gone meanwhile; every verb is idempotent, it will ask again.
        drop(self.0.send(response.into()));
    }
}

/// Answers one request at the porch. Dropped unsent, it answers that this node is busy.
#[derive(Debug)]
pub struct PorchReply(oneshot::Sender<PorchResponse>);

impl PorchReply {
    /// A reply and what is sent through it, for tests of those who answer.
    pub fn channel() -> (Self, oneshot::Receiver<PorchResponse>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub fn send(self, response: impl Into<PorchResponse>) {
        drop(self.0.send(response.into()));
    }
}

/// The roster as far as links need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterView {
    pub digest: RosterDigest,
    /// Every member that may connect, this node included, with its studio.
    pub members: BTreeMap<NodeId, StudioId>,
    /// Nodes that are shut out, and what they are told.
    pub parting: Arc<BTreeMap<NodeId, Parting>>,
}

/// What a node that is shut out is told before its links are closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// The answer to everything it asks.
    pub words: String,
    /// Signed records that prove it, when there are any.
    pub proof: RosterDiff,
}

/// What this node offers now; the network numbers, signs and spreads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub availability: Availability,
    pub hygiene: Hygiene,
    pub slots_total: u16,
    pub slots_free: u16,
    pub queue: u16,
    pub gpus: Vec<GpuAdvert>,
    /// Shared models that are loaded, most recent first.
    pub warm: Vec<ModelName>,
    /// ComfyUI's version, empty when there is none.
    pub comfyui: String,
    /// What nodes of the own studio may see.
    pub inventory_studio: Arc<Inventory>,
    /// What everybody else may see.
    pub inventory_shared: Arc<Inventory>,
    /// Changes with what this node would answer to an offer, inventories aside.
    pub rules: ContentHash,
}

/// What this node's classes look like, packed; see
/// [`DefinitionsPart`](scenemesh_protocol::messages::DefinitionsPart).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// To nodes of the own studio.
    pub studio: Pack,
    /// To everybody else.
    pub shared: Pack,
}

/// Packed definitions and their root; no bytes: there is nothing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    root: ContentHash,
    bytes: Bytes,
}

impl Default for Pack {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Pack {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { root: ContentHash::of(&bytes), bytes: bytes.into() }
    }
}

/// All that the network tells of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Offered {
    publication: Option<Arc<Publication>>,
    told: Arc<Told>,
}

/// Every other member and how it stands with this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable {
    pub peers: BTreeMap<NodeId, PeerView>,
}

impl PeerTable {
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.link == Link::Up)
    }
}

/// One member as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    pub studio: StudioId,
    pub link: Link,
    /// Remote end of the link, or the most promising address.
    pub address: Option<String>,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// Its release.
    pub agent: Option<String>,
    /// Wire versions it speaks, lowest and highest.
    pub versions: Option<(u8, u8)>,
    pub boot: Option<BootId>,
    /// Its clock minus ours, in milliseconds, at the last Hello.
    pub skew_ms: Option<i64>,
    /// Its newest advert that has not run out, from itself or from others.
    pub advert: Option<Arc<Advert>>,
    pub inventory: Option<Arc<Inventory>>,
    /// When it last gave a sign of life on a link, in milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// Why the last attempt to reach it failed, in words; cleared when it is up.
    pub last_error: Option<String>,
}

/// State of the link to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    Down,
    /// Connected, but the two do not get along: why, and what to do, in words.
    Refused {
        words: String,
    },
}

/// Addresses that are listened on now, as multiaddr text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    pub main: Vec<String>,
    pub porch: Vec<String>,
    /// Where others are told to find the main swarm, best first.
    pub told_main: Vec<String>,
    /// Where strangers are told to knock, best first.
    pub told_porch: Vec<String>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{key} has {given:?}, which is not an address: {why}; write it like /ip4/192.168.1.5/tcp/7872")]
    BadAddress { key: &'static str, given: String, why: String },
    #[error("peers has {given:?}, which does not end in /p2p/NODE: append the node's id")]
    NoNode { given: String },
    #[error("the node key is not usable for links: {0}")]
    BadKey(String),
}

/// The node could not open its door.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot listen on {address}: {cause}; another program may hold the port, choose another with --listen or --porch"
    )]
    Listen { address: String, cause: String },
    #[error("cannot set up links: {0}")]
    Transport(String),
    #[error("the node is stopping")]
    Stopping,
}

/// A request got no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{0:?} is not connected")]
    NotConnected(NodeId),
    /// It may have arrived: ask again, every verb is idempotent.
    #[error("{0:?} did not answer in time")]
    TimedOut(NodeId),
    /// The link broke before the answer; the request may have arrived.
    #[error("the link to {peer:?} broke before the answer: {cause}")]
    Broken { peer: NodeId, cause: String },
    #[error("declined ({:?}): {}", .0.why, .0.detail)]
    Declined(Declined),
    #[error("{peer:?} answered what this release does not understand: {cause}")]
    Garbled { peer: NodeId, cause: String },
    #[error("the node is stopping")]
    Stopping,
}

#[expect(clippy::large_enum_variant, reason = "requests are the common case, the others are rare")]
enum Command {
    Start { pool: PoolId, done: oneshot::Sender<Result<(), StartError>> },
    OpenPorch { done: oneshot::Sender<Result<(), StartError>> },
    Stop { done: oneshot::Sender<()> },
    Request { peer: NodeId, request: Request, answer: oneshot::Sender<Result<Response, RequestError>> },
    AddAddresses { node: NodeId, addresses: Vec<String> },
}

/// Handle to the network; cheap to clone.
#[derive(Clone)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    roster: watch::Sender<Option<Arc<RosterView>>>,
    offered: watch::Sender<Offered>,
    peers: watch::Receiver<Arc<PeerTable>>,
    listening: watch::Receiver<Listening>,
    meter: transfer::Meter,
    fetcher: transfer::Fetcher,
    visitor: porch::Visitor,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("listening", &*self.listening.borrow()).finish_non_exhaustive()
    }
}

/// Starts the actor. No socket is open before [`Network::start`].
///
/// # Errors
/// When an address of the configuration does not parse.
pub fn spawn(
    config: Config,
    identity: Identity,
    boot: BootId,
    blobs: Blobs,
    tasks: &Tasks,
) -> Result<(Network, Events), NetworkError> {
    let setup = actor::Setup::check(config, &identity)?;
    let (commands, inbox) = mpsc::channel(COMMANDS_WAITING);
    let (task_events, tasks_receiver) = mpsc::channel(EVENTS_WAITING);
    let (roster_events, roster_receiver) = mpsc::channel(EVENTS_WAITING);
    let (roster, roster_seen) = watch::channel(None);
    let (offered, offered_seen) = watch::channel(Offered::default());
    let (peers_sender, peers) = watch::channel(Arc::default());
    let (listening_sender, listening) = watch::channel(Listening::default());
    let (streams_sender, streams) = watch::channel(None);
    let meter = transfer::Meter::new();

    let network = Network {
        commands,
        roster,
        offered,
        peers: peers.clone(),
        listening,
        meter: meter.clone(),
        fetcher: transfer::Fetcher::new(streams, peers.clone(), blobs.clone(), meter.clone()),
        visitor: porch::Visitor::new(setup.keypair.clone(), tasks.clone()),
    };
    let outlets = actor::Outlets {
        tasks: actor::Outlet::new(task_events),
        roster: actor::Outlet::new(roster_events),
        peers: peers_sender,
        listening: listening_sender,
        streams: streams_sender,
    };
    let inlets = actor::Inlets { commands: inbox, roster: roster_seen, offered: offered_seen };
    let server = transfer::Server::new(blobs, peers, meter, tasks.clone());
    let actor = actor::Actor::new(setup, identity, boot, outlets, server, tasks.clone());
    tasks.spawn("network", actor.run(inlets));
    Ok((network, Events { tasks: tasks_receiver, roster: roster_receiver }))
}

impl Network {
    /// Opens the main swarm of `pool` and the porch. Asking again for the same pool does nothing; another pool first stops
    /// the old one.
    ///
    /// # Errors
    /// When an address cannot be listened on; then nothing is open.
    pub async fn start(&self, pool: PoolId) -> Result<(), StartError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Start { pool, done }).await.map_err(|_| StartError::Stopping)?;
        answer.await.map_err(|_| StartError::Stopping)?
    }

    /// Opens the porch alone: a join awaits approval, and members may bring it.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn open_porch(&self) -> Result<(), StartError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::OpenPorch { done }).await.map_err(|_| StartError::Stopping)?;
        answer.await.map_err(|_| StartError::Stopping)?
    }

    /// Says goodbye and closes everything; returns when it is closed.
    pub async fn stop(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Stop { done }).await.is_ok() {
            // An error means that the actor itself has stopped, and its sockets with it.
            drop(closed.await);
        }
    }

    /// Who may connect from now on. Nodes that are gone are heard no more from this moment; their links close when they
    /// have taken their parting words, half a second later at most.
    pub fn set_roster(&self, roster: RosterView) {
        self.roster.send_replace(Some(Arc::new(roster)));
    }

    /// Asks a peer that is up; answered, refused or given up within about 20 seconds.
    ///
    /// # Errors
    /// As [`RequestError`] says; a `Declined` answer is one of them.
    pub async fn request(&self, peer: NodeId, request: impl Into<Request>) -> Result<Response, RequestError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Request { peer, request: request.into(), answer };
        self.commands.send(command).await.map_err(|_| RequestError::Stopping)?;
        // libp2p's own timer ends the exchange; this one only guards against requests that never got a stream.
        match tokio::time::timeout(exchange::REQUEST_GUARD, answered).await {
            Ok(answer) => answer.map_err(|_| RequestError::Stopping)?,
            Err(_) => Err(RequestError::TimedOut(peer)),
        }
    }

    /// Brings a sealed blob of a live attempt into the store; what an earlier call brought is not sent again.
    ///
    /// # Errors
    /// As [`FetchError`] says. What has arrived stays for the next try.
    pub async fn fetch(
        &self,
        peer: NodeId,
        task: scenemesh_protocol::ids::TaskId,
        attempt: u32,
        blob: BlobRef,
    ) -> Result<(), FetchError> {
        self.fetcher.fetch(peer, task, attempt, blob).await
    }

    /// Replaces what this node offers.
    pub fn publish(&self, publication: Publication) {
        self.offered.send_modify(|offered| offered.publication = Some(Arc::new(publication)));
    }

    /// Replaces what this node's classes look like.
    pub fn tell(&self, told: Told) {
        self.offered.send_modify(|offered| offered.told = Arc::new(told));
    }

    pub fn peers(&self) -> watch::Receiver<Arc<PeerTable>> {
        self.peers.clone()
    }

    pub fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.clone()
    }

    /// Sealed bytes of blobs that went over links.
    pub fn traffic(&self) -> watch::Receiver<Traffic> {
        self.meter.watch()
    }

    /// Asks at the porch of a node that may not know this one, trying all addresses; about 10 seconds at most.
    ///
    /// # Errors
    /// As [`PorchError`] says. A `Declined` answer is an answer.
    pub async fn porch_request(
        &self,
        addresses: &[String],
        expect: NodeId,
        request: impl Into<PorchRequest>,
    ) -> Result<PorchResponse, PorchError> {
        self.visitor.ask(addresses, expect, request.into()).await
    }

    /// Tells where a node may be found, for example from an invite. What is not an address is passed over.
    pub async fn add_addresses(&self, node: NodeId, addresses: Vec<String>) {
        // A failed send means that the node stops; hints are worth nothing then.
        drop(self.commands.send(Command::AddAddresses { node, addresses }).await);
    }
}

/// A refusal with its sentence.
fn declined(why: Decline, detail: impl Into<String>) -> Declined {
    Declined { why, detail: detail.into() }
}
