//! Krita's plugin hands pictures in by a route of its own and takes results back by it.
//!
//! `SCENEMESH_KRITA` names the directory of the plugin, krita-ai-diffusion (a release, or a checkout with its submodules):
//! its client module is driven, with a Qt that `.ci/clients` installs where that variable is set. No registry has the
//! plugin. What it asks for is tested without it too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::CHECKPOINT;
use serde_json::{Value, json};
use tokio::process::Command;

use super::clients::{Behind, before, client, told};
use super::strangers::two;
use super::{rendered_on, tell};
use crate::comfyui_contract::subject::Ran;

const SIDE: u32 = 8;
/// For all that the plugin is made to do, on a busy processor.
const PATIENCE: Duration = Duration::from_mins(8);

/// The plugin; none, with a line, where it is not named.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn plugin() -> Option<(PathBuf, PathBuf)> {
    let Some(plugin) = std::env::var_os("SCENEMESH_KRITA") else {
        eprintln!("skipped: SCENEMESH_KRITA names no krita-ai-diffusion");
        return None;
    };
    Some((plugin.into(), client("krita")?))
}

fn krita(behind: &Behind) {
    let Some((plugin, python)) = plugin() else { return };
    tell(async |mesh| {
        let gateway = before(mesh, behind, "").await?;
        let home = mesh.node("desk").dir.with_extension("home");
        std::fs::create_dir_all(&home)?;
        let mut command = Command::new(python.join("bin/python"));
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/drive_krita.py"))
            .arg(&plugin)
            .arg(&gateway.url);
        // What the plugin generates with takes nodes that a simulated ComfyUI does not have.
        if matches!(behind, Behind::Real(_)) {
            command.arg(behind.checkpoint());
        }
        let ran = command.env("HOME", &home).current_dir(&home).kill_on_drop(true).output();
        let output =
            tokio::time::timeout(PATIENCE, ran).await.context("the plugin did not come to its end")??;
        let done = String::from_utf8_lossy(&output.stdout).contains("{\"done\": true}");
        ensure!(output.status.success() && done, "{}", told("drive_krita.py", &output));
        ensure!(behind.rendered(mesh), "{:?}", rendered_on(mesh));
        Ok(())
    });
}

#[test]
fn kritas_plugin_hands_pictures_to_and_fro() {
    krita(&Behind::Simulated(&[]));
}

#[test]
fn kritas_plugin_does_so_and_generates_before_a_real_comfyui() {
    if let Some(real) = plugin().and_then(|_| Behind::real()) {
        krita(&real);
    }
}

fn png(colour: png::ColorType, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(colour);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

fn pixels(png: &[u8]) -> Result<Vec<u8>> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("a picture of a sensible size")?];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    Ok(pixels)
}

/// What a node that keeps its pictures for `/api/etn/image` showed: ids and types.
fn kept(ran: &Ran, node: &str) -> Result<(String, String)> {
    let shown = &ran.history[&ran.id]["outputs"][node]["images"][0];
    let heard = ran.frames.iter().filter_map(|frame| frame.text());
    let mut heard = heard.filter(|text| text["type"] == "executed" && text["data"]["node"] == node);
    let heard =
        &heard.next().with_context(|| format!("node {node} was executed"))?["data"]["output"]["images"][0];
    ensure!(heard == shown && shown["source"] == "http" && shown["type"] == "output", "{shown} {heard}");
    let text = |key: &str| shown[key].as_str().map(str::to_owned).context("an id and a type");
    Ok((text("id")?, text("content-type")?))
}

