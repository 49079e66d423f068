//! PURE: where the porch of another node may be.

/// Port of a porch when nothing else is configured.
const PORCH_PORT: u16 = 7873;

/// Where the porch of a node may be whose main address is this: at the default port, or at the one after its main one.
pub(super) fn porches_near(address: &str) -> Vec<String> {
    let Some((host, rest)) = address.split_once("/tcp/") else { return Vec::new() };
    let Some(port) = rest.split('/').next().and_then(|port| port.parse::<u16>().ok()) else {
        return Vec::new();
    };
    let mut ports = vec![PORCH_PORT];
    ports.extend(port.checked_add(1).filter(|next| *next != PORCH_PORT));
    ports.into_iter().map(|port| format!("{host}/tcp/{port}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_porch_is_looked_for_beside_the_main_address() {
        let near = porches_near("/ip4/10.0.0.5/tcp/9000/p2p/12D3KooW");
        assert_eq!(near, ["/ip4/10.0.0.5/tcp/7873", "/ip4/10.0.0.5/tcp/9001"]);
        assert_eq!(porches_near("/dns4/gpu.example/tcp/7872"), ["/dns4/gpu.example/tcp/7873"]);
        assert!(porches_near("/memory/5").is_empty());
    }
}
