//! A mesh beside a real ComfyUI: a machine without one gets its pictures, the same as if it had been asked directly,
//! and ComfyUI is afterwards as it was.
//!
//! `SCENEMESH_COMFYUI_URL` names one that nobody else uses meanwhile, with the checkpoint [`CHECKPOINT`] (any small
//! SD 1.x one of that name will do). Pictures are compared with those of `SCENEMESH_COMFYUI_URL_2`, which is asked
//! directly and keeps what it rendered. Without them a check says that it is skipped.
//!
//! What a task leaves is looked for where it can be seen: `/history`, `/queue`, every file below `input`, `output` and
//! `temp`, and the execution cache, by running the task's own nodes again on that ComfyUI and reading which of them
//! `execution_cached` names. The memory of its process is searched for the prompt and the number of copies told, not
//! judged: an interpreter does not overwrite what it frees.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]
#![expect(clippy::print_stderr, reason = "a skipped check says so")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Cluster, Comfy};
use scenemesh_testnet::eventually::{eventually, eventually_within};
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::{graph_file, nodes_of, outputs, png_pixels};
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

const CHECKPOINT: &str = "tiny_sd15.safetensors";
/// How long a render may take on a busy processor.
const PATIENCE: Duration = Duration::from_mins(4);
/// Enough sampling steps to be seen by somebody who asks now and then.
const STEPS: u32 = 60;
/// More sampling steps than anybody waits for.
const ENDLESS: u32 = 2000;

/// The ComfyUI beside the renderer, and the one that is asked directly.
struct Given {
    beside: Server,
    direct: Option<Server>,
    /// A server has one queue; checks take turns, those of the contract suite too.
    _turn: File,
}

struct Server {
    url: String,
    http: reqwest::Client,
}

/// Whatever a render could leave in a ComfyUI.
#[derive(Debug, PartialEq)]
struct Traces {
    history: Value,
    queue: Value,
    /// Below `input`, `output` and `temp`; empty where the folders are out of reach.
    files: BTreeSet<PathBuf>,
}

impl Server {
    fn named_by(variable: &str) -> Option<Self> {
        let url = std::env::var(variable).ok()?.trim_end_matches('/').to_owned();
        Some(Self { url, http: reqwest::Client::builder().no_proxy().build().unwrap() })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        answer.error_for_status()?.json().await.with_context(|| format!("GET {path} of {}", self.url))
    }

    async fn traces(&self) -> Result<Traces> {
        let mut files = BTreeSet::new();
        let stats = self.get("/system_stats").await?;
        match base_directory(&stats) {
            Some(base) => {
                for folder in ["input", "output", "temp"] {
                    collect(&base.join(folder), &mut files);
                }
            }
            None => {
                eprintln!("skipped: the folders of {} are out of reach, so they are not compared", self.url);
            }
        }
        Ok(Traces { history: self.get("/history").await?, queue: self.get("/queue").await?, files })
    }

    /// Renders a graph as any client would, from an empty cache, and keeps its picture in `to`.
    async fn render(&self, graph: &Value, to: &Path) -> Result<()> {
        // The cache holds what the last prompt used.
        self.run(&workflows::tiny(colour())).await?;
        let entry = self.run(graph).await?;
        let messages = entry["status"]["messages"].as_array().context("messages in the history")?;
        let cached = messages.iter().find(|message| message[0] == "execution_cached");
        ensure!(cached.is_some_and(|said| said[1]["nodes"] == json!([])), "nothing was cached: {messages:?}");
        let images = entry["outputs"].as_object().into_iter().flat_map(|nodes| nodes.values());
        let image = images.map(|node| &node["images"][0]).next().context("an image in the history")?;
        let part = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
        let query = ["filename", "subfolder", "type"].map(|name| (name, part(name)));
        let picture = self.http.get(format!("{}/view", self.url)).query(&query).send().await?;
        Ok(std::fs::write(to, picture.error_for_status()?.bytes().await?)?)
    }

