//! Sealed blobs: files cut into encrypted segments that verify one by one, in any order, with or without the key.
//!
//! A blob is its plaintext cut every [`SEGMENT_LEN`] bytes; each piece is sealed with STREAM (Hoang, Reyhanitabar,
//! Rogaway and Vizár, <https://eprint.iacr.org/2015/189>) over ChaCha20-Poly1305. The nonce is seven zero bytes, the
//! segment's index as u32 BE, and 1 for the last segment, else 0: legal because every [`BlobKey`] is fresh. The
//! encoded [`BlobHeader`] is the associated data of every segment. Every segment but the last is full, the last is
//! empty only when the whole blob is. What travels and lies on disk is the sealed segments, one after the other,
//! each [`TAG_LEN`] longer than its plaintext.
//!
//! The [`Manifest`] lists the BLAKE3 of every sealed segment; its root is what gets signed and names the blob.

use std::fmt;
use std::ops::Range;

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::codec::{self, Decode, DecodeError, Encode, Message};
use crate::ids::{ContentHash, random_bytes};

/// Plaintext bytes of every segment but the last: 1 MiB.
pub const SEGMENT_LEN: u32 = 1 << 20;
/// What sealing adds to a segment: the Poly1305 tag.
pub const TAG_LEN: usize = 16;
/// Version of the blob format.
pub const BLOB_VERSION: u8 = 1;
/// The only suite so far: `StreamBE32<ChaCha20Poly1305>`, BLAKE3.
pub const SUITE_STREAM_CHACHA20_POLY1305: u8 = 1;

const SEALED_SEGMENT_LEN: u64 = SEGMENT_LEN as u64 + TAG_LEN as u64;
const ROOT_DOMAIN: &[u8] = b"scenemesh/v1/manifest\0";
/// A manifest of this many segments still fits [`Manifest::LIMIT`]: blobs end just below 64 GiB.
pub const MAX_SEGMENTS: usize = (Manifest::LIMIT - 64) / ContentHash::LEN;

/// The key of one sealing: fresh and random, never used for other bytes. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct BlobKey([u8; 32]);

impl BlobKey {
    #[must_use]
    pub fn generate() -> Self {
        Self(random_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn stream(&self) -> StreamBE32<ChaCha20Poly1305> {
        StreamBE32::new(self.as_bytes().into(), &[0; 7].into())
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(…)")
    }
}

/// How a blob is cut and sealed. Its encoding is the associated data of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobHeader {
    pub version: u8,
    pub suite: u8,
    /// Plaintext bytes of every segment but the last.
    pub segment_len: u32,
}

impl BlobHeader {
    /// The only header this version writes and reads.
    pub const CURRENT: Self =
        Self { version: BLOB_VERSION, suite: SUITE_STREAM_CHACHA20_POLY1305, segment_len: SEGMENT_LEN };
}

/// Where a segment stands: whether more follow is part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Inner,
    Last,
}

/// A segment that is not what its manifest or its key says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSegment {
    #[error("the blob has {count} segments, there is none with index {index}")]
    NoSuchSegment { index: u32, count: usize },
    #[error("segment {index} has {have} bytes instead of {need}")]
    Length { index: u32, have: usize, need: u64 },
    #[error("segment {index} does not match the hash in its manifest")]
    Hash { index: u32 },
    #[error("segment {index} does not open: another key, another place, or changed bytes")]
    Forged { index: u32 },
}

/// Seals one segment in place: give `plain` [`TAG_LEN`] spare bytes of capacity and nothing is copied.
///
/// # Panics
/// When `plain` is longer than [`SEGMENT_LEN`]; shorter only in the last place. Callers cut, this checks.
#[must_use]
pub fn seal_segment(key: &BlobKey, index: u32, place: Place, mut plain: Vec<u8>) -> Vec<u8> {
    let full = plain.len() == SEGMENT_LEN as usize;
    assert!(
        full || (place == Place::Last && plain.len() < SEGMENT_LEN as usize),
        "only the last segment is short"
    );
    key.stream()
        .encrypt_in_place(index, place == Place::Last, &associated_data(), &mut plain)
        .expect("a segment is far below the cipher's own limit");
    plain
}

