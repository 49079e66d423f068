//! The local API of a whole node that has no ComfyUI and no peers: every route, over HTTP.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use scenemesh_protocol::api::{
    API_FILE, ApiFile, DoctorReply, ErrorBody, ErrorCode, InitReply, InputReply, InviteReply, JobsReply,
    JoinPreview, PeersReply, PoolReply, Standing, StatusReply,
};
use scenemeshd::config::{CONFIG_FILE, Config, Overrides};
use scenemeshd::node;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const WORKFLOW: &str = r#"{
    "1": {"class_type": "LoadImage", "inputs": {"image": "start.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
}"#;

/// A running node.
pub(crate) struct Running {
    dir: TempDir,
    api: ApiFile,
    stop: oneshot::Sender<()>,
    node: JoinSet<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(dir: TempDir) -> Self {
        let quiet = "[network]\nmdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nporch = [\"/ip4/127.0.0.1/tcp/0\"]\n";
        std::fs::write(dir.path().join(CONFIG_FILE), quiet).unwrap();
        let overrides = Overrides { api: Some("127.0.0.1:0".into()), ..Overrides::default() };
        let nothing = |_: &str| None::<OsString>;
        let config = Config::load(dir.path(), None, &overrides, nothing).unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(node::run(config, async move { drop(stopped.await) }));
        let api = tokio::select! {
            api = api_file(dir.path()) => api,
            ended = running.join_next() => panic!("the node ended: {ended:?}"),
        };
        Self { dir, api, stop, node: running }
    }

    pub(crate) fn url(&self) -> &str {
        &self.api.url
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.request(method, format!("{}{path}", self.api.url)).bearer_auth(&self.api.token)
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: Value) -> T {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn refused(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, ErrorBody) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    pub(crate) async fn submit_refused(&self, more: Value) -> ErrorBody {
        let mut body = json!({ "label": "test", "workflow": WORKFLOW, "count": 1 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.refused(Method::POST, "/v1/jobs", Some(body)).await.1
    }

    pub(crate) async fn init(&self) -> InitReply {
        let founding = json!({ "pool": "aurora", "studio": "amber", "name": "ws-01", "passphrase": null });
        self.post("/v1/init", founding).await
    }

    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.send(()).unwrap();
        self.node.join_next().await.unwrap().unwrap().unwrap();
        self.dir
    }
}

async fn answer<T: serde::de::DeserializeOwned>(request: RequestBuilder) -> T {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until the node has said where it is.
async fn api_file(dir: &Path) -> ApiFile {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        look.tick().await;
        if let Ok(text) = std::fs::read(dir.join(API_FILE)) {
            return serde_json::from_slice(&text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_private_and_goes_with_the_node() {
    let node = Running::start().await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(node.dir.path().join(API_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(node.api.url.starts_with("http://127.0.0.1:"));
    assert!(node.api.token.len() >= 32);
    let dir = node.stop().await;
    assert!(!dir.path().join(API_FILE).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_no_pool_says_so_and_waits() {
    let node = Running::start().await;
    let status: StatusReply = node.get("/v1/status").await;
    assert_eq!(status.standing, Standing::Alone);
    assert!(status.listening.is_empty(), "no port is open before there is a pool");
    assert!(node.get::<PeersReply>("/v1/peers").await.peers.is_empty());
    assert!(node.get::<JobsReply>("/v1/jobs").await.jobs.is_empty());

    let (status, error) = node.refused(Method::GET, "/v1/pool", None).await;
    assert_eq!((status, error.code), (StatusCode::CONFLICT, ErrorCode::Conflict));
    assert_eq!(error.message, "this node is in no pool");
    for (path, body) in
        [("/v1/leave", json!(null)), ("/v1/invite", json!({})), ("/v1/pool/approve", json!({}))]
    {
        let (_, error) = node.refused(Method::POST, path, Some(body)).await;
        assert_eq!(error.code, ErrorCode::Conflict, "{path}: {error:?}");
        assert!(error.hint.is_some(), "{path}: {error:?}");
    }
    assert_eq!(node.submit_refused(json!({ "reach": "pool" })).await.code, ErrorCode::Conflict);

    let doctor: DoctorReply = node.get("/v1/doctor").await;
    let names: Vec<&str> = doctor.checks.iter().map(|check| check.name.as_str()).collect();
    for name in ["data_dir", "disk", "pool", "comfyui", "gpu", "clock"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invites_that_are_none_are_told_apart() {
    let node = Running::start().await;
    for path in ["/v1/join/preview", "/v1/join"] {
        let asked = |code: &str| match path {
            "/v1/join" => json!({ "code": code, "name": null, "passphrase": null }),
            _ => json!({ "code": code }),
        };
        let (_, error) = node.refused(Method::POST, path, Some(asked("hello"))).await;
        assert_eq!(error.code, ErrorCode::BadInvite);
        let (_, error) = node.refused(Method::POST, path, Some(asked("smesh1aaaa"))).await;
        assert_eq!(error.code, ErrorCode::BadInvite);
        let (_, error) = node.refused(Method::POST, path, Some(asked("smesh9aaaa"))).await;
        assert_eq!(error.code, ErrorCode::VersionMismatch, "{error:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_founded_once_and_its_invites_are_its_own() {
    let node = Running::start().await;
    let founded = node.init().await;
    assert_eq!((founded.pool_name.as_str(), founded.sealed), ("aurora", false));
    assert!(founded.recovery_code.is_some());
    let again = json!({ "pool": "b", "studio": "c", "name": "d", "passphrase": null });
    let (_, error) = node.refused(Method::POST, "/v1/init", Some(again)).await;
    assert_eq!(error.code, ErrorCode::Conflict);

    let status: StatusReply = node.get("/v1/status").await;
    assert_eq!((status.standing, status.name.as_deref()), (Standing::Member, Some("ws-01")));
    let pool: PoolReply = node.get("/v1/pool").await;
    assert_eq!((pool.studios.len(), pool.members.len(), pool.members[0].me), (1, 1, true));

    let invite: InviteReply = node.post("/v1/invite", json!({})).await;
    let code = invite.code.unwrap();
    let preview: JoinPreview = node.post("/v1/join/preview", json!({ "code": code })).await;
    assert_eq!((preview.pool, preview.inviter), (founded.pool, founded.node));
    assert_eq!(Some(preview.check), invite.check);
    let joining = json!({ "code": code, "name": null, "passphrase": null });
    let (_, error) = node.refused(Method::POST, "/v1/join", Some(joining)).await;
    assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
    let (_, error) = node.refused(Method::POST, "/v1/invite", Some(json!({ "expires_s": 1 }))).await;
    assert_eq!(error.code, ErrorCode::Usage);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_is_judged_before_anything_is_queued() {
    let node = Running::start().await;
    node.init().await;
    let error = node.submit_refused(json!({})).await;
    assert_eq!(error.code, ErrorCode::MissingInput);

    let upload = node.request(Method::POST, "/v1/inputs").body(vec![7_u8; 3 << 20]);
    let uploaded: InputReply = answer(upload).await;
    assert_eq!(uploaded.bytes, 3 << 20);
    let inputs = json!([{ "name": "start.png", "input": uploaded.input }]);
    let error = node.submit_refused(json!({ "inputs": inputs })).await;
    assert_eq!(error.code, ErrorCode::NoEligibleNode);
    assert_eq!(error.message, "no node can take this job: ws-01 has no ComfyUI configured");

    for (more, code) in [
        (json!({ "count": 0 }), ErrorCode::Usage),
        (json!({ "count": 10_001 }), ErrorCode::Usage),
        (json!({ "reach": "cedar" }), ErrorCode::Usage),
        (json!({ "workflow": "{" }), ErrorCode::NotJson),
        (json!({ "workflow": "{\"nodes\":[],\"links\":[]}" }), ErrorCode::UiFormat),
        (json!({ "set": [{ "path": "9.seed", "value": "1" }] }), ErrorCode::NoSuchSetting),
        (json!({ "frobnicate": true }), ErrorCode::Usage),
    ] {
        assert_eq!(node.submit_refused(more.clone()).await.code, code, "{more}");
    }
    assert!(node.get::<JobsReply>("/v1/jobs").await.jobs.is_empty(), "nothing was queued");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_too_large_is_refused_by_its_length_alone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let node = Running::start().await;
    let host = node.api.url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
    let token = &node.api.token;
    let head = format!(
        "POST /v1/inputs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        40_u64 << 30
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let read = socket.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    drop(socket);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_not_found() {
    let node = Running::start().await;
    for (method, path, code) in [
        (Method::GET, "/v1/jobs/3fa9", ErrorCode::NotFound),
        (Method::GET, "/v1/jobs/3fa9/why", ErrorCode::NotFound),
        (Method::GET, "/v1/jobs/3fa9/log", ErrorCode::NotFound),
        (Method::GET, "/v1/jobs/3fa9/events", ErrorCode::NotFound),
        (Method::POST, "/v1/jobs/3fa9/cancel", ErrorCode::NotFound),
        (Method::POST, "/v1/jobs/3fa9/retry", ErrorCode::NotFound),
        (Method::GET, "/v1/tasks/3fa9/outputs/0", ErrorCode::NotFound),
        (Method::GET, "/v1/tasks/3fa9/preview", ErrorCode::NotFound),
        (Method::GET, "/v1/jobs/..%2f..", ErrorCode::Usage),
        (Method::GET, "/v1/jobs/xyz", ErrorCode::Usage),
        (Method::GET, "/v1/tasks/3fa9/outputs/many", ErrorCode::Usage),
        (Method::GET, "/v1/doctor?peer=nobody", ErrorCode::NotFound),
        (Method::PUT, "/v1/jobs", ErrorCode::Usage),
    ] {
        let (status, error) = node.refused(method, path, None).await;
        assert!(status.is_client_error(), "{path}: {status}");
        assert_eq!(error.code, code, "{path}: {error:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_end_when_the_node_stops() {
    let node = Running::start().await;
    let mut events = node.request(Method::GET, "/v1/events").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    node.stop().await;
    while let Ok(Some(_)) = events.chunk().await {}
}

async fn exported(node: &Running) -> Vec<u8> {
    let response = node.request(Method::GET, "/v1/journal").send().await.unwrap();
    let length = response.content_length().unwrap();
    let whole = response.bytes().await.unwrap().to_vec();
    assert_eq!(whole.len() as u64, length);
    whole
}

async fn import(node: &Running, whole: Vec<u8>) -> Result<Value, ErrorBody> {
    let response = node.request(Method::POST, "/v1/journal").body(whole).send().await.unwrap();
    if response.status().is_success() {
        Ok(response.json().await.unwrap())
    } else {
        Err(response.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_moves_to_a_new_directory_with_its_keys_and_nowhere_else() {
    let node = Running::start().await;
    node.init().await;
    let pool: PoolReply = node.get("/v1/pool").await;
    let whole = exported(&node).await;
    let error = import(&node, whole.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
    let rebuilt: Value = node.post("/v1/ledger/rebuild", json!(null)).await;
    assert!(rebuilt["records"].is_u64() && rebuilt["took_ms"].is_u64());
    let old = node.stop().await;

    let stranger = Running::start().await;
    let error = import(&stranger, whole.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused, "{error:?}");
    assert!(error.hint.unwrap().contains("keys/"));
    let error = import(&stranger, b"{}".to_vec()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage, "{error:?}");
    stranger.stop().await;

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    for entry in std::fs::read_dir(old.path().join("keys")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join("keys").join(entry.file_name())).unwrap();
    }
    let node = Running::start_in(dir).await;
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let error = import(&node, flipped).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage, "{error:?}");
    let taken = import(&node, whole).await.unwrap();
    assert!(taken["records"].as_u64().unwrap() > 0);
    let dir = node.stop().await;
    let node = Running::start_in(dir).await;
    assert_eq!(node.get::<PoolReply>("/v1/pool").await.pool, pool.pool);
    let doctor: DoctorReply = node.get("/v1/doctor").await;
    let said = doctor.checks.iter().find(|check| check.name == "journal").unwrap();
    assert!(said.found.contains("imported journal"), "{said:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_by_doctor_in_both_languages() {
    let node = Running::start().await;
    node.init().await;
    let dir = node.stop().await;
    let segment = std::fs::read_dir(dir.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    // The body of the first record, behind header and mark.
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::write(dir.path().join("index"), b"not a directory").unwrap();
    let node = Running::start_in(dir).await;
    for (lang, words) in
        [("en", "do not read any more, a change of the pool"), ("ko", "읽을 수 없습니다, 풀의 변경")]
    {
        let asked = node.request(Method::GET, "/v1/doctor").header("accept-language", lang);
        let doctor: DoctorReply = answer(asked).await;
        let journal = doctor.checks.iter().find(|check| check.name == "journal").unwrap();
        assert!(journal.found.contains(words), "{journal:?}");
        assert!(journal.hint.is_some() && journal.found.contains("damaged"), "{journal:?}");
        assert!(doctor.checks.iter().any(|check| check.name == "index"), "{:?}", doctor.checks);
    }
    node.stop().await;
}
