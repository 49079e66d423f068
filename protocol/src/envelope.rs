//! Envelopes: a payload that one node seals for one other node, for one attempt of one task.
//!
//! HPKE base mode (RFC 9180: DHKEM-X25519, HKDF-SHA256, ChaCha20-Poly1305) around an Ed25519 signature. The
//! header travels in the clear, is the AEAD's associated data and is covered by the signature, so an envelope
//! cannot be re-addressed, spliced, or moved to another pool, task or attempt: not by a stranger, and not by
//! the node that opened it.
//!
//! ```text
//! envelope  = header ‖ body
//! body      = HPKE.Seal(kem(to), info, aad = header, signature ‖ payload)
//! info      = "scenemesh/v1/hpke\0" ‖ pool ‖ from ‖ to ‖ task ‖ msg_id
//! signature = Ed25519(from, domain ‖ 0 ‖ codec ‖ kind ‖ BLAKE3(header) ‖ BLAKE3(payload))
//! ```
//!
//! Opening is three steps in one order, and each step's type is the only way to the next:
//! [`Envelope::read`] (size and form), [`Unopened::judge`] (everything that needs no key), [`Judged::open`].

use std::fmt;
use std::marker::PhantomData;

use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::codec::{self, Decode, DecodeError, Encode, Message};
use crate::ids::{ContentHash, MsgId, NodeId, PoolId, TaskId};
use crate::keys::{Domain, ForgedSignature, HpkeKem, KemPublic, KemSecret, PublicKey, SecretKey, Signature};

mod judge;
mod payload;
#[cfg(test)]
mod tests;

pub use judge::{Desk, Refused, Standing, judge_header};
pub use payload::{GrantPayload, INLINE_LIMIT, ResultKeys};

/// First bytes of every envelope.
pub const MAGIC: [u8; 4] = *b"SMEV";
/// Version of the envelope's form.
pub const VERSION: u8 = 1;
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. 2 is kept for X-Wing.
pub const SUITE_X25519: u8 = 1;
/// Bytes of an encoded [`Header`].
pub const HEADER_LEN: usize = 185;
/// Longest time between creation and expiry. Replay memory grows with it.
pub const MAX_LIFETIME_MS: u64 = 10 * 60 * 1000;
/// How far two clocks may differ before envelopes are refused.
pub const MAX_SKEW_MS: u64 = 5 * 60 * 1000;
/// How long after its expiry a message id must be remembered. More than [`MAX_SKEW_MS`].
pub const REPLAY_MEMORY_MS: u64 = 10 * 60 * 1000;

const SIGNATURE_LEN: usize = 64;
const TAG_LEN: usize = 16;
const INFO_LABEL: &[u8] = b"scenemesh/v1/hpke\0";

type Aead = hpke::aead::ChaCha20Poly1305;
type Kdf = hpke::kdf::HkdfSha256;

/// A payload that travels sealed. Its domain belongs to this payload and to nothing else.
pub trait Sealable: Message {
    const DOMAIN: Domain;

    /// The attempt that the payload itself names; it must be the header's.
    fn names(&self) -> Option<(TaskId, u32)>;
}

/// What is written on the outside. Every field is bound by the AEAD and by the signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    pub magic: [u8; 4],
    pub version: u8,
    pub suite: u8,
    pub codec: u8,
    /// The payload's [`Message::TYPE`].
    pub kind: u16,
    pub pool: PoolId,
    /// The settings epoch of the sender's roster.
    pub epoch: u64,
    pub from: NodeId,
    pub to: NodeId,
    pub msg_id: MsgId,
    pub task: TaskId,
    pub attempt: u32,
    /// Milliseconds since the Unix epoch on the sender's clock.
    pub created_ms: u64,
    /// Acceptance must fall before this; at most [`MAX_LIFETIME_MS`] after `created_ms`.
    pub expires_ms: u64,
    /// HPKE's encapsulated key.
    pub enc: [u8; 32],
    /// Bytes of the sealed body that follows.
    pub body_len: u32,
}

impl Header {
    fn info(&self) -> Vec<u8> {
        [
            INFO_LABEL,
            self.pool.as_bytes(),
            self.from.as_bytes(),
            self.to.as_bytes(),
            self.task.as_bytes(),
            self.msg_id.as_bytes(),
        ]
        .concat()
    }
}

/// `codec ‖ kind ‖ header hash ‖ payload hash`; the domain is put before it by the key.
fn signed_bytes(codec: u8, kind: u16, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + 2 * ContentHash::LEN);
    bytes.push(codec);
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(ContentHash::of(header).as_bytes());
    bytes.extend_from_slice(ContentHash::of(payload).as_bytes());
    bytes
}

/// Whom an envelope is for: the node and its KEM key, as the roster binds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub node: NodeId,
    pub kem: KemPublic,
}

