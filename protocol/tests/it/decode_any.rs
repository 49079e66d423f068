//! One door to every decoder, for tests and for the fuzzer.

use std::hint::black_box;

use scenemesh_protocol::advert::{Advert, Inventory};
use scenemesh_protocol::codec::{self, DecodeError, Message};
use scenemesh_protocol::deputy::{GrantRight, KeptJob};
use scenemesh_protocol::envelope::{Envelope, GrantPayload, ResultKeys};
use scenemesh_protocol::invite::Invite;
use scenemesh_protocol::keyfile::{self, KeyFile};
use scenemesh_protocol::lease::{AcceptedTerms, FinishedTerms, GrantTerms};
use scenemesh_protocol::messages::{BlobGet, BlobHead, PorchRequest, PorchResponse, Request, Response};
use scenemesh_protocol::receipt::{UsageClaim, WipeRecord};
use scenemesh_protocol::roster::{
    Member, Revoked, Rotated, Settings, SettingsChain, SignedRecord, SignedSettings,
};
use scenemesh_protocol::sealed::Manifest;
use scenemesh_protocol::studio::{Block, Project, StudioKey};
use scenemesh_protocol::task::TaskSpec;

/// A frame around `body` under any type number.
pub(crate) fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("test bodies are short");
    [
        &codec::MAGIC[..],
        &[codec::VERSION, codec::CODEC_BINCODE],
        &kind.to_le_bytes(),
        &len.to_le_bytes(),
        body,
    ]
    .concat()
}

macro_rules! messages {
    ($($message:ty),* $(,)?) => {
        fn message_kinds() -> Vec<(String, u16, usize)> {
            vec![$((stringify!($message).to_owned(), <$message>::TYPE, <$message>::LIMIT)),*]
        }

        fn decode_message(kind: u16, frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
            match kind {
                $(<$message>::TYPE => codec::decode::<$message>(frame).map(|value| codec::encode(&value)),)*
                other => Err(DecodeError::UnknownType(other)),
            }
        }
    };
}

messages![
    Settings,
    SignedSettings,
    Member,
    Revoked,
    SignedRecord,
    Rotated,
    Project,
    Block,
    StudioKey,
    Advert,
    Inventory,
    TaskSpec,
    Manifest,
    GrantTerms,
    AcceptedTerms,
    FinishedTerms,
    GrantRight,
    KeptJob,
    GrantPayload,
    ResultKeys,
    UsageClaim,
    WipeRecord,
    BlobGet,
    BlobHead,
];

macro_rules! conversations {
    ($($conversation:ident),*) => {
        /// Every type: its name, its number and the most bytes of its body.
        pub(crate) fn kinds() -> Vec<(String, u16, usize)> {
            let mut kinds = message_kinds();
            $(for (name, kind, limit) in $conversation::TABLE {
                kinds.push((format!("{}::{name}", stringify!($conversation)), *kind, *limit));
            })*
            kinds
        }

        /// Decodes `body` as the type of that number and encodes the value again, as a frame.
        pub(crate) fn decode_any(kind: u16, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
            let frame = frame(kind, body);
            $(if $conversation::TABLE.iter().any(|(_, have, _)| *have == kind) {
                return $conversation::decode(&frame).map(|value| value.encode());
            })*
            decode_message(kind, &frame)
        }
    };
}

conversations!(Request, Response, PorchRequest, PorchResponse);

/// Gives bytes to everything that reads bytes of strangers without a frame; nothing here may panic.
pub(crate) fn read_any(bytes: &[u8]) {
    let envelope = Envelope::from_bytes(bytes.to_vec());
    black_box(envelope.read::<GrantPayload>().is_ok());
    black_box(envelope.read::<ResultKeys>().is_ok());
    black_box(envelope.read::<KeptJob>().is_ok());
    black_box(KeyFile::parse(bytes).is_ok());
    if let Ok(text) = str::from_utf8(bytes) {
        black_box(Invite::from_code(text).map(|invite| invite.check_words()).is_ok());
        black_box(keyfile::from_recovery_code(text).is_ok());
    }
    if let Ok(settings) = codec::decode_body::<Vec<SignedSettings>>(bytes, 1 << 20) {
        black_box(SettingsChain::verify(settings).is_ok());
    }
}

/// What the fuzzer does with bytes: a type number, then a body. Whatever decodes must encode to the same bytes.
pub(crate) fn fuzz(bytes: &[u8]) {
    read_any(bytes);
    let Some((kind, body)) = bytes.split_first_chunk() else { return };
    // A small number picks a type, so that the fuzzer need not guess the numbers.
    let kinds = kinds();
    let given = u16::from_le_bytes(*kind);
    let kind = kinds.get(usize::from(given)).map_or(given, |(_, kind, _)| *kind);
    if let Ok(frame) = decode_any(kind, body) {
        assert!(frame.ends_with(body), "type {kind:#06x} has two encodings of one value");
    }
}
