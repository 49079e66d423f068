//! A machine without a GPU submits; a machine of another studio renders; the picture comes back, and nothing stays.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{finished, graph_file, nodes_of, outputs, png_pixels};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("birch-01", Comfy::simulated(&[])).await?;
    mesh.found("desk", "aurora", "amber").await?;
    mesh.admit("desk", "birch-01", Some("birch")).await?;
    mesh.all_up().await?;

    let graph = graph_file(dir, "keyframe.json", &workflows::keyframe(CHECKPOINT, 7, 6, 128))?;
    let out = dir.join("out").display().to_string();
    let job = mesh.ok("desk", &["submit", &graph, "--reach", "pool", "--count", "2", "--out", &out]).await?;

    ensure!(job["state"] == "done", "the job ends done: {job:#}");
    ensure!(nodes_of(&job).iter().all(|node| node == "birch-01"), "birch-01 rendered it: {job:#}");
    let pictures = outputs(&job);
    ensure!(pictures.len() == 2, "two pictures: {job:#}");
    let (first, second) = (png_pixels(&pictures[0])?, png_pixels(&pictures[1])?);
    ensure!((first.0, first.1) == (128, 128), "of the size asked for");
    ensure!(first.2 != second.2, "--count changes the seed");
    ensure!(finished(mesh.node("birch-01")) == 2, "ComfyUI ran two prompts");
    no_trace(mesh, "birch-01")
}

/// The folders of a node's ComfyUI hold nothing of a task any more.
///
/// # Errors
/// When something is left.
pub fn no_trace(mesh: &Cluster, node: &str) -> Result<()> {
    for folder in ["input", "output", "temp"] {
        let mut left = Vec::new();
        files_below(&mesh.node(node).comfy_dir().join(folder), &mut left);
        ensure!(left.is_empty(), "left in {folder} of {node}: {left:?}");
    }
    Ok(())
}

fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}
