//! Giving the GPU back to whoever sits here, and leaving in good order.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use scenemesh_protocol::api::{
    DrainReply, DrainRequest, ErrorCode, GivenBackView, LendReply, LendRequest, LendState, LendWord,
    LentTaskView, SlotBackState, SlotBackView,
};

use super::Node;
use super::body::Asked;
use super::trouble::Trouble;
use crate::messages::Lang;
use crate::scheduler::giving::{GivenBack, GivingView, Known, LentRun, REACTS_WITHIN, SlotBack};
use crate::scheduler::lend::keeper::ChangeError;
use crate::scheduler::lend::{Hand, Lending, moment, on_the_wall};
use crate::scheduler::{DrainWish, Load};
use crate::{clock, membership, platform};

mod words;

/// Nobody means more: a daemon that drains for longer is stopped.
const LONGEST_DRAIN: Duration = Duration::from_hours(7 * 24);

pub(super) async fn show(State(node): State<Node>, Extension(lang): Extension<Lang>) -> Json<LendReply> {
    Json(reply(&node, lang).await)
}

pub(super) async fn say(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<LendRequest>,
) -> Result<Json<LendReply>, Trouble> {
    let read = |text: &String| moment(text, clock::wall_ms(), platform::utc_offset_s);
    let until_ms = asked.until.as_ref().map(read).transpose();
    let until_ms =
        until_ms.map_err(|error| Trouble::of(ErrorCode::Usage, &error, Some(words::bad_moment(&error))))?;
    let hand = match asked.say {
        LendWord::On => Hand::Lent,
        LendWord::Off => Hand::Back,
        LendWord::Now => Hand::BackNow,
    };
    node.ports.lending.say(hand, until_ms).await.map_err(|error| match error {
        ChangeError::Write { .. } => {
            Trouble::of(ErrorCode::DiskFull, &error, Some(words::not_written(&error)))
        }
        ChangeError::Stopping => Trouble::stopping(),
    })?;
    tracing::info!(lend = hand.word(), until_ms, "said by hand");
    Ok(Json(reply(&node, lang).await))
}

pub(super) async fn drained(State(node): State<Node>) -> Json<DrainReply> {
    Json(drain_reply(*node.ports.scheduler.load().borrow()))
}

pub(super) async fn drain(
    State(node): State<Node>,
    Asked(asked): Asked<DrainRequest>,
) -> Result<Json<DrainReply>, Trouble> {
    let within = asked.within_s.map(Duration::from_secs).map(|within| within.min(LONGEST_DRAIN));
    let wish = DrainWish { draining: asked.draining, exit: asked.exit && asked.draining, within };
    tracing::info!(draining = wish.draining, exit = wish.exit, "said by hand");
    Ok(Json(drain_reply(node.ports.scheduler.drain(wish).await)))
}

fn drain_reply(load: Load) -> DrainReply {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    DrainReply {
        draining: load.draining,
        exit: load.exits,
        running: count(load.running),
        results: count(load.held - load.running),
        left_s: load.left.map(|left| left.as_secs()),
    }
}

async fn reply(node: &Node, lang: Lang) -> LendReply {
    let view = node.ports.scheduler.giving().await;
    let lending = *node.ports.lending.lending().borrow();
    let state = state(node, &lending, &view);
    let until = lending.until_ms.map(|until| on_the_wall(until, platform::utc_offset_s));
    LendReply {
        say: match lending.hand {
            Hand::Lent => LendWord::On,
            Hand::Back => LendWord::Off,
            Hand::BackNow => LendWord::Now,
        },
        until_ms: lending.until_ms,
        words: words::standing(state, lending.hand, until.as_deref(), lang),
        until,
        state,
        finish_s: node.ports.lend.finish().as_secs(),
        running: view.running.iter().map(|run| lent_task(node, run)).collect(),
        slots: slots(&view.slots, lang),
        last: view.last.as_ref().map(|last| given_back(last, lang)),
    }
}

fn state(node: &Node, lending: &Lending, view: &GivingView) -> LendState {
    let renders = match &**node.ports.membership.standing().borrow() {
        membership::Standing::Member { roster, .. } => {
            let me = roster.member(&node.ports.me, clock::wall_ms());
            me.is_some_and(|member| member.roles.render)
        }
        _ => false,
    };
    let over = view.slots.iter().all(|(_, slot)| slot.is_over());
    match lending.hand {
        _ if node.ports.scheduler.load().borrow().draining => LendState::Draining,
        Hand::Back | Hand::BackNow if over => LendState::Back,
        Hand::Back | Hand::BackNow => LendState::GivingBack,
        Hand::Lent if !renders => LendState::NotARenderer,
        Hand::Lent if !node.ports.lend.facts(None, clock::wall_ms(), platform::utc_offset_s).open => {
            LendState::OutsideHours
        }
        Hand::Lent => LendState::Lent,
    }
}

fn lent_task(node: &Node, run: &LentRun) -> LentTaskView {
    let roster = node.ports.membership.roster().borrow().clone();
    let studio = roster.zip(run.studio).map(|(roster, studio)| membership::studio_name(&roster, &studio));
    let (step, max) = run.steps.unwrap_or_default();
    LentTaskView {
        studio,
        comfyui: run.slot.clone(),
        step,
        max,
        left_s: run.left.map(|left| left.as_secs()),
        stopping: run.stopping,
    }
}

fn slots(slots: &[(String, SlotBack)], lang: Lang) -> Vec<SlotBackView> {
    slots.iter().map(|(name, slot)| slot_view(name, slot, lang)).collect()
}

fn slot_view(name: &str, slot: &SlotBack, lang: Lang) -> SlotBackView {
    let state = match slot {
        SlotBack::Finishing { .. } => SlotBackState::Finishing,
        SlotBack::Stopping { since } if *since < REACTS_WITHIN => SlotBackState::Stopping,
        SlotBack::Stopping { .. } | SlotBack::Stuck { .. } => SlotBackState::Stuck,
        SlotBack::Freeing => SlotBackState::Freeing,
        SlotBack::OwnWork => SlotBackState::Yours,
        SlotBack::Done(report) => match report.known() {
            Known::Free => SlotBackState::Free,
            Known::Yours => SlotBackState::Yours,
            Known::Held => SlotBackState::Held,
            Known::Unverified { .. } => SlotBackState::Unverified,
        },
    };
    let used = match slot {
        SlotBack::Done(report) => report.used_mib(),
        _ => None,
    };
    SlotBackView {
        comfyui: name.to_owned(),
        state,
        words: words::slot(slot, lang),
        vram_before_mib: used.map(|(before, _)| before),
        vram_after_mib: used.map(|(_, after)| after),
    }
}

fn given_back(last: &GivenBack, lang: Lang) -> GivenBackView {
    GivenBackView {
        at_ms: last.at_ms,
        took_ms: u64::try_from(last.took.as_millis()).unwrap_or(u64::MAX),
        slots: slots(&last.slots, lang),
    }
}
