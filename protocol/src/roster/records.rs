//! The records: members and revocations, each signed on its own by an admin of the studio it speaks about.

use crate::codec::{self, Decode, Encode, Message};
use crate::ids::{ContentHash, PoolId, StudioId};
use crate::keys::{Domain, ForgedSignature, KemPublic, PublicKey, SecretKey, Signature};
use crate::signed::{Signable, Signed};

/// What a node may do. Any of the three, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Roles {
    pub submit: bool,
    pub render: bool,
    /// May be a deputy that keeps others' jobs.
    pub keep: bool,
}

impl Roles {
    pub const ALL: Self = Self { submit: true, render: true, keep: true };
}

/// A machine of a studio.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    pub pool: PoolId,
    pub studio: StudioId,
    pub node: PublicKey,
    pub kem: KemPublic,
    pub name: String,
    pub roles: Roles,
    /// The highest version of a node's records holds.
    pub version: u32,
    pub issued_ms: u64,
    /// Milliseconds since the Unix epoch after which the node is no member any more.
    pub not_after_ms: Option<u64>,
    /// The node's own signature under [`Consent`]: no studio can claim a machine that did not choose it.
    pub consent: Signature,
}

/// What a node signs to belong to a studio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Consent {
    pub pool: PoolId,
    pub studio: StudioId,
    pub kem: KemPublic,
}

const CONSENT_DOMAIN: Domain = Domain::new("scenemesh/v1/consent");

impl Consent {
    pub fn sign(&self, node: &SecretKey) -> Signature {
        node.sign(CONSENT_DOMAIN, &codec::encode_body(self))
    }

    /// Checks that `node` chose this studio with this KEM key.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify(&self, node: &PublicKey, signature: &Signature) -> Result<(), ForgedSignature> {
        node.verify(CONSENT_DOMAIN, &codec::encode_body(self), signature)
    }
}

impl Message for Member {
    const TYPE: u16 = 0x0003;
    const LIMIT: usize = 512;
}

impl Signable for Member {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/member");
}

/// A key of a studio that is refused from now on, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revoked {
    pub pool: PoolId,
    pub studio: StudioId,
    pub key: PublicKey,
    pub reason: String,
    pub issued_ms: u64,
}

impl Message for Revoked {
    const TYPE: u16 = 0x0004;
    const LIMIT: usize = 1024;
}

impl Signable for Revoked {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/revoked");
}

/// What a node signs with its old key and with its new one to go on under the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rotation {
    pub pool: PoolId,
    pub studio: StudioId,
    pub old: PublicKey,
    pub new: PublicKey,
    /// The new KEM key.
    pub kem: KemPublic,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
}

const ROTATION_DOMAIN: Domain = Domain::new("scenemesh/v1/rotation");

impl Rotation {
    pub fn sign(&self, key: &SecretKey) -> Signature {
        key.sign(ROTATION_DOMAIN, &codec::encode_body(self))
    }

    /// Checks that `key`, the old one or the new one, agreed.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify(&self, key: &PublicKey, signature: &Signature) -> Result<(), ForgedSignature> {
        key.verify(ROTATION_DOMAIN, &codec::encode_body(self), signature)
    }
}

/// A node that goes on under a new key: both keys signed, and an admin of its studio countersigns. From then on the
/// old key is refused like a revoked one. The member record of the new key is a record of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rotated {
    pub rotation: Rotation,
    pub old_signature: Signature,
    pub new_signature: Signature,
}

impl Message for Rotated {
    const TYPE: u16 = 0x0008;
    const LIMIT: usize = 512;
}

impl Signable for Rotated {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/rotated");
}

/// A record as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SignedRecord {
    Member(Signed<Member>),
    Revoked(Signed<Revoked>),
    Rotated(Signed<Rotated>),
}

impl SignedRecord {
    pub fn hash(&self) -> ContentHash {
        match self {
            Self::Member(signed) => signed.hash(),
            Self::Revoked(signed) => signed.hash(),
            Self::Rotated(signed) => signed.hash(),
        }
    }
}

impl Message for SignedRecord {
    const TYPE: u16 = 0x0005;
    const LIMIT: usize = 2048;
}
