//! Envelopes that no honest node would send.

use anyhow::{Result, bail, ensure};
use scenemesh_testnet::hostile::bytes::{Id, Writer};
use scenemesh_testnet::hostile::envelope::{HEADER, Header, LIFETIME_MS, seal};
use scenemesh_testnet::hostile::keys::{Key, now_ms, random};
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::requester::{Grant, Order};
use scenemesh_testnet::hostile::task::{GRANT_DOMAIN, GrantReply, Reason};
use scenemesh_testnet::scenarios::started;
use scenemesh_testnet::workflows;

use crate::{AMBER, machine, mallory, renders, still_works, tell};

fn tiny() -> Result<Order> {
    Order::new(&workflows::tiny(3), &[])
}

/// Sends `make`'s grant for a claim of its own and expects a refusal for this reason that says `words`.
async fn refused(
    peer: &mut Member,
    reason: Reason,
    words: &str,
    make: impl FnOnce(&Member, Id, &Order) -> Result<Grant>,
) -> Result<()> {
    let (amber, order) = (peer.host(), tiny()?);
    let claim = peer.claim_of(&amber, &order.offer).await?;
    let grant = make(peer, claim, &order)?;
    let reply = peer.grant(&amber, &grant).await?;
    peer.withdraw(&amber, &order.offer).await?;
    match reply {
        GrantReply::Rejected { refusal, .. } => {
            ensure!(refusal.reason == reason, "for another reason: {refusal:?}");
            ensure!(refusal.detail.contains(words), "in other words: {refusal:?}");
            Ok(())
        }
        GrantReply::Accepted(_) => bail!("it was accepted"),
    }
}

/// A story of one refused grant: nothing of it ran, an honest grant of the same node runs, and so does honest work.
fn one_refusal(
    reason: Reason,
    words: &'static str,
    make: impl FnOnce(&Member, Id, &Order) -> Result<Grant> + 'static,
) {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            refused(&mut peer, reason, words, make).await?;
            ensure!(started(mesh.node(AMBER)).is_empty(), "nothing of it reached ComfyUI");
            let amber = peer.host();
            peer.render_at(&amber, &tiny()?).await?;
            still_works(mesh, dir).await
        })
    });
}

/// A grant whose envelope has a header with one lie in it, sealed and signed soundly all the same.
fn with_header(peer: &Member, claim: Id, order: &Order, lie: impl FnOnce(&mut Header)) -> Result<Grant> {
    let amber = peer.host();
    let mut header = peer.header_for(&amber, order)?;
    lie(&mut header);
    let envelope = seal(header, &order.payload(), &peer.me.key, &peer.kem_of(&amber)?)?;
    addressed(peer, claim, order, envelope)
}

/// Sound terms for amber around any envelope.
fn addressed(peer: &Member, claim: Id, order: &Order, envelope: Vec<u8>) -> Result<Grant> {
    let mut terms = peer.terms_for(claim, order, &envelope)?;
    (terms.to, terms.task, terms.attempt) = (peer.host(), order.spec.task, order.spec.attempt);
    Ok(Grant { terms: peer.me.key.signed(GRANT_DOMAIN, &terms.encode()), envelope })
}

#[test]
fn an_envelope_signed_by_another_key_is_refused() {
    one_refusal(Reason::BadGrant, "did not sign", |peer, claim, order| {
        let amber = peer.host();
        let header = peer.header_for(&amber, order)?;
        let envelope = seal(header, &order.payload(), &Key::random(), &peer.kem_of(&amber)?)?;
        peer.grant_around(claim, order, envelope)
    });
}

#[test]
fn terms_signed_by_another_key_are_refused() {
    one_refusal(Reason::BadGrant, "signed by another node", |peer, claim, order| {
        let grant = peer.grant_for(&peer.host(), claim, order)?;
        Ok(Grant { terms: Key::random().signed(GRANT_DOMAIN, &grant.terms.body), ..grant })
    });
}

#[test]
fn terms_with_a_forged_signature_are_refused() {
    one_refusal(Reason::BadGrant, "signature", |peer, claim, order| {
        let mut grant = peer.grant_for(&peer.host(), claim, order)?;
        grant.terms.signature[7] ^= 1;
        Ok(grant)
    });
}

#[test]
fn terms_signed_in_another_domain_are_refused() {
    one_refusal(Reason::BadGrant, "signature", |peer, claim, order| {
        let grant = peer.grant_for(&peer.host(), claim, order)?;
        Ok(Grant { terms: peer.me.key.signed("scenemesh/v1/finished", &grant.terms.body), ..grant })
    });
}

#[test]
fn an_envelope_other_than_the_signed_one_is_refused() {
    one_refusal(Reason::BadGrant, "not the one that was signed", |peer, claim, order| {
        let grant = peer.grant_for(&peer.host(), claim, order)?;
        let other = peer.grant_for(&peer.host(), claim, order)?;
        Ok(Grant { terms: grant.terms, envelope: other.envelope })
    });
}

