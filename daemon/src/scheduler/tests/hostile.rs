//! Peers that are members and mean no good, or are merely broken: what they say costs us little and others nothing.

use std::time::Duration;

use scenemesh_protocol::lease::{Cancel, GrantReply, Phase, Progress, Refusal, RefusalReason};
use scenemesh_protocol::messages::{Decline, Request, Response};

use super::world::{Cargo, Comfy, Packet, World, task_id};
use crate::scheduler::view::TaskPhase;

fn question(from: usize, to: usize, id: u64, request: impl Into<Request>) -> Packet {
    Packet { from, to, cargo: Cargo::Question { id, request: request.into() } }
}

/// Everything that can happen without time passing, except errands of one machine.
fn flow_but(world: &mut World, held_up: usize) {
    loop {
        if !world.packets.is_empty() {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        } else if !(0..world.machines.len()).any(|n| n != held_up && world.errand(n)) {
            return;
        }
    }
}

#[test]
fn a_report_of_absurd_numbers_is_only_a_report() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let progress = Progress {
        task: task_id(7, 0),
        attempt: 1,
        seq: u64::MAX,
        phase: Phase::Running,
        node: "\u{1b}[2Jsampler".repeat(10_000),
        step: u32::MAX,
        max: 1,
        nodes_done: u32::MAX,
        nodes_total: 0,
        preview: None,
    };
    world.deliver(question(1, 0, 1_000_000, progress));
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.state, TaskPhase::Running);
    assert!(view.why.to_string().len() < 1000 && !view.why.to_string().contains('\u{1b}'), "{}", view.why);
}

#[test]
fn a_node_that_claims_and_never_takes_is_asked_less_and_less() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let mut grants: u64 = 0;
    while world.elapsed < Duration::from_hours(1) {
        world.flow_but_grants(|world, id| {
            grants += 1;
            let refusal = Refusal { reason: RefusalReason::Busy, detail: "not just now".into() };
            let response = Response::from(GrantReply::Rejected { refusal, failure: None });
            world.packets.push(Packet { from: 1, to: 0, cargo: Cargo::Answer { id, response } });
        });
        world.advance(Duration::from_secs(1));
    }
    assert!((8..=16).contains(&grants), "{grants} grants in an hour");
    assert!(world.task(0, task_id(7, 0)).why.to_string().contains("keeps claiming"));
    // Once it does its work it is a node like any other.
    world.until("it renders after all", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
}

#[test]
fn a_flood_of_attempts_that_never_were_does_not_fill_the_journal() {
    let mut world = World::with_slots(&[0, 1]);
    let before = world.machines[1].journal.len();
    let mut busy = 0;
    for n in 0..6000_u32 {
        world.deliver(question(0, 1, 1_000_000, Cancel { task: task_id(7, 0), attempt: n }));
        busy += world.packets.drain(..).filter(|packet| says_busy(&packet.cargo)).count();
    }
    let written = world.machines[1].journal.len() - before;
    assert_eq!((written, busy), (4096, 6000 - 4096));
    // It is that node's own trouble only, and it passes.
    world.submit(0, 8, 1);
    world.until("work goes on", |world| world.phase(0, task_id(8, 0)) == TaskPhase::Done);
}

fn says_busy(cargo: &Cargo) -> bool {
    matches!(cargo, Cargo::Answer { response: Response::Declined(declined), .. } if declined.why == Decline::Busy)
}

#[test]
fn two_nodes_that_use_one_task_id_do_not_share_a_prompt() {
    let mut world = World::with_slots(&[0, 0, 2]);
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.submit(1, 7, 1);
    // Both grants are there before either is looked at.
    flow_but(&mut world, 2);
    assert_eq!(world.machines[2].errands.len(), 2);
    world.flow();
    assert_eq!(world.machines[2].renderer.holdings().all().count(), 1);
    assert_eq!(world.machines[2].executions.values().sum::<u32>(), 1);
    let log = [0, 1].map(|n| world.machines[n].log.join("\n")).join("\n");
    assert!(log.contains("another node's attempt has this name"), "{log}");
}

#[test]
fn a_grant_that_is_sealed_too_late_leaves_nothing_behind() {
    use crate::scheduler::requester::{Action, Input};
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    flow_but(&mut world, 0);
    assert_eq!(world.task(0, task_id(7, 0)).why.to_string(), "claimed by birch, being sealed for it");
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    let super::world::Errand::SealGrant { node, task, attempt, claim } =
        world.machines[0].errands.pop_front().unwrap()
    else {
        panic!("the grant is being sealed")
    };
    let sealed = world.machines[0].seal_grant(1, node, task, attempt, claim);
    let roots: Vec<_> = sealed.roots.iter().map(|blob| blob.root).collect();
    let now = world.now();
    let input = Input::GrantSealed { task, node, claim, sealed: Ok(sealed) };
    let actions = world.machines[0].requester.on_input(now, input);
    assert!(actions.contains(&Action::DropBlobs(roots)), "{actions:?}");
}

impl World {
    /// As [`World::flow`], but grants never arrive: they are answered by the test.
    fn flow_but_grants(&mut self, mut answer: impl FnMut(&mut Self, u64)) {
        loop {
            let grant = self.packets.iter().position(|packet| {
                matches!(&packet.cargo, Cargo::Question { request: Request::Grant(_), .. })
            });
            if let Some(at) = grant {
                let Cargo::Question { id, .. } = self.packets.remove(at).cargo else { continue };
                answer(self, id);
            } else if !self.packets.is_empty() {
                let packet = self.packets.remove(0);
                self.deliver(packet);
            } else if !(0..self.machines.len()).any(|n| self.errand(n)) {
                return;
            }
        }
    }
}
