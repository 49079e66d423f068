//! Multiaddr text in few bytes: the common forms by tag, anything else as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ADDRESS_LEN_LIMIT;

const TEXT: u8 = 0;
const IP4_TCP: u8 = 1;
const IP6_TCP: u8 = 2;
/// The tag of each of these is 3 and its place.
const DNS: [&str; 3] = ["dns", "dns4", "dns6"];

/// Whether this is multiaddr text that a code can carry.
pub(super) fn is_address(text: &str) -> bool {
    text.starts_with('/') && text.len() <= ADDRESS_LEN_LIMIT && text.bytes().all(|b| b.is_ascii_graphic())
}

/// `1 ‖ IPv4 ‖ port`, `2 ‖ IPv6 ‖ port`, `3..=5 ‖ length ‖ host ‖ port`, or `0 ‖ length ‖ text`; ports big-endian.
pub(super) fn to_compact(text: &str) -> Vec<u8> {
    // Only a form that gives back the very same text is used.
    tagged(text).filter(|bytes| from_compact(bytes).is_some_and(|(back, _)| back == text)).unwrap_or_else(
        || {
            let len = u8::try_from(text.len()).expect("addresses are at most 128 bytes");
            [&[TEXT, len], text.as_bytes()].concat()
        },
    )
}

fn tagged(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.strip_prefix('/')?.split('/');
    let (kind, host, tcp, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if tcp != "tcp" || parts.next().is_some() {
        return None;
    }
    let port = port.parse::<u16>().ok()?.to_be_bytes();
    match kind {
        "ip4" => Some([&[IP4_TCP][..], &host.parse::<Ipv4Addr>().ok()?.octets(), &port].concat()),
        "ip6" => Some([&[IP6_TCP][..], &host.parse::<Ipv6Addr>().ok()?.octets(), &port].concat()),
        name => {
            let tag = 3 + u8::try_from(DNS.iter().position(|dns| *dns == name)?).ok()?;
            let len = u8::try_from(host.len()).ok()?;
            Some([&[tag, len], host.as_bytes(), &port].concat())
        }
    }
}

/// Reads one address and gives the rest.
pub(super) fn from_compact(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (text, rest) = match tag {
        TEXT => {
            let (text, rest) = counted(bytes)?;
            (text.to_owned(), rest)
        }
        IP4_TCP => {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            let (port, rest) = port(rest)?;
            (format!("/ip4/{}/tcp/{port}", Ipv4Addr::from(*ip)), rest)
        }
        IP6_TCP => {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            let (port, rest) = port(rest)?;
            (format!("/ip6/{}/tcp/{port}", Ipv6Addr::from(*ip)), rest)
        }
        _ => {
            let kind = DNS.get(usize::from(tag).checked_sub(3)?)?;
            let (host, rest) = counted(bytes)?;
            let (port, rest) = port(rest)?;
            (format!("/{kind}/{host}/tcp/{port}"), rest)
        }
    };
    is_address(&text).then_some((text, rest))
}

fn counted(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&len, bytes) = bytes.split_first()?;
    let (text, rest) = bytes.split_at_checked(usize::from(len))?;
    Some((str::from_utf8(text).ok()?, rest))
}

fn port(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (port, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*port), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for (text, len) in [
            ("/ip4/192.168.1.20/tcp/7873", 7),
            ("/ip6/fd00::12/tcp/7873", 19),
            ("/dns/ws-01.studio.example/tcp/7873", 24),
            ("/dns4/ws-01.studio.example/tcp/1", 24),
            ("/dns6/ws-01.studio.example/tcp/65535", 24),
            ("/ip4/10.0.0.1/udp/7873/quic-v1", 32),
            // A form of its own keeps its text: leading zeros, an IPv6 address written out.
            ("/ip6/fd00:0::12/tcp/7873", 26),
            ("/ip4/10.0.0.1/tcp/07873", 25),
        ] {
            let compact = to_compact(text);
            assert_eq!(compact.len(), len, "{text}");
            assert_eq!(from_compact(&compact), Some((text.to_owned(), &[][..])));
        }
    }

    #[test]
    fn strange_bytes_are_no_address() {
        for bytes in [&[][..], &[9], &[1, 10, 0, 0], &[0, 5, b'h'], &[0, 1, b'h'], &[0, 2, b'/', b'\n']] {
            assert_eq!(from_compact(bytes), None, "{bytes:?}");
        }
    }
}
