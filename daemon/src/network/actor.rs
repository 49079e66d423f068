//! Owns the swarms and the state of all peers; turns commands, swarm events and ticks into calls, and never waits.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::identity::Keypair;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, TransportError};
use scenemesh_protocol::ids::{BootId, NodeId, PoolId, random_bytes};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::messages::{self, Decline, Goodbye, PorchResponse, Request, Response};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(super) use self::outlet::Outlet;
use super::adverts::{AdvertBook, OwnAdvert};
use super::behaviour::Main;
use super::bucket::Rate;
use super::exchange::{Pending, Purpose};
use super::peers::{Channel, Peer};
use super::redial::{Redial, Source};
use super::shares::Shares;
use super::{
    Command, Config, EVENTS_WAITING, Identity, Listening, NetworkError, Offered, PeerTable, PeerView,
    RequestError, RosterEvent, RosterView, StartError, TaskEvent, addresses, declined, porch, reachable,
    swarm, transfer,
};
use crate::clock::wall_ms;
use crate::supervisor::Tasks;

mod inbound;
mod links;
mod outbound;
mod outlet;

/// What runs by the clock is looked at this often.
const TICK: Duration = Duration::from_millis(200);
/// The table of peers is rebuilt at most this often for trifles; links that come and go are told at once.
const TABLE_PAUSE: Duration = Duration::from_millis(50);
/// A stop waits this long for goodbyes to be answered.
const GOODBYE: Duration = Duration::from_millis(500);
/// A node that is shut out has this long to hear why.
const PARTING: Duration = Duration::from_millis(500);
/// A link of members stays open without any traffic.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Requests of one peer that wait for an answer; it has at most [`IN_FLIGHT`](super::exchange::IN_FLIGHT) under way.
const OPEN_PER_PEER: usize = 64;
/// Release, for people.
const AGENT: &str = concat!("scenemeshd ", env!("CARGO_PKG_VERSION"));

/// The configuration after its check.
#[derive(Debug)]
pub(super) struct Setup {
    listen: Vec<Multiaddr>,
    porch: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
    fixed: Vec<(NodeId, Multiaddr)>,
    porch_rate: Rate,
    config: Config,
    pub(super) keypair: Keypair,
}

impl Setup {
    pub(super) fn check(config: Config, identity: &Identity) -> Result<Self, NetworkError> {
        let keypair = swarm::keypair(&identity.key).map_err(NetworkError::BadKey)?;
        let fixed =
            parse_all("peers", &config.peers)?.into_iter().zip(&config.peers).map(|(address, given)| {
                let (address, node) = swarm::split_node(&address);
                Ok((node.ok_or_else(|| NetworkError::NoNode { given: given.clone() })?, address))
            });
        Ok(Self {
            external: parse_all("external", &config.external)?,
            listen: parse_all("listen", &config.listen)?,
            porch: parse_all("porch", &config.porch)?,
            fixed: fixed.collect::<Result<_, _>>()?,
            porch_rate: Rate {
                burst: config.porch_burst.into(),
                per_second: f64::from(config.porch_per_minute) / 60.0,
            },
            config,
            keypair,
        })
    }
}

fn parse_all(key: &'static str, texts: &[String]) -> Result<Vec<Multiaddr>, NetworkError> {
    let parse = |given: &String| {
        let bad = |error: libp2p::multiaddr::Error| NetworkError::BadAddress {
            key,
            given: given.clone(),
            why: error.to_string(),
        };
        given.parse().map_err(bad)
    };
    texts.iter().map(parse).collect()
}

/// What comes in from the handle.
pub(super) struct Inlets {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) roster: watch::Receiver<Option<Arc<RosterView>>>,
    pub(super) offered: watch::Receiver<Offered>,
}

/// What goes out to the other modules.
pub(super) struct Outlets {
    pub(super) tasks: Outlet<TaskEvent>,
    pub(super) roster: Outlet<RosterEvent>,
    pub(super) peers: watch::Sender<Arc<PeerTable>>,
    pub(super) listening: watch::Sender<Listening>,
    pub(super) streams: watch::Sender<Option<transfer::Streams>>,
}

