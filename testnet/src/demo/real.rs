//! What the demo must know of ComfyUIs that somebody else runs, before it begins and when it is over.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{MACHINES, PATIENCE};
use crate::eventually::eventually_within;

/// Pixels along a side of a keyframe where a GPU renders, or only pretends to.
const SIDE: u32 = 512;
/// Where a processor renders: a step then takes about a tenth of a second.
const SMALL_SIDE: u32 = 64;

/// Proves that the demo can be told with these ComfyUIs, and gives the size of its keyframes.
pub(super) async fn check(urls: &[String], checkpoint: &str) -> Result<u32> {
    let wanted = 2..=MACHINES.len();
    ensure!(
        urls.is_empty() || wanted.contains(&urls.len()),
        "--comfyui needs two or three URLs, not {}: one machine loses power, another goes on",
        urls.len()
    );
    let mut side = SIDE;
    for url in urls {
        let stats = get(url, "/system_stats").await?;
        let devices = stats["devices"].as_array().with_context(|| format!("{url} is not a ComfyUI"))?;
        if devices.iter().any(|device| device["type"] == "cpu") {
            side = SMALL_SIDE;
        }
        let held = get(url, "/models/checkpoints").await?;
        let held: Vec<&str> = held.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !held.contains(&checkpoint) {
            let held = if held.is_empty() { "it has none".to_owned() } else { held.join(", ") };
            bail!(
                "the ComfyUI at {url} has no checkpoint {checkpoint}; name one that each has with --checkpoint ({held})"
            );
        }
    }
    Ok(side)
}

/// Waits until neither queue nor history of a ComfyUI has anything of ours.
pub(super) async fn is_clean(url: &str) -> Result<()> {
    eventually_within(PATIENCE, "the killed machine's ComfyUI is clean", || async {
        for path in ["/queue", "/history"] {
            let told = get(url, path).await?.to_string();
            // Our prompts bear this mark in their extra_data.
            if told.contains("\"scenemesh\":") {
                return Ok(Err(path));
            }
        }
        Ok(Ok(()))
    })
    .await
}

async fn get(url: &str, path: &str) -> Result<Value> {
    let url = url.trim_end_matches('/');
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.get(format!("{url}{path}")).send().await;
    let answer = answer.with_context(|| format!("no ComfyUI answers at {url}"))?.error_for_status()?;
    answer.json().await.with_context(|| format!("{url} answers {path}, but not as ComfyUI does"))
}
