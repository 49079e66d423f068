//! How this node stands, and who else is there.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use scenemesh_protocol::advert::GpuAdvert;
use scenemesh_protocol::api::{
    GpuView, LinkState, PeerView, PeersReply, ShutState, ShutView, SlotState, SlotView, Standing, StatusReply,
};
use scenemesh_protocol::roster::Roster;

use super::{Node, views};
use crate::clock;
use crate::executor;
use crate::membership;
use crate::messages::{Lang, Message, phrase};
use crate::network::{self, Link};
use crate::scheduler::renderer::ParkedSlot;

pub(super) async fn status(State(node): State<Node>, Extension(lang): Extension<Lang>) -> Json<StatusReply> {
    let standing = node.ports.membership.standing().borrow().clone();
    let peers = node.ports.network.peers().borrow().clone();
    let open = node.ports.scheduler.open_tasks().await;
    let listening = node.ports.network.listening().borrow().clone();
    let mut reply = StatusReply {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: node.started.elapsed().as_secs(),
        data_dir: node.dir.display().to_string(),
        standing: Standing::Alone,
        node: node.ports.me,
        name: None,
        pool: None,
        pool_name: None,
        studio_name: None,
        epoch: None,
        solo: false,
        why: None,
        warnings: Vec::new(),
        peers_up: peers_up(&node),
        peers_total: number(peers.peers.len()),
        listening: listening.main,
        porch: listening.porch,
        slots: slots(&node, &node.ports.scheduler.parked().await, lang),
        gpus: gpus(&node),
        tasks_queued: number(open.queued),
        tasks_running: number(open.running),
    };
    match &*standing {
        membership::Standing::Alone => {}
        membership::Standing::Joining { pool, words, .. } => {
            reply.standing = Standing::Joining;
            reply.pool = Some(*pool);
            reply.why = Some(phrase(lang, words));
        }
        membership::Standing::Member { roster, name, studio } => {
            reply.standing = Standing::Member;
            reply.name = Some(name.clone());
            reply.studio_name = Some(membership::studio_name(roster, studio));
            in_pool(&mut reply, roster);
        }
        membership::Standing::Outside { roster, why } => {
            reply.standing = Standing::Outside;
            reply.why = Some(phrase(lang, why));
            in_pool(&mut reply, roster);
        }
    }
    if let Some(pool) = node.ports.membership.pool().await {
        reply.solo = pool.solo;
        reply.warnings = pool.warnings.iter().map(|words| phrase(lang, words)).collect();
    }
    Json(reply)
}

fn in_pool(reply: &mut StatusReply, roster: &Arc<Roster>) {
    reply.pool = Some(roster.pool());
    reply.pool_name = Some(roster.settings().pool_name.clone());
    reply.epoch = Some(roster.settings().epoch);
}

pub(super) async fn peers(State(node): State<Node>, Extension(lang): Extension<Lang>) -> Json<PeersReply> {
    let roster = node.ports.membership.roster().borrow().clone();
    let table = node.ports.network.peers().borrow().clone();
    let mut peers: Vec<PeerView> =
        table.peers.iter().map(|(id, peer)| peer_view(&node, *id, peer, roster.as_deref(), lang)).collect();
    peers.sort_by(|a, b| (&a.studio, &a.name, a.node).cmp(&(&b.studio, &b.name, b.node)));
    let shut = node.ports.membership.pool().await.map(|pool| pool.shut).unwrap_or_default();
    let mut shut: Vec<ShutView> = shut.into_iter().map(|(id, shut)| shut_view(id, shut)).collect();
    shut.retain(|shut| shut.node != node.ports.me);
    shut.sort_by(|a, b| (&a.studio, &a.name, a.node).cmp(&(&b.studio, &b.name, b.node)));
    let outside = match &**node.ports.membership.standing().borrow() {
        membership::Standing::Outside { why, .. } => Some(phrase(lang, why)),
        _ => None,
    };
    Json(PeersReply { peers, shut, outside })
}

fn shut_view(node: scenemesh_protocol::ids::NodeId, shut: membership::Shut) -> ShutView {
    let (state, until_ms) = match shut.barrier {
        membership::Barrier::Revoked => (ShutState::Revoked, None),
        membership::Barrier::Rotated => (ShutState::Rotated, None),
        membership::Barrier::Blocked { until_ms } => (ShutState::Blocked, Some(until_ms)),
    };
    ShutView { node, name: shut.name, studio: shut.studio, state, reason: shut.reason, until_ms }
}