#[test]
fn pictures_are_handed_in_and_results_fetched_as_kritas_plugin_does_it() {
    tell(async |mesh| {
        let (nobody, lee, park) = two(mesh, "10").await?;
        // The left half is clear; what is in a pixel says where it is.
        let places = || (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
        let pixel = |(x, y): (u32, u32)| [x as u8 * 9, y as u8 * 7, 3, if x < SIDE / 2 { 0 } else { 255 }];
        let layer = png(png::ColorType::Rgba, &places().flat_map(pixel).collect::<Vec<u8>>());
        let ramp: Vec<u8> = places().map(|(x, _)| x as u8 * 20).collect();
        let selection = png(png::ColorType::Grayscale, &ramp);
        for (id, bytes) in [("1a2b", &layer), ("3c4d", &selection)] {
            let path = format!("/api/etn/image/{id}");
            let answer = lee.put(&path, bytes).await;
            ensure!((answer.status, &answer.body) == (201, &json!({"status": "success"})), "{answer:?}");
            let answer = lee.put(&path, b"something else").await;
            ensure!((answer.status, &answer.body) == (200, &json!({"status": "cached"})), "{answer:?}");
            ensure!(lee.get(&path).await.bytes == **bytes, "what was handed in first");
            for other in [&park, &nobody] {
                let answer = other.get(&path).await;
                let gone = json!({"error": "Image not found"});
                ensure!((answer.status, &answer.body) == (404, &gone), "another's: {answer:?}");
            }
        }

        let graph = json!({
            "1": {"class_type": "ETN_LoadImageCache", "inputs": {"id": "1a2b"}},
            "2": {"class_type": "ETN_LoadImageCache", "inputs": {"id": "3c4d"}},
            "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "4": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
            "5": {"class_type": "MaskToImage", "inputs": {"mask": ["2", 1]}},
            "6": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["3", 0], "format": "PNG"}},
            "7": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["4", 0], "format": "PNG"}},
            "8": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["5", 0], "format": "PNG"}},
            "9": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["10", 0], "format": "JPEG"}},
            "10": {"class_type": "ImageInvert", "inputs": {"image": ["5", 0]}},
        });
        let ran = lee.run(&graph, false).await;
        ensure!(ran.history[&ran.id]["status"]["status_str"] == "success", "{:#}", ran.history);
        ensure!(ran.history[&ran.id]["prompt"][2] == graph, "the history has it as it was sent");
        let inverted: Vec<u8> =
            places().map(pixel).flat_map(|[r, g, b, _]| [255 - r, 255 - g, 255 - b]).collect();
        let opaque: Vec<u8> = places().map(pixel).flat_map(|[.., alpha]| [alpha; 3]).collect();
        let selected: Vec<u8> = ramp.iter().flat_map(|value| [*value; 3]).collect();
        for (node, wanted) in [("6", inverted), ("7", opaque), ("8", selected)] {
            let (id, kind) = kept(&ran, node)?;
            let path = format!("/api/etn/image/{id}");
            let answer = lee.get(&path).await;
            ensure!(
                answer.status == 200 && answer.content_type == "image/png" && kind == "image/png",
                "{node}"
            );
            ensure!(pixels(&answer.bytes)? == wanted, "node {node} came back as another picture");
            ensure!(park.get(&path).await.status == 404, "another's");
        }
        let (id, kind) = kept(&ran, "9")?;
        let answer = lee.get(&format!("/api/etn/image/{id}")).await;
        ensure!(answer.content_type == "image/jpeg" && kind == "image/jpeg", "{answer:?}");
        ensure!(answer.bytes.starts_with(b"\xff\xd8\xff"), "a JPEG");
        let events = ran.frames.iter().filter_map(|frame| frame.text()?["data"]["node"].as_str());
        let strange: Vec<&str> = events.filter(|node| graph.get(node).is_none()).collect();
        ensure!(strange.is_empty(), "nodes that the client knows nothing of: {strange:?}");

        for load in ["5e6f", "../../etc", ""] {
            let graph = json!({"1": {"class_type": "ETN_LoadImageCache", "inputs": {"id": load}},
                "2": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["1", 0], "format": "PNG"}}});
            let answer = lee.post("/prompt", &json!({"prompt": graph})).await;
            ensure!(answer.status == 400, "{load}: {answer:?}");
            let why = answer.body["error"]["details"].as_str().unwrap_or_default();
            ensure!(why.starts_with(&format!("Image with ID {load} not found")), "{why}");
            ensure!(answer.body["node_errors"]["1"]["class_type"] == "ETN_LoadImageCache", "{answer:?}");
        }
        let answer = park.post("/prompt", &json!({"prompt": graph})).await;
        ensure!(answer.status == 400, "another's pictures are not there: {answer:?}");
        let bad = lee.put("/api/etn/image/a%2Fb", b"x").await;
        ensure!(bad.status == 400, "{bad:?}");

        ensure!(lee.get("/api/etn/languages").await.body == json!([]), "nobody translates");
        for path in ["/api/etn/model_info/checkpoints?offset=0&limit=8", "/api/etn/translate/de/Hund"] {
            let answer = lee.get(path).await;
            ensure!(answer.status == 404 && answer.body["error"] != Value::Null, "{answer:?}");
        }
        let known = lee.put(&format!("/api/etn/upload/checkpoints/{CHECKPOINT}"), b"x").await;
        ensure!(known.body == json!({"status": "cached"}), "{known:?}");
        let taken = lee.put("/api/etn/upload/loras/mine.safetensors", b"x").await;
        ensure!(taken.status == 403 && taken.body["error"].is_string(), "{taken:?}");
        Ok(())
    });
}