#[test]
fn a_replayed_envelope_is_refused_and_a_repeated_grant_runs_once() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let (amber, order) = (peer.host(), tiny()?);
            let claim = peer.claim_of(&amber, &order.offer).await?;
            let grant = peer.grant_for(&amber, claim, &order)?;
            peer.accepted(&amber, &grant).await?;
            peer.accepted(&amber, &grant).await?;
            let (terms, _) = peer.finished(&grant).await?;
            peer.ack(&amber, &terms.task, terms.attempt, true).await?;

            // The same envelope under a claim of its own: at first with its own attempt, then under another name.
            let envelope = grant.envelope.clone();
            let again = tiny()?;
            let claim = peer.claim_of(&amber, &again.offer).await?;
            let reply = peer.grant(&amber, &peer.grant_around(claim, &order, envelope.clone())?).await?;
            ensure!(matches!(reply, GrantReply::Rejected { .. }), "its attempt is over: {reply:?}");
            let sealed = envelope.clone();
            refused(&mut peer, Reason::BadGrant, "was received before", |peer, claim, order| {
                addressed(peer, claim, order, sealed)
            })
            .await?;
            ensure!(started(mesh.node(AMBER)).values().sum::<usize>() == 1, "it ran once");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_envelope_replayed_after_a_restart_of_the_victim_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let (amber, order) = (peer.host(), tiny()?);
            let claim = peer.claim_of(&amber, &order.offer).await?;
            let grant = peer.grant_for(&amber, claim, &order)?;
            peer.accepted(&amber, &grant).await?;
            let (terms, _) = peer.finished(&grant).await?;
            peer.ack(&amber, &terms.task, terms.attempt, true).await?;
            mesh.kill(AMBER).await?;
            peer.link.closed(&amber).await?;
            mesh.start(AMBER).await?;
            peer.enter().await?;
            renders(&peer).await?;

            let reply = peer.grant(&amber, &grant).await?;
            let GrantReply::Rejected { refusal, .. } = reply else { bail!("accepted again: {reply:?}") };
            ensure!(refusal.reason == Reason::Tombstone, "its attempt is over for good: {refusal:?}");
            // The same id in a sound envelope of another attempt.
            let seen = Header::read(&grant.envelope)?.msg_id;
            let replayed = |peer: &Member, claim, order: &Order| {
                with_header(peer, claim, order, |header| header.msg_id = seen)
            };
            refused(&mut peer, Reason::BadGrant, "before", replayed).await?;
            ensure!(started(mesh.node(AMBER)).values().sum::<usize>() == 1, "it ran once");
            peer.render_at(&amber, &tiny()?).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_envelope_readdressed_from_another_node_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let other = machine(mesh, "amber-02").await?;
            let amber = peer.host();
            peer.catch_up(&amber).await?;
            let (it, its_kem) = (other.me.key.public(), other.kem.public());
            let for_it = |peer: &Member, order: &Order| -> Result<Vec<u8>> {
                seal(peer.header_for(&it, order)?, &order.payload(), &peer.me.key, &its_kem)
            };
            // As it is, with terms for amber around it.
            let as_it_is =
                |peer: &Member, claim, order: &Order| addressed(peer, claim, order, for_it(peer, order)?);
            refused(&mut peer, Reason::BadGrant, "addressed to", as_it_is).await?;
            // With amber's name written over the addressee's.
            let overwritten = |peer: &Member, claim, order: &Order| {
                let mut envelope = for_it(peer, order)?;
                let at = Header::read(&envelope)?.encode();
                ensure!(at == envelope[..HEADER], "a header is read and written alike");
                let mut header = Header::read(&envelope)?;
                header.to = amber;
                envelope.splice(..HEADER, header.encode());
                addressed(peer, claim, order, envelope)
            };
            refused(&mut peer, Reason::BadGrant, "damaged", overwritten).await?;
            ensure!(started(mesh.node(AMBER)).is_empty(), "nothing of it reached ComfyUI");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_envelope_of_another_requester_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let mut honest = machine(mesh, "amber-02").await?;
            let (amber, order) = (peer.host(), tiny()?);
            honest.catch_up(&amber).await?;
            let envelope = seal(
                honest.header_for(&amber, &order)?,
                &order.payload(),
                &honest.me.key,
                &honest.kem_of(&amber)?,
            )?;
            let stolen = envelope.clone();
            refused(&mut peer, Reason::BadGrant, "different attempts", |peer, claim, mine| {
                let order = Order { spec: order.spec.clone(), ..mine.clone() };
                addressed(peer, claim, &order, stolen)
            })
            .await?;
            // Whose it is can still use it: the thief has not used it up.
            let claim = honest.claim_of(&amber, &order.offer).await?;
            let grant = honest.grant_around(claim, &order, envelope)?;
            honest.accepted(&amber, &grant).await?;
            honest.finished(&grant).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_envelope_spliced_of_two_is_refused() {
    one_refusal(Reason::BadGrant, "damaged", |peer, claim, order| {
        let one = peer.grant_for(&peer.host(), claim, order)?.envelope;
        let other = peer.grant_for(&peer.host(), claim, order)?.envelope;
        addressed(peer, claim, order, [&one[..HEADER], &other[HEADER..]].concat())
    });
}

