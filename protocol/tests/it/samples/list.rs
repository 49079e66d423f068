//! Every message by its name in `golden.txt`.

use super::*;

/// Every message. The names are in `golden.txt`, so they stay.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    messages(&mut all);
    requests(&mut all);
    responses(&mut all);
    porch(&mut all);
    all
}

fn message<T: Message>(all: &mut Vec<Sample>, name: &'static str, value: &T) {
    all.push(Sample { name, frame: codec::encode(value) });
}

fn messages(all: &mut Vec<Sample>) {
    message(all, "Settings", &settings());
    message(all, "SignedSettings", &signed_settings());
    message(all, "Member", &member());
    message(all, "Member, unlimited", &Member { not_after_ms: None, ..member() });
    message(all, "Revoked", &revoked());
    message(all, "SignedRecord, member", &records()[0]);
    message(all, "SignedRecord, revoked", &records()[1]);
    message(all, "SignedRecord, rotated", &records()[2]);
    message(all, "Rotated", &rotated());
    message(all, "Project", &project());
    let free = Project {
        max_reach: Reach::Pool,
        nodes: None,
        hygiene: Hygiene::Partial,
        retention_s: None,
        closed: true,
        ..project()
    };
    message(all, "Project, free", &free);
    message(all, "Block", &block());
    message(all, "StudioKey", &studio_key());
    message(all, "WipeRecord", &wipe());
    message(all, "Advert", &advert());
    let not_now = Advert { availability: Availability::NotNow, hygiene: Hygiene::Full, ..advert() };
    message(all, "Advert, not now", &not_now);
    message(all, "Inventory", &inventory());
    message(all, "TaskSpec", &task_spec());
    for (name, reach) in [("TaskSpec, machine", Reach::Machine), ("TaskSpec, studio", Reach::Studio)] {
        let mut spec = task_spec();
        (spec.reach, spec.project) = (reach, None);
        message(all, name, &spec);
    }
    let segments = vec![hash(0x33), hash(0x34)];
    message(all, "Manifest", &Manifest::new((1 << 20) + 16 + 17, segments).unwrap());
    message(all, "GrantTerms", &grant_terms());
    let plain = GrantTerms { class: Class::Batch, quote: None, memo: None, ..grant_terms() };
    message(all, "GrantTerms, no quote", &plain);
    message(all, "AcceptedTerms", &accepted_terms());
    message(all, "FinishedTerms, done", &finished_terms(done()));
    message(all, "FinishedTerms, failed", &finished_terms(Outcome::Failed(failure())));
    message(all, "GrantRight", &grant_right());
    let kept = KeptJob { job: JOB, root: hash(0x31), key: BlobKey::from_bytes([0x32; 32]), bytes: 300_000 };
    message(all, "KeptJob", &kept);
    message(all, "GrantPayload, inline", &GrantPayload::Inline(task_spec()));
    let blob = GrantPayload::Blob { root: hash(0x31), key: BlobKey::from_bytes([0x32; 32]), bytes: 300_000 };
    message(all, "GrantPayload, blob", &blob);
    message(all, "ResultKeys", &result_keys());
    message(all, "UsageClaim", &usage_claim());
    let get = |want| BlobGet { task: TASK, attempt: 2, root: hash(0x22), want };
    message(all, "BlobGet, manifest", &get(BlobWant::Manifest));
    message(all, "BlobGet, segments", &get(BlobWant::Segments(vec![(0, 4), (9, 1)])));
    message(all, "BlobHead, sending", &BlobHead::Sending { bytes: 4112 });
    message(all, "BlobHead, not served", &BlobHead::NotServed);
    message(all, "BlobHead, busy", &BlobHead::Busy);
}

