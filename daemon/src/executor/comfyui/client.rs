//! ComfyUI's HTTP and WebSocket dialect: one method per call, a timeout and a size limit on each.
//!
//! Answers are read leniently (unknown fields ignored, numbers as integers or floats), but never without bounds:
//! what sits on that port need not be a ComfyUI.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// For calls that ComfyUI answers from memory. It shares one interpreter with the sampler, so seconds are normal.
const QUICK: Duration = Duration::from_secs(15);
/// For `/object_info`: custom nodes scan their folders while it is built.
const SLOW: Duration = Duration::from_secs(120);
/// Longest silence within a transfer.
const STALL: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);

/// Answers of a few fields.
const SMALL: usize = 1 << 20;
/// A history entry or the queue: each carries whole graphs.
const GRAPHS: usize = 128 << 20;
/// `/object_info` is a few MiB in practice; clients in the field stop at this size.
const OBJECT_INFO: usize = 64 << 20;
/// One WebSocket message: `SaveImageWebsocket` sends whole pictures.
const FRAME: usize = 256 << 20;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An endpoint's URL that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the address of a ComfyUI: {why}; write url = \"http://HOST:PORT\" in [[comfyui]]")]
pub struct BadEndpoint {
    pub url: String,
    pub why: String,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{call} at {base}: no answer ({why}); is ComfyUI running there?")]
    Unreachable { call: &'static str, base: String, why: String, refused: bool },
    /// What it says besides stays out of the sentence: it may name files, and sentences are logged.
    #[error("{call} at {base}: status {status}")]
    Status { call: &'static str, base: String, status: u16, body: String },
    #[error("{call} at {base}: the answer is not what ComfyUI says: {why}")]
    Garbage { call: &'static str, base: String, why: String },
}

/// What ComfyUI said to a prompt.
#[derive(Debug)]
pub(super) enum Posted {
    /// Queued. `node_errors` may name outputs that it dropped nevertheless.
    Accepted { prompt_id: String, node_errors: Value },
    /// 400: the whole body, `error` and `node_errors`.
    Refused(Value),
}

/// Where an uploaded file ended up: not necessarily under the name it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uploaded {
    pub name: String,
    pub subfolder: String,
}

/// A file as `/view` names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileRef {
    pub filename: String,
    pub subfolder: String,
    /// `output`, `temp` or `input`.
    pub kind: String,
}

/// Our prompts and others' in the queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queue {
    pub running: Vec<Queued>,
    pub pending: Vec<Queued>,
}

/// A row of the queue: its id and `extra_data`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Queued {
    pub prompt_id: String,
    pub extra_data: Value,
}

/// One ComfyUI. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: reqwest::Url,
}

