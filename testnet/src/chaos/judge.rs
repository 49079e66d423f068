//! What came of it: read from files, and from the logs of the simulated ComfyUIs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::orders::Orders;
use super::storm::Tally;
use super::{DESKS, RENDERERS, graph};
use crate::cluster::{CHECKPOINT, Cluster};
use crate::comfyui::{self, Simulated};
use crate::eventually::eventually;
use crate::scenarios::png_pixels;

/// What was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) tasks: usize,
    /// Prompts that the ComfyUIs started.
    pub(super) executions: usize,
    /// Of these, those that brought no result.
    pub(super) wasted: usize,
}

/// Judges a mesh after a storm.
///
/// # Errors
/// At the first task that did not end exactly once, or was rendered more often than the storm explains, and when
/// something was left behind.
pub(super) async fn judge(mesh: &Cluster, dir: &Path, orders: &Orders, tally: Tally) -> Result<Verdict> {
    let mut started: BTreeMap<u64, usize> = BTreeMap::new();
    let mut ended: BTreeMap<u64, usize> = BTreeMap::new();
    for node in RENDERERS {
        let log = mesh.node(node).comfy_log();
        let mut seeds = BTreeMap::new();
        for line in &log {
            let prompt = line["prompt_id"].as_str().unwrap_or_default().to_owned();
            match (line["event"].as_str(), line["seed"].as_u64()) {
                (Some("started"), Some(seed)) => {
                    *started.entry(seed).or_default() += 1;
                    seeds.insert(prompt, seed);
                }
                (Some("finished"), _) if line["outcome"] == "success" => {
                    let seed = seeds.get(&prompt).with_context(|| format!("{prompt} ended unbegun"))?;
                    *ended.entry(*seed).or_default() += 1;
                }
                _ => {}
            }
        }
    }
    let reference = Reference::start(&dir.join("reference"), &orders.plate).await?;
    for order in &orders.all {
        let job = order.job.as_deref().context("every job was accepted")?;
        let out = dir.join("fetched").join(&order.label);
        let job = mesh.ok(order.desk, &["fetch", job, "--out", &out.display().to_string()]).await?;
        let tasks = job["tasks"].as_array().context("a job has tasks")?;
        ensure!(tasks.len() == order.seeds().count(), "{}: {} tasks", order.label, tasks.len());
        let mut files = count_files(&out)?;
        for (seed, task) in order.seeds().zip(tasks) {
            let about = || format!("seed {seed} of {}: {task:#}", order.label);
            ensure!(started.get(&seed).is_some_and(|times| *times > 0), "never rendered: {}", about());
            ensure!(ended.get(&seed).is_some_and(|times| *times > 0), "never finished: {}", about());
            let expected = reference.render(&graph("plate.png", seed, order.steps)).await?;
            let outputs = task["outputs"].as_array().context("outputs")?;
            let nodes: Vec<&String> = expected.keys().collect();
            ensure!(outputs.len() == expected.len(), "not one result of each of {nodes:?}: {}", about());
            for output in outputs {
                let path = output["path"].as_str().with_context(about)?;
                let node = output["graph_node"].as_str().with_context(about)?;
                let wanted = expected.get(node).with_context(about)?;
                ensure!(png_pixels(Path::new(path))?.2 == *wanted, "another picture: {}", about());
                files -= 1;
            }
        }
        ensure!(files == 0, "{files} files too many in {}", out.display());
    }
    let tasks = orders.tasks();
    let seeds: Vec<u64> = orders.all.iter().flat_map(super::orders::Order::seeds).collect();
    if let Some(stray) = started.keys().find(|seed| !seeds.contains(seed)) {
        bail!("seed {stray} was rendered and never asked for");
    }
    let executions: usize = started.values().sum();
    let wasted = executions - tasks;
    // A renderer that dies, loses its link or its ComfyUI has at most one task in its one slot, and one more by then.
    let explained = usize::try_from(2 * (tally.kills() + tally.cuts + tally.crashes))?;
    ensure!(wasted <= explained, "{wasted} renders were for nothing, the storm explains {explained}");
    nothing_is_left(mesh).await?;
    Ok(Verdict { tasks, executions, wasted })
}

fn count_files(dir: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        files += if path.is_dir() { count_files(&path)? } else { 1 };
    }
    Ok(files)
}

/// Neither in a ComfyUI nor in a spool: everything was taken and acknowledged.
async fn nothing_is_left(mesh: &Cluster) -> Result<()> {
    for node in RENDERERS {
        eventually(&format!("nothing is left at {node}"), || async {
            let comfy = mesh.node(node).comfy_dir();
            let files = ["input", "output", "temp"].map(|folder| files_below(&comfy.join(folder)));
            let files: Vec<PathBuf> = files.into_iter().flatten().collect();
            let url = mesh.node(node).comfy_url().context("a ComfyUI")?;
            let history: Value = reqwest::get(format!("{url}/history")).await?.json().await?;
            let blobs = files_below(&mesh.node(node).dir.join("blobs"));
            // A desk of its own keeps its jobs' inputs and results.
            let spool = if DESKS.contains(&node) { Vec::new() } else { blobs };
            let clean = files.is_empty() && history == json!({}) && spool.is_empty();
            Ok(if clean { Ok(()) } else { Err((files, history, spool)) })
        })
        .await?;
    }
    Ok(())
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// A ComfyUI that nobody disturbs.
struct Reference {
    simulated: Simulated,
    http: reqwest::Client,
}

impl Reference {
    async fn start(dir: &Path, plate: &Path) -> Result<Self> {
        let models = vec![format!("checkpoints/{CHECKPOINT}")];
        let data = Some(dir.to_owned());
        let options = comfyui::Options { data, models, step_ms: 0, ..comfyui::Options::default() };
        let simulated = Simulated::start(options).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let part = reqwest::multipart::Part::bytes(std::fs::read(plate)?).file_name("plate.png");
        let form = reqwest::multipart::Form::new().part("image", part);
        let url = format!("{}/upload/image", simulated.url());
        http.post(url).multipart(form).send().await?.error_for_status()?;
        Ok(Self { simulated, http })
    }

    /// What the picture of each saving node looks like.
    async fn render(&self, graph: &Value) -> Result<BTreeMap<String, blake3::Hash>> {
        let url = self.simulated.url();
        let posted = self.http.post(format!("{url}/prompt")).json(&json!({"prompt": graph})).send().await?;
        let posted: Value = posted.error_for_status()?.json().await?;
        ensure!(posted["node_errors"] == json!({}), "the reference does not take it: {posted}");
        let id = posted["prompt_id"].as_str().context("a prompt id")?.to_owned();
        let entry = eventually("the reference is rendered", || async {
            let history = self.http.get(format!("{url}/history/{id}")).send().await?;
            let mut history: Value = history.error_for_status()?.json().await?;
            let entry = history[&id].take();
            Ok(if entry.is_null() { Err(()) } else { Ok(entry) })
        })
        .await?;
        ensure!(entry["status"]["status_str"] == "success", "the reference fails: {}", entry["status"]);
        let mut pictures = BTreeMap::new();
        for (node, output) in entry["outputs"].as_object().context("outputs in the history")? {
            let image = &output["images"][0];
            let part = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
            let query = ["filename", "subfolder", "type"].map(|name| (name, part(name)));
            let view = self.http.get(format!("{url}/view")).query(&query).send().await?;
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), view.error_for_status()?.bytes().await?)?;
            pictures.insert(node.clone(), png_pixels(file.path())?.2);
        }
        Ok(pictures)
    }
}
