//! Keys: a key checks, an id names. Secret halves wipe themselves and never print.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::{Deserializable, Kem, Serializable};
use zeroize::Zeroizing;

use crate::codec::{Decode, Encode};
use crate::ids::{BadId, NodeId, random_bytes};

/// An Ed25519 secret key (a node's, a studio admin's, or an invite's). Wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    pub fn generate() -> Self {
        Self::from_seed(&Zeroizing::new(random_bytes()))
    }

    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for a key file or for libp2p; it wipes itself.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` under `domain`. Nothing is ever signed without a domain.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        Signature(self.0.sign(&domain.prefixed(message)).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// What a signature is for. Each kind of signature has its own, so that none can stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static str);

impl Domain {
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub const fn name(self) -> &'static str {
        self.0
    }

    /// `domain ‖ 0x00 ‖ message`: no domain contains a zero byte, so no two pairs give the same bytes.
    fn prefixed(self, message: &[u8]) -> Vec<u8> {
        [self.0.as_bytes(), &[0], message].concat()
    }
}

/// A signature does not verify, or its key is one that must not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgedSignature {
    #[error("the signature does not match")]
    Mismatch,
    #[error("the key is weak or not a curve point")]
    BadKey,
}

/// An Ed25519 public key as it travels; checked when it is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The node that this key is the identity of.
    pub const fn node(&self) -> NodeId {
        NodeId::from_bytes(self.0)
    }

    /// Whether this is a usable key: a curve point of large order.
    pub fn is_sound(&self) -> bool {
        self.verifying().is_ok()
    }

    fn verifying(&self) -> Result<VerifyingKey, ForgedSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| ForgedSignature::BadKey)?;
        if key.is_weak() { Err(ForgedSignature::BadKey) } else { Ok(key) }
    }

    /// Verifies strictly (RFC 8032 with small-order and malleability checks).
    ///
    /// # Errors
    /// When the key is weak or the signature does not match.
    pub fn verify(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), ForgedSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.verifying()?
            .verify_strict(&domain.prefixed(message), &signature)
            .map_err(|_| ForgedSignature::Mismatch)
    }
}

impl From<NodeId> for PublicKey {
    fn from(node: NodeId) -> Self {
        Self(*node.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", &self.to_string()[..8])
    }
}

impl FromStr for PublicKey {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = |why| BadId { kind: "public key", given: text.chars().take(80).collect(), why };
        let bytes =
            data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| bad("not hexadecimal"))?;
        bytes.try_into().map(Self).map_err(|_| bad("wrong length"))
    }
}

/// An Ed25519 signature as it travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Signature([u8; 64]);

impl Signature {
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}…)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

pub(crate) type HpkeKem = hpke::kem::X25519HkdfSha256;

/// A node's X25519 secret key for opening envelopes; never derived from its signing key.
#[derive(Clone)]
pub struct KemSecret(<HpkeKem as Kem>::PrivateKey);

impl KemSecret {
    pub fn generate() -> Self {
        Self::from_bytes(&Zeroizing::new(random_bytes()))
    }

    /// # Panics
    /// Never: every 32 bytes are an X25519 scalar once clamped (RFC 7748 section 5).
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(<HpkeKem as Kem>::PrivateKey::from_bytes(bytes).expect("32 bytes are an X25519 key"))
    }

    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    pub fn public(&self) -> KemPublic {
        KemPublic(HpkeKem::sk_to_pk(&self.0).to_bytes().into())
    }

    pub(crate) fn hpke(&self) -> &<HpkeKem as Kem>::PrivateKey {
        &self.0
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemSecret(of {:?})", self.public())
    }
}

/// A node's X25519 public key, bound to the node by its member record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct KemPublic([u8; 32]);

impl KemPublic {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether something can be sealed for this key: a point of small order gives everybody the same secret.
    pub fn is_sound(&self) -> bool {
        // A clamped scalar is a multiple of eight, so that any of them takes a small-order point to zero, which
        // decapsulation refuses (RFC 7748 section 6.1, RFC 9180 section 7.1.4).
        let Ok(point) = <HpkeKem as Kem>::EncappedKey::from_bytes(&self.0) else { return false };
        HpkeKem::decap(KemSecret::from_bytes(&[0; 32]).hpke(), None, &point).is_ok()
    }

    pub(crate) fn hpke(&self) -> Option<<HpkeKem as Kem>::PublicKey> {
        <HpkeKem as Kem>::PublicKey::from_bytes(&self.0).ok()
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublic({}…)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Domain = Domain::new("scenemesh/v1/one");
    const OTHER: Domain = Domain::new("scenemesh/v1/other");

    #[test]
    fn a_signature_holds_for_its_key_domain_and_message_only() {
        let key = SecretKey::generate();
        let signature = key.sign(ONE, b"hello");
        assert_eq!(key.public().verify(ONE, b"hello", &signature), Ok(()));
        assert!(key.public().verify(OTHER, b"hello", &signature).is_err());
        assert!(key.public().verify(ONE, b"hullo", &signature).is_err());
        assert!(SecretKey::generate().public().verify(ONE, b"hello", &signature).is_err());
    }

    #[test]
    fn weak_keys_are_refused() {
        // The identity point, of order one: it would "verify" signatures over anything.
        let mut identity = [0; 32];
        identity[0] = 1;
        let weak = PublicKey::from_bytes(identity);
        assert!(!weak.is_sound());
        let signature = Signature::from_bytes([0; 64]);
        assert_eq!(weak.verify(ONE, b"anything", &signature), Err(ForgedSignature::BadKey));
    }

    #[test]
    fn weak_kem_keys_are_refused() {
        assert!(KemSecret::generate().public().is_sound());
        let mut one = [0; 32];
        one[0] = 1;
        // The points of order four, of order one, and of order two (as p - 1), in the field's own bytes.
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for weak in [[0; 32], one, minus_one] {
            assert!(!KemPublic::from_bytes(weak).is_sound(), "{weak:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let key = SecretKey::from_seed(&[9; 32]);
        assert!(!format!("{key:?}").contains(&data_encoding::HEXLOWER.encode(&[9; 8])));
    }
}
