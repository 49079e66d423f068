//! The requester dies by SIGKILL while its task samples, and is started again: the render is not repeated.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{graph_file, one_studio, outputs, started};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "100"])).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;

    let graph = graph_file(dir, "slow.json", &workflows::keyframe(CHECKPOINT, 5, 15, 64))?;
    let job = mesh.ok("desk", &["submit", &graph, "--detach", "--count", "2"]).await?;
    let id = job["job"].as_str().unwrap_or_default().to_owned();
    mesh.job_until("desk", &id, "a renderer samples", |job| {
        job["tasks"]
            .as_array()
            .is_some_and(|tasks| tasks.iter().any(|t| t["progress"]["step"].as_u64() > Some(1)))
    })
    .await?;
    mesh.kill("desk").await?;
    mesh.start("desk").await?;

    mesh.job_until("desk", &id, "both tasks end", |job| job["state"] == "done").await?;
    let out = dir.join("out").display().to_string();
    let fetched = mesh.ok("desk", &["fetch", &id, "--out", &out]).await?;
    ensure!(outputs(&fetched).len() == 2, "two results: {fetched:#}");
    let runs = started(mesh.node("ws-01"));
    ensure!(runs.len() == 2 && runs.values().all(|times| *times == 1), "each prompt ran once: {runs:?}");
    Ok(())
}
