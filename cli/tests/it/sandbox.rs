//! A scripted daemon on loopback, and the command in an environment of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

pub(crate) const NODE: &str = "12D3KooWA1YFQ5hX8zT8BsBFrFnnRCZEaXm7Xz5oJ9vJ5v1m3XyZ";
pub(crate) const TOKEN: &str = "open sesame";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An answer that stands in the script.
#[derive(Clone, Debug)]
enum Answer {
    Json(u16, Value),
    Bytes(Vec<u8>),
    Events(String),
}

#[derive(Debug, Default)]
struct Script {
    /// Answers by request line, in order; the last one stays.
    answers: Vec<(String, VecDeque<Answer>)>,
    heard: Vec<Heard>,
}

/// The daemon that says what it was told to say, and the directory that names it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
    script: Arc<Mutex<Script>>,
    port: u16,
    _server: JoinSet<()>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The last line of stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Sandbox {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = axum::Router::new().fallback(answer).with_state(script.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let file = json!({ "url": format!("http://127.0.0.1:{port}"), "token": TOKEN, "gateway": null });
        std::fs::write(dir.path().join("api.json"), file.to_string()).unwrap();
        Self { dir, script, port, _server: server }
    }

    fn script(&self, line: &str, answer: Answer) -> &Self {
        let mut script = self.script.lock().unwrap();
        match script.answers.iter_mut().find(|(known, _)| known == line) {
            Some((_, answers)) => answers.push_back(answer),
            None => script.answers.push((line.to_owned(), VecDeque::from([answer]))),
        }
        drop(script);
        self
    }

    /// Answers `METHOD PATH` with JSON; said again, the next answer.
    pub(crate) fn says(&self, line: &str, body: Value) -> &Self {
        self.script(line, Answer::Json(200, body))
    }

    /// Answers with a failure.
    pub(crate) fn fails(&self, line: &str, status: u16, code: &str, message: &str, hint: &str) -> &Self {
        self.script(line, Answer::Json(status, json!({ "code": code, "message": message, "hint": hint })))
    }

    pub(crate) fn sends(&self, line: &str, bytes: &[u8]) -> &Self {
        self.script(line, Answer::Bytes(bytes.to_vec()))
    }

    /// Tells these events, then ends the stream.
    pub(crate) fn tells(&self, line: &str, events: &[Value]) -> &Self {
        let text = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        self.script(line, Answer::Events(text))
    }

    pub(crate) fn heard(&self, line: &str) -> Vec<Heard> {
        self.script.lock().unwrap().heard.iter().filter(|heard| heard.line == line).cloned().collect()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs `scenemesh` in English, in the sandbox's directory.
    pub(crate) async fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, &[]).await
    }

    pub(crate) async fn run_ko(&self, words: &[&str]) -> Ran {
        self.run_with(words, &[("LANG", "ko_KR.UTF-8")]).await
    }

    pub(crate) async fn run_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output = command(self.dir.path(), words, variables).output().await.unwrap();
        let text = |bytes: Vec<u8>| self.plain(&String::from_utf8(bytes).unwrap());
        Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// With what differs between runs replaced.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "[DIR]")
            .replace(&format!("127.0.0.1:{}", self.port), "[API]")
    }
}

/// The command, with nothing of the environment that the test runs in.
pub(crate) fn command(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_scenemesh"));
    command
        .env_clear()
        .env("SCENEMESH_DATA_DIR", dir)
        .env("HOME", dir)
        .env("LANG", "C.UTF-8")
        .envs(variables.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .args(words);
    command
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let headers = request.headers().clone();
    let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.unwrap();
    let mut script = script.lock().unwrap();
    script.heard.push(Heard { line: line.clone(), headers, body });
    let found = script.answers.iter_mut().find(|(known, _)| *known == line).and_then(|(_, answers)| {
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    });
    match found {
        Some(Answer::Json(status, body)) => {
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        Some(Answer::Bytes(bytes)) => bytes.into_response(),
        Some(Answer::Events(text)) => {
            ([("content-type", "text/event-stream")], Body::from(text)).into_response()
        }
        None => {
            let message = format!("not in the script: {line}");
            let body = json!({ "code": "internal", "message": message, "hint": null });
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
        }
    }
}

/// A task of the job below.
pub(crate) fn task(index: u32, state: &str, more: Value) -> Value {
    let mut task = json!({
        "task": format!("{index:08x}000000000000000000000000"),
        "short": format!("{index:08x}"),
        "index": index,
        "state": state,
        "node": null,
        "attempts": 0,
        "progress": null,
        "outputs": [],
        "failures": [],
        "usage": { "exec_ms": null, "rgs_milli": null },
        "waiting": null,
    });
    let (Value::Object(task_fields), Value::Object(more)) = (&mut task, more) else { panic!("objects") };
    task_fields.extend(more);
    task
}

pub(crate) const JOB: &str = "3fa9c1d2000000000000000000000000";

pub(crate) fn job(state: &str, tasks: &[Value]) -> Value {
    json!({
        "job": JOB,
        "short": "3fa9c1d2",
        "label": "keyframe",
        "state": state,
        "class": "normal",
        "reach": "pool",
        "created_ms": 1_795_438_800_000_u64,
        "tasks": tasks,
    })
}

pub(crate) fn node(name: &str) -> Value {
    json!({ "id": NODE, "name": name, "studio": "birch" })
}

pub(crate) fn output(index: u32, filename: &str, bytes: usize) -> Value {
    json!({ "index": index, "node": "9", "kind": "image", "filename": filename, "bytes": bytes })
}
