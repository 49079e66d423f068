//! Envelopes, as the page's *Envelope* has them, with every field of the header free to be wrong.

use anyhow::{Result, ensure};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};

use super::bytes::{Id, Reader, Writer, kind};
use super::keys::{Kem, Key, hash, now_ms, random, verify};

type X25519 = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

pub const HEADER: usize = 185;
/// Longest time between creation and expiry.
pub const LIFETIME_MS: u64 = 10 * 60 * 1000;

/// The domain of a kind's signatures.
pub fn domain(kind: u16) -> &'static str {
    if kind == kind::RESULT_KEYS {
        "scenemesh/v1/envelope/result-keys"
    } else {
        "scenemesh/v1/envelope/grant"
    }
}

/// What stands on the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u8,
    pub suite: u8,
    pub codec: u8,
    pub kind: u16,
    pub pool: Id,
    pub epoch: u64,
    pub from: [u8; 32],
    pub to: [u8; 32],
    pub msg_id: Id,
    pub task: Id,
    pub attempt: u32,
    pub created_ms: u64,
    pub expires_ms: u64,
    pub enc: [u8; 32],
    pub body_len: u32,
}

impl Header {
    /// An honest one, good for five minutes.
    pub fn new(
        kind: u16,
        pool: Id,
        epoch: u64,
        from: [u8; 32],
        to: [u8; 32],
        task: Id,
        attempt: u32,
    ) -> Self {
        let created_ms = now_ms();
        Self {
            version: 1,
            suite: 1,
            codec: 1,
            kind,
            pool,
            epoch,
            from,
            to,
            msg_id: random(),
            task,
            attempt,
            created_ms,
            expires_ms: created_ms + LIFETIME_MS / 2,
            enc: [0; 32],
            body_len: 0,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .raw(b"SMEV")
            .u8(self.version)
            .u8(self.suite)
            .u8(self.codec)
            .u16(self.kind)
            .raw(&self.pool)
            .u64(self.epoch)
            .raw(&self.from)
            .raw(&self.to)
            .raw(&self.msg_id)
            .raw(&self.task)
            .u32(self.attempt)
            .u64(self.created_ms)
            .u64(self.expires_ms)
            .raw(&self.enc)
            .u32(self.body_len)
            .done()
    }

    /// # Errors
    /// When the bytes are no envelope.
    pub fn read(envelope: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(envelope);
        ensure!(reader.raw::<4>()? == *b"SMEV", "not an envelope");
        Ok(Self {
            version: reader.u8()?,
            suite: reader.u8()?,
            codec: reader.u8()?,
            kind: reader.u16()?,
            pool: reader.raw()?,
            epoch: reader.u64()?,
            from: reader.raw()?,
            to: reader.raw()?,
            msg_id: reader.raw()?,
            task: reader.raw()?,
            attempt: reader.u32()?,
            created_ms: reader.u64()?,
            expires_ms: reader.u64()?,
            enc: reader.raw()?,
            body_len: reader.u32()?,
        })
    }

    fn info(&self) -> Vec<u8> {
        [&b"scenemesh/v1/hpke\0"[..], &self.pool, &self.from, &self.to, &self.task, &self.msg_id].concat()
    }
}

/// What the signature covers.
fn statement(header: &Header, header_bytes: &[u8], payload: &[u8]) -> Vec<u8> {
    Writer::new().u8(header.codec).u16(header.kind).raw(&hash(header_bytes)).raw(&hash(payload)).done()
}

/// Seals `payload` for the holder of `to`, signed by `signer`, whoever the header says it is from.
///
/// # Errors
/// When `to` is no X25519 key.
pub fn seal(mut header: Header, payload: &[u8], signer: &Key, to: &[u8; 32]) -> Result<Vec<u8>> {
    let to = <X25519 as hpke::Kem>::PublicKey::from_bytes(to)?;
    let (enc, mut context) = hpke::setup_sender::<Aead, Kdf, X25519>(&OpModeS::Base, &to, &header.info())?;
    header.enc = enc.to_bytes().into();
    header.body_len = u32::try_from(64 + payload.len() + 16)?;
    let outside = header.encode();
    let signature = signer.sign(domain(header.kind), &statement(&header, &outside, payload));
    let body = context.seal(&[&signature[..], payload].concat(), &outside)?;
    Ok([outside, body].concat())
}

/// Opens an envelope for `me`, verifies its signature, and gives header and payload.
///
/// # Errors
/// When it is for another key or its sender did not sign it.
pub fn open(envelope: &[u8], me: &Kem) -> Result<(Header, Vec<u8>)> {
    let header = Header::read(envelope)?;
    ensure!(envelope.len() >= HEADER, "cut short");
    let (outside, body) = envelope.split_at(HEADER);
    ensure!(header.body_len as usize == body.len(), "another length than it says");
    let enc = <X25519 as hpke::Kem>::EncappedKey::from_bytes(&header.enc)?;
    let mut context = hpke::setup_receiver::<Aead, Kdf, X25519>(&OpModeR::Base, &me.0, &enc, &header.info())?;
    let plain = context.open(body, outside)?;
    let mut reader = Reader::new(&plain);
    let signature = reader.raw::<64>()?;
    let payload = reader.rest().to_vec();
    verify(&header.from, domain(header.kind), &statement(&header, outside, &payload), &signature)?;
    Ok((header, payload))
}
