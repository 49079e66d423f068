//! The local API: how people and programs on this machine speak to the node. `protocol::api` has the words.
//!
//! Nobody else hears it: it listens on loopback only, and every request shows the token that `api.json` in the data
//! directory tells to this user alone. [`bind`] takes the port before anything is announced; [`Bound::serve`] answers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};
use scenemesh_protocol::api::{API_FILE, ApiFile, Role};
use scenemesh_protocol::ids::NodeId;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::executor::Executor;
use crate::executor::policy as rules;
use crate::gpu::GpuReading;
use crate::http::hosts::Hosts;
use crate::http::serving;
use crate::membership::Membership;
use crate::network::Network;
use crate::platform;
use crate::scheduler::Scheduler;
use crate::scheduler::lend::{Lend, keeper};
use crate::store::Store;
use crate::supervisor::Tasks;

mod body;
mod comfyui;
mod doctor;
mod events;
mod eyes;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
mod inputs;
mod jobs;
mod journal;
mod korean;
mod lend;
mod openapi;
mod outputs;
mod policy;
mod pool;
mod projects;
mod status;
mod stored;
mod submit;
mod trouble;
mod trust;
mod users;
mod views;
mod workflow;

#[cfg(test)]
mod tests;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Must be loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data directory: `api.json` is written there.
    pub dir: PathBuf,
    /// What `COMFYUI_HOST` says, if anything: another place to look for a ComfyUI.
    pub comfyui_host: Option<String>,
    /// The user that the daemon runs as: the person of the token in `api.json`.
    pub person: String,
}

impl Config {
    /// 127.0.0.1:7870.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7870)),
            dir: dir.into(),
            comfyui_host: None,
            person: String::new(),
        }
    }
}

/// What the API stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    pub me: NodeId,
    pub scheduler: Scheduler,
    pub membership: Membership,
    pub network: Network,
    pub executor: Executor,
    pub policy: rules::Keeper,
    /// To whom this node is lent, as its configuration says.
    pub lend: Lend,
    /// What was said of it by hand.
    pub lending: keeper::Keeper,
    pub gpus: watch::Receiver<Arc<Vec<GpuReading>>>,
    pub store: Store,
}

/// Why the API cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "the local API may listen on loopback only, and {0} is not; use 127.0.0.1:PORT or [::1]:PORT (--api, or api in scenemesh.toml)"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {address}: {source}; another program may hold the port, choose one with --api")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot write {path}: {source}; check the data directory and the free space on its disk")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot use {}: {source}; mend or remove it", dir.join("users.toml").display())]
    Users { dir: PathBuf, source: io::Error },
}

/// The port, taken but silent.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    gateway: Option<String>,
}

/// Takes the port, silently.
///
/// # Errors
/// When the address is not loopback or the port is taken.
pub async fn bind(config: Config) -> Result<Bound, BindError> {
    if !config.listen.ip().is_loopback() {
        return Err(BindError::NotLoopback(config.listen));
    }
    let failed = |source| BindError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address, config, gateway: None })
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, telling clients where the ComfyUI gateway is.
    #[must_use]
    pub fn telling_gateway(self, url: Option<String>) -> Self {
        Self { gateway: url, ..self }
    }

    /// Writes `api.json` and begins to answer; ends, and removes the file, when the node stops.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn serve(self, ports: Ports, tasks: &Tasks) -> Result<(), BindError> {
        let url = format!("http://{}", self.address);
        let file = ApiFile { url: url.clone(), token: users::fresh_token(), gateway: self.gateway };
        let path = self.config.dir.join(API_FILE);
        let users = users::Users::open(&self.config.dir, &file.token, &self.config.person);
        let users = users.map_err(|source| BindError::Users { dir: self.config.dir.clone(), source })?;
        let guard = guard::Guard::new(users.tokens(), Hosts::of(self.address));
        let node = Node {
            ports: Arc::new(ports),
            dir: self.config.dir,
            comfyui_host: self.config.comfyui_host,
            url: url.into(),
            users: Arc::new(users),
            tasks: tasks.clone(),
            started: Instant::now(),
            uploads: Arc::new(inputs::Uploads::default()),
            listeners: Arc::new(Semaphore::new(events::LISTENERS)),
            stop: tasks.stopping(),
        };
        let app = guarded(routes().router.with_state(node), guard);
        write(&path, &file).map_err(|source| BindError::File { path: path.clone(), source })?;
        let serving = serving::serve(self.listener, app, tasks.clone(), "the local API");
        tasks.spawn("api", async move {
            serving.await;
            remove(&path, &file);
            Ok(())
        });
        Ok(())
    }
}

fn write(path: &std::path::Path, file: &ApiFile) -> io::Result<()> {
    let mut text = serde_json::to_vec(file)?;
    text.push(b'\n');
    platform::replace_file(path, &text)
}

/// Leaves the file alone when another daemon has written its own meanwhile.
fn remove(path: &std::path::Path, file: &ApiFile) {
    let ours = std::fs::read(path)
        .is_ok_and(|text| serde_json::from_slice::<ApiFile>(&text).is_ok_and(|held| held == *file));
    if ours {
        // A file that stays names a port where nobody answers, which clients understand as well.
        drop(std::fs::remove_file(path));
    }
}

