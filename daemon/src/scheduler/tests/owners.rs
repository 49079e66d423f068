//! Scripts of owners who want their GPU back: what finishes, what is stopped, what goes where, and when it is lent again.

use std::time::Duration;

use scenemesh_protocol::messages::Request;
use scenemesh_protocol::task::FailureClass;

use super::world::{Cargo, Comfy, Kill, World, task_id};
use crate::scheduler::conversation::CLAIM_HOLD;
use crate::scheduler::giving::{Known, SlotBack};
use crate::scheduler::lend::Owner;
use crate::scheduler::renderer::{Input, RunEvent};
use crate::scheduler::view::TaskPhase;

const SLOT: &str = "http://comfy-0";

impl World {
    /// Whoever sits at machine `n` wants its GPU; what needs no more than so many seconds may finish.
    fn wants_back(&mut self, n: usize, finish_s: u64) {
        let said_ms = self.now().wall_ms;
        self.machines[n].owner = Owner::Back { finish: Duration::from_secs(finish_s), said_ms };
        self.refresh_facts(n);
    }

    fn lends(&mut self, n: usize) {
        self.machines[n].owner = Owner::Away;
        self.refresh_facts(n);
    }

    /// What runs at machine `n` tells that it is so far, in steps of a second.
    fn samples(&mut self, n: usize, steps: u32, max: u32) {
        let keys: Vec<_> = self.machines[n].renderer.holdings().all().map(|(key, _)| *key).collect();
        let [key] = keys[..] else { panic!("one runs: {keys:?}") };
        for step in 1..=steps {
            let progress = RunEvent::Progress { node: "3".into(), step, max, nodes_done: 6, nodes_total: 7 };
            for event in [RunEvent::Started, progress] {
                self.tell_renderer(n, Input::Ran { task: key.task, attempt: key.attempt, event });
            }
            self.pass(Duration::from_secs(1));
        }
    }

    fn slot(&self, n: usize) -> SlotBack {
        let view = self.machines[n].renderer.giving_view(self.now());
        view.slots.into_iter().find(|(name, _)| name == SLOT).expect("the GPU is wanted back").1
    }

    fn is_free(&self, n: usize) -> bool {
        matches!(self.slot(n), SlotBack::Done(report) if report.known() == Known::Free)
    }
}

/// A task of machine 0 hangs on one of two others: which, and the other one.
fn held() -> (World, usize, usize) {
    let mut world = World::with_slots(&[0, 1, 1]);
    for machine in &mut world.machines {
        machine.comfy = Comfy::Hangs;
    }
    world.submit(0, 7, 1);
    world.flow();
    let at = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    (world, at, 3 - at)
}

fn view(world: &World) -> crate::scheduler::view::TaskView {
    world.task(0, task_id(7, 0))
}

#[test]
fn what_runs_for_others_goes_elsewhere_at_once() {
    let (mut world, at, other) = held();
    world.wants_back(at, 0);
    // The other may still hold its slot for a claim that came too late the first time: no lease has to run out.
    world.pass(CLAIM_HOLD + Duration::from_secs(1));
    let shown = view(&world);
    assert_eq!((shown.node_name.as_str(), shown.attempts), (world.machines[other].name.as_str(), 2));
    assert_eq!(shown.failures.len(), 1);
    assert_eq!(shown.failures[0].1.class, FailureClass::OwnerReturned);
    assert_eq!(shown.wipes.len(), 1, "what was removed is told afterwards");
    assert_eq!(world.machines[at].freed, [SLOT]);
    assert!(world.is_free(at));
    let given = world.machines[at].renderer.giving_view(world.now());
    assert_eq!(given.running, []);
    assert!(given.last.expect("it was given back").took < Duration::from_secs(1));
    assert!(world.machines[at].is_wiped());
    world.machines[other].comfy = Comfy::Renders;
    world.finish();
}

