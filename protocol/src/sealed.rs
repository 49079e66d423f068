//! Sealed blobs: files cut into encrypted segments that verify one by one.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::codec::{Decode, Encode};
use crate::ids::random_bytes;

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
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(…)")
    }
}
