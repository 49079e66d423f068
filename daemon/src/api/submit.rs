//! Accepting a job: everything that can be known to be wrong is said now, before a byte has moved.

use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use scenemesh_protocol::api::{COUNT_LIMIT, ErrorCode, JobView, ReachWords, SubmitRequest};
use scenemesh_protocol::ids::StudioId;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::{FailureClass, InputFile, Reach};

use super::body::Submitted;
use super::trouble::Trouble;
use super::workflow::{self, Machine, Stock};
use super::{Node, jobs};
use crate::clock;
use crate::executor::SlotState;
use crate::executor::graph::Graph;
use crate::membership::{self, Role};
use crate::messages::{Lang, Message, NotThere, phrase};
use crate::scheduler::{JobSpec, Needs};

/// Longest label, in characters.
const LABEL: usize = 120;
/// A renderer's own limit may be lower; a day stops what would never end.
const TIME_LIMIT: Duration = Duration::from_hours(24);

pub(super) async fn submit(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Submitted(asked): Submitted<SubmitRequest>,
) -> Result<Json<JobView>, Trouble> {
    if !(1..=COUNT_LIMIT).contains(&asked.count) {
        let message = Message::CountOutOfRange { count: asked.count, limit: COUNT_LIMIT };
        return Err(Trouble::new(ErrorCode::Usage, &message));
    }
    let roster = node.ports.membership.roster().borrow().clone();
    let reach = reach(&asked.reach, roster.as_deref())?;
    if let Some(roster) = &roster {
        may_submit(&node, roster)?;
    }
    let names: Vec<String> = asked.inputs.iter().map(|input| input.name.clone()).collect();
    let graph = workflow::prepare(&asked.workflow, &asked.set, &names)?;
    refuse_partners(&graph)?;
    workflow::check_machines(&graph, &machines(&node, roster.as_deref(), &reach))?;
    let bytes = graph.to_bytes();
    preflight(&node, &bytes, &names)?;

    let spec = JobSpec {
        label: asked.label.chars().filter(|c| !c.is_control()).take(LABEL).collect(),
        person: node.person.clone(),
        graph: bytes,
        extra_data: Vec::new(),
        inputs: inputs(&node, &asked)?,
        count: asked.count,
        class: asked.class,
        reach,
        needs: Needs { vram_mib: asked.needs.vram_mib, min_cc: asked.needs.min_cc },
        previews: asked.previews,
        full_hygiene: asked.full_hygiene,
        time_limit: TIME_LIMIT,
    };
    let job = node.ports.scheduler.submit(spec).await.map_err(|error| jobs::submit_trouble(&error))?;
    node.uploads.mark_used(asked.inputs.iter().map(|input| input.input.as_str()));
    jobs::view(&node, job, lang).await.map(Json)
}

fn reach(words: &ReachWords, roster: Option<&Roster>) -> Result<Reach, Trouble> {
    let Some(roster) = roster else {
        return match words {
            ReachWords::Machine => Ok(Reach::Machine),
            words => {
                let message = Message::NotInPool { reach: words.to_string() };
                Err(Trouble::new(ErrorCode::Conflict, &message).hint(&Message::HintJoinFirst))
            }
        };
    };
    Ok(match words {
        ReachWords::Machine => Reach::Machine,
        ReachWords::Studio => Reach::Studio,
        ReachWords::Pool => Reach::Pool,
        ReachWords::Studios(names) => {
            Reach::Studios(names.iter().map(|name| studio(name, roster)).collect::<Result<_, _>>()?)
        }
    })
}

fn studio(given: &str, roster: &Roster) -> Result<StudioId, Trouble> {
    let studios = &roster.settings().studios;
    let named = studios.iter().find(|studio| studio.name == given || studio.id.to_string() == given);
    named.map(|studio| studio.id).ok_or_else(|| {
        let known = studios.iter().map(|studio| studio.name.as_str()).collect::<Vec<_>>().join(", ");
        let message = Message::UnknownStudio { given: given.chars().take(80).collect(), known };
        Trouble::new(ErrorCode::Usage, &message).hint(&Message::HintReach)
    })
}

