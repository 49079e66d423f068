//! The only ComfyUI of the pool dies in the middle of sampling and comes back on the same port: the task ends, without
//! a hand.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{graph_file, one_studio, outputs};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "100"])).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;

    let graph = graph_file(dir, "slow.json", &workflows::keyframe(CHECKPOINT, 3, 20, 64))?;
    let job = mesh.ok("desk", &["submit", &graph, "--detach"]).await?;
    let id = job["job"].as_str().context("a job id")?.to_owned();
    mesh.job_until("desk", &id, "it samples", |job| job["tasks"][0]["progress"]["step"].as_u64() > Some(1))
        .await?;
    mesh.kill_comfy("ws-01").await?;
    let failed = mesh
        .job_until("desk", &id, "its requester knows", |job| {
            job["tasks"][0]["failures"][0]["class"] == "comfyui_died"
        })
        .await?;
    ensure!(failed["tasks"][0]["state"] == "queued", "it waits: {failed:#}");
    let why = mesh.ok("desk", &["--lang", "ko", "why", &id]).await?;
    let told = why["why"].as_str().unwrap_or_default();
    ensure!(told.starts_with("지금 맡을 노드가 없습니다: "), "in the asker's language: {why:#}");
    ensure!(why["code"] == "nobody", "and in one for programs: {why:#}");

    mesh.restart_comfy("ws-01").await?;
    let done = mesh.job_until("desk", &id, "the task ends there", |job| job["state"] == "done").await?;
    ensure!(done["tasks"][0]["attempts"] == 2, "at the second attempt: {done:#}");
    let out = dir.join("out").display().to_string();
    let fetched = mesh.ok("desk", &["fetch", &id, "--out", &out]).await?;
    ensure!(outputs(&fetched).len() == 1, "exactly one result: {fetched:#}");
    let logs = mesh.ok("desk", &["--lang", "ko", "logs", &id]).await?;
    let codes: Vec<&str> =
        logs["lines"].as_array().into_iter().flatten().filter_map(|line| line["code"].as_str()).collect();
    ensure!(codes.contains(&"failed") && codes.last() == Some(&"done"), "the story is whole: {logs:#}");
    Ok(())
}
