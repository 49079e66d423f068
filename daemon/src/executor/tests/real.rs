//! Against the real ComfyUI named by SCENEMESH_COMFYUI_URL; the KSampler tests also need `tiny_sd15.safetensors`
//! among its checkpoints (any SD 1.x checkpoint of that name will do).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::task::{FailureClass, ModelName};
use serde_json::json;

use super::*;

const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Skips with a line where no ComfyUI is given: SCENEMESH_REQUIRE asks for tools, and nobody can install a GPU server.
fn endpoint() -> Option<EndpointConfig> {
    if let Ok(url) = std::env::var("SCENEMESH_COMFYUI_URL") {
        return Some(EndpointConfig { url, ..EndpointConfig::default() });
    }
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("skipped: SCENEMESH_COMFYUI_URL is not set");
    }
    None
}

async fn bench() -> Option<(Bench, SlotView)> {
    let bench = Bench::attached(EndpointConfig { ..endpoint()? }).await;
    let view = bench.ready().await;
    Some((bench, view))
}

fn invert(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 2, "color": color}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "shots/scene_001"}},
    })
}

fn ksampler(steps: u32, seed: u64) -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"cfg": 7.5, "denoise": 1, "latent_image": ["5", 0],
            "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0], "sampler_name": "euler",
            "scheduler": "normal", "seed": seed, "steps": steps}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_sd15.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a lighthouse at dusk"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "blurry"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "key", "images": ["8", 0]}},
    })
}

/// All files under ComfyUI's folders with their sizes, when it tells where it lives. Others may use the same
/// ComfyUI meanwhile, so only what has our mark, or was not there before, is compared.
async fn traces(url: &str) -> Vec<PathBuf> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let listed: Value =
        client.get(format!("{url}/internal/folder_paths")).send().await.unwrap().json().await.unwrap();
    let nodes = Path::new(listed["custom_nodes"][0].as_str().unwrap()).to_path_buf();
    let base = nodes.parent().unwrap();
    ["input", "output", "temp"].iter().flat_map(|folder| files_under(&base.join(folder))).collect()
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { [vec![path.clone()], files_under(&path)].concat() } else { vec![path] }
        })
        .collect()
}

async fn left_by(bench: &Bench, view: &SlotView) -> Vec<PathBuf> {
    let all = traces(&view.url).await.into_iter();
    all.filter(|path| path.to_string_lossy().contains(&bench.owner)).collect()
}

