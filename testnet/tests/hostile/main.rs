//! A second node, written from `docs/protocol.md` alone, against real daemons: first honest, then hostile.
//!
//! Each test is named after its attack. It asserts what is refused, bounded or detected, and that honest work goes on.

#![expect(clippy::print_stdout, reason = "a test says what it measured")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::member::{As, Member};
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::OfferReply;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::{finished, graph_file};
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;

mod bombs;
mod claims;
mod deputies;
mod envelopes;
mod floods;
mod graphs;
mod honest;
mod invites;
mod membership;
mod reaches;
mod renderers;

/// The honest node, and the renderer and requester of honest work after each attack.
const AMBER: &str = "amber";

type Story<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Tells a story in a mesh where `amber` has founded a pool, has a simulated ComfyUI with these arguments, and these lines
/// in its configuration.
fn tell_of(
    arguments: &[&str],
    config: &str,
    story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path) -> Story<'a>,
) {
    let told = story::tell(Programs::at(env!("CARGO_BIN_EXE_testnet")), async |mesh, dir| {
        mesh.add_with(AMBER, Comfy::simulated(arguments), config).await?;
        mesh.found(AMBER, "aurora", "amber").await?;
        story(mesh, dir).await
    });
    told.unwrap();
}

fn tell_with(arguments: &[&str], story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path) -> Story<'a>) {
    tell_of(arguments, "", story);
}

fn tell(story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path) -> Story<'a>) {
    tell_with(&[], story);
}

/// An invite code of amber's.
async fn code(mesh: &Cluster, new_studio: Option<&str>) -> Result<String> {
    let mut command = vec!["invite"];
    command.extend(new_studio.map(|studio| ["--new-studio", studio]).into_iter().flatten());
    let invite = mesh.ok(AMBER, &command).await?;
    Ok(invite["code"].as_str().context("an invite has a code")?.to_owned())
}

/// The second node as first machine of a studio of its own, up.
async fn mallory(mesh: &Cluster) -> Result<Member> {
    let mut member = Member::join(&code(mesh, Some("mallory")).await?, "mallory-01", As::Studio).await?;
    member.enter().await?;
    Ok(member)
}

/// The second node as a machine of amber's studio, up.
async fn machine(mesh: &Cluster, name: &str) -> Result<Member> {
    let mut member = Member::join(&code(mesh, None).await?, name, As::Machine).await?;
    member.enter().await?;
    Ok(member)
}

/// Waits until amber takes offers: its ComfyUI is ready.
async fn renders(peer: &Member) -> Result<()> {
    eventually("amber takes offers", || async {
        let offer = Order::new(&workflows::tiny(1), &[])?.offer;
        let reply = peer.offer(&peer.host(), &offer).await?;
        peer.withdraw(&peer.host(), &offer).await?;
        Ok(if matches!(reply, OfferReply::Refused(_)) { Err(reply) } else { Ok(()) })
    })
    .await
}

/// An honest job on amber ends done: whatever came before has not hurt it.
async fn still_works(mesh: &Cluster, dir: &Path) -> Result<()> {
    let before = finished(mesh.node(AMBER));
    let graph = graph_file(dir, "after.json", &workflows::tiny(7))?;
    let job = mesh.ok(AMBER, &["submit", &graph, "--reach", "machine"]).await?;
    ensure!(job["state"] == "done", "honest work goes on: {job:#}");
    ensure!(finished(mesh.node(AMBER)) == before + 1, "rendered here");
    Ok(())
}

fn status_of(mesh: &Cluster, name: &str, key: &str) -> Result<u64> {
    let pid = mesh.node(name).pid().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("the line")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// Memory that a node's daemon holds, in MiB.
fn memory_mib(mesh: &Cluster, name: &str) -> Result<u64> {
    Ok(status_of(mesh, name, "VmRSS:")? >> 10)
}

/// Files and sockets that a node's daemon has open.
fn open_files(mesh: &Cluster, name: &str) -> Result<usize> {
    let pid = mesh.node(name).pid().context("it runs")?;
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
