//! Accepting a job: everything that can be known to be wrong is said now, before a byte has moved.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::api::{
    COUNT_LIMIT, ErrorCode, FeedRequest, InputName, JobView, ReachWords, Setting, SubmitRequest, Variation,
};
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::studio::Project;
use scenemesh_protocol::task::{FailureClass, InputFile, Reach};

use super::body::Submitted;
use super::eyes::Who;
use super::trouble::Trouble;
use super::workflow::{self, Machine, Stock};
use super::{Node, jobs, pool, projects};
use crate::clock;
use crate::executor::SlotState;
use crate::executor::graph::Graph;
use crate::membership::{self, NoSuchStudio, Role};
use crate::messages::{Lang, Message, NotThere, phrase};
use crate::scheduler::batch::Feed;
use crate::scheduler::{JobSpec, KeepOn, Needs, StageSpec};

/// Longest label, in characters.
const LABEL: usize = 120;
/// A renderer's own limit may be lower; a day stops what would never end.
const TIME_LIMIT: Duration = Duration::from_hours(24);

pub(super) async fn submit(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Submitted(asked): Submitted<SubmitRequest>,
) -> Result<Json<JobView>, Trouble> {
    if !(1..=COUNT_LIMIT).contains(&asked.count) {
        let message = Message::CountOutOfRange { count: asked.count, limit: COUNT_LIMIT };
        return Err(Trouble::new(ErrorCode::Usage, &message));
    }
    let roster = node.ports.membership.roster().borrow().clone();
    let project = asked.project.as_deref().map(|which| projects::open_project(&node, which)).transpose()?;
    let reach = match &project {
        Some((_, project)) => {
            projects::reach_within(&node, asked.reach.as_ref(), project, roster.as_deref())?
        }
        None => reach(asked.reach.as_ref().unwrap_or(&ReachWords::Studio), roster.as_deref())?,
    };
    let rules: Option<&Project> = project.as_ref().map(|(_, project)| &*project.rules);
    // A node that was revoked goes on working for itself, as one in no pool does.
    let inside = |roster: &Arc<Roster>| roster.member(&node.ports.me, clock::wall_ms()).is_some();
    let roster = roster.filter(|roster| reach != Reach::Machine || inside(roster));
    if let Some(roster) = &roster {
        may_submit(&node, roster)?;
    }
    let machines = machines(&node, roster.as_deref(), &reach, rules);
    let desk = Desk { node: &node, machines: &machines };
    let mut stages = vec![desk.stage(&asked.workflow, &asked.set, &asked.inputs, &asked.vary, &[])?];
    stages[0].count = asked.count;
    for (at, then) in (0..).zip(&asked.then) {
        let feeds: Vec<Feed> = then.feeds.iter().map(|feed| feed_of(feed, at)).collect();
        let mut stage = desk.stage(&then.workflow, &then.set, &then.inputs, &then.vary, &feeds)?;
        (stage.count, stage.feeds) = (then.count, feeds);
        stages.push(stage);
    }

    let spec = JobSpec {
        label: asked.label.chars().filter(|c| !c.is_control()).take(LABEL).collect(),
        person: caller.person.to_string(),
        stages,
        class: asked.class,
        reach,
        project: project.as_ref().map(|(id, _)| *id),
        needs: Needs { vram_mib: asked.needs.vram_mib, min_cc: asked.needs.min_cc },
        on_suspect: asked.on_suspect,
        keep_on: keep_on(roster.as_deref(), &node, asked.keep_on.as_deref())?,
        previews: asked.previews,
        full_hygiene: asked.full_hygiene || rules.is_some_and(|rules| rules.hygiene == Hygiene::Full),
        time_limit: TIME_LIMIT,
    };
    let job = node.ports.scheduler.submit(spec).await.map_err(|error| jobs::submit_trouble(&error))?;
    let inputs = asked.then.iter().flat_map(|then| &then.inputs).chain(&asked.inputs);
    node.uploads.mark_used(inputs.map(|input| input.input.as_str()));
    jobs::view(&node, &caller, job, lang).await.map(Json)
}

fn keep_on(roster: Option<&Roster>, node: &Node, given: Option<&str>) -> Result<KeepOn, Trouble> {
    match (given, roster) {
        (None, _) => Ok(KeepOn::Anybody),
        (Some("none"), _) => Ok(KeepOn::Nobody),
        (Some(_), None) => Err(pool::no_pool()),
        (Some(given), Some(roster)) => projects::member(node, roster, given).map(KeepOn::Node),
    }
}

/// `at` is the place of the workflow just before.
fn feed_of(asked: &FeedRequest, at: u16) -> Feed {
    let FeedRequest { name, node, file, stage } = asked.clone();
    Feed { name, stage: stage.unwrap_or(at), node, file }
}

/// Where workflows are looked at.
struct Desk<'a> {
    node: &'a Node,
    machines: &'a [Machine],
}

impl Desk<'_> {
    /// Reads and checks one workflow; how many tasks it makes is not said yet.
    fn stage(
        &self,
        workflow: &str,
        set: &[Setting],
        given: &[InputName],
        vary: &[Variation],
        feeds: &[Feed],
    ) -> Result<StageSpec, Trouble> {
        let names: Vec<String> = given.iter().map(|input| input.name.clone()).collect();
        // What varied inputs and results of other tasks are called is checked when the tasks are made.
        let plain = vary.is_empty() && feeds.is_empty();
        let graph = if plain {
            workflow::prepare(workflow, set, &names)?
        } else {
            workflow::read_set(workflow, set)?
        };
        refuse_partners(&graph)?;
        workflow::check_machines(&graph, self.machines)?;
        let vary = workflow::vary(&graph, vary, |graph| workflow::check_machines(graph, self.machines))?;
        let bytes = graph.to_bytes();
        let files = graph.file_inputs().iter().map(|file| file.name().to_owned()).collect::<Vec<_>>();
        preflight(self.node, &bytes, if plain { &names } else { &files })?;
        Ok(StageSpec { graph: bytes, inputs: inputs(self.node, given)?, vary, ..StageSpec::default() })
    }
}

pub(super) fn reach(words: &ReachWords, roster: Option<&Roster>) -> Result<Reach, Trouble> {
    let Some(roster) = roster else {
        return match words {
            ReachWords::Machine => Ok(Reach::Machine),
            words => {
                let message = Message::NotInPool { reach: words.to_string() };
                Err(Trouble::new(ErrorCode::Conflict, &message).hint(&Message::HintJoinFirst))
            }
        };
    };
    membership::reach_of(words, roster).map_err(|NoSuchStudio(given)| {
        let studios = roster.settings().studios.iter();
        let known = studios.map(|studio| studio.name.as_str()).collect::<Vec<_>>().join(", ");
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
fn machines(node: &Node, roster: Option<&Roster>, reach: &Reach, rules: Option<&Project>) -> Vec<Machine> {
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
        let bound = rules.and_then(|rules| rules.nodes.as_ref());
        let reached = reached && bound.is_none_or(|nodes| nodes.contains(&id));
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

fn inputs(node: &Node, asked: &[InputName]) -> Result<Vec<InputFile>, Trouble> {
    let input = |given: &InputName| {
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
    asked.iter().map(input).collect()
}