#[test]
fn it_is_no_mark_against_task_or_node() {
    // Five owners come back, one after the other, and nobody else is there.
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    for times in 1..=5 {
        world.until("it runs", |world| world.machines[1].renderer.holdings().all().count() == 1);
        world.wants_back(1, 0);
        world.until("it is given back", |world| view(world).failures.len() == times);
        world.lends(1);
    }
    assert_eq!(view(&world).state, TaskPhase::Queued);
    world.machines[1].comfy = Comfy::Renders;
    world.finish();
}

#[test]
fn own_tasks_go_on() {
    let mut world = World::with_slots(&[1]);
    world.machines[0].comfy = Comfy::Hangs;
    world.submit(0, 7, 2);
    world.flow();
    world.wants_back(0, 0);
    world.pass(Duration::from_mins(1));
    assert_eq!(world.slot(0), SlotBack::OwnWork);
    assert!(world.machines[0].freed.is_empty(), "its models are its owner's");
    world.machines[0].comfy = Comfy::Renders;
    world.finish();
    assert_eq!(world.task(0, task_id(7, 1)).attempts, 1, "the next one came too");
}

#[test]
fn what_is_nearly_done_may_finish() {
    let (mut world, at, _) = held();
    world.samples(at, 10, 30);
    world.wants_back(at, 30);
    world.pass(Duration::from_secs(20));
    assert!(matches!(world.slot(at), SlotBack::Finishing { .. }), "{:?}", world.slot(at));
    world.machines[at].comfy = Comfy::Renders;
    world.finish_runs(at);
    world.flow();
    assert_eq!((view(&world).state, view(&world).attempts), (TaskPhase::Done, 1));
    assert!(world.is_free(at));
    let took = world.machines[at].renderer.giving_view(world.now()).last.unwrap().took;
    assert_eq!(took.as_secs(), 20, "the artist waited for it");
    world.assert_replay_gives_the_state();
}

#[test]
fn what_needs_longer_or_does_not_say_is_stopped() {
    for steps in [0, 1, 10] {
        let (mut world, at, other) = held();
        world.samples(at, steps, 100);
        world.wants_back(at, 30);
        world.pass(CLAIM_HOLD + Duration::from_secs(1));
        assert_eq!(view(&world).node_name, world.machines[other].name, "after {steps} steps");
        assert!(world.is_free(at));
    }
}

#[test]
fn nothing_finishes_for_longer_than_was_said() {
    let (mut world, at, other) = held();
    world.samples(at, 10, 20);
    world.wants_back(at, 30);
    world.pass(Duration::from_secs(29));
    assert_eq!(view(&world).node_name, world.machines[at].name);
    world.pass(Duration::from_secs(5));
    assert_eq!(view(&world).node_name, world.machines[other].name);
    assert!(world.is_free(at));
}

#[test]
fn now_does_not_wait_for_what_off_let_finish() {
    let (mut world, at, other) = held();
    world.samples(at, 10, 20);
    world.wants_back(at, 30);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.slot(at), SlotBack::Finishing { .. }));
    world.wants_back(at, 0);
    world.pass(CLAIM_HOLD + Duration::from_secs(1));
    assert_eq!(view(&world).node_name, world.machines[other].name);
    assert!(world.machines[at].renderer.giving_view(world.now()).last.unwrap().took < Duration::from_secs(1));
}

#[test]
fn a_comfyui_that_does_not_react_keeps_its_slot_and_not_the_task() {
    let (mut world, at, other) = held();
    world.machines[at].wedged = true;
    world.wants_back(at, 0);
    world.pass(Duration::from_secs(11));
    assert_eq!(view(&world).node_name, world.machines[other].name);
    let SlotBack::Stopping { since } = world.slot(at) else { panic!("{:?}", world.slot(at)) };
    assert!(since >= crate::scheduler::giving::REACTS_WITHIN);
    assert!(world.machines[at].freed.is_empty(), "while it runs there is nothing to free");
    assert!(world.machines[at].renderer.giving_view(world.now()).running[0].stopping);
    // Lent again, its slot is no slot before the old prompt has gone.
    world.lends(at);
    world.submit(0, 8, 2);
    world.pass(Duration::from_mins(2));
    assert_eq!(world.machines[at].renderer.holdings().all().count(), 0);
    world.wants_back(at, 0);
    world.machines[at].comfy = Comfy::Renders;
    world.finish_runs(at);
    world.flow();
    assert!(world.is_free(at), "{:?}", world.slot(at));
    assert_eq!(view(&world).node_name, world.machines[other].name, "its late result is nobody's");
}