async fn history_mentions(url: &str, task: TaskId) -> bool {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let history = client.get(format!("{url}/history")).send().await.unwrap().text().await.unwrap();
    history.contains(&task.short())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_graph_renders_and_leaves_no_trace() {
    let Some((mut bench, view)) = bench().await else { return };
    assert_eq!(view.hygiene, Hygiene::Full, "the folders of a ComfyUI on this machine are reachable");
    assert!(view.inventory.has_class("KSampler") && !view.comfyui_version.is_empty());
    assert!(!view.devices.is_empty());

    let run = run_of(&invert(0x0033_66aa));
    bench.executor.preflight(SlotId(0), &run.graph, &[]).unwrap();
    let task = run.task;
    let story = bench.perform(run).await;
    assert_eq!(story.started, 1);
    let (outputs, left) = story.done();
    let names: Vec<&str> = outputs.iter().map(|output| output.filename.as_str()).collect();
    assert_eq!(names, ["scene_001_00001_.png", "scene_001_00002_.png"]);
    assert_eq!(left, Vec::new());
    for output in &outputs {
        let bytes = bench.open(output).await;
        assert!(bytes.starts_with(&PNG) && bytes.len() as u64 == output.bytes);
    }
    assert!(!history_mentions(&view.url, task).await);
    assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_picture_comes_back_inverted_and_its_upload_is_gone() {
    let Some((mut bench, view)) = bench().await else { return };
    let (picture, _) = bench.perform(run_of(&invert(0))).await.done();
    let bytes = bench.open(&picture[0]).await;
    let input = bench.seal("my plate.png", &bytes).await;
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "my plate.png"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    });
    // Twice: a second run must not be answered from a cache whose files are gone.
    for _ in 0..2 {
        let run = Run { inputs: vec![input.clone()], ..run_of(&graph) };
        let task = run.task;
        let (outputs, left) = bench.perform(run).await.done();
        assert_eq!((outputs.len(), left), (1, Vec::new()));
        assert!(bench.open(&outputs[0]).await.starts_with(&PNG));
        assert!(!history_mentions(&view.url, task).await);
        let left = traces(&view.url).await;
        assert!(
            !left.iter().any(|path| path.ends_with(&outputs[0].filename)),
            "the temp file is gone: {left:?}"
        );
        assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_shows_steps_and_previews() {
    let Some((mut bench, view)) = bench().await else { return };
    let checkpoint = ModelName::new("checkpoints", "tiny_sd15.safetensors");
    assert!(view.inventory.has_model(&checkpoint), "tiny_sd15.safetensors is there");
    let seed = u64::from(std::process::id());
    let story = bench.perform(Run { previews: true, ..run_of(&ksampler(8, seed)) }).await;
    let steps: BTreeMap<u32, u32> = story
        .progress
        .iter()
        .filter(|(node, _, max, ..)| node == "3" && *max == 8)
        .map(|p| (p.1, p.4))
        .collect();
    assert!(steps.len() >= 7, "steps seen: {steps:?}, {:?}", story.outcome);
    assert!(steps.values().all(|total| *total == 7));
    assert!(story.previews.iter().any(|(format, bytes)| format.starts_with("image/") && bytes.len() > 100));
    assert_eq!(story.done().0.len(), 1);
    let view = bench.ready().await;
    bench.until(|view| view.warm.contains(&checkpoint)).await;
    assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_stops_the_sampler_and_cleans_up() {
    let Some((mut bench, view)) = bench().await else { return };
    let run = run_of(&ksampler(300, 7 + u64::from(std::process::id())));
    let task = run.task;
    bench.executor.run(run).await.unwrap();
    while !matches!(bench.next().await, Event::Progress { max: 300, .. }) {}
    let asked = tokio::time::Instant::now();
    bench.executor.cancel(task, 1).await;
    let failure = bench.story().await.failed();
    assert_eq!(failure.class, FailureClass::Cancelled);
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    assert!(!history_mentions(&view.url, task).await);
    assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_raises_is_told_with_its_name() {
    let Some((mut bench, view)) = bench().await else { return };
    let input = bench.seal("broken.png", b"not a picture").await;
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let failure = bench.perform(Run { inputs: vec![input], ..run_of(&graph) }).await.failed();
    assert_eq!(failure.class, FailureClass::Execution);
    assert!(failure.detail.starts_with("node 1 (LoadImage): "), "{failure}");
    assert!(!failure.detail.contains("/input/"), "no directories of the renderer: {failure}");
    assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn video_audio_free_outputs_and_streamed_pictures_come_too() {
    let Some((mut bench, view)) = bench().await else { return };
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 8, "color": 7}},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}},
        "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "video/clip",
            "format": "auto", "codec": "auto"}},
        "4": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["1", 0], "filename_prefix": "anim", "fps": 8.0,
            "lossless": false, "quality": 80, "method": "default"}},
        "5": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    });
    let mut graph = graph;
    let with_video = view.inventory.has_class("SaveVideo");
    if !with_video {
        // The simulated ComfyUI encodes no video.
        graph.as_object_mut().unwrap().retain(|id, _| id != "2" && id != "3");
    }
    let story = bench.perform(Run { full_hygiene: true, ..run_of(&graph) }).await;
    let (outputs, left) = story.done();
    assert_eq!(left, Vec::new());
    let of = |node: &str| outputs.iter().filter(|output| output.node == node).collect::<Vec<_>>();
    assert!(!with_video || of("3")[0].filename == "clip_00001_.mp4");
    assert_eq!(of("4")[0].filename, "anim_00001_.webp");
    assert_eq!(of("5").len(), 8);
    assert!(bench.open(of("5")[7]).await.starts_with(&PNG));
    assert_eq!(left_by(&bench, &view).await, Vec::<PathBuf>::new());
    bench.stop().await;
}