    /// Runs a prompt to its end and gives its history entry.
    async fn run(&self, graph: &Value) -> Result<Value> {
        let posted = self.http.post(format!("{}/prompt", self.url)).json(&json!({"prompt": graph}));
        let accepted: Value = posted.send().await?.error_for_status()?.json().await?;
        let id = accepted["prompt_id"].as_str().context("a prompt id")?;
        eventually_within(PATIENCE, "the direct render ends", || async {
            let mut history = self.get(&format!("/history/{id}")).await?;
            let entry = history[id].take();
            ensure!(
                entry.is_null() || entry["status"]["status_str"] == "success",
                "it fails: {}",
                entry["status"]
            );
            Ok(if entry.is_null() { Err("not in the history yet") } else { Ok(entry) })
        })
        .await
    }

    /// Nodes of a graph that this server answers from its cache. What that leaves behind is removed.
    async fn cached(&self, graph: &Value) -> Result<Vec<String>> {
        let entry = self.run(graph).await?;
        let messages = entry["status"]["messages"].as_array().context("messages in the history")?;
        let cached = messages.iter().find(|message| message[0] == "execution_cached");
        let nodes = cached.and_then(|said| said[1]["nodes"].as_array()).context("what was cached")?;
        let forget = json!({"delete": [entry["prompt"][1]]});
        self.http.post(format!("{}/history", self.url)).json(&forget).send().await?.error_for_status()?;
        let base = base_directory(&self.get("/system_stats").await?).context("a base directory")?;
        for file in entry["outputs"].as_object().into_iter().flat_map(|nodes| nodes.values()) {
            for image in file["images"].as_array().into_iter().flatten() {
                let part = |name: &str| image[name].as_str().unwrap_or_default();
                std::fs::remove_file(base.join(part("type")).join(part("subfolder")).join(part("filename")))?;
            }
        }
        Ok(nodes.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// How often a word that ends with its only `|` is in the writable memory of this server's process; `None` where
    /// that is not to be had.
    fn times_in_memory(&self, word: &str) -> Option<usize> {
        let port = self.url.rsplit(':').next()?;
        let wanted = format!("--port\0{port}\0");
        let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
        let process = processes.into_iter().find(|process| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&wanted)
        })?;
        let maps = std::fs::read_to_string(process.join("maps")).ok()?;
        let mut times = 0;
        for map in maps.lines().filter(|map| map.contains(" rw")) {
            let (from, to) = map.split_once(' ')?.0.split_once('-')?;
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16));
            let (from, to) = (from.ok()?, to.ok()?);
            let mut memory = File::open(process.join("mem")).ok()?;
            memory.seek(SeekFrom::Start(from)).ok()?;
            let mut memory = BufReader::with_capacity(1 << 20, memory.take(to - from));
            let mut piece = Vec::new();
            // Some regions are not backed by anything and end the reading.
            while memory.read_until(b'|', &mut piece).is_ok_and(|read| read > 0) {
                times += usize::from(piece.ends_with(word.as_bytes()));
                piece.clear();
            }
        }
        Some(times)
    }

    /// Ends what a failed story has left running.
    async fn stop(&self) -> Result<()> {
        self.http.post(format!("{}/queue", self.url)).json(&json!({"clear": true})).send().await?;
        self.http.post(format!("{}/interrupt", self.url)).json(&json!({})).send().await?;
        eventually_within(PATIENCE, "it stops", || async {
            let queue = self.get("/queue").await?;
            Ok(if idle(&queue) { Ok(()) } else { Err("it runs") })
        })
        .await
    }

    async fn upload(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new().part("image", part);
        let sent = self.http.post(format!("{}/upload/image", self.url)).multipart(form).send().await?;
        sent.error_for_status()?;
        Ok(())
    }
}

fn idle(queue: &Value) -> bool {
    queue["queue_running"] == json!([]) && queue["queue_pending"] == json!([])
}

/// Where a ComfyUI of this machine keeps its folders, when its command line says so.
fn base_directory(stats: &Value) -> Option<PathBuf> {
    let argv = stats["system"]["argv"].as_array()?;
    let at = argv.iter().position(|argument| argument == "--base-directory")?;
    argv.get(at + 1)?.as_str().map(PathBuf::from).filter(|base| base.is_dir())
}

fn collect(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        }
        found.insert(path);
    }
}

/// A number that no earlier run has used: servers remember.
fn fresh() -> u64 {
    RandomState::new().hash_one(0) >> 12
}

