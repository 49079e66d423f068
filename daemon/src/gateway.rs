//! The ComfyUI surface: what a program that can talk to one ComfyUI sees of the pool.
//!
//! Each listener has terms of its own: how urgent its prompts are, how far they may travel, whose project they are of. A
//! prompt becomes an ordinary job of the mesh. Whoever asks sees what is of its own scope, a listener or one of its
//! tokens, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post, put};
use axum::{Router, middleware};
use scenemesh_protocol::api::ReachWords;
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::task::Class;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::executor::Executor;
use crate::gpu::GpuReading;
use crate::http::hosts::Hosts;
use crate::http::serving;
use crate::membership::Membership;
use crate::network::Network;
use crate::scheduler::Scheduler;
use crate::store::Store;
use crate::supervisor::Tasks;

mod answer;
mod beside;
pub mod catalog;
mod desk;
mod etn;
mod files;
mod frames;
mod frontend;
mod gather;
mod guard;
mod hub;
mod jobs;
mod local;
mod outbox;
mod picture;
mod prompt;
mod queue;
pub mod reachable;
mod record;
mod terms;
mod told;
mod tooling;
mod upload;
mod uploads;
mod view;
mod ws;

use files::Files;
use uploads::Uploads;

/// Sockets at once, of all listeners: a few people with a few windows and programs each.
const SOCKETS: usize = 256;
/// Pictures that are decoded at once, each up to [`picture::LIMIT`] bytes of file.
const PICTURES: usize = 2;
/// Prompts that are read and judged at once.
const PROMPTS: usize = 4;

/// Where the gateway listens, and on which terms.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// None: there is no gateway.
    pub listeners: Vec<ListenerConfig>,
    /// The data directory.
    pub dir: PathBuf,
    /// Most bytes of one upload.
    pub upload_limit: u64,
    /// A frontend's files; none are part of this program.
    pub frontend_dir: Option<PathBuf>,
    /// The user that the daemon runs as: whoever needs no token.
    pub person: String,
}

/// Most bytes of one upload unless the configuration says otherwise.
pub const UPLOAD_LIMIT: u64 = 4 << 30;

/// One port, and what becomes of the prompts that come through it.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Whoever listens under this name has what it had under it before.
    pub name: String,
    /// Must be loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    pub class: Class,
    /// None: as far as the project goes by itself, else the studio, else this machine.
    pub reach: Option<ReachWords>,
    pub project: Option<String>,
    /// Who may speak: a token for each, by the person's name. None at all: everybody on this machine, as one.
    pub tokens: BTreeMap<String, Zeroizing<String>>,
}

/// What the gateway stands on.
#[derive(Clone, Debug)]
pub struct Ports {
    pub me: NodeId,
    pub scheduler: Scheduler,
    pub membership: Membership,
    pub network: Network,
    pub executor: Executor,
    pub gpus: watch::Receiver<Arc<Vec<GpuReading>>>,
    pub store: Store,
}

/// Why the gateway cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(
        "the gateway may listen on loopback only, and {0} is not; use 127.0.0.1:PORT or [::1]:PORT (--gateway, or gateway.listen in scenemesh.toml)"
    )]
    NotLoopback(SocketAddr),
    #[error(
        "the gateway cannot listen on {address}: {source}; another program may hold the port, choose one with --gateway"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the gateway cannot keep its files in {}: {source}; check the data directory and its owner", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("the frontend's files cannot be had from {} (gateway.frontend_dir): {source}; it is the directory with index.html", dir.display())]
    Frontend { dir: PathBuf, source: io::Error },
}

impl GatewayError {
    /// Whether starting again would not help.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::NotLoopback(_) | Self::Frontend { .. })
    }
}

/// The ports, taken but silent, and what clients uploaded before, which the store keeps from now on.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<(TcpListener, SocketAddr, ListenerConfig)>,
    config: Config,
    files: Files,
    uploads: Uploads,
    frontend: Option<PathBuf>,
}

/// Takes the ports, silently. None when the configuration wants no gateway.
///
/// # Errors
/// When an address is not loopback, a port is taken, or the files cannot be had.
pub async fn bind(config: Config, store: &Store, tasks: &Tasks) -> Result<Option<Bound>, GatewayError> {
    if config.listeners.is_empty() {
        return Ok(None);
    }
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        if !listener.listen.ip().is_loopback() {
            return Err(GatewayError::NotLoopback(listener.listen));
        }
        let failed = |source| GatewayError::Listen { address: listener.listen, source };
        let socket = TcpListener::bind(listener.listen).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        listeners.push((socket, address, listener.clone()));
    }
    let frontend = config.frontend_dir.clone().map(|dir| {
        let found = dir.join("index.html").metadata().and_then(|_| dir.canonicalize());
        found.map_err(|source| GatewayError::Frontend { dir, source })
    });
    let frontend = frontend.transpose()?;
    let (dir, blobs, ours) = (config.dir.clone(), store.blobs.clone(), tasks.clone());
    let opened = tasks.blocking(move || {
        let files = Files::open(&dir)?;
        let uploads = Uploads::open(files.clone(), blobs, ours);
        Ok((files, uploads))
    });
    let opened = opened.await.unwrap_or_else(|_| Err(io::Error::other("the node is stopping")));
    let (files, uploads) = opened.map_err(|source| GatewayError::Dir { dir: config.dir.clone(), source })?;
    Ok(Some(Bound { listeners, config, files, uploads, frontend }))
}

impl Bound {
    /// Where the first listener is asked.
    pub fn url(&self) -> Option<String> {
        self.listeners.first().map(|(_, address, _)| format!("http://{address}"))
    }

