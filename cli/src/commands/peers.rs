//! `peers`: the other nodes of the pool.

use scenemesh_protocol::advert::Availability;
use scenemesh_protocol::api::{GpuView, LinkState, PeerView, ShutState, ShutView};

use super::Context;
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Tone, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct PeersArgs {}

pub(crate) async fn run(_args: PeersArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let reply = context.connection.open()?.peers().await?;
    let now_ms = human::now_ms();
    match &reply.outside {
        Some(words) => ui.note(words),
        None if reply.peers.is_empty() => ui.talk(&Message::NoPeers),
        None => ui.table(&table(&reply.peers, now_ms, ui)),
    }
    if !reply.shut.is_empty() {
        ui.result("");
        ui.table(&shut_table(&reply.shut, now_ms, ui));
    }
    Outcome::of_reply(&reply)
}

/// Nodes that are shut out, and for how long.
fn shut_table(shut: &[ShutView], now_ms: u64, ui: &Ui) -> Table {
    let mut table =
        Table::new(&[Word::Name, Word::Studio, Word::State, Word::What].map(|word| ui.word(word)));
    for node in shut {
        let (state, what) = match (node.state, node.until_ms) {
            (ShutState::Blocked, Some(until_ms)) => {
                let left = human::span_ms(until_ms.saturating_sub(now_ms));
                (Word::Blocked, ui.text(&Message::BlockedFor { left, reason: node.reason.clone() }))
            }
            (ShutState::Blocked, None) => (Word::Blocked, node.reason.clone()),
            (ShutState::Revoked, _) => (Word::Revoked, node.reason.clone()),
            (ShutState::Rotated, _) => (Word::Rotated, node.reason.clone()),
        };
        table.row([
            (node.name.as_str(), None),
            (node.studio.as_str(), None),
            (ui.word(state), Some(Tone::Bad)),
            (what.as_str(), None),
        ]);
    }
    table
}

pub(super) fn table(peers: &[PeerView], now_ms: u64, ui: &Ui) -> Table {
    let words = [
        Word::Name,
        Word::Studio,
        Word::State,
        Word::Gpu,
        Word::VramFreeTotal,
        Word::Models,
        Word::Path,
        Word::Rtt,
        Word::Seen,
    ];
    let mut table = Table::new(&words.map(|word| ui.word(word)));
    for peer in peers {
        let (state, tone) = state(peer, ui);
        let cells = [
            peer.name.clone(),
            peer.studio.clone(),
            state,
            gpus(&peer.gpus),
            vram(&peer.gpus),
            peer.models.map_or_else(dash, |count| count.to_string()),
            peer.address.clone().unwrap_or_else(dash),
            peer.rtt_us.map_or_else(dash, human::rtt),
            seen(peer, now_ms, ui),
        ];
        table.row(cells.iter().enumerate().map(|(at, text)| (text.as_str(), (at == 2).then_some(tone))));
        if let Some(why) = peer.why.as_deref().filter(|_| peer.link != LinkState::Up) {
            let why = format!("  {why}");
            table.row([(why.as_str(), Some(Tone::Faint))]);
        }
    }
    table
}

fn dash() -> String {
    "-".into()
}

fn state(peer: &PeerView, ui: &Ui) -> (String, Tone) {
    let plain = |word: Word, tone| (ui.word(word).to_owned(), tone);
    match peer.link {
        LinkState::Down => plain(Word::Down, Tone::Faint),
        LinkState::Refused => plain(Word::RefusedState, Tone::Bad),
        LinkState::Up if peer.slots_total == 0 => plain(Word::NoSlots, Tone::Faint),
        LinkState::Up if peer.availability == Some(Availability::NotNow) => plain(Word::NotNow, Tone::Warn),
        LinkState::Up if peer.slots_free > 0 => {
            (format!("{} {}/{}", ui.word(Word::Idle), peer.slots_free, peer.slots_total), Tone::Good)
        }
        LinkState::Up => {
            let queue = if peer.queue > 0 { format!(" q{}", peer.queue) } else { String::new() };
            (format!("{} {}/{}{queue}", ui.word(Word::Busy), peer.slots_total, peer.slots_total), Tone::Busy)
        }
    }
}

/// `2x RTX A6000`; different ones with `+`.
pub(super) fn gpus(gpus: &[GpuView]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        let name = short_name(&gpu.name);
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    if kinds.is_empty() {
        return dash();
    }
    let one =
        |(name, count): &(String, usize)| if *count > 1 { format!("{count}x {name}") } else { name.clone() };
    kinds.iter().map(one).collect::<Vec<_>>().join(" + ")
}

/// `RTX 4090`, of `NVIDIA GeForce RTX 4090` as the driver has it or of `cuda:0 NVIDIA GeForce RTX 4090 :
/// cudaMallocAsync` as ComfyUI does.
fn short_name(name: &str) -> String {
    let name = match name.split_once(' ') {
        Some((device, rest)) if device.contains(':') => rest,
        _ => name,
    };
    let name = name.split(" : ").next().unwrap_or(name);
    name.trim_start_matches("NVIDIA ").trim_start_matches("GeForce ").to_owned()
}

pub(super) fn vram(gpus: &[GpuView]) -> String {
    let sum = |of: fn(&GpuView) -> Option<u32>| {
        let known: Vec<u32> = gpus.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().fold(0_u32, |sum, mib| sum.saturating_add(*mib)))
    };
    match (sum(|gpu| gpu.vram_free_mib), sum(|gpu| gpu.vram_mib)) {
        (_, None) => dash(),
        (None, Some(total)) => human::gib(total),
        (Some(free), Some(total)) => format!("{}/{}", human::gib(free), human::gib(total)),
    }
}

fn seen(peer: &PeerView, now_ms: u64, ui: &Ui) -> String {
    match (peer.link, peer.last_seen_ms) {
        (LinkState::Up, _) => ui.word(Word::Now).to_owned(),
        (_, Some(at)) => human::age_ms(now_ms.saturating_sub(at)),
        (_, None) => ui.word(Word::Never).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_go_by_their_short_names() {
        assert_eq!(short_name("NVIDIA GeForce RTX 4090"), "RTX 4090");
        assert_eq!(short_name("cuda:0 NVIDIA RTX A6000 : cudaMallocAsync"), "RTX A6000");
        assert_eq!(short_name("cpu"), "cpu");
    }
}