fn colour() -> u32 {
    u32::try_from(fresh() % 0x100_0000).unwrap()
}

/// A picture that no earlier run has used.
fn plate(path: &Path) -> Result<Vec<u8>> {
    let (width, height, shift) = (96_u32, 64_u32, fresh());
    let pixel = |at: u64| [at, at >> 8, at ^ shift].map(|part| (part % 251) as u8);
    let pixels: Vec<u8> = (0..u64::from(width * height)).flat_map(|at| pixel(at * 97 + shift)).collect();
    let mut encoder = png::Encoder::new(File::create(path)?, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(std::fs::read(path)?)
}

type Story<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Runs a story beside a real ComfyUI, if one is given, and compares its traces from before and after.
fn tell(story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path, &'a Given) -> Story<'a>) {
    let Some(beside) = Server::named_by("SCENEMESH_COMFYUI_URL") else {
        eprintln!("skipped: SCENEMESH_COMFYUI_URL is not set");
        return;
    };
    let direct = Server::named_by("SCENEMESH_COMFYUI_URL_2");
    let lock = std::env::temp_dir().join("scenemesh-comfyui-contract.lock");
    let turn = File::options().create(true).append(true).open(lock).unwrap();
    turn.lock().unwrap();
    let given = Given { beside, direct, _turn: turn };
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(async {
        // Some of its classes make folders when they are first asked for their definition, by whomever.
        given.beside.get("/object_info").await?;
        let before = given.beside.traces().await?;
        ensure!(idle(&before.queue), "nobody else uses {} meanwhile: {}", given.beside.url, before.queue);
        let mut mesh = Cluster::new(Programs::at(env!("CARGO_BIN_EXE_testnet")), dir.path());
        let told = async {
            desk_and_renderer(&mut mesh, &given.beside.url).await?;
            story(&mut mesh, dir.path(), &given).await?;
            // A cancelled render is cancelled before it is cleaned up.
            eventually("ComfyUI is as it was", || async {
                let after = given.beside.traces().await?;
                Ok(if after == before { Ok(()) } else { Err(after) })
            })
            .await
        };
        let told = told.await;
        if told.is_err() {
            given.beside.stop().await?;
        }
        told.map_err(|error| error.context(mesh.last_words()))
    });
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

async fn desk_and_renderer(mesh: &mut Cluster, url: &str) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("birch-01", Comfy::At(url.to_owned())).await?;
    mesh.found("desk", "aurora", "amber").await?;
    mesh.admit("desk", "birch-01", Some("birch")).await?;
    mesh.all_up().await
}

/// Submits with `--detach` and gives the job's id.
async fn submit(mesh: &Cluster, graph: &str, more: &[&str]) -> Result<String> {
    let arguments = [&["submit", graph, "--reach", "pool", "--detach"], more].concat();
    let job = mesh.ok("desk", &arguments).await?;
    Ok(job["job"].as_str().context("a job has an id")?.to_owned())
}

/// Waits until a job satisfies `good`, and gives its JSON.
async fn until(mesh: &Cluster, job: &str, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually_within(PATIENCE, what, || async {
        let shown = mesh.ok("desk", &["show", job]).await?;
        let over = ["failed", "cancelled"].iter().any(|state| shown["state"] == *state);
        ensure!(good(&shown) || !over, "the job ended otherwise: {shown:#}");
        Ok(if good(&shown) { Ok(shown) } else { Err(shown) })
    })
    .await
}

fn samples(job: &Value) -> bool {
    job["tasks"][0]["progress"]["step"].as_u64() > Some(1)
        && job["tasks"][0]["progress"]["max"] == u64::from(ENDLESS)
}

/// Submits, waits, fetches, and gives the pictures.
async fn rendered(mesh: &Cluster, dir: &Path, graph: &str, more: &[&str]) -> Result<Vec<PathBuf>> {
    let job = submit(mesh, graph, more).await?;
    let done = until(mesh, &job, "it is rendered", |job| job["state"] == "done").await?;
    ensure!(nodes_of(&done).iter().all(|node| node == "birch-01"), "birch-01 rendered it: {done:#}");
    fetched(mesh, dir, &job).await
}

async fn fetched(mesh: &Cluster, dir: &Path, job: &str) -> Result<Vec<PathBuf>> {
    let out = dir.join("out").display().to_string();
    Ok(outputs(&mesh.ok("desk", &["fetch", job, "--out", &out]).await?))
}

/// A picture that came through the mesh shows what the second ComfyUI makes of the same graph.
async fn same_as_direct(given: &Given, dir: &Path, picture: &Path, graph: &Value) -> Result<()> {
    let Some(direct) = &given.direct else {
        eprintln!("skipped: SCENEMESH_COMFYUI_URL_2 is not set, so the pixels are not compared");
        return Ok(());
    };
    let expected = dir.join("direct.png");
    direct.render(graph, &expected).await?;
    let (ours, theirs) = (png_pixels(picture)?, png_pixels(&expected)?);
    ensure!(ours == theirs, "the same pixels: {ours:?}, {theirs:?}");
    Ok(())
}

#[test]
fn a_picture_without_a_model() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let graph = workflows::tiny(colour());
            let file = graph_file(dir, "tiny.json", &graph)?;
            let pictures = rendered(mesh, dir, &file, &[]).await?;
            ensure!(pictures.len() == 1, "one picture: {pictures:?}");
            same_as_direct(given, dir, &pictures[0], &graph).await
        })
    });
}

