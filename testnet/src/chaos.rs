//! A mesh of eight processes under a storm: daemons are killed in every phase of a task, ComfyUIs die, links are cut and
//! healed, all by one seed. In the end every task has ended exactly once.
//!
//! Judged by the logs of the simulated ComfyUIs and the files on disk, never by the daemons' word.

mod chance;
mod judge;
mod orders;
mod storm;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::program::Programs;
use crate::talk::{result, say};
use chance::Chance;
use judge::Verdict;
use orders::Orders;
use storm::{PHASES, Storm};

/// Who submits; the third renders too.
const DESKS: [&str; 3] = ["desk-1", "desk-2", "ws-1"];
/// Who renders.
const RENDERERS: [&str; 6] = ["ws-1", "ws-2", "ws-3", "ws-4", "ws-5", "ws-6"];

/// `testnet chaos`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What everything that happens follows from [default: a new one, which is printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Tasks at least; more are submitted until every phase had its kills
    #[arg(long, default_value_t = 300)]
    pub tasks: u32,
    /// Kills in each phase at least
    #[arg(long, default_value_t = 5)]
    pub kills: u32,
    /// How many times faster than life the ComfyUIs render: at 1 a task takes 1 to 20 seconds
    #[arg(long, default_value_t = 1)]
    pub pace: u64,
    /// Keep the data of all nodes in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<std::path::PathBuf>,
    /// End with one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs one storm and prints what it was and what came of it.
///
/// # Errors
/// When a task did not end exactly once, or the storm could not be had.
pub async fn run(options: Options) -> Result<()> {
    let kept = options.keep.clone();
    let temporary = tempfile::tempdir().context("making a directory for the mesh")?;
    let dir = kept.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir)?;
    let json = options.json;
    let figures = storm_over(Programs::this_binary()?, dir, &options).await?;
    if json {
        let mut object = json!({"schema": "chaos/1", "ok": true});
        if let (Some(object), Some(figures)) = (object.as_object_mut(), figures.as_object()) {
            object.extend(figures.clone());
        }
        result(&object.to_string());
    }
    Ok(())
}

/// One storm over a mesh whose data lies below `dir`; gives its figures.
///
/// # Errors
/// As [`run`].
pub async fn storm_over(programs: Programs, dir: &Path, options: &Options) -> Result<serde_json::Value> {
    let seed = options.seed.map_or_else(chance::fresh, Ok)?;
    say(&format!("chaos: seed {seed}, {} tasks at pace {}", options.tasks, options.pace));
    let began = Instant::now();
    let mut mesh = Cluster::new(programs, dir).haltable();
    let told = async {
        build(&mut mesh, options.pace).await?;
        let mut chance = Chance::of(seed);
        let mut orders = Orders::new(dir, &mut chance, options.tasks)?;
        let mut storm = Storm::new(chance, options.kills);
        storm.rage(&mut mesh, &mut orders).await?;
        let verdict = judge::judge(&mesh, dir, &orders, storm.tally()).await?;
        Ok::<_, anyhow::Error>((storm, verdict))
    };
    let told = told.await;
    let (storm, verdict) = told.with_context(|| {
        format!("seed {seed}; repeat it with `testnet chaos --seed {seed} --keep DIR`\n{}", mesh.last_words())
    })?;
    let tally = storm.tally();
    say(&format!("{:<10} {:>9} {:>9} {:>5}", "killed in", "requester", "renderer", "both"));
    for (phase, killed) in PHASES.iter().zip(&tally.phases) {
        let [requester, renderer, both] = killed.ends();
        say(&format!("{:<10} {requester:>9} {renderer:>9} {both:>5}", phase.name));
    }
    let Verdict { tasks, executions, wasted } = verdict;
    let (cuts, crashes, kills) = (tally.cuts, tally.crashes, tally.kills());
    let seconds = began.elapsed().as_secs();
    say(&format!(
        "{tasks} tasks ended exactly once in {seconds} s: {kills} daemons killed, {cuts} links cut, {crashes} ComfyUIs \
         crashed; {executions} renders, {wasted} of them lost to that"
    ));
    Ok(json!({
        "seed": seed, "tasks": tasks, "kills": kills, "cuts": cuts, "crashes": crashes, "executions": executions,
        "wasted": wasted, "took_s": seconds,
        "phases": PHASES.iter().zip(&tally.phases).map(|(phase, killed)| (phase.name.to_owned(), json!(killed.ends())))
            .collect::<serde_json::Map<_, _>>(),
    }))
}

async fn build(mesh: &mut Cluster, pace: u64) -> Result<()> {
    let step = (1000 / pace.max(1)).max(1).to_string();
    for desk in &DESKS[..2] {
        mesh.add_wired(desk, Comfy::Absent).await?;
    }
    for renderer in RENDERERS {
        let comfy = Comfy::simulated(&["--step-ms", &step, "--upload-ms", "150"]);
        mesh.add_wired(renderer, comfy).await?;
    }
    // Two studios, a desk in each.
    mesh.found("desk-1", "aurora", "amber").await?;
    mesh.admit("desk-1", "desk-2", Some("birch")).await?;
    for (at, renderer) in RENDERERS.into_iter().enumerate() {
        mesh.admit(if at % 2 == 0 { "desk-1" } else { "desk-2" }, renderer, None).await?;
    }
    mesh.all_up().await?;
    for desk in DESKS {
        for renderer in RENDERERS.into_iter().filter(|renderer| *renderer != desk) {
            mesh.advert_seen(desk, renderer).await?;
        }
    }
    Ok(())
}

/// A keyframe with a picture of the submitter's beside it: it is uploaded, sampled and saved.
fn graph(plate: &str, seed: u64, steps: u32) -> serde_json::Value {
    let mut graph = crate::workflows::keyframe(CHECKPOINT, seed, steps, 64);
    graph["10"] = json!({"class_type": "LoadImage", "inputs": {"image": plate}});
    graph["11"] = json!({"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}});
    graph["12"] =
        json!({"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "plate"}});
    graph
}
