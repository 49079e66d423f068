//! PURE which of this node's addresses others are told, best first: outside ones, then the local network's, loopback last.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Addresses to tell: what the configuration names as `external`, then what is listened on, unless that is kept secret.
pub(super) fn main(external: &[Multiaddr], listening: &[Multiaddr], announce: bool) -> Vec<Multiaddr> {
    let mut own: Vec<Multiaddr> = if announce { listening.to_vec() } else { Vec::new() };
    own.sort_by_key(is_loopback);
    external.iter().cloned().chain(own).collect()
}

/// Where strangers knock: each external host with the porch's port, then the porch's own addresses.
pub(super) fn porch(external: &[Multiaddr], listening: &[Multiaddr], announce: bool) -> Vec<Multiaddr> {
    let port = listening.iter().find_map(tcp_port);
    let outside = external.iter().filter_map(|address| with_port(address, port?));
    let mut own: Vec<Multiaddr> =
        if announce || external.is_empty() { listening.to_vec() } else { Vec::new() };
    own.sort_by_key(is_loopback);
    let mut all: Vec<Multiaddr> = Vec::new();
    for address in outside.chain(own) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

fn tcp_port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })
}

/// The same host on another TCP port; nothing when the address has none.
fn with_port(address: &Multiaddr, port: u16) -> Option<Multiaddr> {
    tcp_port(address)?;
    let parts =
        address.iter().map(|part| if matches!(part, Protocol::Tcp(_)) { Protocol::Tcp(port) } else { part });
    Some(parts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn outside_addresses_come_first_and_loopback_last() {
        let external = all(&["/ip4/203.0.113.5/tcp/7872"]);
        let listening = all(&["/ip4/127.0.0.1/tcp/7872", "/ip4/192.168.1.4/tcp/7872"]);
        let told = main(&external, &listening, true);
        assert_eq!(
            told,
            all(&["/ip4/203.0.113.5/tcp/7872", "/ip4/192.168.1.4/tcp/7872", "/ip4/127.0.0.1/tcp/7872"])
        );
        assert_eq!(main(&external, &listening, false), external);
    }

    #[test]
    fn strangers_are_sent_to_the_porch_of_the_outside_host() {
        let external = all(&["/dns4/amber.example/tcp/7872", "/dns4/amber.example/tcp/9999"]);
        let listening = all(&["/ip4/127.0.0.1/tcp/7873"]);
        assert_eq!(
            porch(&external, &listening, true),
            all(&["/dns4/amber.example/tcp/7873", "/ip4/127.0.0.1/tcp/7873"])
        );
        assert_eq!(
            porch(&[], &listening, false),
            listening,
            "without an outside address there is no other way in"
        );
    }
}