fn peer_view(
    node: &Node,
    id: scenemesh_protocol::ids::NodeId,
    peer: &network::PeerView,
    roster: Option<&Roster>,
    lang: Lang,
) -> PeerView {
    let named = views::node_ref(node, id);
    let (link, why) = match &peer.link {
        Link::Up => (LinkState::Up, None),
        Link::Down => (LinkState::Down, peer.last_error.as_deref().map(|words| phrase(lang, words))),
        Link::Refused { words } => (LinkState::Refused, Some(phrase(lang, words))),
    };
    let advert = peer.advert.as_deref();
    PeerView {
        node: id,
        name: named.name,
        studio: roster
            .map_or_else(|| peer.studio.short(), |roster| membership::studio_name(roster, &peer.studio)),
        link,
        why,
        address: peer.address.clone(),
        rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        agent: peer.agent.clone(),
        skew_ms: peer.skew_ms,
        availability: advert.map(|advert| advert.availability),
        hygiene: advert.map(|advert| advert.hygiene),
        slots_total: advert.map_or(0, |advert| advert.slots_total.into()),
        slots_free: advert.map_or(0, |advert| advert.slots_free.into()),
        queue: advert.map_or(0, |advert| advert.queue.into()),
        gpus: advert.map(|advert| advert.gpus.iter().map(advertised).collect()).unwrap_or_default(),
        models: peer.inventory.as_ref().map(|inventory| number(inventory.models.len())),
        comfyui: advert.map(|advert| advert.comfyui.clone()).filter(|version| !version.is_empty()),
        last_seen_ms: if peer.link == Link::Up { Some(clock::wall_ms()) } else { peer.last_seen_ms },
    }
}

fn advertised(gpu: &GpuAdvert) -> GpuView {
    GpuView {
        name: gpu.name.clone(),
        vram_mib: gpu.vram_mib,
        vram_free_mib: gpu.vram_free_mib,
        cc: gpu.cc,
        ..GpuView::default()
    }
}

pub(super) fn peers_up(node: &Node) -> u32 {
    let peers = node.ports.network.peers().borrow().clone();
    number(peers.peers.values().filter(|peer| peer.link == Link::Up).count())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn slots(node: &Node, parked: &[ParkedSlot], lang: Lang) -> Vec<SlotView> {
    let slots = node.ports.executor.slots().borrow().clone();
    let view = |slot: &executor::SlotView| {
        let (state, why, task) = match &slot.state {
            executor::SlotState::Starting => (SlotState::Starting, None, None),
            executor::SlotState::Ready => (SlotState::Ready, None, None),
            executor::SlotState::Busy { task, .. } => (SlotState::Busy, None, Some(*task)),
            executor::SlotState::NotReady { why } => (SlotState::NotReady, Some(phrase(lang, why)), None),
        };
        SlotView {
            url: slot.url.clone(),
            state,
            why,
            task,
            comfyui: Some(slot.comfyui_version.clone()).filter(|version| !version.is_empty()),
            models: number(slot.inventory.models.len()),
            hygiene: Some(slot.hygiene),
            parked: parked
                .iter()
                .find(|parked| parked.slot == slot.url)
                .map(|parked| why_parked(parked, lang).text(lang)),
        }
    };
    slots.iter().map(view).collect()
}

/// Why a slot takes nothing of others'.
pub(super) fn why_parked(parked: &ParkedSlot, lang: Lang) -> Message {
    Message::ComfyuiParked {
        url: parked.slot.clone(),
        nodes: parked.owners,
        last: views::failure_class(parked.last, lang),
        trouble: parked.trouble.as_deref().map(|words| phrase(lang, words)),
        minutes: parked.left.as_secs().div_ceil(60),
    }
}

/// What the driver tells; without one, what ComfyUI sees.
pub(super) fn gpus(node: &Node) -> Vec<GpuView> {
    let readings = node.ports.gpus.borrow().clone();
    if !readings.is_empty() {
        let view = |gpu: &crate::gpu::GpuReading| GpuView {
            name: gpu.name.clone().unwrap_or_else(|| "GPU".into()),
            vram_mib: gpu.vram_mib,
            vram_free_mib: gpu.vram_free_mib,
            cc: gpu.cc,
            utilisation_percent: gpu.utilisation_percent.map(Into::into),
            temperature_c: gpu.temperature_c.map(Into::into),
            power_w: gpu.power_mw.map(|power| power / 1000),
        };
        return readings.iter().map(view).collect();
    }
    let slots = node.ports.executor.slots().borrow().clone();
    let devices = slots.iter().flat_map(|slot| &slot.devices).filter(|device| device.kind != "cpu");
    devices
        .map(|device| GpuView {
            name: device.name.clone(),
            vram_mib: device.vram_mib,
            vram_free_mib: device.vram_free_mib,
            ..GpuView::default()
        })
        .collect()
}