/// The main swarm while it is open.
struct MainRun {
    swarm: Swarm<Main>,
    pool: PoolId,
}

/// A stop under way.
struct Stopping {
    deadline: Instant,
    goodbyes: usize,
    done: Vec<oneshot::Sender<()>>,
}

pub(super) struct Actor {
    setup: Setup,
    me: NodeId,
    key: SecretKey,
    boot: BootId,
    tasks: Tasks,
    outlets: Outlets,
    server: transfer::Server,
    main: Option<MainRun>,
    porch: Option<porch::Host>,
    stopping: Option<Stopping>,
    roster: Option<Arc<RosterView>>,
    peers: BTreeMap<NodeId, Peer>,
    /// Shut out, but still to be told why: when their links close at the latest.
    departing: BTreeMap<NodeId, Instant>,
    redial: Redial,
    adverts: AdvertBook,
    own: OwnAdvert,
    pending: HashMap<OutboundRequestId, Pending>,
    /// Answers that others are preparing.
    replies: FuturesUnordered<BoxFuture<'static, (NodeId, Channel, Response)>>,
    /// Whose questions those are.
    open: Shares<NodeId>,
    porch_replies: FuturesUnordered<BoxFuture<'static, (porch::Channel, PorchResponse)>>,
    sync_at: Instant,
    ticked_at: Instant,
    table: Freshness,
    writing: addresses::Writing,
    seed: u64,
}

/// Whether the table of peers tells what is known.
struct Freshness {
    stale: bool,
    built_at: Instant,
}

impl Actor {
    pub(super) fn new(
        setup: Setup,
        identity: Identity,
        boot: BootId,
        outlets: Outlets,
        server: transfer::Server,
        tasks: Tasks,
    ) -> Self {
        let me = identity.key.public().node();
        let now = Instant::now();
        let seed = u64::from_le_bytes(random_bytes());
        let mut redial = Redial::new(me, seed);
        for (node, address) in &setup.fixed {
            redial.learn(now, *node, address.clone(), Source::Fixed);
        }
        let mut writing = addresses::Writing::default();
        if let Some(dir) = &setup.config.dir {
            let known = addresses::load(dir);
            writing = addresses::Writing::new(known.keys().copied());
            for (node, good) in known {
                for (address, good_ms) in good {
                    redial.restore(node, address, good_ms);
                }
            }
        }
        let own = OwnAdvert::new(me, boot, random_bytes());
        Self {
            setup,
            me,
            key: identity.key,
            boot,
            tasks,
            outlets,
            server,
            main: None,
            porch: None,
            stopping: None,
            roster: None,
            peers: BTreeMap::new(),
            departing: BTreeMap::new(),
            redial,
            adverts: AdvertBook::default(),
            own,
            pending: HashMap::new(),
            replies: FuturesUnordered::new(),
            open: Shares::new(EVENTS_WAITING, OPEN_PER_PEER),
            porch_replies: FuturesUnordered::new(),
            sync_at: now,
            ticked_at: now,
            table: Freshness { stale: false, built_at: now },
            writing,
            seed,
        }
    }

