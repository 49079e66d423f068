//! The only eligible node refuses: the task waits, and `why` says why, by node.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{graph_file, one_studio};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--vram-mib", "8192"])).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;

    let graph = graph_file(dir, "keyframe.json", &workflows::keyframe(CHECKPOINT, 7, 4, 64))?;
    let job = mesh.ok("desk", &["submit", &graph, "--needs", "vram=24GB", "--detach"]).await?;
    let id = job["job"].as_str().context("a job id")?.to_owned();
    eventually("why names the node and the reason", || async {
        let why = mesh.cli("desk", &["why", &id]).await?;
        let text = why.json.to_string();
        Ok(if text.contains("ws-01") && text.contains("24") { Ok(()) } else { Err(text) })
    })
    .await?;
    let shown = mesh.ok("desk", &["show", &id]).await?;
    ensure!(shown["state"] == "queued", "it waits: {shown:#}");
    mesh.ok("desk", &["cancel", &id]).await?;
    mesh.job_until("desk", &id, "it is cancelled", |job| job["state"] == "cancelled").await?;
    Ok(())
}
