//! A ComfyUI under test, simulated or real, and what is needed to talk to it and to compare its words with recorded ones.

use std::fs::File;

use futures::{SinkExt, StreamExt};
use scenemesh_testnet::comfyui::{Options, Simulated};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Set to the URL of a running ComfyUI, the suite runs against that one too.
const REAL: &str = "SCENEMESH_COMFYUI_URL";
/// The version the recordings were made with; another one is not held to their letter.
const RECORDED: &str = "0.3.64";

pub(crate) struct Subject {
    pub(crate) url: String,
    http: reqwest::Client,
    pub(crate) simulated: Option<Simulated>,
    token: Option<String>,
    /// A real server has one queue; the checks take turns.
    _turn: Option<File>,
}

/// An HTTP answer; a body that is no JSON is null.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Value,
}

impl Subject {
    pub(crate) async fn simulated(options: Options) -> Self {
        let simulated = Simulated::start(options).await.unwrap();
        Self { url: simulated.url(), http: client(), simulated: Some(simulated), token: None, _turn: None }
    }

    /// Something else that speaks as ComfyUI does.
    pub(crate) fn at(url: &str) -> Self {
        Self { url: url.to_owned(), http: client(), simulated: None, token: None, _turn: None }
    }

    /// The same, showing a token with every request.
    pub(crate) fn with_token(url: &str, token: &str) -> Self {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Self { url: url.to_owned(), http, simulated: None, token: Some(token.to_owned()), _turn: None }
    }

