//! rucomfyui, a client in Rust that reads every answer strictly: what it cannot read it takes for a failure.

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use rucomfyui::execute::PreviewImageFormat;
use rucomfyui::models::ModelCategory;
use rucomfyui::upload::UploadType;
use rucomfyui::{Client, Event, Workflow};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::workflows;

use super::clients::{Behind, before};
use super::{rendered_on, tell};

/// A PNG of one pixel.
const PIXEL: &[u8] = b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90\x77\x53\xde\x00\x00\x00\x0c\x49\x44\x41\x54\x78\x9c\x63\x68\x70\x50\x00\x00\x02\x24\x00\xe1\xab\x59\x62\x27\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";
/// More sampling steps than anybody waits for.
const ENDLESS: u32 = 2000;

fn workflow(graph: &serde_json::Value) -> Result<Workflow> {
    Ok(Workflow::from_json(&graph.to_string())?)
}

/// What came of a workflow: its pictures, and what was heard before.
async fn run(client: &Client, graph: &serde_json::Value) -> Result<(Vec<Vec<u8>>, Heard)> {
    let mut execution = client.execute(&workflow(graph)?).await?;
    let (mut pictures, mut heard) = (Vec::new(), Heard::default());
    while let Some(event) = execution.next().await {
        match event? {
            Event::ExecutionStart { .. } => heard.started += 1,
            Event::Progress { value, max, .. } => heard.steps.push((value, max)),
            Event::Preview { image, .. } => heard.previews.push(image.format),
            Event::Executed { output, .. } => pictures.extend(output.images),
            Event::Completed { .. } => heard.completed += 1,
            Event::Error { message, .. } => anyhow::bail!("{message}"),
            Event::Status { .. } | Event::Executing { .. } => {}
        }
    }
    Ok((pictures, heard))
}

#[derive(Debug, Default)]
struct Heard {
    started: usize,
    steps: Vec<(u32, u32)>,
    previews: Vec<PreviewImageFormat>,
    completed: usize,
}

fn rucomfyui(behind: &Behind) {
    tell(async |mesh| {
        let gateway = before(mesh, behind, "").await?;
        let client = Client::new(gateway.url.clone());
        let checkpoint = behind.checkpoint();

        let stats = client.system_stats().await?;
        ensure!(!stats.devices.is_empty(), "{stats:?}");
        let info = client.get_object_info().await?;
        ensure!(info.contains_key("KSampler"), "{:?}", info.keys());
        let sampler = client.get_object_for_name("KSampler").await?;
        ensure!(sampler.required_inputs().any(|(name, _)| name == "seed"), "{}", sampler.display_name());
        let categories = client.get_model_categories().await?;
        ensure!(categories.contains(&ModelCategory::Checkpoints), "{categories:?}");
        let models = client.get_models(ModelCategory::Checkpoints).await?;
        ensure!(models.iter().any(|model| model == checkpoint), "{models:?}");

        // A real one may have kept what an earlier run asked for.
        let seed = u64::from(std::process::id());
        let (pictures, heard) = run(&client, &workflows::keyframe(checkpoint, seed, 12, 64)).await?;
        ensure!(pictures.len() == 1 && pictures[0].starts_with(b"\x89PNG"), "{heard:?}");
        ensure!(heard.started == 1 && heard.completed == 1, "{heard:?}");
        ensure!(heard.steps.iter().any(|(value, max)| *value > 0 && *max == 12), "{heard:?}");
        ensure!(heard.previews.contains(&PreviewImageFormat::Jpeg), "{heard:?}");
        ensure!(behind.rendered(mesh), "{:?}", rendered_on(mesh));

        let upload = client.upload_image("plate.png", PIXEL.to_vec(), UploadType::Input, false).await?;
        ensure!(upload.name == "plate.png", "{upload:?}");
        let (pictures, _) = run(&client, &workflows::image_to_image(&upload.name)).await?;
        ensure!(pictures.len() == 1, "the uploaded picture, changed");

        let history = client.get_history(10).await?;
        ensure!(history.data.len() == 2, "{:?}", history.data.keys());
        let first: Vec<String> = history.data.keys().take(1).cloned().collect();
        client.delete_from_history(first).await?;
        ensure!(client.get_history(10).await?.data.len() == 1, "one was taken out");
        client.clear_history().await?;
        ensure!(client.get_history(10).await?.data.is_empty(), "and all");

        // One that runs, one that waits behind it or runs too: both are taken back.
        let endless = workflows::keyframe(checkpoint, 6, ENDLESS, 64);
        let running = client.queue_prompt(&workflow(&endless)?).await?;
        eventually("the prompt runs", || async {
            let queue = client.get_queue().await?;
            let runs = queue.running.iter().any(|entry| entry.prompt_id == running.prompt_id);
            Ok(if runs { Ok(()) } else { Err(format!("{queue:?}")) })
        })
        .await?;
        let waiting =
            client.queue_prompt(&workflow(&workflows::keyframe(checkpoint, 7, ENDLESS, 64))?).await?;
        let queue = client.get_queue().await?;
        ensure!(queue.pending.iter().any(|entry| entry.prompt_id == waiting.prompt_id), "{queue:?}");
        client.delete_from_queue(vec![waiting.prompt_id]).await?;
        client.interrupt().await?;
        eventually("nothing waits or runs", || async {
            let queue = client.get_queue().await?;
            let empty = queue.running.is_empty() && queue.pending.is_empty();
            Ok(if empty { Ok(()) } else { Err(format!("{queue:?}")) })
        })
        .await?;
        client.clear_queue().await?;
        client.free(true, true).await?;
        Ok(())
    });
}

#[test]
fn rucomfyui_runs_watches_uploads_and_takes_back() {
    rucomfyui(&Behind::Simulated(&["--step-ms", "150"]));
}

#[test]
fn rucomfyui_does_so_before_a_real_comfyui() {
    if let Some(real) = Behind::real() {
        rucomfyui(&real);
    }
}
