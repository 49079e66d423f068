//! The local API from the client's side: where the daemon is, and its verbs.

mod sse;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_LENGTH};
use reqwest::{Body, Method, RequestBuilder, Response};
use scenemesh_protocol::api::{
    API_FILE, AdminsReply, ApiFile, ApproveReply, ApproveRequest, BlockReply, BlockRequest,
    ChangeAdminsReply, ChangeAdminsRequest, DoctorReply, DrainReply, DrainRequest, ErrorBody, ErrorCode,
    Event, ImportReply, InitReply, InitRequest, InputReply, InstalledReply, InviteReply, InviteRequest,
    JobView, JobsReply, JoinPreview, JoinPreviewRequest, JoinReply, JoinRequest, LeaveReply, LendReply,
    LendRequest, LogReply, NewAdminRequest, PeersReply, PolicyChangeRequest, PolicyCheckReply,
    PolicyCheckRequest, PolicyClassReply, PolicyClassRequest, PolicyReply, PoolReply, ProjectRequest,
    ProjectSetRequest, ProjectView, ProjectsReply, RebuildReply, RecoverRequest, RevokeReply, RevokeRequest,
    RotateReply, RotateRequest, StatusReply, SubmitRequest, UserRemoveRequest, UserReply, UserRequest,
    UserView, UsersReply, WhyReply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CliError, os_words};
use crate::messages::{Lang, Message};

/// An answer of the daemon takes this long at most; what waits for other machines has its own limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// Joining dials strangers at up to three addresses.
const JOIN_PATIENCE: Duration = Duration::from_secs(90);
/// A long journal is read through.
const REBUILD_PATIENCE: Duration = Duration::from_mins(10);
/// Event streams say something every 15 s; this long a silence means that nobody is there.
const SILENCE: Duration = Duration::from_secs(45);
/// Most bytes of an answer that is not a file: ten thousand tasks with all their words fit.
const ANSWER_LIMIT: usize = 256 << 20;

/// How to find a daemon. Cheap to clone; `open` reads its address anew, since every start changes it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub data_dir: PathBuf,
    /// A user's own token; without one the daemon's own user is meant, whose token lies in the data directory.
    pub token_file: Option<PathBuf>,
    /// Language the daemon is asked to speak.
    pub lang: Lang,
}

impl Connection {
    /// Reads the daemon's address and token. Nothing is sent yet.
    ///
    /// # Errors
    /// When there is no daemon's address in the data directory, or it may not be read.
    pub fn open(&self) -> Result<ApiClient, CliError> {
        let path = self.address_file();
        let text = std::fs::read_to_string(&path).map_err(|error| self.no_address(&path, &error))?;
        let file: ApiFile = serde_json::from_str(&text).map_err(|_| {
            let message = Message::GarbledAddress { path: path.display().to_string() };
            CliError::new(ErrorCode::NotRunning, message, self.start_hint())
        })?;
        // The system's proxy is for other hosts; a request to loopback must not leave by it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| CliError::internal(error.to_string()))?;
        Ok(ApiClient { http, file, connection: self.clone() })
    }

    fn address_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(|| self.data_dir.join(API_FILE))
    }

    fn no_address(&self, path: &Path, error: &std::io::Error) -> CliError {
        let path = path.display().to_string();
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                CliError::new(ErrorCode::NotRunning, Message::NoAddress { path }, self.start_hint())
            }
            std::io::ErrorKind::PermissionDenied => CliError::new(
                ErrorCode::NotAuthorised,
                Message::AddressNotReadable { path },
                Message::HintSameUser,
            ),
            _ => {
                CliError::file(Message::CannotRead { path, why: os_words(error) }, Message::HintCheckDataDir)
            }
        }
    }

    fn start_hint(&self) -> Message {
        Message::HintStartDaemon { data_dir: self.data_dir.display().to_string() }
    }
}

/// A client of one running daemon.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: reqwest::Client,
    file: ApiFile,
    connection: Connection,
}