fn may_submit(node: &Node, roster: &Roster) -> Result<(), Trouble> {
    membership::may(roster, &node.ports.me, Role::Submit, clock::wall_ms())
        .map(drop)
        .map_err(|_| Trouble::new(ErrorCode::NotAllowed, &Message::MayNotSubmit))
}

/// Every machine that renders, as this node knows it.
fn machines(node: &Node, roster: Option<&Roster>, reach: &Reach) -> Vec<Machine> {
    let me = node.ports.me;
    let slots = node.ports.executor.slots().borrow().clone();
    let stock: Vec<Stock> = slots
        .iter()
        .filter(|slot| !slot.inventory.classes.is_empty())
        .map(|slot| Stock::Here(slot.inventory.clone()))
        .collect();
    let Some(roster) = roster else {
        let name = me.short();
        let not_there = slots.is_empty().then_some(NotThere::NoComfyui);
        return vec![Machine { name, not_there, own_studio: true, stock }];
    };
    let now = clock::wall_ms();
    let own = roster.member(&me, now).map(|member| member.studio);
    let peers = node.ports.network.peers().borrow().clone();
    let machine = |member: &scenemesh_protocol::roster::Member| {
        let id = member.node.node();
        let here = id == me;
        let own_studio = own == Some(member.studio);
        let reached = match reach {
            Reach::Machine => here,
            Reach::Studio => own_studio,
            Reach::Studios(studios) => studios.contains(&member.studio),
            Reach::Pool => true,
        };
        let stock = if here {
            stock.clone()
        } else {
            // Until its ComfyUI has answered, a node tells of an empty inventory.
            let told = peers.peers.get(&id).and_then(|peer| peer.inventory.clone());
            told.filter(|inventory| !inventory.classes.is_empty()).map(Stock::There).into_iter().collect()
        };
        let not_there = if !reached {
            Some(NotThere::OutOfReach)
        } else if !member.roles.render {
            Some(NotThere::NoRole)
        } else {
            (here && slots.is_empty()).then_some(NotThere::NoComfyui)
        };
        Machine { name: member.name.clone(), not_there, own_studio, stock }
    };
    roster.members(now).map(machine).collect()
}

/// Said before anything else: no other machine would change it.
fn refuse_partners(graph: &Graph) -> Result<(), Trouble> {
    crate::scheduler::refuse_partners(graph).map_err(|error| jobs::submit_trouble(&error))
}

/// A graph that this machine's own ComfyUI calls invalid is invalid everywhere.
fn preflight(node: &Node, graph: &[u8], inputs: &[String]) -> Result<(), Trouble> {
    let slots = node.ports.executor.slots().borrow().clone();
    let ready = |state: &SlotState| matches!(state, SlotState::Ready | SlotState::Busy { .. });
    for slot in slots.iter().filter(|slot| ready(&slot.state)) {
        if let Err(failure) = node.ports.executor.preflight(slot.slot, graph, inputs)
            && matches!(failure.class, FailureClass::InvalidGraph | FailureClass::Policy)
        {
            let policy = failure.class == FailureClass::Policy;
            let code = if policy { ErrorCode::Refused } else { ErrorCode::InvalidGraph };
            let korean = phrase(Lang::Ko, &failure.detail);
            return Err(Trouble::of(code, &failure.detail, Some(korean)));
        }
    }
    Ok(())
}

fn inputs(node: &Node, asked: &SubmitRequest) -> Result<Vec<InputFile>, Trouble> {
    let input = |given: &scenemesh_protocol::api::InputName| {
        let uploaded = node.uploads.get(&given.input).ok_or_else(|| {
            let message = Message::UnknownInputHandle { name: given.name.clone() };
            Trouble::new(ErrorCode::MissingInput, &message).hint(&Message::HintUploadAgain)
        })?;
        Ok(InputFile {
            name: given.name.clone(),
            root: uploaded.root,
            key: uploaded.key,
            bytes: uploaded.bytes,
        })
    };
    asked.inputs.iter().map(input).collect()
}
