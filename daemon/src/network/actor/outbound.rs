//! What this node asks: callers' requests, and its own Hello, adverts and inventories.

use std::sync::Arc;
use std::time::Duration;

use libp2p::request_response::{OutboundFailure, OutboundRequestId};
use scenemesh_protocol::codec::DecodeError;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::messages::{AdvertBatch, AdvertSync, Decline, Declined, InventoryGet, Response};
use tokio::sync::oneshot;

use super::{
    Actor, Instant, NodeId, PARTING, Pending, Purpose, Request, RequestError, declined, swarm, wall_ms,
};
use crate::network::Parting;
use crate::network::adverts::BATCH;
use crate::network::exchange::{IN_FLIGHT, QUEUED, request_error};
use crate::network::peers::Peer;

/// Adverts are compared with a few random peers this often, and a little more.
const SYNC_EVERY: Duration = Duration::from_secs(15);
const SYNC_SPREAD_MS: u64 = 5000;
const SYNC_PEERS: usize = 3;
/// An inventory that could not be had is asked for again after this.
const INVENTORY_PAUSE: Duration = Duration::from_secs(30);
/// One that was had may be asked for again after this: it can be large, and change often.
const INVENTORY_SPACING: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) fn on_caller(
        &mut self,
        node: NodeId,
        request: Request,
        answer: oneshot::Sender<Result<Response, RequestError>>,
    ) {
        let refused = match self.peers.get_mut(&node) {
            Some(peer) if peer.is_up() && self.stopping.is_none() => {
                if peer.in_flight < IN_FLIGHT {
                    return self.send(node, request, Purpose::Caller(answer));
                }
                if peer.queue.len() < QUEUED {
                    return peer.queue.push_back((request, Purpose::Caller(answer)));
                }
                RequestError::Declined(declined(Decline::Busy, "too many requests to this peer are open"))
            }
            _ => RequestError::NotConnected(node),
        };
        drop(answer.send(Err(refused)));
    }

    /// Sends now; the caller has seen to it that there is a link.
    pub(super) fn send(&mut self, node: NodeId, request: Request, purpose: Purpose) {
        let (Some(main), Some(peer)) = (&mut self.main, self.peers.get_mut(&node)) else { return };
        peer.in_flight += 1;
        let again = (peer.links.len() > 1).then(|| request.clone());
        let id = main.swarm.behaviour_mut().control.send_request(&swarm::peer_id(node), Ok(request));
        self.pending.insert(id, Pending { peer: node, purpose, again });
    }

    fn settle(&mut self, id: OutboundRequestId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&pending.peer) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
        self.send_queued(pending.peer);
        Some(pending)
    }

    fn send_queued(&mut self, node: NodeId) {
        while let Some(peer) = self.peers.get_mut(&node)
            && peer.is_up()
            && peer.in_flight < IN_FLIGHT
            && let Some((request, purpose)) = peer.queue.pop_front()
        {
            if !purpose.is_moot() {
                self.send(node, request, purpose);
            }
        }
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        id: OutboundRequestId,
        response: Result<Response, DecodeError>,
    ) {
        let Some(Pending { peer: node, purpose, .. }) = self.settle(id) else { return };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.last_seen_ms = Some(wall_ms());
        }
        match purpose {
            Purpose::Hello(round) => self.on_hello_answer(now, node, round, response),
            Purpose::Caller(answer) => {
                let result = match response {
                    Ok(Response::Declined(refusal)) => {
                        self.on_declined(node, &refusal);
                        Err(RequestError::Declined(refusal))
                    }
                    Ok(response) => Ok(response),
                    Err(error) => Err(RequestError::Garbled { peer: node, cause: error.to_string() }),
                };
                drop(answer.send(result));
            }
            Purpose::AdvertSync => {
                if let Ok(Response::Adverts(batch)) = response {
                    let news = self.absorb(now, node, &batch);
                    let up = self.peers.get(&node).is_some_and(Peer::is_up);
                    if up && news > 0 && batch.adverts.len() >= BATCH {
                        // There was no room for more.
                        self.sync_adverts(node);
                    }
                }
            }
            Purpose::Inventory(root) => {
                if let (Ok(Response::Inventory(inventory)), Some(peer)) =
                    (response, self.peers.get_mut(&node))
                {
                    peer.inventory = Some((root, Arc::new(inventory)));
                    peer.inventory_at = now + INVENTORY_SPACING;
                    self.table.stale = true;
                }
            }
            Purpose::AdvertPush => {
                if let Ok(Response::Declined(refusal)) = response {
                    self.on_declined(node, &refusal);
                }
            }
            Purpose::Goodbye => self.goodbye_settled(),
            Purpose::Parting => self.depart(node),
        }
    }

    pub(super) fn on_failure(&mut self, now: Instant, id: OutboundRequestId, failure: &OutboundFailure) {
        let Some(Pending { peer: node, purpose, again }) = self.settle(id) else { return };
        let lives = self.peers.get(&node).and_then(Peer::link).is_some();
        match (purpose, again) {
            (Purpose::Caller(answer), Some(request))
                if lives && matches!(failure, OutboundFailure::ConnectionClosed) =>
            {
                // It went down with the link that was one too many.
                self.send(node, request, Purpose::Caller(answer));
            }
            (Purpose::Caller(answer), _) => drop(answer.send(Err(request_error(node, failure)))),
            (Purpose::Hello(round), _) => self.on_hello_failure(now, node, round, failure),
            (Purpose::Goodbye, _) => self.goodbye_settled(),
            (Purpose::Parting, _) => self.depart(node),
            (Purpose::AdvertPush | Purpose::AdvertSync | Purpose::Inventory(_), _) => {}
        }
    }

    fn on_hello_answer(
        &mut self,
        now: Instant,
        node: NodeId,
        round: u32,
        response: Result<Response, DecodeError>,
    ) {
        if self.peers.get(&node).is_none_or(|peer| peer.hello_round != round) {
            return;
        }
        let words = match response {
            Ok(Response::Hello(hello)) => match self.hear_hello(now, node, &hello) {
                Ok(()) => return self.session_begins(now, node),
                // Noted there already.
                Err(_) => return,
            },
            Ok(Response::Declined(Declined { why: Decline::Busy | Decline::Stopping, .. })) => {
                return self.hello_again(now, node);
            }
            Ok(Response::Declined(refusal)) => format!("it says of this node: {}", refusal.detail),
            Ok(other) => format!("it answers Hello with {}: another release?", other.name()),
            Err(error) => format!("its answer to Hello cannot be read: {error}"),
        };
        self.refuse(now, node, words);
    }

    fn on_hello_failure(&mut self, now: Instant, node: NodeId, round: u32, failure: &OutboundFailure) {
        if self.peers.get(&node).is_none_or(|peer| peer.hello_round != round) {
            return;
        }
        if matches!(failure, OutboundFailure::UnsupportedProtocols) {
            let words = "it does not speak this pool's protocol: it is in another pool, has left this one, or runs \
                         a release too far from this node's";
            return self.refuse(now, node, words.into());
        }
        self.hello_again(now, node);
    }

    /// Keeps a peer at a distance until it answers better; what it was told itself counts more.
    fn refuse(&mut self, now: Instant, node: NodeId, words: String) {
        let judged_here =
            |peer: &Peer| matches!(peer.greeting, crate::network::peers::Greeting::Refused { .. });
        if self.peers.get(&node).is_none_or(judged_here) {
            return;
        }
        tracing::info!(peer = %node.short(), %words, "no agreement with a member");
        self.end_session(node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refuse(now, words);
        }
        self.table.stale = true;
    }

    /// A peer that has forgotten our Hello gets it again.
    fn on_declined(&mut self, node: NodeId, refusal: &Declined) {
        if refusal.why == Decline::NoHello && self.peers.get(&node).is_some_and(Peer::is_up) {
            self.end_session(node);
            self.say_hello(node);
        }
    }

    fn goodbye_settled(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.goodbyes = stopping.goodbyes.saturating_sub(1);
        }
    }

    /// Hears a node no more from now on, tells it why if it listens, and closes its links.
    pub(super) fn shut_out(&mut self, now: Instant, node: NodeId) {
        let listens = self.peers.get(&node).is_some_and(Peer::is_up) && self.stopping.is_none();
        let linked = self.peers.get(&node).is_some_and(|peer| !peer.links.is_empty());
        self.end_session(node);
        self.peers.remove(&node);
        tracing::info!(peer = %node.short(), linked, "a member is shut out");
        let proof = self.parting(&node).map(|parting| parting.proof.clone());
        let proof = proof.filter(|proof| listens && !proof.is_empty());
        if let (Some(main), Some(proof)) = (&mut self.main, proof) {
            let request = Ok(Request::Roster(proof));
            let id = main.swarm.behaviour_mut().control.send_request(&swarm::peer_id(node), request);
            self.pending.insert(id, Pending { peer: node, purpose: Purpose::Parting, again: None });
            self.departing.insert(node, now + PARTING);
        } else {
            self.depart(node);
        }
    }

    /// Closes the links of a node that was shut out, unless it is a member again.
    pub(super) fn depart(&mut self, node: NodeId) {
        self.departing.remove(&node);
        if self.peers.contains_key(&node) {
            return;
        }
        if let Some(main) = &mut self.main {
            main.swarm.behaviour_mut().allowed.disallow_peer(swarm::peer_id(node));
        }
    }

    /// What a node that is shut out is told.
    pub(super) fn parting(&self, node: &NodeId) -> Option<&Parting> {
        self.roster.as_ref()?.parting.get(node)
    }

    fn up_peers(&self) -> Vec<NodeId> {
        // A peer that is slow to answer gets the next advert, not all of them.
        let ready = |peer: &Peer| peer.is_up() && peer.in_flight < IN_FLIGHT / 2;
        self.peers.iter().filter(|(_, peer)| ready(peer)).map(|(node, _)| *node).collect()
    }

    /// Signs and pushes our advert when it is due.
    pub(super) fn spread_own_advert(&mut self, now: Instant) {
        let Some(pool) = self.main.as_ref().map(|main| main.pool) else { return };
        if self.stopping.is_some() {
            return;
        }
        let Some(advert) = self.own.due(now, wall_ms(), pool, &self.key) else { return };
        for node in self.up_peers() {
            self.send(node, AdvertBatch { adverts: vec![advert.clone()] }.into(), Purpose::AdvertPush);
        }
    }

    /// A peer has come up: tell it ours, and ask for what it knows.
    pub(super) fn greet_with_adverts(&mut self, node: NodeId) {
        if let Some(advert) = self.own.current().cloned() {
            self.send(node, AdvertBatch { adverts: vec![advert] }.into(), Purpose::AdvertPush);
        }
        self.sync_adverts(node);
        self.ask_for_inventory(Instant::now(), node);
    }

    fn sync_adverts(&mut self, node: NodeId) {
        let mut have = self.adverts.have();
        have.push((self.me, self.boot, u64::MAX));
        self.send(node, AdvertSync { have }.into(), Purpose::AdvertSync);
    }

    pub(super) fn sync_adverts_when_due(&mut self, now: Instant) {
        if self.sync_at > now {
            return;
        }
        self.sync_at = now + SYNC_EVERY + Duration::from_millis(self.dice() % SYNC_SPREAD_MS);
        let mut up = self.up_peers();
        for _ in 0..SYNC_PEERS.min(up.len()) {
            let at = usize::try_from(self.dice()).unwrap_or(0) % up.len();
            let node = up.swap_remove(at);
            self.sync_adverts(node);
        }
    }

    pub(super) fn ask_for_inventories(&mut self, now: Instant) {
        for node in self.up_peers() {
            self.ask_for_inventory(now, node);
        }
    }

    /// Asks a peer that is up for its inventory, when its advert says that there is a new one.
    pub(super) fn ask_for_inventory(&mut self, now: Instant, node: NodeId) {
        let Some(root) = self.adverts.get(&node).map(|advert| advert.inventory_root) else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let has: Option<ContentHash> = peer.inventory.as_ref().map(|(root, _)| *root);
        if !peer.is_up() || has == Some(root) || peer.inventory_at > now {
            return;
        }
        peer.inventory_at = now + INVENTORY_PAUSE;
        self.send(node, InventoryGet.into(), Purpose::Inventory(root));
    }
}
