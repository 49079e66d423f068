//! Signed things: bytes with a signer, and the proof that they were checked.

use std::marker::PhantomData;

use crate::codec::{self, Decode, DecodeError, Encode, Message};
use crate::ids::ContentHash;
use crate::keys::{Domain, ForgedSignature, PublicKey, SecretKey, Signature};

/// A message that is signed; its domain is part of what is signed and is used for nothing else.
pub trait Signable: Message {
    const DOMAIN: Domain;
}

/// A body as it was signed, with its signer. It travels and is stored as these bytes, never re-encoded.
///
/// What it says cannot be read before [`Signed::verify`]: the only way to a [`Verified`] is the check.
#[derive(Encode, Decode)]
pub struct Signed<T> {
    body: Vec<u8>,
    signer: PublicKey,
    signature: Signature,
    kind: PhantomData<T>,
}

/// The signature or the body under it is not what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error(transparent)]
    Forged(#[from] ForgedSignature),
    #[error("signed body: {0}")]
    Malformed(#[from] DecodeError),
}

impl<T: Signable> Signed<T> {
    pub fn new(value: &T, key: &SecretKey) -> Self {
        let body = codec::encode_body(value);
        let signature = key.sign(T::DOMAIN, &body);
        Self { body, signer: key.public(), signature, kind: PhantomData }
    }

    /// Checks the signature, then decodes exactly.
    ///
    /// Whether the signer may say this is for the caller to judge from [`Verified::signer`].
    ///
    /// # Errors
    /// When the signature does not hold or the body is not exactly one `T` within its limit.
    pub fn verify(&self) -> Result<Verified<T>, Unverified> {
        self.signer.verify(T::DOMAIN, &self.body, &self.signature)?;
        let value = codec::decode_body(&self.body, T::LIMIT)?;
        Ok(Verified { value, signer: self.signer, hash: self.hash(), signed: self.clone() })
    }
}

impl<T> Signed<T> {
    /// BLAKE3 of the signed bytes: names this statement whoever repeats it.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.body)
    }

    /// Who claims to have signed; not yet checked.
    pub fn claimed_signer(&self) -> PublicKey {
        self.signer
    }

    /// The signed bytes, for sizes and hashes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { body: self.body.clone(), signer: self.signer, signature: self.signature, kind: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.signer == other.signer && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        write!(f, "Signed<{kind}>({:?} by {:?})", self.hash(), self.signer)
    }
}

/// A value whose signature was checked. There is no other way to get one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    signer: PublicKey,
    hash: ContentHash,
    signed: Signed<T>,
}

impl<T> Verified<T> {
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// BLAKE3 of the signed bytes.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The bytes as they were signed, to pass on or to store.
    pub fn signed(&self) -> &Signed<T> {
        &self.signed
    }

    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
