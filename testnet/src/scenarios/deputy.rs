//! The machine that submitted a batch is gone: a node of its studio that holds the batch too goes on with it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{graph_file, one_studio, outputs, started};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::workflows;

/// A keeper, which founds the studio and so has the role `keep`, a desk that submits, and so many renderers.
async fn studio(mesh: &mut Cluster, renderers: &[&str], step_ms: &str) -> Result<()> {
    mesh.add_with("keeper", Comfy::Absent, "\n[keep]\nafter = \"3s\"\n").await?;
    mesh.add("desk", Comfy::Absent).await?;
    for name in renderers {
        mesh.add(name, Comfy::simulated(&["--step-ms", step_ms])).await?;
    }
    let others: Vec<&str> = ["desk"].into_iter().chain(renderers.iter().copied()).collect();
    one_studio(mesh, "keeper", &others).await?;
    for viewer in ["desk", "keeper"] {
        for name in renderers {
            mesh.advert_seen(viewer, name).await?;
        }
    }
    Ok(())
}

async fn submit(mesh: &Cluster, dir: &Path, count: &str) -> Result<String> {
    let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 5, 10, 64))?;
    let job = mesh.ok("desk", &["submit", &graph, "--detach", "--count", count]).await?;
    Ok(job["job"].as_str().context("a job has an id")?.to_owned())
}

/// Waits until the keeper holds the job and satisfies `good`.
async fn kept(mesh: &Cluster, job: &str, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(what, || async {
        let shown = mesh.cli("keeper", &["show", job]).await?;
        let fine = shown.code == 0 && good(&shown.json);
        Ok(if fine { Ok(shown.json) } else { Err((shown.json, mesh.last_words())) })
    })
    .await
}

fn in_state(job: &Value, state: &str) -> usize {
    let tasks = job["tasks"].as_array();
    tasks.map_or(0, |tasks| tasks.iter().filter(|task| task["state"] == state).count())
}

fn runs(mesh: &Cluster, renderers: &[&str]) -> Vec<usize> {
    renderers.iter().flat_map(|name| started(mesh.node(name)).into_values()).collect()
}

/// Killed in the middle of its batch, and never started again: all of it is fetched from the deputy.
///
/// # Errors
/// When any of it does not hold.
pub async fn origin_never_returns(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    const RENDERERS: [&str; 2] = ["ws-01", "ws-02"];
    studio(mesh, &RENDERERS, "60").await?;
    let job = submit(mesh, dir, "8").await?;
    let shown = kept(mesh, &job, "the keeper has results too", |job| in_state(job, "done") >= 2).await?;
    ensure!(shown["kept_for"] == "desk", "it says whose it is: {shown:#}");
    let own = mesh.ok("desk", &["show", &job]).await?;
    ensure!(own["kept_on"] == "keeper" && own["kept_for"].is_null(), "and who holds it: {own:#}");
    mesh.kill("desk").await?;

    let done = kept(mesh, &job, "it goes on to the end", |job| job["state"] == "done").await?;
    ensure!(in_state(&done, "done") == 8, "{done:#}");
    let told = mesh.ok("keeper", &["logs", &job]).await?.to_string();
    ensure!(told.contains("desk is gone"), "{told}");
    let out = dir.join("out").display().to_string();
    let fetched = mesh.ok("keeper", &["fetch", &job, "--out", &out]).await?;
    ensure!(outputs(&fetched).len() == 8, "the whole batch: {fetched:#}");
    let runs = runs(mesh, &RENDERERS);
    ensure!(runs.iter().all(|times| *times == 1), "each prompt ran once: {runs:?}");
    ensure!((8..=10).contains(&runs.len()), "only what was out ran again: {runs:?}");
    Ok(())
}

/// Killed before anything was granted, and back while its deputy is in the middle of it: every task runs once.
///
/// # Errors
/// When any of it does not hold.
pub async fn origin_returns(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    const RENDERERS: [&str; 1] = ["ws-01"];
    studio(mesh, &RENDERERS, "150").await?;
    mesh.ok("ws-01", &["lend", "off"]).await?;
    let job = submit(mesh, dir, "5").await?;
    let shown = kept(mesh, &job, "the keeper has the job", |_| true).await?;
    ensure!(in_state(&shown, "queued") == 5, "{shown:#}");
    let why = mesh.ok("keeper", &["why", &job]).await?.to_string();
    ensure!(why.contains("held for desk"), "{why}");
    mesh.kill("desk").await?;
    mesh.ok("ws-01", &["lend", "on"]).await?;
    kept(mesh, &job, "the keeper has some and waits for another", |job| {
        in_state(job, "done") >= 1 && in_state(job, "running") == 1
    })
    .await?;
    mesh.start("desk").await?;
    let done = mesh.job_until("desk", &job, "it ends", |job| job["state"] == "done").await?;
    let out = dir.join("out").display().to_string();
    let fetched = mesh.ok("desk", &["fetch", &job, "--out", &out]).await?;
    ensure!(outputs(&fetched).len() == 5, "five results: {fetched:#} {done:#}");
    let runs = runs(mesh, &RENDERERS);
    ensure!(runs.len() == 5 && runs.iter().all(|times| *times == 1), "every task ran once: {runs:?}");
    let told = mesh.ok("desk", &["logs", &job]).await?.to_string();
    ensure!(told.contains("had it rendered meanwhile"), "{told}");
    // What is over lies on one machine only.
    eventually("the keeper lets it go", || async {
        let shown = mesh.cli("keeper", &["show", &job]).await?;
        Ok(if shown.code == 0 { Err((shown.json, mesh.last_words())) } else { Ok(()) })
    })
    .await?;
    Ok(())
}
