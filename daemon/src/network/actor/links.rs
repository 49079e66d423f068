//! Links that come and go, Hello on them, and dialling what is missing.

use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns, ping};
use scenemesh_protocol::messages::Hello;

use super::{
    AGENT, Actor, Instant, NodeId, Purpose, Request, RequestError, RosterEvent, Source, TaskEvent, swarm,
    wall_ms,
};
use crate::network::behaviour::{MainEvent, ip_of};
use crate::network::hello;
use crate::network::links::{Keep, Opened, Side, choose};
use crate::network::peers::{Greeting, LinkTo, Peer};

/// A link that has given no sign of life for three pings is dead.
const SILENCE: Duration = Duration::from_secs(15);
/// A link that the peer closes sooner than this, before Hello, was closed on purpose.
const SHUT_OUT: Duration = Duration::from_secs(3);
/// Most addresses taken from what a peer says about itself.
const TOLD: usize = 8;

impl Actor {
    pub(super) fn on_main_event(&mut self, now: Instant, event: SwarmEvent<MainEvent>) {
        match event {
            SwarmEvent::Behaviour(MainEvent::Control(event)) => self.on_control(now, event),
            SwarmEvent::Behaviour(MainEvent::Ping(event)) => self.on_ping(now, &event),
            SwarmEvent::Behaviour(MainEvent::Identify(identify::Event::Received {
                peer_id, info, ..
            })) => {
                self.on_identified(now, &peer_id, info.listen_addrs);
            }
            SwarmEvent::Behaviour(MainEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    // Others on this network are none of our business; the allow list would refuse them anyway.
                    if let Some(node) = swarm::node_id(&peer).filter(|node| self.peers.contains_key(node)) {
                        self.redial.learn(now, node, swarm::split_node(&address).0, Source::Neighbour);
                    }
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_linked(now, &peer_id, connection_id, endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.on_link_closed(now, &peer_id, connection_id, cause);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.on_dial_failed(now, &peer, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "an incoming link was refused");
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => self.tell_listening(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "no longer listening");
                self.tell_listening();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "cannot accept a link"),
            _ => {}
        }
    }

    fn on_linked(&mut self, now: Instant, peer_id: &PeerId, id: ConnectionId, endpoint: ConnectedPoint) {
        let (opened, address) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (Opened::ByUs, address),
            ConnectedPoint::Listener { send_back_addr, .. } => (Opened::ByPeer, send_back_addr),
        };
        let Some((node, peer)) =
            swarm::node_id(peer_id).and_then(|node| Some((node, self.peers.get_mut(&node)?)))
        else {
            self.close_link(id);
            return;
        };
        let side = Side { opened, since: now };
        let address = swarm::split_node(&address).0;
        let mut link = LinkTo { id, side, address, closing: false, heard_at: now };
        let mut doomed = None;
        let mut fresh = true;
        if let Some(old) = peer.links.iter_mut().find(|link| !link.closing) {
            let keep = choose(self.me, node, old.side, side);
            tracing::debug!(peer = %node.short(), ?keep, "a second link");
            fresh = keep == Keep::Fresh;
            let loser = if keep == Keep::Old { &mut link } else { old };
            loser.closing = true;
            doomed = Some(loser.id);
        }
        peer.links.push(link);
        self.redial.linked(node);
        if let Some(id) = doomed {
            self.close_link(id);
        }
        if fresh {
            self.end_session(node);
            self.say_hello(node);
        }
    }

    fn on_link_closed(
        &mut self,
        now: Instant,
        peer_id: &PeerId,
        id: ConnectionId,
        cause: Option<ConnectionError>,
    ) {
        let Some((node, peer)) =
            swarm::node_id(peer_id).and_then(|node| Some((node, self.peers.get_mut(&node)?)))
        else {
            tracing::debug!(peer = %peer_id, "a link of a node that is no member is closed");
            return;
        };
        let Some(at) = peer.links.iter().position(|link| link.id == id) else { return };
        let link = peer.links.remove(at);
        if !peer.links.is_empty() {
            return;
        }
        let was_up = peer.is_up();
        let unheard = peer.heard_boot.is_none() && !matches!(peer.greeting, Greeting::Refused { .. });
        let short = now.saturating_duration_since(link.side.since) < SHUT_OUT;
        let shut_out = !was_up && unheard && short && link.side.opened == Opened::ByUs;
        if shut_out {
            peer.last_error = Some(format!(
                "at {} it closes the link at once: it may not know yet that this node is a member",
                link.address
            ));
        } else if let Some(cause) = cause {
            peer.last_error = Some(format!("the link was lost: {cause}"));
        }
        peer.rtt = None;
        self.end_session(node);
        self.redial.unlinked(now, node, was_up);
        self.table.stale = true;
        if shut_out {
            let address = link.address.to_string();
            self.outlets.roster.tell(RosterEvent::ShutOut { peer: node, address });
        }
    }

