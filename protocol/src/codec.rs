//! Bytes on the wire: the frame, its version, a limit per type, and exact decoding.
//!
//! A frame is `b"SM" · version u8 · codec u8 · type u16 LE · len u32 LE · body`. The body is bincode 2 with
//! fixed-width little-endian integers, so every value has exactly one encoding. Received bytes are
//! verified and hashed as they came, never re-encoded.
//!
//! This is the only file that names bincode's functions; elsewhere its derives are imported from here.

pub use bincode::{Decode, Encode};

/// First bytes of every frame.
pub const MAGIC: [u8; 2] = *b"SM";
/// Version of the wire format; a node that does not know it says so in `peers`.
pub const VERSION: u8 = 1;
/// The only codec so far: bincode 2, fixed-int, little-endian.
pub const CODEC_BINCODE: u8 = 1;
/// Bytes before the body.
pub const HEADER_LEN: usize = 10;

/// Something with a wire form: a type number and the most bytes its body may take.
pub trait Message: Encode + Decode<()> {
    /// Number in the frame; the table is in `docs/protocol.md`. Never reused.
    const TYPE: u16;
    /// Most bytes of the body. Checked before anything is allocated.
    const LIMIT: usize;
}

/// Why bytes are not the message that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the frame is cut short: {have} of {need} bytes")]
    Truncated { have: usize, need: usize },
    #[error("not a SceneMesh frame")]
    BadMagic,
    #[error("wire version {theirs}, this node speaks {VERSION}")]
    Version { theirs: u8 },
    #[error("codec {0} is unknown")]
    Codec(u8),
    #[error("message type {got}, expected {expected}")]
    Type { got: u16, expected: u16 },
    #[error("message type {0} is unknown")]
    UnknownType(u16),
    #[error("body of {len} bytes is over the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    #[error("body does not decode: {0}")]
    Malformed(String),
}

/// Encodes a body without a frame: what is signed, sealed or journaled.
///
/// # Panics
/// Never for types of this workspace: encoding to memory fails only for types bincode cannot write.
pub fn encode_body<T: Encode>(value: &T) -> Vec<u8> {
    let config = bincode::config::standard().with_fixed_int_encoding();
    bincode::encode_to_vec(value, config).expect("plain data always encodes")
}

/// Encodes in fewer bytes (integers by their size), for what stays in the memory of one process: no record and no message.
///
/// # Panics
/// Never for types of this workspace, as [`encode_body`].
pub fn encode_tight<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("plain data always encodes")
}

/// The first of the values that [`encode_tight`] put into these bytes, and how many it takes. `None` when they are none.
pub fn first_tight<T: Decode<()>>(bytes: &[u8]) -> Option<(T, usize)> {
    bincode::decode_from_slice(bytes, bincode::config::standard()).ok()
}

/// Decodes a body that must be exactly one `T`, of at most `limit` bytes.
///
/// # Errors
/// When the body is over the limit, malformed, or followed by anything.
pub fn decode_body<T: Decode<()>>(body: &[u8], limit: usize) -> Result<T, DecodeError> {
    if body.len() > limit {
        return Err(DecodeError::TooLong { len: body.len(), limit });
    }
    // What collections claim is counted before it is allocated, so a short body cannot ask for much memory. The
    // bound is a constant: the least of these that leaves any of our types room, whose values take at most five
    // times the bytes of their encoding.
    let decoded = match body.len() {
        0..=0x200 => decode_within::<T, { 4 << 10 }>(body),
        0x201..=0x2000 => decode_within::<T, { 64 << 10 }>(body),
        0x2001..=0x2_0000 => decode_within::<T, { 1 << 20 }>(body),
        0x2_0001..=0x10_0000 => decode_within::<T, { 8 << 20 }>(body),
        _ => decode_within::<T, { 32 << 20 }>(body),
    };
    let (value, consumed) = decoded.map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if consumed != body.len() {
        return Err(DecodeError::Trailing(body.len() - consumed));
    }
    Ok(value)
}

fn decode_within<T: Decode<()>, const MEMORY: usize>(
    body: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    let config = bincode::config::standard().with_fixed_int_encoding();
    bincode::decode_from_slice(body, config.with_limit::<MEMORY>())
}

/// Encodes a whole frame.
pub fn encode<T: Message>(message: &T) -> Vec<u8> {
    frame(T::TYPE, &encode_body(message))
}

pub(crate) fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("message limits are far below 4 GiB");
    let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, CODEC_BINCODE]);
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// The body of a frame whose header announced `len` bytes: all of them, and nothing after.
pub(crate) fn body_of(frame: &[u8], len: usize) -> Result<&[u8], DecodeError> {
    let body = &frame[HEADER_LEN.min(frame.len())..];
    if body.len() < len {
        return Err(DecodeError::Truncated { have: body.len(), need: len });
    }
    if body.len() > len {
        return Err(DecodeError::Trailing(body.len() - len));
    }
    Ok(body)
}

/// What a frame's header announces; read it before the body is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u16,
    pub len: usize,
}

/// Reads a frame header.
///
/// # Errors
/// When it is short, foreign, or of another version or codec.
pub fn read_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(DecodeError::Truncated { have: bytes.len(), need: HEADER_LEN });
    };
    let [m0, m1, version, codec, t0, t1, l0, l1, l2, l3] = *header;
    if [m0, m1] != MAGIC {
        return Err(DecodeError::BadMagic);
    }
    if version != VERSION {
        return Err(DecodeError::Version { theirs: version });
    }
    if codec != CODEC_BINCODE {
        return Err(DecodeError::Codec(codec));
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    Ok(Header { kind: u16::from_le_bytes([t0, t1]), len })
}

/// Checks that a header announces a `T` within its limit, and gives the body's length.
///
/// # Errors
/// When the type is another or the length is over the limit.
pub fn expect_header<T: Message>(bytes: &[u8]) -> Result<usize, DecodeError> {
    let header = read_header(bytes)?;
    if header.kind != T::TYPE {
        return Err(DecodeError::Type { got: header.kind, expected: T::TYPE });
    }
    if header.len > T::LIMIT {
        return Err(DecodeError::TooLong { len: header.len, limit: T::LIMIT });
    }
    Ok(header.len)
}

/// Decodes one whole frame, exactly.
///
/// # Errors
/// As [`DecodeError`] says.
pub fn decode<T: Message>(frame: &[u8]) -> Result<T, DecodeError> {
    let len = expect_header::<T>(frame)?;
    decode_body(body_of(frame, len)?, T::LIMIT)
}
