//! What must hold in a mesh of real processes, each told as one would say it. Run by `testnet/tests/scenarios.rs`.

pub mod comfyui_killed;
pub mod deputy;
pub mod first_render;
pub mod kill_table;
pub mod link_cut;
pub mod membership;
pub mod refusal;
pub mod renderer_killed;
pub mod requester_killed;
pub mod solo;
pub mod trust;
pub mod two_requesters;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::{Cluster, Node};

/// Writes a graph next to the cluster's nodes and gives its path.
///
/// # Errors
/// When the file cannot be written.
pub fn graph_file(dir: &Path, name: &str, graph: &Value) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, serde_json::to_vec_pretty(graph)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

/// How often the simulated ComfyUI of a node started each prompt, by prompt id.
pub fn started(node: &Node) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in node.comfy_log() {
        if line["event"] == "started" {
            *counts.entry(line["prompt_id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    counts
}

/// How many prompts a node's simulated ComfyUI finished.
pub fn finished(node: &Node) -> usize {
    node.comfy_log().iter().filter(|line| line["event"] == "finished").count()
}

/// Output paths of a job's JSON.
pub fn outputs(job: &Value) -> Vec<PathBuf> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    let files = tasks.flat_map(|task| task["outputs"].as_array().into_iter().flatten());
    files.filter_map(|output| output["path"].as_str().map(PathBuf::from)).collect()
}

/// Nodes that a job's tasks ran on, in order of the tasks.
pub fn nodes_of(job: &Value) -> Vec<String> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    tasks.map(|task| task["node"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Decodes a PNG and gives width, height and a hash of its pixels.
///
/// # Errors
/// When it does not decode.
pub fn png_pixels(path: &Path) -> Result<(u32, u32, blake3::Hash)> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info()?;
    let size = reader.output_buffer_size().context("a picture of a sensible size")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    Ok((frame.width, frame.height, blake3::hash(&pixels[..frame.buffer_size()])))
}

/// A pool of one studio: `founder` and `others`, all up.
///
/// # Errors
/// When it does not form.
pub async fn one_studio(mesh: &mut Cluster, founder: &str, others: &[&str]) -> Result<()> {
    mesh.found(founder, "aurora", "amber").await?;
    for other in others {
        mesh.admit(founder, other, None).await?;
    }
    mesh.all_up().await
}