    /// Runs until the node stops or every handle is gone.
    pub(super) async fn run(mut self, mut inlets: Inlets) -> anyhow::Result<()> {
        let stop = self.tasks.stopping();
        let mut leaving = false;
        loop {
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled(), if !leaving => {
                    leaving = true;
                    self.begin_stop(Instant::now(), None);
                }
                command = inlets.commands.recv(), if !leaving => match command {
                    Some(command) => self.on_command(Instant::now(), command),
                    None => {
                        leaving = true;
                        self.begin_stop(Instant::now(), None);
                    }
                },
                Ok(()) = inlets.roster.changed() => {
                    let roster = inlets.roster.borrow_and_update().clone();
                    self.on_roster(Instant::now(), roster);
                }
                Ok(()) = inlets.offered.changed() => {
                    self.own.set(inlets.offered.borrow_and_update().clone());
                    self.spread_own_advert(Instant::now());
                }
                event = next_event(self.main.as_mut().map(|main| &mut main.swarm)) => {
                    self.on_main_event(Instant::now(), event);
                }
                event = next_event(self.porch.as_mut().map(|porch| &mut porch.swarm)) => {
                    self.on_porch_event(Instant::now(), event);
                }
                Some((node, channel, response)) = self.replies.next() => {
                    self.open.leave(&node);
                    self.answer(channel, response);
                }
                Some((channel, response)) = self.porch_replies.next() => {
                    if let Some(porch) = &mut self.porch {
                        porch.answer(channel, response);
                    }
                }
                () = self.outlets.tasks.drain() => {}
                () = self.outlets.roster.drain() => {}
                () = sleep_until(wake) => self.on_tick(Instant::now()),
            }
            if leaving && self.stopping.is_none() {
                break;
            }
            self.refresh_table(Instant::now());
        }
        if let Some(saving) = self.saving() {
            saving.await;
        }
        Ok(())
    }

    /// When something is due by the clock.
    fn wake(&self) -> Option<Instant> {
        let running = self.main.is_some() || self.stopping.is_some();
        let tick = running.then(|| self.ticked_at + TICK);
        let table = self.table.stale.then(|| self.table.built_at + TABLE_PAUSE);
        let saving = self.writing.due();
        let parting = self.departing.values().copied().min();
        [tick, table, saving, parting].into_iter().flatten().min()
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Start { pool, done } => {
                let started = self.start(now, pool);
                drop(done.send(started));
            }
            Command::OpenPorch { done } => {
                let opened = self.open_porch();
                drop(done.send(opened));
            }
            Command::Stop { done } => self.begin_stop(now, Some(done)),
            Command::Request { peer, request, answer } => self.on_caller(peer, request, answer),
            Command::AddAddresses { node, addresses } => {
                for text in addresses {
                    match text.parse().map(|address| swarm::split_node(&address).0) {
                        Ok(address) => self.redial.learn(now, node, address, Source::Hint),
                        Err(error) => tracing::debug!(%text, %error, "not an address, passed over"),
                    }
                }
                // Whoever joins and loses power before its first link knows nobody else.
                self.writing.learnt(now, node);
                self.dial_due(now);
            }
        }
    }

    fn start(&mut self, now: Instant, pool: PoolId) -> Result<(), StartError> {
        if self.stopping.is_some() {
            self.close(now);
        }
        match &self.main {
            Some(main) if main.pool == pool => return self.open_porch(),
            Some(_) => self.close(now),
            None => {}
        }
        let control = protocol(messages::control_protocol(&pool));
        let behaviour = Main::new(&self.setup.keypair, AGENT, control, &self.setup.config);
        let mut swarm =
            swarm::build(&self.setup.keypair, behaviour, IDLE, &self.tasks).map_err(StartError::Transport)?;
        listen(&mut swarm, &self.setup.listen)?;
        let porch_was_open = self.porch.is_some();
        self.open_porch()?;
        for node in self.peers.keys() {
            swarm.behaviour_mut().allowed.allow_peer(swarm::peer_id(*node));
        }
        let blobs = protocol(messages::blob_protocol(&pool));
        let streams = self.server.open(swarm.behaviour().streams.new_control(), blobs);
        self.outlets.streams.send_replace(Some(streams));
        self.main = Some(MainRun { swarm, pool });
        self.redial.reset(now);
        self.ticked_at = now;
        tracing::info!(%pool, porch_was_open, "links are open");
        self.spread_own_advert(now);
        self.dial_due(now);
        Ok(())
    }

    fn open_porch(&mut self) -> Result<(), StartError> {
        if self.porch.is_some() {
            return Ok(());
        }
        let mut host = porch::Host::open(&self.setup.keypair, self.setup.porch_rate, &self.tasks)
            .map_err(StartError::Transport)?;
        listen(&mut host.swarm, &self.setup.porch)?;
        self.porch = Some(host);
        Ok(())
    }

    /// Says goodbye to everybody; `close` follows when they have answered, or soon.
    fn begin_stop(&mut self, now: Instant, done: Option<oneshot::Sender<()>>) {
        if let Some(stopping) = &mut self.stopping {
            stopping.done.extend(done);
            return;
        }
        let up: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.is_up()).map(|(node, _)| *node).collect();
        for node in &up {
            self.send(*node, Request::Goodbye(Goodbye), Purpose::Goodbye);
        }
        let deadline = now + GOODBYE;
        self.stopping = Some(Stopping { deadline, goodbyes: up.len(), done: done.into_iter().collect() });
        self.ticked_at = now;
        if up.is_empty() {
            self.close(now);
        }
    }

    /// Closes both swarms and everything that rests on them.
    fn close(&mut self, now: Instant) {
        self.server.close();
        self.outlets.streams.send_replace(None);
        self.main = None;
        self.porch = None;
        for (_, pending) in self.pending.drain() {
            if let Purpose::Caller(answer) = pending.purpose {
                drop(answer.send(Err(RequestError::NotConnected(pending.peer))));
            }
        }
        self.replies.clear();
        self.open.clear();
        self.porch_replies.clear();
        self.departing.clear();
        let nodes: Vec<_> = self.peers.keys().copied().collect();
        for node in nodes {
            self.end_session(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.links.clear();
                peer.in_flight = 0;
            }
        }
        self.redial.reset(now);
        self.own.reset();
        self.outlets.listening.send_replace(Listening::default());
        self.table.stale = true;
        if let Some(stopping) = self.stopping.take() {
            for done in stopping.done {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }

    fn on_roster(&mut self, now: Instant, roster: Option<Arc<RosterView>>) {
        self.roster = roster;
        let members = self.roster.as_ref().map(|roster| roster.members.clone()).unwrap_or_default();
        let gone: Vec<_> = self.peers.keys().filter(|node| !members.contains_key(node)).copied().collect();
        for node in gone {
            self.shut_out(now, node);
        }
        for (node, studio) in &members {
            if *node == self.me {
                continue;
            }
            let peer = self.peers.entry(*node).or_insert_with(|| Peer::new(*studio, now));
            if peer.studio != *studio {
                // It may show more now, or less.
                peer.inventory = None;
                peer.studio = *studio;
            }
            let departing = self.departing.remove(node).is_some();
            if let Some(main) = &mut self.main {
                let allowed = &mut main.swarm.behaviour_mut().allowed;
                if departing {
                    // Its links are of the time before.
                    allowed.disallow_peer(swarm::peer_id(*node));
                }
                allowed.allow_peer(swarm::peer_id(*node));
            }
        }
        self.adverts.retain(|node| members.contains_key(node));
        self.redial.set_members(now, &members.keys().copied().collect());
        self.build_table(now);
        self.dial_due(now);
    }

    fn on_porch_event(&mut self, now: Instant, event: SwarmEvent<super::behaviour::PorchDoorEvent>) {
        let Some(porch) = &mut self.porch else { return };
        match porch.on_event(now, event) {
            None => {}
            Some(porch::HostEvent::Listening) => self.tell_listening(),
            Some(porch::HostEvent::Asked { event, answer, channel }) => {
                // A full inbox drops the event and its reply with it; the answer below then says that we are busy.
                self.outlets.roster.ask(*event);
                self.porch_replies.push(Box::pin(async move {
                    let busy = || declined(Decline::Busy, "too much to do, try again").into();
                    (channel, answer.await.unwrap_or_else(|_| busy()))
                }));
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if self.writing.is_due(now) {
            self.save_addresses_soon();
        }
        let overdue = self.departing.iter().filter(|(_, until)| **until <= now).map(|(node, _)| *node);
        for node in overdue.collect::<Vec<_>>() {
            self.depart(node);
        }
        if let Some(stopping) = &self.stopping {
            self.ticked_at = now;
            if stopping.goodbyes == 0 || stopping.deadline <= now {
                self.close(now);
            }
            return;
        }
        if self.main.is_none() || now < self.ticked_at + TICK {
            return;
        }
        // When we ourselves were held up, silence proves nothing about others.
        let held_up = now.saturating_duration_since(self.ticked_at) > TICK * 10;
        self.ticked_at = now;
        self.close_silent_links(now, held_up);
        self.say_hello_where_due(now);
        self.dial_due(now);
        self.spread_own_advert(now);
        self.sync_adverts_when_due(now);
        self.ask_for_inventories(now);
        if !self.adverts.expire(now).is_empty() {
            self.table.stale = true;
        }
    }

    fn tell_listening(&mut self) {
        let texts = |addresses: &[Multiaddr]| addresses.iter().map(ToString::to_string).collect();
        let main: Vec<_> = self.main.iter().flat_map(|main| main.swarm.listeners().cloned()).collect();
        let porch: Vec<_> = self.porch.iter().flat_map(|porch| porch.swarm.listeners().cloned()).collect();
        let (external, announce) = (&self.setup.external, self.setup.config.announce_listen);
        let listening = Listening {
            told_main: texts(&reachable::main(external, &main, announce)),
            told_porch: texts(&reachable::porch(external, &porch, announce)),
            main: texts(&main),
            porch: texts(&porch),
        };
        if !main.is_empty() {
            self.own.set_addresses(&listening.told_main, &listening.told_porch);
        }
        self.outlets.listening.send_replace(listening);
    }

    fn refresh_table(&mut self, now: Instant) {
        if self.table.stale && now.saturating_duration_since(self.table.built_at) >= TABLE_PAUSE {
            self.build_table(now);
        }
    }

    fn build_table(&mut self, now: Instant) {
        let rows = self.peers.iter().map(|(node, peer)| (*node, self.view(node, peer)));
        self.outlets.peers.send_replace(Arc::new(PeerTable { peers: rows.collect() }));
        self.table = Freshness { stale: false, built_at: now };
    }

    fn view(&self, node: &NodeId, peer: &Peer) -> PeerView {
        peer.view(self.adverts.get(node), self.redial.address(node))
    }

    /// Whether a peer is of our own studio.
    fn is_sister(&self, node: &NodeId) -> bool {
        let mine = self.roster.as_ref().and_then(|roster| roster.members.get(&self.me));
        mine.is_some() && mine == self.peers.get(node).map(|peer| &peer.studio)
    }

    fn note_addresses(&mut self, now: Instant, node: NodeId) {
        if self.setup.config.dir.is_some() && self.redial.finds(&node) {
            self.writing.learnt(now, node);
        }
    }

    fn save_addresses_soon(&mut self) {
        if let Some(saving) = self.saving() {
            self.tasks.spawn("addresses", async move {
                saving.await;
                Ok(())
            });
        }
    }

    fn saving(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let dir = self.setup.config.dir.clone()?;
        let good = self.redial.known();
        let (tasks, turn) = (self.tasks.clone(), self.writing.turn());
        Some(async move {
            match tasks.blocking(move || turn.save(&dir, &good)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "known addresses could not be written"),
                Err(error) => tracing::warn!(%error, "known addresses could not be written"),
            }
        })
    }

    /// A random number, for choices that only have to differ.
    fn dice(&mut self) -> u64 {
        // Knuth's MMIX constants (TAOCP vol. 2, 3.3.4); the high bits are the good ones.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }
}

fn protocol(name: String) -> StreamProtocol {
    StreamProtocol::try_from_owned(name).expect("our protocol names begin with a slash")
}

fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, addresses: &[Multiaddr]) -> Result<(), StartError> {
    for address in addresses {
        let failed = |cause: String| StartError::Listen { address: address.to_string(), cause };
        swarm::probe_free(address).map_err(|error| failed(error.to_string()))?;
        swarm.listen_on(address.clone()).map_err(|error| {
            failed(match error {
                TransportError::MultiaddrNotSupported(_) => "not a kind of address to listen on".into(),
                TransportError::Other(error) => error.to_string(),
            })
        })?;
    }
    Ok(())
}

async fn next_event<B: NetworkBehaviour>(swarm: Option<&mut Swarm<B>>) -> SwarmEvent<B::ToSwarm> {
    match swarm {
        Some(swarm) => swarm.select_next_some().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