/// Every verb fails as the daemon says, or when it does not answer.
type Answer<T> = Result<T, CliError>;

impl ApiClient {
    /// The daemon's address.
    pub fn url(&self) -> &str {
        &self.file.url
    }

    pub async fn status(&self) -> Answer<StatusReply> {
        self.get("/v1/status").await
    }

    pub async fn doctor(&self, peer: Option<&str>) -> Answer<DoctorReply> {
        let query: Vec<(&str, &str)> = peer.map(|peer| ("peer", peer)).into_iter().collect();
        self.answer(self.request(Method::GET, "/v1/doctor").query(&query), PATIENCE).await
    }

    pub async fn init(&self, request: &InitRequest) -> Answer<InitReply> {
        self.post("/v1/init", request, PATIENCE).await
    }

    pub async fn invite(&self, request: &InviteRequest) -> Answer<InviteReply> {
        self.post("/v1/invite", request, PATIENCE).await
    }

    pub async fn join_preview(&self, code: &str) -> Answer<JoinPreview> {
        self.post("/v1/join/preview", &JoinPreviewRequest { code: code.to_owned() }, PATIENCE).await
    }

    pub async fn join(&self, request: &JoinRequest) -> Answer<JoinReply> {
        self.post("/v1/join", request, JOIN_PATIENCE).await
    }

    pub async fn pool(&self) -> Answer<PoolReply> {
        self.get("/v1/pool").await
    }

    pub async fn approve(&self, request: &ApproveRequest) -> Answer<ApproveReply> {
        self.post("/v1/pool/approve", request, PATIENCE).await
    }

    pub async fn projects(&self) -> Answer<ProjectsReply> {
        self.get("/v1/projects").await
    }

    pub async fn add_project(&self, request: &ProjectRequest) -> Answer<ProjectView> {
        self.post("/v1/projects", request, PATIENCE).await
    }

    pub async fn set_project(&self, request: &ProjectSetRequest) -> Answer<ProjectView> {
        self.post("/v1/projects/set", request, PATIENCE).await
    }

    pub async fn users(&self) -> Answer<UsersReply> {
        self.get("/v1/users").await
    }

    pub async fn add_user(&self, request: &UserRequest) -> Answer<UserReply> {
        self.post("/v1/users", request, PATIENCE).await
    }

    pub async fn set_user(&self, request: &UserRequest) -> Answer<UserView> {
        self.post("/v1/users/set", request, PATIENCE).await
    }

    pub async fn remove_user(&self, request: &UserRemoveRequest) -> Answer<UserView> {
        self.post("/v1/users/rm", request, PATIENCE).await
    }

    pub async fn policy(&self) -> Answer<PolicyReply> {
        self.get("/v1/policy").await
    }

    pub async fn policy_change(&self, request: &PolicyChangeRequest) -> Answer<PolicyReply> {
        self.post("/v1/policy", request, PATIENCE).await
    }

    pub async fn policy_class(&self, class: &str) -> Answer<PolicyClassReply> {
        self.post("/v1/policy/class", &PolicyClassRequest { class: class.to_owned() }, PATIENCE).await
    }

    /// What would be refused of a workflow, before anything is sent.
    pub async fn policy_check(&self, request: &PolicyCheckRequest) -> Answer<PolicyCheckReply> {
        self.post("/v1/policy/check", request, PATIENCE).await
    }

    pub async fn peers(&self) -> Answer<PeersReply> {
        self.get("/v1/peers").await
    }

    pub async fn lend(&self) -> Answer<LendReply> {
        self.get("/v1/lend").await
    }

    pub async fn lend_say(&self, request: &LendRequest) -> Answer<LendReply> {
        self.post("/v1/lend", request, PATIENCE).await
    }

    pub async fn drained(&self) -> Answer<DrainReply> {
        self.get("/v1/drain").await
    }

    pub async fn drain(&self, request: &DrainRequest) -> Answer<DrainReply> {
        self.post("/v1/drain", request, PATIENCE).await
    }

