//! The link is cut in the middle of an input's transfer: it heals, and what had arrived is not sent again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{graph_file, outputs};
use crate::cluster::{Cluster, Comfy};
use crate::workflows;

const MIB: u64 = 1 << 20;
/// A cut after each so many bytes.
const APART: u64 = 4 * MIB;
/// Streams of one transfer, each of which may lose a segment of one MiB in a cut.
const STREAMS: u64 = 4;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    cut_while_it_moves(mesh, dir, 2048, 1).await
}

/// The same with ten cuts, one after the other, on the way there and back.
///
/// # Errors
/// When any of it does not hold.
pub async fn ten_times(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    cut_while_it_moves(mesh, dir, 3600, 10).await
}

async fn cut_while_it_moves(mesh: &mut Cluster, dir: &Path, side: u32, times: u64) -> Result<()> {
    mesh.add_wired("desk", Comfy::Absent).await?;
    mesh.add_wired("ws-01", Comfy::simulated(&[])).await?;
    mesh.found("desk", "aurora", "amber").await?;
    mesh.admit("desk", "ws-01", None).await?;
    mesh.all_up().await?;

    let picture = dir.join("plate.png");
    let bytes = noise_png(&picture, side)?;
    ensure!(bytes > (times * APART / 2).max(10 * MIB), "the plate is {bytes} bytes: too small to cut");
    let before = relayed(mesh);
    let graph = graph_file(dir, "invert.json", &workflows::image_to_image("plate.png"))?;
    let input = format!("plate.png={}", picture.display());
    let out = dir.join("out").display().to_string();
    let arguments = ["submit", &graph, "--input", &input, "--out", &out];
    // Whoever dialled, the link goes through one of the two wires: the one that carries it breaks.
    let wires: Vec<_> = ["desk", "ws-01"].iter().filter_map(|name| mesh.node(name).wire()).collect();
    let cuts = || wires.iter().map(|wire| wire.cuts()).sum::<u64>();
    let breaking = async {
        let mut seen = cuts();
        wires.iter().for_each(|wire| wire.break_after(APART));
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while cuts() < times {
            ticks.tick().await;
            if cuts() > seen && cuts() < times {
                seen = cuts();
                wires.iter().for_each(|wire| wire.break_after(APART));
            }
        }
        std::future::pending::<()>().await;
    };
    let job = tokio::select! {
        job = mesh.ok("desk", &arguments) => job?,
        () = breaking => anyhow::bail!("the breaking never ends"),
    };
    ensure!(job["state"] == "done", "it ends done: {job:#}");
    let result = outputs(&job);
    ensure!(result.len() == 1, "one picture: {job:#}");
    let came_back = std::fs::metadata(&result[0])?.len();
    let cuts = cuts();
    // Each wire breaks when it is the one that carries the link.
    ensure!((times..=times + 1).contains(&cuts), "the link was cut {cuts} times, {times} were wanted");
    // Framing, encryption and control add a few per cent.
    let spent = relayed(mesh) - before;
    let needed = bytes + came_back;
    let allowed = needed + needed / 20 + cuts * (STREAMS + 1) * MIB;
    ensure!(
        spent <= allowed,
        "{spent} bytes went over the wire for {needed} of payload, at most {allowed} expected"
    );
    Ok(())
}

fn relayed(mesh: &Cluster) -> u64 {
    mesh.nodes().filter_map(|node| node.wire()).map(|wire| wire.relayed()).sum()
}

/// A picture that does not compress: its bytes on disk are its pixels.
fn noise_png(path: &Path, side: u32) -> Result<u64> {
    let mut pixels = vec![0; (side * side * 3) as usize];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut pixels);
    let mut encoder = png::Encoder::new(std::fs::File::create(path)?, side, side);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(std::fs::metadata(path)?.len())
}