/// What every handler gets.
#[derive(Clone, Debug)]
struct Node {
    ports: Arc<Ports>,
    dir: PathBuf,
    comfyui_host: Option<String>,
    url: Arc<str>,
    users: Arc<users::Users>,
    tasks: Tasks,
    started: Instant,
    uploads: Arc<inputs::Uploads>,
    /// Places of event streams.
    listeners: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The routes, each with the least role that its caller needs; `openapi.json` describes the same.
#[derive(Debug, Default)]
struct Routes {
    router: Router<Node>,
    /// Method in small letters, path, role: what the router has, which cannot be asked.
    known: Vec<(&'static str, &'static str, Role)>,
}

impl Routes {
    fn get<H: Handler<T, Node>, T: 'static>(self, need: Role, path: &'static str, handler: H) -> Self {
        self.with("get", need, path, get(handler))
    }

    fn post<H: Handler<T, Node>, T: 'static>(self, need: Role, path: &'static str, handler: H) -> Self {
        self.with("post", need, path, post(handler))
    }

    fn with(
        mut self,
        method: &'static str,
        need: Role,
        path: &'static str,
        handler: MethodRouter<Node>,
    ) -> Self {
        let handler = handler.route_layer(middleware::from_fn_with_state(need, guard::require));
        self.router = self.router.route(path, handler);
        self.known.push((method, path, need));
        self
    }
}

fn routes() -> Routes {
    use Role::{Admin, Operate, Submit, View};
    Routes::default()
        .get(View, "/v1/openapi.json", openapi::document)
        .get(View, "/v1/status", status::status)
        .get(Operate, "/v1/doctor", doctor::doctor)
        .get(View, "/v1/policy", policy::show)
        .post(View, "/v1/policy/class", policy::class)
        .post(View, "/v1/policy/check", policy::check)
        .get(View, "/v1/pool", pool::show)
        .get(View, "/v1/peers", status::peers)
        .get(View, "/v1/jobs", jobs::list)
        .get(View, "/v1/jobs/{id}", jobs::show)
        .get(View, "/v1/jobs/{id}/why", jobs::why)
        .get(View, "/v1/jobs/{id}/log", jobs::log)
        .get(View, "/v1/jobs/{id}/events", events::of_job)
        .get(View, "/v1/events", events::of_all)
        .get(View, "/v1/tasks/{id}/preview", outputs::preview)
        // An input is as long as it is: its own handler bounds it.
        .with("post", Submit, "/v1/inputs", post(inputs::upload).layer(DefaultBodyLimit::disable()))
        .post(Submit, "/v1/jobs", submit::submit)
        .post(Submit, "/v1/jobs/{id}/cancel", jobs::cancel)
        .post(Submit, "/v1/jobs/{id}/retry", jobs::retry)
        .post(Submit, "/v1/jobs/{id}/pause", jobs::pause)
        .post(Submit, "/v1/jobs/{id}/resume", jobs::resume)
        .get(Submit, "/v1/tasks/{id}/outputs/{index}", outputs::output)
        .post(Operate, "/v1/policy", policy::change)
        .get(View, "/v1/lend", lend::show)
        .post(Operate, "/v1/lend", lend::say)
        .get(View, "/v1/drain", lend::drained)
        .post(Operate, "/v1/drain", lend::drain)
        .post(Admin, "/v1/init", pool::init)
        .post(Admin, "/v1/invite", pool::invite)
        .post(Admin, "/v1/join/preview", pool::preview)
        .post(Admin, "/v1/join", pool::join)
        .post(Admin, "/v1/pool/approve", pool::approve)
        .post(Admin, "/v1/leave", pool::leave)
        .get(Submit, "/v1/projects", projects::list)
        .post(Admin, "/v1/projects", projects::add)
        .post(Admin, "/v1/projects/set", projects::set)
        .get(Admin, "/v1/users", users::list)
        .post(Admin, "/v1/users", users::add)
        .post(Admin, "/v1/users/set", users::set)
        .post(Admin, "/v1/users/rm", users::remove)
        .post(Admin, "/v1/revoke", trust::revoke)
        .post(Admin, "/v1/block", trust::block)
        .post(Admin, "/v1/rotate", trust::rotate)
        .get(Admin, "/v1/admin", trust::admins)
        .post(Admin, "/v1/admin/new", trust::new_admin)
        .post(Admin, "/v1/admin/recover", trust::recover)
        .post(Admin, "/v1/admin/change", trust::change_admins)
        .get(Admin, "/v1/journal", journal::export)
        // An export is as long as the journal: the disk bounds it.
        .with("post", Admin, "/v1/journal", post(journal::import).layer(DefaultBodyLimit::disable()))
        .post(Admin, "/v1/ledger/rebuild", journal::rebuild)
}

fn guarded(router: Router, guard: guard::Guard) -> Router {
    router.layer(middleware::from_fn_with_state(guard, guard::keep))
}