    pub async fn leave(&self) -> Answer<LeaveReply> {
        self.post("/v1/leave", &(), PATIENCE).await
    }

    pub async fn revoke(&self, request: &RevokeRequest) -> Answer<RevokeReply> {
        self.post("/v1/revoke", request, PATIENCE).await
    }

    pub async fn block(&self, request: &BlockRequest) -> Answer<BlockReply> {
        self.post("/v1/block", request, PATIENCE).await
    }

    pub async fn rotate(&self, request: &RotateRequest) -> Answer<RotateReply> {
        self.post("/v1/rotate", request, PATIENCE).await
    }

    pub async fn admins(&self) -> Answer<AdminsReply> {
        self.get("/v1/admin").await
    }

    pub async fn new_admin(&self, request: &NewAdminRequest) -> Answer<InstalledReply> {
        self.post("/v1/admin/new", request, PATIENCE).await
    }

    pub async fn recover_admin(&self, request: &RecoverRequest) -> Answer<InstalledReply> {
        self.post("/v1/admin/recover", request, PATIENCE).await
    }

    pub async fn change_admins(&self, request: &ChangeAdminsRequest) -> Answer<ChangeAdminsReply> {
        self.post("/v1/admin/change", request, PATIENCE).await
    }

    pub async fn submit(&self, request: &SubmitRequest) -> Answer<JobView> {
        self.post("/v1/jobs", request, PATIENCE).await
    }

    pub async fn jobs(&self) -> Answer<JobsReply> {
        self.get("/v1/jobs").await
    }

    /// `id` is a job's or task's, shortened at will, like in all that follow.
    pub async fn job(&self, id: &str) -> Answer<JobView> {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    pub async fn why(&self, id: &str) -> Answer<WhyReply> {
        self.get(&format!("/v1/jobs/{id}/why")).await
    }

    pub async fn log(&self, id: &str) -> Answer<LogReply> {
        self.get(&format!("/v1/jobs/{id}/log")).await
    }

    /// Numbers of the job's tasks may stand behind a colon, as in [`scenemesh_protocol::api::Ranges`]; like in the three that follow.
    pub async fn cancel(&self, id: &str) -> Answer<JobView> {
        self.post(&format!("/v1/jobs/{id}/cancel"), &(), PATIENCE).await
    }

    pub async fn retry(&self, id: &str) -> Answer<JobView> {
        self.post(&format!("/v1/jobs/{id}/retry"), &(), PATIENCE).await
    }

    pub async fn pause(&self, id: &str) -> Answer<JobView> {
        self.post(&format!("/v1/jobs/{id}/pause"), &(), PATIENCE).await
    }

    pub async fn resume(&self, id: &str) -> Answer<JobView> {
        self.post(&format!("/v1/jobs/{id}/resume"), &(), PATIENCE).await
    }

    /// Sends an input file; `bytes` is its length.
    pub async fn upload(&self, body: impl Into<Body>, bytes: u64) -> Answer<InputReply> {
        let request = self.request(Method::POST, "/v1/inputs").header(CONTENT_LENGTH, bytes).body(body);
        self.read(self.send(request).await?).await
    }

    /// Opens the journal as a file.
    pub async fn journal(&self) -> Answer<Download> {
        let request = self.request(Method::GET, "/v1/journal");
        Ok(Download { response: self.send(request).await?, client: self.clone() })
    }

    /// Sends an exported journal; `bytes` is its length.
    pub async fn import_journal(&self, body: impl Into<Body>, bytes: u64) -> Answer<ImportReply> {
        let request = self.request(Method::POST, "/v1/journal").header(CONTENT_LENGTH, bytes).body(body);
        self.read(self.send(request).await?).await
    }

    /// Makes the index anew from the journal.
    pub async fn rebuild_index(&self) -> Answer<RebuildReply> {
        self.post("/v1/ledger/rebuild", &(), REBUILD_PATIENCE).await
    }

    /// Opens the bytes of an output.
    pub async fn output(&self, task: &str, index: u32) -> Answer<Download> {
        let request = self.request(Method::GET, &format!("/v1/tasks/{task}/outputs/{index}"));
        Ok(Download { response: self.send(request).await?, client: self.clone() })
    }

    /// The latest preview picture, `None` while there is none.
    pub async fn preview(&self, task: &str) -> Answer<Option<Vec<u8>>> {
        let request = self.request(Method::GET, &format!("/v1/tasks/{task}/preview"));
        match self.send(request).await {
            Ok(response) => self.bytes_of(response).await.map(Some),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What happens to a job from now on; the first event is the whole job.
    pub async fn job_events(&self, id: &str) -> Answer<Events> {
        self.events(&format!("/v1/jobs/{id}/events")).await
    }

    async fn events(&self, path: &str) -> Answer<Events> {
        let request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        Ok(Events { response: self.send(request).await?, lines: sse::Lines::default() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.answer(self.request(Method::GET, path), PATIENCE).await
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        patience: Duration,
    ) -> Answer<T> {
        self.answer(self.request(Method::POST, path).json(body), patience).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.file.url))
            .bearer_auth(&self.file.token)
            .header(ACCEPT_LANGUAGE, self.connection.lang.code())
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder, patience: Duration) -> Answer<T> {
        self.read(self.send(request.timeout(patience)).await?).await
    }

    /// Sends, and turns every failed status into the daemon's own words.
    async fn send(&self, request: RequestBuilder) -> Answer<Response> {
        let response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.bytes_of(response).await?;
        Err(serde_json::from_slice::<ErrorBody>(&bytes)
            .map_or_else(|_| self.not_ours(format!("HTTP {status}")), CliError::from))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Answer<T> {
        let bytes = self.bytes_of(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.not_ours(error.to_string()))
    }

    async fn bytes_of(&self, response: Response) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.no_answer(&error))?);
            if bytes.len() > ANSWER_LIMIT {
                return Err(self.not_ours(format!("> {ANSWER_LIMIT} bytes")));
            }
        }
        Ok(bytes)
    }