#[test]
fn an_uploaded_picture() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let path = dir.join("plate.png");
            let bytes = plate(&path)?;
            let name = format!("plate {}.png", fresh());
            let graph = workflows::image_to_image(&name);
            let file = graph_file(dir, "invert.json", &graph)?;
            let input = format!("{name}={}", path.display());
            let pictures = rendered(mesh, dir, &file, &["--input", &input]).await?;
            ensure!(pictures.len() == 1, "one picture: {pictures:?}");
            ensure!(png_pixels(&pictures[0])?.2 != png_pixels(&path)?.2, "it is inverted");
            if let Some(direct) = &given.direct {
                direct.upload(&name, bytes).await?;
            }
            same_as_direct(given, dir, &pictures[0], &graph).await
        })
    });
}

#[test]
fn two_keyframes_step_by_step() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let seed = fresh();
            let file = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, seed, STEPS, 64))?;
            let job = submit(mesh, &file, &["--count", "2"]).await?;
            let seen = RefCell::new(BTreeSet::new());
            let done = until(mesh, &job, "both are rendered", |job| {
                for task in job["tasks"].as_array().into_iter().flatten() {
                    let progress = &task["progress"];
                    if progress["max"] == u64::from(STEPS) {
                        seen.borrow_mut().insert((task["index"].as_u64(), progress["step"].as_u64()));
                    }
                }
                job["state"] == "done"
            })
            .await?;
            let seen = seen.into_inner();
            ensure!(seen.len() >= 6, "steps of sampling were seen: {seen:?}");
            ensure!(done["tasks"][0]["usage"]["exec_ms"].as_u64() > Some(0), "it took time: {done:#}");
            let pictures = fetched(mesh, dir, &job).await?;
            ensure!(pictures.len() == 2, "two pictures: {pictures:?}");
            for (at, picture) in (0..).zip(&pictures) {
                let graph = workflows::keyframe(CHECKPOINT, seed + at, STEPS, 64);
                same_as_direct(given, dir, picture, &graph).await?;
            }
            Ok(())
        })
    });
}

#[test]
fn a_preview_while_it_samples() {
    tell(|mesh, dir, _| {
        Box::pin(async move {
            let file = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, fresh(), STEPS, 64))?;
            let (preview, out) = (dir.join("preview.jpg"), dir.join("out"));
            let (preview, out) = (preview.display().to_string(), out.display().to_string());
            let arguments = ["submit", &file, "--reach", "pool", "--preview", &preview, "--out", &out];
            let job = mesh.ok("desk", &arguments).await?;
            ensure!(job["state"] == "done" && outputs(&job).len() == 1, "it is rendered: {job:#}");
            let bytes = std::fs::read(&preview).context("a preview was kept")?;
            let is_picture = bytes.starts_with(b"\xff\xd8\xff") || bytes.starts_with(b"\x89PNG");
            ensure!(is_picture && bytes.len() > 100, "it is a picture of {} bytes", bytes.len());
            Ok(())
        })
    });
}

