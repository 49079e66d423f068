//! A server that speaks just enough of ComfyUI's dialect to misbehave on cue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Multipart, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::supervisor::Tasks;

/// What happens once a prompt is accepted.
type OnPrompt = Arc<dyn Fn(Stub, String) -> BoxFuture<'static, ()> + Send + Sync>;

/// A handle to the stub; clones are the same server.
#[derive(Clone)]
pub(super) struct Stub {
    state: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
    frames: broadcast::Sender<Message>,
    tasks: Tasks,
    dead: CancellationToken,
    on_prompt: OnPrompt,
    pub(super) url: String,
}

#[derive(Default)]
pub(super) struct Inner {
    pub object_info: Option<String>,
    /// Posted prompts, whole bodies.
    pub posted: Vec<Value>,
    /// Rows of the queue by prompt id.
    pub running: BTreeMap<String, Value>,
    pub pending: BTreeMap<String, Value>,
    pub history: BTreeMap<String, Value>,
    /// Answers of `/history/{id}` that are nonsense before it tells the truth.
    pub nonsense: usize,
    pub interrupted: Vec<Value>,
    /// Interrupts reach nothing.
    pub wedged: bool,
    pub unqueued: Vec<Value>,
    pub forgotten: Vec<Value>,
    pub freed: usize,
    /// Video memory that it says it holds, in MiB; none: it says nothing of any.
    pub held_mib: Option<u64>,
    /// Colours whose picture the execution cache holds.
    pub cache: BTreeSet<String>,
    /// `/free` is answered and forgotten.
    pub keeps_cache: bool,
    /// Uploads that fail with 500 before one goes well.
    pub stumbles: usize,
    /// Sockets opened so far.
    pub sockets: usize,
    /// Where uploads go to disk, and what `/internal/folder_paths` tells.
    pub base: Option<PathBuf>,
    /// Files of `/view`, and uploads, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Stub {
    pub(super) async fn start(
        tasks: &Tasks,
        on_prompt: impl Fn(Self, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let stub = Self {
            state: Arc::default(),
            changed: watch::Sender::new(()),
            frames: broadcast::channel(1024).0,
            tasks: tasks.clone(),
            dead: CancellationToken::new(),
            on_prompt: Arc::new(on_prompt),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let router = Router::new()
            .route("/system_stats", get(stats))
            .route("/object_info", get(object_info))
            .route(
                "/prompt",
                get(async || axum::Json(json!({"exec_info": {"queue_remaining": 0}}))).post(prompt),
            )
            .route("/queue", get(queue).post(unqueue))
            .route("/history", get(all_history).post(forget))
            .route("/history/{id}", get(history))
            .route("/interrupt", axum::routing::post(interrupt))
            .route("/free", axum::routing::post(free))
            .route("/upload/image", axum::routing::post(upload))
            .route("/internal/folder_paths", get(folder_paths))
            .route("/view", get(view))
            .route("/ws", get(socket))
            .with_state(stub.clone());
        let (dead, stopping) = (stub.dead.clone(), tasks.stopping());
        tasks.spawn("stub", async move {
            // Not graceful: a crash closes everything at once.
            tokio::select! {
                served = async { axum::serve(listener, router).await } => served?,
                () = dead.cancelled() => {}
                () = stopping.cancelled() => {}
            }
            Ok(())
        });
        stub
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Waits for a fact about the state.
    pub(super) async fn until(&self, fact: impl Fn(&Inner) -> bool) {
        let mut changes = self.changed.subscribe();
        while !self.with_quietly(&fact) {
            changes.changed().await.unwrap();
        }
    }

    fn with_quietly<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn frame(&self, kind: &str, data: Value) {
        // Nobody listening is one of the cases.
        drop(self.frames.send(Message::text(json!({"type": kind, "data": data}).to_string())));
    }

    pub(super) fn picture(&self, bytes: &[u8]) {
        let frame = [&1_u32.to_be_bytes(), &2_u32.to_be_bytes(), bytes].concat();
        drop(self.frames.send(Message::binary(frame)));
    }

    /// Closes every socket and the port.
    pub(super) fn crash(&self) {
        self.dead.cancel();
    }

    pub(super) fn run(&self, id: &str) {
        self.with(|state| {
            if let Some(row) = state.pending.remove(id) {
                state.running.insert(id.to_owned(), row);
            }
        });
        self.frame("execution_start", json!({"prompt_id": id}));
    }

    /// Writes history with one picture of node 9, which `/view` then has.
    pub(super) fn finish(&self, id: &str) {
        let messages =
            json!([["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 1250}]]);
        let outputs =
            json!({"9": {"images": [{"filename": "out_00001_.png", "subfolder": "s", "type": "output"}]}});
        let status = json!({"status_str": "success", "completed": true, "messages": messages});
        self.with(|state| {
            state.files.insert("out_00001_.png".into(), b"\x89PNG picture".to_vec());
        });
        self.end(id, json!({"outputs": outputs, "status": status}));
    }

    /// Executes a posted graph of one picture, or answers it from the cache.
    pub(super) fn execute(&self, id: &str) {
        let messages = self.with(|state| {
            let posted = state.posted.iter().rev().find(|body| body["prompt_id"] == id);
            let picture = posted.map(|body| body["prompt"]["1"]["inputs"]["color"].to_string());
            let cached = picture.is_some_and(|picture| !state.cache.insert(picture));
            let nodes = if cached { json!(["1"]) } else { json!([]) };
            json!([["execution_start", {}], ["execution_cached", {"nodes": nodes}], ["execution_success", {}]])
        });
        let status = json!({"status_str": "success", "completed": true, "messages": messages});
        self.end(id, json!({"outputs": {}, "status": status}));
    }

    pub(super) fn end(&self, id: &str, entry: Value) {
        self.with(|state| {
            state.running.remove(id);
            state.pending.remove(id);
            state.history.insert(id.to_owned(), entry);
        });
    }
}

async fn stats(State(stub): State<Stub>) -> axum::Json<Value> {
    let device = |held: u64| {
        json!({"name": "cuda:0 stub", "type": "cuda", "vram_total": 24_000_u64 << 20, "vram_free": (23_000 - held) << 20,
            "torch_vram_total": held << 20, "torch_vram_free": 0})
    };
    let devices: Vec<Value> = stub.with_quietly(|state| state.held_mib).map(device).into_iter().collect();
    axum::Json(json!({"system": {"comfyui_version": "stub"}, "devices": devices}))
}

async fn object_info(State(stub): State<Stub>) -> String {
    let said = stub.with(|state| state.object_info.clone());
    said.unwrap_or_else(|| super::super::comfyui::testing::OBJECT_INFO.to_owned())
}

async fn prompt(State(stub): State<Stub>, axum::Json(body): axum::Json<Value>) -> Response {
    let id = body["prompt_id"].as_str().unwrap_or_default().to_owned();
    let row = json!([0, id, body["prompt"], body["extra_data"], []]);
    stub.with(|state| {
        state.posted.push(body);
        state.pending.insert(id.clone(), row);
    });
    let (played, prompt_id) = (stub.clone(), id.clone());
    stub.tasks.spawn("stub prompt", async move {
        (played.on_prompt.clone())(played.clone(), prompt_id).await;
        Ok(())
    });
    axum::Json(json!({"prompt_id": id, "number": 0, "node_errors": {}})).into_response()
}

async fn queue(State(stub): State<Stub>) -> axum::Json<Value> {
    let rows = |rows: &BTreeMap<String, Value>| rows.values().cloned().collect::<Vec<_>>();
    axum::Json(
        stub.with(
            |state| json!({"queue_running": rows(&state.running), "queue_pending": rows(&state.pending)}),
        ),
    )
}

async fn unqueue(State(stub): State<Stub>, axum::Json(body): axum::Json<Value>) {
    stub.with(|state| {
        for id in body["delete"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            state.pending.remove(id);
        }
        state.unqueued.push(body);
    });
}

async fn forget(State(stub): State<Stub>, axum::Json(body): axum::Json<Value>) {
    stub.with(|state| {
        for id in body["delete"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            state.history.remove(id);
        }
        state.forgotten.push(body);
    });
}

async fn all_history(State(stub): State<Stub>) -> axum::Json<Value> {
    axum::Json(json!(stub.with(|state| state.history.clone())))
}

async fn folder_paths(State(stub): State<Stub>) -> axum::Json<Value> {
    let base = stub.with(|state| state.base.clone());
    axum::Json(base.map_or(json!({}), |base| json!({"custom_nodes": [base.join("custom_nodes")]})))
}

async fn history(State(stub): State<Stub>, Path(id): Path<String>) -> Response {
    let answer = stub.with(|state| {
        if state.nonsense > 0 {
            state.nonsense -= 1;
            return None;
        }
        Some(state.history.get(&id).map_or(json!({}), |entry| json!({id.as_str(): entry})))
    });
    match answer {
        Some(answer) => axum::Json(answer).into_response(),
        None => "<html>gateway</html>".into_response(),
    }
}

/// As the real one: with an id only the running prompt of that id, without one whatever runs.
async fn interrupt(State(stub): State<Stub>, axum::Json(body): axum::Json<Value>) {
    let id = body["prompt_id"].as_str().map(str::to_owned);
    let hit = stub.with(|state| {
        state.interrupted.push(body);
        if state.wedged {
            return None;
        }
        match id {
            Some(id) => state.running.contains_key(&id).then_some(id),
            None => state.running.keys().next().cloned(),
        }
    });
    if let Some(id) = hit {
        let status = json!({"status_str": "error", "messages": [["execution_interrupted", {}]]});
        stub.end(&id, json!({"outputs": {}, "status": status}));
        stub.frame("execution_interrupted", json!({"prompt_id": id}));
    }
}

async fn free(State(stub): State<Stub>) {
    stub.with(|state| {
        state.freed += 1;
        if !state.keeps_cache {
            state.cache.clear();
            state.held_mib = state.held_mib.map(|held| held.min(100));
        }
    });
}

/// Renames whatever it gets, as the real one does when a name is taken.
async fn upload(State(stub): State<Stub>, mut form: Multipart) -> Result<axum::Json<Value>, StatusCode> {
    let stumbles = stub.with(|state| {
        let stumbles = state.stumbles > 0;
        state.stumbles = state.stumbles.saturating_sub(1);
        stumbles
    });
    if stumbles {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let (mut name, mut subfolder, mut kind) = (String::new(), String::new(), String::new());
    while let Some(field) = form.next_field().await.unwrap() {
        match field.name().unwrap_or_default() {
            "type" => kind = field.text().await.unwrap(),
            "subfolder" => subfolder = field.text().await.unwrap(),
            "image" => {
                name = format!("renamed {}", field.file_name().unwrap_or_default());
                let bytes = field.bytes().await.unwrap().to_vec();
                if let Some(base) = stub.with(|state| state.base.clone()) {
                    let folder = base.join(&kind).join(&subfolder);
                    std::fs::create_dir_all(&folder).unwrap();
                    std::fs::write(folder.join(&name), &bytes).unwrap();
                }
                stub.with(|state| state.files.insert(format!("{subfolder}/{name}"), bytes));
            }
            _ => {}
        }
    }
    Ok(axum::Json(json!({"name": name, "subfolder": subfolder, "type": "input"})))
}

async fn view(State(stub): State<Stub>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let found = stub.with(|state| state.files.get(&query["filename"]).cloned());
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn socket(State(stub): State<Stub>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let mut frames = stub.frames.subscribe();
        stub.with(|state| state.sockets += 1);
        loop {
            tokio::select! {
                () = stub.dead.cancelled() => return,
                frame = frames.recv() => match frame {
                    Ok(frame) => if socket.send(frame).await.is_err() { return },
                    Err(_) => return,
                },
                message = socket.recv() => if message.is_none() { return },
            }
        }
    })
}
