//! What travels in envelopes: the task to render, and the keys of its results.

use zeroize::Zeroizing;

use super::{OpenError, Sealable};
use crate::codec::{self, Decode, Encode, Message};
use crate::ids::{ContentHash, TaskId};
use crate::keys::Domain;
use crate::sealed::BlobKey;
use crate::task::{OutputFile, TaskSpec};

/// Encoded task specs up to this many bytes travel inside the grant; larger ones are blobs.
pub const INLINE_LIMIT: usize = 256 << 10;

/// The payload of a grant, requester to renderer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GrantPayload {
    Inline(TaskSpec),
    /// The encoded [`TaskSpec`] is a sealed blob that the requester serves. Root and key are signed with this
    /// payload, so nobody can put another blob in its place.
    Blob {
        root: ContentHash,
        key: BlobKey,
        /// Plaintext bytes.
        bytes: u64,
    },
}

impl GrantPayload {
    /// Whether a spec travels inside the grant.
    pub fn fits_inline(spec: &TaskSpec) -> bool {
        Zeroizing::new(codec::encode_body(spec)).len() <= INLINE_LIMIT
    }

    /// Reads the spec out of an opened payload blob and compares the attempt it names.
    ///
    /// # Errors
    /// When the bytes are not exactly one spec, or it is of another attempt than the envelope.
    pub fn spec_from_blob(plain: &[u8], task: TaskId, attempt: u32) -> Result<TaskSpec, OpenError> {
        let spec: TaskSpec = codec::decode_body(plain, TaskSpec::LIMIT)?;
        if (spec.task, spec.attempt) == (task, attempt) { Ok(spec) } else { Err(OpenError::OtherTask) }
    }
}

impl Message for GrantPayload {
    const TYPE: u16 = 0x0311;
    /// The spec and the enum's tag.
    const LIMIT: usize = INLINE_LIMIT + 4;
}

impl Sealable for GrantPayload {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/envelope/grant");

    fn names(&self) -> Option<(TaskId, u32)> {
        match self {
            Self::Inline(spec) => Some((spec.task, spec.attempt)),
            Self::Blob { .. } => None,
        }
    }
}

/// The keys of an attempt's results, renderer to requester.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ResultKeys {
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the grant that these results answer.
    pub grant: ContentHash,
    /// In the order of the graph's outputs.
    pub outputs: Vec<OutputFile>,
}

impl Message for ResultKeys {
    const TYPE: u16 = 0x0312;
    /// Some 3 700 outputs with ordinary names: more than two minutes of single frames.
    const LIMIT: usize = 512 << 10;
}

impl Sealable for ResultKeys {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/envelope/result-keys");

    fn names(&self) -> Option<(TaskId, u32)> {
        Some((self.task, self.attempt))
    }
}