    /// The real one, once it is this test's turn; `None` with a line where there is none.
    #[expect(clippy::print_stderr, reason = "a skipped check says so")]
    pub(crate) async fn real() -> Option<Self> {
        let Ok(url) = std::env::var(REAL) else {
            eprintln!("skipped: {REAL} is not set, so this ran against the simulated ComfyUI only");
            return None;
        };
        let turn = tokio::task::spawn_blocking(|| {
            let path = std::env::temp_dir().join("scenemesh-comfyui-contract.lock");
            let file = File::options().create(true).append(true).open(path).unwrap();
            file.lock().unwrap();
            file
        });
        let turn = turn.await.unwrap();
        Some(Self {
            url: url.trim_end_matches('/').to_owned(),
            http: client(),
            simulated: None,
            token: None,
            _turn: Some(turn),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read(self.http.get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        read(self.http.get(format!("{}{path}", self.url)).header(header.0, header.1)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: String) -> Answer {
        read(self.http.post(format!("{}{path}", self.url)).body(body)).await
    }

    pub(crate) async fn put(&self, path: &str, bytes: &[u8]) -> Answer {
        read(self.http.put(format!("{}{path}", self.url)).body(bytes.to_vec())).await
    }

    /// As a web page does that may not read the answer.
    pub(crate) async fn post_with(&self, path: &str, header: (&str, &str)) -> Answer {
        read(self.http.post(format!("{}{path}", self.url)).header(header.0, header.1).body("{}")).await
    }

    /// Uploads bytes under a name, with the form's other fields.
    pub(crate) async fn upload(
        &self,
        path: &str,
        name: &str,
        bytes: &[u8],
        fields: &[(&str, String)],
    ) -> Answer {
        let part = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(name.to_owned());
        let mut form = reqwest::multipart::Form::new().part("image", part);
        for (field, value) in fields {
            form = form.text((*field).to_owned(), value.clone());
        }
        read(self.http.post(format!("{}{path}", self.url)).multipart(form)).await
    }

    /// As [`Self::upload`], where the connection may be cut.
    pub(crate) async fn try_upload(&self, name: &str, bytes: &[u8]) -> Result<u16, reqwest::Error> {
        let part = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new().part("image", part);
        let sent = self.http.post(format!("{}/upload/image", self.url)).multipart(form).send().await;
        sent.map(|response| response.status().as_u16())
    }

    /// Whether this server is held to the letter of the recordings.
    pub(crate) async fn is_recorded_version(&self) -> bool {
        self.get("/system_stats").await.body["system"]["comfyui_version"] == RECORDED
    }

    /// A checkpoint that it holds.
    pub(crate) async fn checkpoint(&self) -> String {
        let models = self.get("/models/checkpoints").await.body;
        models[0].as_str().expect("the checks need one checkpoint on the server").to_owned()
    }

    pub(crate) async fn listen(&self, client_id: &str) -> Listener {
        let url = format!("{}/ws?clientId={client_id}", self.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = &self.token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Listener { stream }
    }

    /// Posts a prompt for this client and gives its id.
    pub(crate) async fn submit(&self, prompt: &Value, client_id: &str) -> String {
        let answer = self.post("/prompt", &json!({"prompt": prompt, "client_id": client_id})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["prompt_id"].as_str().unwrap().to_owned()
    }

    /// Runs a prompt from first to last frame on a socket of its own.
    pub(crate) async fn run(&self, prompt: &Value, flags: bool) -> Ran {
        let client_id = fresh("client");
        let mut listener = self.listen(&client_id).await;
        let mut frames = vec![listener.next().await];
        if flags {
            listener
                .send(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
                .await;
            frames.push(listener.next().await);
        }
        let id = self.submit(prompt, &client_id).await;
        frames.extend(listener.until_done(&id).await);
        let history = self.get(&format!("/history/{id}")).await.body;
        Ran { id, frames, history }
    }

    /// Makes sure that nothing of earlier checks is in the execution cache: it keeps only what the last prompt used.
    pub(crate) async fn sweep(&self) {
        self.run(&picture_graph(&fresh("sweep")), false).await;
    }
}

/// A finished run.
pub(crate) struct Ran {
    pub(crate) id: String,
    pub(crate) frames: Vec<Heard>,
    pub(crate) history: Value,
}

impl Ran {
    /// The frames as they compare with recorded ones.
    pub(crate) fn neutral_frames(&self) -> Vec<Value> {
        self.frames.iter().map(Heard::neutral).collect()
    }

    /// The data of every frame of one type.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let texts = self.frames.iter().filter_map(Heard::text);
        texts.filter(|text| text["type"] == kind).map(|text| text["data"].clone()).collect()
    }

    pub(crate) fn outputs(&self) -> Value {
        self.history[&self.id]["outputs"].clone()
    }
}

/// One frame of a socket.
#[derive(Debug)]
pub(crate) enum Heard {
    Text(Value),
    Binary(Vec<u8>),
}

impl Heard {
    pub(crate) fn text(&self) -> Option<&Value> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.text().is_some_and(|text| text["type"] == kind)
    }

    fn neutral(&self) -> Value {
        match self {
            Self::Text(text) => neutral(text),
            Self::Binary(bytes) => neutral_binary(bytes),
        }
    }
}

pub(crate) struct Listener {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Listener {
    /// The next frame with content.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            match self.stream.next().await.expect("the socket stays open").unwrap() {
                Message::Text(text) => {
                    assert!(
                        text.starts_with("{\"type\":"),
                        "clients look for the type in the first bytes: {text}"
                    );
                    return Heard::Text(serde_json::from_str(&text).unwrap());
                }
                Message::Binary(bytes) => return Heard::Binary(bytes.to_vec()),
                _ => {}
            }
        }
    }

    /// Every frame up to the first of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Vec<Heard> {
        self.until_heard(|heard| heard.is(kind)).await
    }

    /// Every frame up to the end of this prompt: `executing` without a node.
    pub(crate) async fn until_done(&mut self, id: &str) -> Vec<Heard> {
        let end = json!({"type": "executing", "data": {"node": null, "prompt_id": id}});
        self.until_heard(|heard| heard.text() == Some(&end)).await
    }

    async fn until_heard(&mut self, wanted: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next().await);
            if frames.last().is_some_and(&wanted) {
                return frames;
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.stream.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Every frame until the connection is cut.
    pub(crate) async fn until_cut(&mut self) -> Vec<Heard> {
        let mut frames = Vec::new();
        while let Some(Ok(message)) = self.stream.next().await {
            if let Message::Text(text) = message {
                frames.push(Heard::Text(serde_json::from_str(&text).unwrap()));
            }
        }
        frames
    }

    /// Closes, and finds that nothing but the close had been on its way.
    pub(crate) async fn close_unheard(mut self) {
        self.stream.close(None).await.unwrap();
        while let Some(Ok(message)) = self.stream.next().await {
            assert!(message.is_close(), "a silenced socket heard {message}");
        }
    }

    /// Closes, and waits until the other end has closed too.
    pub(crate) async fn close(mut self) {
        self.stream.close(None).await.unwrap();
        while self.stream.next().await.is_some() {}
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let bytes = response.bytes().await.unwrap().to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, content_type, bytes, body }
}

/// A name that no earlier test has used, on a server that remembers.
pub(crate) fn fresh(prefix: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{prefix}{:016x}", RandomState::new().hash_one(0))
}

/// EmptyImage → ImageInvert → SaveImage, as recorded; another colour for another name, so that it is cached only for the same name.
pub(crate) fn picture_graph(name: &str) -> Value {
    let colour =
        name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 0x100_0000;
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 288, "batch_size": 2, "color": colour}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "scene_001_cut_003", "images": ["2", 0]}},
    })
}