impl Client {
    pub(super) fn new(url: &str) -> Result<Self, BadEndpoint> {
        let bad = |why: String| BadEndpoint { url: url.chars().take(200).collect(), why };
        let mut base = reqwest::Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if base.scheme() != "http" {
            return Err(bad(
                "only http is spoken, ComfyUI is expected on this machine or its own network".into()
            ));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host".into()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self { http, base })
    }

    pub(super) fn base(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Whether it is reached through this machine's loopback.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(super) async fn system_stats(&self) -> Result<Value, CallError> {
        self.get_json("GET /system_stats", "system_stats", QUICK, SMALL).await
    }

    pub(super) async fn object_info(&self) -> Result<Bytes, CallError> {
        let call = "GET /object_info";
        let response = self.send(call, self.request(Method::GET, "object_info").timeout(SLOW)).await?;
        self.body(call, response, OBJECT_INFO).await
    }

    /// Folder names of `/models`.
    pub(super) async fn model_folders(&self) -> Result<Vec<String>, CallError> {
        self.get_json("GET /models", "models", QUICK, SMALL).await.map(|value| strings(&value))
    }

    pub(super) async fn models(&self, folder: &str) -> Result<Vec<String>, CallError> {
        let path = format!("models/{folder}");
        self.get_json("GET /models/{folder}", &path, QUICK, GRAPHS).await.map(|value| strings(&value))
    }

    /// ComfyUI's folders by purpose, where it tells.
    pub(super) async fn folder_paths(&self) -> Result<Value, CallError> {
        self.get_json("GET /internal/folder_paths", "internal/folder_paths", QUICK, SMALL).await
    }

    /// How many prompts run or wait, whosever they are.
    pub(super) async fn queue_remaining(&self) -> Result<u64, CallError> {
        let value = self.get_json("GET /prompt", "prompt", QUICK, SMALL).await?;
        Ok(value.pointer("/exec_info/queue_remaining").and_then(Value::as_u64).unwrap_or(0))
    }

    pub(super) async fn queue(&self) -> Result<Queue, CallError> {
        let call = "GET /queue";
        let value = self.get_json(call, "queue", QUICK, GRAPHS).await?;
        let rows = |key: &str| -> Result<Vec<Queued>, CallError> {
            let rows = value.get(key).and_then(Value::as_array);
            let rows = rows.ok_or_else(|| self.garbage(call, format!("it has no list {key}")))?;
            Ok(rows.iter().filter_map(read_queued).collect())
        };
        Ok(Queue { running: rows("queue_running")?, pending: rows("queue_pending")? })
    }

    /// The history entry of a prompt, `None` when there is none.
    pub(super) async fn history(&self, prompt_id: &str) -> Result<Option<Value>, CallError> {
        let call = "GET /history/{id}";
        let path = format!("history/{prompt_id}");
        match self.get_json(call, &path, QUICK, GRAPHS).await? {
            Value::Object(mut entries) => Ok(entries.remove(prompt_id)),
            _ => Err(self.garbage(call, "it is not an object".into())),
        }
    }

    /// Ids and `extra_data` of the latest history entries.
    pub(super) async fn recent_history(&self, most: usize) -> Result<Vec<Queued>, CallError> {
        let call = "GET /history";
        match self.get_json(call, &format!("history?max_items={most}"), QUICK, GRAPHS).await? {
            Value::Object(entries) => {
                Ok(entries.values().filter_map(|entry| read_queued(entry.get("prompt")?)).collect())
            }
            _ => Err(self.garbage(call, "it is not an object".into())),
        }
    }

    pub(super) async fn post_prompt(&self, body: &Value) -> Result<Posted, CallError> {
        let call = "POST /prompt";
        let request = self.request(Method::POST, "prompt").timeout(SLOW).json(body);
        let response = request.send().await.map_err(|error| self.unreachable(call, &error))?;
        let status = response.status();
        let bytes = self.body(call, response, GRAPHS).await?;
        let value: Result<Value, _> = serde_json::from_slice(&bytes);
        match (status, value) {
            (StatusCode::OK, Ok(value)) => {
                let Some(prompt_id) = value.get("prompt_id").and_then(Value::as_str) else {
                    return Err(self.garbage(call, "it names no prompt_id".into()));
                };
                let node_errors = value.get("node_errors").cloned().unwrap_or_default();
                Ok(Posted::Accepted { prompt_id: prompt_id.to_owned(), node_errors })
            }
            (StatusCode::OK, Err(error)) => Err(self.garbage(call, error.to_string())),
            (StatusCode::BAD_REQUEST, Ok(value)) => Ok(Posted::Refused(value)),
            (status, _) => Err(self.status(call, status, &bytes)),
        }
    }

    /// Takes prompts out of the queue; nothing happens to one that runs.
    pub(super) async fn unqueue(&self, prompt_id: &str) -> Result<(), CallError> {
        self.post("POST /queue", "queue", &json!({"delete": [prompt_id]})).await
    }

    /// Interrupts this prompt if it is the one running. Never sent without an id: that would stop whatever runs.
    pub(super) async fn interrupt(&self, prompt_id: &str) -> Result<(), CallError> {
        self.post("POST /interrupt", "interrupt", &json!({"prompt_id": prompt_id})).await
    }

    pub(super) async fn forget(&self, prompt_id: &str) -> Result<(), CallError> {
        self.post("POST /history", "history", &json!({"delete": [prompt_id]})).await
    }

    /// Empties the execution cache and unloads the models.
    pub(super) async fn free(&self) -> Result<(), CallError> {
        self.post("POST /free", "free", &json!({"unload_models": true, "free_memory": true})).await
    }

    /// Uploads a file of known length into `kind` (`input`, `output` or `temp`).
    pub(super) async fn upload(
        &self,
        kind: &'static str,
        subfolder: &str,
        name: &str,
        body: reqwest::Body,
        bytes: u64,
    ) -> Result<Uploaded, CallError> {
        let call = "POST /upload/image";
        let file = reqwest::multipart::Part::stream_with_length(body, bytes).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new()
            .text("type", kind)
            .text("subfolder", subfolder.to_owned())
            .part("image", file);
        // Ten megabytes a second at least, or something is stuck.
        let within = STALL + Duration::from_secs(bytes / 10_000_000);
        let request = self.request(Method::POST, "upload/image").timeout(within).multipart(form);
        let response = self.send(call, request).await?;
        let bytes = self.body(call, response, SMALL).await?;
        let value = self.parse(call, &bytes)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("name").ok_or_else(|| self.garbage(call, "it names no file".into()))?;
        Ok(Uploaded { name, subfolder: text("subfolder").unwrap_or_default() })
    }

    /// A file's bytes as they come; `None` when ComfyUI does not have it.
    pub(super) async fn view(&self, file: &FileRef) -> Result<Option<Response>, CallError> {
        let call = "GET /view";
        let query = [("filename", &file.filename), ("subfolder", &file.subfolder), ("type", &file.kind)];
        let request = self.request(Method::GET, "view").query(&query);
        match self.send(call, request).await {
            Ok(response) => Ok(Some(response)),
            Err(CallError::Status { status: 400 | 403 | 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next piece of a `/view` answer.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, CallError> {
        response.chunk().await.map_err(|error| self.unreachable("GET /view", &error))
    }

    /// Opens the event socket. Frames of prompts posted under this client id come here; a second socket with the
    /// same id would take them away from the first.
    pub(super) async fn socket(&self, client_id: &str) -> Result<Socket, CallError> {
        let call = "GET /ws";
        let mut url = self.base.join("ws").expect("a base with a path takes a relative one");
        url.set_scheme("ws").expect("http turns into ws");
        url.query_pairs_mut().append_pair("clientId", client_id);
        let limits = WebSocketConfig::default().max_message_size(Some(FRAME)).max_frame_size(Some(FRAME));
        let connecting = tokio_tungstenite::connect_async_with_config(url.as_str(), Some(limits), true);
        let failed =
            |why: String, refused: bool| CallError::Unreachable { call, base: self.base(), why, refused };
        let (mut socket, _) = match tokio::time::timeout(QUICK, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                let refused = matches!(&error, tungstenite::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused);
                return Err(failed(error.to_string(), refused));
            }
            Err(_) => return Err(failed("timed out".into(), false)),
        };
        // Must be the first message; servers that do not know it ignore it.
        let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}});
        socket
            .send(Message::text(flags.to_string()))
            .await
            .map_err(|error| failed(error.to_string(), false))?;
        Ok(socket)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.base.join(path).expect("a base with a path takes a relative one");
        self.http.request(method, url)
    }

    async fn get_json(
        &self,
        call: &'static str,
        path: &str,
        within: Duration,
        limit: usize,
    ) -> Result<Value, CallError> {
        let response = self.send(call, self.request(Method::GET, path).timeout(within)).await?;
        let bytes = self.body(call, response, limit).await?;
        self.parse(call, &bytes)
    }

    async fn post(&self, call: &'static str, path: &str, body: &Value) -> Result<(), CallError> {
        let request = self.request(Method::POST, path).timeout(QUICK).json(body);
        let response = self.send(call, request).await?;
        self.body(call, response, SMALL).await.map(drop)
    }

    async fn send(&self, call: &'static str, request: RequestBuilder) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|error| self.unreachable(call, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(call, response, SMALL).await.unwrap_or_default();
        Err(self.status(call, status, &body))
    }

    async fn body(
        &self,
        call: &'static str,
        mut response: Response,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        let too_large = || self.garbage(call, format!("it is larger than {} MiB", limit >> 20));
        if response.content_length().is_some_and(|announced| announced > limit as u64) {
            return Err(too_large());
        }
        let mut body = bytes::BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(call, &error))? {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn parse(&self, call: &'static str, bytes: &[u8]) -> Result<Value, CallError> {
        serde_json::from_slice(bytes).map_err(|error| self.garbage(call, error.to_string()))
    }

    fn garbage(&self, call: &'static str, why: String) -> CallError {
        CallError::Garbage { call, base: self.base(), why }
    }

    fn status(&self, call: &'static str, status: StatusCode, body: &[u8]) -> CallError {
        let body = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
        let body = body.chars().take(200).collect();
        CallError::Status { call, base: self.base(), status: status.as_u16(), body }
    }

    fn unreachable(&self, call: &'static str, error: &reqwest::Error) -> CallError {
        let mut why = if error.is_timeout() { "timed out".to_owned() } else { error.to_string() };
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            why = cause.to_string();
            source = cause.source();
        }
        CallError::Unreachable {
            call,
            base: self.base(),
            why,
            refused: error.is_connect() && !error.is_timeout(),
        }
    }
}

impl CallError {
    /// Nobody listens on the port: the process is gone, not merely busy.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable { refused: true, .. })
    }
}

