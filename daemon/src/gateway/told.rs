//! What the gateway tells of itself: node classes, models, machines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::task::Reach;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::answer::Problem;
use super::catalog::Catalog;
use super::gather::Gathered;
use super::guard::Caller;
use super::reachable::Reachable;
use super::terms::terms;
use super::{Node, Ports};
use crate::clock;
use crate::executor::SlotView;
use crate::executor::definitions::{inputs_mut, is_upload, options_mut};
use crate::executor::graph::is_file_input;
use crate::network::{Link, PeerTable};
use crate::supervisor::Tasks;

/// The release of ComfyUI whose dialect this is, where no ComfyUI beside us says another.
const DIALECT: &str = "0.3.64";
const MIB: u64 = 1 << 20;
/// Longest that a program which has just come waits until the first node has told its definitions.
const FIRST_WORDS: Duration = Duration::from_secs(10);

/// What can be reached as far as each reach goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalogs {
    machine: Arc<Catalog>,
    studio: Arc<Catalog>,
    pool: Arc<Catalog>,
}

impl Catalogs {
    fn of(&self, reach: &Reach) -> Arc<Catalog> {
        match reach {
            Reach::Machine => self.machine.clone(),
            Reach::Studio => self.studio.clone(),
            // Of some other studios: all that may be shown; whom it leaves out is said when nobody takes it.
            Reach::Studios(_) | Reach::Pool => self.pool.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        let pairs =
            [(&self.machine, &other.machine), (&self.studio, &other.studio), (&self.pool, &other.pool)];
        pairs.into_iter().all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Node {
    /// What the caller's prompts can reach.
    pub(super) fn catalog(&self, caller: &Caller) -> Arc<Catalog> {
        let reach = terms(&self.ports, &self.listeners[caller.listener]).map(|terms| terms.reach);
        self.catalogs.borrow().of(&reach.unwrap_or(Reach::Machine))
    }

    /// The same; where nobody has told anything yet and somebody is about to, as soon as that is there. Programs ask once, when
    /// they start.
    async fn whole_catalog(&self, caller: &Caller) -> Arc<Catalog> {
        let mut catalogs = self.catalogs.clone();
        let told = async {
            while self.catalog(caller).is_about_to_tell() {
                change(&mut catalogs).await;
            }
        };
        // As it is then, is what there is.
        drop(tokio::time::timeout(FIRST_WORDS, told).await);
        self.catalog(caller)
    }
}

/// One after the other, wider each time; the same as the one before where nobody is added.
#[derive(Debug, Default)]
struct Horizon {
    machine: Reachable,
    studio: Reachable,
    pool: Reachable,
}

impl Horizon {
    fn look(
        &mut self,
        slots: &[SlotView],
        peers: &PeerTable,
        told: &Gathered,
        us: &str,
        name: impl Fn(&NodeId) -> String,
        ours: impl Fn(&NodeId) -> bool,
    ) -> Catalogs {
        let near = peers.peers.iter().filter(|(node, _)| ours(node));
        let near = PeerTable { peers: near.map(|(node, peer)| (*node, peer.clone())).collect() };
        let machine = if near.peers.is_empty() {
            None
        } else {
            Some(self.machine.look(slots, &PeerTable { peers: BTreeMap::new() }, told, us, &name))
        };
        let studio =
            (near.peers.len() < peers.peers.len()).then(|| self.studio.look(slots, &near, told, us, &name));
        let pool = self.pool.look(slots, peers, told, us, name);
        let studio = studio.unwrap_or_else(|| pool.clone());
        Catalogs { machine: machine.unwrap_or_else(|| studio.clone()), studio, pool }
    }
}

/// Keeps the catalogs as what is reachable changes.
pub(super) fn watch_catalogs(
    ports: &Ports,
    mut told: watch::Receiver<Arc<Gathered>>,
    tasks: &Tasks,
) -> watch::Receiver<Catalogs> {
    let (sender, receiver) = watch::channel(Catalogs::default());
    let (ports, own, stop) = (ports.clone(), tasks.clone(), tasks.stopping());
    tasks.spawn("gateway catalog", async move {
        let mut slots = ports.executor.slots();
        let mut peers = ports.network.peers();
        let mut roster = ports.membership.roster();
        let mut horizon = Horizon::default();
        loop {
            let (now, them, told_now, members) = (
                slots.borrow_and_update().clone(),
                peers.borrow_and_update().clone(),
                told.borrow_and_update().clone(),
                roster.borrow_and_update().clone(),
            );
            let me = ports.me;
            let looked = own.blocking(move || {
                let ms = clock::wall_ms();
                let name = |id: &NodeId| {
                    let member = members.as_ref().and_then(|roster| roster.member(id, ms));
                    member.map_or_else(|| id.short(), |member| member.name.clone())
                };
                let studio = |id: &NodeId| Some(members.as_ref()?.member(id, ms)?.studio);
                let ours = |id: &NodeId| studio(id).is_some() && studio(id) == studio(&me);
                let catalogs = horizon.look(&now, &them, &told_now, &name(&me), name, ours);
                (horizon, catalogs)
            });
            let Ok((looked, catalogs)) = looked.await else { return Ok(()) };
            horizon = looked;
            sender.send_if_modified(|known| {
                let new = !known.is(&catalogs);
                *known = catalogs;
                new
            });
            let changed = async {
                tokio::select! {
                    () = change(&mut slots) => {}
                    () = change(&mut peers) => {}
                    () = change(&mut told) => {}
                    () = change(&mut roster) => {}
                }
            };
            if stop.run_until_cancelled(changed).await.is_none() {
                return Ok(());
            }
        }
    });
    receiver
}

/// Whoever tells nothing any more, as an executor without ComfyUIs, never changes.
async fn change<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Inputs that take a file list the caller's own uploads.
fn with_uploads(class: &str, definition: &mut Value, uploads: &[Value]) {
    for (name, spec) in inputs_mut(definition) {
        if (is_file_input(class, name) || is_upload(spec))
            && let Some(options) = options_mut(spec)
        {
            *options = uploads.to_vec();
        }
    }
}

fn uploads(node: &Node, caller: &Caller) -> Vec<Value> {
    node.uploads.inputs(&caller.scope).into_iter().map(Value::from).collect()
}

pub(super) async fn object_info(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let (catalog, uploads) = (node.whole_catalog(&caller).await, uploads(&node, &caller));
    let written = node.tasks.blocking(move || {
        let mut classes: Map<String, Value> = catalog.object_info().clone();
        for (class, definition) in &mut classes {
            with_uploads(class, definition, &uploads);
        }
        Value::Object(classes).to_string()
    });
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let text = written.await.map_err(stopping)?;
    Ok(([(CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response())
}

pub(super) async fn class(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(class): Path<String>,
) -> Json<Value> {
    let mut told = node.catalog(&caller).class(&class);
    if let Some(definition) = told.get_mut(&class) {
        with_uploads(&class, definition, &uploads(&node, &caller));
    }
    Json(told)
}

pub(super) async fn folders(State(node): State<Node>, Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!(node.catalog(&caller).folders()))
}

pub(super) async fn models(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(folder): Path<String>,
) -> Result<Json<Value>, Problem> {
    let catalog = node.catalog(&caller);
    let known = catalog.models(&folder).map(|models| Json(json!(models)));
    known.ok_or_else(Problem::not_found)
}

pub(super) async fn model_folders(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let catalog = node.catalog(&caller);
    Json(catalog.folders().iter().map(|folder| json!({"name": folder, "folders": []})).collect())
}

pub(super) async fn model_files(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(folder): Path<String>,
) -> Result<Json<Value>, Problem> {
    let catalog = node.catalog(&caller);
    let models = catalog.models(&folder).ok_or_else(Problem::not_found)?;
    Ok(Json(models.iter().map(|name| json!({"name": name, "pathIndex": 0})).collect()))
}

pub(super) async fn embeddings(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    Json(json!(node.catalog(&caller).embeddings()))
}

/// Scripts of custom nodes are their machines' own.
pub(super) async fn extensions() -> Json<Value> {
    Json(json!([]))
}

/// Headers of model files are on the machines that have the files.
pub(super) async fn view_metadata() -> Problem {
    Problem::not_found()
}

pub(super) fn flags(node: &Node) -> Value {
    json!({"supports_preview_metadata": true, "max_upload_size": node.upload_limit, "node_replacements": true})
}

pub(super) async fn features(State(node): State<Node>) -> Json<Value> {
    Json(flags(&node))
}

/// A device of the pool, as clients want to see one.
struct Device {
    name: String,
    total_mib: u32,
    free_mib: u32,
}

/// The largest first: clients that look at one size their batches by it.
fn devices(node: &Node) -> Vec<Device> {
    let peers = node.ports.network.peers().borrow().clone();
    let mut devices: Vec<Device> = Vec::new();
    for slot in node.ports.executor.slots().borrow().iter() {
        devices.extend(slot.devices.iter().map(|device| Device {
            name: device.name.clone(),
            total_mib: device.vram_mib.unwrap_or_default(),
            free_mib: device.vram_free_mib.unwrap_or_default(),
        }));
    }
    for peer in peers.peers.values().filter(|peer| peer.link == Link::Up) {
        let gpus = peer.advert.iter().flat_map(|advert| &advert.gpus);
        devices.extend(gpus.map(|gpu| Device {
            name: gpu.name.clone(),
            total_mib: gpu.vram_mib.unwrap_or_default(),
            free_mib: gpu.vram_free_mib.unwrap_or_default(),
        }));
    }
    devices.sort_by(|a, b| (b.total_mib, &a.name).cmp(&(a.total_mib, &b.name)));
    devices
}

pub(super) async fn system_stats(State(node): State<Node>) -> Json<Value> {
    let slots = node.ports.executor.slots().borrow().clone();
    let version = slots.iter().map(|slot| slot.comfyui_version.as_str()).find(|version| !version.is_empty());
    let mut devices = devices(&node);
    if devices.is_empty() {
        devices.push(Device { name: "nobody is reachable".into(), total_mib: 0, free_mib: 0 });
    }
    let device = |(device, index): (&Device, u32)| {
        let (total, free) = (u64::from(device.total_mib) * MIB, u64::from(device.free_mib) * MIB);
        json!({
            "name": format!("mesh:{index} {}", device.name), "type": "cuda", "index": index, "vram_total": total,
            "vram_free": free, "torch_vram_total": total, "torch_vram_free": free,
        })
    };
    // Paths, memory and programs of this machine are nobody's business; clients want the fields.
    Json(json!({
        "system": {
            "os": std::env::consts::OS, "ram_total": 0, "ram_free": 0, "comfyui_version": version.unwrap_or(DIALECT),
            "required_frontend_version": null, "python_version": "", "pytorch_version": "", "embedded_python": false,
            "argv": [],
        },
        "devices": devices.iter().zip(0..).map(device).collect::<Vec<_>>(),
    }))
}