/// What an envelope is about, and how long it may be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub pool: PoolId,
    pub epoch: u64,
    pub task: TaskId,
    pub attempt: u32,
    /// Random, never used before.
    pub msg_id: MsgId,
    pub created_ms: u64,
    pub expires_ms: u64,
}

/// Why a payload was not sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the recipient's node key or KEM key is weak: it has to join again with new keys")]
    WeakKey,
    #[error("payload of {len} bytes is over the limit of {limit}: send it as a blob")]
    TooLong { len: usize, limit: usize },
    #[error("a lifetime of {lifetime_ms} ms, of at most {MAX_LIFETIME_MS} ms")]
    Lifetime { lifetime_ms: i128 },
    #[error("the payload names another task or attempt than its envelope")]
    OtherTask,
}

/// A sealed envelope as it travels and as it is stored: the same bytes for every repetition.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Envelope(Vec<u8>);

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({} bytes, {})", self.0.len(), self.hash().short())
    }
}

impl Envelope {
    /// Bytes as they came from a peer or from the journal; nothing is checked yet.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// BLAKE3 of all bytes: names this envelope, in receipts too.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.0)
    }

    /// Seals and signs `payload` for one recipient.
    ///
    /// # Errors
    /// When a key of the recipient is weak, the payload is over its limit or names another attempt, or the
    /// lifetime is not positive and within [`MAX_LIFETIME_MS`].
    pub fn seal<T: Sealable>(
        payload: &T,
        sender: &SecretKey,
        to: &Recipient,
        terms: &Terms,
    ) -> Result<Self, SealError> {
        if payload.names().is_some_and(|named| named != (terms.task, terms.attempt)) {
            return Err(SealError::OtherTask);
        }
        let lifetime_ms = i128::from(terms.expires_ms) - i128::from(terms.created_ms);
        if lifetime_ms <= 0 || lifetime_ms > i128::from(MAX_LIFETIME_MS) {
            return Err(SealError::Lifetime { lifetime_ms });
        }
        let payload = Zeroizing::new(codec::encode_body(payload));
        if payload.len() > T::LIMIT {
            return Err(SealError::TooLong { len: payload.len(), limit: T::LIMIT });
        }
        if !PublicKey::from(to.node).is_sound() {
            return Err(SealError::WeakKey);
        }
        let kem = to.kem.hpke().ok_or(SealError::WeakKey)?;
        let body_len = u32::try_from(SIGNATURE_LEN + payload.len() + TAG_LEN)
            .map_err(|_| SealError::TooLong { len: payload.len(), limit: T::LIMIT })?;
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            suite: SUITE_X25519,
            codec: codec::CODEC_BINCODE,
            kind: T::TYPE,
            pool: terms.pool,
            epoch: terms.epoch,
            from: sender.public().node(),
            to: to.node,
            msg_id: terms.msg_id,
            task: terms.task,
            attempt: terms.attempt,
            created_ms: terms.created_ms,
            expires_ms: terms.expires_ms,
            enc: [0; 32],
            body_len,
        };
        // The encapsulated key is part of the associated data, so it must exist before the body is sealed.
        let (enc, mut context) =
            hpke::setup_sender::<Aead, Kdf, HpkeKem>(&OpModeS::Base, &kem, &header.info())
                .map_err(|_| SealError::WeakKey)?;
        header.enc = enc.to_bytes().into();
        let mut bytes = codec::encode_body(&header);
        let signature = sender.sign(T::DOMAIN, &signed_bytes(header.codec, header.kind, &bytes, &payload));
        let plain = Zeroizing::new([&signature.as_bytes()[..], &payload].concat());
        let body = context.seal(&plain, &bytes).expect("a context seals its first message");
        bytes.extend_from_slice(&body);
        Ok(Self(bytes))
    }

    /// Reads the outside: size, magic, version, suite, codec, kind, length.
    ///
    /// # Errors
    /// When these bytes are not an envelope of a `T` that this node can read.
    pub fn read<T: Sealable>(&self) -> Result<Unopened<'_, T>, BadHeader> {
        let header = open_header::<T>(&self.0)?;
        Ok(Unopened { bytes: &self.0, header, kind: PhantomData })
    }
}

/// The bytes are not an envelope of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    #[error("envelope of {len} bytes is over the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("the envelope is cut short: {have} of {need} bytes")]
    Truncated { have: usize, need: usize },
    #[error("not an envelope")]
    BadMagic,
    #[error("envelope version {theirs}, this node speaks {VERSION}")]
    Version { theirs: u8 },
    #[error("cipher suite {0} is unknown")]
    Suite(u8),
    #[error("codec {0} is unknown")]
    Codec(u8),
    #[error("an envelope of kind {got:#06x}, expected {expected:#06x}")]
    Kind { got: u16, expected: u16 },
    #[error("the envelope says {says} bytes of body and has {has}")]
    Length { says: usize, has: usize },
}

