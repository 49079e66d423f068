//! A release and the one before it: they talk to each other, and the newer opens what the older has left.
//!
//! `SCENEMESH_PREVIOUS` names the `scenemeshd` of the release before; `.ci/run` builds it when there is one.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain")]
#![expect(clippy::print_stderr, reason = "a skipped check says so")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::{finished, graph_file, one_studio, outputs, png_pixels};
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;
use serde_json::Value;

fn previous() -> Option<PathBuf> {
    let named = std::env::var_os("SCENEMESH_PREVIOUS").map(PathBuf::from);
    if named.is_none() {
        eprintln!("skipped: SCENEMESH_PREVIOUS is not set, and so there is no release before this one");
    }
    named
}

async fn render(mesh: &Cluster, dir: &Path, seed: u64) -> Result<Value> {
    let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, seed, 2, 64))?;
    let out = dir.join("out").display().to_string();
    let job = mesh.ok("desk", &["submit", &graph, "--out", &out]).await?;
    ensure!(job["state"] == "done", "{job:#}");
    Ok(job)
}

/// Both of the older release: a pool is founded, something is rendered, and something else waits for a node that is away.
async fn before(mesh: &mut Cluster, dir: &Path) -> Result<(String, String)> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&[])).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;
    mesh.advert_seen("desk", "ws-01").await?;
    let done = render(mesh, dir, 1).await?;
    mesh.kill("ws-01").await?;
    let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 2, 2, 64))?;
    let waits = mesh.ok("desk", &["submit", &graph, "--count", "2", "--detach"]).await?;
    let id = |job: &Value| job["job"].as_str().map(str::to_owned).context("a job has an id");
    Ok((id(&done)?, id(&waits)?))
}

/// What was done is still there, and what waited is rendered, once.
async fn after(mesh: &Cluster, dir: &Path, done: &str, waits: &str) -> Result<()> {
    let again = dir.join("again").display().to_string();
    let fetched = mesh.ok("desk", &["fetch", done, "--out", &again]).await?;
    ensure!(outputs(&fetched).len() == 1, "{fetched:#}");
    png_pixels(&outputs(&fetched)[0])?;
    let ended = mesh.job_until("desk", waits, "what waited is done", |job| job["state"] == "done").await?;
    ensure!(ended["tasks"].as_array().map(Vec::len) == Some(2), "{ended:#}");
    render(mesh, dir, 7).await.map(drop)
}

fn upgrade(first: &'static str, second: &'static str) {
    let Some(previous) = previous() else { return };
    let old = Programs::at(env!("CARGO_BIN_EXE_testnet")).with_daemon(Some(previous));
    story::tell(old, async |mesh, dir| {
        let (done, waits) = before(mesh, dir).await?;
        mesh.kill("desk").await?;
        // One of them is of the newer release, the other is not yet.
        mesh.start_upgraded(first).await?;
        mesh.start(second).await?;
        mesh.all_up().await?;
        after(mesh, dir, &done, &waits).await?;
        let rendered = finished(mesh.node("ws-01"));
        mesh.kill(second).await?;
        mesh.start_upgraded(second).await?;
        mesh.all_up().await?;
        after(mesh, dir, &done, &waits).await?;
        ensure!(finished(mesh.node("ws-01")) == rendered + 1, "nothing that was done is done again");
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_desk_is_upgraded_first() {
    upgrade("desk", "ws-01");
}

#[test]
fn the_renderer_is_upgraded_first() {
    upgrade("ws-01", "desk");
}
