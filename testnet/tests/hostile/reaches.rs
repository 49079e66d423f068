//! Tasks that are sent further than they may go, and a studio's own records in the hands of another.

use anyhow::{Result, bail, ensure};
use scenemesh_testnet::hostile::bytes::{Writer, kind};
use scenemesh_testnet::hostile::keys::{Key, Signed, random};
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{GrantReply, PROJECT_DOMAIN, Project, Reach, Reason};
use scenemesh_testnet::scenarios::started;
use scenemesh_testnet::workflows;

use crate::{AMBER, mallory, still_works, tell};

/// Grants an order, sound but for where it may go, and expects a refusal that says `words`.
async fn refused(peer: &mut Member, words: &str, bend: impl FnOnce(&mut Order)) -> Result<()> {
    let (amber, mut order) = (peer.host(), Order::new(&workflows::tiny(3), &[])?);
    bend(&mut order);
    let claim = peer.claim_of(&amber, &order.offer).await?;
    let reply = peer.grant(&amber, &peer.grant_for(&amber, claim, &order)?).await?;
    let GrantReply::Rejected { refusal, .. } = reply else { bail!("{words}: it was accepted") };
    ensure!(refusal.reason == Reason::NotAllowed, "{words}: for another reason: {refusal:?}");
    ensure!(refusal.detail.contains(words), "{words}: in other words: {refusal:?}");
    Ok(())
}

/// Rules that let a task of mallory's run anywhere.
fn open_project(peer: &Member) -> Project {
    Project { pool: peer.me.pool, studio: peer.studio, max_reach: Reach::Pool, nodes: None }
}

fn signed(by: &Key, project: &Project) -> Signed {
    by.signed(PROJECT_DOMAIN, &project.encode())
}

#[test]
fn a_grant_whose_reach_ends_before_the_renderer_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let own = peer.studio;
            let short = [
                (Reach::Machine, "stays on its own machine"),
                (Reach::Studio, "stays in its own studio"),
                (Reach::Studios(vec![own, random()]), "chosen studios only"),
                (Reach::Studios(Vec::new()), "chosen studios only"),
            ];
            for (reach, words) in short {
                refused(&mut peer, words, |order| order.spec.reach = reach).await?;
            }
            ensure!(started(mesh.node(AMBER)).is_empty(), "nothing of it reached ComfyUI");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_grant_against_its_projects_rules_or_under_forged_ones_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let open = open_project(&peer);
            let ambers = peer.manners.roster.borrow().head()?.studios[0].id;
            let (admin, node) = (peer.admin()?.clone(), peer.me.key.clone());
            let mut forged = signed(&admin, &open);
            forged.signature[5] ^= 1;
            let elsewhere = admin.signed("scenemesh/v1/block", &open.encode());
            let (here, other) = ("stays in its own studio", "bound to other nodes");
            let lie = "not signed by an admin of the requester's studio";
            let records = [
                (signed(&admin, &Project { max_reach: Reach::Studio, ..open.clone() }), here),
                (signed(&admin, &Project { nodes: Some(vec![node.public()]), ..open.clone() }), other),
                (signed(&admin, &Project { nodes: Some(Vec::new()), ..open.clone() }), other),
                (signed(&node, &open), lie),
                (signed(&Key::random(), &open), lie),
                (signed(&admin, &Project { studio: ambers, ..open.clone() }), lie),
                (signed(&admin, &Project { pool: random(), ..open.clone() }), lie),
                (forged, lie),
                (elsewhere, lie),
            ];
            for (record, words) in records {
                refused(&mut peer, words, |order| order.spec.project = Some(record)).await?;
            }
            ensure!(started(mesh.node(AMBER)).is_empty(), "nothing of it reached ComfyUI");
            // The same under rules that are sound runs.
            let mut order = Order::new(&workflows::tiny(3), &[])?;
            order.spec.project = Some(signed(&admin, &open));
            let amber = peer.host();
            peer.render_at(&amber, &order).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_studios_own_records_are_neither_told_to_another_nor_taken_from_it() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            mesh.ok(AMBER, &["project", "add", "quiet", "--max-reach", "studio"]).await?;
            let before = mesh.ok(AMBER, &["project", "ls"]).await?;
            let nothing_known = Writer::new().u64(0).u64(0).done();
            let mut of_amber = open_project(&peer);
            of_amber.studio = peer.manners.roster.borrow().head()?.studios[0].id;
            let record = signed(peer.admin()?, &of_amber).write(Writer::new().u64(1).u32(0));
            let pushed = record.raw(&random::<16>()).bytes("loud").u64(0).done();
            for (verb, body) in [(kind::STUDIO_SYNC, nothing_known), (kind::STUDIO, pushed)] {
                let declined = peer.ask(&amber, verb, &body).await?.declined();
                ensure!(declined.as_ref().is_some_and(|(why, _)| *why == 2), "{verb:#06x}: {declined:?}");
            }
            ensure!(mesh.ok(AMBER, &["project", "ls"]).await? == before, "amber's projects are as they were");
            still_works(mesh, dir).await
        })
    });
}
