//! What holds for all bytes: exact decoding, no forged change, no memory for a promise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use scenemesh_protocol::advert::{Advert, Availability, GpuAdvert, Hygiene};
use scenemesh_protocol::codec::{self, DecodeError, Message};
use scenemesh_protocol::envelope::{
    Desk, Envelope, GrantPayload, MAX_LIFETIME_MS, Opened, Recipient, Sealable, Standing, Terms,
};
use scenemesh_protocol::ids::{BootId, ContentHash, MsgId, NodeId, PoolId, StudioId, TaskId};
use scenemesh_protocol::invite::{Invite, InviteSecret, JoinRequest};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::roster::SettingsChain;
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::signed::{Signable, Signed};
use scenemesh_protocol::task::{InputFile, ModelName, Reach, TaskSpec};

use crate::decode_any::{decode_any, kinds, read_any};
use crate::samples;

/// Remembers the largest block that this thread asked for.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator that counts can only be written so")]
// SAFETY: every call is passed on to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The largest block that `work` asked for.
fn largest_block<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.with(|largest| largest.set(0));
    let value = work();
    (value, LARGEST.with(Cell::get))
}

/// What decoding a body of `len` bytes may ask for at once: the bounds in `codec::decode_body`, and an error's words.
fn memory_for(len: usize) -> usize {
    (128 * len).clamp(4 << 10, 32 << 20)
}

fn checked_decode(kind: u16, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (decoded, largest) = largest_block(|| decode_any(kind, body));
    assert!(largest <= memory_for(body.len()), "{kind:#06x}: {} bytes asked for {largest}", body.len());
    decoded
}

#[test]
fn a_message_cut_short_or_followed_by_anything_is_refused() {
    for sample in samples::samples() {
        for len in 0..sample.body().len() {
            let cut = checked_decode(sample.kind(), &sample.body()[..len]);
            assert!(cut.is_err(), "{} cut to {len}", sample.name);
        }
        let longer = [sample.body(), &[0]].concat();
        let (_, _, limit) = kinds().into_iter().find(|(_, kind, _)| *kind == sample.kind()).unwrap();
        let expected = if longer.len() > limit {
            DecodeError::TooLong { len: longer.len(), limit }
        } else {
            DecodeError::Trailing(1)
        };
        assert_eq!(decode_any(sample.kind(), &longer), Err(expected), "{}", sample.name);
    }
}

#[test]
fn a_length_that_promises_too_much_is_refused_before_memory_is_asked_for() {
    for sample in samples::samples() {
        for at in 0..sample.body().len().saturating_sub(7) {
            for promise in [u64::MAX, 1 << 62, 1 << 40, 1 << 31, 1 << 24, 1 << 16] {
                let mut body = sample.body().to_vec();
                body[at..at + 8].copy_from_slice(&promise.to_le_bytes());
                // Where no length stands it may still decode; then it is the same bytes again.
                if let Ok(frame) = checked_decode(sample.kind(), &body) {
                    assert_eq!(frame[codec::HEADER_LEN..], body, "{} at {at}", sample.name);
                }
            }
        }
    }
}

#[test]
fn a_body_over_its_limit_is_refused_by_its_header() {
    for (name, kind, limit) in kinds() {
        let body = vec![0; limit + 1];
        let refused = decode_any(kind, &body);
        assert_eq!(refused, Err(DecodeError::TooLong { len: limit + 1, limit }), "{name}");
    }
}

/// Changes one byte by `mask` and gives the bytes back as a `Signed`, when they still are one.
fn reread<T>(bytes: &[u8], at: usize, mask: u8) -> Option<Signed<T>>
where
    Signed<T>: codec::Decode<()>,
{
    let mut changed = bytes.to_vec();
    changed[at] ^= mask;
    codec::decode_body(&changed, 1 << 20).ok()
}

fn no_flip_survives<T: Signable + PartialEq + std::fmt::Debug + Clone>(value: &T) {
    let signed = Signed::new(value, &samples::key(1));
    assert_eq!(&*signed.verify().unwrap(), value);
    let bytes = codec::encode_body(&signed);
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let survives = reread::<T>(&bytes, at, mask).is_some_and(|signed| signed.verify().is_ok());
            assert!(!survives, "{} byte {at} ^ {mask:#x}", std::any::type_name::<T>());
        }
    }
}

#[test]
fn any_flipped_byte_of_a_signed_message_is_refused() {
    no_flip_survives(&samples::member());
    no_flip_survives(&samples::revoked());
    no_flip_survives(&samples::advert());
    no_flip_survives(&samples::grant_terms());
    no_flip_survives(&samples::accepted_terms());
    no_flip_survives(&samples::finished_terms(samples::done()));
    no_flip_survives(&samples::usage_claim());
}

