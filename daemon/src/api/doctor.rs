//! What is wrong, and what to do about it.

use axum::Json;
use axum::extract::{Query, State};
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::api::{CheckState, CheckView, DoctorReply, ErrorCode};
use serde::Deserialize;

use super::trouble::Trouble;
use super::{Node, comfyui, pool, status, stored, views};
use crate::clock;
use crate::executor::SlotState;
use crate::membership::{AdminView, Standing};
use crate::messages::{Lang, Message, phrase};
use crate::network::{Link, PeerView};
use crate::platform;

/// Below this much free disk somebody should look.
const LITTLE_DISK: u64 = 10_000_000_000;
/// Clocks may differ by this much before tasks are in danger; they are refused at 300 s.
const SKEW_LOOK_MS: i64 = 60_000;
const SKEW_WRONG_MS: i64 = 300_000;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    peer: Option<String>,
}

/// Findings, worded in the asker's language: they are an answer, not a failure.
pub(super) struct Findings {
    lang: Lang,
    checks: Vec<CheckView>,
}

impl Findings {
    pub(super) fn len(&self) -> usize {
        self.checks.len()
    }

    pub(super) fn note(&mut self, name: &str, state: CheckState, found: &Message, hint: Option<Message>) {
        self.checks.push(CheckView {
            name: name.into(),
            state,
            found: found.text(self.lang),
            hint: hint.map(|hint| hint.text(self.lang)),
        });
    }
}

pub(super) async fn doctor(
    State(node): State<Node>,
    Query(asked): Query<Asked>,
    axum::Extension(lang): axum::Extension<Lang>,
) -> Result<Json<DoctorReply>, Trouble> {
    let mut findings = Findings { lang, checks: Vec::new() };
    data_dir(&node, &mut findings);
    disk(&node, &mut findings);
    stored::check(&node, &mut findings);
    standing(&node, &mut findings);
    let pool = node.ports.membership.pool().await;
    if pool.as_ref().is_some_and(|pool| pool.solo) {
        solo(&node, &mut findings);
    } else {
        ports(&node, &mut findings);
        if let (Some((_, studio)), Some(pool)) = (pool::own_names(&node), &pool) {
            admins(studio, &pool.admins, &mut findings);
        }
    }
    comfyuis(&node, &mut findings).await;
    gpus(&node, &mut findings);
    peers(&node, &mut findings);
    clocks(&node, &mut findings);
    if let Some(given) = asked.peer {
        one_peer(&node, &given, &mut findings)?;
    }
    Ok(Json(DoctorReply { checks: findings.checks }))
}

fn data_dir(node: &Node, findings: &mut Findings) {
    let path = node.dir.display().to_string();
    let probe = node.dir.join("doctor.probe");
    match platform::replace_file(&probe, b"doctor") {
        Ok(()) => {
            drop(std::fs::remove_file(&probe));
            findings.note("data_dir", CheckState::Ok, &Message::DataDirFine { path }, None);
        }
        Err(error) => {
            let found = Message::DataDirNotWritable { path, why: error.to_string() };
            findings.note("data_dir", CheckState::Fail, &found, Some(Message::HintDataDir));
        }
    }
}

fn disk(node: &Node, findings: &mut Findings) {
    match platform::free_bytes(&node.dir) {
        Ok(Some(free)) if free < LITTLE_DISK => {
            findings.note("disk", CheckState::Warn, &Message::DiskLow { free }, Some(Message::HintDisk));
        }
        Ok(Some(free)) => {
            let used = node.ports.store.blobs.used_bytes();
            findings.note("disk", CheckState::Ok, &Message::DiskFine { free, used }, None);
        }
        Ok(None) | Err(_) => findings.note("disk", CheckState::Ok, &Message::DiskUnknown, None),
    }
}

fn standing(node: &Node, findings: &mut Findings) {
    let standing = node.ports.membership.standing().borrow().clone();
    match &*standing {
        Standing::Alone => {
            findings.note("pool", CheckState::Warn, &Message::PoolAlone, Some(Message::HintInitOrJoin));
        }
        Standing::Joining { words, .. } => {
            let found = Message::PoolJoining { words: phrase(findings.lang, words) };
            findings.note("pool", CheckState::Warn, &found, Some(Message::HintWait));
        }
        Standing::Outside { why, .. } => {
            let found = Message::PoolOutside { why: phrase(findings.lang, why) };
            findings.note("pool", CheckState::Fail, &found, Some(Message::HintAskAdmin));
        }
        Standing::Member { roster, .. } => {
            let (pool, studio) = pool::own_names(node).unwrap_or_default();
            let members = roster.members(clock::wall_ms()).count();
            findings.note("pool", CheckState::Ok, &Message::PoolMember { pool, studio, members }, None);
        }
    }
}

/// Whether the studio could go on without the machine that holds its admin key.
fn admins(studio: String, admins: &[AdminView], findings: &mut Findings) {
    let held = admins.iter().filter(|admin| admin.revoked.is_none() && !admin.recovery).count();
    if held < 2 {
        let paper = admins.iter().any(|admin| admin.revoked.is_none() && admin.recovery);
        let found = Message::OneAdmin { studio, paper };
        findings.note("admins", CheckState::Warn, &found, Some(Message::HintSecondAdmin));
    }
}

