//! A mesh of two studios, words that must not be found where they do not belong, and where to look for them.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::graph_file;
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

/// In the prompt.
pub(crate) const PROMPT: &str = "canaryprompt a red kite over the harbour";
/// The name of an input file.
pub(crate) const PLATE: &str = "canaryplate_sq010.png";
/// Inside the input file, and in what an output of it holds.
pub(crate) const PIXELS: &str = "canarypixels in the middle of a picture";
/// What outputs are called.
pub(crate) const SHOT: &str = "canaryshot_sq010";
/// The operating system's user under whom a daemon runs: the person in its books.
pub(crate) const PERSON: &str = "canaryperson";
/// What the job is called.
pub(crate) const JOB: &str = "canaryjob";

pub(crate) type Story<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Runs a story in a directory of its own.
pub(crate) fn tell(programs: Programs, story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path) -> Story<'a>) {
    story::tell(programs, async |mesh, dir| story(mesh, dir).await).unwrap();
}

pub(crate) fn programs() -> Programs {
    Programs::at(env!("CARGO_BIN_EXE_testnet")).with("USER", PERSON)
}

/// `desk` of studio amber submits, `birch-01` of studio birch renders.
pub(crate) async fn desk_and_renderer(mesh: &mut Cluster, simulated: &[&str]) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("birch-01", Comfy::simulated(simulated)).await?;
    mesh.found("desk", "aurora", "amber").await?;
    mesh.admit("desk", "birch-01", Some("birch")).await?;
    mesh.all_up().await?;
    mesh.advert_seen("desk", "birch-01").await
}

/// A picture with [`PIXELS`] in a text chunk, as cameras and paint programs write them.
pub(crate) fn plate(path: &Path, side: u32) -> Result<()> {
    let mut encoder = png::Encoder::new(File::create(path)?, side, side);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::NoCompression);
    encoder.add_text_chunk("comment".to_owned(), PIXELS.to_owned())?;
    let mut writer = encoder.write_header()?;
    let pixels: Vec<u8> = (0..side * side * 3).map(|at| (at % 251) as u8).collect();
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(())
}

/// A keyframe of `steps` steps, with an upload and a preview on disk beside it: something in every folder.
pub(crate) fn graph(steps: u32) -> Value {
    let mut graph = workflows::keyframe(CHECKPOINT, 42, steps, 64);
    graph["6"]["inputs"]["text"] = json!(PROMPT);
    graph["9"]["inputs"]["filename_prefix"] = json!(SHOT);
    graph["20"] = json!({"class_type": "LoadImage", "inputs": {"image": PLATE}});
    graph["21"] =
        json!({"class_type": "SaveImage", "inputs": {"images": ["20", 0], "filename_prefix": SHOT}});
    graph["22"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}});
    graph
}

/// Submits [`graph`] with its plate from the desk, and gives the job.
pub(crate) async fn submit(mesh: &Cluster, dir: &Path, graph: &Value, more: &[&str]) -> Result<String> {
    let picture = dir.join("plate.png");
    if !picture.exists() {
        plate(&picture, 96)?;
    }
    let file = graph_file(dir, &format!("{JOB}.json"), graph)?;
    let input = format!("{PLATE}={}", picture.display());
    let arguments = [&["submit", &file, "--reach", "pool", "--detach", "--input", &input], more].concat();
    let job = mesh.ok("desk", &arguments).await?;
    Ok(job["job"].as_str().context("a job has an id")?.to_owned())
}

pub(crate) fn samples(job: &Value) -> bool {
    job["tasks"][0]["progress"]["step"].as_u64() > Some(1)
        && job["tasks"][0]["progress"]["max"].as_u64() > Some(1)
}

/// All that lies below a directory, directories included.
pub(crate) fn everything_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        }
        found.insert(path);
    }
    found
}

/// What the test put beside a daemon's own files: its configuration, its log, and the ComfyUI's.
pub(crate) fn is_the_tests_own(dir: &Path, path: &Path) -> bool {
    let first = path.strip_prefix(dir).unwrap().components().next().unwrap();
    let name = first.as_os_str().to_string_lossy();
    name.starts_with("comfyui") || matches!(&*name, "scenemesh.toml" | "daemon.log")
}

/// Files of a data directory that hold a word, as it is or in the hex and base64 that text formats use.
pub(crate) fn holding(dir: &Path, word: &str) -> Vec<PathBuf> {
    let paths =
        everything_below(dir).into_iter().filter(|path| path.is_file() && !is_the_tests_own(dir, path));
    paths.filter(|path| holds(&std::fs::read(path).unwrap_or_default(), word)).collect()
}

pub(crate) fn holds(bytes: &[u8], word: &str) -> bool {
    let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    [word.as_bytes(), hex.as_bytes()]
        .iter()
        .any(|needle| bytes.windows(needle.len()).any(|window| window == *needle))
}

/// Fails when one of the words is in a file of this data directory.
pub(crate) fn holds_none(dir: &Path, words: &[&str], when: &str) -> Result<()> {
    for word in words {
        let found = holding(dir, word);
        ensure!(found.is_empty(), "{when}, {word:?} lies in {found:?}");
    }
    Ok(())
}
