//! Floods: bounded in what they cost, and honest work goes on beside them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Cluster, Comfy, socket_address};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::bytes::kind;
use scenemesh_testnet::hostile::flood::{Flood, SIZES, timed};
use scenemesh_testnet::hostile::keys::Key;
use scenemesh_testnet::hostile::link::{Link, PORCH, blob_of, control_of};
use scenemesh_testnet::hostile::member::{As, Member};
use scenemesh_testnet::hostile::porch::Porch;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::scenarios::graph_file;
use scenemesh_testnet::workflows;

use crate::{AMBER, code, machine, mallory, memory_mib, open_files, still_works, tell};

/// Renders in one measured batch.
const BATCH: usize = 12;
/// Measured pairs of batches, one without the flood and one beside it, per flood. The best of each side counts: whatever
/// else the machine does can only slow a batch down.
const ROUNDS: usize = 4;
/// Least throughput beside a flood, as a share of that without: what is promised, with `SCENEMESH_MEASURE` set on a machine
/// that does nothing else; and what only a starved node misses, where others' work runs beside the test.
const PROMISED: f64 = 0.8;
const STARVED: f64 = 0.25;

fn main_port(peer: &Member) -> Result<SocketAddr> {
    socket_address(peer.inviter_at.first().context("an address")?)
}

/// A member links with amber as soon as it is let in: a link that was refused is dialled again, as every node does.
async fn comes_in(peer: &mut Member) -> Result<()> {
    let (amber, at) = (peer.host(), peer.inviter_at.first().context("an address")?.clone());
    eventually("a member gets in", || async {
        if let Err(error) = peer.link.dial(&amber, &at).await {
            return Ok(Err(format!("{error:#}")));
        }
        Ok(peer.greet(&amber).await.map(drop).map_err(|error| format!("{error:#}")))
    })
    .await
}

/// Amber still answers its owner and a member whose link is up, and takes new work.
async fn goes_on(mesh: &Cluster, dir: &Path, peer: &mut Member) -> Result<()> {
    let amber = peer.host();
    peer.greet(&amber).await?;
    peer.render_at(&amber, &Order::new(&workflows::tiny(5), &[])?).await?;
    still_works(mesh, dir).await
}

#[test]
fn ten_thousand_links_are_bounded_and_honest_work_goes_on() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = machine(mesh, "amber-02").await?;
            let (files, memory) = (open_files(mesh, AMBER)?, memory_mib(mesh, AMBER)?);
            let flood = Flood::links(main_port(&peer)?);
            let mut most = 0;
            for share in 1..=4 {
                eventually("the flood goes on", || async {
                    let sent = flood.sent();
                    Ok(if sent >= SIZES.links * share / 5 { Ok(()) } else { Err(sent) })
                })
                .await?;
                most = most.max(open_files(mesh, AMBER)?);
                goes_on(mesh, dir, &mut peer).await?;
            }
            let sent = flood.ended().await;
            ensure!(sent == SIZES.links, "{sent} links were opened");
            println!("{sent} links: at most {most} open files, {files} before");
            ensure!(most < files + 200, "{most} open files beside the flood, {files} before");
            ensure!(memory_mib(mesh, AMBER)? < memory + 96, "memory grew");
            let mut late = Member::join(&code(mesh, None).await?, "amber-03", As::Machine).await?;
            comes_in(&mut late).await?;
            goes_on(mesh, dir, &mut late).await
        })
    });
}

#[test]
fn handshakes_that_never_finish_are_given_up_and_links_that_are_up_stay() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = machine(mesh, "amber-02").await?;
            let mut newcomer = Member::join(&code(mesh, None).await?, "amber-03", As::Machine).await?;
            let files = open_files(mesh, AMBER)?;
            let held = Flood::silent_links(main_port(&peer)?, 200).await?;
            goes_on(mesh, dir, &mut peer).await?;
            let most = open_files(mesh, AMBER)?;
            ensure!(most < files + 100, "{most} open files beside 200 silent links, {files} before");
            // They are still there, but amber has given them up: who comes now gets in.
            let ((), took) = timed(comes_in(&mut newcomer)).await?;
            println!("a member came in {took:?} after 200 silent links");
            goes_on(mesh, dir, &mut newcomer).await?;
            drop(held);
            Ok(())
        })
    });
}

/// Lets a flood run while honest work is done, and checks what it costs in memory and files.
async fn beside(mesh: &Cluster, dir: &Path, peer: &mut Member, flood: Flood, least: u64) -> Result<u64> {
    let (files, memory) = (open_files(mesh, AMBER)?, memory_mib(mesh, AMBER)?);
    eventually("the flood is under way", || async {
        let sent = flood.sent();
        Ok(if sent >= least { Ok(()) } else { Err(sent) })
    })
    .await?;
    goes_on(mesh, dir, peer).await?;
    let (files_now, memory_now) = (open_files(mesh, AMBER)?, memory_mib(mesh, AMBER)?);
    ensure!(files_now < files + 250, "{files_now} open files beside the flood, {files} before");
    ensure!(memory_now < memory + 128, "{memory_now} MiB beside the flood, {memory} before");
    Ok(flood.sent())
}

#[test]
fn streams_that_drip_on_control_hold_up_nobody() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let cheat = mallory(mesh).await?;
            let mut peer = machine(mesh, "amber-02").await?;
            let flood = Flood::drips(&cheat, control_of(&cheat.me.pool), kind::HELLO);
            beside(mesh, dir, &mut peer, flood, 500).await?;
            Ok(())
        })
    });
}

