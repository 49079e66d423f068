//! The conversation: which requests travel, what each is answered with, and how many bytes either may take.
//!
//! One libp2p protocol, `/scenemesh/<pool8>/control/1`, carries [`Request`] and [`Response`] frames; `Hello`
//! precedes every other verb on a link. `/scenemesh/<pool8>/blob/1` carries sealed blobs as streams, and
//! `/scenemesh/porch/1` talks to strangers. Every verb is idempotent.

use crate::advert::{Advert, Inventory};
use crate::codec::{self, Decode, DecodeError, Encode, Message};
use crate::deputy::{Keep, KeepNews, KeepReply, Release, TakeBack, TakeBackReply};
use crate::ids::{BootId, ContentHash, NodeId, PoolId, TaskId};
use crate::invite::{JoinReply, JoinRequest};
use crate::keys::PublicKey;
use crate::lease::{
    Ack, AttemptState, Cancel, Claim, ClaimReply, Finished, FinishedReply, Grant, GrantReply, Offer,
    OfferReply, Probe, Progress, Verdict,
};
use crate::receipt::FeedHead;
use crate::roster::{RosterDigest, SignedRecord, SignedSettings};
use crate::signed::Signed;
use crate::studio::{StudioDiff, StudioSync};

/// Path of the control protocol of a pool.
pub fn control_protocol(pool: &PoolId) -> String {
    format!("/scenemesh/{}/control/1", pool.pool8())
}

/// Path of the blob protocol of a pool.
pub fn blob_protocol(pool: &PoolId) -> String {
    format!("/scenemesh/{}/blob/1", pool.pool8())
}

/// Path of the porch protocol; strangers do not know the pool yet.
pub const PORCH_PROTOCOL: &str = "/scenemesh/porch/1";

/// Most bytes of any control frame's body.
pub const CONTROL_LIMIT: usize = 1 << 20;
/// Most bytes of any porch frame's body.
pub const PORCH_LIMIT: usize = 1 << 20;

/// First words on a link, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub pool: PoolId,
    pub boot: BootId,
    /// Lowest and highest wire version spoken.
    pub versions: (u8, u8),
    /// Release, for people: `scenemeshd 0.1.0`.
    pub agent: String,
    pub roster: RosterDigest,
    pub feeds: Vec<FeedHead>,
    /// The sender's wall clock, in milliseconds since the Unix epoch, to tell skew in words.
    pub now_ms: u64,
}

/// Which adverts I hold: the newest (boot, seq) per node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdvertSync {
    pub have: Vec<(NodeId, BootId, u64)>,
}

/// Adverts that the other lacks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdvertBatch {
    pub adverts: Vec<Signed<Advert>>,
}

/// Asks for a node's inventory, as far as the asker may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InventoryGet;

/// Asks for a part of what a node's classes look like, as far as the asker may see it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DefinitionsGet {
    /// Counted from zero.
    pub part: u16,
    /// Roots of definitions that are here already: most nodes of a studio have the same ones.
    pub have: Vec<ContentHash>,
}

/// A part of a node's definitions: the body of an `/object_info`, without files and models, as one zlib stream
/// (RFC 1950) that is cut every [`DEFINITIONS_PART`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DefinitionsPart {
    /// BLAKE3 of the whole stream.
    pub root: ContentHash,
    /// How many parts there are; none when there is nothing to tell.
    pub parts: u16,
    /// The part that was asked for; empty when the asker has this root.
    pub bytes: Vec<u8>,
}

/// Bytes of every part of definitions but the last.
pub const DEFINITIONS_PART: usize = 512 << 10;
/// Most parts of definitions: ten times what large installations have.
pub const DEFINITIONS_PARTS: u16 = 16;

/// What I hold of the roster, to be told what I lack.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RosterSync {
    pub digest: RosterDigest,
    /// Hashes of the records that hold here.
    pub records: Vec<ContentHash>,
    /// Hashes of the proposals known here, with how many signatures each.
    pub proposals: Vec<(ContentHash, u16)>,
}

/// Parts of a roster that somebody lacks. Settings come before the records that rest on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RosterDiff {
    pub settings: Vec<SignedSettings>,
    pub records: Vec<SignedRecord>,
    /// Next epochs that still lack signatures.
    pub proposals: Vec<SignedSettings>,
}

