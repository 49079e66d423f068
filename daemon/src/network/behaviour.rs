//! What the two swarms can do: one field per protocol.

use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, mdns, ping};
use scenemesh_protocol::messages::PORCH_PROTOCOL;
use tokio::time::Instant;

use super::Config;
use super::bucket::{Gate, Rate};
use super::exchange::{self, Control, Porch};

/// What identify says of the protocol family; checked by nobody, Hello decides.
const IDENTIFY_PROTOCOL: &str = "/scenemesh/1";
/// How often a link is probed.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);

/// The main swarm: members only.
#[derive(NetworkBehaviour)]
pub(super) struct Main {
    /// Refuses every peer that the roster does not name; taking one off closes its links.
    pub(super) allowed: allow_block_list::Behaviour<AllowedPeers>,
    /// Bounds half-open links, which cost a handshake before anybody is known.
    limits: connection_limits::Behaviour,
    /// Tells peers our addresses and learns theirs.
    identify: identify::Behaviour,
    /// Round trips, and whether a link still lives.
    ping: ping::Behaviour,
    /// Finds neighbours; what it finds is filtered by the roster before anything is dialled.
    mdns: Toggle<mdns::tokio::Behaviour>,
    /// Requests and answers.
    pub(super) control: Control,
    /// Sealed blobs.
    pub(super) streams: libp2p_stream::Behaviour,
}

impl Main {
    pub(super) fn new(keypair: &Keypair, agent: &str, control: StreamProtocol, config: &Config) -> Self {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(64))
            .with_max_pending_outgoing(Some(64))
            .with_max_established_per_peer(Some(4))
            .with_max_established(Some(2048));
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), keypair.public())
            .with_agent_version(agent.into())
            .with_push_listen_addr_updates(true)
            .with_hide_listen_addrs(!config.announce_listen)
            .with_cache_size(0);
        Self {
            allowed: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_EVERY),
            ),
            mdns: Toggle::from(config.mdns.then(|| neighbours(keypair)).flatten()),
            control: exchange::control(control),
            streams: libp2p_stream::Behaviour::new(),
        }
    }
}

fn neighbours(keypair: &Keypair) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config {
        ttl: Duration::from_secs(2 * 60),
        query_interval: Duration::from_secs(30),
        enable_ipv6: false,
    };
    mdns::tokio::Behaviour::new(config, keypair.public().to_peer_id())
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot look for neighbours with mdns; members need known addresses");
        })
        .ok()
}

/// The porch: anybody, a little.
#[derive(NetworkBehaviour)]
pub(super) struct PorchDoor {
    /// Turns away addresses that come too often, before the handshake.
    turnstile: Turnstile,
    limits: connection_limits::Behaviour,
    pub(super) porch: Porch,
}

impl PorchDoor {
    /// The side that answers.
    pub(super) fn host(rate: Rate) -> Self {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(16))
            .with_max_pending_outgoing(Some(0))
            .with_max_established_incoming(Some(16))
            .with_max_established_per_peer(Some(2));
        // An ask takes a link and a request: links are a little cheaper, so that the usual refusal is one in words.
        let rate = Rate { burst: rate.burst * 2.0, per_second: rate.per_second * 2.0 };
        Self {
            turnstile: Turnstile { gate: Gate::new(rate) },
            limits: connection_limits::Behaviour::new(limits),
            porch: exchange::porch(StreamProtocol::new(PORCH_PROTOCOL), ProtocolSupport::Inbound),
        }
    }
}

/// The side that asks: it listens to nobody.
pub(super) fn visitor() -> Porch {
    exchange::porch(StreamProtocol::new(PORCH_PROTOCOL), ProtocolSupport::Outbound)
}

/// Refuses links from addresses that come too often.
pub(super) struct Turnstile {
    gate: Gate,
}

#[derive(Debug, thiserror::Error)]
#[error("this address comes too often")]
struct TooOften;

/// The IP address in a multiaddr, when it begins with one.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

impl NetworkBehaviour for Turnstile {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match ip_of(remote) {
            Some(ip) if !self.gate.admit(ip, Instant::now()) => Err(ConnectionDenied::new(TooOften)),
            _ => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
