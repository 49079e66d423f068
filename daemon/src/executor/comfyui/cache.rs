//! Empties ComfyUI's execution cache, and proves that it is empty.
//!
//! `/free` only asks: the one worker obeys between two prompts, and nothing says when it has. So two tiny prompts of
//! ours with one node's content frame it. After the first that node is what the cache holds; when the second executes
//! it again, the cache was emptied in between. What the cache holds then, and what the worker last ran, are ours.

use std::time::Duration;

use scenemesh_protocol::ids::random_bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{CallError, Client, Posted};
use super::collect;
use super::inventory::Inventory;
use super::rewrite::{MARK, Names, ROOT};

/// How long other people's prompts may keep ours waiting: beyond this the cache counts as not emptied.
const WITHIN: Duration = if cfg!(test) { Duration::from_secs(5) } else { Duration::from_mins(2) };

/// Why the cache is not known to be empty.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotEmptied {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("this ComfyUI lacks the core nodes with which that is proved")]
    NoNodes,
    #[error("the proving prompt was refused or failed")]
    Failed,
    #[error("other prompts kept ComfyUI busy")]
    Busy,
    #[error("it still answers from the cache")]
    StillCached,
}

/// Empties the cache, models included. Afterwards nothing of the task is in it.
pub(super) async fn empty(client: &Client, inventory: &Inventory, names: &Names) -> Result<(), NotEmptied> {
    let emptied = prove(client, inventory, names).await;
    for id in names.probes() {
        match client.forget(&id).await {
            Err(error) if error.is_refused() => break,
            Err(error) => tracing::debug!(%error, "forgetting a proving prompt"),
            Ok(()) => {}
        }
    }
    match emptied {
        // What was in a process that is gone is gone.
        Err(NotEmptied::Call(error)) if error.is_refused() => Ok(()),
        other => other,
    }
}

async fn prove(client: &Client, inventory: &Inventory, names: &Names) -> Result<(), NotEmptied> {
    let Some(graph) = graph(inventory, names) else {
        client.free().await?;
        return Err(NotEmptied::NoNodes);
    };
    let give_up = Instant::now() + WITHIN;
    // The worker may take the second before it has seen what `/free` asked for: hence more than two.
    for (number, id) in names.probes().iter().enumerate() {
        let cached = run(client, &graph, id, names, give_up).await;
        if number > 0 && matches!(cached, Ok(false)) {
            return Ok(());
        }
        // Asked to go whatever became of the proof.
        client.free().await?;
        cached?;
    }
    Err(NotEmptied::StillCached)
}

/// One picture of nobody's, shown or saved into the attempt's folder.
fn graph(inventory: &Inventory, names: &Names) -> Option<Value> {
    let mut color = [0; 4];
    color[1..].copy_from_slice(&random_bytes::<3>());
    let picture = json!({"class_type": "EmptyImage", "inputs":
        {"width": 16, "height": 16, "batch_size": 1, "color": u32::from_be_bytes(color)}});
    let prefix = format!("{ROOT}/{}/cache", names.tag);
    let shown = if inventory.has_class("PreviewAny") {
        json!({"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}})
    } else if inventory.has_class("SaveImage") {
        json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}})
    } else {
        return None;
    };
    inventory.has_class("EmptyImage").then(|| json!({"1": picture, "2": shown}))
}

/// Whether the picture came from the cache.
async fn run(
    client: &Client,
    graph: &Value,
    id: &str,
    names: &Names,
    give_up: Instant,
) -> Result<bool, NotEmptied> {
    // Of an earlier run of this node that did not get to its end.
    client.forget(id).await?;
    let body = json!({
        "prompt": graph,
        "client_id": names.client_id,
        "prompt_id": id,
        "extra_data": {MARK: names.tag, "preview_method": "none"},
    });
    let Posted::Accepted { prompt_id, .. } = client.post_prompt(&body).await? else {
        return Err(NotEmptied::Failed);
    };
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(entry) = client.history(&prompt_id).await? {
            client.forget(&prompt_id).await?;
            return match collect::ending(&entry) {
                Some(collect::Ending::Success { .. }) => Ok(collect::cached_nodes(&entry).contains("1")),
                _ => Err(NotEmptied::Failed),
            };
        }
        if Instant::now() > give_up {
            client.unqueue(&prompt_id).await?;
            return Err(NotEmptied::Busy);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