    fn on_dial_failed(&mut self, now: Instant, peer_id: &PeerId, error: &DialError) {
        let Some(node) = swarm::node_id(peer_id) else { return };
        // An attempt that was not needed is not a failure of the peer.
        if matches!(error, DialError::DialPeerConditionFalse(_) | DialError::Aborted) {
            self.redial.dial_failed(now, node);
            return;
        }
        tracing::debug!(peer = %node.short(), error = %swarm::dial_words(error), "cannot reach a member");
        self.redial.dial_failed(now, node);
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.links.is_empty()
        {
            peer.last_error = Some(swarm::dial_words(error));
            self.table.stale = true;
        }
    }

    fn on_ping(&mut self, now: Instant, event: &ping::Event) {
        let Some(peer) = swarm::node_id(&event.peer).and_then(|node| self.peers.get_mut(&node)) else {
            return;
        };
        if let Ok(rtt) = event.result {
            if let Some(link) = peer.links.iter_mut().find(|link| link.id == event.connection) {
                link.heard_at = now;
            }
            peer.rtt = Some(rtt);
            peer.last_seen_ms = Some(wall_ms());
            self.table.stale = true;
        }
    }

    fn on_identified(&mut self, now: Instant, peer_id: &PeerId, told: Vec<Multiaddr>) {
        let Some(node) = swarm::node_id(peer_id) else { return };
        let Some(link) = self.peers.get(&node).and_then(Peer::link) else { return };
        let near = ip_of(&link.address).is_some_and(|ip| ip.is_loopback());
        let useful = |address: &Multiaddr| {
            ip_of(address).is_none_or(|ip| (near || !ip.is_loopback()) && !ip.is_unspecified())
                && address.iter().any(|part| matches!(part, Protocol::Tcp(port) if port != 0))
        };
        for address in told.into_iter().filter(useful).take(TOLD) {
            self.redial.learn(now, node, swarm::split_node(&address).0, Source::Identify);
        }
        self.note_addresses(now, node);
    }

    /// Closes links that say nothing any more. `held_up` forgives them: it was us who did not listen.
    pub(super) fn close_silent_links(&mut self, now: Instant, held_up: bool) {
        let mut silent = Vec::new();
        for (node, peer) in &mut self.peers {
            for link in peer.links.iter_mut().filter(|link| !link.closing) {
                if held_up {
                    link.heard_at = now;
                } else if now.saturating_duration_since(link.heard_at) > SILENCE {
                    tracing::info!(peer = %node.short(), "the link is silent and is closed");
                    silent.push(link.id);
                }
            }
        }
        for id in silent {
            self.close_link(id);
        }
    }

    pub(super) fn dial_due(&mut self, now: Instant) {
        let Some(main) = &mut self.main else { return };
        if self.stopping.is_some() {
            return;
        }
        for dial in self.redial.due(now) {
            let options = DialOpts::peer_id(swarm::peer_id(dial.node))
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                // A port of its own: two nodes that dial each other from their listening ports meet in one TCP
                // connection that neither expects.
                .allocate_new_port()
                .build();
            // A failure is also reported as an event of the swarm, except for this one.
            if let Err(DialError::DialPeerConditionFalse(_)) = main.swarm.dial(options) {
                self.redial.dial_failed(now, dial.node);
            }
        }
    }

    pub(super) fn say_hello_where_due(&mut self, now: Instant) {
        let due = self.peers.iter().filter(|(_, peer)| peer.hello_due().is_some_and(|at| at <= now));
        let due: Vec<_> = due.map(|(node, _)| *node).collect();
        for node in due {
            self.say_hello(node);
        }
    }

