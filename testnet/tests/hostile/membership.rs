//! Records, settings and keys that are not the sender's to use.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::envelope;
use scenemesh_testnet::hostile::invite::JoinReply;
use scenemesh_testnet::hostile::keys::{Kem, Key, hash, now_ms, random};
use scenemesh_testnet::hostile::link::Link;
use scenemesh_testnet::hostile::member::{Applicant, As, Member, card};
use scenemesh_testnet::hostile::records::{
    Diff, MEMBER_DOMAIN, Record, SETTINGS_DOMAIN, Settings, SignedSettings, consent, revocation,
};
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::workflows;
use serde_json::Value;

use crate::renderers::{ends_done, granted, painter};
use crate::{AMBER, code, machine, mallory, still_works, tell};

const UNKNOWN: u32 = 0;
const MEMBER: u32 = 1;
const REVOKED: u32 = 2;

/// Shows a record both ways, as news of a member and at the porch, and gives how `key` stands then.
async fn standing_after(peer: &Member, record: &Record, key: &[u8; 32]) -> Result<u32> {
    peer.push(&peer.host(), &Diff::records(std::slice::from_ref(record))).await?;
    peer.porch.show(&peer.me.key, std::slice::from_ref(record)).await?;
    peer.porch.standing(&peer.me.key, key).await
}

/// Amber refuses the links of a key: it is no member.
async fn is_shut_out(peer: &Member, key: &Key) -> Result<()> {
    let link = Link::new(key)?;
    // Noise is through before the roster is asked, so the dial itself may succeed.
    drop(link.dial(&peer.host(), peer.inviter_at.first().context("an address")?).await);
    link.closed(&peer.host()).await.context("a stranger's link stays open")
}

#[test]
fn a_foreign_studios_admin_cannot_admit_a_node_into_mine() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            let studio = peer.manners.roster.borrow().member(&amber)?.studio;
            let (mole, kem) = (Key::random(), Kem::random());
            let record = card(&peer.me.pool, &studio, &mole, &kem, "amber-09").signed(peer.admin()?);
            ensure!(
                standing_after(&peer, &record, &mole.public()).await? == UNKNOWN,
                "it is in nobody's studio"
            );
            is_shut_out(&peer, &mole).await?;
            // Into one's own studio it may.
            let record = card(&peer.me.pool, &peer.studio, &mole, &kem, "mallory-09").signed(peer.admin()?);
            ensure!(standing_after(&peer, &record, &mole.public()).await? == MEMBER, "the same into its own");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_member_record_signed_by_no_admin_is_ignored() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let (mole, kem) = (Key::random(), Kem::random());
            let card = card(&peer.me.pool, &peer.studio, &mole, &kem, "mallory-09");
            let mut forged = card.signed(peer.admin()?);
            forged.signed.signature[3] ^= 1;
            let lent =
                Record { variant: 0, signed: Key::random().signed(MEMBER_DOMAIN, &forged.signed.body) };
            for record in [card.signed(&mole), card.signed(&peer.me.key), forged, lent] {
                ensure!(
                    standing_after(&peer, &record, &mole.public()).await? == UNKNOWN,
                    "not by an admin's hand"
                );
            }
            is_shut_out(&peer, &mole).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_member_record_without_the_nodes_consent_is_ignored() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let (amber, pool) = (peer.host(), peer.me.pool);
            let before = peer.manners.roster.borrow().member(&amber)?;
            let before_digest = peer.greet(&amber).await?.digest;
            // Amber's node, claimed for mallory's studio, newer than its own record: with no consent, with mallory's,
            // and with the one that amber gave to its own studio.
            let newer = |consent| {
                let mut record = before.clone();
                (record.studio, record.version, record.consent) = (peer.studio, 99, consent);
                record
            };
            for consent in [[0; 64], consent(&peer.me.key, &pool, &peer.studio, &before.kem), before.consent]
            {
                let record = newer(consent).signed(peer.admin()?);
                ensure!(standing_after(&peer, &record, &amber).await? == MEMBER, "amber stays a member");
            }
            // A machine that consented to another studio.
            let (mole, kem) = (Key::random(), Kem::random());
            let mut record = card(&pool, &before.studio, &mole, &kem, "mallory-09");
            record.studio = peer.studio;
            let record = record.signed(peer.admin()?);
            ensure!(
                standing_after(&peer, &record, &mole.public()).await? == UNKNOWN,
                "it consented to another"
            );
            ensure!(peer.greet(&amber).await?.digest == before_digest, "none of it counts");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn another_studios_node_and_admin_cannot_be_revoked() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let (amber, pool) = (peer.host(), peer.me.pool);
            let (studio, admin) = {
                let roster = peer.manners.roster.borrow();
                let studio = roster.member(&amber)?.studio;
                let head = roster.head()?;
                let of = head.studios.iter().find(|of| of.id == studio).context("amber's studio")?;
                (studio, of.admins[0])
            };
            for key in [amber, admin] {
                for speaks in [peer.studio, studio] {
                    let record = revocation(&pool, &speaks, &key, "because", now_ms(), peer.admin()?);
                    let standing = standing_after(&peer, &record, &key).await?;
                    ensure!(standing != REVOKED, "another studio's key was revoked");
                }
            }
            ensure!(peer.porch.standing(&peer.me.key, &amber).await? == MEMBER, "amber stays a member");
            code(mesh, None).await.context("amber's admin key still signs")?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_revoked_node_stays_out_whatever_record_it_shows() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let (mole, kem) = (Key::random(), Kem::random());
            let mut card = card(&peer.me.pool, &peer.studio, &mole, &kem, "mallory-09");
            let first = card.signed(peer.admin()?);
            ensure!(standing_after(&peer, &first, &mole.public()).await? == MEMBER, "it is a member first");
            let gone =
                revocation(&peer.me.pool, &peer.studio, &mole.public(), "lost", now_ms(), peer.admin()?);
            ensure!(standing_after(&peer, &gone, &mole.public()).await? == REVOKED, "it is revoked");
            (card.version, card.issued_ms) = (u32::MAX, now_ms());
            for record in [first, card.signed(peer.admin()?)] {
                ensure!(standing_after(&peer, &record, &mole.public()).await? == REVOKED, "for ever");
            }
            is_shut_out(&peer, &mole).await?;
            still_works(mesh, dir).await
        })
    });
}