    /// Begins to answer; ends when the node stops.
    pub async fn serve(self, ports: Ports, tasks: &Tasks) {
        let ground = hub::Ground {
            scheduler: ports.scheduler.clone(),
            blobs: ports.store.blobs.clone(),
            files: self.files.clone(),
            tasks: tasks.clone(),
        };
        let hub = hub::spawn(ground).await;
        let catalogs = told::watch_catalogs(&ports, gather::spawn(ports.network.clone(), tasks), tasks);
        let listeners: Arc<[ListenerConfig]> =
            self.listeners.iter().map(|(_, _, listener)| listener.clone()).collect();
        let node = Node {
            ports: Arc::new(ports),
            hub,
            catalogs,
            files: self.files,
            uploads: self.uploads,
            local: local::Local::at(&self.config.dir),
            frontend: self.frontend,
            beside: beside::Beside::new(),
            listeners: listeners.clone(),
            upload_limit: self.config.upload_limit,
            tasks: tasks.clone(),
            sockets: Arc::new(Semaphore::new(SOCKETS)),
            pictures: Arc::new(Semaphore::new(PICTURES)),
            prompts: Arc::new(Semaphore::new(PROMPTS)),
            stop: tasks.stopping(),
        };
        for (at, (socket, address, listener)) in self.listeners.into_iter().enumerate() {
            let guard = guard::Guard::new(at, &listener, &self.config.person, Hosts::of(address));
            let app = routes(&node).layer(middleware::from_fn_with_state(guard, guard::keep));
            let serving = serving::serve(socket, app, tasks.clone(), "the gateway");
            tasks.spawn("gateway listener", async move {
                serving.await;
                Ok(())
            });
            tracing::info!(name = listener.name, url = %format_args!("http://{address}"), "the gateway listens");
        }
    }
}

/// What every handler gets.
#[derive(Clone, Debug)]
struct Node {
    ports: Arc<Ports>,
    hub: hub::Hub,
    catalogs: watch::Receiver<told::Catalogs>,
    files: Files,
    uploads: Uploads,
    local: local::Local,
    frontend: Option<PathBuf>,
    beside: beside::Beside,
    listeners: Arc<[ListenerConfig]>,
    upload_limit: u64,
    tasks: Tasks,
    /// Places of sockets, and of pictures that are decoded.
    sockets: Arc<Semaphore>,
    pictures: Arc<Semaphore>,
    /// Places of prompts that are read and judged.
    prompts: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Everything twice, as ComfyUI has it: bare, and below `/api`.
fn routes(node: &Node) -> Router {
    let both = Router::new()
        .route("/ws", get(ws::open))
        .route("/prompt", get(queue::exec_info).post(prompt::post))
        .route("/queue", get(queue::show).post(queue::change))
        .route("/history", get(queue::history).post(queue::forget))
        .route("/history/{id}", get(queue::history_of))
        .route("/interrupt", post(queue::interrupt))
        .route("/free", post(queue::free))
        .route("/view", get(view::view))
        .route("/view_metadata/{folder}", get(told::view_metadata))
        .route("/upload/image", post(upload::image))
        .route("/upload/mask", post(upload::mask))
        .route("/object_info", get(told::object_info))
        .route("/object_info/{class}", get(told::class))
        .route("/system_stats", get(told::system_stats))
        .route("/features", get(told::features))
        .route("/models", get(told::folders))
        .route("/models/{folder}", get(told::models))
        .route("/embeddings", get(told::embeddings))
        .route("/experiment/models", get(told::model_folders))
        .route("/experiment/models/{folder}", get(told::model_files));
    // The ComfyUI beside us answers these first.
    let beside = middleware::from_fn_with_state(node.clone(), beside::first);
    let person = Router::new()
        .route("/extensions", get(told::extensions))
        .route("/users", get(local::users))
        .route("/settings", get(local::settings).post(local::change_settings))
        .route("/settings/{id}", get(local::setting).post(local::change_setting))
        .route("/userdata", get(local::files))
        .route("/userdata/{file}", get(local::file).post(local::save).delete(local::remove))
        .route("/userdata/{file}/move/{to}", post(local::rename))
        .route("/i18n", get(local::nothing))
        .route("/global_subgraphs", get(local::nothing))
        .route("/node_replacements", get(local::nothing))
        .route("/workflow_templates", get(local::nothing))
        .route_layer(beside.clone());
    let both = both.merge(person);
    let pages = Router::new()
        .route("/extensions/{*path}", get(frontend::file))
        .route("/templates/{*path}", get(frontend::file))
        .route("/templates/index.json", get(local::none))
        .route("/templates/index_logo.json", get(local::nothing))
        .route("/docs/{*path}", get(frontend::file))
        .route("/user.css", get(local::no_style))
        .route_layer(beside);
    let jobs = Router::new()
        .route("/favicon.ico", get(local::no_picture))
        // Where things lie on a disk is nobody's business.
        .route("/internal/folder_paths", get(local::nothing))
        .route("/internal/files/{folder}", get(upload::names))
        .route("/api/etn/image/{id}", get(etn::get).put(etn::put))
        .route("/api/etn/upload/{folder}/{file}", put(etn::model))
        .route("/api/etn/languages", get(etn::languages))
        .route("/api/etn/{*path}", any(etn::nothing))
        .route("/api/jobs", get(jobs::list))
        .route("/api/jobs/cancel", post(jobs::cancel_all))
        .route("/api/jobs/{id}", get(jobs::show))
        .route("/api/jobs/{id}/cancel", post(jobs::cancel));
    // Every handler that takes a body bounds it itself.
    let routes = both.clone().merge(pages).merge(jobs).nest("/api", both).layer(DefaultBodyLimit::disable());
    routes.fallback(frontend::file).with_state(node.clone())
}