#[test]
fn while_it_is_back_others_get_nothing_and_afterwards_they_do() {
    let mut world = World::with_slots(&[0, 1]);
    world.wants_back(1, 30);
    world.flow();
    assert!(world.is_free(1), "it may hold models though nothing runs");
    world.submit(0, 7, 1);
    world.pass(Duration::from_mins(3));
    let shown = view(&world);
    assert_eq!((shown.state, shown.attempts), (TaskPhase::Queued, 0));
    let why = shown.why.to_string();
    assert!(why.starts_with("no node takes it now: birch takes no work of others now"), "{why}");
    world.lends(1);
    world.finish();
}

#[test]
fn a_promise_that_was_not_taken_up_is_taken_back() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let is_grant = |world: &World| {
        let grant = |cargo: &Cargo| matches!(cargo, Cargo::Question { request: Request::Grant(_), .. });
        world.packets.iter().any(|packet| grant(&packet.cargo))
    };
    while !is_grant(&world) {
        if world.packets.is_empty() {
            assert!((0..2).any(|n| world.errand(n)), "no grant");
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    world.wants_back(1, 30);
    world.flow();
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 0);
    assert!(world.is_free(1));
    world.lends(1);
    world.pass(Duration::from_secs(61));
    world.machines[1].comfy = Comfy::Renders;
    world.finish();
}

#[test]
fn what_had_not_begun_goes_back_without_a_run() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    for _ in 0..1000 {
        if world.machines[1].renderer.holdings().all().count() == 1 {
            break;
        }
        if world.packets.is_empty() {
            assert!((0..2).any(|n| world.errand(n)));
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    world.wants_back(1, 60);
    world.flow();
    assert!(world.machines[1].executions.is_empty());
    assert!(view(&world).failures[0].1.to_string().ends_with("it was given back unfinished"));
    assert!(world.is_free(1));
}

#[test]
fn a_restart_changes_nothing_about_it() {
    let (mut world, at, other) = held();
    let said_ms = world.now().wall_ms;
    // It dies in the moment in which it was said.
    world.machines[at].owner = Owner::Back { finish: Duration::from_secs(30), said_ms };
    world.restart(at);
    world.pass(CLAIM_HOLD + Duration::from_secs(1));
    assert_eq!(view(&world).node_name, world.machines[other].name);
    assert!(world.machines[at].is_wiped(), "the prompt that outlived the daemon is gone");
    world.machines[other].comfy = Comfy::Renders;
    world.finish();
    world.assert_replay_gives_the_state();
}

#[test]
fn a_death_at_every_record_of_it() {
    let mut tried = 0;
    for node in 0..3 {
        for commit in 1.. {
            let deaths = [false, true].map(|written| {
                let (mut world, at, other) = held();
                let done = world.machines[node].commits();
                world.kill = Some(Kill { node, commit: done + commit, written });
                world.wants_back(at, 0);
                world.pass(Duration::from_secs(30));
                let died = world.kill.take().is_none();
                world.machines[other].comfy = Comfy::Renders;
                world.lends(at);
                world.machines[at].comfy = Comfy::Renders;
                world.until("everything settles", World::is_settled);
                world.assert_ended_exactly_once();
                world.assert_replay_gives_the_state();
                died
            });
            tried += 2;
            if deaths == [false, false] {
                break;
            }
        }
    }
    assert!(tried >= 12, "only {tried} points were tried");
}
