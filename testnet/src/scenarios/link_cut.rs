//! The link is cut in the middle of an input's transfer: it heals, and what had arrived is not sent again.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{graph_file, outputs};
use crate::cluster::{Cluster, Comfy};
use crate::workflows;

const MIB: u64 = 1 << 20;
const SIDE: u32 = 2048;

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add_wired("desk", Comfy::Absent).await?;
    mesh.add_wired("ws-01", Comfy::simulated(&[])).await?;
    mesh.found("desk", "aurora", "amber").await?;
    mesh.admit("desk", "ws-01", None).await?;
    mesh.all_up().await?;

    let picture = dir.join("plate.png");
    let bytes = noise_png(&picture)?;
    ensure!(bytes > 10 * MIB, "the plate is {bytes} bytes: too small to cut");
    // Whoever dialled, the link goes through one of the two wires: both break after four MiB.
    for name in ["desk", "ws-01"] {
        mesh.node(name).wire().context("a wired node")?.break_after(4 * MIB);
    }
    let before = relayed(mesh);
    let graph = graph_file(dir, "invert.json", &workflows::image_to_image("plate.png"))?;
    let input = format!("plate.png={}", picture.display());
    let out = dir.join("out").display().to_string();
    let job = mesh.ok("desk", &["submit", &graph, "--input", &input, "--out", &out]).await?;
    ensure!(job["state"] == "done", "it ends done: {job:#}");
    let result = outputs(&job);
    ensure!(result.len() == 1, "one picture: {job:#}");
    let came_back = std::fs::metadata(&result[0])?.len();

    let cuts: u64 =
        ["desk", "ws-01"].iter().filter_map(|name| mesh.node(name).wire()).map(|wire| wire.cuts()).sum();
    // Each wire breaks once, when it is the one that carries the link.
    ensure!((1..=2).contains(&cuts), "the link was cut {cuts} times");
    // Four streams of one segment each may be lost in a cut; framing, encryption and control add a few per cent.
    let spent = relayed(mesh) - before;
    let needed = bytes + came_back;
    let allowed = needed + needed / 20 + cuts * 5 * MIB;
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
fn noise_png(path: &Path) -> Result<u64> {
    let mut pixels = vec![0; (SIDE * SIDE * 3) as usize];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut pixels);
    let mut encoder = png::Encoder::new(std::fs::File::create(path)?, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(std::fs::metadata(path)?.len())
}