/// Opens one segment in place and gives its plaintext.
///
/// # Errors
/// When key, index, place, header or any byte is not the one it was sealed with.
pub fn open_segment(
    key: &BlobKey,
    index: u32,
    place: Place,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, BadSegment> {
    key.stream()
        .decrypt_in_place(index, place == Place::Last, &associated_data(), &mut sealed)
        .map_err(|_| BadSegment::Forged { index })?;
    Ok(sealed)
}

fn associated_data() -> Vec<u8> {
    codec::encode_body(&BlobHeader::CURRENT)
}

/// A manifest that no sealing of this version can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    #[error("manifest: {0}")]
    Malformed(#[from] DecodeError),
    #[error("manifest of root {have}, expected {expected}")]
    Root { have: ContentHash, expected: ContentHash },
    #[error("blob version {0}, this node knows {BLOB_VERSION}: update the older side")]
    Version(u8),
    #[error("blob suite {suite} with segments of {segment_len} bytes is unknown")]
    Suite { suite: u8, segment_len: u32 },
    #[error("a blob of {sealed_bytes} sealed bytes cannot have {segments} segments")]
    Shape { sealed_bytes: u64, segments: usize },
}

/// What a blob consists of: enough to verify and place every segment without the key.
///
/// Decoding does not judge the shape; [`Manifest::open`] and [`Manifest::check_shape`] do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Manifest {
    header: BlobHeader,
    sealed_bytes: u64,
    segments: Vec<ContentHash>,
}

impl Message for Manifest {
    const TYPE: u16 = 0x0302;
    /// 2 MiB of hashes: blobs of almost 64 GiB.
    const LIMIT: usize = 2 << 20;
}

impl Manifest {
    /// The manifest of sealed segments with these hashes, in order, of `sealed_bytes` together.
    ///
    /// # Errors
    /// When no blob has that shape.
    pub fn new(sealed_bytes: u64, segments: Vec<ContentHash>) -> Result<Self, BadManifest> {
        let manifest = Self { header: BlobHeader::CURRENT, sealed_bytes, segments };
        manifest.check_shape()?;
        Ok(manifest)
    }

    /// Reads a received manifest body that must have this root.
    ///
    /// # Errors
    /// When the root is another, or the body is not a manifest this version can use.
    pub fn open(body: &[u8], root: &ContentHash) -> Result<Self, BadManifest> {
        let have = root_of(body);
        if have != *root {
            return Err(BadManifest::Root { have, expected: *root });
        }
        let manifest: Self = codec::decode_body(body, Self::LIMIT)?;
        manifest.check_shape()?;
        Ok(manifest)
    }

    /// Checks that a blob of this version can look like this.
    ///
    /// # Errors
    /// When version or suite are unknown, or size and number of segments do not fit each other.
    pub fn check_shape(&self) -> Result<(), BadManifest> {
        let BlobHeader { version, suite, segment_len } = self.header;
        if version != BLOB_VERSION {
            return Err(BadManifest::Version(version));
        }
        if self.header != BlobHeader::CURRENT {
            return Err(BadManifest::Suite { suite, segment_len });
        }
        let count = self.segments.len() as u64;
        let tag = TAG_LEN as u64;
        // The last segment holds at least one byte, unless it is the only one.
        let least = if count == 1 { tag } else { count.saturating_sub(1) * SEALED_SEGMENT_LEN + tag + 1 };
        let most = count * SEALED_SEGMENT_LEN;
        if count == 0 || self.segments.len() > MAX_SEGMENTS || !(least..=most).contains(&self.sealed_bytes) {
            return Err(BadManifest::Shape {
                sealed_bytes: self.sealed_bytes,
                segments: self.segments.len(),
            });
        }
        Ok(())
    }

    /// The blob's name: BLAKE3 over a domain and the encoded manifest.
    pub fn root(&self) -> ContentHash {
        root_of(&codec::encode_body(self))
    }

    pub fn header(&self) -> BlobHeader {
        self.header
    }

    /// Bytes of all sealed segments together.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Bytes of the plaintext.
    pub fn plain_bytes(&self) -> u64 {
        self.sealed_bytes.saturating_sub(self.segments.len() as u64 * TAG_LEN as u64)
    }

    /// BLAKE3 of every sealed segment, in order.
    pub fn segments(&self) -> &[ContentHash] {
        &self.segments
    }

