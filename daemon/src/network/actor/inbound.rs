//! What peers ask: Hello before everything else, then answered here or passed on.

use libp2p::PeerId;
use libp2p::request_response::{Event, InboundFailure, Message};
use scenemesh_protocol::advert::{Advert, Inventory};
use scenemesh_protocol::codec::{DecodeError, Message as _};
use scenemesh_protocol::ids::BootId;
use scenemesh_protocol::messages::{AdvertBatch, Decline, Done, Hello, Request, Response};
use scenemesh_protocol::signed::Signed;

use super::{Actor, Channel, Instant, NodeId, RosterEvent, TaskEvent, declined, swarm, wall_ms};
use crate::network::adverts::{BATCH, Heard, fitting};
use crate::network::peers::{Greeting, HELD};
use crate::network::{Reply, hello};

impl Actor {
    pub(super) fn on_control(
        &mut self,
        now: Instant,
        event: Event<Result<Request, DecodeError>, Result<Response, DecodeError>>,
    ) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_request(now, &peer, request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_response(now, request_id, response);
            }
            Event::OutboundFailure { request_id, error, .. } => self.on_failure(now, request_id, &error),
            Event::InboundFailure { peer, error, .. } => {
                if !matches!(error, InboundFailure::ResponseOmission | InboundFailure::ConnectionClosed) {
                    tracing::debug!(%peer, %error, "a request was not answered");
                }
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        peer_id: &PeerId,
        request: Result<Request, DecodeError>,
        channel: Channel,
    ) {
        let Some(node) = swarm::node_id(peer_id) else { return };
        let Some(peer) = self.peers.get_mut(&node) else {
            let words = self.parting(&node).map(|parting| parting.words.clone());
            let words =
                words.unwrap_or_else(|| "not a member of this pool, as far as this node knows".into());
            let refusal = declined(Decline::NotAllowed, words);
            return self.answer(channel, refusal);
        };
        peer.last_seen_ms = Some(wall_ms());
        if let Err(words) = peer.calls.count(now, request.as_ref().ok()) {
            return self.answer(channel, declined(Decline::Busy, words));
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => return self.on_unreadable(now, node, &error, channel),
        };
        if let Request::Hello(hello) = request {
            return self.on_hello(now, node, &hello, channel);
        }
        if peer.heard_boot.is_none() {
            return self.answer(channel, declined(Decline::NoHello, "say hello first"));
        }
        if !peer.is_up() {
            // Whoever hears the request must have heard before that the peer is up.
            if peer.held.len() < HELD {
                peer.held.push((request, channel));
            } else {
                self.answer(channel, declined(Decline::Busy, "the link is not ready yet, try again"));
            }
            return;
        }
        self.pass_on(now, node, request, channel);
    }

    /// Answers or hands up a request of a peer that is up.
    pub(super) fn pass_on(&mut self, now: Instant, node: NodeId, request: Request, channel: Channel) {
        match request {
            Request::Hello(hello) => self.on_hello(now, node, &hello, channel),
            Request::Adverts(batch) => {
                self.absorb(now, node, &batch);
                self.answer(channel, Done);
            }
            Request::AdvertSync(sync) => {
                let start = self.dice();
                let mut adverts = self.adverts.lacking(&sync.have, start);
                adverts.extend(self.own.current().cloned());
                self.answer(channel, AdvertBatch { adverts });
            }
            Request::Inventory(_) => {
                let inventory = self.own.inventory(self.is_sister(&node));
                self.answer(channel, fitting(&inventory, Inventory::LIMIT));
            }
            Request::Definitions(get) => {
                let part = self.own.definitions(self.is_sister(&node), &get);
                self.answer(channel, part);
            }
            Request::Goodbye(_) => {
                tracing::info!(peer = %node.short(), "a member leaves");
                self.redial.goodbye(node);
                self.adverts.left(&node);
                self.table.stale = true;
                self.answer(channel, Done);
            }
            request @ (Request::RosterSync(_) | Request::Roster(_)) => {
                if let Some(reply) = self.reply_through(node, channel) {
                    self.outlets.roster.ask(RosterEvent::Request { from: node, request, reply });
                }
            }
            request @ (Request::StudioSync(_) | Request::Studio(_)) => {
                if !self.is_sister(&node) {
                    let words = "a studio's own records stay in that studio";
                    return self.answer(channel, declined(Decline::NotAllowed, words));
                }
                if let Some(reply) = self.reply_through(node, channel) {
                    self.outlets.roster.ask(RosterEvent::Request { from: node, request, reply });
                }
            }
            Request::Keep(_) | Request::KeepNews(_) | Request::TakeBack(_) | Request::Release(_)
                if !self.is_sister(&node) =>
            {
                let words = "a job is kept by nodes of its own studio only";
                self.answer(channel, declined(Decline::NotAllowed, words));
            }
            request @ (Request::Offer(_)
            | Request::Keep(_)
            | Request::KeepNews(_)
            | Request::TakeBack(_)
            | Request::Release(_)
            | Request::Claim(_)
            | Request::Grant(_)
            | Request::Progress(_)
            | Request::Finished(_)
            | Request::Ack(_)
            | Request::Cancel(_)
            | Request::Probe(_)) => {
                if let Some(reply) = self.reply_through(node, channel) {
                    self.outlets.tasks.ask(TaskEvent::Request { from: node, request, reply });
                }
            }
        }
    }

