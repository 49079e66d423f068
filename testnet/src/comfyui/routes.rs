//! The HTTP and WebSocket surface, bare and under `/api`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use tokio::net::TcpListener;

use super::disk::{Disk, Folder};
use super::log::LogEvent;
use super::machine::Machine;
use super::plug::PluggedListener;
use super::queue::Item;
use super::sockets::{Frame, event};
use super::validate::{self, Refused, Shelf};
use super::{FaultKind, files, pythonic};

/// `max_upload_size`: the default of the real server, 100 MB.
const LARGEST_UPLOAD: usize = 100 * 1024 * 1024;
/// The largest frame a client may send; aiohttp's default.
const LARGEST_FRAME: usize = 4 * 1024 * 1024;

type Shared = State<Arc<Machine>>;

/// Serves until the power is cut.
pub(super) async fn serve(machine: Arc<Machine>, listener: TcpListener) {
    let power = machine.power.clone();
    let listener = PluggedListener { listener, power: power.clone() };
    let app = router(machine);
    // An accept loop never ends on its own, and a failing one ends with the power.
    tokio::select! {
        _ = axum::serve(listener, app).into_future() => {}
        () = power.cancelled() => {}
    }
}

fn router(machine: Arc<Machine>) -> Router {
    let routes = Router::new()
        .route("/ws", get(websocket))
        .route("/prompt", get(exec_info).post(post_prompt))
        .route(
            "/queue",
            get(|State(machine): Shared| async move { Json(machine.queue(|queue| queue.view())) })
                .post(post_queue),
        )
        .route("/history", get(history).post(post_history))
        .route("/history/{id}", get(history_of))
        .route("/interrupt", post(interrupt))
        .route("/free", post(free))
        .route("/view", get(files::view))
        .route("/view_metadata/{folder}", get(files::view_metadata))
        .route("/upload/image", post(files::upload_image))
        .route("/upload/mask", post(files::upload_mask))
        .route(
            "/object_info",
            get(|State(machine): Shared| async move { Json(machine.catalog.all(&machine.disk)) }),
        )
        .route("/object_info/{class}", get(object_info_of))
        .route("/system_stats", get(|State(machine): Shared| async move { Json(machine.system_stats()) }))
        .route("/features", get(|| async { Json(features()) }))
        .route("/models", get(|| async { Json(Disk::model_folders()) }))
        .route("/models/{folder}", get(models))
        .route("/embeddings", get(embeddings))
        .route("/extensions", get(|| async { Json(json!([])) }))
        .route("/users", get(|| async { Json(json!({"storage": "server", "migrated": false})) }))
        .route("/settings", get(|| async { Json(json!({})) }))
        .route("/i18n", get(|| async { Json(json!({})) }));
    Router::new()
        .merge(routes.clone())
        .nest("/api", routes)
        .route("/internal/folder_paths", get(folder_paths))
        .route("/internal/files/{folder}", get(internal_files))
        .route("/", get(|| async { "a simulated ComfyUI 0.3.64 for SceneMesh" }))
        .layer(from_fn_with_state(Arc::clone(&machine), at_the_door))
        .layer(DefaultBodyLimit::max(LARGEST_UPLOAD))
        .with_state(machine)
}

/// A real server that trips over a request answers so.
pub(super) fn trips() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n\nServer got itself in trouble")
        .into_response()
}

fn features() -> Value {
    json!({"supports_preview_metadata": true, "max_upload_size": LARGEST_UPLOAD})
}

/// Refuses pages of other origins, and answers garbage when told to.
async fn at_the_door(State(machine): Shared, request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let asks = request.method() == Method::GET || request.uri().path().ends_with("/prompt");
    let upgrades = request.headers().contains_key(header::UPGRADE);
    if asks && !upgrades && machine.strikes(FaultKind::Garbage, None) {
        return ([(header::CONTENT_TYPE, "application/json")], &b"{\"queue_running\": [[\xff\x00<html>"[..])
            .into_response();
    }
    next.run(request).await
}

/// An `Origin` that differs from a loopback `Host`; a foreign `Host` is served, as by the real one.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else { return false };
    let origin =
        origin.split_once("://").map_or(origin, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let split = |authority: &str| match authority.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|ch| ch.is_ascii_digit()) => {
            (name.to_lowercase(), Some(port.to_owned()))
        }
        _ => (authority.to_lowercase(), None),
    };
    let ((host, host_port), (origin, origin_port)) = (split(host), split(origin));
    let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let ports_differ = host_port.is_some() && origin_port.is_some() && host_port != origin_port;
    loopback && !host.is_empty() && !origin.is_empty() && (host != origin || ports_differ)
}

#[derive(Deserialize)]
struct ClientId {
    #[serde(rename = "clientId", default)]
    client_id: String,
}