    pub(super) fn say_hello(&mut self, node: NodeId) {
        let Some(hello) = self.hello() else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.link().is_none() {
            return;
        }
        // A refused peer stays refused in the table until it has answered better.
        if let Greeting::Refused { again, .. } = &mut peer.greeting {
            *again = Instant::now() + crate::network::peers::REFUSED_PAUSE;
        } else {
            peer.greeting = Greeting::Sent;
        }
        peer.hello_round = peer.hello_round.wrapping_add(1);
        let round = peer.hello_round;
        self.send(node, Request::Hello(hello), Purpose::Hello(round));
    }

    /// Our own Hello, while there is a pool and a roster.
    pub(super) fn hello(&self) -> Option<Hello> {
        Some(Hello {
            pool: self.main.as_ref()?.pool,
            boot: self.boot,
            versions: hello::VERSIONS,
            agent: AGENT.into(),
            roster: self.roster.as_ref()?.digest,
            feeds: Vec::new(),
            now_ms: wall_ms(),
        })
    }

    /// Judges a peer's Hello and notes what it tells.
    ///
    /// # Errors
    /// Why the two do not get along, in words.
    pub(super) fn hear_hello(&mut self, now: Instant, node: NodeId, hello: &Hello) -> Result<(), String> {
        let Some(main) = &self.main else { return Err("this node is leaving".into()) };
        let judged = hello::judge(&main.pool, wall_ms(), hello);
        let Some(peer) = self.peers.get_mut(&node) else { return Err("it is not a member".into()) };
        peer.note_hello(hello, wall_ms());
        self.table.stale = true;
        if let Err(words) = judged {
            tracing::info!(peer = %node.short(), %words, "a member is refused");
            self.end_session(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.refuse(now, words.clone());
            }
            return Err(words);
        }
        if peer.heard_boot.is_some_and(|boot| boot != hello.boot) {
            // It restarted while the link seemed to live.
            self.end_session(node);
            self.say_hello(node);
        }
        self.adverts.restarted(&node, hello.boot);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.heard_boot = Some(hello.boot);
            peer.digest = Some(hello.roster);
            if matches!(peer.greeting, Greeting::Refused { .. }) {
                peer.greeting = Greeting::Due(now);
            }
        }
        Ok(())
    }

    /// Our Hello was answered with a good one: the peer is up.
    pub(super) fn session_begins(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(boot) = peer.heard_boot else { return };
        if peer.is_up() {
            return;
        }
        peer.greeting = Greeting::Up;
        peer.hello_failures = 0;
        peer.last_error = None;
        peer.last_seen_ms = Some(wall_ms());
        peer.inventory_at = now;
        let held = std::mem::take(&mut peer.held);
        let digest = peer.digest;
        let dialled =
            peer.link().filter(|link| link.side.opened == Opened::ByUs).map(|link| link.address.clone());
        if let Some(link) = peer.link() {
            tracing::info!(peer = %node.short(), address = %link.address, "a member is up");
        }
        self.redial.up(node, dialled, wall_ms());
        self.note_addresses(now, node);
        // The table first: who hears of the link may look at once.
        self.build_table(now);
        self.outlets.tasks.tell(TaskEvent::PeerUp { peer: node, boot });
        if let Some(digest) = digest {
            self.outlets.roster.tell(RosterEvent::Hello { peer: node, digest });
        }
        for (request, channel) in held {
            self.pass_on(now, node, request, channel);
        }
        self.greet_with_adverts(node);
    }

    /// Ends what rests on the present run of a peer. Callers that wait are told.
    pub(super) fn end_session(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let was_up = peer.start_over();
        for (_, purpose) in std::mem::take(&mut peer.queue) {
            if let Purpose::Caller(answer) = purpose {
                drop(answer.send(Err(RequestError::NotConnected(node))));
            }
        }
        if was_up {
            tracing::info!(peer = %node.short(), "a member is down");
            self.build_table(Instant::now());
            self.outlets.tasks.tell(TaskEvent::PeerDown { peer: node });
        }
    }

    fn close_link(&mut self, id: ConnectionId) {
        if let Some(main) = &mut self.main {
            main.swarm.close_connection(id);
        }
    }
}