#[test]
fn cancelled_while_it_samples() {
    tell(|mesh, dir, _| {
        Box::pin(async move {
            let file = graph_file(dir, "long.json", &workflows::keyframe(CHECKPOINT, fresh(), ENDLESS, 64))?;
            let job = submit(mesh, &file, &[]).await?;
            until(mesh, &job, "it samples", samples).await?;
            mesh.ok("desk", &["cancel", &job]).await?;
            until(mesh, &job, "it is cancelled", |job| job["state"] == "cancelled").await?;
            // The renderer is free for the next one.
            let file = graph_file(dir, "tiny.json", &workflows::tiny(colour()))?;
            rendered(mesh, dir, &file, &[]).await.map(drop)
        })
    });
}

/// Whoever sits at the machine wants its GPU.
#[test]
fn given_back_while_it_samples() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let file = graph_file(dir, "long.json", &workflows::keyframe(CHECKPOINT, fresh(), ENDLESS, 64))?;
            let job = submit(mesh, &file, &[]).await?;
            until(mesh, &job, "it samples", samples).await?;
            let back = mesh.ok("birch-01", &["lend", "now"]).await?;
            let slot = &back["slots"][0];
            eprintln!("given back in {} ms: {}", back["last"]["took_ms"], slot["words"]);
            ensure!(back["last"]["took_ms"].as_u64() <= Some(10_000), "within ten seconds: {back:#}");
            // A processor has no video memory to tell of.
            let stats = given.beside.get("/system_stats").await?;
            let expected = if stats["devices"][0]["type"] == "cpu" { "unverified" } else { "free" };
            ensure!(back["state"] == "back" && slot["state"] == expected, "{back:#}");
            let waits = until(mesh, &job, "it waits again", |job| job["state"] == "queued").await?;
            ensure!(waits["tasks"][0]["failures"][0]["class"] == "owner_returned", "{waits:#}");
            mesh.ok("desk", &["cancel", &job]).await?;
            mesh.ok("birch-01", &["lend", "on"]).await.map(drop)
        })
    });
}

/// The daemon loses power while its ComfyUI goes on: it comes back to the same prompt, and renders it once.
#[test]
fn a_daemon_killed_while_it_samples_takes_its_prompt_up_again() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let steps = 40;
            let graph = workflows::keyframe(CHECKPOINT, fresh(), steps, 64);
            let file = graph_file(dir, "key.json", &graph)?;
            let job = submit(mesh, &file, &[]).await?;
            until(mesh, &job, "it samples", |job| {
                job["tasks"][0]["progress"]["max"] == u64::from(steps)
                    && job["tasks"][0]["progress"]["step"].as_u64() > Some(1)
            })
            .await?;
            mesh.kill("birch-01").await?;
            let queue = given.beside.get("/queue").await?;
            let prompt = queue["queue_running"][0][1].as_str().context("it still runs")?.to_owned();
            mesh.start("birch-01").await?;
            let done = until(mesh, &job, "it is rendered", |job| job["state"] == "done").await?;
            ensure!(done["tasks"][0]["attempts"] == 1, "at the first attempt, prompt {prompt}: {done:#}");
            let pictures = fetched(mesh, dir, &job).await?;
            same_as_direct(given, dir, &pictures[0], &graph).await
        })
    });
}

/// Nobody wants the render any more when the daemon comes back: ComfyUI is stopped and cleaned.
#[test]
fn a_render_that_nobody_wants_is_swept_after_a_power_cut() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let path = dir.join("plate.png");
            plate(&path)?;
            let mut graph = workflows::keyframe(CHECKPOINT, fresh(), ENDLESS, 64);
            // With an upload and a preview on disk, so that there is something in every folder.
            graph["20"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
            graph["21"] = json!({"class_type": "SaveImage", "inputs": {"images": ["20", 0], "filename_prefix": "plate"}});
            graph["22"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}});
            let file = graph_file(dir, "long.json", &graph)?;
            let input = format!("plate.png={}", path.display());
            let job = submit(mesh, &file, &["--input", &input]).await?;
            until(mesh, &job, "it samples", samples).await?;
            mesh.kill("birch-01").await?;
            mesh.ok("desk", &["cancel", &job]).await?;
            until(mesh, &job, "it is cancelled", |job| job["state"] == "cancelled").await?;
            mesh.start("birch-01").await?;
            let began = tokio::time::Instant::now();
            eventually_within(PATIENCE, "the prompt is interrupted", || async {
                let queue = given.beside.get("/queue").await?;
                Ok(if idle(&queue) { Ok(()) } else { Err("it runs") })
            })
            .await?;
            eprintln!("interrupted {:.1} s after the daemon answered", began.elapsed().as_secs_f64());
            Ok(())
        })
    });
}