fn requests(all: &mut Vec<Sample>) {
    let mut add = |name, request: Request| all.push(Sample { name, frame: request.encode() });
    add("Request::Hello", hello().into());
    add("Request::Adverts", adverts().into());
    add("Request::AdvertSync", AdvertSync { have: vec![(node(3), BOOT, 5)] }.into());
    add("Request::Inventory", InventoryGet.into());
    add("Request::Definitions", DefinitionsGet { part: 2, have: vec![hash(7)] }.into());
    add("Request::RosterSync", sync().into());
    add("Request::Roster", diff().into());
    add("Request::Goodbye", Goodbye.into());
    add("Request::StudioSync", StudioSync { records: vec![hash(0x3a)], secrets: vec![1, 2] }.into());
    add("Request::Studio", studio_diff().into());
    let offer = Offer {
        reservation: RESERVATION,
        job: JOB,
        shape: shape(),
        class: Class::Normal,
        ready: 20,
        right: None,
    };
    add("Request::Offer", offer.clone().into());
    let right = Some(Signed::new(&grant_right(), &key(5)));
    add("Request::Offer, of a deputy", Offer { right, ..offer }.into());
    add("Request::Claim", Claim { reservation: RESERVATION, claim: CLAIM }.into());
    let grant = Grant { terms: Signed::new(&grant_terms(), &key(5)), envelope: b"envelope".to_vec() };
    add("Request::Grant", grant.into());
    add("Request::Progress, fetching", progress(Phase::Fetching, None).into());
    add("Request::Progress, queued", progress(Phase::Queued, None).into());
    let preview = Preview { mime: "image/jpeg".into(), bytes: vec![0xff, 0xd8] };
    add("Request::Progress, running", progress(Phase::Running, Some(preview)).into());
    add("Request::Progress, sealing", progress(Phase::Sealing, None).into());
    add("Request::Finished, done", finished(done(), b"keys").into());
    add("Request::Finished, failed", finished(Outcome::Failed(failure()), b"").into());
    add("Request::Ack, stored", Ack { task: TASK, attempt: 2, kind: AckKind::Stored }.into());
    add("Request::Ack, discard", Ack { task: TASK, attempt: 2, kind: AckKind::Discard }.into());
    add("Request::Cancel", Cancel { task: TASK, attempt: 2 }.into());
    add("Request::Probe", Probe { task: TASK, attempt: 2 }.into());
    let roots = vec![BlobRef { root: hash(0x31), sealed_bytes: 4112 }];
    let keep = Keep { right: Signed::new(&grant_right(), &key(5)), envelope: b"envelope".to_vec(), roots };
    add("Request::Keep", keep.into());
    let tasks = vec![(TASK, TaskNews::Open), (TASK, TaskNews::Paused), (TASK, TaskNews::Over)];
    add("Request::KeepNews", KeepNews { job: JOB, tasks }.into());
    add("Request::TakeBack", TakeBack { job: JOB }.into());
    add("Request::Release", Release { job: JOB }.into());
}