/// A third studio, admitted with the signatures of the two that were there.
async fn trent(mesh: &Cluster, mallory: &Member) -> Result<Member> {
    let applicant = Applicant::new(&code(mesh, Some("trent")).await?, "trent-01", As::Studio)?;
    let reply = applicant.ask().await?;
    ensure!(matches!(reply, JoinReply::Pending { .. }), "a pool of two does not let in alone: {reply:?}");
    let amber = mallory.host();
    let proposal = mallory.catch_up(&amber).await?.proposals;
    let adds = |settings: &SignedSettings| {
        Settings::read(&settings.body)
            .is_ok_and(|read| read.studios.iter().any(|studio| studio.name == "trent"))
    };
    let mut proposal = proposal.into_iter().find(adds).context("the proposal is shown to members")?;
    cosign(&mut proposal, mallory.admin()?);
    mallory.push(&amber, &Diff { proposals: vec![proposal], ..Diff::default() }).await?;
    let mut member = applicant.join().await?;
    member.enter().await?;
    mallory.catch_up(&amber).await?;
    Ok(member)
}

fn cosign(settings: &mut SignedSettings, key: &Key) {
    settings.signatures.push((key.public(), key.sign(SETTINGS_DOMAIN, &settings.body)));
}

/// The next epoch with another name for the pool.
fn renamed(peer: &Member, name: &str) -> Result<Settings> {
    let head = peer.manners.roster.borrow().head()?;
    Ok(Settings { pool_name: name.to_owned(), created_ms: now_ms(), ..head.next() })
}

async fn pool(mesh: &Cluster) -> Result<Value> {
    mesh.ok(AMBER, &["pool"]).await
}

#[test]
fn settings_without_a_quorum_change_nothing() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            let before = peer.greet(&amber).await?.digest;
            let mut alone = renamed(&peer, "mallorys")?;
            alone.studios.retain(|studio| studio.id == peer.studio);
            let twice = alone.signed(&[peer.admin()?, peer.admin()?]);
            let with_node = alone.signed(&[peer.admin()?, &peer.me.key]);
            let mut forged = alone.signed(&[peer.admin()?]);
            let ambers = peer.manners.roster.borrow().head()?.studios[0].admins[0];
            forged.signatures.push((ambers, [9; 64]));
            let far = Settings { epoch: alone.epoch + 5, ..alone.clone() }.signed(&[peer.admin()?]);
            for settings in [alone.signed(&[peer.admin()?]), twice, with_node, forged, far] {
                peer.push(&amber, &Diff { settings: vec![settings], ..Diff::default() }).await?;
                ensure!(peer.greet(&amber).await?.digest == before, "the settings stand");
            }
            // A genesis of one's own is another pool.
            let genesis = Settings { epoch: 0, prev: [0; 32], nonce: random(), ..alone };
            peer.push(&amber, &Diff { settings: vec![genesis.signed(&[peer.admin()?])], ..Diff::default() })
                .await?;
            ensure!(peer.greet(&amber).await?.digest == before, "the settings stand");
            ensure!(pool(mesh).await?["name"] != "mallorys", "the pool is not renamed");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn of_two_signed_branches_the_rule_picks_one_and_says_so() {
    tell(|mesh, dir| Box::pin(fork(mesh, dir)));
}