/// The next message of a socket, decoded no further; `None` when it is closed or broken.
pub(super) async fn next_message(socket: &mut Socket) -> Option<Message> {
    socket.next().await?.ok()
}

/// Closes a socket and waits until the server has done so too: when ComfyUI's handler of a socket ends, it removes
/// whatever is registered under the client id, also a newer socket. Gives what was still on its way.
pub(super) async fn hang_up(mut socket: Socket) -> Vec<Message> {
    let mut late = Vec::new();
    let closing = async {
        socket.close(None).await?;
        while let Some(Ok(message)) = socket.next().await {
            late.push(message);
        }
        Ok::<_, tungstenite::Error>(())
    };
    // A server that does not answer has its reasons; silence then leads here again.
    drop(tokio::time::timeout(CONNECT, closing).await);
    late
}

/// `[number, prompt_id, prompt, extra_data, outputs, …]`
fn read_queued(row: &Value) -> Option<Queued> {
    let row = row.as_array()?;
    let prompt_id = row.get(1)?.as_str()?.to_owned();
    Some(Queued { prompt_id, extra_data: row.get(3).cloned().unwrap_or_default() })
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_a_comfyui_are_told_with_the_key_to_change() {
        let told = |url: &str| Client::new(url).unwrap_err().to_string();
        assert!(told("https://127.0.0.1:8188").contains("only http is spoken"));
        assert!(told("127.0.0.1:8188").contains("[[comfyui]]"));
        assert!(told("http://").contains("is not the address of a ComfyUI"));
        let client = Client::new("http://127.0.0.1:8188/one").unwrap();
        assert_eq!(client.base(), "http://127.0.0.1:8188/one");
        assert!(client.is_loopback());
        assert!(Client::new("http://[::1]:8188").unwrap().is_loopback());
        assert!(!Client::new("http://10.0.0.2:8188").unwrap().is_loopback());
    }

    #[test]
    fn rows_of_the_queue_are_read_whatever_follows_the_id() {
        let row = json!([66, "a", {"12:3": {}}, {"client_id": "c"}, ["9"], {"secret": 1}]);
        assert_eq!(read_queued(&row).unwrap().extra_data, json!({"client_id": "c"}));
        assert_eq!(read_queued(&json!([66, "a"])).unwrap().prompt_id, "a");
        assert_eq!(read_queued(&json!("nonsense")), None);
    }
}