/// The recorded text-to-image graph, with its inputs in the recorded order.
pub(crate) fn sampler_graph(checkpoint: &str, seed: u64, steps: u32) -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {
            "cfg": 7.5, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0],
            "sampler_name": "euler", "scheduler": "normal", "seed": seed, "steps": steps,
        }},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a lighthouse at dusk"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "blurry"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "scene_001_cut_003", "images": ["8", 0]}},
    })
}

/// A recorded answer or run, from `testnet/data`.
pub(crate) fn recorded(name: &str) -> Value {
    let path = format!("{}/data/comfyui-0.3.64/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The frames of a recorded run, neutral.
pub(crate) fn recorded_frames(name: &str) -> Vec<Value> {
    let run = recorded(name);
    let frames = run["frames"].as_array().unwrap().iter();
    let neutral = frames.filter_map(|frame| match (frame.get("text"), frame.get("binary")) {
        (Some(text), _) => Some(neutral(text)),
        (_, Some(binary)) => {
            let hex = binary["first_64_hex"].as_str().unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Some(neutral_binary(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>()))
        }
        _ => None,
    });
    neutral.collect()
}

/// The only history entry of a recorded run, neutral.
pub(crate) fn recorded_history(name: &str) -> Value {
    let run = recorded(name);
    let entry = run["history"]["body"].as_object().unwrap().values().next().unwrap().clone();
    neutral(&entry)
}

/// What a binary frame says in its head; recorded ones end after 64 bytes.
fn neutral_binary(bytes: &[u8]) -> Value {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    match word(0) {
        1 => json!({"event": 1, "format": word(4), "starts": bytes[8..12]}),
        event => json!({"event": event, "json": bytes[8] == b'{'}),
    }
}

/// A value without what differs from run to run: ids, times, counters, colours, tracebacks, and the order of Python's sets.
pub(crate) fn neutral(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(neutral).collect()),
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| {
                let value = match key.as_str() {
                    "prompt_id" | "sid" | "client_id" => json!("ID"),
                    "timestamp" | "number" | "color" | "seed" => json!(0),
                    "traceback" => json!([]),
                    "executed" | "current_outputs" | "dependent_outputs" => sorted(value),
                    "errors" => sorted(&neutral(value)),
                    "filename" => json!(without_counter(value.as_str().unwrap_or_default())),
                    "ckpt_name" => json!("a checkpoint"),
                    "exception_message" | "details" => {
                        json!(without_path(value.as_str().unwrap_or_default()))
                    }
                    "prompt" if value.is_array() => {
                        let mut tuple = neutral(value);
                        (tuple[0], tuple[1]) = (json!(0), json!("ID"));
                        tuple
                    }
                    _ => neutral(value),
                };
                (key.clone(), value)
            });
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn sorted(value: &Value) -> Value {
    let mut items = value.as_array().cloned().unwrap_or_default();
    items.sort_by_key(Value::to_string);
    Value::Array(items)
}

/// `cut_00012_.png` → `cut_#_.png`; a temporary prefix loses its random letters too.
fn without_counter(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('_').collect();
    for at in 0..parts.len() {
        let temporary = at > 0 && parts[at - 1] == "temp";
        if temporary || parts[at].len() == 5 && parts[at].chars().all(|ch| ch.is_ascii_digit()) {
            parts[at] = "#";
        }
    }
    parts.join("_")
}

/// A quoted path becomes its last part, and a list of options is not compared.
fn without_path(text: &str) -> String {
    let text = text.split(" not in [").next().unwrap_or_default();
    let parts: Vec<&str> = text.split('\'').map(|part| part.rsplit('/').next().unwrap_or(part)).collect();
    parts.join("'")
}
