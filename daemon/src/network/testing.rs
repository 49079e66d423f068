//! What tests of several rooms make adverts of.

use scenemesh_protocol::advert::{Advert, Availability, Hygiene};
use scenemesh_protocol::ids::{BootId, ContentHash, NodeId, PoolId};

/// Of a node with one free slot and nothing else to tell.
pub(crate) fn advert(node: NodeId) -> Advert {
    Advert {
        pool: PoolId::from_bytes([0; 16]),
        node,
        boot: BootId::from_bytes([0; 16]),
        seq: 1,
        created_ms: 0,
        ttl_s: 90,
        availability: Availability::Available,
        hygiene: Hygiene::Full,
        slots_total: 1,
        slots_free: 1,
        queue: 0,
        gpus: Vec::new(),
        warm: Vec::new(),
        inventory_root: ContentHash::of(b""),
        external: Vec::new(),
        porch: Vec::new(),
        comfyui: String::new(),
    }
}
