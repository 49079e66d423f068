//! PURE: which of a node's addresses to tell others, and where a porch may be.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Port of a porch when nothing else is configured.
const PORCH_PORT: u16 = 7873;

/// `/KIND/HOST/tcp/PORT…`: everything up to the port, and the port.
fn split(address: &str) -> Option<(&str, u16)> {
    let at = address.find("/tcp/")?;
    let port = address[at + 5..].split('/').next()?.parse().ok()?;
    Some((&address[..at], port))
}

/// How far away an address is of use: the lower, the farther.
fn rank(address: &str) -> u8 {
    let mut parts = address.split('/').skip(1);
    let (kind, host) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match kind {
        "ip4" => host.parse::<Ipv4Addr>().map_or(4, |ip| match ip {
            ip if ip.is_loopback() => 3,
            ip if ip.is_link_local() || ip.is_unspecified() => 2,
            ip if ip.is_private() => 1,
            _ => 0,
        }),
        "ip6" => host.parse::<Ipv6Addr>().map_or(4, |ip| match ip {
            ip if ip.is_loopback() => 3,
            ip if ip.is_unicast_link_local() || ip.is_unspecified() => 2,
            ip if ip.is_unique_local() => 1,
            _ => 0,
        }),
        _ => 0,
    }
}

fn best_first(external: impl IntoIterator<Item = String>, listening: &[String]) -> Vec<String> {
    let mut listening = listening.to_vec();
    // Stable: the system's order stands among equals.
    listening.sort_by_key(|address| rank(address));
    let mut all: Vec<String> = Vec::new();
    for address in external.into_iter().chain(listening) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Where this node's main swarm is reached, best first.
pub(super) fn mains(external: &[String], listening: &[String]) -> Vec<String> {
    best_first(external.iter().cloned(), listening)
}

/// Where this node's porch is reached, best first: beside each external address, at the port that the porch has here.
pub(super) fn porches(external: &[String], listening: &[String]) -> Vec<String> {
    let port = listening.iter().find_map(|address| split(address)).map(|(_, port)| port);
    let outside = external
        .iter()
        .filter_map(|address| Some(format!("{}/tcp/{}", split(address)?.0, port?)));
    best_first(outside.collect::<Vec<_>>(), listening)
}

/// Where the porch of a node may be whose main address is this: at the default port, or at the one after its main one.
pub(super) fn porches_near(address: &str) -> Vec<String> {
    let Some((host, port)) = split(address) else { return Vec::new() };
    let mut ports = vec![PORCH_PORT];
    ports.extend(port.checked_add(1).filter(|next| *next != PORCH_PORT));
    ports.into_iter().map(|port| format!("{host}/tcp/{port}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|&address| address.to_owned()).collect()
    }

    #[test]
    fn the_farthest_reaching_address_comes_first() {
        let listening = texts(&["/ip4/127.0.0.1/tcp/9001", "/ip4/192.168.1.5/tcp/9001", "/ip6/::1/tcp/9001"]);
        let external = texts(&["/dns4/render.example/tcp/9000"]);
        assert_eq!(
            porches(&external, &listening),
            texts(&[
                "/dns4/render.example/tcp/9001",
                "/ip4/192.168.1.5/tcp/9001",
                "/ip4/127.0.0.1/tcp/9001",
                "/ip6/::1/tcp/9001"
            ])
        );
        assert_eq!(mains(&external, &[]), external);
        assert!(porches(&external, &[]).is_empty(), "a closed porch is nowhere");
    }

    #[test]
    fn a_porch_is_looked_for_beside_the_main_address() {
        let near = porches_near("/ip4/10.0.0.5/tcp/9000/p2p/12D3KooW");
        assert_eq!(near, texts(&["/ip4/10.0.0.5/tcp/7873", "/ip4/10.0.0.5/tcp/9001"]));
        assert_eq!(porches_near("/dns4/gpu.example/tcp/7872"), texts(&["/dns4/gpu.example/tcp/7873"]));
        assert!(porches_near("/memory/5").is_empty());
    }
}
