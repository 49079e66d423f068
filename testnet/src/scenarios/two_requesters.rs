//! Two requesters share one renderer: both are served, neither waits for all of the other's.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{graph_file, one_studio};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk-a", Comfy::Absent).await?;
    mesh.add("desk-b", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "30"])).await?;
    one_studio(mesh, "desk-a", &["desk-b", "ws-01"]).await?;

    let mut jobs = Vec::new();
    for (desk, seed) in [("desk-a", 100), ("desk-b", 900)] {
        let graph = graph_file(dir, &format!("{desk}.json"), &workflows::keyframe(CHECKPOINT, seed, 6, 64))?;
        let job = mesh.ok(desk, &["submit", &graph, "--detach", "--count", "4"]).await?;
        jobs.push((desk, job["job"].as_str().context("a job id")?.to_owned()));
    }
    for (desk, id) in &jobs {
        mesh.job_until(desk, id, "its four tasks end", |job| job["state"] == "done").await?;
    }
    let owners: Vec<char> = mesh
        .node("ws-01")
        .comfy_log()
        .iter()
        .filter(|line| line["event"] == "started")
        .map(|line| if line["seed"].as_u64() >= Some(900) { 'b' } else { 'a' })
        .collect();
    ensure!(owners.len() == 8, "eight prompts ran, each once: {owners:?}");
    let first_b = owners.iter().position(|owner| *owner == 'b').context("b was served")?;
    ensure!(first_b < 4, "b did not wait for all of a: {owners:?}");
    Ok(())
}
