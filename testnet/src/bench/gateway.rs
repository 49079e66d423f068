//! What the gateway adds to a whole tiny render: from `POST /prompt` until the picture is read, in turn with the same
//! ComfyUI asked directly; and what a large file does to the daemon's memory.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::direct::{Direct, length};
use super::programs;
use super::{Figures, ms, percentile};
use crate::cluster::{CHECKPOINT, Cluster, Comfy, Node};
use crate::eventually::eventually;
use crate::talk::say;
use crate::workflows;

/// Sampling steps of a watched render.
const STEPS: u32 = 20;

pub(super) async fn run(count: usize, clients: &[usize], mib: usize, prompts: u32) -> Result<Figures> {
    let home = tempfile::tempdir().context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    mesh.add_with("desk", Comfy::Absent, "[gateway]\nlisten = \"127.0.0.1:0\"\n").await?;
    let large = mib.to_string();
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "300", "--large-mib", &large])).await?;
    crate::scenarios::one_studio(&mut mesh, "desk", &["ws-01"]).await?;
    let comfyui = mesh.node("ws-01").comfy_url().context("a ComfyUI")?.to_owned();
    let gateway = mesh.node("desk").gateway().context("a gateway")?;
    knows_models(&gateway).await?;

    say("gateway: a whole tiny render (64×64, three nodes), until the picture is read");
    let mut figures = Figures::from_iter([("count".into(), json!(count))]);
    let mut color = 0;
    for many in clients.iter().copied() {
        let (mut direct, mut through) = (group(&comfyui, many).await?, group(&gateway, many).await?);
        let (mut straight, mut detour) = (Vec::new(), Vec::new());
        for round in 0..=count {
            for (kind, samples) in [(&mut direct, &mut straight), (&mut through, &mut detour)] {
                // Another colour each time: nothing is answered from ComfyUI's cache.
                let renders = kind.iter_mut().map(|client| {
                    color += 1;
                    timed(client, color)
                });
                let took = try_join_all(renders).await?;
                // The first round only warms up.
                samples.extend(took.into_iter().filter(|_| round > 0));
            }
        }
        let p = |samples: &mut Vec<f64>, part| percentile(samples, part);
        let (direct_p50, direct_p95) = (p(&mut straight, 0.5), p(&mut straight, 0.95));
        let (gateway_p50, gateway_p95) = (p(&mut detour, 0.5), p(&mut detour, 0.95));
        for (name, value) in [
            ("direct_p50", direct_p50),
            ("direct_p95", direct_p95),
            ("gateway_p50", gateway_p50),
            ("gateway_p95", gateway_p95),
            ("added_p50", gateway_p50 - direct_p50),
            ("added_p95", gateway_p95 - direct_p95),
        ] {
            figures.insert(format!("{name}_ms_at_{many}"), ms(value));
        }
    }
    let (direct, through) = previews(mesh.node("ws-01"), &comfyui, &gateway).await?;
    figures.insert("preview_direct_p50_ms".into(), ms(direct));
    figures.insert("preview_gateway_p50_ms".into(), ms(through));
    figures.insert("preview_added_p50_ms".into(), ms(through - direct));
    if mib > 0 {
        let daemons = [mesh.node("desk"), mesh.node("ws-01")];
        let before: Vec<f64> =
            daemons.iter().map(|node| memory_mib(node, "VmHWM:")).collect::<Result<_>>()?;
        let (up, down) = large_file(&gateway, mib).await?;
        color += 1;
        let result = large_result(&gateway, color, mib).await?;
        figures.insert("file_mib".into(), json!(mib));
        figures.insert("upload_mib_per_s".into(), ms(up));
        figures.insert("view_mib_per_s".into(), ms(down));
        figures.insert("result_mib_per_s".into(), ms(result));
        for ((node, before), whose) in daemons.iter().zip(before).zip(["", "renderer_"]) {
            let grown = memory_mib(node, "VmHWM:")? - before;
            figures.insert(format!("{whose}peak_growth_mib"), ms(grown));
        }
    }
    if prompts > 0 {
        let (kept, grown) = history(mesh.node("desk"), &gateway, color, prompts).await?;
        figures.insert("history_prompts".into(), json!(kept));
        figures.insert("history_growth_mib".into(), ms(grown));
    }
    Ok(figures)
}

/// Clients that fill a history.
const WRITERS: usize = 16;