    pub fn segment_count(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    /// Where this segment's sealed bytes lie in the blob.
    pub fn sealed_range(&self, index: u32) -> Option<Range<u64>> {
        (index < self.segment_count()).then(|| {
            let start = (u64::from(index) * SEALED_SEGMENT_LEN).min(self.sealed_bytes);
            start..(start + SEALED_SEGMENT_LEN).min(self.sealed_bytes)
        })
    }

    pub fn place(&self, index: u32) -> Place {
        if index + 1 == self.segment_count() { Place::Last } else { Place::Inner }
    }

    /// Checks received or stored bytes of one segment; needs no key.
    ///
    /// # Errors
    /// When there is no such segment, or its length or hash is another.
    pub fn check(&self, index: u32, sealed: &[u8]) -> Result<(), BadSegment> {
        let (Some(range), Some(hash)) = (self.sealed_range(index), self.segments.get(index as usize)) else {
            return Err(BadSegment::NoSuchSegment { index, count: self.segments.len() });
        };
        let need = range.end - range.start;
        if sealed.len() as u64 != need {
            return Err(BadSegment::Length { index, have: sealed.len(), need });
        }
        if ContentHash::of(sealed) != *hash {
            return Err(BadSegment::Hash { index });
        }
        Ok(())
    }
}

fn root_of(body: &[u8]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ROOT_DOMAIN).update(body);
    ContentHash::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: usize = SEGMENT_LEN as usize;

    fn key() -> BlobKey {
        BlobKey::from_bytes([7; 32])
    }

    fn seal(plain: &[u8]) -> (Manifest, Vec<Vec<u8>>) {
        let pieces: Vec<&[u8]> = if plain.is_empty() { vec![plain] } else { plain.chunks(FULL).collect() };
        let last = pieces.len() - 1;
        let sealed: Vec<Vec<u8>> = pieces
            .iter()
            .enumerate()
            .map(|(i, piece)| {
                let place = if i == last { Place::Last } else { Place::Inner };
                seal_segment(&key(), u32::try_from(i).unwrap(), place, piece.to_vec())
            })
            .collect();
        let bytes = sealed.iter().map(|s| s.len() as u64).sum();
        (Manifest::new(bytes, sealed.iter().map(|s| ContentHash::of(s)).collect()).unwrap(), sealed)
    }

    fn open(manifest: &Manifest, sealed: &[Vec<u8>]) -> Result<Vec<u8>, BadSegment> {
        let mut plain = Vec::new();
        for index in 0..manifest.segment_count() {
            let bytes = sealed[index as usize].clone();
            manifest.check(index, &bytes)?;
            plain.extend(open_segment(&key(), index, manifest.place(index), bytes)?);
        }
        Ok(plain)
    }

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    #[test]
    fn golden_bytes_of_a_small_sealing_and_its_manifest() {
        // Header: version 1, suite 1, segment_len 1 MiB as u32 LE.
        assert_eq!(hex(&associated_data()), "010100001000");
        let (manifest, sealed) = seal(b"one render");
        assert_eq!(hex(&sealed[0]), "86793636b4080820a7f666d7f503cb43e3a02ad418928081475e");
        // Header, 26 sealed bytes as u64 LE, one segment as u64 LE, its BLAKE3.
        assert_eq!(
            hex(&codec::encode_body(&manifest)),
            "0101000010001a000000000000000100000000000000c356bce04db90a82c0c5a48241556d7e46253c2265593c2fc1e3139733bd3fae"
        );
        assert_eq!(
            manifest.root().to_string(),
            "6ca889a07942908a071a66b3b2995e8e801f431e6b5bfafe91e4a1ce0b83c874"
        );
        let frame = codec::encode(&manifest);
        assert_eq!(hex(&frame[..codec::HEADER_LEN]), "534d0101020336000000");
    }

    #[test]
    fn an_empty_blob_is_one_empty_last_segment() {
        let (manifest, sealed) = seal(b"");
        assert_eq!((manifest.segment_count(), manifest.sealed_bytes(), manifest.plain_bytes()), (1, 16, 0));
        assert_eq!(open(&manifest, &sealed).unwrap(), b"");
    }