async fn fork(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    let mallory = mallory(mesh).await?;
    let trent = trent(mesh, &mallory).await?;
    let amber = mallory.host();
    let keys = [mallory.admin()?, trent.admin()?];
    let mut branches = [renamed(&mallory, "left")?.signed(&keys), renamed(&mallory, "right")?.signed(&keys)];
    branches.sort_by_key(|branch| std::cmp::Reverse(hash(&branch.body)));
    for branch in &branches {
        mallory.push(&amber, &Diff { settings: vec![branch.clone()], ..Diff::default() }).await?;
    }
    let [loser, winner] = branches;
    eventually("the lower hash wins", || async {
        let head = mallory.greet(&amber).await?.digest.head;
        Ok(if head == hash(&winner.body) { Ok(()) } else { Err(head) })
    })
    .await?;
    // Told again in the other order it does not swing back.
    trent.push(&amber, &Diff { settings: vec![loser], ..Diff::default() }).await?;
    ensure!(trent.greet(&amber).await?.digest.head == hash(&winner.body), "it stays");
    let warned = eventually("the fork is an alarm", || async {
        let pool = pool(mesh).await?;
        let warnings = pool["warnings"].to_string();
        Ok(if warnings.contains("fork") || warnings.contains("branch") { Ok(pool) } else { Err(pool) })
    })
    .await?;
    ensure!(
        warned["studios"].as_array().is_some_and(|studios| studios.len() == 3),
        "nobody was lost: {warned:#}"
    );
    still_works(mesh, dir).await
}

#[test]
fn a_flood_of_proposals_is_bounded_and_leaves_room_for_an_honest_one() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            for batch in 0..10 {
                let names = (0..30).map(|number| format!("flood {batch} {number}"));
                let proposals = names.map(|name| Ok(renamed(&peer, &name)?.signed(&[peer.admin()?])));
                let proposals = proposals.collect::<Result<Vec<_>>>()?;
                peer.push(&amber, &Diff { proposals, ..Diff::default() }).await?;
            }
            let shown = pool(mesh).await?;
            let count = shown["proposals"].as_array().context("a list of proposals")?.len();
            ensure!(count <= 32, "{count} proposals are kept");
            trent(mesh, &peer).await.context("an honest change among them")?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_thief_with_a_node_key_gets_one_link_at_most_and_opens_nothing() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut honest = painter(mesh, "amber-02").await?;
            let (job, held) = granted(mesh, dir, &mut honest, None).await?;
            let amber = honest.host();
            let mut thief = honest.thief()?;
            thief.enter().await?;
            // The key alone: two boots of one node never have a link each.
            honest.link.closed(&amber).await?;
            ensure!(thief.link.count(&amber)? == 1, "the newer link is the one that stays");
            let grant = held.grant.envelope.clone();
            ensure!(envelope::open(&grant, &thief.kem).is_err(), "what was sealed for the node stays sealed");
            honest.enter().await?;
            thief.link.closed(&amber).await?;
            ensure!(honest.link.count(&amber)? == 1, "and the other way round");
            ends_done(mesh, &mut honest, &held, &job).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_strangers_verbs_are_not_heard() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = machine(mesh, "amber-02").await?;
            let amber = peer.host();
            is_shut_out(&peer, &Key::random()).await?;
            let before = peer.greet(&amber).await?.digest;
            let stranger = Key::random();
            let own =
                card(&peer.me.pool, &peer.studio, &stranger, &Kem::random(), "amber-03").signed(&stranger);
            peer.porch.show(&stranger, std::slice::from_ref(&own)).await?;
            ensure!(peer.greet(&amber).await?.digest == before, "a stranger's own word admits nobody");
            let order = Order::new(&workflows::tiny(3), &[])?;
            let mut silent = peer.thief()?;
            // Whoever answers theirs has said Hello too.
            silent.manners.shelf.send_modify(|shelf| shelf.aloof = true);
            silent.link.dial(&amber, peer.inviter_at.first().context("an address")?).await?;
            // The older link was up; amber has let go of it.
            peer.link.closed(&amber).await?;
            let before_hello = format!("{:?}", silent.offer(&amber, &order.offer).await);
            ensure!(before_hello.contains("declined (0)"), "nothing is heard before Hello: {before_hello}");
            silent.manners.heard.mark_unchanged();
            still_works(mesh, dir).await
        })
    });
}
