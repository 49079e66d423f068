//! The backend for a ComfyUI that runs beside this node, attached by its URL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{TaskId, random_bytes};
use scenemesh_protocol::task::{Failure, FailureClass, ModelName};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Backend, DeviceReading, EndpointConfig, Freed, Outcome, Probe, Reporter, Run, RunEnd, Verdict};
use crate::store::Blobs;

mod answers;
mod cache;
mod classify;
mod client;
mod collect;
mod deliver;
mod follow;
mod frames;
mod free;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hygiene;
pub(super) mod inventory;
mod preflight;
mod rewrite;
mod run;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod testing;
mod tracker;

pub use client::BadEndpoint;
use client::{CallError, Client};
use hygiene::{Folders, Orphan};
use inventory::Inventory;
#[cfg(test)]
pub(super) use rewrite::prompt_id;
use rewrite::{Names, Saving};

/// Age at which classes and models are asked for again: `/object_info` keeps ComfyUI busy for seconds.
const INVENTORY_STALE: Duration = Duration::from_secs(300);
/// How long a prompt of ours that was running when this node started may wait to be asked for again.
const ORPHAN_GRACE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(60) };
/// How long a probe waits for a prompt nobody wants to react to its interrupt.
const ORPHAN_INTERRUPT: Duration = Duration::from_secs(2);
/// Models called warm at most. More than a few do not fit a card anyway.
const MOST_WARM: usize = 8;
/// Unwanted prompts remembered until ComfyUI answers. One slot runs one at a time: more are not likely to be there.
const MOST_ABANDONED: usize = 64;

/// One attached ComfyUI.
pub(super) struct Comfyui {
    client: Client,
    endpoint: EndpointConfig,
    owner: String,
    store: Blobs,
    known: Option<Known>,
    warm: Vec<ModelName>,
    /// Prompts of ours that nobody waits for, and when they are to be removed.
    orphans: BTreeMap<Orphan, Instant>,
    /// Prompt ids told to be unwanted before ComfyUI was asked what it has of ours.
    abandoned: BTreeSet<String>,
}

/// Why work cannot start now.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(
        "a stopped task still runs in ComfyUI at {0} and does not react to an interrupt; restart it if that lasts"
    )]
    Stuck(String),
}

/// What was learnt since it last came up.
struct Known {
    inventory: Arc<Inventory>,
    asked: Instant,
    folders: Option<Folders>,
}

impl Known {
    fn hygiene(&self) -> Hygiene {
        if self.folders.is_some() { Hygiene::Full } else { Hygiene::Partial }
    }
}

/// Version of the ComfyUI at `url`.
pub(super) async fn look(url: &str) -> Result<String, String> {
    let client = Client::new(url).map_err(|error| error.to_string())?;
    let stats = client.system_stats().await.map_err(|error| error.to_string())?;
    if stats.get("system").is_none() {
        return Err(format!("{} answers, but not as ComfyUI does", client.base()));
    }
    let version = stats.pointer("/system/comfyui_version").and_then(Value::as_str).unwrap_or("unknown");
    Ok(version.chars().take(40).collect())
}

impl Comfyui {
    pub(super) fn new(endpoint: EndpointConfig, owner: &str, store: Blobs) -> Result<Self, BadEndpoint> {
        let client = Client::new(&endpoint.url)?;
        let owner: String = owner.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        let owner = if owner.is_empty() { "node".to_owned() } else { owner };
        Ok(Self {
            client,
            endpoint,
            owner,
            store,
            known: None,
            warm: Vec::new(),
            orphans: BTreeMap::new(),
            abandoned: BTreeSet::new(),
        })
    }

    async fn ask(&mut self) -> Result<Probe, NotReady> {
        let stats = self.client.system_stats().await?;
        if stats.get("system").is_none() && stats.get("devices").is_none() {
            let why = "it has neither system nor devices".to_owned();
            return Err(
                CallError::Garbage { call: "GET /system_stats", base: self.client.base(), why }.into()
            );
        }
        let others_queued = self.client.queue_remaining().await?;
        let now = Instant::now();
        if self.known.as_ref().is_none_or(|known| now - known.asked > INVENTORY_STALE) {
            self.learn(now, &stats).await?;
        }
        self.tend_orphans(now).await?;
        let Some(known) = &self.known else {
            let why = "it did not tell its classes".to_owned();
            return Err(CallError::Garbage { call: "GET /object_info", base: self.client.base(), why }.into());
        };
        let version = stats.pointer("/system/comfyui_version").and_then(Value::as_str).unwrap_or("unknown");
        Ok(Probe {
            inventory: known.inventory.clone(),
            warm: self.warm.clone(),
            devices: devices(&stats),
            comfyui_version: version.chars().take(40).collect(),
            hygiene: known.hygiene(),
            others_queued: u32::try_from(others_queued).unwrap_or(u32::MAX),
        })
    }

