//! Invites that are guessed, reused, raced, too late, or shown to the wrong node.

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Cluster, Comfy};
use scenemesh_testnet::eventually::eventually_within;
use scenemesh_testnet::hostile::invite::{Invite, JoinRefusal, JoinReply};
use scenemesh_testnet::hostile::keys::{Key, now_ms, random};
use scenemesh_testnet::hostile::link::{must_fail, node_of_text};
use scenemesh_testnet::hostile::member::{Applicant, As};
use scenemesh_testnet::hostile::porch::Porch;

use crate::{AMBER, code, still_works, tell};

fn is_refused(reply: &JoinReply, why: JoinRefusal) -> bool {
    matches!(reply, JoinReply::Refused { reason, .. } if *reason == why)
}

/// How many nodes amber's roster names.
async fn members(mesh: &Cluster) -> Result<usize> {
    let peers = mesh.ok(AMBER, &["peers"]).await?;
    Ok(peers["peers"].as_array().context("a list of peers")?.len())
}

#[test]
fn a_guessed_invite_is_unknown_and_guessing_is_bounded() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let code = code(mesh, None).await?;
            let invite = Invite::read(&code)?;
            let before = members(mesh).await?;
            for guess in 0..7 {
                let mut guesser = Applicant::new(&code, "guesser", As::Machine)?;
                guesser.joining.invite = Invite { secret: random(), ..invite.clone() }.key();
                let reply = guesser.ask().await;
                if guess < 5 {
                    ensure!(is_refused(&reply?, JoinRefusal::UnknownInvite), "a guess is unknown");
                } else {
                    let words = must_fail("a guess too many", reply)?;
                    ensure!(words.contains("too many failed tries"), "it is told to wait: {words}");
                }
            }
            ensure!(members(mesh).await? == before, "nobody came in");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_invite_key_without_its_secret_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            // The invite's public half travels in every JoinRequest: knowing it must not be enough.
            let code = code(mesh, None).await?;
            let applicant = Applicant::new(&code, "thief", As::Machine)?;
            let mut bytes = applicant.joining.request();
            let mut forged = applicant.clone();
            forged.joining.invite = Key::random();
            let other = forged.joining.request();
            // body and node signature of the honest one, invite signature of another key
            let at = bytes.len() - 128;
            bytes[at..at + 64].copy_from_slice(&other[at..at + 64]);
            let frame = scenemesh_testnet::hostile::bytes::frame(0x0501, &bytes);
            let answer = applicant.porch.ask_raw(&applicant.joining.node, &frame).await?;
            let reply = JoinReply::read(&mut answer.expect(0x0581)?)?;
            ensure!(
                matches!(reply, JoinReply::Refused { .. }),
                "the invite's signature is forged: {reply:?}"
            );
            ensure!(
                matches!(applicant.ask().await?, JoinReply::Admitted { .. }),
                "it was not used up by the forgery"
            );
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_invite_is_used_once() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let code = code(mesh, None).await?;
            let first = Applicant::new(&code, "amber-02", As::Machine)?;
            ensure!(matches!(first.ask().await?, JoinReply::Admitted { .. }), "the first is admitted");
            let again = Applicant::new(&code, "amber-03", As::Machine)?.ask().await?;
            ensure!(is_refused(&again, JoinRefusal::Used), "the second is not: {again:?}");
            ensure!(
                matches!(first.ask().await?, JoinReply::Admitted { .. }),
                "the same bytes get the same answer"
            );
            ensure!(members(mesh).await? == 1, "one came in");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn of_two_that_race_for_one_invite_one_is_admitted() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let code = code(mesh, Some("racers")).await?;
            let one = Applicant::new(&code, "racer-01", As::Studio)?;
            let other = Applicant::new(&code, "racer-02", As::Studio)?;
            let (a, b) = tokio::join!(one.ask(), other.ask());
            let (a, b) = (a?, b?);
            let admitted =
                [&a, &b].iter().filter(|reply| matches!(reply, JoinReply::Admitted { .. })).count();
            let used = [&a, &b].iter().filter(|reply| is_refused(reply, JoinRefusal::Used)).count();
            ensure!((admitted, used) == (1, 1), "one is admitted, one is told: {a:?}, {b:?}");
            let pool = mesh.ok(AMBER, &["pool"]).await?;
            ensure!(
                pool["studios"].as_array().is_some_and(|studios| studios.len() == 2),
                "one new studio: {pool:#}"
            );
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_expired_invite_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let invite = mesh.ok(AMBER, &["invite", "--expires", "60s"]).await?;
            let code = invite["code"].as_str().context("a code")?.to_owned();
            let made = now_ms();
            eventually_within(std::time::Duration::from_secs(90), "the invite's minute is over", || async {
                let passed = now_ms() - made;
                Ok(if passed > 61_000 { Ok(()) } else { Err(passed) })
            })
            .await?;
            let reply = Applicant::new(&code, "late", As::Machine)?.ask().await?;
            ensure!(is_refused(&reply, JoinRefusal::Expired), "too late: {reply:?}");
            ensure!(members(mesh).await? == 0, "nobody came in");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn an_invite_shown_at_another_node_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            mesh.add("amber-02", Comfy::Absent).await?;
            mesh.admit(AMBER, "amber-02", None).await?;
            mesh.all_up().await?;
            let code = code(mesh, None).await?;
            let status = mesh.ok("amber-02", &["status"]).await?;
            let node = status["node"].as_str().context("a node id")?;
            let address = status["porch"][0].as_str().context("a porch")?.to_owned();
            let mut applicant = Applicant::new(&code, "amber-03", As::Machine)?;
            applicant.porch = Porch { node: node_of_text(node)?, address };
            let reply = applicant.ask().await?;
            ensure!(is_refused(&reply, JoinRefusal::UnknownInvite), "it is another node's: {reply:?}");
            // Rewritten for that node, it is signed by no invite of its own.
            applicant.joining.inviter = applicant.porch.node;
            let reply = applicant.ask().await?;
            ensure!(is_refused(&reply, JoinRefusal::UnknownInvite), "still: {reply:?}");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_joiner_without_consent_or_with_weak_keys_or_anothers_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let code = code(mesh, None).await?;
            let honest = Applicant::new(&code, "amber-02", As::Machine)?;
            let mut without = honest.clone();
            without.joining.consent = None;
            let mut bent = honest.clone();
            bent.joining.consent = Some([7; 64]);
            let mut weak = honest.clone();
            weak.joining.kem = [0; 32];
            for (what, applicant) in [("no consent", without), ("a bent consent", bent), ("a weak key", weak)]
            {
                let reply = applicant.ask().await?;
                ensure!(is_refused(&reply, JoinRefusal::BadRequest), "{what}: {reply:?}");
            }
            ensure!(matches!(honest.ask().await?, JoinReply::Admitted { .. }), "an honest one still is");
            still_works(mesh, dir).await
        })
    });
}
