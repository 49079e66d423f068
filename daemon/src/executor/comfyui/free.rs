//! Gives video memory back: asks ComfyUI to unload its models, and looks whether it did.
//!
//! `/free` answers 200 and only sets a flag, which the worker sees between two prompts. So the memory is read before
//! and after, and nothing is taken for freed that was not seen to go.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::client::{CallError, Client};
use crate::executor::{Freed, Memory, Verdict};

/// How long the memory may take to go after `/free`.
const WITHIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 8 });
/// What a process keeps of a GPU after it has unloaded its models, in MiB: workspaces of libraries.
const KEPT_MIB: u32 = 512;

/// Unloads everything and looks.
pub(super) async fn free(client: &Client) -> Freed {
    match ask(client).await {
        Ok(freed) => freed,
        // Memory of a process that is gone is free.
        Err(error) if error.is_refused() => Freed::of(Verdict::NotRunning),
        Err(error) => Freed::of(Verdict::Unknown { why: error.to_string() }),
    }
}

async fn ask(client: &Client) -> Result<Freed, CallError> {
    let before = memory(&client.system_stats().await?);
    if !client.queue().await?.running.is_empty() {
        // Whoever sits there uses it already; its models are not ours to unload.
        return Ok(Freed { before, after: before, verdict: Verdict::InUse });
    }
    client.free().await?;
    let Some(known) = before else {
        let why = "ComfyUI does not tell what it holds of a GPU".to_owned();
        return Ok(Freed::of(Verdict::Unknown { why }));
    };
    let give_up = Instant::now() + WITHIN;
    let mut pause = Duration::from_millis(25);
    let mut after = known;
    while after.held_mib > KEPT_MIB && Instant::now() < give_up {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
        after = memory(&client.system_stats().await?).unwrap_or(after);
    }
    let verdict = if after.held_mib > KEPT_MIB { Verdict::StillHeld } else { Verdict::Freed };
    Ok(Freed { before, after: Some(after), verdict })
}

/// Of the device that ComfyUI renders on, which it lists first. `None` where what it tells is not video memory, or
/// not its own part of it.
fn memory(stats: &Value) -> Option<Memory> {
    let device = stats.pointer("/devices/0")?;
    let mib = |key: &str| {
        let bytes = device.get(key).and_then(Value::as_u64)?;
        u32::try_from(bytes >> 20).ok()
    };
    let kind = device.get("type").and_then(Value::as_str).unwrap_or_default();
    let (total, free) = (mib("vram_total")?, mib("vram_free")?);
    let (held, idle) = (mib("torch_vram_total")?, mib("torch_vram_free")?);
    // A device that shares the machine's memory counts all of it as its own.
    if kind == "cpu" || held >= total {
        return None;
    }
    // ComfyUI counts as free what it holds and does not use; to others it is taken.
    let used_mib = total.saturating_sub(free.saturating_sub(idle));
    Some(Memory { used_mib, held_mib: held, total_mib: total })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(kind: &str, total: u64, free: u64, held: u64, idle: u64) -> Value {
        json!({"devices": [{"type": kind, "vram_total": total << 20, "vram_free": free << 20,
            "torch_vram_total": held << 20, "torch_vram_free": idle << 20}]})
    }

    #[test]
    fn what_is_held_and_idle_is_not_free_to_others() {
        let read = memory(&device("cuda", 24_000, 20_000, 9_000, 6_000)).unwrap();
        assert_eq!(read, Memory { used_mib: 10_000, held_mib: 9_000, total_mib: 24_000 });
    }

    #[test]
    fn a_processor_tells_nothing_of_video_memory() {
        assert_eq!(memory(&device("cpu", 64_000, 60_000, 64_000, 60_000)), None);
        assert_eq!(memory(&device("mps", 64_000, 60_000, 64_000, 60_000)), None);
        assert_eq!(memory(&json!({"devices": []})), None);
        assert_eq!(memory(&json!({"devices": [{"type": "cuda", "vram_total": 1}]})), None);
    }
}