    async fn learn(&mut self, now: Instant, stats: &Value) -> Result<(), CallError> {
        let first = self.known.is_none();
        let inventory = Arc::new(inventory::ask(&self.client).await?);
        // Asked once per coming-up: where the guess is wrong, each try leaves a marker in somebody's temp folder.
        let folders = match self.known.take() {
            Some(known) => known.folders,
            None => hygiene::find(&self.client, &self.endpoint, stats, &self.owner).await,
        };
        if first {
            let found = hygiene::sweep(&self.client, &inventory, folders.as_ref(), &self.owner).await?;
            let abandoned = std::mem::take(&mut self.abandoned);
            let due = |orphan: &Orphan| {
                if abandoned.contains(&orphan.prompt_id) { now } else { now + ORPHAN_GRACE }
            };
            self.orphans = found.into_iter().map(|orphan| (orphan.clone(), due(&orphan))).collect();
        }
        self.known = Some(Known { inventory, asked: now, folders });
        Ok(())
    }

    /// Stops and removes one prompt of ours that nobody waits for.
    async fn tend_orphans(&mut self, now: Instant) -> Result<(), NotReady> {
        let due = self.orphans.iter().find(|(_, due)| **due <= now).map(|(orphan, _)| orphan.clone());
        let Some(orphan) = due else { return Ok(()) };
        if !follow::stop_prompt(&self.client, &orphan.prompt_id, ORPHAN_INTERRUPT).await {
            return Err(NotReady::Stuck(self.client.base()));
        }
        tracing::info!(tag = %orphan.tag, "removed a prompt of ours that nobody waits for");
        let names = Names::of(orphan.prompt_id.clone(), orphan.tag.clone());
        let Some(known) = &self.known else { return Ok(()) };
        let folders = known.folders.as_ref();
        let entry = self.client.history(&names.prompt_id).await?.unwrap_or_default();
        let traces = run::traces_of(&entry);
        let tally = hygiene::clean(&self.client, &known.inventory, folders, &names, &traces).await;
        drop(tally.close(&names, folders));
        self.orphans.remove(&orphan);
        Ok(())
    }

    /// Stops and removes every prompt of ours that nobody waits for, from before a restart too.
    async fn clear_orphans(&mut self) -> Result<(), NotReady> {
        if self.known.is_none() {
            self.ask().await?;
        }
        let now = Instant::now();
        while self.orphans.values().any(|due| *due <= now) {
            self.tend_orphans(now).await?;
        }
        Ok(())
    }

    async fn render(&mut self, run: &Run, report: &Reporter, stop: CancellationToken) -> RunEnd {
        let names = Names::new(&self.owner, run.task, run.attempt, run.full_hygiene).posted(random_bytes());
        self.orphans.retain(|orphan, _| orphan.tag != names.tag);
        if let Err(error) = self.tend_orphans(Instant::now()).await {
            return Outcome::Failed(Failure::new(FailureClass::ComfyuiDied, error.to_string())).into();
        }
        let empty = Inventory::default();
        let known = self.known.as_ref();
        let folders = known.and_then(|known| known.folders.as_ref());
        let attempt = run::Attempt {
            client: &self.client,
            store: &self.store,
            inventory: known.map_or(&empty, |known| &known.inventory),
            folders,
            saving: if folders.is_some() { Saving::ToDisk } else { Saving::Streaming },
            names: &names,
            run,
            report,
            stop,
        };
        let run::Finished { outcome, models, wipe } = attempt.perform().await;
        self.note_if_stuck(&names, &outcome).await;
        if run.full_hygiene {
            self.warm.clear();
        }
        match &outcome {
            Outcome::Done { .. } if run.full_hygiene => {}
            Outcome::Done { .. } => self.warm_up(models),
            Outcome::Failed(failure) => match failure.class {
                FailureClass::ComfyuiDied => (self.known, self.warm) = (None, Vec::new()),
                // What we know of it was wrong: ask before the next run.
                FailureClass::MissingModelOrClass => self.age_inventory(),
                _ => {}
            },
        }
        RunEnd { outcome, wipe }
    }

