//! The porch: two verbs for strangers. The host side is a tiny swarm of its own; the visitor builds one per question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::request_response::{Event, Message, OutboundFailure, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, Swarm};
use scenemesh_protocol::codec::DecodeError;
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::messages::{Decline, PorchRequest, PorchResponse};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::behaviour::{self, PorchDoor, PorchDoorEvent, ip_of};
use super::bucket::{Gate, Rate};
use super::{PorchReply, RosterEvent, declined, swarm};
use crate::supervisor::Tasks;

/// A visitor waits this long for everything: dialling, handshake, answer.
const VISIT: Duration = Duration::from_secs(10);
/// Visits at once; others wait.
const VISITS: usize = 4;
/// A link at the porch that asks nothing is closed after this.
const IDLE: Duration = Duration::from_secs(5);
/// Most addresses tried in one visit.
const TRIED: usize = 8;

pub(super) type Channel = ResponseChannel<Result<PorchResponse, DecodeError>>;

/// A question at another node's porch came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PorchError {
    #[error("no usable address for {0:?}; ask for a fresh invite")]
    NoAddress(NodeId),
    #[error(
        "{node:?} cannot be reached at {addresses}: {cause}; is its daemon running, and its porch port open?"
    )]
    Unreachable { node: NodeId, addresses: String, cause: String },
    #[error(
        "at {address} answers {found}, not {expected:?}: the address belongs to another machine now; ask for a fresh invite"
    )]
    WrongNode { address: String, found: String, expected: NodeId },
    #[error("{0:?} did not answer in time; is its machine busy or asleep? try again in a minute")]
    TimedOut(NodeId),
    #[error(
        "{node:?} closed the link without an answer: {cause}; it may have had too many questions, try again in a minute"
    )]
    Closed { node: NodeId, cause: String },
    #[error("{node:?} answered what this release does not understand: {cause}; upgrade the older side")]
    Garbled { node: NodeId, cause: String },
    #[error("cannot set up a link: {0}")]
    Setup(String),
}

/// The host side while it is open.
pub(super) struct Host {
    pub(super) swarm: Swarm<PorchDoor>,
    gate: Gate,
    addresses: HashMap<ConnectionId, Multiaddr>,
}

/// What the actor has to do after an event at the porch.
pub(super) enum HostEvent {
    Listening,
    /// Hand this up, and answer through the channel what comes back.
    Asked {
        event: Box<RosterEvent>,
        answer: oneshot::Receiver<PorchResponse>,
        channel: Channel,
    },
}

impl Host {
    pub(super) fn open(keypair: &Keypair, rate: Rate, tasks: &Tasks) -> Result<Self, String> {
        let swarm = swarm::build(keypair, PorchDoor::host(rate), IDLE, tasks)?;
        Ok(Self { swarm, gate: Gate::new(rate), addresses: HashMap::new() })
    }

    /// Handles what the swarm says.
    pub(super) fn on_event(&mut self, now: Instant, event: SwarmEvent<PorchDoorEvent>) -> Option<HostEvent> {
        match event {
            SwarmEvent::ConnectionEstablished {
                connection_id,
                endpoint: ConnectedPoint::Listener { send_back_addr, .. },
                ..
            } => {
                self.addresses.insert(connection_id, send_back_addr);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.addresses.remove(&connection_id);
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => return Some(HostEvent::Listening),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "the porch cannot accept a link");
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "a link at the porch was turned away");
            }
            SwarmEvent::Behaviour(PorchDoorEvent::Porch(Event::Message {
                peer,
                connection_id,
                message: Message::Request { request, channel, .. },
            })) => {
                let from = swarm::node_id(&peer);
                let address = self.addresses.get(&connection_id).cloned();
                return self.on_request(now, from.zip(address), request, channel);
            }
            _ => {}
        }
        None
    }

    fn on_request(
        &mut self,
        now: Instant,
        visitor: Option<(NodeId, Multiaddr)>,
        request: Result<PorchRequest, DecodeError>,
        channel: Channel,
    ) -> Option<HostEvent> {
        let (from, address) = visitor?;
        if ip_of(&address).is_some_and(|ip| !self.gate.admit(ip, now)) {
            self.answer(channel, declined(Decline::Busy, "too many questions from this address").into());
            return None;
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                self.answer(channel, declined(Decline::Unsupported, error.to_string()).into());
                return None;
            }
        };
        let (reply, answer) = PorchReply::channel();
        let event = Box::new(RosterEvent::Porch { from, address: address.to_string(), request, reply });
        Some(HostEvent::Asked { event, answer, channel })
    }

    pub(super) fn answer(&mut self, channel: Channel, response: PorchResponse) {
        // The visitor may have left; it will ask again.
        drop(self.swarm.behaviour_mut().porch.send_response(channel, Ok(response)));
    }
}

/// The visiting side; works without any open swarm.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    keypair: Keypair,
    tasks: Tasks,
    visits: Arc<Semaphore>,
}

impl Visitor {
    pub(super) fn new(keypair: Keypair, tasks: Tasks) -> Self {
        Self { keypair, tasks, visits: Arc::new(Semaphore::new(VISITS)) }
    }

    pub(super) async fn ask(
        &self,
        addresses: &[String],
        expect: NodeId,
        request: PorchRequest,
    ) -> Result<PorchResponse, PorchError> {
        let parsed: Vec<_> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let addresses: Vec<_> =
            parsed.iter().map(|address| swarm::split_node(address).0).take(TRIED).collect();
        if addresses.is_empty() {
            return Err(PorchError::NoAddress(expect));
        }
        let _visit = self.visits.acquire().await.expect("the semaphore is never closed");
        let visit = self.visit(addresses, expect, request);
        tokio::time::timeout(VISIT, visit).await.unwrap_or(Err(PorchError::TimedOut(expect)))
    }

    async fn visit(
        &self,
        addresses: Vec<Multiaddr>,
        node: NodeId,
        request: PorchRequest,
    ) -> Result<PorchResponse, PorchError> {
        let mut swarm = swarm::build(&self.keypair, behaviour::visitor(), IDLE, &self.tasks)
            .map_err(PorchError::Setup)?;
        let peer = swarm::peer_id(node);
        let tried = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            .allocate_new_port()
            .build();
        swarm.dial(dial).map_err(|error| dial_error(node, &tried, error))?;
        let mut request = Some(request);
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => {
                    if let Some(request) = request.take() {
                        swarm.behaviour_mut().send_request(&peer, Ok(request));
                    }
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    return Err(dial_error(node, &tried, error));
                }
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Response { response, .. }, ..
                }) => {
                    return response.map_err(|error| PorchError::Garbled { node, cause: error.to_string() });
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) => {
                    return Err(failure(node, &error));
                }
                _ => {}
            }
        }
    }
}

fn dial_error(node: NodeId, tried: &str, error: DialError) -> PorchError {
    match error {
        DialError::WrongPeerId { obtained, address } => PorchError::WrongNode {
            address: swarm::split_node(&address).0.to_string(),
            found: obtained.to_string(),
            expected: node,
        },
        error => {
            PorchError::Unreachable { node, addresses: tried.to_owned(), cause: swarm::dial_words(&error) }
        }
    }
}

fn failure(node: NodeId, failure: &OutboundFailure) -> PorchError {
    match failure {
        OutboundFailure::Timeout => PorchError::TimedOut(node),
        OutboundFailure::UnsupportedProtocols => {
            PorchError::Garbled { node, cause: "this is not a porch: is it the main port?".into() }
        }
        other => PorchError::Closed { node, cause: other.to_string() },
    }
}