#[test]
fn streams_that_drip_on_blobs_hold_up_nobody() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let cheat = mallory(mesh).await?;
            let mut peer = machine(mesh, "amber-02").await?;
            let flood = Flood::drips(&cheat, blob_of(&cheat.me.pool), kind::BLOB_GET);
            beside(mesh, dir, &mut peer, flood, 200).await?;
            Ok(())
        })
    });
}

#[test]
fn visitors_that_drip_at_the_porch_hold_up_nobody() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = machine(mesh, "amber-02").await?;
            let porch = socket_address(&peer.porch.address)?;
            let flood = Flood::drips_on_tcp(porch, "\x13/multistream/1.0.0\n");
            beside(mesh, dir, &mut peer, flood, 300).await?;
            // Past the handshake: a question that never ends is cut off.
            let link = Link::new(&Key::random())?;
            let ((), took) = timed(eventually("a visitor gets in", || async {
                Ok(link.dial(&peer.host(), &peer.porch.address).await.map_err(|error| format!("{error:#}")))
            }))
            .await?;
            println!("a visitor got in {took:?} after the drips");
            let mut stream = link.control().open(&peer.host(), PORCH).await?;
            scenemesh_testnet::hostile::bytes::send(&mut stream, b"SM").await?;
            link.closed(&peer.host()).await.context("who says half a question is shown out")
        })
    });
}

#[test]
fn requests_that_drip_at_the_local_api_hold_up_nobody() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = machine(mesh, "amber-02").await?;
            let told = std::fs::read_to_string(mesh.node(AMBER).dir.join("api.json"))?;
            let told: serde_json::Value = serde_json::from_str(&told)?;
            let url = told["url"].as_str().context("a url")?;
            let api: SocketAddr = url.trim_start_matches("http://").trim_end_matches('/').parse()?;
            let flood = Flood::drips_on_tcp(api, "GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ");
            beside(mesh, dir, &mut peer, flood, 300).await?;
            Ok(())
        })
    });
}

/// Amber renders, desk requests, and mallory floods amber.
async fn desk_and_flooder(mesh: &mut Cluster) -> Result<Member> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.admit(AMBER, "desk", None).await?;
    mesh.all_up().await?;
    mallory(mesh).await
}

/// Seconds that a batch of desk's takes on amber.
async fn batch(mesh: &Cluster, graph: &str) -> Result<f64> {
    let count = BATCH.to_string();
    let command = ["submit", graph, "--reach", "studio", "--count", &count];
    let (job, took) = timed(mesh.ok("desk", &command)).await?;
    ensure!(job["state"] == "done", "honest work is done: {job:#}");
    Ok(took.as_secs_f64())
}

fn best(seconds: &[f64]) -> f64 {
    BATCH as f64 / seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

/// A flood by name, begun anew for each round.
type Source = (&'static str, fn(&Member, &Porch, SocketAddr) -> Flood);

const SOURCES: [Source; 5] = [
    ("1 MiB/s of garbage on control", |peer, _, _| Flood::garbage_on_control(peer)),
    ("1 MiB/s of garbage on blobs", |peer, _, _| Flood::garbage_on_blobs(peer)),
    ("1 MiB/s of garbage at the porch", |_, porch, _| Flood::garbage_at_porch(porch)),
    ("1 MiB/s of garbage without a handshake", |_, _, main| Flood::garbage_on_tcp(main)),
    ("links", |_, _, main| Flood::links(main)),
];

#[test]
fn honest_throughput_beside_every_flood_goes_on() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = desk_and_flooder(mesh).await?;
            let main = main_port(&peer)?;
            let graph = graph_file(dir, "batch.json", &workflows::tiny(9))?;
            batch(mesh, &graph).await?;
            let mut slow = Vec::new();
            let least = if std::env::var_os("SCENEMESH_MEASURE").is_some() { PROMISED } else { STARVED };
            for (name, begin) in SOURCES {
                let (mut before, mut beside) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    before.push(batch(mesh, &graph).await?);
                    let flood = begin(&peer, &peer.porch, main);
                    eventually("the flood is under way", || async {
                        Ok(if flood.sent() > 0 { Ok(()) } else { Err("nothing yet") })
                    })
                    .await?;
                    beside.push(batch(mesh, &graph).await?);
                }
                let (quiet, flooded) = (best(&before), best(&beside));
                let share = flooded / quiet;
                println!("{name}: {quiet:.1} renders/s before, {flooded:.1} beside it, {share:.2}");
                if share < least {
                    slow.push(format!("{name}: {share:.2}"));
                }
            }
            ensure!(slow.is_empty(), "honest work was held up: {slow:?}");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_member_that_floods_is_answered_busy_and_only_it_waits() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let cheat = mallory(mesh).await?;
            let mut peer = machine(mesh, "amber-02").await?;
            let flood = Flood::garbage_on_control(&cheat);
            let sent = beside(mesh, dir, &mut peer, flood, 2 * SIZES.garbage_per_s).await?;
            println!("{sent} bytes of garbage on every verb");
            // Its bucket fills again: it is not shut out for good.
            eventually("it is heard again", || async {
                Ok(cheat.greet(&cheat.host()).await.map_err(|error| format!("{error:#}")))
            })
            .await?;
            tokio::time::timeout(Duration::from_secs(30), still_works(mesh, dir)).await?
        })
    });
}