/// Solo: what would open a socket to elsewhere.
fn solo(node: &Node, findings: &mut Findings) {
    match comfyui::elsewhere(node) {
        Some(url) => {
            let found = Message::SoloComfyuiElsewhere { url };
            findings.note("ports", CheckState::Fail, &found, Some(Message::HintSoloComfyui));
        }
        None => findings.note("ports", CheckState::Ok, &Message::SoloPorts, None),
    }
}

fn ports(node: &Node, findings: &mut Findings) {
    if !matches!(&**node.ports.membership.standing().borrow(), Standing::Member { .. }) {
        return;
    }
    let listening = node.ports.network.listening().borrow().clone();
    if listening.main.is_empty() {
        findings.note("ports", CheckState::Fail, &Message::NotListening, Some(Message::HintPorts));
    } else {
        let addresses = listening.main.iter().chain(&listening.porch).cloned().collect::<Vec<_>>().join(", ");
        findings.note("ports", CheckState::Ok, &Message::Listening { addresses }, None);
    }
}

async fn comfyuis(node: &Node, findings: &mut Findings) {
    let parked = node.ports.scheduler.parked().await;
    let slots = node.ports.executor.slots().borrow().clone();
    for slot in slots.iter() {
        let url = slot.url.clone();
        match &slot.state {
            SlotState::Starting => {
                findings.note("comfyui", CheckState::Warn, &Message::ComfyuiStarting { url }, None);
                continue;
            }
            SlotState::NotReady { why } => {
                let found = Message::ComfyuiNotReady {
                    url: url.clone(),
                    why: phrase(findings.lang, &why.replace(&format!(" at {url}"), "")),
                };
                findings.note("comfyui", CheckState::Fail, &found, Some(Message::HintComfyuiStart { url }));
                continue;
            }
            SlotState::Ready | SlotState::Busy { .. } => {}
        }
        let found = Message::ComfyuiReady {
            url: url.clone(),
            version: slot.comfyui_version.clone(),
            classes: slot.inventory.classes.len(),
            models: slot.inventory.models.len(),
        };
        findings.note("comfyui", CheckState::Ok, &found, None);
        if let Some(parked) = parked.iter().find(|parked| parked.slot == slot.url) {
            let found = status::why_parked(parked, findings.lang);
            findings.note("parked", CheckState::Warn, &found, Some(Message::HintParked));
        }
        match slot.hygiene {
            Hygiene::Full => findings.note("hygiene", CheckState::Ok, &Message::HygieneFull { url }, None),
            Hygiene::Partial => {
                let hint = Some(Message::HintHygiene);
                findings.note("hygiene", CheckState::Warn, &Message::HygienePartial { url }, hint);
            }
        }
    }
    let around = comfyui::around(node, findings.lang).await;
    let mut tried = Vec::new();
    for found in around.into_iter().filter(|found| !found.configured) {
        match found.version {
            Some(version) => {
                let unused = Message::ComfyuiUnused { url: found.url.clone(), version };
                let hint = Message::HintComfyuiConfigure { url: found.url };
                findings.note("comfyui", CheckState::Warn, &unused, Some(hint));
            }
            None => tried.push(found.url),
        }
    }
    if slots.is_empty() && !findings.checks.iter().any(|check| check.name == "comfyui") {
        let found = Message::ComfyuiNone { tried: tried.join(", ") };
        findings.note("comfyui", CheckState::Warn, &found, Some(Message::HintComfyuiNone));
    }
}

fn gpus(node: &Node, findings: &mut Findings) {
    let seen = status::gpus(node);
    let gpus = seen.iter().map(|gpu| gpu.name.clone()).collect::<Vec<_>>().join(", ");
    if seen.is_empty() {
        findings.note("gpu", CheckState::Warn, &Message::GpusNone, Some(Message::HintGpus));
    } else if node.ports.gpus.borrow().is_empty() {
        findings.note("gpu", CheckState::Ok, &Message::GpusFromComfyui { gpus }, None);
    } else {
        findings.note("gpu", CheckState::Ok, &Message::GpusSeen { gpus }, None);
    }
}

fn peers(node: &Node, findings: &mut Findings) {
    if !matches!(&**node.ports.membership.standing().borrow(), Standing::Member { .. }) {
        return;
    }
    let table = node.ports.network.peers().borrow().clone();
    let total = table.peers.len();
    let up = table.peers.values().filter(|peer| peer.link == Link::Up).count();
    match (up, total) {
        (_, 0) => findings.note("peers", CheckState::Ok, &Message::PeersNone, None),
        (0, _) => {
            let hint = Some(Message::HintPeersDown);
            findings.note("peers", CheckState::Fail, &Message::PeersAllDown { total }, hint);
        }
        _ => findings.note("peers", CheckState::Ok, &Message::PeersUp { up, total }, None),
    }
    for (id, peer) in &table.peers {
        if let Link::Refused { words } = &peer.link {
            let found = Message::PeerRefused {
                name: views::node_ref(node, *id).name,
                words: phrase(findings.lang, words),
            };
            findings.note("peers", CheckState::Fail, &found, None);
        }
    }
}

