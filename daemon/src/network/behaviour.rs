//! What the two swarms can do: one field per protocol.

use std::collections::HashMap;
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
use super::bucket::{Gate, Rate, prefix};
use super::exchange::{self, Control, Porch};

/// What identify says of the protocol family; checked by nobody, Hello decides.
const IDENTIFY_PROTOCOL: &str = "/scenemesh/1";
/// Strangers at the main swarm, by address: each costs a handshake. Members give back what they took.
const STRANGERS: Rate = Rate { burst: 256.0, per_second: 10.0 };
/// Handshakes of one address under way at once; one takes ten seconds at most.
const HANDSHAKES_PER_ADDRESS: usize = 16;
/// Links of one address at the porch, of 16 in all.
const LINKS_PER_ADDRESS: usize = 4;
/// How often a link is probed.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);

/// The main swarm: members only.
#[derive(NetworkBehaviour)]
pub(super) struct Main {
    /// Refuses every peer that the roster does not name; taking one off closes its links.
    pub(super) allowed: allow_block_list::Behaviour<AllowedPeers>,
    /// Bounds half-open links, which cost a handshake before anybody is known.
    limits: connection_limits::Behaviour,
    /// Of those, how many come from one address, and how often: members do not count once they are known.
    turnstile: Turnstile,
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
            .with_max_pending_incoming(Some(256))
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
            turnstile: Turnstile::new(STRANGERS, HANDSHAKES_PER_ADDRESS, Counts::Handshakes),
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
            turnstile: Turnstile::new(rate, LINKS_PER_ADDRESS, Counts::Links),
            limits: connection_limits::Behaviour::new(limits),
            porch: exchange::porch(StreamProtocol::new(PORCH_PROTOCOL), ProtocolSupport::Inbound),
        }
    }
}

/// The side that asks: it listens to nobody.
pub(super) fn visitor() -> Porch {
    exchange::porch(StreamProtocol::new(PORCH_PROTOCOL), ProtocolSupport::Outbound)
}

/// Refuses links from addresses that come too often, or have too many.
pub(super) struct Turnstile {
    gate: Gate,
    /// Most that count from one address at once.
    most: usize,
    counts: Counts,
    inside: HashMap<ConnectionId, IpAddr>,
}

/// What counts towards the most of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Until it is known who comes; who gets in does not count as having come.
    Handshakes,
    /// Until they are closed.
    Links,
}

#[derive(Debug, thiserror::Error)]
enum TurnedAway {
    #[error("this address comes too often")]
    TooOften,
    #[error("this address has {0} links open here, which is the most")]
    TooMany(usize),
}

impl Turnstile {
    fn new(rate: Rate, most: usize, counts: Counts) -> Self {
        Self { gate: Gate::new(rate), most, counts, inside: HashMap::new() }
    }

    fn admit(&mut self, link: ConnectionId, address: IpAddr, now: Instant) -> Result<(), TurnedAway> {
        let place = prefix(address);
        if self.inside.values().filter(|held| **held == place).count() >= self.most {
            return Err(TurnedAway::TooMany(self.most));
        }
        if !self.gate.admit(address, now) {
            return Err(TurnedAway::TooOften);
        }
        self.inside.insert(link, place);
        Ok(())
    }

    fn established(&mut self, link: ConnectionId) {
        if self.counts == Counts::Handshakes
            && let Some(address) = self.inside.remove(&link)
        {
            self.gate.give_back(address);
        }
    }
}

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
        link: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        ip_of(remote).map_or(Ok(()), |ip| self.admit(link, ip, Instant::now())).map_err(ConnectionDenied::new)
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

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(link) => self.established(link.connection_id),
            FromSwarm::ConnectionClosed(link) => drop(self.inside.remove(&link.connection_id)),
            FromSwarm::ListenFailure(link) => drop(self.inside.remove(&link.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 8.0, per_second: 0.0 };

    fn link(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn one_address_leaves_places_to_others() {
        let now = Instant::now();
        let mut turnstile = Turnstile::new(RATE, 2, Counts::Links);
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        assert!(turnstile.admit(link(1), one, now).is_ok());
        assert!(turnstile.admit(link(2), one, now).is_ok());
        let error = turnstile.admit(link(3), one, now).unwrap_err();
        assert!(error.to_string().contains("2 links"), "{error}");
        assert!(turnstile.admit(link(4), other, now).is_ok());
        turnstile.established(link(1));
        assert!(turnstile.admit(link(5), one, now).is_err(), "an open link still counts");
        turnstile.inside.remove(&link(1));
        assert!(turnstile.admit(link(6), one, now).is_ok());
    }

    #[test]
    fn members_come_as_often_as_they_like_and_strangers_do_not() {
        let now = Instant::now();
        let mut turnstile = Turnstile::new(RATE, 2, Counts::Handshakes);
        let one = IpAddr::from([10, 0, 0, 1]);
        for n in 0..100 {
            assert!(turnstile.admit(link(n), one, now).is_ok());
            turnstile.established(link(n));
        }
        for n in 100..108 {
            assert!(turnstile.admit(link(n), one, now).is_ok());
            turnstile.inside.remove(&link(n));
        }
        assert!(matches!(turnstile.admit(link(200), one, now), Err(TurnedAway::TooOften)));
        assert!(turnstile.inside.is_empty());
    }
}
