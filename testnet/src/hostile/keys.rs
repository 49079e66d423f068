//! Keys, hashes, signatures over domains, and the clock, as the page's *Signatures* has them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::{Deserializable, Kem as _, Serializable};

use super::bytes::{Hash, Reader, Writer};

type X25519 = hpke::kem::X25519HkdfSha256;

/// BLAKE3.
pub fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

/// Fresh random bytes.
///
/// # Panics
/// When the operating system has none.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "a node that shares nothing with the daemon, its clock neither"
)]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

/// An Ed25519 key: a node's, an admin's or an invite's.
#[derive(Clone, Debug)]
pub struct Key(SigningKey);

impl Key {
    pub fn random() -> Self {
        Self::from_seed(random())
    }

    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `domain ‖ 0 ‖ message`.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&in_domain(domain, message)).to_bytes()
    }

    /// `Signed<T>` around a body.
    pub fn signed(&self, domain: &str, body: &[u8]) -> Signed {
        Signed { body: body.to_vec(), signer: self.public(), signature: self.sign(domain, body) }
    }
}

fn in_domain(domain: &str, message: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], message].concat()
}

/// Verifies strictly.
///
/// # Errors
/// When the signature is not the key's over the message in this domain.
pub fn verify(key: &[u8; 32], domain: &str, message: &[u8], signature: &[u8; 64]) -> Result<()> {
    let key = VerifyingKey::from_bytes(key).context("not a key")?;
    ensure!(!key.is_weak(), "a weak key");
    key.verify_strict(&in_domain(domain, message), &ed25519_dalek::Signature::from_bytes(signature))
        .with_context(|| format!("a signature in {domain}"))
}

/// `Signed<T>` as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub body: Vec<u8>,
    pub signer: [u8; 32],
    pub signature: [u8; 64],
}

impl Signed {
    pub fn write(&self, writer: Writer) -> Writer {
        writer.bytes(&self.body).raw(&self.signer).raw(&self.signature)
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { body: reader.bytes()?, signer: reader.raw()?, signature: reader.raw()? })
    }

    /// # Errors
    /// When the signature does not verify.
    pub fn verify(&self, domain: &str) -> Result<()> {
        verify(&self.signer, domain, &self.body, &self.signature)
    }

    pub fn hash(&self) -> Hash {
        hash(&self.body)
    }
}

/// An X25519 key for HPKE.
#[derive(Clone)]
pub struct Kem(pub(super) <X25519 as hpke::Kem>::PrivateKey);

impl std::fmt::Debug for Kem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kem")
    }
}

impl Kem {
    /// # Panics
    /// Never: every 32 bytes are a key.
    pub fn random() -> Self {
        let secret = <X25519 as hpke::Kem>::PrivateKey::from_bytes(&random::<32>());
        Self(secret.expect("32 bytes are an X25519 key"))
    }

    pub fn public(&self) -> [u8; 32] {
        X25519::sk_to_pk(&self.0).to_bytes().into()
    }
}