fn clocks(node: &Node, findings: &mut Findings) {
    let table = node.ports.network.peers().borrow().clone();
    let skews: Vec<(String, i64)> = table
        .peers
        .iter()
        .filter_map(|(id, peer)| Some((views::node_ref(node, *id).name, peer.skew_ms?)))
        .collect();
    for finding in judge_clocks(&skews) {
        match finding {
            Clock::Alone => findings.note("clock", CheckState::Ok, &Message::ClockAlone, None),
            Clock::Fine(peers) => findings.note("clock", CheckState::Ok, &Message::ClockFine { peers }, None),
            Clock::Mine(ms) => {
                let found = Message::ClockMine { seconds: ms / 1000 };
                findings.note("clock", severity(ms), &found, Some(Message::HintClock));
            }
            Clock::Theirs(name, ms) => {
                let found = Message::ClockOff { name, seconds: ms / 1000 };
                findings.note("clock", severity(ms), &found, Some(Message::HintClock));
            }
        }
    }
}

const fn severity(ms: i64) -> CheckState {
    if ms.abs() >= SKEW_WRONG_MS { CheckState::Fail } else { CheckState::Warn }
}

#[derive(Debug, PartialEq, Eq)]
enum Clock {
    Alone,
    Fine(usize),
    /// Most peers agree with each other, and not with this machine: their clocks minus ours, in milliseconds.
    Mine(i64),
    Theirs(String, i64),
}

/// Whose clock is wrong: that of the odd one out.
fn judge_clocks(skews: &[(String, i64)]) -> Vec<Clock> {
    if skews.is_empty() {
        return vec![Clock::Alone];
    }
    let mut sorted: Vec<i64> = skews.iter().map(|(_, ms)| *ms).collect();
    sorted.sort_unstable();
    // Of two middles the one nearer to ours: with two peers it is one word against another.
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    let median = if low.abs() < high.abs() { low } else { high };
    if skews.len() > 1 && median.abs() > SKEW_LOOK_MS {
        return vec![Clock::Mine(median)];
    }
    let off: Vec<Clock> = skews
        .iter()
        .filter(|(_, ms)| ms.abs() > SKEW_LOOK_MS)
        .map(|(name, ms)| Clock::Theirs(name.clone(), *ms))
        .collect();
    if off.is_empty() { vec![Clock::Fine(skews.len())] } else { off }
}

fn one_peer(node: &Node, given: &str, findings: &mut Findings) -> Result<(), Trouble> {
    let table = node.ports.network.peers().borrow().clone();
    let named = table.peers.iter().find(|(id, _)| {
        let text = id.to_string();
        views::node_ref(node, **id).name == given
            || text == given
            || (given.len() >= 6 && text.ends_with(given))
    });
    let Some((id, peer)) = named else {
        let given = given.chars().take(80).collect();
        return Err(
            Trouble::new(ErrorCode::NotFound, &Message::NoSuchPeer { given }).hint(&Message::HintPeers)
        );
    };
    peer_finding(views::node_ref(node, *id).name, peer, findings);
    Ok(())
}

fn peer_finding(name: String, peer: &PeerView, findings: &mut Findings) {
    match &peer.link {
        Link::Up => {
            let address = peer.address.clone().unwrap_or_default();
            let rtt_us = peer.rtt.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
            findings.note("peer", CheckState::Ok, &Message::PeerUp { name, address, rtt_us }, None);
        }
        Link::Down => {
            let address = peer.address.clone().unwrap_or_else(|| "-".into());
            let why = peer.last_error.as_deref().map_or(address, |words| phrase(findings.lang, words));
            let hint = Some(Message::HintPeer);
            findings.note("peer", CheckState::Fail, &Message::PeerDown { name, why }, hint);
        }
        Link::Refused { words } => {
            let found = Message::PeerRefused { name, words: phrase(findings.lang, words) };
            findings.note("peer", CheckState::Fail, &found, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_clock_out_is_named() {
        let skews = |list: &[(&str, i64)]| {
            let list: Vec<(String, i64)> = list.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect();
            judge_clocks(&list)
        };
        assert_eq!(skews(&[]), [Clock::Alone]);
        assert_eq!(skews(&[("a", 900), ("b", -200)]), [Clock::Fine(2)]);
        assert_eq!(skews(&[("a", 1_200_000)]), [Clock::Theirs("a".into(), 1_200_000)]);
        assert_eq!(skews(&[("a", 1_200_000), ("b", 20)]), [Clock::Theirs("a".into(), 1_200_000)]);
        assert_eq!(skews(&[("a", -1_200_000), ("b", 20)]), [Clock::Theirs("a".into(), -1_200_000)]);
        assert_eq!(skews(&[("a", 1_200_000), ("b", 1_200_400), ("c", 0)]), [Clock::Mine(1_200_000)]);
        assert_eq!(skews(&[("a", 0), ("b", 10), ("c", -1_200_000)]), [Clock::Theirs("c".into(), -1_200_000)]);
    }
}
