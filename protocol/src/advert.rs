//! What a node offers: GPUs, memory, slots, warm models. Self-signed, small, often.

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode, Message};
use crate::ids::{BootId, ContentHash, NodeId, PoolId};
use crate::keys::Domain;
use crate::signed::Signable;
use crate::task::ModelName;

/// One GPU as its node advertises it. What a driver does not tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct GpuAdvert {
    pub name: String,
    pub vram_mib: Option<u32>,
    pub vram_free_mib: Option<u32>,
    /// CUDA compute capability times ten (8.9 is 89).
    pub cc: Option<u16>,
}

/// Whether this node takes work of others now. Other studios never learn why not, or until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    Available,
    NotNow,
}

/// How much of a task a renderer can remove afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hygiene {
    /// History, inputs, outputs, temp and the execution cache.
    Full,
    /// ComfyUI's folders are out of reach: some files stay.
    Partial,
}

/// A node's advert.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Advert {
    pub pool: PoolId,
    pub node: NodeId,
    pub boot: BootId,
    /// Counts up within a boot; the newest wins.
    pub seq: u64,
    /// Milliseconds since the Unix epoch on the sender's clock.
    pub created_ms: u64,
    /// Seconds after which the advert says nothing any more.
    pub ttl_s: u16,
    pub availability: Availability,
    pub hygiene: Hygiene,
    pub slots_total: u16,
    pub slots_free: u16,
    /// Offers waiting here.
    pub queue: u16,
    pub gpus: Vec<GpuAdvert>,
    /// Shared models that are loaded now, most recent first.
    pub warm: Vec<ModelName>,
    /// Changes when it is worth asking for the [`Inventory`] again. Only its sender can compute it: a keyed hash of all that
    /// it shows to anybody, so that nobody can test guesses about what is shown to others.
    pub inventory_root: ContentHash,
    /// Where this node is to be found, as multiaddr text: first what its configuration names as reachable from outside.
    pub external: Vec<String>,
    /// Where its porch is, likewise: whoever it does not know yet shows a record there.
    pub porch: Vec<String>,
    /// ComfyUI's version, empty when there is none.
    pub comfyui: String,
}

/// Adverts stay under a kilobyte, so that thirty nodes' heartbeats fit in one packet's worth of attention.
pub const ADVERT_LIMIT: usize = 1024;

impl Message for Advert {
    const TYPE: u16 = 0x0201;
    const LIMIT: usize = ADVERT_LIMIT;
}

impl Signable for Advert {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/advert");
}

impl Advert {
    /// Drops warm models, then external addresses beyond the first, until the body fits its limit.
    pub fn shrink_to_limit(&mut self) {
        while crate::codec::encode_body(self).len() > ADVERT_LIMIT {
            if self.warm.pop().is_some() {
                continue;
            }
            if self.external.len() > 1 {
                self.external.pop();
            } else if self.porch.len() > 1 {
                self.porch.pop();
            } else if self.gpus.len() > 1 {
                self.gpus.pop();
            } else {
                self.external.clear();
                self.porch.clear();
                if let Some(gpu) = self.gpus.first_mut() {
                    gpu.name.truncate(64.min(gpu.name.floor_char_boundary(64)));
                }
                self.comfyui.clear();
                return;
            }
        }
    }
}

/// What a node can run: node classes, and the models it shows to whoever asks. Sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Inventory {
    pub classes: Vec<String>,
    pub models: Vec<ModelName>,
}

impl Message for Inventory {
    const TYPE: u16 = 0x0202;
    const LIMIT: usize = 1 << 20;
}

impl Inventory {
    /// BLAKE3 of the encoded body.
    pub fn root(&self) -> ContentHash {
        ContentHash::of(&crate::codec::encode_body(self))
    }
}
