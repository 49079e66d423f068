//! Sealed blobs, as the page's *Blobs* has them.

use anyhow::{Context, Result, anyhow, ensure};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key as CipherKey, Nonce};

use super::bytes::{Hash, Id, Reader, Writer, frame, kind};
use super::keys::{hash, random};

/// Plain bytes of a piece.
pub const PIECE: usize = 1 << 20;
const TAG: u64 = 16;

/// A sealed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub key: [u8; 32],
    /// Bytes of the file.
    pub bytes: u64,
    pub pieces: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    pub root: Hash,
}

impl Blob {
    /// Seals under a fresh key.
    ///
    /// # Errors
    /// When the cipher refuses.
    pub fn seal(plain: &[u8]) -> Result<Self> {
        let key = random();
        let mut pieces: Vec<&[u8]> = plain.chunks(PIECE).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        let sealed = pieces.iter().enumerate().map(|(index, piece)| {
            let cipher = ChaCha20Poly1305::new(&CipherKey::from(key));
            let payload = Payload { msg: piece, aad: &associated() };
            cipher
                .encrypt(&nonce(index as u32, index == last), payload)
                .map_err(|_| anyhow!("the cipher refuses"))
        });
        let pieces = sealed.collect::<Result<Vec<_>>>()?;
        let manifest =
            manifest(sealed_bytes(&pieces), &pieces.iter().map(|piece| hash(piece)).collect::<Vec<_>>());
        Ok(Self { key, bytes: plain.len() as u64, pieces, root: root(&manifest), manifest })
    }

    /// Bytes of all sealed pieces.
    pub fn sealed_bytes(&self) -> u64 {
        sealed_bytes(&self.pieces)
    }

    /// The manifest as it is sent.
    pub fn manifest_frame(&self) -> Vec<u8> {
        frame(kind::MANIFEST, &self.manifest)
    }
}

fn sealed_bytes(pieces: &[Vec<u8>]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// A manifest's body, true or not.
pub fn manifest(sealed_bytes: u64, segments: &[Hash]) -> Vec<u8> {
    Writer::new()
        .u8(1)
        .u8(1)
        .u32(PIECE as u32)
        .u64(sealed_bytes)
        .list(segments, |writer, segment| writer.raw(segment))
        .done()
}

pub fn root(manifest: &[u8]) -> Hash {
    hash(&[&b"scenemesh/v1/manifest\0"[..], manifest].concat())
}

fn associated() -> Vec<u8> {
    Writer::new().u8(1).u8(1).u32(PIECE as u32).done()
}

fn nonce(index: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[7..11].copy_from_slice(&index.to_be_bytes());
    bytes[11] = last.into();
    Nonce::from(bytes)
}

/// Lengths of the sealed pieces that a manifest names, after a check that it has this root.
///
/// # Errors
/// When it has another, or does not add up.
pub fn lengths(manifest: &[u8], expected: &Hash) -> Result<Vec<(Hash, usize)>> {
    ensure!(root(manifest) == *expected, "another root");
    let mut reader = Reader::new(manifest);
    let fixed = (reader.u8()?, reader.u8()?, reader.u32()?);
    ensure!(fixed == (1, 1, PIECE as u32), "another kind of blob: {fixed:?}");
    let sealed = reader.u64()?;
    let segments = reader.list(Reader::raw::<32>)?;
    reader.end()?;
    let whole = PIECE as u64 + TAG;
    let before = segments.len().checked_sub(1).context("no piece at all")? as u64 * whole;
    let last = sealed.checked_sub(before).filter(|last| (TAG..=whole).contains(last)).context("lengths")?;
    let count = segments.len();
    let length = |index| if index + 1 == count { last as usize } else { whole as usize };
    Ok(segments.into_iter().enumerate().map(|(index, hash)| (hash, length(index))).collect())
}

/// Opens sealed pieces, after a check of each against the manifest.
///
/// # Errors
/// When one is another than the manifest says or does not open.
pub fn open(sealed: &[u8], pieces: &[(Hash, usize)], key: &[u8; 32]) -> Result<Vec<u8>> {
    let cipher = ChaCha20Poly1305::new(&CipherKey::from(*key));
    let (mut plain, mut rest) = (Vec::new(), sealed);
    for (index, (expected, length)) in pieces.iter().enumerate() {
        let (piece, after) = rest.split_at_checked(*length).context("cut short")?;
        ensure!(hash(piece) == *expected, "piece {index} is another");
        let payload = Payload { msg: piece, aad: &associated() };
        let opened = cipher.decrypt(&nonce(index as u32, index + 1 == pieces.len()), payload);
        plain.extend(opened.map_err(|_| anyhow!("piece {index} does not open"))?);
        rest = after;
    }
    Ok(plain)
}

/// What a BlobGet wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Manifest,
    Segments(Vec<(u32, u32)>),
}

/// The body of a BlobGet.
pub fn get(task: &Id, attempt: u32, root: &Hash, want: &Want) -> Vec<u8> {
    let writer = Writer::new().raw(task).u32(attempt).raw(root);
    match want {
        Want::Manifest => writer.u32(0),
        Want::Segments(ranges) => {
            writer.u32(1).list(ranges, |writer, (first, count)| writer.u32(*first).u32(*count))
        }
    }
    .done()
}

/// Root and want of a BlobGet that came in.
///
/// # Errors
/// When it is none.
pub fn read_get(body: &[u8]) -> Result<(Hash, Want)> {
    let mut reader = Reader::new(body);
    let (_task, _attempt) = (reader.raw::<16>()?, reader.u32()?);
    let root = reader.raw()?;
    let want = match reader.u32()? {
        0 => Want::Manifest,
        _ => Want::Segments(reader.list(|reader| Ok((reader.u32()?, reader.u32()?)))?),
    };
    Ok((root, want))
}

/// What a BlobHead says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Sending(u64),
    NotServed,
    Busy,
}

impl Head {
    pub fn encode(self) -> Vec<u8> {
        let body = match self {
            Self::Sending(bytes) => Writer::new().u32(0).u64(bytes),
            Self::NotServed => Writer::new().u32(1),
            Self::Busy => Writer::new().u32(2),
        };
        frame(kind::BLOB_HEAD, &body.done())
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u32()? {
            0 => Self::Sending(reader.u64()?),
            1 => Self::NotServed,
            _ => Self::Busy,
        })
    }
}