/// Most bytes of an envelope around a `T`.
pub const fn envelope_limit<T: Sealable>() -> usize {
    HEADER_LEN + SIGNATURE_LEN + T::LIMIT + TAG_LEN
}

/// Reads the header of an envelope around a `T`; the first of the checks, and the only one without context.
///
/// # Errors
/// As [`BadHeader`] says.
pub fn open_header<T: Sealable>(envelope: &[u8]) -> Result<Header, BadHeader> {
    let limit = envelope_limit::<T>();
    if envelope.len() > limit {
        return Err(BadHeader::TooLong { len: envelope.len(), limit });
    }
    let least = HEADER_LEN + SIGNATURE_LEN + TAG_LEN;
    if envelope.len() < least {
        return Err(BadHeader::Truncated { have: envelope.len(), need: least });
    }
    let (header, body) = envelope.split_at(HEADER_LEN);
    if header[..MAGIC.len()] != MAGIC {
        return Err(BadHeader::BadMagic);
    }
    // The version comes before decoding: another version may have another header.
    if header[MAGIC.len()] != VERSION {
        return Err(BadHeader::Version { theirs: header[MAGIC.len()] });
    }
    let header: Header =
        codec::decode_body(header, HEADER_LEN).expect("every header's length of bytes is a header");
    if header.suite != SUITE_X25519 {
        return Err(BadHeader::Suite(header.suite));
    }
    if header.codec != codec::CODEC_BINCODE {
        return Err(BadHeader::Codec(header.codec));
    }
    if header.kind != T::TYPE {
        return Err(BadHeader::Kind { got: header.kind, expected: T::TYPE });
    }
    if header.body_len as usize != body.len() {
        return Err(BadHeader::Length { says: header.body_len as usize, has: body.len() });
    }
    Ok(header)
}

/// An envelope whose outside can be read; who may have sent it is not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct Unopened<'a, T> {
    bytes: &'a [u8],
    header: Header,
    kind: PhantomData<T>,
}

impl<T> fmt::Debug for Unopened<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unopened").field(&self.header).finish()
    }
}

impl<'a, T: Sealable> Unopened<'a, T> {
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Everything that can be refused without a key; see [`judge_header`].
    ///
    /// # Errors
    /// The first check that fails.
    pub fn judge(self, now_ms: u64, desk: &Desk<'_>) -> Result<Judged<'a, T>, Refused> {
        judge_header(&self.header, now_ms, desk)?;
        Ok(Judged(self))
    }
}

/// An envelope that may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a, T>(Unopened<'a, T>);

/// Why an admissible envelope did not open. None of these can happen to an honest envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the envelope is damaged, or was sealed for another key than this node's")]
    NotForThisKey,
    #[error("the sender did not sign what the envelope holds: {0}")]
    Forged(#[from] ForgedSignature),
    #[error("payload: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the payload names another task or attempt than its envelope")]
    OtherTask,
}

/// A payload that was sealed for this node and signed by the header's sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<T> {
    pub header: Header,
    pub payload: T,
    /// BLAKE3 of the payload's bytes as they were signed. It tells nothing to whoever lacks the payload: that
    /// holds the random task id.
    pub payload_hash: ContentHash,
    /// [`Envelope::hash`] of what was opened.
    pub envelope_hash: ContentHash,
}

impl<T: Sealable> Judged<'_, T> {
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// Opens, verifies the signature strictly, decodes exactly, and compares the attempt it names.
    ///
    /// # Errors
    /// As [`OpenError`] says; nothing of the payload is given out then.
    pub fn open(self, me: &KemSecret) -> Result<Opened<T>, OpenError> {
        let Unopened { bytes, header, .. } = self.0;
        let (header_bytes, body) = bytes.split_at(HEADER_LEN);
        let enc =
            <HpkeKem as Kem>::EncappedKey::from_bytes(&header.enc).map_err(|_| OpenError::NotForThisKey)?;
        let plain =
            hpke::setup_receiver::<Aead, Kdf, HpkeKem>(&OpModeR::Base, me.hpke(), &enc, &header.info())
                .and_then(|mut context| context.open(body, header_bytes))
                .map(Zeroizing::new)
                .map_err(|_| OpenError::NotForThisKey)?;
        let (signature, payload) =
            plain.split_first_chunk::<SIGNATURE_LEN>().ok_or(OpenError::NotForThisKey)?;
        PublicKey::from(header.from).verify(
            T::DOMAIN,
            &signed_bytes(header.codec, header.kind, header_bytes, payload),
            &Signature::from_bytes(*signature),
        )?;
        let value: T = codec::decode_body(payload, T::LIMIT)?;
        if value.names().is_some_and(|named| named != (header.task, header.attempt)) {
            return Err(OpenError::OtherTask);
        }
        Ok(Opened {
            payload: value,
            payload_hash: ContentHash::of(payload),
            envelope_hash: ContentHash::of(bytes),
            header,
        })
    }
}
