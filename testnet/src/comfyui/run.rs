//! One prompt from start to end, node by node, saying all that the real one says, in its order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::log::{LogEvent, RunOutcome};
use super::machine::Machine;
use super::nodes::{self, Held, Inputs, Place, Product};
use super::order::{Order, Vertex};
use super::picture::{self, Seed};
use super::pythonic::{self, Raised};
use super::queue::Item;
use super::sockets::{Frame, event};
use super::worker::{Bench, Cached};
use super::{FaultKind, jpeg};

/// The longest side of a preview, as `--preview-size` has it by default.
const PREVIEW: u32 = 512;

/// Why a prompt did not reach its end.
enum Stop {
    Raised(Raised),
    Interrupted,
    /// The power is off: there is nobody to tell.
    Gone,
}

/// Runs a prompt and writes its history; where the power goes off, it just ends.
pub(super) async fn run(machine: &Arc<Machine>, bench: &mut Bench, item: Item) {
    let client = item.client_id().map(str::to_owned);
    let seed = first_seed(&item.prompt);
    machine.log.write(Some(&item.id), client.as_deref(), LogEvent::Started { seed });
    let mut run = Run::new(machine, &item, client);
    run.message("execution_start", json!({}), false);

    let keys = run.keys(bench);
    let used: HashSet<&Seed> = keys.values().collect();
    bench.cache.retain(|key, _| used.contains(key));
    let cached: Vec<&String> = run.nodes.keys().filter(|id| bench.cached(&keys, id).is_some()).collect();
    let cached_count = cached.len();
    run.message("execution_cached", json!({"nodes": cached}), false);

    let vertices = run.vertices(bench, &keys);
    let mut order = Order::new(&vertices, &item.outputs);
    let mut ended = Ok(());
    while let Some(id) = order.next() {
        ended = run.node(bench, &keys, &id).await.map_err(|stop| (id.clone(), stop));
        if ended.is_err() {
            break;
        }
        run.executed.push(id);
    }
    let outcome = match ended {
        Ok(()) => {
            run.message("execution_success", json!({}), false);
            RunOutcome::Success
        }
        Err((_, Stop::Gone)) => return,
        Err((id, Stop::Interrupted)) => {
            let class = run.class(&id);
            run.message(
                "execution_interrupted",
                json!({"node_id": id, "node_type": class, "executed": run.executed}),
                true,
            );
            RunOutcome::Interrupted
        }
        Err((id, Stop::Raised(raised))) => {
            if raised.kind == OUT_OF_MEMORY {
                bench.warm.clear();
                machine.hold(0);
            }
            run.fail(&id, &raised);
            RunOutcome::Error
        }
    };
    // The trap of issue #11540: success is told before the history has the entry.
    tokio::time::sleep(Duration::from_millis(machine.options.history_lag_ms)).await;
    run.finish(bench, &keys, outcome);
    machine.log.write(
        Some(&item.id),
        run.client.as_deref(),
        LogEvent::Finished { outcome, cached: cached_count },
    );
}

/// PyTorch's name for it; clients match on it.
const OUT_OF_MEMORY: &str = "torch.OutOfMemoryError";
const OUT_OF_MEMORY_TIPS: &str = "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have accidentally set the \
                                  batch_size to a large number.";

/// One prompt on its way.
struct Run<'a> {
    machine: &'a Arc<Machine>,
    item: &'a Item,
    nodes: &'a Map<String, Value>,
    client: Option<String>,
    texts: Arc<Vec<(String, String)>>,
    progress: Map<String, Value>,
    messages: Vec<Value>,
    executed: Vec<String>,
    failed: bool,
    under_way: bool,
}

impl<'a> Run<'a> {
    fn new(machine: &'a Arc<Machine>, item: &'a Item, client: Option<String>) -> Self {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let mut texts =
            vec![("prompt".to_owned(), pythonic::dumps(&with_fingerprints(machine, &item.prompt)))];
        for (key, value) in
            item.extra_data.get("extra_pnginfo").and_then(Value::as_object).into_iter().flatten()
        {
            texts.push((key.clone(), pythonic::dumps(value)));
        }
        Self {
            machine,
            item,
            nodes: item.prompt.as_object().unwrap_or(&NONE),
            client,
            texts: Arc::new(texts),
            progress: Map::new(),
            messages: Vec::new(),
            executed: Vec::new(),
            failed: false,
            under_way: false,
        }
    }

