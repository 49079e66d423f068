use super::*;
use crate::task::{OutputFile, OutputKind, TaskSpec};

const NOW: u64 = 1_800_000_000_000;

struct Pair {
    sender: SecretKey,
    kem: KemSecret,
    to: Recipient,
}

impl Pair {
    fn new() -> Self {
        let sender = SecretKey::from_seed(&[1; 32]);
        let kem = KemSecret::from_bytes(&[2; 32]);
        let node = SecretKey::from_seed(&[3; 32]).public().node();
        let to = Recipient { node, kem: kem.public() };
        Self { sender, kem, to }
    }

    fn seal(&self, terms: &Terms) -> Envelope {
        Envelope::seal(&keys(), &self.sender, &self.to, terms).unwrap()
    }

    fn desk(&self) -> Desk<'static> {
        Desk {
            pool: terms().pool,
            me: self.to.node,
            epoch: 4,
            standing: &|_| Standing::Admitted,
            seen: &|_, _| false,
            purged_ms: 0,
        }
    }

    /// Skips the judge: what the cryptography alone refuses.
    fn open(&self, envelope: &Envelope) -> Option<Opened<ResultKeys>> {
        Judged(envelope.read().ok()?).open(&self.kem).ok()
    }

    fn judged(&self, envelope: &Envelope, now_ms: u64, desk: &Desk<'_>) -> Result<(), Refused> {
        judge_header(&open_header::<ResultKeys>(envelope.as_bytes()).unwrap(), now_ms, desk)
    }
}

fn terms() -> Terms {
    Terms {
        pool: PoolId::from_bytes([4; 16]),
        epoch: 4,
        task: TaskId::from_bytes([5; 16]),
        attempt: 2,
        msg_id: MsgId::from_bytes([6; 16]),
        created_ms: NOW,
        expires_ms: NOW + MAX_LIFETIME_MS,
    }
}

fn keys() -> ResultKeys {
    ResultKeys {
        task: terms().task,
        attempt: terms().attempt,
        grant: ContentHash::of(b"grant"),
        outputs: vec![OutputFile {
            node: "9".into(),
            kind: OutputKind::Image,
            filename: "a_00001_.png".into(),
            root: ContentHash::of(b"root"),
            key: crate::sealed::BlobKey::from_bytes([7; 32]),
            bytes: 1234,
        }],
    }
}

fn flipped(envelope: &Envelope, at: usize) -> Envelope {
    let mut bytes = envelope.as_bytes().to_vec();
    bytes[at] ^= 0x01;
    Envelope::from_bytes(bytes)
}

/// The envelope with its header changed and everything else, lengths too, as it was.
fn with_header(envelope: &Envelope, change: impl FnOnce(&mut Header)) -> Envelope {
    let mut header = open_header::<ResultKeys>(envelope.as_bytes()).unwrap();
    change(&mut header);
    Envelope::from_bytes([&codec::encode_body(&header)[..], &envelope.as_bytes()[HEADER_LEN..]].concat())
}

#[test]
fn a_header_has_the_length_it_says() {
    let pair = Pair::new();
    let header = open_header::<ResultKeys>(pair.seal(&terms()).as_bytes()).unwrap();
    assert_eq!(codec::encode_body(&header).len(), HEADER_LEN);
}

#[test]
fn the_addressee_opens_what_the_sender_sealed() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    let judged = envelope.read::<ResultKeys>().unwrap().judge(NOW + 1, &pair.desk()).unwrap();
    let opened = judged.open(&pair.kem).unwrap();
    assert_eq!(opened.payload, keys());
    assert_eq!(opened.payload_hash, ContentHash::of(&codec::encode_body(&keys())));
    assert_eq!(opened.envelope_hash, envelope.hash());
    assert_eq!(opened.header.from, pair.sender.public().node());
}

#[test]
fn sealing_twice_gives_different_bytes() {
    let pair = Pair::new();
    assert_ne!(pair.seal(&terms()), pair.seal(&terms()));
}

#[test]
fn every_flipped_byte_is_refused() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    assert!(pair.open(&envelope).is_some());
    for at in 0..envelope.as_bytes().len() {
        assert!(pair.open(&flipped(&envelope, at)).is_none(), "byte {at}");
    }
}