impl RosterDiff {
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.records.is_empty() && self.proposals.is_empty()
    }
}

/// The sender leaves on purpose: do not re-dial until it comes back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Goodbye;

/// Done, nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Done;

/// The request was understood and is refused: over a limit, not allowed, or out of order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Declined {
    pub why: Decline,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Decline {
    /// Hello has not been exchanged on this link.
    NoHello,
    /// Too many requests; try later.
    Busy,
    NotAllowed,
    /// The verb is not known to this release.
    Unsupported,
    /// The node is stopping.
    Stopping,
}

macro_rules! conversation {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($body:ty) = $kind:literal, limit $limit:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::large_enum_variant, reason = "each is on its way: in an inbox, or being decoded")]
        pub enum $name {
            $($(#[$vdoc])* $variant($body),)*
        }

        impl $name {
            /// Every message: name, type number, and the most bytes of its body.
            pub const TABLE: &[(&'static str, u16, usize)] = &[$((stringify!($variant), $kind, $limit),)*];

            /// The verb's name, for logs.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)* }
            }

            /// The whole frame.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Self::$variant(body) => codec::frame($kind, &codec::encode_body(body)),)* }
            }

            /// Reads a header and gives the body's length, before anything is allocated.
            ///
            /// # Errors
            /// When the type is not of this conversation or the length is over the type's limit.
            pub fn expect_header(bytes: &[u8]) -> Result<usize, DecodeError> {
                let header = codec::read_header(bytes)?;
                let row = Self::TABLE.iter().find(|(_, kind, _)| *kind == header.kind);
                let (_, _, limit) = row.ok_or(DecodeError::UnknownType(header.kind))?;
                if header.len > *limit {
                    return Err(DecodeError::TooLong { len: header.len, limit: *limit });
                }
                Ok(header.len)
            }

            /// Decodes one whole frame, exactly.
            ///
            /// # Errors
            /// As [`DecodeError`] says.
            pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
                let len = Self::expect_header(frame)?;
                let body = codec::body_of(frame, len)?;
                match codec::read_header(frame)?.kind {
                    $($kind => codec::decode_body(body, $limit).map(Self::$variant),)*
                    other => Err(DecodeError::UnknownType(other)),
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

const SMALL: usize = 512;
const MEDIUM: usize = 64 << 10;

conversation! {
    /// What one node asks of another.
    Request {
        /// → [`Response::Hello`].
        Hello(Hello) = 0x0101, limit MEDIUM;
        /// Adverts that changed → [`Response::Done`].
        Adverts(AdvertBatch) = 0x0102, limit MEDIUM;
        /// → [`Response::Adverts`].
        AdvertSync(AdvertSync) = 0x0103, limit MEDIUM;
        /// → [`Response::Inventory`].
        Inventory(InventoryGet) = 0x0104, limit SMALL;
        /// → [`Response::Roster`].
        RosterSync(RosterSync) = 0x0105, limit MEDIUM;
        /// News of the roster → [`Response::Done`].
        Roster(RosterDiff) = 0x0106, limit CONTROL_LIMIT;
        /// → [`Response::Done`].
        Goodbye(Goodbye) = 0x0107, limit SMALL;
        /// Between nodes of one studio: what do you have that I lack? → [`Response::Studio`].
        StudioSync(StudioSync) = 0x0108, limit MEDIUM;
        /// Between nodes of one studio: news → [`Response::Done`].
        Studio(StudioDiff) = 0x0109, limit CONTROL_LIMIT;
        /// → [`Response::Definitions`].
        Definitions(DefinitionsGet) = 0x010a, limit 4 << 10;
        /// → [`Response::Offer`].
        Offer(Offer) = 0x0110, limit MEDIUM;
        /// → [`Response::Claim`].
        Claim(Claim) = 0x0111, limit SMALL;
        /// → [`Response::Grant`].
        Grant(Grant) = 0x0112, limit CONTROL_LIMIT;
        /// → [`Response::Verdict`].
        Progress(Progress) = 0x0113, limit 512 << 10;
        /// → [`Response::Finished`].
        Finished(Finished) = 0x0114, limit CONTROL_LIMIT;
        /// → [`Response::Done`].
        Ack(Ack) = 0x0115, limit SMALL;
        /// → [`Response::Attempt`].
        Cancel(Cancel) = 0x0116, limit SMALL;
        /// Renderer asks requester → [`Response::Verdict`]; requester asks renderer → [`Response::Attempt`].
        Probe(Probe) = 0x0117, limit SMALL;
        /// → [`Response::Keep`].
        Keep(Keep) = 0x0118, limit CONTROL_LIMIT;
        /// → [`Response::Done`].
        KeepNews(KeepNews) = 0x0119, limit MEDIUM;
        /// → [`Response::TakeBack`].
        TakeBack(TakeBack) = 0x011a, limit SMALL;
        /// → [`Response::Done`].
        Release(Release) = 0x011b, limit SMALL;
    }
}

conversation! {
    /// Answers.
    Response {
        Hello(Hello) = 0x0181, limit MEDIUM;
        Done(Done) = 0x0182, limit SMALL;
        Declined(Declined) = 0x0183, limit 4 << 10;
        Adverts(AdvertBatch) = 0x0184, limit CONTROL_LIMIT;
        Inventory(Inventory) = 0x0185, limit CONTROL_LIMIT;
        Roster(RosterDiff) = 0x0186, limit CONTROL_LIMIT;
        Studio(StudioDiff) = 0x0187, limit CONTROL_LIMIT;
        Definitions(DefinitionsPart) = 0x0188, limit CONTROL_LIMIT;
        Offer(OfferReply) = 0x0190, limit 4 << 10;
        Claim(ClaimReply) = 0x0191, limit SMALL;
        Grant(GrantReply) = 0x0192, limit MEDIUM;
        Verdict(Verdict) = 0x0193, limit SMALL;
        Finished(FinishedReply) = 0x0194, limit SMALL;
        Attempt(AttemptState) = 0x0195, limit CONTROL_LIMIT;
        Keep(KeepReply) = 0x0196, limit 4 << 10;
        TakeBack(TakeBackReply) = 0x0197, limit CONTROL_LIMIT;
    }
}

conversation! {
    /// What a stranger may say on the porch.
    PorchRequest {
        /// → [`PorchResponse::Join`].
        Join(JoinRequest) = 0x0501, limit 4 << 10;
        /// Signed records: a member admitted while this node was away shows its own → [`PorchResponse::Roster`].
        Roster(RosterDiff) = 0x0502, limit PORCH_LIMIT;
        /// What do you have that I lack? Answered to members and to joiners whose studio awaits approval.
        RosterSync(RosterSync) = 0x0503, limit MEDIUM;
        /// Why was this key revoked? → [`PorchResponse::Standing`].
        Standing(StandingGet) = 0x0504, limit SMALL;
    }
}

conversation! {
    /// The porch's answers.
    PorchResponse {
        Join(JoinReply) = 0x0581, limit PORCH_LIMIT;
        Roster(RosterDiff) = 0x0582, limit PORCH_LIMIT;
        Standing(Standing) = 0x0583, limit 4 << 10;
        Declined(Declined) = 0x0584, limit 4 << 10;
    }
}

/// Asks how this pool regards a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StandingGet {
    pub key: PublicKey,
}

/// How this pool regards a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    Unknown,
    Member,
    Revoked { reason: String, issued_ms: u64 },
}

/// Opens a blob stream: the peer of a live attempt asks for a sealed blob that the attempt names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobGet {
    pub task: TaskId,
    pub attempt: u32,
    pub root: ContentHash,
    pub want: BlobWant,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlobWant {
    Manifest,
    /// Sealed segments: (first, count), in this order.
    Segments(Vec<(u32, u32)>),
}

impl Message for BlobGet {
    const TYPE: u16 = 0x0601;
    const LIMIT: usize = 64 << 10;
}

/// Answer to a [`BlobGet`]; for `Segments` the sealed bytes follow without frames, for `Manifest` one manifest frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlobHead {
    Sending {
        bytes: u64,
    },
    /// Not here, or not for this peer: the two are not told apart.
    NotServed,
    Busy,
}

impl Message for BlobHead {
    const TYPE: u16 = 0x0602;
    const LIMIT: usize = 512;
}
