//! Whether the length of the queue costs anything: the same desk and the same renderer, with few and with many tasks waiting.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::programs;
use super::submitter::Submitter;
use super::{Figures, ms, percentile};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::talk::say;
use crate::workflows;

/// Seeds of what is timed; those that only wait have smaller ones.
const TIMED: u64 = 1 << 40;

/// For each length: `count` urgent tasks, one after the other, from submit to start; and from the end of one task in
/// ComfyUI to the start of the next.
pub(super) async fn run(lengths: &[u32], count: usize) -> Result<Figures> {
    ensure!(lengths.iter().all(|length| (1..=10_000).contains(length)), "between 1 and 10000 tasks can wait");
    let home = tempfile::tempdir().context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "20"])).await?;
    crate::scenarios::one_studio(&mut mesh, "desk", &["ws-01"]).await?;
    mesh.advert_seen("desk", "ws-01").await?;
    let submitter = Submitter::of(&mesh.node("desk").dir)?;
    let graph = |seed| workflows::keyframe(CHECKPOINT, seed, 1, 16);
    submitter.done(&submitter.submit(&graph(0)).await?).await?;

    let mut figures = Figures::from_iter([("count".into(), json!(count))]);
    let mut first: BTreeMap<&str, f64> = BTreeMap::new();
    for (round, length) in lengths.iter().enumerate() {
        let seed = TIMED * (round as u64 + 1);
        // Those that start meanwhile are older: as many as are asked for wait to the end.
        let mut waiting = Vec::new();
        if *length > 1 {
            for (many, seed) in [(3 * u32::try_from(count)?, 1), (*length, 50_000)] {
                let seed = seed + round as u64 * 100_000;
                waiting.push(submitter.submit_many(&graph(seed), many).await?);
            }
        }
        let from = mesh.node("ws-01").comfy_log().len();
        let mut starts = Vec::with_capacity(count);
        for at in 0..count as u64 {
            let behind = submitter.submit(&graph(seed / 2 + at)).await?;
            let began = scenemeshd::clock::wall_us();
            submitter.submit_as(&graph(seed + at), "urgent").await?;
            let started = eventually("the urgent task starts", || async {
                let log = mesh.node("ws-01").comfy_log();
                let line =
                    log.iter().rev().find(|line| line["event"] == "started" && line["seed"] == seed + at);
                Ok(line.and_then(|line| line["at_us"].as_u64()).ok_or(()))
            })
            .await?;
            starts.push(micros(began, started));
            if waiting.is_empty() {
                submitter.done(&behind).await?;
            }
        }
        let mut gaps = gaps(&mesh.node("ws-01").comfy_log()[from..]);
        ensure!(gaps.len() >= count, "only {} tasks followed each other", gaps.len());
        for job in &waiting {
            mesh.cli("desk", &["cancel", job]).await?;
        }
        for (what, spans) in [("urgent_start", &mut starts), ("next_start", &mut gaps)] {
            for (name, part) in [("p50", 0.5), ("p95", 0.95)] {
                let value = percentile(spans, part);
                figures.insert(format!("{what}_{name}_ms_at_{length}"), ms(value));
                if part < 0.9 {
                    let base = *first.entry(what).or_insert(value);
                    figures.insert(format!("{what}_ratio_at_{length}"), ms(value / base));
                }
            }
        }
    }
    say(
        "dispatch: an urgent task submitted → its start, and the end of one task → the next one's start, by tasks waiting",
    );
    Ok(figures)
}

fn micros(from: u64, to: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a bench")]
    let span = to.saturating_sub(from) as f64;
    span / 1000.0
}

/// From the end of each prompt to the start of the next on the same ComfyUI.
fn gaps(log: &[Value]) -> Vec<f64> {
    let mut ended = None;
    let mut gaps = Vec::new();
    for line in log {
        match line["event"].as_str() {
            Some("finished") => ended = line["at_us"].as_u64(),
            Some("started") => {
                if let (Some(ended), Some(started)) = (ended.take(), line["at_us"].as_u64()) {
                    gaps.push(micros(ended, started));
                }
            }
            _ => {}
        }
    }
    gaps
}