#[test]
fn truncation_and_extension_are_refused() {
    let pair = Pair::new();
    let whole = pair.seal(&terms()).as_bytes().to_vec();
    for len in 0..whole.len() {
        assert!(pair.open(&Envelope::from_bytes(whole[..len].to_vec())).is_none(), "{len} bytes");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(
        Envelope::from_bytes(longer).read::<ResultKeys>(),
        Err(BadHeader::Length { says, has }) if says + 1 == has
    ));
}

#[test]
fn a_re_addressed_envelope_does_not_open() {
    let pair = Pair::new();
    let other = KemSecret::from_bytes(&[8; 32]);
    let envelope = pair.seal(&terms());
    // To another node that got hold of it, with the header as it was, or with its own name.
    let judged = Judged(envelope.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&other), Err(OpenError::NotForThisKey));
    let thief = SecretKey::from_seed(&[9; 32]).public().node();
    let renamed = with_header(&envelope, |header| header.to = thief);
    let judged = Judged(renamed.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&other), Err(OpenError::NotForThisKey));
    assert_eq!(pair.judged(&renamed, NOW, &pair.desk()), Err(Refused::NotForMe { to: thief }));
}

#[test]
fn the_addressee_cannot_pass_the_signature_on() {
    // Surreptitious forwarding: the addressee opens it and seals signature ‖ payload for somebody else.
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    let header = open_header::<ResultKeys>(envelope.as_bytes()).unwrap();
    let (header_bytes, body) = envelope.as_bytes().split_at(HEADER_LEN);
    let enc = <HpkeKem as Kem>::EncappedKey::from_bytes(&header.enc).unwrap();
    let mut context =
        hpke::setup_receiver::<Aead, Kdf, HpkeKem>(&OpModeR::Base, pair.kem.hpke(), &enc, &header.info())
            .unwrap();
    let plain = context.open(body, header_bytes).unwrap();

    let victim = KemSecret::from_bytes(&[8; 32]);
    let mut forged = Header { to: SecretKey::from_seed(&[9; 32]).public().node(), ..header };
    let (enc, mut context) = hpke::setup_sender::<Aead, Kdf, HpkeKem>(
        &OpModeS::Base,
        &victim.public().hpke().unwrap(),
        &forged.info(),
    )
    .unwrap();
    forged.enc = enc.to_bytes().into();
    let forged = codec::encode_body(&forged);
    let body = context.seal(&plain, &forged).unwrap();
    let forged = Envelope::from_bytes([forged, body].concat());
    let judged = Judged(forged.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&victim), Err(OpenError::Forged(ForgedSignature::Mismatch)));
}

#[test]
fn header_and_body_of_two_envelopes_do_not_mix() {
    let pair = Pair::new();
    let one = pair.seal(&terms());
    let two = pair.seal(&Terms { msg_id: MsgId::from_bytes([66; 16]), ..terms() });
    for (header, body) in [(&one, &two), (&two, &one)] {
        let spliced = [&header.as_bytes()[..HEADER_LEN], &body.as_bytes()[HEADER_LEN..]].concat();
        assert!(pair.open(&Envelope::from_bytes(spliced)).is_none());
    }
}

#[test]
fn pool_epoch_task_attempt_and_times_are_bound() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    let changes: [fn(&mut Header); 8] = [
        |header| header.pool = PoolId::from_bytes([40; 16]),
        |header| header.epoch = 3,
        |header| header.task = TaskId::from_bytes([50; 16]),
        |header| header.attempt = 3,
        |header| header.created_ms += 1,
        |header| header.expires_ms -= 1,
        |header| header.msg_id = MsgId::from_bytes([60; 16]),
        |header| header.from = SecretKey::from_seed(&[90; 32]).public().node(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(pair.open(&with_header(&envelope, change)).is_none(), "change {index}");
    }
}

#[test]
fn an_envelope_names_the_attempt_of_its_payload() {
    let pair = Pair::new();
    let other = Terms { attempt: 3, ..terms() };
    assert_eq!(Envelope::seal(&keys(), &pair.sender, &pair.to, &other), Err(SealError::OtherTask));
    // A dishonest sender seals it all the same: its payload says that it names no attempt.
    #[derive(Encode, Decode)]
    struct Careless(ResultKeys);
    impl Message for Careless {
        const TYPE: u16 = ResultKeys::TYPE;
        const LIMIT: usize = ResultKeys::LIMIT;
    }
    impl Sealable for Careless {
        const DOMAIN: Domain = ResultKeys::DOMAIN;
        fn names(&self) -> Option<(TaskId, u32)> {
            None
        }
    }
    let envelope = Envelope::seal(&Careless(keys()), &pair.sender, &pair.to, &other).unwrap();
    let judged = Judged(envelope.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&pair.kem), Err(OpenError::OtherTask));
}

