//! From the first byte of a submit at the local API to `execution_start` on the renderer's ComfyUI: two daemon processes
//! over TCP, data directories on disk, every fsync on.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::programs;
use super::submitter::Submitter;
use super::{Figures, ms, percentile};
use crate::cluster::{Cluster, Comfy};
use crate::talk::say;
use crate::workflows;

pub(super) async fn run(count: usize) -> Result<Figures> {
    let home = tempfile::tempdir().context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&[])).await?;
    crate::scenarios::one_studio(&mut mesh, "desk", &["ws-01"]).await?;
    let submitter = Submitter::of(&mesh.node("desk").dir)?;

    let warm_up = submitter.submit(&workflows::tiny(0)).await?;
    submitter.done(&warm_up).await?;
    let before = starts(&mesh).len();
    let mut submitted = Vec::with_capacity(count);
    for at in 0..count {
        submitted.push(scenemeshd::clock::wall_us());
        let job = submitter.submit(&workflows::tiny(u32::try_from(at)? + 1)).await?;
        submitter.done(&job).await?;
    }
    let started = starts(&mesh).split_off(before);
    ensure!(started.len() == count, "{} starts were logged for {count} submits", started.len());
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a bench")]
    let mut spans: Vec<f64> =
        submitted.iter().zip(&started).map(|(from, to)| to.saturating_sub(*from) as f64 / 1000.0).collect();
    say("dispatch: submit at the local API of one daemon → execution_start beside another, idle pool");
    Ok(Figures::from_iter([
        ("count".into(), json!(count)),
        ("start_p50_ms".into(), ms(percentile(&mut spans, 0.50))),
        ("start_p95_ms".into(), ms(percentile(&mut spans, 0.95))),
        ("start_max_ms".into(), ms(percentile(&mut spans, 1.0))),
    ]))
}

/// When the renderer's ComfyUI started each prompt, in microseconds since the Unix epoch, in order.
fn starts(mesh: &Cluster) -> Vec<u64> {
    let lines = mesh.node("ws-01").comfy_log();
    lines.iter().filter(|line| line["event"] == "started").filter_map(|line| line["at_us"].as_u64()).collect()
}
