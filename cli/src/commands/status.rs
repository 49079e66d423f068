//! `status`: how this node stands.

use scenemesh_protocol::api::{SlotState, SlotView, Standing, StatusReply};

use super::{Context, peers};
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_args: StatusArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let status = context.connection.open()?.status().await?;
    ui.table(&fields(&status, ui));
    match status.standing {
        Standing::Alone => ui.talk(&Message::NextInitOrJoin),
        Standing::Joining | Standing::Outside => {
            ui.note(status.why.as_deref().unwrap_or_default());
        }
        Standing::Member if status.slots.is_empty() => ui.talk(&Message::NoComfyui),
        Standing::Member => {}
    }
    for parked in status.slots.iter().filter_map(|slot| slot.parked.as_deref()) {
        ui.note(parked);
    }
    for warning in &status.warnings {
        ui.note(warning);
    }
    Outcome::of_reply(&status)
}

fn fields(status: &StatusReply, ui: &Ui) -> Table {
    let mut table = Table::fields();
    let up = human::span_ms(status.uptime_s.saturating_mul(1000));
    let running = ui.text(&Message::RunningSince { version: status.version.clone(), up });
    table.field(ui.word(Word::Daemon), running);
    table.field(ui.word(Word::DataDir), &status.data_dir);
    let name = status.name.as_deref().map(|name| format!("{name}  ")).unwrap_or_default();
    table.field(ui.word(Word::Node), format!("{name}{}", status.node));
    match (&status.pool_name, &status.pool) {
        (Some(pool_name), Some(pool)) => table.field(ui.word(Word::Pool), format!("{pool_name}  {pool}")),
        (None, Some(pool)) => table.field(ui.word(Word::Pool), pool.to_string()),
        _ => table.field(ui.word(Word::Pool), ui.word(Word::None)),
    }
    if let Some(studio) = &status.studio_name {
        table.field(ui.word(Word::Studio), studio);
    }
    if status.solo {
        table.field(ui.word(Word::Solo), ui.text(&Message::SoloSockets));
    } else if status.standing == Standing::Member {
        table.field(
            ui.word(Word::Peers),
            ui.text(&Message::PeersUp { up: status.peers_up, total: status.peers_total }),
        );
    }
    for address in &status.listening {
        table.field(ui.word(Word::Listening), address);
    }
    for slot in &status.slots {
        table.field("ComfyUI", slot_line(slot, ui));
    }
    if !status.gpus.is_empty() {
        let gpus = format!("{}  {} GiB", peers::gpus(&status.gpus), peers::vram(&status.gpus));
        table.field(ui.word(Word::Gpu), gpus);
    }
    let tasks = Message::TasksNow { running: status.tasks_running, queued: status.tasks_queued };
    table.field(ui.word(Word::Tasks), ui.text(&tasks));
    table
}

pub(super) fn slot_line(slot: &SlotView, ui: &Ui) -> String {
    let state = match slot.state {
        SlotState::Starting => ui.word(Word::Starting),
        SlotState::Ready => ui.word(Word::Ready),
        SlotState::Busy => ui.word(Word::Busy),
        SlotState::NotReady => ui.word(Word::NotReady),
    };
    let version = slot.comfyui.as_deref().unwrap_or_default();
    let why = slot.why.as_deref().unwrap_or_default();
    let parts = [slot.url.as_str(), state, version, why];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("  ")
}