#[test]
fn one_kind_of_payload_does_not_pass_for_another() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    assert_eq!(
        envelope.read::<GrantPayload>().unwrap_err(),
        BadHeader::Kind { got: ResultKeys::TYPE, expected: GrantPayload::TYPE }
    );
}

#[test]
fn the_sender_of_the_header_is_the_one_who_signed() {
    // Sealed by a stranger who writes an honest member's name on it.
    let pair = Pair::new();
    let stranger = SecretKey::from_seed(&[77; 32]);
    let honest = pair.sender.public().node();
    let mut header = open_header::<ResultKeys>(pair.seal(&terms()).as_bytes()).unwrap();
    assert_eq!(header.from, honest);
    let (enc, mut context) = hpke::setup_sender::<Aead, Kdf, HpkeKem>(
        &OpModeS::Base,
        &pair.to.kem.hpke().unwrap(),
        &header.info(),
    )
    .unwrap();
    header.enc = enc.to_bytes().into();
    let payload = codec::encode_body(&keys());
    let bytes = codec::encode_body(&header);
    let signature =
        stranger.sign(ResultKeys::DOMAIN, &signed_bytes(header.codec, header.kind, &bytes, &payload));
    let body = context.seal(&[&signature.as_bytes()[..], &payload].concat(), &bytes).unwrap();
    let forged = Envelope::from_bytes([bytes, body].concat());
    let judged = Judged(forged.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&pair.kem), Err(OpenError::Forged(ForgedSignature::Mismatch)));
}

#[test]
fn the_judge_refuses_in_order_and_says_why() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    let desk = pair.desk();
    assert_eq!(pair.judged(&envelope, NOW, &desk), Ok(()));
    let from = pair.sender.public().node();

    let elsewhere = Desk { pool: PoolId::from_bytes([44; 16]), ..pair.desk() };
    assert!(matches!(pair.judged(&envelope, NOW, &elsewhere), Err(Refused::OtherPool { .. })));
    let behind = Desk { epoch: 3, standing: &|_| Standing::Unknown, ..pair.desk() };
    assert_eq!(pair.judged(&envelope, NOW, &behind), Err(Refused::RosterBehind { theirs: 4, mine: 3 }));
    let unknown = Desk { standing: &|_| Standing::Unknown, ..pair.desk() };
    assert_eq!(pair.judged(&envelope, NOW, &unknown), Err(Refused::UnknownSender { from }));
    let revoked = Desk { standing: &|_| Standing::Revoked, ..pair.desk() };
    assert_eq!(pair.judged(&envelope, NOW, &revoked), Err(Refused::RevokedSender { from }));
    let renders_only = Desk { standing: &|_| Standing::LacksRole, ..pair.desk() };
    assert_eq!(pair.judged(&envelope, NOW, &renders_only), Err(Refused::SenderLacksRole { from }));
    let seen = Desk { seen: &|_, _| true, ..pair.desk() };
    let msg_id = terms().msg_id;
    assert_eq!(pair.judged(&envelope, NOW, &seen), Err(Refused::Seen { msg_id }));
    let purged = Desk { purged_ms: terms().expires_ms, ..pair.desk() };
    assert_eq!(pair.judged(&envelope, NOW, &purged), Err(Refused::BelowPurgeMark));
}

#[test]
fn time_is_judged_within_the_skew_and_in_words() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    let desk = pair.desk();
    let last = terms().expires_ms + MAX_SKEW_MS;
    assert_eq!(pair.judged(&envelope, last, &desk), Ok(()));
    let expired = pair.judged(&envelope, last + 3 * 60_000, &desk).unwrap_err();
    assert!(expired.to_string().starts_with("the envelope expired 8 minutes ago"), "{expired}");
    assert_eq!(pair.judged(&envelope, NOW - MAX_SKEW_MS, &desk), Ok(()));
    let future = pair.judged(&envelope, NOW - 3 * 3_600_000, &desk).unwrap_err();
    assert!(future.to_string().contains("created 3 hours in the future"), "{future}");

    // Times that are no honest lifetime, whatever the clock says.
    for expires_ms in [NOW, NOW - 1, NOW + MAX_LIFETIME_MS + 1, u64::MAX, 0] {
        let strange = with_header(&envelope, |header| header.expires_ms = expires_ms);
        let refused = pair.judged(&strange, NOW, &desk);
        assert!(matches!(refused, Err(Refused::Lifetime { .. })), "{expires_ms}: {refused:?}");
    }
}