/// How many prompts the history has after so many more, and how much the daemon's memory grew meanwhile.
async fn history(node: &Node, gateway: &str, color: u32, prompts: u32) -> Result<(usize, f64)> {
    let before = memory_mib(node, "VmRSS:")?;
    let mut clients = group(gateway, WRITERS).await?;
    let many = WRITERS as u32;
    let renders = clients.iter_mut().zip(0..).map(async |(client, at)| {
        for turn in (at..prompts).step_by(WRITERS) {
            client.render(&workflows::tiny(color + many + turn)).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(renders).await?;
    let grown = memory_mib(node, "VmRSS:")? - before;
    let http = reqwest::Client::new();
    let kept: Value =
        http.get(format!("{gateway}/history?max_items={}", u32::MAX)).send().await?.json().await?;
    Ok((kept.as_object().map_or(0, serde_json::Map::len), grown))
}

async fn group(url: &str, many: usize) -> Result<Vec<Direct>> {
    let names: Vec<String> = (0..many).map(|at| format!("scenemesh-bench-{at}")).collect();
    try_join_all(names.iter().map(|name| Direct::named(url, name))).await
}

async fn timed(client: &mut Direct, color: u32) -> Result<f64> {
    let began = Instant::now();
    client.render(&workflows::tiny(color)).await?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

/// Waits until the gateway knows what it can offer.
async fn knows_models(gateway: &str) -> Result<()> {
    let http = reqwest::Client::new();
    eventually("the gateway knows what its studio has", || async {
        let models: Value = http.get(format!("{gateway}/models")).send().await?.json().await?;
        Ok(if models == json!([]) { Err(models) } else { Ok(()) })
    })
    .await
}

/// Milliseconds from a sampling step, by ComfyUI's own log, until its preview is at a client: directly, and through the
/// gateway.
async fn previews(node: &Node, comfyui: &str, gateway: &str) -> Result<(f64, f64)> {
    let mut medians = Vec::new();
    for (url, seed) in [(comfyui, 1), (gateway, 2)] {
        let mut client = Direct::named(url, "scenemesh-bench-watch").await?;
        let came = client.watch(&workflows::keyframe(CHECKPOINT, seed, STEPS, 64)).await?;
        let steps = node.comfy_log().into_iter().filter(|line| line["event"] == "step");
        let steps: Vec<u64> = steps.filter_map(|line| line["at_us"].as_u64()).collect();
        // Steps are far apart: a preview is of the last one before it.
        let since = |came: &u64| steps.iter().filter(|step| *step <= came).max().map(|step| came - step);
        let mut waits: Vec<f64> = came.iter().filter_map(since).map(|us| us as f64 / 1000.0).collect();
        ensure!(!waits.is_empty(), "no previews came from {url}");
        medians.push(percentile(&mut waits, 0.5));
    }
    Ok((medians[0], medians[1]))
}

/// Memory of the daemon, in MiB: `VmRSS:` now, `VmHWM:` at its highest so far.
fn memory_mib(node: &Node, figure: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().context("a daemon")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).context("a figure of memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// MiB a second in, and out again.
async fn large_file(gateway: &str, mib: usize) -> Result<(f64, f64)> {
    let http = reqwest::Client::new();
    let piece = Bytes::from(
        (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    );
    let pieces = stream::iter((0..mib).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let part = reqwest::multipart::Part::stream(reqwest::Body::wrap_stream(pieces)).file_name("large.bin");
    let form = reqwest::multipart::Form::new().part("image", part);
    let began = Instant::now();
    http.post(format!("{gateway}/upload/image")).multipart(form).send().await?.error_for_status()?;
    let up = mib as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    let answer = http.get(format!("{gateway}/view?filename=large.bin&type=input")).send();
    let got = length(answer.await?.error_for_status()?).await?;
    let down = mib as f64 / began.elapsed().as_secs_f64();
    ensure!(got == mib << 20, "{got} bytes came back");
    Ok((up, down))
}

/// MiB a second from a prompt until its one large result is read.
async fn large_result(gateway: &str, color: u32, mib: usize) -> Result<f64> {
    let mut graph = workflows::tiny(color);
    let nodes = graph.as_object_mut().context("a graph")?;
    let save = nodes.values_mut().find(|node| node["class_type"] == "SaveImage").context("it saves")?;
    save["inputs"]["filename_prefix"] = json!("large");
    let began = Instant::now();
    let mut client = Direct::named(gateway, "scenemesh-bench-large").await?;
    let got = client.render(&graph).await?;
    ensure!(got > mib << 20, "{got} bytes came back");
    Ok(mib as f64 / began.elapsed().as_secs_f64())
}