    #[test]
    fn segments_know_their_place() {
        let (manifest, sealed) = seal(&vec![3; FULL + 5]);
        assert_eq!(manifest.sealed_range(0), Some(0..SEALED_SEGMENT_LEN));
        assert_eq!(manifest.sealed_range(1), Some(SEALED_SEGMENT_LEN..SEALED_SEGMENT_LEN + 21));
        assert_eq!(manifest.sealed_range(2), None);
        assert_eq!(manifest.plain_bytes(), FULL as u64 + 5);
        let open = |index, place, from: usize| open_segment(&key(), index, place, sealed[from].clone());
        assert!(open(0, Place::Inner, 0).is_ok());
        assert_eq!(open(1, Place::Inner, 0), Err(BadSegment::Forged { index: 1 }), "reordered");
        assert_eq!(open(0, Place::Last, 0), Err(BadSegment::Forged { index: 0 }), "cut after the first");
        assert_eq!(open(1, Place::Inner, 1), Err(BadSegment::Forged { index: 1 }), "extended after the last");
        assert_eq!(open(1, Place::Last, 1).unwrap(), [3; 5]);
    }

    #[test]
    fn swapped_missing_and_foreign_segments_are_refused() {
        let (manifest, mut sealed) = seal(&[vec![1; FULL], vec![2; FULL], vec![9; 10]].concat());
        assert!(matches!(manifest.check(3, b""), Err(BadSegment::NoSuchSegment { index: 3, count: 3 })));
        assert!(matches!(manifest.check(2, &sealed[2][1..]), Err(BadSegment::Length { index: 2, .. })));
        sealed.swap(0, 1);
        assert_eq!(open(&manifest, &sealed), Err(BadSegment::Hash { index: 0 }));
    }

    #[test]
    fn another_key_opens_nothing() {
        let (_, sealed) = seal(b"secret");
        let other = BlobKey::from_bytes([8; 32]);
        assert!(open_segment(&other, 0, Place::Last, sealed[0].clone()).is_err());
        assert!(open_segment(&key(), 0, Place::Last, vec![0; TAG_LEN - 1]).is_err());
    }

    #[test]
    fn impossible_manifests_are_refused() {
        let hashes = |n| vec![ContentHash::of(b"x"); n];
        for (bytes, count) in
            [(0, 0), (15, 1), (SEALED_SEGMENT_LEN + 1, 1), (SEALED_SEGMENT_LEN + 16, 2), (40, 2)]
        {
            assert!(
                matches!(Manifest::new(bytes, hashes(count)), Err(BadManifest::Shape { .. })),
                "{bytes} {count}"
            );
        }
        let most = Manifest::new(MAX_SEGMENTS as u64 * SEALED_SEGMENT_LEN, hashes(MAX_SEGMENTS)).unwrap();
        assert!(codec::encode_body(&most).len() <= Manifest::LIMIT);
        assert_eq!(codec::decode::<Manifest>(&codec::encode(&most)).unwrap(), most);
        assert!(
            Manifest::new((MAX_SEGMENTS as u64 + 1) * SEALED_SEGMENT_LEN, hashes(MAX_SEGMENTS + 1)).is_err()
        );
        let (good, _) = seal(b"x");
        let newer = Manifest { header: BlobHeader { version: 2, ..BlobHeader::CURRENT }, ..good.clone() };
        assert_eq!(newer.check_shape(), Err(BadManifest::Version(2)));
        let body = codec::encode_body(&good);
        assert_eq!(Manifest::open(&body, &good.root()).unwrap(), good);
        assert!(matches!(Manifest::open(&body, &newer.root()), Err(BadManifest::Root { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_flipped_bit_is_refused_with_and_without_the_key(
            plain in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let (manifest, mut sealed) = seal(&plain);
            prop_assert_eq!(open(&manifest, &sealed).unwrap(), plain);
            let at = at.index(sealed[0].len());
            sealed[0][at] ^= 1 << bit;
            prop_assert_eq!(manifest.check(0, &sealed[0]), Err(BadSegment::Hash { index: 0 }));
            prop_assert!(open_segment(&key(), 0, Place::Last, sealed[0].clone()).is_err());
        }

        #[test]
        fn any_truncated_segment_is_refused(
            plain in proptest::collection::vec(any::<u8>(), 0..300), keep in any::<prop::sample::Index>(),
        ) {
            let (manifest, sealed) = seal(&plain);
            let cut = &sealed[0][..keep.index(sealed[0].len())];
            prop_assert!(manifest.check(0, cut).is_err());
            prop_assert!(open_segment(&key(), 0, Place::Last, cut.to_vec()).is_err());
        }
    }
}