    fn no_answer(&self, error: &reqwest::Error) -> CliError {
        let url = self.file.url.clone();
        if error.is_connect() {
            let path = self.connection.address_file().display().to_string();
            let message = Message::NobodyAnswers { url, path };
            return CliError::new(ErrorCode::NotRunning, message, self.connection.start_hint());
        }
        if error.is_timeout() {
            return CliError::new(ErrorCode::Timeout, Message::AnswerTimedOut { url }, Message::HintDoctor);
        }
        if error.is_builder() {
            return CliError::new(
                ErrorCode::NotRunning,
                Message::GarbledAddress { path: self.connection.address_file().display().to_string() },
                self.connection.start_hint(),
            );
        }
        let why = innermost(error);
        CliError::new(ErrorCode::NotRunning, Message::AnswerBroke { url, why }, self.connection.start_hint())
    }

    fn not_ours(&self, why: String) -> CliError {
        let message = Message::AnswerNotOurs { url: self.file.url.clone(), why };
        CliError::new(ErrorCode::Internal, message, Message::HintSameRelease)
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// An output on its way here.
#[derive(Debug)]
pub struct Download {
    response: Response,
    client: ApiClient,
}

impl Download {
    /// Bytes of the whole, if it says so.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks before the end.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, CliError> {
        self.response.chunk().await.map_err(|error| self.client.no_answer(&error))
    }
}

/// What the daemon tells as it happens.
#[derive(Debug)]
pub struct Events {
    response: Response,
    lines: sse::Lines,
}

impl Events {
    /// The next event; `None` when the stream ended, for whatever reason: the daemon may have stopped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(data) = self.lines.next_data() {
                match serde_json::from_str(&data) {
                    Ok(Event::Unknown) | Err(_) => {}
                    Ok(event) => return Some(event),
                }
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.lines.push(&chunk)?;
        }
    }
}
