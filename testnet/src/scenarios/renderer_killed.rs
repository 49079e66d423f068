//! A renderer dies by SIGKILL in the middle of sampling; the task ends elsewhere, once.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{graph_file, nodes_of, one_studio, outputs};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    for name in ["ws-01", "ws-02"] {
        mesh.add(name, Comfy::simulated(&["--step-ms", "150"])).await?;
    }
    one_studio(mesh, "desk", &["ws-01", "ws-02"]).await?;

    let graph = graph_file(dir, "slow.json", &workflows::keyframe(CHECKPOINT, 3, 20, 64))?;
    let job = mesh.ok("desk", &["submit", &graph, "--detach"]).await?;
    let id = job["job"].as_str().unwrap_or_default().to_owned();
    let sampling = mesh
        .job_until("desk", &id, "a renderer samples", |job| {
            job["tasks"][0]["progress"]["step"].as_u64() > Some(1)
        })
        .await?;
    let first = nodes_of(&sampling)[0].clone();
    mesh.kill(&first).await?;

    let done = mesh.job_until("desk", &id, "the task ends elsewhere", |job| job["state"] == "done").await?;
    ensure!(nodes_of(&done)[0] != first, "another node rendered it: {done:#}");
    ensure!(done["tasks"][0]["attempts"] == 2, "at the second attempt: {done:#}");
    let out = dir.join("out").display().to_string();
    let fetched = mesh.ok("desk", &["fetch", &id, "--out", &out]).await?;
    ensure!(outputs(&fetched).len() == 1, "exactly one result: {fetched:#}");

    // The killed node comes back, is told that its attempt is not wanted any more, and keeps nothing.
    mesh.start(&first).await?;
    mesh.all_up().await
}