#[test]
fn sealing_refuses_bad_lifetimes_and_weak_keys() {
    let pair = Pair::new();
    let eternal = Terms { expires_ms: NOW + MAX_LIFETIME_MS + 1, ..terms() };
    assert!(matches!(
        Envelope::seal(&keys(), &pair.sender, &pair.to, &eternal),
        Err(SealError::Lifetime { .. })
    ));
    let mut identity = [0; 32];
    identity[0] = 1;
    for to in [
        Recipient { kem: KemPublic::from_bytes([0; 32]), ..pair.to },
        Recipient { kem: KemPublic::from_bytes(identity), ..pair.to },
        Recipient { node: NodeId::from_bytes(identity), ..pair.to },
    ] {
        assert_eq!(Envelope::seal(&keys(), &pair.sender, &to, &terms()), Err(SealError::WeakKey));
    }
}

#[test]
fn a_weak_encapsulated_key_or_sender_does_not_open() {
    let pair = Pair::new();
    let envelope = pair.seal(&terms());
    assert!(pair.open(&with_header(&envelope, |header| header.enc = [0; 32])).is_none());
    let mut identity = [0; 32];
    identity[0] = 1;
    // A sender of small order would "verify" a crafted signature over anything.
    let mut header = open_header::<ResultKeys>(envelope.as_bytes()).unwrap();
    header.from = NodeId::from_bytes(identity);
    let (enc, mut context) = hpke::setup_sender::<Aead, Kdf, HpkeKem>(
        &OpModeS::Base,
        &pair.to.kem.hpke().unwrap(),
        &header.info(),
    )
    .unwrap();
    header.enc = enc.to_bytes().into();
    let bytes = codec::encode_body(&header);
    let mut signature = [0; SIGNATURE_LEN];
    signature[0] = 1;
    let body = context.seal(&[&signature[..], &codec::encode_body(&keys())].concat(), &bytes).unwrap();
    let forged = Envelope::from_bytes([bytes, body].concat());
    let judged = Judged(forged.read::<ResultKeys>().unwrap());
    assert_eq!(judged.open(&pair.kem), Err(OpenError::Forged(ForgedSignature::BadKey)));
}

#[test]
fn a_grant_payload_carries_its_spec_or_names_its_blob() {
    let pair = Pair::new();
    let spec = |graph: usize| TaskSpec {
        task: terms().task,
        attempt: terms().attempt,
        graph: vec![b'x'; graph],
        extra_data: Vec::new(),
        inputs: Vec::new(),
        previews: false,
        full_hygiene: false,
        time_limit_ms: 1,
        reach: crate::task::Reach::Pool,
        project: None,
    };
    let empty = codec::encode_body(&spec(0)).len();
    assert!(GrantPayload::fits_inline(&spec(INLINE_LIMIT - empty)));
    assert!(!GrantPayload::fits_inline(&spec(INLINE_LIMIT - empty + 1)));
    let largest = GrantPayload::Inline(spec(INLINE_LIMIT - empty));
    let envelope = Envelope::seal(&largest, &pair.sender, &pair.to, &terms()).unwrap();
    assert_eq!(envelope.as_bytes().len(), envelope_limit::<GrantPayload>());
    let opened = Judged(envelope.read::<GrantPayload>().unwrap()).open(&pair.kem).unwrap();
    assert_eq!(opened.payload, largest);
    let too_large = GrantPayload::Inline(spec(INLINE_LIMIT));
    assert!(matches!(
        Envelope::seal(&too_large, &pair.sender, &pair.to, &terms()),
        Err(SealError::TooLong { .. })
    ));

    let plain = codec::encode_body(&spec(10));
    let Terms { task, attempt, .. } = terms();
    assert_eq!(GrantPayload::spec_from_blob(&plain, task, attempt), Ok(spec(10)));
    assert_eq!(GrantPayload::spec_from_blob(&plain, task, attempt + 1), Err(OpenError::OtherTask));
}
