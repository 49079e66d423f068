//! Rights that give none, and jobs that are held for somebody else.

use anyhow::ensure;
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::bytes::{Reader, Writer, kind};
use scenemesh_testnet::hostile::keys::{Key, Signed, now_ms, random};
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{OfferReply, Reason};
use scenemesh_testnet::workflows;

use crate::{AMBER, machine, mallory, renders, still_works, tell};

const RIGHT_DOMAIN: &str = "scenemesh/v1/grant-right";
const DAY_MS: u64 = 24 * 3_600_000;

/// `GrantRight`, as the page has it.
#[derive(Clone)]
struct Right {
    pool: [u8; 16],
    studio: [u8; 16],
    origin: [u8; 32],
    deputy: [u8; 32],
    job: [u8; 16],
    issued_ms: u64,
    not_after_ms: u64,
}

impl Right {
    fn signed(&self, by: &Key) -> Signed {
        let body = Writer::new()
            .raw(&self.pool)
            .raw(&self.studio)
            .raw(&self.origin)
            .raw(&self.deputy)
            .raw(&self.job)
            .u64(self.issued_ms)
            .u64(self.not_after_ms)
            .done();
        by.signed(RIGHT_DOMAIN, &body)
    }
}

/// What a node may give another of its studio.
fn given(by: &Member, deputy: [u8; 32], job: [u8; 16]) -> Right {
    let now = now_ms();
    Right {
        pool: by.me.pool,
        studio: by.studio,
        origin: by.me.key.public(),
        deputy,
        job,
        issued_ms: now,
        not_after_ms: now + DAY_MS,
    }
}

#[test]
fn a_right_that_does_not_hold_gets_nothing_rendered() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let (amber, me) = (peer.host(), peer.me.key.public());
            renders(&peer).await?;
            let order = Order::new(&workflows::tiny(3), &[])?;
            let ambers = peer.manners.roster.borrow().head()?.studios[0].id;
            let sound = Right { origin: amber, ..given(&peer, me, order.offer.job) };
            let key = &peer.me.key;
            let mut forged = sound.signed(key);
            forged.signer = amber;
            let moved = Right { studio: ambers, ..sound.clone() };
            let rights = [
                ("in another's name", sound.signed(key)),
                ("under another's key", forged),
                ("of another studio", moved.signed(key)),
                ("given to oneself", given(&peer, me, order.offer.job).signed(key)),
                ("given by a stranger", {
                    let stranger = Key::random();
                    Right { origin: stranger.public(), ..sound.clone() }.signed(&stranger)
                }),
                ("for another job", given(&peer, me, random()).signed(key)),
                ("for another deputy", given(&peer, amber, order.offer.job).signed(key)),
            ];
            for (what, right) in rights {
                let mut offer = order.offer.clone();
                (offer.reservation, offer.right) = (random(), Some(right));
                let reply = peer.offer(&amber, &offer).await?;
                let OfferReply::Refused(refusal) = reply else { anyhow::bail!("{what}: {reply:?}") };
                ensure!(refusal.reason == Reason::NotAllowed, "{what}: {refusal:?}");
            }
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn another_studio_can_neither_leave_a_job_here_nor_get_at_one() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            let job: [u8; 16] = random();
            let keep = given(&peer, amber, job).signed(&peer.me.key).write(Writer::new());
            let keep = keep.bytes([0; 64]).u64(0).done();
            let named = Writer::new().raw(&job).done();
            let news = Writer::new().raw(&job).u64(0).done();
            let verbs = [
                (kind::KEEP, keep),
                (kind::KEEP_NEWS, news),
                (kind::TAKE_BACK, named.clone()),
                (kind::RELEASE, named),
            ];
            for (verb, body) in verbs {
                let declined = peer.ask(&amber, verb, &body).await?.declined();
                ensure!(declined.as_ref().is_some_and(|(why, _)| *why == 2), "{verb:#06x}: {declined:?}");
            }
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_job_that_does_not_open_is_not_kept() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = machine(mesh, "ws-07").await?;
            let amber = peer.host();
            let job: [u8; 16] = random();
            // The right is sound, and nothing else is: neither the envelope nor what it should lead to.
            let right = given(&peer, amber, job).signed(&peer.me.key);
            let keep = right.write(Writer::new()).bytes(random::<200>());
            let keep = keep.u64(1).raw(&random::<32>()).u64(1 << 40).done();
            let frame = peer.ask(&amber, kind::KEEP, &keep).await?;
            ensure!(
                frame.expect(kind::KEEP_IS)?.u32()? == 0,
                "a sound right is believed until its job is looked at"
            );
            eventually("it knows of no such job", || async {
                let frame = peer.ask(&amber, kind::TAKE_BACK, &Writer::new().raw(&job).done()).await?;
                let reply: u32 = Reader::new(&frame.body).u32()?;
                Ok(if reply == 0 { Ok(()) } else { Err(reply) })
            })
            .await?;
            let jobs = mesh.ok(AMBER, &["jobs"]).await?;
            ensure!(jobs["jobs"].as_array().is_some_and(Vec::is_empty), "nothing is listed: {jobs:#}");
            // A right in somebody else's name is not even begun.
            let mut lie = given(&peer, amber, random());
            lie.origin = amber;
            let keep = lie.signed(&peer.me.key).write(Writer::new()).bytes([0; 64]).u64(0).done();
            let frame = peer.ask(&amber, kind::KEEP, &keep).await?;
            ensure!(frame.expect(kind::KEEP_IS)?.u32()? == 1, "refused");
            still_works(mesh, dir).await
        })
    });
}