    /// A prompt that outlived its interrupt occupies ComfyUI and will still write files.
    async fn note_if_stuck(&mut self, names: &Names, outcome: &Outcome) {
        let Outcome::Failed(failure) = outcome else { return };
        if !matches!(failure.class, FailureClass::Cancelled | FailureClass::Timeout) {
            return;
        }
        let queue = self.client.queue().await.unwrap_or_default();
        if queue.running.iter().any(|row| row.prompt_id == names.prompt_id) {
            let orphan = Orphan { prompt_id: names.prompt_id.clone(), tag: names.tag.clone() };
            self.orphans.insert(orphan, Instant::now());
        }
    }

    fn age_inventory(&mut self) {
        if let Some(known) = &mut self.known
            && let Some(old) = Instant::now().checked_sub(INVENTORY_STALE + Duration::from_secs(1))
        {
            known.asked = old;
        }
    }

    fn warm_up(&mut self, models: Vec<ModelName>) {
        self.warm.retain(|model| !models.contains(model));
        self.warm.splice(0..0, models);
        self.warm.truncate(MOST_WARM);
    }
}

impl Backend for Comfyui {
    fn url(&self) -> String {
        self.client.base()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<Probe, String>> {
        async move {
            let asked = self.ask().await;
            asked.map_err(|error| {
                // When it comes back it may be another version with other models and folders.
                if matches!(error, NotReady::Call(_)) {
                    (self.known, self.warm) = (None, Vec::new());
                }
                error.to_string()
            })
        }
        .boxed()
    }

    fn run<'a>(
        &'a mut self,
        run: &'a Run,
        report: &'a Reporter,
        stop: CancellationToken,
    ) -> BoxFuture<'a, RunEnd> {
        self.render(run, report, stop).boxed()
    }

    fn free(&mut self) -> BoxFuture<'_, Freed> {
        async move {
            if let Err(error) = self.clear_orphans().await {
                return Freed::of(match error {
                    NotReady::Stuck(_) => Verdict::Stuck { why: error.to_string() },
                    // What was in a process that is gone is gone.
                    NotReady::Call(error) if error.is_refused() => Verdict::NotRunning,
                    NotReady::Call(error) => Verdict::Unknown { why: error.to_string() },
                });
            }
            let freed = free::free(&self.client).await;
            if freed.verdict != Verdict::InUse {
                self.warm.clear();
                return freed;
            }
            // One from before a restart, which is known to be unwanted a moment later.
            let running = self.client.queue().await.map(|queue| queue.running).unwrap_or_default();
            let is_orphan = |id: &str| self.orphans.keys().any(|orphan| orphan.prompt_id == id);
            if running.iter().any(|row| is_orphan(&row.prompt_id)) {
                let why = "a task from before a restart still runs in ComfyUI".to_owned();
                return Freed { verdict: Verdict::Stuck { why }, ..freed };
            }
            freed
        }
        .boxed()
    }

    fn abandon(&mut self, task: TaskId, attempt: u32) {
        let prompt_id = rewrite::prompt_id(task, attempt);
        if self.known.is_none() {
            if self.abandoned.len() < MOST_ABANDONED {
                self.abandoned.insert(prompt_id);
            }
            return;
        }
        for (orphan, due) in &mut self.orphans {
            if orphan.prompt_id == prompt_id {
                *due = Instant::now();
            }
        }
    }
}

/// Devices of one ComfyUI; it uses one, and tells of those it sees.
const MOST_DEVICES: usize = 16;

fn devices(stats: &Value) -> Vec<DeviceReading> {
    let text = |device: &Value, key: &str| -> String {
        device.get(key).and_then(Value::as_str).unwrap_or_default().chars().take(120).collect()
    };
    let mib = |device: &Value, key: &str| {
        device.get(key).and_then(Value::as_u64).map(|bytes| u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
    };
    let listed = stats.get("devices").and_then(Value::as_array).into_iter().flatten();
    listed
        .take(MOST_DEVICES)
        .map(|device| DeviceReading {
            name: plain_device_name(&text(device, "name")),
            kind: text(device, "type"),
            vram_mib: mib(device, "vram_total"),
            vram_free_mib: mib(device, "vram_free"),
        })
        .collect()
}

/// ComfyUI says `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`: people call it by the middle.
fn plain_device_name(name: &str) -> String {
    let without_place = match name.split_once(' ') {
        Some((place, rest)) if place.contains(':') => rest,
        _ => name,
    };
    without_place.split(" : ").next().unwrap_or(without_place).trim().to_owned()
}