    fn on_hello(&mut self, now: Instant, node: NodeId, hello: &Hello, channel: Channel) {
        match self.hear_hello(now, node, hello) {
            Ok(()) => match self.hello() {
                Some(mine) => self.answer(channel, mine),
                None => self.answer(channel, declined(Decline::Stopping, "this node is leaving")),
            },
            Err(words) => {
                self.answer(channel, declined(Decline::NotAllowed, words));
            }
        }
    }

    fn on_unreadable(&mut self, now: Instant, node: NodeId, error: &DecodeError, channel: Channel) {
        if let DecodeError::Version { theirs } = error {
            let (lowest, highest) = hello::VERSIONS;
            let words = format!("it speaks wire version {theirs}, this node {lowest} to {highest}");
            self.end_session(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.refuse(now, words);
            }
            self.table.stale = true;
        }
        self.answer(channel, declined(Decline::Unsupported, error.to_string()));
    }

    /// Takes adverts in, whoever brings them; how many were news.
    pub(super) fn absorb(&mut self, now: Instant, from: NodeId, batch: &AdvertBatch) -> usize {
        batch.adverts.iter().take(BATCH).filter(|signed| self.absorb_one(now, from, signed)).count()
    }

    fn absorb_one(&mut self, now: Instant, from: NodeId, signed: &Signed<Advert>) -> bool {
        let Some(main) = &self.main else { return false };
        let (me, peers) = (self.me, &self.peers);
        let heard = |node: NodeId| {
            let peer = peers.get(&node).filter(|_| node != me)?;
            let linked: Option<BootId> = peer.heard_boot.filter(|_| peer.link().is_some());
            Some(if node == from { Heard::Directly } else { Heard::FromOthers { linked } })
        };
        let Some(advert) = self.adverts.absorb(now, wall_ms(), &main.pool, signed, heard) else {
            return false;
        };
        let node = advert.node;
        for text in &advert.external {
            if let Ok(address) = text.parse() {
                self.redial.learn(now, node, swarm::split_node(&address).0, super::Source::Advert);
            }
        }
        self.note_addresses(now, node);
        self.table.stale = true;
        self.ask_for_inventory(now, node);
        true
    }

    pub(super) fn answer(&mut self, channel: Channel, response: impl Into<Response>) {
        if let Some(main) = &mut self.main {
            // The asker may be gone; it will ask again.
            drop(main.swarm.behaviour_mut().control.send_response(channel, Ok(response.into())));
        }
    }

    /// A reply that answers through `channel` once somebody has sent or dropped it; none, and an answer in words, when
    /// this peer has enough questions open.
    fn reply_through(&mut self, node: NodeId, channel: Channel) -> Option<Reply> {
        if !self.open.admit(node) {
            let words =
                "this node has as many of your requests open as it takes from one node; await their answers";
            self.answer(channel, declined(Decline::Busy, words));
            return None;
        }
        let (reply, answer) = Reply::channel();
        self.replies.push(Box::pin(async move {
            let busy = || declined(Decline::Busy, "too much to do, try again").into();
            (node, channel, answer.await.unwrap_or_else(|_| busy()))
        }));
        Some(reply)
    }

    /// Whether our Hello to a peer failed on a link that seems to live.
    pub(super) fn hello_again(&mut self, now: Instant, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node)
            && matches!(peer.greeting, Greeting::Sent)
        {
            peer.hello_failed(now);
        }
    }
}