async fn websocket(
    State(machine): Shared,
    Query(client): Query<ClientId>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let sid = if client.client_id.is_empty() { fresh_id().replace('-', "") } else { client.client_id };
    upgrade.max_message_size(LARGEST_FRAME).on_upgrade(move |socket| listen(machine, sid, socket))
}

async fn listen(machine: Arc<Machine>, sid: String, socket: WebSocket) {
    let mut frames = machine.open_socket(&sid);
    let (mut sender, mut receiver) = socket.split();
    let mut first = true;
    let mut replaced = false;
    loop {
        tokio::select! {
            frame = frames.recv(), if !replaced => {
                let message = match frame {
                    Some(Frame::Text(text)) => Message::Text(text.into()),
                    Some(Frame::Binary(bytes)) => Message::Binary(bytes),
                    None => {
                        // A newer socket has this id; this one stays open and hears nothing.
                        replaced = true;
                        continue;
                    }
                };
                if sender.send(message).await.is_err() {
                    break;
                }
            }
            message = receiver.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let parsed: Option<Value> = serde_json::from_str(&text).ok();
                    let Some(parsed) = parsed else { continue };
                    if first && parsed["type"] == "feature_flags" {
                        machine.sockets(|sockets| {
                            sockets.note_flags(&sid, &parsed["data"]);
                            sockets.send(Some(&sid), &event("feature_flags", &features()));
                        });
                    }
                    first = false;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    machine.sockets(|sockets| sockets.close(&sid));
}

/// A random UUID, version 4.
fn fresh_id() -> String {
    let mut word = u128::from_le_bytes(random());
    word = word & !(0xf << 76) | 0x4 << 76;
    word = word & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{word:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn random() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let [a, b] = [0, 1].map(|n| RandomState::new().hash_one(n).to_le_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a);
    bytes[8..].copy_from_slice(&b);
    bytes
}

async fn exec_info(State(machine): Shared) -> Json<Value> {
    Json(json!({"exec_info": {"queue_remaining": machine.queue(|queue| queue.remaining())}}))
}

impl Shelf for Machine {
    fn definition(&self, class: &str) -> Option<Value> {
        self.catalog.definition(class, &self.disk)
    }

    fn has_file(&self, annotated: &str) -> bool {
        self.disk.annotated_path(annotated).is_some_and(|path| path.exists())
    }
}

/// A JSON object, whatever the content type says. A list or a string counts as an empty one, since Python finds no key in it.
fn object(body: &Bytes) -> Option<Map<String, Value>> {
    match serde_json::from_slice(body).ok()? {
        Value::Object(object) => Some(object),
        Value::Array(_) | Value::String(_) => Some(Map::new()),
        _ => None,
    }
}

/// The ids to delete; `None` where Python cannot iterate over them.
fn to_delete(asked: &Map<String, Value>) -> Option<Vec<String>> {
    match asked.get("delete") {
        Some(Value::Array(ids)) => Some(ids.iter().map(pythonic::text).collect()),
        None | Some(Value::String(_) | Value::Object(_)) => Some(Vec::new()),
        Some(_) => None,
    }
}

async fn post_prompt(State(machine): Shared, body: Bytes) -> Response {
    let Some(mut asked) = object(&body) else { return trips() };
    let number = match asked.get("number") {
        Some(number) => {
            match pythonic::float(number).ok().and_then(|number| number.as_f64()).and_then(Number::from_f64) {
                Some(number) => number,
                None => return trips(),
            }
        }
        None => machine.queue(|queue| queue.next_number(asked.get("front").is_some_and(pythonic::truth))),
    };
    let Some(mut prompt) = asked.shift_remove("prompt") else {
        let error = validate::problem("no_prompt", "No prompt provided", "No prompt provided");
        return (StatusCode::BAD_REQUEST, Json(json!({"error": error, "node_errors": {}}))).into_response();
    };
    let id = asked.get("prompt_id").map_or_else(fresh_id, pythonic::text);
    let targets: Option<Vec<String>> = asked
        .get("partial_execution_targets")
        .and_then(Value::as_array)
        .map(|targets| targets.iter().map(pythonic::text).collect());
    let valid = match validate::validate(&mut prompt, targets.as_deref(), machine.as_ref()) {
        Ok(valid) => valid,
        Err(Refused::Invalid(body)) => return (StatusCode::BAD_REQUEST, Json(body)).into_response(),
        Err(Refused::Trips) => return trips(),
    };
    let mut extra_data = match asked.shift_remove("extra_data") {
        None => Map::new(),
        Some(Value::Object(extra_data)) => extra_data,
        Some(_) => return trips(),
    };
    if let Some(client_id) = asked.shift_remove("client_id") {
        extra_data.insert("client_id".to_owned(), client_id);
    }
    let answer = json!({"prompt_id": id, "number": number, "node_errors": valid.node_errors});
    let item = Item { number, id, prompt, extra_data, outputs: valid.outputs };
    machine.log.write(Some(&item.id), item.client_id(), LogEvent::Queued);
    machine.change_queue(|queue| queue.put(item));
    Json(answer).into_response()
}

async fn post_queue(State(machine): Shared, body: Bytes) -> Response {
    let Some(asked) = object(&body) else { return trips() };
    let mut dropped = Vec::new();
    if asked.get("clear").is_some_and(pythonic::truth) {
        dropped = machine.change_queue(|queue| queue.clear());
    }
    let Some(ids) = to_delete(&asked) else { return trips() };
    for id in ids {
        if let Some(item) = machine.queue(|queue| queue.delete(&id)) {
            machine.change_queue(|_| ());
            dropped.push(item);
        }
    }
    for item in dropped {
        machine.log.write(Some(&item.id), item.client_id(), LogEvent::Dequeued);
    }
    StatusCode::OK.into_response()
}

#[derive(Deserialize)]
struct HistoryWanted {
    max_items: Option<String>,
    offset: Option<String>,
}

async fn history(State(machine): Shared, Query(wanted): Query<HistoryWanted>) -> Response {
    let number = |text: Option<String>| text.map(|text| text.trim().parse::<i64>()).transpose();
    match (number(wanted.max_items), number(wanted.offset)) {
        (Ok(max_items), Ok(offset)) => {
            Json(machine.queue(|queue| queue.history(max_items, offset.unwrap_or(-1)))).into_response()
        }
        _ => trips(),
    }
}

async fn history_of(State(machine): Shared, Path(id): Path<String>) -> Json<Value> {
    Json(machine.queue(|queue| queue.history_of(&id)))
}

async fn post_history(State(machine): Shared, body: Bytes) -> Response {
    let Some(asked) = object(&body) else { return trips() };
    let mut forgotten = Vec::new();
    if asked.get("clear").is_some_and(pythonic::truth) {
        forgotten = machine.queue(|queue| queue.forget_all());
    }
    let Some(ids) = to_delete(&asked) else { return trips() };
    for id in ids {
        if machine.queue(|queue| queue.forget(&id)) {
            forgotten.push(id);
        }
    }
    for id in forgotten {
        machine.log.write(Some(&id), None, LogEvent::Forgotten);
    }
    StatusCode::OK.into_response()
}

/// With an id: only where that prompt is running. Without one: whatever runs, whoever asked for it.
async fn interrupt(State(machine): Shared, body: Bytes) -> Response {
    let asked = match serde_json::from_slice(&body) {
        Ok(Value::Object(asked)) => asked,
        Ok(_) => return trips(),
        Err(_) => Map::new(),
    };
    let named = asked.get("prompt_id").filter(|id| pythonic::truth(id)).map(pythonic::text);
    if named.is_none_or(|id| machine.queue(|queue| queue.is_running(&id))) {
        machine.interrupt();
    }
    StatusCode::OK.into_response()
}

async fn free(State(machine): Shared, body: Bytes) -> Response {
    let Ok(asked) = serde_json::from_slice::<Map<String, Value>>(&body) else { return trips() };
    let wants = |name| asked.get(name).is_some_and(pythonic::truth);
    machine.queue(|queue| {
        queue.unload_models |= wants("unload_models");
        queue.free_memory |= wants("free_memory");
    });
    machine.wake.notify_one();
    StatusCode::OK.into_response()
}

async fn object_info_of(State(machine): Shared, Path(class): Path<String>) -> Json<Value> {
    let definition = machine.catalog.definition(&class, &machine.disk);
    Json(definition.map_or_else(|| json!({}), |definition| json!({class: definition})))
}

async fn models(State(machine): Shared, Path(folder): Path<String>) -> Response {
    if !Disk::is_model_folder(&folder) {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(machine.disk.models(&folder)).into_response()
}

async fn embeddings(State(machine): Shared) -> Json<Value> {
    let stem = |name: &String| name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
    Json(json!(machine.disk.models("embeddings").iter().map(stem).collect::<Vec<_>>()))
}

async fn folder_paths(State(machine): Shared) -> Response {
    if machine.strikes(FaultKind::NoFolderPaths, None) {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(machine.disk.folder_paths()).into_response()
}

async fn internal_files(State(machine): Shared, Path(folder): Path<String>) -> Response {
    match Folder::parse(&folder) {
        Some(folder) => Json(machine.disk.files(folder)).into_response(),
        None => (StatusCode::BAD_REQUEST, Json(json!({"error": "Invalid directory type"}))).into_response(),
    }
}