/// A prompt encoded, and a picture shown in `temp`: all that can be in a cache without sampling.
fn of_prompt(words: &str, color: u32) -> Value {
    json!({
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["4", 1]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}},
        "8": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
    })
}

#[test]
fn full_hygiene_leaves_nothing_in_the_cache_either() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            // First without: what is looked for can be found.
            let graph = of_prompt(&format!("canary {} of a finch", fresh()), colour());
            let file = graph_file(dir, "first.json", &graph)?;
            rendered(mesh, dir, &file, &[]).await?;
            let cached = given.beside.cached(&graph).await?;
            ensure!(cached.contains(&"6".to_owned()), "the encoded prompt is in the cache: {cached:?}");

            let words = format!("canary {} of a red kite|", fresh());
            let graph = of_prompt(&words, colour());
            let file = graph_file(dir, "key.json", &graph)?;
            let began = tokio::time::Instant::now();
            let job = submit(mesh, &file, &["--full-hygiene"]).await?;
            let done = until(mesh, &job, "it is rendered", |job| job["state"] == "done").await?;
            eprintln!("rendered and wiped in {:.2} s", began.elapsed().as_secs_f64());
            let wipe = &done["tasks"][0]["wipes"][0];
            let left = wipe["left"].as_object().context("what is left")?;
            ensure!(left.values().all(|count| *count == 0), "nothing is left: {wipe:#}");
            ensure!(wipe["wiped"]["cache"] == 1 && wipe["wiped"]["history"] == 1, "it is wiped: {wipe:#}");
            ensure!(wipe["wiped"]["temp"] == 1, "the preview too: {wipe:#}");
            match given.beside.times_in_memory(&words) {
                Some(times) => {
                    eprintln!("the interpreter has not yet overwritten {times} copies of the prompt");
                }
                None => eprintln!("skipped: the memory of {} cannot be read", given.beside.url),
            }
            let cached = given.beside.cached(&graph).await?;
            ensure!(cached.is_empty(), "nothing of it is in the cache: {cached:?}");
            Ok(())
        })
    });
}

#[test]
fn a_killed_daemon_empties_the_cache_at_its_next_start() {
    tell(|mesh, dir, given| {
        Box::pin(async move {
            let words = format!("canary {} of a heron", fresh());
            let mut graph = workflows::keyframe(CHECKPOINT, fresh(), ENDLESS, 64);
            graph["6"]["inputs"]["text"] = json!(words);
            let file = graph_file(dir, "long.json", &graph)?;
            let job = submit(mesh, &file, &["--full-hygiene"]).await?;
            until(mesh, &job, "it samples", samples).await?;
            mesh.kill("birch-01").await?;
            mesh.ok("desk", &["cancel", &job]).await?;
            mesh.start("birch-01").await?;
            eventually_within(PATIENCE, "its prompt and its files are gone", || async {
                let traces = given.beside.traces().await?;
                let ours = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "scenemesh");
                let history = traces.history.as_object().into_iter().flat_map(|entries| entries.values());
                let remembered =
                    history.filter(|entry| entry["prompt"][3].get("scenemesh").is_some()).count();
                let clean = idle(&traces.queue) && remembered == 0 && !traces.files.iter().any(ours);
                Ok(if clean { Ok(()) } else { Err(traces) })
            })
            .await?;
            // Its model and its prompts would be in the cache, had they been left.
            let cached = given.beside.cached(&of_prompt(&words, colour())).await?;
            ensure!(cached.is_empty(), "nothing of it is in the cache: {cached:?}");
            Ok(())
        })
    });
}
