//! What the mesh adds to a whole tiny render: submit until the picture is read, through two daemons, in turn with the same
//! ComfyUI asked directly.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::Instant;

use super::direct::Direct;
use super::programs;
use super::submitter::Submitter;
use super::{Figures, ms, percentile};
use crate::cluster::{Cluster, Comfy};
use crate::talk::say;
use crate::workflows;

pub(super) async fn run(count: usize, comfyui: Option<String>) -> Result<Figures> {
    let home = tempfile::tempdir().context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    mesh.add("desk", Comfy::Absent).await?;
    let beside = comfyui.clone().map_or_else(|| Comfy::simulated(&[]), Comfy::At);
    mesh.add("ws-01", beside).await?;
    crate::scenarios::one_studio(&mut mesh, "desk", &["ws-01"]).await?;
    let url = comfyui.or_else(|| mesh.node("ws-01").comfy_url().map(str::to_owned)).context("a ComfyUI")?;
    let submitter = Submitter::of(&mesh.node("desk").dir)?;
    let mut direct = Direct::at(&url).await?;

    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for at in 0..=count {
        // Another colour each time: nothing is answered from ComfyUI's cache. The first of each kind only warms up.
        let color = 2 * u32::try_from(at)?;
        let began = Instant::now();
        direct.render(&workflows::tiny(color)).await?;
        straight.push(began.elapsed().as_secs_f64() * 1000.0);
        let began = Instant::now();
        let job = submitter.submit(&workflows::tiny(color + 1)).await?;
        let done = submitter.done(&job).await?;
        submitter.output(&done).await?;
        through.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    through.remove(0);
    straight.remove(0);
    say("overhead: a whole tiny render (64×64, three nodes), until the picture is read");
    let (mesh_p50, mesh_p95) = (percentile(&mut through, 0.5), percentile(&mut through, 0.95));
    let (direct_p50, direct_p95) = (percentile(&mut straight, 0.5), percentile(&mut straight, 0.95));
    Ok(Figures::from_iter([
        ("count".into(), json!(count)),
        ("direct_p50_ms".into(), ms(direct_p50)),
        ("direct_p95_ms".into(), ms(direct_p95)),
        ("mesh_p50_ms".into(), ms(mesh_p50)),
        ("mesh_p95_ms".into(), ms(mesh_p95)),
        ("added_p50_ms".into(), ms(mesh_p50 - direct_p50)),
        ("added_p95_ms".into(), ms(mesh_p95 - direct_p95)),
        ("ratio_p50".into(), ms(mesh_p50 / direct_p50)),
    ]))
}
