//! Ports that stay their owner's while nobody listens on them: a node that is being restarted finds its own free.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

/// A port of loopback. On Linux a socket is bound to it for as long as this lives, so that no outgoing connection and no
/// other listener is given it; whoever sets `SO_REUSEADDR`, as libp2p and tokio do, can listen there all the same,
/// because that socket never does. Other systems refuse such a listener: there the port is only known to have been free.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: Option<TcpSocket>,
}

impl Port {
    /// One that is free.
    ///
    /// # Errors
    /// When there is none.
    pub fn any() -> Result<Self> {
        Self::at(0)
    }

    /// Two that are free, one after the other.
    ///
    /// # Errors
    /// When none are found.
    pub fn pair() -> Result<(Self, Self)> {
        let pair = (0..64).find_map(|_| {
            let first = Self::any().ok()?;
            let second = Self::at(first.address.port().checked_add(1)?).ok()?;
            Some((first, second))
        });
        pair.context("two free ports beside each other")
    }

    fn at(port: u16) -> Result<Self> {
        let socket = TcpSocket::new_v4().context("making a socket")?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).with_context(|| format!("taking port {port}"))?;
        let address = socket.local_addr()?;
        Ok(Self { address, _held: cfg!(target_os = "linux").then_some(socket) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As libp2p writes it.
    pub fn multiaddr(&self) -> String {
        format!("/ip4/{}/tcp/{}", self.address.ip(), self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn its_owner_can_listen_there_again_and_again() {
        let port = Port::any().unwrap();
        for _ in 0..3 {
            let listener = TcpListener::bind(port.address()).await.unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(port.address()), listener.accept());
            drop((client.unwrap(), accepted.unwrap()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn nobody_else_is_given_it_meanwhile() {
        let ports: Vec<Port> = (0..200).map(|_| Port::any().unwrap()).collect();
        let ours: BTreeSet<u16> = ports.iter().map(|port| port.address().port()).collect();
        assert_eq!(ours.len(), ports.len());
        let others: Vec<_> = (0..200).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for other in &others {
            assert!(!ours.contains(&other.local_addr().unwrap().port()));
        }
        assert!(std::net::UdpSocket::bind(ports[0].address()).is_ok(), "of TCP alone");
    }
}
