//! `lend`: whether others may have this machine's GPU, and how it comes back.

use std::time::Duration;

use scenemesh_protocol::api::{
    ErrorCode, LendReply, LendRequest, LendState, LendWord, LentTaskView, SlotBackState, SlotBackView,
};
use tokio::time::Instant;

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Tone, Ui};

/// Between two looks at how it goes.
const LOOK: Duration = Duration::from_millis(200);
/// Beyond what may finish: an interrupt, `/free`, and a model that was being loaded.
const PATIENCE: Duration = Duration::from_secs(25);

#[derive(Debug, clap::Args)]
pub(crate) struct LendArgs {
    #[command(subcommand)]
    verb: Option<LendVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum LendVerb {
    /// Lend this machine from now on, as its configuration allows
    On(OnArgs),
    /// Take the GPU back: what is nearly done for others finishes, the rest is interrupted and goes elsewhere
    Off(BackArgs),
    /// Take the GPU back at once: whatever runs for others is interrupted and goes elsewhere
    Now(BackArgs),
    /// Lend this machine until a time, then take the GPU back as off does
    Until(UntilArgs),
    /// Show whether this machine is lent, who has it, and how taking it back went
    Status,
}

#[derive(Debug, clap::Args)]
struct OnArgs {
    /// Until when; then the GPU is taken back as off does: 18:30, 2h, "2026-11-26 18:30"
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
struct BackArgs {
    /// Until when; then the machine is lent again: 18:30, 2h, "2026-11-26 18:30"
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Do not wait until the memory is free
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, clap::Args)]
struct UntilArgs {
    /// When: 18:30, 2h, "2026-11-26 18:30"
    #[arg(value_name = "TIME")]
    time: String,
}

pub(crate) async fn run(args: LendArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    let ui = context.ui;
    let (say, until, waits) = match args.verb {
        None | Some(LendVerb::Status) => {
            let reply = client.lend().await?;
            ui.table(&fields(&reply, ui));
            return Outcome::of_reply(&reply);
        }
        Some(LendVerb::On(args)) => (LendWord::On, args.until, false),
        Some(LendVerb::Off(args)) => (LendWord::Off, args.until, !args.detach),
        Some(LendVerb::Now(args)) => (LendWord::Now, args.until, !args.detach),
        Some(LendVerb::Until(args)) => (LendWord::On, Some(args.time), false),
    };
    let reply = client.lend_say(&LendRequest { say, until }).await?;
    let reply = if waits { until_given_back(&client, ui, reply).await? } else { reply };
    ui.result(&reply.words);
    for slot in &reply.slots {
        ui.result(&slot_line(slot, ui));
    }
    if let Some(last) = reply.last.as_ref().filter(|_| reply.state == LendState::Back) {
        ui.result(&ui.text(&Message::GivenBackIn { took: human::span_ms(last.took_ms) }));
    }
    if say == LendWord::On && reply.until.is_some() {
        ui.talk(&Message::NextLendOffUntil);
    }
    let failure = if waits { failure(&reply) } else { None };
    Ok(Outcome::of_reply(&reply)?.failing(failure))
}

/// Tells what is waited for, until nothing is left of it or it takes too long.
async fn until_given_back(client: &ApiClient, ui: &Ui, reply: LendReply) -> Result<LendReply, CliError> {
    let patience =
        PATIENCE + Duration::from_secs(if reply.say == LendWord::Off { reply.finish_s } else { 0 });
    let give_up = Instant::now() + patience;
    let mut reply = reply;
    let mut told: Vec<(String, SlotBackState)> = Vec::new();
    while reply.state == LendState::GivingBack && Instant::now() < give_up {
        for slot in reply.slots.iter().filter(|slot| !slot.state.is_over()) {
            let news = (slot.comfyui.clone(), slot.state);
            if !told.contains(&news) {
                ui.note(&format!("{}: {}", slot.comfyui, slot.words));
                told.push(news);
            }
        }
        tokio::time::sleep(LOOK).await;
        reply = client.lend().await?;
    }
    Ok(reply)
}

fn failure(reply: &LendReply) -> Option<CliError> {
    if reply.state == LendState::GivingBack {
        return Some(CliError::new(ErrorCode::Timeout, Message::NotFreeYet, Message::HintNotFreeYet));
    }
    let held = reply.slots.iter().any(|slot| slot.state == SlotBackState::Held);
    held.then(|| CliError::new(ErrorCode::CheckFailed, Message::StillHeld, Message::HintStillHeld))
}

fn fields(reply: &LendReply, ui: &Ui) -> Table {
    let mut table = Table::fields();
    let tone = match reply.state {
        LendState::Lent | LendState::Back => Tone::Good,
        LendState::GivingBack => Tone::Busy,
        LendState::OutsideHours | LendState::Draining | LendState::NotARenderer => Tone::Warn,
    };
    table.row([(ui.word(Word::Lending), None), (reply.words.as_str(), Some(tone))]);
    if reply.running.is_empty() {
        table.field(ui.word(Word::Running), ui.text(&Message::NothingForOthers));
    }
    for task in &reply.running {
        table.field(ui.word(Word::Running), format!("{}  {}", task.comfyui, task_line(task, ui)));
    }
    for slot in &reply.slots {
        table.field("ComfyUI", slot_line(slot, ui));
    }
    if let Some(last) = &reply.last {
        let when = human::utc(last.at_ms);
        let took = Message::GivenBackIn { took: human::span_ms(last.took_ms) };
        table.field(ui.word(Word::LastTime), format!("{when}  {}", ui.text(&took)));
        if reply.slots.is_empty() {
            for slot in &last.slots {
                table.field("", slot_line(slot, ui));
            }
        }
    }
    table
}

fn task_line(task: &LentTaskView, ui: &Ui) -> String {
    let studio = task.studio.clone().unwrap_or_else(|| ui.word(Word::OtherMachine).to_owned());
    let mut parts = vec![studio];
    if task.max > 0 {
        parts.push(format!("{}/{}", task.step, task.max));
    }
    if task.stopping {
        parts.push(ui.text(&Message::BeingStopped));
    } else if let Some(left_s) = task.left_s {
        parts.push(ui.text(&Message::StillNeeds { left: human::span_ms(left_s.saturating_mul(1000)) }));
    }
    parts.join("  ")
}

fn slot_line(slot: &SlotBackView, ui: &Ui) -> String {
    let used = slot.vram_before_mib.zip(slot.vram_after_mib).map(|(before, after)| {
        ui.text(&Message::VramWent { before: human::gib(before), after: human::gib(after) })
    });
    let parts = [Some(slot.comfyui.clone()), Some(slot.words.clone()), used];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
