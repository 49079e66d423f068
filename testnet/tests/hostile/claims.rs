//! Claims, grants, results and blobs of others.

use anyhow::{Context, Result, bail, ensure};
use scenemesh_testnet::cluster::CHECKPOINT;
use scenemesh_testnet::hostile::blobs::{Blob, Head, Want};
use scenemesh_testnet::hostile::bytes::{Id, Reader, Writer, kind};
use scenemesh_testnet::hostile::keys::random;
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::renderer::Held;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{
    Finished, FinishedTerms, GrantReply, Offer, OfferReply, Outcome, Reason, Verdict, about,
};
use scenemesh_testnet::workflows;

use crate::renderers::{ends_done, granted, paint_job, painter};
use crate::{machine, mallory, still_works, tell, tell_with};

/// Whether a Claim is answered with Coming.
async fn is_coming(peer: &Member, reservation: &Id, claim: &Id) -> Result<bool> {
    let body = Writer::new().raw(reservation).raw(claim).done();
    let answer = peer.ask(&peer.host(), kind::CLAIM, &body).await?;
    Ok(answer.expect(kind::CLAIM_IS)?.u32()? == 0)
}

#[test]
fn a_claim_for_anothers_task_is_gone() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut honest = painter(mesh, "amber-02").await?;
            let thief = mallory(mesh).await?;
            let job = paint_job(mesh, dir, None).await?;
            let asked = honest.asked(kind::OFFER).await?;
            let offer = Offer::read(&mut Reader::new(&asked.frame.body))?;
            asked.answer(kind::OFFER_IS, &OfferReply::Waiting { position: 1 }.encode());

            ensure!(!is_coming(&thief, &offer.reservation, &random()).await?, "the reservation is another's");
            ensure!(!is_coming(&thief, &random(), &random()).await?, "the reservation is guessed");
            let claim = random();
            ensure!(is_coming(&honest, &offer.reservation, &claim).await?, "whose it is may still claim it");
            let held = honest.takes_a_grant().await?;
            ensure!(held.terms.claim == claim, "for its own claim");
            ends_done(mesh, &mut honest, &held, &job).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_grant_with_a_guessed_claim_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let (amber, order) = (peer.host(), Order::new(&workflows::tiny(3), &[])?);
            let reply = peer.grant(&amber, &peer.grant_for(&amber, random(), &order)?).await?;
            let GrantReply::Rejected { refusal, .. } = reply else { bail!("it was accepted") };
            ensure!(refusal.reason == Reason::Busy, "no slot is held for it: {refusal:?}");
            peer.render_at(&amber, &Order::new(&workflows::tiny(3), &[])?).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_grant_for_a_claim_that_another_holds_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let thief = mallory(mesh).await?;
            let mut honest = machine(mesh, "amber-02").await?;
            let (amber, order) = (thief.host(), Order::new(&workflows::tiny(3), &[])?);
            honest.catch_up(&amber).await?;
            let claim = honest.claim_of(&amber, &order.offer).await?;
            let stolen = Order::new(&workflows::tiny(4), &[])?;
            let reply = thief.grant(&amber, &thief.grant_for(&amber, claim, &stolen)?).await?;
            let GrantReply::Rejected { refusal, .. } = reply else { bail!("it was accepted") };
            ensure!(refusal.reason == Reason::Busy, "the slot is held for another: {refusal:?}");
            let grant = honest.grant_for(&amber, claim, &order)?;
            honest.accepted(&amber, &grant).await?;
            honest.finished(&grant).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn progress_and_results_of_anothers_attempt_are_discarded() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut honest = painter(mesh, "amber-02").await?;
            let thief = mallory(mesh).await?;
            let amber = thief.host();
            let (job, held) = granted(mesh, dir, &mut honest, None).await?;
            let (task, attempt) = (held.terms.task, held.terms.attempt);

            let verdict = thief.reports(&amber, &task, attempt, 9).await?;
            ensure!(verdict == Verdict::Unknown, "it is not the thief's: {verdict:?}");
            let fake = Blob::seal(b"another picture")?;
            thief.shelve(fake.root, &fake);
            thief.catch_up(&amber).await?;
            let result = thief.result_of(&held, &fake)?;
            ensure!(!thief.announces(&amber, &result).await?, "a result by the thief's own key");
            let forged = honest.result_of(&held, &fake)?;
            ensure!(!thief.announces(&amber, &forged).await?, "the renderer's result by the thief's hand");
            let failed = FinishedTerms {
                outcome: Outcome::Failed { class: 3, detail: "gone".into() },
                ..honest.finished_terms(&held, &fake, &[])
            };
            let failed = Finished::new(&failed, Vec::new(), &thief.me.key);
            ensure!(!thief.announces(&amber, &failed).await?, "a failure by the thief's own key");

            ends_done(mesh, &mut honest, &held, &job).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn cancel_probe_and_ack_of_anothers_attempt_do_nothing() {
    tell_with(&["--step-ms", "100"], |mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let thief = machine(mesh, "amber-02").await?;
            let amber = peer.host();
            peer.catch_up(&amber).await?;
            let order = Order::new(&workflows::keyframe(CHECKPOINT, 1, 12, 64), &[])?;
            let claim = peer.claim_of(&amber, &order.offer).await?;
            let grant = peer.grant_for(&amber, claim, &order)?;
            peer.accepted(&amber, &grant).await?;
            peer.manners.progressed.wait_for(|count| *count > 2).await?;
            let (task, attempt) = (order.spec.task, order.spec.attempt);
            for verb in [kind::CANCEL, kind::PROBE] {
                let answer = thief.ask(&amber, verb, &about(&task, attempt)).await?;
                let unknown = match answer.kind {
                    kind::ATTEMPT => Reader::new(&answer.body).u32()? == 0,
                    kind::VERDICT => Verdict::read(&mut Reader::new(&answer.body))? == Verdict::Unknown,
                    other => bail!("answered with {other:#06x}"),
                };
                ensure!(unknown, "{verb:#06x} of another's attempt: {answer:?}");
            }
            thief.ack(&amber, &task, attempt, false).await?;
            thief.ack(&amber, &task, attempt, true).await?;
            let (terms, files) = peer.finished(&grant).await?;
            ensure!(matches!(terms.outcome, Outcome::Done { .. }), "it ran to its end: {:?}", terms.outcome);
            peer.fetch(&amber, &terms, files.first().context("a file")?).await?;
            peer.ack(&amber, &task, attempt, true).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn blob_gets_without_an_attempt_of_another_after_its_end_or_of_absurd_ranges_are_not_served() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let thief = machine(mesh, "amber-02").await?;
            let amber = peer.host();
            let nothing = peer.get(&amber, &random(), 1, &random(), &Want::Manifest).await?;
            ensure!(nothing == Head::NotServed, "a root that nobody has: {nothing:?}");

            let order = Order::new(&workflows::tiny(3), &[])?;
            let claim = peer.claim_of(&amber, &order.offer).await?;
            let grant = peer.grant_for(&amber, claim, &order)?;
            peer.accepted(&amber, &grant).await?;
            let (terms, files) = peer.finished(&grant).await?;
            let file = files.first().context("one file")?;
            let (task, attempt, root) = (terms.task, terms.attempt, file.root);
            let all = Want::Segments(vec![(0, 1)]);
            for want in [&Want::Manifest, &all] {
                let stolen = thief.get(&amber, &task, attempt, &root, want).await?;
                ensure!(stolen == Head::NotServed, "another's result: {stolen:?}");
            }
            let absurd = [
                vec![(0, u32::MAX)],
                vec![(u32::MAX, u32::MAX)],
                vec![(1, 1)],
                vec![(0, 1); 8000],
                vec![(0, 1), (u32::MAX, 1)],
            ];
            for ranges in absurd {
                let words = format!("{:?}", ranges.first());
                let head = peer.get(&amber, &task, attempt, &root, &Want::Segments(ranges)).await?;
                ensure!(head == Head::NotServed, "ranges like {words}: {head:?}");
            }
            peer.fetch(&amber, &terms, file).await?;
            peer.ack(&amber, &task, attempt, true).await?;
            let late = peer.get(&amber, &task, attempt, &root, &all).await?;
            ensure!(late == Head::NotServed, "its attempt has ended: {late:?}");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn inputs_of_a_task_are_served_to_its_renderer_alone() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut honest = painter(mesh, "amber-02").await?;
            let thief = mallory(mesh).await?;
            let amber = thief.host();
            let (job, held) = granted(mesh, dir, &mut honest, Some(b"a plate under NDA")).await?;
            let Held { terms, spec, .. } = &held;
            let root = spec.inputs.first().context("an input")?.root;
            for want in [Want::Manifest, Want::Segments(vec![(0, 1)])] {
                let stolen = thief.get(&amber, &terms.task, terms.attempt, &root, &want).await?;
                ensure!(stolen == Head::NotServed, "another's input: {stolen:?}");
                let own = honest.get(&amber, &terms.task, terms.attempt, &root, &want).await?;
                ensure!(matches!(own, Head::Sending(_)), "its renderer's: {own:?}");
            }
            ends_done(mesh, &mut honest, &held, &job).await?;
            let late = honest.get(&amber, &terms.task, terms.attempt, &root, &Want::Manifest).await?;
            ensure!(late == Head::NotServed, "its attempt has ended: {late:?}");
            still_works(mesh, dir).await
        })
    });
}
