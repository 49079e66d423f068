//! Names of things: an id *names*, a key *checks*. All are plain bytes with one printed form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Decode, Encode};

/// What was given is not an id of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a {kind}: {why}")]
pub struct BadId {
    pub kind: &'static str,
    pub given: String,
    pub why: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name([u8; $len]);

        impl $name {
            pub const LEN: usize = $len;

            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight characters, for people; may be ambiguous.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = |why| BadId { kind: $kind, given: text.chars().take(80).collect(), why };
                let bytes = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .map_err(|_| bad("not hexadecimal"))?;
                let bytes = bytes.try_into().map_err(|_| bad("wrong length"))?;
                Ok(Self(bytes))
            }
        }

        text_serde!($name);
    };
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! random_id {
    ($($name:ident)*) => {$(
        impl $name {
            /// A fresh random id from the operating system.
            #[must_use]
            pub fn random() -> Self {
                Self(random_bytes())
            }
        }
    )*};
}

hex_id!(
    /// A pool: the first 16 bytes of BLAKE3 over its genesis settings.
    PoolId, 16, "pool id"
);
hex_id!(
    /// A studio: the first 16 bytes of BLAKE3 over its first admin key and its founding name.
    StudioId, 16, "studio id"
);
hex_id!(
    /// What a person submitted.
    JobId, 16, "job id"
);
hex_id!(
    /// One ComfyUI prompt: the unit of placement.
    TaskId, 16, "task id"
);
hex_id!(
    /// One sealed envelope; never reused, remembered against replay.
    MsgId, 16, "message id"
);
hex_id!(
    /// An offer of one job to one node, sticky until either side restarts.
    ReservationId, 16, "reservation id"
);
hex_id!(
    /// A slot held by a renderer for one reservation; the same claim always gets the same grant.
    ClaimId, 16, "claim id"
);
hex_id!(
    /// One run of a daemon; changes with every start.
    BootId, 16, "boot id"
);
hex_id!(
    /// BLAKE3 of some bytes.
    ContentHash, 32, "hash"
);

hex_id!(
    /// A project of a studio: random, so that it says nothing to others.
    ProjectId, 16, "project id"
);

random_id!(ProjectId JobId TaskId MsgId ReservationId ClaimId BootId);

impl ContentHash {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PoolId {
    /// The eight characters that stand in every libp2p protocol name of this pool.
    pub fn pool8(&self) -> String {
        self.short()
    }
}

pub(crate) fn first16(hash: &blake3::Hash) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    id
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness: nothing safe can follow.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// A node: its Ed25519 public key. Written as the libp2p PeerId of that key: base58 of the identity
/// multihash of the protobuf-encoded key (libp2p specs, peer-ids.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId([u8; 32]);

/// Identity multihash (0x00), 36 bytes (0x24), protobuf: key type Ed25519 (08 01), key data of 32 bytes (12 20).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The libp2p PeerId's bytes: a multihash.
    pub fn to_multihash(&self) -> Vec<u8> {
        [&PEER_ID_PREFIX[..], &self.0].concat()
    }

    /// Reads a libp2p PeerId's bytes; only Ed25519 identities are nodes.
    pub fn from_multihash(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX[..])?;
        key.try_into().ok().map(Self)
    }

    /// The last eight characters: every PeerId of an Ed25519 key begins alike.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_multihash()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node(…{})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = |why| BadId { kind: "node id", given: text.chars().take(80).collect(), why };
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad("not base58"))?;
        Self::from_multihash(&bytes).ok_or_else(|| bad("not the PeerId of an Ed25519 key"))
    }
}

text_serde!(NodeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_is_written_as_a_libp2p_peer_id() {
        let id = NodeId::from_bytes([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>().unwrap(), id);
    }

    #[test]
    fn ids_print_and_parse() {
        let id = TaskId::random();
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        let error = "xyz".parse::<TaskId>().unwrap_err();
        assert_eq!(error.to_string(), "\"xyz\" is not a task id: not hexadecimal");
    }
}