    fn class(&self, id: &str) -> &'a str {
        self.nodes.get(id).and_then(|node| node["class_type"].as_str()).unwrap_or_default()
    }

    fn inputs(&self, id: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.nodes.get(id).and_then(|node| node["inputs"].as_object()).into_iter().flatten()
    }

    /// Tells the client and keeps it for the history. Without a client only a broadcast is told, to everyone.
    fn message(&mut self, kind: &str, mut data: Value, broadcast: bool) {
        data["prompt_id"] = json!(self.item.id);
        data["timestamp"] = json!(scenemeshd::clock::wall_ms());
        if self.client.is_some() || broadcast {
            self.machine.tell(&event(kind, &data));
        }
        self.messages.push(json!([kind, data]));
    }

    /// To the client only, where there is one.
    fn tell_client(&self, kind: &str, data: &Value) {
        if self.client.is_some() {
            self.machine.tell(&event(kind, data));
        }
    }

    /// What identifies each node's output: its class and literals and those of all its ancestors. A node whose inputs cannot be followed
    /// has no key and is never cached.
    fn keys(&self, bench: &mut Bench) -> HashMap<String, Seed> {
        let mut keys = HashMap::new();
        for id in self.nodes.keys() {
            self.key(bench, &mut keys, &mut HashSet::new(), id);
        }
        keys
    }

    fn key(
        &self,
        bench: &mut Bench,
        keys: &mut HashMap<String, Seed>,
        open: &mut HashSet<String>,
        id: &str,
    ) -> Option<Seed> {
        if let Some(key) = keys.get(id) {
            return Some(*key);
        }
        if !self.nodes.contains_key(id) || !open.insert(id.to_owned()) {
            return None;
        }
        let class = self.class(id);
        let mut hasher = blake3::Hasher::new();
        hasher.update(class.as_bytes());
        let mut inputs: Vec<_> = self.inputs(id).collect();
        inputs.sort_by_key(|(name, _)| *name);
        for (name, value) in inputs {
            hasher.update(&[0]).update(name.as_bytes()).update(&[0]);
            match link(value) {
                Some((source, slot)) => {
                    let source = self.key(bench, keys, open, source)?;
                    hasher.update(&source).update(slot.to_string().as_bytes());
                }
                None => {
                    hasher.update(value.to_string().as_bytes());
                }
            }
        }
        match class {
            "LoadImage" | "LoadImageMask" => {
                let name =
                    self.inputs(id).find(|(name, _)| *name == "image").and_then(|(_, value)| value.as_str());
                let path = name.and_then(|name| self.machine.disk.annotated_path(name));
                hasher.update(&path.and_then(|path| std::fs::read(path).ok())?);
            }
            "SaveImageWebsocket" => {
                bench.fresh += 1;
                hasher.update(&bench.fresh.to_le_bytes());
            }
            _ => {}
        }
        let key = hasher.finalize().into();
        keys.insert(id.to_owned(), key);
        open.remove(id);
        Some(key)
    }

    fn vertices(&self, bench: &Bench, keys: &HashMap<String, Seed>) -> HashMap<String, Vertex> {
        let vertex = |id: &String| Vertex {
            needs: self
                .inputs(id)
                .filter_map(|(_, value)| link(value))
                .map(|(source, _)| source.to_owned())
                .collect(),
            is_output: self.machine.catalog.is_output(self.class(id)),
            is_cached: bench.cached(keys, id).is_some(),
        };
        self.nodes.keys().map(|id| (id.clone(), vertex(id))).collect()
    }

    async fn node(&mut self, bench: &mut Bench, keys: &HashMap<String, Seed>, id: &str) -> Result<(), Stop> {
        if let Some(cached) = bench.cached(keys, id) {
            let output = cached.product.ui.clone().unwrap_or(Value::Null);
            self.tell_client(
                "executed",
                &json!({"node": id, "display_node": id, "output": output, "prompt_id": self.item.id}),
            );
            self.advance(id, json!(1), json!(1), "finished");
            return Ok(());
        }
        self.advance(id, json!(0.0), json!(1.0), "running");
        self.machine.set_executing(Some(id));
        self.tell_client("executing", &json!({"node": id, "display_node": id, "prompt_id": self.item.id}));
        if !self.under_way {
            self.under_way = true;
            self.misbehave(None).await?;
        }
        if self.machine.is_interrupted() {
            return Err(Stop::Interrupted);
        }
        let class = self.class(id);
        let inputs = self.gather(bench, keys, id);
        for model in nodes::models(class, &inputs) {
            if bench.warm_up(&model, self.machine.options.warm) {
                self.machine.log.write(
                    Some(&self.item.id),
                    self.client.as_deref(),
                    LogEvent::Loading { model: model.clone() },
                );
                self.machine.hold(bench.warm.len());
                tokio::time::sleep(Duration::from_millis(self.machine.options.load_ms)).await;
                self.machine.log.write(
                    Some(&self.item.id),
                    self.client.as_deref(),
                    LogEvent::Loaded { model },
                );
            }
        }
        if class == "VAEDecode" && self.machine.options.decode_ms > 0 {
            self.machine.log.write(Some(&self.item.id), self.client.as_deref(), LogEvent::Decoding);
            tokio::time::sleep(Duration::from_millis(self.machine.options.decode_ms)).await;
        }
        let product = if nodes::is_sampler(class) {
            self.sample(id, &inputs).await?
        } else if class == "SaveImageWebsocket" {
            self.stream(id, &inputs)?
        } else {
            self.compute(id, inputs).await?
        };
        if let Some(output) = &product.ui {
            self.tell_client(
                "executed",
                &json!({"node": id, "display_node": id, "output": output, "prompt_id": self.item.id}),
            );
        }
        if let Some(key) = keys.get(id) {
            let meta = json!({"node_id": id, "display_node": id, "parent_node": null, "real_node_id": id});
            bench.cache.insert(*key, Cached { product, meta });
        }
        let max = self.progress[id]["max"].clone();
        self.advance(id, max.clone(), max, "finished");
        Ok(())
    }

    /// A node's declared inputs, links resolved to what their source gave.
    fn gather(&self, bench: &Bench, keys: &HashMap<String, Seed>, id: &str) -> Inputs {
        let class = self.class(id);
        let declared = self.inputs(id).filter(|(name, _)| self.machine.catalog.declares(class, name));
        let resolved = declared.filter_map(|(name, value)| {
            let held = match link(value) {
                Some((source, slot)) => {
                    pythonic::item(&bench.cached(keys, source)?.product.slots, slot).ok()?.clone()
                }
                None => Held::Plain(value.clone()),
            };
            Some((name.clone(), held))
        });
        resolved.collect()
    }

    async fn compute(&self, id: &str, inputs: Inputs) -> Result<Product, Stop> {
        let (machine, texts) = (Arc::clone(self.machine), Arc::clone(&self.texts));
        let (node, class) = (id.to_owned(), self.class(id).to_owned());
        let computed = tokio::task::spawn_blocking(move || {
            let place = Place { machine: &machine, node: &node, class: &class, texts: &texts };
            nodes::compute(&place, &inputs).map_err(|raised| (raised, inputs))
        });
        match computed.await {
            Ok(Ok(product)) => Ok(product),
            Ok(Err((raised, _))) => Err(Stop::Raised(raised)),
            Err(panicked) => Err(Stop::Raised(Raised::new("RuntimeError", panicked.to_string()))),
        }
    }

    async fn sample(&mut self, id: &str, inputs: &Inputs) -> Result<Product, Stop> {
        let (latent, steps) = nodes::sampled(self.class(id), inputs).map_err(Stop::Raised)?;
        // One mosaic tile per latent cell, at most as many as fill the preview.
        let longest = latent.width.max(latent.height).max(1);
        let tiles = |side: u32| (side * (PREVIEW / 8) / longest).max(1);
        for step in 1..=steps {
            tokio::time::sleep(Duration::from_millis(self.machine.options.step_ms)).await;
            self.misbehave(Some(step)).await?;
            if self.machine.is_interrupted() {
                return Err(Stop::Interrupted);
            }
            self.machine.log.write(
                Some(&self.item.id),
                self.client.as_deref(),
                LogEvent::Step { node: id.to_owned(), step, max: steps },
            );
            let preview = (!self.machine.options.no_previews).then(|| {
                let clarity = step as f32 / steps as f32;
                jpeg::enlarged(&picture::emerging(
                    &latent.seed,
                    clarity,
                    tiles(latent.width),
                    tiles(latent.height),
                ))
            });
            self.step(id, step.into(), steps.into(), preview.map(|bytes| (Picture::Jpeg, bytes)));
            if self.machine.options.talkative {
                self.talk(id, &format!("step {step} of {steps}"));
            }
        }
        Ok(Product { slots: vec![Held::Latent(latent)], ui: None })
    }

    fn stream(&mut self, id: &str, inputs: &Inputs) -> Result<Product, Stop> {
        let frames = nodes::frames(inputs, "images", self.class(id)).map_err(Stop::Raised)?;
        let frames = nodes::saved_frames(self.machine, frames);
        for (at, frame) in frames.iter().enumerate() {
            if self.machine.is_interrupted() {
                return Err(Stop::Interrupted);
            }
            self.step(id, json!(at), json!(frames.len()), Some((Picture::Png, frame.png(&[]))));
        }
        Ok(Product::default())
    }

    /// One step of a node's own progress: state, progress and preview, the preview before the progress in its newer format.
    fn step(&mut self, id: &str, value: Value, max: Value, preview: Option<(Picture, Vec<u8>)>) {
        let progress = json!({"value": value, "max": max, "prompt_id": self.item.id, "node": id});
        let with_metadata =
            self.machine.sockets(|sockets| sockets.wants_preview_metadata(self.client.as_deref()));
        self.advance(id, value, max, "running");
        let preview = preview.map(|(kind, bytes)| match with_metadata {
            true => self.preview_with_metadata(id, kind, &bytes),
            false => preview_alone(kind, &bytes),
        });
        let progress = event("progress", &progress);
        let frames = if with_metadata { [preview, Some(progress)] } else { [Some(progress), preview] };
        for frame in frames.iter().flatten() {
            self.machine.tell(frame);
        }
    }

    /// As `send_progress_text` of the real one packs it; and a frame whose number nobody else uses.
    fn talk(&self, id: &str, words: &str) {
        let mut text = BytesMut::new();
        text.put_u32(3);
        text.put_u32(u32::try_from(id.len()).unwrap_or(u32::MAX));
        text.put_slice(id.as_bytes());
        text.put_slice(words.as_bytes());
        self.machine.tell(&Frame::Binary(text.freeze()));
        let mut own = BytesMut::new();
        own.put_u32(0x4d45_5348);
        own.put_slice(words.as_bytes());
        self.machine.tell(&Frame::Binary(own.freeze()));
    }

    fn preview_with_metadata(&self, id: &str, kind: Picture, bytes: &[u8]) -> Frame {
        let metadata = json!({
            "node_id": id, "prompt_id": self.item.id, "display_node_id": id, "parent_node_id": null, "real_node_id": id,
            "image_type": if kind == Picture::Png { "image/png" } else { "image/jpeg" },
        });
        let metadata = pythonic::dumps(&metadata);
        let mut out = BytesMut::new();
        out.put_u32(4);
        out.put_u32(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
        out.put_slice(metadata.as_bytes());
        out.put_slice(bytes);
        Frame::Binary(out.freeze())
    }

    /// Sets a node's progress and tells the state of all that have begun; without a client, to everyone.
    fn advance(&mut self, id: &str, value: Value, max: Value, state: &str) {
        let entry = json!({
            "value": value, "max": max, "state": state, "node_id": id, "prompt_id": self.item.id, "display_node_id": id,
            "parent_node_id": null, "real_node_id": id,
        });
        self.progress.insert(id.to_owned(), entry);
        let data = json!({"prompt_id": self.item.id, "nodes": self.progress});
        self.machine.tell(&event("progress_state", &data));
    }

    /// Does what the faults of this moment say.
    async fn misbehave(&self, step: Option<u32>) -> Result<(), Stop> {
        let machine = self.machine;
        if machine.strikes(FaultKind::Silent, step) {
            machine.sockets(|sockets| sockets.mute());
        }
        if machine.strikes(FaultKind::Crash, step) {
            machine.crash();
            return Err(Stop::Gone);
        }
        if machine.strikes(FaultKind::OutOfMemory, step) {
            return Err(Stop::Raised(Raised::new(
                OUT_OF_MEMORY,
                format!("Allocation on device \n{OUT_OF_MEMORY_TIPS}"),
            )));
        }
        if machine.strikes(FaultKind::Wedge, step) {
            machine.power.cancelled().await;
            return Err(Stop::Gone);
        }
        if machine.strikes(FaultKind::Stall, step) {
            tokio::select! {
                () = machine.until_interrupted() => {}
                () = machine.power.cancelled() => return Err(Stop::Gone),
            }
        }
        Ok(())
    }

    fn fail(&mut self, id: &str, raised: &Raised) {
        self.failed = true;
        let literals = self.inputs(id).map(|(name, value)| match link(value) {
            Some((source, _)) => (name.clone(), json!([format!("<output of {source}>")])),
            None => (name.clone(), json!([value])),
        });
        let mut current_inputs: Map<String, Value> = literals.collect();
        // Hidden inputs are shown too: an error of a saving node tells the whole prompt.
        for (name, kind) in self.machine.catalog.hidden(self.class(id)) {
            let value = if kind == "PROMPT" {
                Some(&self.item.prompt)
            } else {
                self.item.extra_data.get("extra_pnginfo")
            };
            current_inputs.insert(name.clone(), json!([value.map(pythonic::repr)]));
        }
        // The real server adds its tips after a line break, and an empty line where it has none.
        let message =
            if raised.kind == OUT_OF_MEMORY { raised.text.clone() } else { format!("{}\n", raised.text) };
        let traceback =
            format!("  File \"{}/execution.py\", line 496, in execute\n", self.machine.disk.base().display());
        let everything: Vec<&String> = self.nodes.keys().collect();
        let data = json!({
            "node_id": id, "node_type": self.class(id), "executed": self.executed, "exception_message": message,
            "exception_type": raised.kind, "traceback": [traceback], "current_inputs": current_inputs, "current_outputs": everything,
        });
        self.message("execution_error", data, false);
    }

    /// Writes the history, tells the queue, and last of all that nothing is executing.
    fn finish(&mut self, bench: &Bench, keys: &HashMap<String, Seed>, outcome: RunOutcome) {
        let (mut outputs, mut metas) = (Map::new(), Map::new());
        for id in self.nodes.keys() {
            if let Some(cached) = bench.cached(keys, id)
                && let Some(output) = &cached.product.ui
            {
                outputs.insert(id.clone(), output.clone());
                metas.insert(id.clone(), cached.meta.clone());
            }
        }
        let success = outcome == RunOutcome::Success;
        let status = json!({
            "status_str": if success { "success" } else { "error" }, "completed": success, "messages": self.messages,
        });
        self.machine.set_executing(None);
        self.machine.change_queue(|queue| queue.done(Value::Object(outputs), Value::Object(metas), status));
        self.tell_client("executing", &json!({"node": null, "prompt_id": self.item.id}));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Picture {
    Jpeg,
    Png,
}

fn preview_alone(kind: Picture, bytes: &[u8]) -> Frame {
    let mut out = BytesMut::new();
    out.put_u32(1);
    out.put_u32(if kind == Picture::Png { 2 } else { 1 });
    out.put_slice(bytes);
    Frame::Binary(Bytes::from(out))
}

/// `[node, slot]`.
fn link(value: &Value) -> Option<(&str, &Value)> {
    match value.as_array()?.as_slice() {
        [source, slot] if slot.is_number() => Some((source.as_str()?, slot)),
        _ => None,
    }
}

/// The prompt as saved pictures carry it: the real server notes the hash of each loaded file in it.
fn with_fingerprints(machine: &Machine, prompt: &Value) -> Value {
    let mut prompt = prompt.clone();
    for node in prompt.as_object_mut().into_iter().flat_map(|nodes| nodes.values_mut()) {
        let file = node["inputs"]["image"]
            .as_str()
            .filter(|_| node["class_type"] == "LoadImage" || node["class_type"] == "LoadImageMask");
        let path = file.and_then(|name| machine.disk.annotated_path(name));
        if let Some(bytes) = path.and_then(|path| std::fs::read(path).ok()) {
            node["is_changed"] = json!([blake3::hash(&bytes).to_hex().as_str()]);
        }
    }
    prompt
}

fn first_seed(prompt: &Value) -> Option<u64> {
    let nodes = prompt.as_object()?;
    nodes
        .values()
        .find_map(|node| ["seed", "noise_seed"].iter().find_map(|name| node["inputs"][name].as_u64()))
}