#[test]
fn any_flipped_byte_of_signed_settings_or_a_join_request_is_refused() {
    let settings = codec::encode_body(&samples::signed_settings());
    let joining = samples::joining(None);
    let join = codec::encode_body(&samples::join_request());
    for mask in [0x01, 0x80, 0xff] {
        for at in 0..settings.len() {
            let mut changed = settings.clone();
            changed[at] ^= mask;
            let refused = codec::decode_body(&changed, 1 << 20)
                .map_or(true, |link| SettingsChain::verify(vec![link]).is_err());
            assert!(refused, "settings byte {at} ^ {mask:#x}");
        }
        for at in 0..join.len() {
            let mut changed = join.clone();
            changed[at] ^= mask;
            let refused = codec::decode_body::<JoinRequest>(&changed, 4096).map_or(true, |request| {
                request.verify(&joining.invite, joining.pool, joining.inviter).is_err()
            });
            assert!(refused, "join request byte {at} ^ {mask:#x}");
        }
    }
}

/// A signature made for one kind of statement holds for no other, even over the same bytes.
#[test]
fn every_kind_of_signature_has_its_own_domain() {
    use scenemesh_protocol::deputy::{GrantRight, KeptJob};
    use scenemesh_protocol::envelope::ResultKeys;
    use scenemesh_protocol::lease::{AcceptedTerms, FinishedTerms, GrantTerms};
    use scenemesh_protocol::receipt::UsageClaim;
    use scenemesh_protocol::roster::{Member, Revoked};
    let mut domains = [
        Advert::DOMAIN,
        Member::DOMAIN,
        Revoked::DOMAIN,
        GrantTerms::DOMAIN,
        AcceptedTerms::DOMAIN,
        FinishedTerms::DOMAIN,
        GrantRight::DOMAIN,
        UsageClaim::DOMAIN,
        <GrantPayload as Sealable>::DOMAIN,
        <ResultKeys as Sealable>::DOMAIN,
        <KeptJob as Sealable>::DOMAIN,
    ]
    .map(scenemesh_protocol::keys::Domain::name);
    domains.sort_unstable();
    assert!(domains.windows(2).all(|pair| pair[0] != pair[1]), "{domains:?}");
    assert!(domains.iter().all(|name| name.starts_with("scenemesh/v1/") && !name.contains('\0')));
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn model() -> impl Strategy<Value = ModelName> {
    (text(), text()).prop_map(|(folder, name)| ModelName { folder, name })
}

prop_compose! {
    fn input()(name in text(), root: [u8; 32], key: [u8; 32], bytes: u64) -> InputFile {
        InputFile { name, root: ContentHash::from_bytes(root), key: BlobKey::from_bytes(key), bytes }
    }
}

fn reach() -> impl Strategy<Value = Reach> {
    let studio = any::<[u8; 16]>().prop_map(StudioId::from_bytes);
    prop_oneof![
        select(vec![Reach::Machine, Reach::Studio, Reach::Pool]),
        vec(studio, 0..3).prop_map(Reach::Studios),
    ]
}

prop_compose! {
    fn task_spec()(
        ids: ([u8; 16], u32), graph in vec(any::<u8>(), 0..200), extra_data in vec(any::<u8>(), 0..50),
        inputs in vec(input(), 0..4), flags: (bool, bool), time_limit_ms: u64,
        reach in reach(), project: Option<[u8; 32]>,
    ) -> TaskSpec {
        TaskSpec {
            task: TaskId::from_bytes(ids.0), attempt: ids.1, graph, extra_data, inputs,
            previews: flags.0, full_hygiene: flags.1, time_limit_ms,
            reach, project: project.map(|seed| Signed::new(&crate::samples::project(), &SecretKey::from_seed(&seed))),
        }
    }
}

prop_compose! {
    fn gpu()(name in text(), vram_mib: Option<u32>, vram_free_mib: Option<u32>, cc: Option<u16>) -> GpuAdvert {
        GpuAdvert { name, vram_mib, vram_free_mib, cc }
    }
}

prop_compose! {
    fn advert()(
        ids: ([u8; 16], [u8; 32], [u8; 16], [u8; 32]), numbers: (u64, u64, u16, u16, u16, u16),
        availability in select(vec![Availability::Available, Availability::NotNow]),
        hygiene in select(vec![Hygiene::Full, Hygiene::Partial]),
        gpus in vec(gpu(), 0..3), warm in vec(model(), 0..3), external in vec(text(), 0..3), porch in vec(text(), 0..3), comfyui in text(),
    ) -> Advert {
        Advert {
            pool: PoolId::from_bytes(ids.0), node: NodeId::from_bytes(ids.1), boot: BootId::from_bytes(ids.2),
            seq: numbers.0, created_ms: numbers.1, ttl_s: numbers.2, availability, hygiene,
            slots_total: numbers.3, slots_free: numbers.4, queue: numbers.5, gpus, warm,
            inventory_root: ContentHash::from_bytes(ids.3), external, porch, comfyui,
        }
    }
}

fn comes_back<T: Message + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let frame = codec::encode(value);
    if frame.len() > codec::HEADER_LEN + T::LIMIT {
        let refused = matches!(codec::decode::<T>(&frame), Err(DecodeError::TooLong { .. }));
        prop_assert!(refused);
        return Ok(());
    }
    let decoded = codec::decode::<T>(&frame);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_come_back(spec in task_spec(), advert in advert()) {
        comes_back(&spec)?;
        comes_back(&advert)?;
        comes_back(&GrantPayload::Inline(spec))?;
    }

    /// Whatever decodes is the one encoding of its value: nobody can change the bytes and keep the meaning.
    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        which: Index, at: Index, changes in vec((any::<Index>(), any::<u8>()), 1..4), insert in vec(any::<u8>(), 0..9),
    ) {
        let all = samples::samples();
        let sample = which.get(&all);
        let mut body = sample.body().to_vec();
        let place = at.index(body.len() + 1);
        body.splice(place..place, insert);
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if let Ok(frame) = checked_decode(sample.kind(), &body) {
            prop_assert_eq!(&frame[codec::HEADER_LEN..], &body[..]);
        }
    }

    /// A stable stand-in for the fuzzer in `protocol/fuzz`.
    #[test]
    fn no_bytes_panic_or_ask_for_much(which: Index, body in vec(any::<u8>(), 0..600)) {
        let kinds = kinds();
        let (_, kind, _) = which.get(&kinds);
        if let Ok(frame) = checked_decode(*kind, &body) {
            prop_assert_eq!(&frame[codec::HEADER_LEN..], &body[..]);
        }
        prop_assert!(decode_any(0xffff, &body).is_err());
        read_any(&body);
    }

    #[test]
    fn no_frame_header_panics(bytes in vec(any::<u8>(), 0..40), magic: bool) {
        let bytes = if magic { [b"SM\x01\x01", &bytes[..]].concat() } else { bytes };
        prop_assert!(codec::decode::<Advert>(&bytes).is_err());
        prop_assert!(scenemesh_protocol::messages::Request::decode(&bytes).is_err());
    }

    #[test]
    fn sealed_payloads_come_back_and_no_change_survives(
        spec in task_spec(), ids: ([u8; 16], u64, [u8; 16]), at: Index, mask in 1u8..,
    ) {
        let kem = KemSecret::from_bytes(&[8; 32]);
        let to = Recipient { node: samples::key(5).public().node(), kem: kem.public() };
        let terms = Terms {
            pool: PoolId::from_bytes(ids.0), epoch: ids.1, task: spec.task, attempt: spec.attempt,
            msg_id: MsgId::from_bytes(ids.2), created_ms: 1_000_000, expires_ms: 1_000_000 + MAX_LIFETIME_MS,
        };
        let payload = GrantPayload::Inline(spec);
        let envelope = Envelope::seal(&payload, &samples::key(3), &to, &terms).unwrap();
        let open = |envelope: &Envelope| -> Option<Opened<GrantPayload>> {
            let desk = Desk {
                pool: terms.pool, me: to.node, epoch: terms.epoch,
                standing: &|_| Standing::Admitted, seen: &|_, _| false, purged_ms: 0,
            };
            envelope.read().ok()?.judge(terms.created_ms, &desk).ok()?.open(&kem).ok()
        };
        prop_assert_eq!(open(&envelope).map(|opened| opened.payload), Some(payload));
        let mut changed = envelope.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] ^= mask;
        prop_assert!(open(&Envelope::from_bytes(changed)).is_none());
    }

    #[test]
    fn invites_come_back(ids: ([u8; 16], [u8; 32], [u8; 16]), addresses in vec("/[!-~]{0,60}", 0..5)) {
        let invite = Invite::new(
            PoolId::from_bytes(ids.0), NodeId::from_bytes(ids.1), StudioId::from_bytes(ids.2),
            InviteSecret::from_bytes(ids.2), addresses,
        );
        prop_assert_eq!(Invite::from_code(&invite.to_code()), Ok(invite));
    }

    #[test]
    fn a_changed_code_is_no_invite(at: Index, with in "[a-z2-7]") {
        let invite = Invite::new(
            PoolId::from_bytes([1; 16]), NodeId::from_bytes([2; 32]), StudioId::from_bytes([4; 16]), InviteSecret::from_bytes([3; 16]),
            ["/ip4/10.0.0.1/tcp/7873"],
        );
        let code = invite.to_code();
        let at = at.index(code.len());
        let changed = format!("{}{with}{}", &code[..at], &code[at + 1..]);
        prop_assert!(changed == code.as_str() || Invite::from_code(&changed).is_err());
    }

    #[test]
    fn an_optional_value_takes_one_form(value in option::of(any::<u32>())) {
        let body = codec::encode_body(&value);
        let mut strange = body.clone();
        strange[0] = 2;
        prop_assert_eq!(codec::decode_body::<Option<u32>>(&body, 8), Ok(value));
        prop_assert!(codec::decode_body::<Option<u32>>(&strange, 8).is_err());
    }
}