#[test]
fn an_expired_envelope_is_refused() {
    one_refusal(Reason::BadGrant, "expired 10 minutes ago", |peer, claim, order| {
        with_header(peer, claim, order, |header| {
            header.created_ms = now_ms() - 2 * LIFETIME_MS;
            header.expires_ms = header.created_ms + LIFETIME_MS;
        })
    });
}

#[test]
fn a_future_dated_envelope_is_refused() {
    one_refusal(Reason::BadGrant, "in the future", |peer, claim, order| {
        with_header(peer, claim, order, |header| {
            header.created_ms = now_ms() + 2 * LIFETIME_MS;
            header.expires_ms = header.created_ms + LIFETIME_MS;
        })
    });
}

#[test]
fn an_envelope_that_never_expires_is_refused() {
    one_refusal(Reason::BadGrant, "at most 600000 ms", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.expires_ms = u64::MAX)
    });
}

#[test]
fn an_envelope_that_expires_before_it_was_made_is_refused() {
    one_refusal(Reason::BadGrant, "-1 ms", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.expires_ms = header.created_ms - 1)
    });
}

#[test]
fn an_envelope_of_another_pool_is_refused() {
    one_refusal(Reason::BadGrant, "of pool", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.pool = random())
    });
}

#[test]
fn an_envelope_of_an_epoch_that_nobody_has_is_refused() {
    // Another studio is not told what this machine waits for.
    one_refusal(Reason::NotNow, "not now", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.epoch += 7)
    });
}

#[test]
fn an_envelope_from_a_stranger_in_a_members_grant_is_refused() {
    one_refusal(Reason::BadGrant, "not a member", |peer, claim, order| {
        let stranger = Key::random();
        let amber = peer.host();
        let mut header = peer.header_for(&amber, order)?;
        header.from = stranger.public();
        let envelope = seal(header, &order.payload(), &stranger, &peer.kem_of(&amber)?)?;
        addressed(peer, claim, order, envelope)
    });
}

#[test]
fn an_envelope_of_an_older_version_is_refused() {
    one_refusal(Reason::BadGrant, "envelope version 0", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.version = 0)
    });
}

#[test]
fn an_envelope_of_a_weaker_suite_is_refused() {
    one_refusal(Reason::BadGrant, "cipher suite 0", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.suite = 0)
    });
}

#[test]
fn an_envelope_of_another_codec_is_refused() {
    one_refusal(Reason::BadGrant, "codec 2", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.codec = 2)
    });
}

#[test]
fn an_envelope_of_another_kind_is_refused() {
    one_refusal(Reason::BadGrant, "kind 0x0312", |peer, claim, order| {
        with_header(peer, claim, order, |header| header.kind = 0x0312)
    });
}

#[test]
fn a_truncated_envelope_is_refused() {
    one_refusal(Reason::BadGrant, "bytes of body and has", |peer, claim, order| {
        let mut envelope = peer.grant_for(&peer.host(), claim, order)?.envelope;
        envelope.truncate(envelope.len() - 1);
        addressed(peer, claim, order, envelope)
    });
}

#[test]
fn an_envelope_of_a_header_alone_is_refused() {
    one_refusal(Reason::BadGrant, "cut short", |peer, claim, order| {
        let mut envelope = peer.grant_for(&peer.host(), claim, order)?.envelope;
        envelope.truncate(HEADER);
        addressed(peer, claim, order, envelope)
    });
}

#[test]
fn an_oversize_envelope_is_refused() {
    one_refusal(Reason::BadGrant, "limit", |peer, claim, order| {
        let mut big = order.clone();
        big.spec.graph = vec![b' '; 300 << 10];
        let amber = peer.host();
        let header = peer.header_for(&amber, order)?;
        let envelope = seal(header, &big.payload(), &peer.me.key, &peer.kem_of(&amber)?)?;
        addressed(peer, claim, order, envelope)
    });
}

#[test]
fn a_payload_with_bytes_left_over_is_refused() {
    one_refusal(Reason::BadGrant, "1 bytes follow", |peer, claim, order| {
        let amber = peer.host();
        let payload = Writer::new().raw(&order.payload()).u8(0).done();
        let envelope = seal(peer.header_for(&amber, order)?, &payload, &peer.me.key, &peer.kem_of(&amber)?)?;
        addressed(peer, claim, order, envelope)
    });
}

#[test]
fn a_payload_of_another_task_than_its_envelope_is_refused() {
    one_refusal(Reason::BadGrant, "names another task", |peer, claim, order| {
        let amber = peer.host();
        let mut other = order.clone();
        other.spec.task = random();
        let envelope =
            seal(peer.header_for(&amber, order)?, &other.payload(), &peer.me.key, &peer.kem_of(&amber)?)?;
        addressed(peer, claim, order, envelope)
    });
}
