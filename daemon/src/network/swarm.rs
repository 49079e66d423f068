//! Building swarms: keys, transport, and the tasks that drive links.

use std::future::Future;
use std::net::{IpAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::TransportError;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId, Swarm, Transport, dns, noise, tcp, yamux};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::keys::SecretKey;

use super::links;
use crate::supervisor::Tasks;

/// The node key in libp2p's clothes.
pub(super) fn keypair(key: &SecretKey) -> Result<Keypair, String> {
    Keypair::ed25519_from_bytes(*key.to_seed()).map_err(|error| error.to_string())
}

/// A node's PeerId.
///
/// # Panics
/// Never: a NodeId is the multihash of an Ed25519 key, which every PeerId parser takes.
pub(super) fn peer_id(node: NodeId) -> PeerId {
    PeerId::from_bytes(&node.to_multihash()).expect("a NodeId is written as a PeerId")
}

/// The node behind a PeerId; none for keys other than Ed25519.
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_multihash(&peer.to_bytes())
}

/// Takes `/p2p/NODE` off the end of an address.
pub(super) fn split_node(address: &Multiaddr) -> (Multiaddr, Option<NodeId>) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (bare, node_id(&peer)),
        _ => (address.clone(), None),
    }
}

/// A swarm over TCP with names, Noise and Yamux.
///
/// # Errors
/// When the key cannot be used for Noise.
pub(super) fn build<B: NetworkBehaviour>(
    keypair: &Keypair,
    behaviour: B,
    idle: Duration,
    tasks: &Tasks,
) -> Result<Swarm<B>, String> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let transport = match dns::tokio::Transport::system(tcp()) {
        Ok(with_names) => secured(with_names, keypair)?,
        Err(error) => {
            tracing::warn!(%error, "no name resolution: addresses with names will not be reached");
            secured(tcp(), keypair)?
        }
    };
    let config =
        libp2p::swarm::Config::with_executor(Links(tasks.clone())).with_idle_connection_timeout(idle);
    Ok(Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config))
}

fn secured<T>(transport: T, keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, String>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync,
    T::ListenerUpgrade: Send,
    T::Dial: Send,
{
    let noise = noise::Config::new(keypair).map_err(|error| error.to_string())?;
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(links::SIMULTANEOUS)
        .boxed())
}

/// Runs links as tasks of the node. A panic in one, which a peer may have provoked, ends that link only.
struct Links(Tasks);

impl libp2p::swarm::Executor for Links {
    fn exec(&self, link: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn("link", async move {
            if AssertUnwindSafe(link).catch_unwind().await.is_err() {
                tracing::error!("a link panicked and was closed; please report this");
            }
            Ok(())
        });
    }
}

/// Tries whether a port is free. libp2p listens with `SO_REUSEPORT`: without this, two daemons would share a port and each
/// see half of the links.
///
/// # Errors
/// When the port is taken, or the address is not of this machine.
pub(super) fn probe_free(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// Why a dial failed, short and in words.
pub(super) fn dial_words(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address is known".into(),
        DialError::WrongPeerId { obtained, address } => {
            format!("at {} answers another node, {obtained}", split_node(address).0)
        }
        DialError::Transport(attempts) => {
            let words = attempts.iter().map(|(address, error)| {
                let cause = match error {
                    TransportError::MultiaddrNotSupported(_) => {
                        "this kind of address is not supported".into()
                    }
                    TransportError::Other(error) => innermost(error),
                };
                format!("{}: {cause}", split_node(address).0)
            });
            words.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// The last cause in a chain: libp2p wraps every error several times, and says nothing on the way.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