fn responses(all: &mut Vec<Sample>) {
    let mut add = |name, response: Response| all.push(Sample { name, frame: response.encode() });
    add("Response::Hello", hello().into());
    add("Response::Done", Done.into());
    add("Response::Declined, no hello", declined(Decline::NoHello).into());
    add("Response::Declined, busy", declined(Decline::Busy).into());
    add("Response::Declined, not allowed", declined(Decline::NotAllowed).into());
    add("Response::Declined, unsupported", declined(Decline::Unsupported).into());
    add("Response::Declined, stopping", declined(Decline::Stopping).into());
    add("Response::Adverts", adverts().into());
    add("Response::Inventory", inventory().into());
    let part = DefinitionsPart { root: hash(7), parts: 3, bytes: b"a part".to_vec() };
    add("Response::Definitions", part.into());
    add("Response::Roster", diff().into());
    add("Response::Studio", studio_diff().into());
    add("Response::Offer, waiting", OfferReply::Waiting { position: 3, eta_ms: Some(60_000) }.into());
    for (name, reason) in [
        ("Response::Offer, not ready", RefusalReason::NotReady),
        ("Response::Offer, missing class", RefusalReason::MissingClass),
        ("Response::Offer, missing model", RefusalReason::MissingModel),
        ("Response::Offer, too little vram", RefusalReason::TooLittleVram),
        ("Response::Offer, not allowed", RefusalReason::NotAllowed),
        ("Response::Offer, busy", RefusalReason::Busy),
        ("Response::Offer, stopping", RefusalReason::Stopping),
        ("Response::Offer, disk full", RefusalReason::DiskFull),
        ("Response::Offer, bad grant", RefusalReason::BadGrant),
        ("Response::Offer, tombstone", RefusalReason::Tombstone),
        ("Response::Offer, version", RefusalReason::Version),
    ] {
        add(name, OfferReply::Refused(refusal(reason)).into());
    }
    add("Response::Offer, claim", OfferReply::Claim(CLAIM).into());
    add("Response::Claim, coming", ClaimReply::Coming.into());
    add("Response::Claim, gone", ClaimReply::Gone.into());
    add("Response::Grant, accepted", GrantReply::Accepted(Signed::new(&accepted_terms(), &key(3))).into());
    let rejected = GrantReply::Rejected { refusal: refusal(RefusalReason::Busy), failure: Some(failure()) };
    add("Response::Grant, rejected", rejected.into());
    add("Response::Verdict, continue", Verdict::Continue.into());
    add("Response::Verdict, cancel", Verdict::Cancel.into());
    add("Response::Verdict, drain", Verdict::Drain.into());
    add("Response::Verdict, unknown", Verdict::Unknown.into());
    add("Response::Finished, noted", FinishedReply::Noted.into());
    add("Response::Finished, discard", FinishedReply::Discard.into());
    add("Response::Keep, coming", KeepReply::Coming.into());
    add("Response::Keep, refused", KeepReply::Refused("its disk is full".into()).into());
    add("Response::TakeBack, unknown", TakeBackReply::Unknown.into());
    add("Response::TakeBack, coming", TakeBackReply::Coming.into());
    let in_hand = vec![InHand { task: TASK, attempt: first_attempt(1), grant: hash(0x33) }];
    add("Response::TakeBack, yours", TakeBackReply::Yours { in_hand, done: vec![TASK] }.into());
    add("Response::Attempt, unknown", AttemptState::Unknown.into());
    add("Response::Attempt, running", AttemptState::Running(Phase::Running).into());
    add("Response::Attempt, finished", AttemptState::Finished(Box::new(finished(done(), b"keys"))).into());
}

fn porch(all: &mut Vec<Sample>) {
    let mut add = |name, request: PorchRequest| all.push(Sample { name, frame: request.encode() });
    add("PorchRequest::Join", join_request().into());
    let plain = JoinRequest::sign(&joining(None), &key(6), &key(7));
    add("PorchRequest::Join, no studio", plain.into());
    add("PorchRequest::Roster", diff().into());
    add("PorchRequest::RosterSync", sync().into());
    add("PorchRequest::Standing", StandingGet { key: key(3).public() }.into());

    let mut add = |name, response: PorchResponse| all.push(Sample { name, frame: response.encode() });
    let admitted = JoinReply::Admitted {
        settings: vec![signed_settings()],
        records: records(),
        addresses: vec!["/ip4/192.168.1.5/tcp/7872".into()],
    };
    add("PorchResponse::Join, admitted", admitted.into());
    add(
        "PorchResponse::Join, locked",
        JoinReply::Pending { needs: JoinNeeds::Unlock, words: words() }.into(),
    );
    let needs = JoinNeeds::Approvals { have: 1, need: 2 };
    add("PorchResponse::Join, to approve", JoinReply::Pending { needs, words: words() }.into());
    for (name, reason) in [
        ("PorchResponse::Join, unknown invite", JoinRefusal::UnknownInvite),
        ("PorchResponse::Join, expired", JoinRefusal::Expired),
        ("PorchResponse::Join, used", JoinRefusal::Used),
        ("PorchResponse::Join, bad request", JoinRefusal::BadRequest),
        ("PorchResponse::Join, revoked key", JoinRefusal::RevokedKey),
        ("PorchResponse::Join, name taken", JoinRefusal::NameTaken),
        ("PorchResponse::Join, admin key", JoinRefusal::AdminKey),
        ("PorchResponse::Join, version", JoinRefusal::Version),
    ] {
        add(name, JoinReply::Refused { reason, words: words() }.into());
    }
    add("PorchResponse::Roster", diff().into());
    add("PorchResponse::Standing, unknown", Standing::Unknown.into());
    add("PorchResponse::Standing, member", Standing::Member.into());
    let standing = Standing::Revoked { reason: "lost laptop".into(), issued_ms: NOW };
    add("PorchResponse::Standing, revoked", standing.into());
    add("PorchResponse::Declined", declined(Decline::Busy).into());
}
