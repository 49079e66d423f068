//! Scripts of how tasks end: results, failures, cancels, and every message about them lost once.

use std::time::Duration;

use scenemesh_protocol::task::FailureClass;

use super::world::{Cargo, Comfy, Packet, World, task_id};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::requester::Input;
use crate::scheduler::view::TaskPhase;

pub(super) fn is(packet: &Packet, name: &str) -> bool {
    match &packet.cargo {
        Cargo::Question { request, .. } => request.name() == name,
        Cargo::Answer { .. } => false,
    }
}

pub(super) fn answers(packet: &Packet, name: &str) -> bool {
    matches!(&packet.cargo, Cargo::Answer { response, .. } if response.name() == name)
}

impl World {
    pub(super) fn finish(&mut self) {
        self.until("everything settles", Self::is_settled);
        self.assert_ended_exactly_once();
        self.assert_replay_gives_the_state();
    }

    /// Delivers one by one, losing the first packet like this.
    fn lose_first(&mut self, like: impl Fn(&Packet) -> bool) {
        for _ in 0..10_000 {
            if let Some(at) = self.packets.iter().position(&like) {
                let packet = self.packets.remove(at);
                self.lose(&packet);
                return;
            }
            if !self.packets.is_empty() {
                let packet = self.packets.remove(0);
                self.deliver(packet);
            } else if !(0..self.machines.len()).any(|n| self.errand(n))
                && !(0..self.machines.len()).any(|n| self.finish_runs(n))
            {
                self.advance(Duration::from_millis(500));
            }
        }
        panic!("no such packet\n{}", self.story());
    }
}

#[test]
fn every_message_lost_once_changes_nothing() {
    type Like = fn(&Packet) -> bool;
    let table: [(&str, Like); 8] = [
        ("an offer", |packet| is(packet, "Offer")),
        ("the answer to an offer", |packet| answers(packet, "Offer")),
        ("a grant", |packet| is(packet, "Grant")),
        ("an acceptance", |packet| answers(packet, "Grant")),
        ("the news of a result", |packet| is(packet, "Finished")),
        ("the answer to it", |packet| answers(packet, "Finished")),
        ("an ack", |packet| is(packet, "Ack")),
        ("a report", |packet| is(packet, "Progress")),
    ];
    for (what, like) in table {
        let mut world = World::with_slots(&[0, 1]);
        if what == "a report" {
            world.machines[1].comfy = Comfy::Hangs;
        }
        world.submit(0, 7, 1);
        world.lose_first(like);
        world.machines[1].comfy = Comfy::Renders;
        world.finish();
        let view = world.task(0, task_id(7, 0));
        assert!(view.failures.is_empty(), "{what}");
    }
}

#[test]
fn a_late_result_is_taken_when_it_is_first() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let lost = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    let other = 3 - lost;
    world.cut(0, lost);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.task(0, task_id(7, 0)).node_name, world.machines[other].name);
    // The lost one got done while nobody could hear it.
    world.machines[lost].comfy = Comfy::Renders;
    world.finish_runs(lost);
    world.flow();
    world.heal(0, lost);
    world.flow();
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.state, view.node_name), (TaskPhase::Done, world.machines[lost].name.clone()));
    world.machines[other].comfy = Comfy::Hangs;
    world.until("the other one stops", World::is_settled);
    world.assert_ended_exactly_once();
}

#[test]
fn a_late_result_after_another_is_discarded() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let lost = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    let other = 3 - lost;
    world.cut(0, lost);
    world.pass(Duration::from_secs(30));
    for n in [lost, other] {
        world.machines[n].comfy = Comfy::Renders;
        world.finish_runs(n);
    }
    world.flow();
    world.heal(0, lost);
    world.finish();
    assert!(world.machines[lost].blobs.is_empty());
}

#[test]
fn a_cancel_before_the_result_wins() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.machines[1].comfy = Comfy::Renders;
    world.finish_runs(1);
    world.flow();
    world.heal(0, 1);
    world.until("the renderer drops it", World::is_settled);
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Cancelled);
    assert!(world.machines[0].blobs.is_empty() && world.machines[1].blobs.is_empty());
    world.assert_replay_gives_the_state();
}

#[test]
fn a_cancel_that_is_lost_is_said_again() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.lose_first(|packet| is(packet, "Cancel"));
    world.until("the renderer drops it", World::is_settled);
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Cancelled);
    assert!(world.machines[1].is_wiped(), "it was interrupted all the same");
}

#[test]
fn a_result_before_the_cancel_wins() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    world.until("it is stored", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.finish();
}

#[test]
fn a_cancel_while_the_result_is_fetched_drops_it() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    for _ in 0..10_000 {
        if world.phase(0, task_id(7, 0)) == TaskPhase::Fetching {
            break;
        }
        if !world.packets.is_empty() {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        } else if !world.errand(0) && !world.errand(1) {
            world.finish_runs(1);
        }
    }
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Fetching);
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.until("both forget it", World::is_settled);
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Cancelled);
    assert!(world.machines[0].blobs.is_empty() && world.machines[1].blobs.is_empty());
}

#[test]
fn a_cancel_interrupts_the_run_and_frees_the_slot() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 2);
    world.flow();
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
    world.flow();
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Cancelled);
    assert_eq!(world.phase(0, task_id(7, 1)), TaskPhase::Running, "the slot went to the next");
    // A person may change their mind.
    world.machines[1].comfy = Comfy::Renders;
    world.tell_requester(0, Input::RetryWanted(vec![task_id(7, 0)]));
    world.finish();
}

#[test]
fn three_nodes_that_fail_a_task_fail_it_for_good() {
    let mut world = World::with_slots(&[0, 1, 1, 1, 1]);
    for n in 1..5 {
        world.machines[n].comfy = Comfy::Fails(FailureClass::Execution);
    }
    world.submit(0, 7, 1);
    world.until("it fails", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Failed);
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.failures.len(), 3);
    let nodes: std::collections::BTreeSet<_> = view.failures.iter().map(|(node, _)| node).collect();
    assert_eq!(nodes.len(), 3, "three different nodes");
    assert!(view.why.to_string().starts_with("failed: "), "{}", view.why);
    for (node, failure) in &view.failures {
        assert!(view.why.to_string().contains(&format!("{node}: {failure}")), "{}", view.why);
    }
    for machine in &mut world.machines {
        machine.comfy = Comfy::Renders;
    }
    world.tell_requester(0, Input::RetryWanted(vec![task_id(7, 0)]));
    world.finish();
}

#[test]
fn an_invalid_graph_fails_at_once() {
    let mut world = World::with_slots(&[0, 1, 1]);
    for n in 1..3 {
        world.machines[n].comfy = Comfy::Fails(FailureClass::InvalidGraph);
    }
    world.submit(0, 7, 1);
    world.until("it fails", World::is_settled);
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.state, view.attempts), (TaskPhase::Failed, 1));
}

#[test]
fn a_missing_model_goes_elsewhere_and_not_there_again() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::MissingModelOrClass);
    world.submit(0, 7, 3);
    world.finish();
    assert!(world.machines[1].executions.values().all(|count| *count == 1));
}

#[test]
fn out_of_memory_goes_to_a_bigger_gpu_only() {
    // Machine n has 8 GB times n + 1.
    let mut world = World::with_slots(&[1, 1, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::OutOfMemory);
    world.cut(0, 2);
    world.machines[0].comfy = Comfy::Fails(FailureClass::OutOfMemory);
    world.submit(0, 7, 1);
    world.until("nobody is left", |world| {
        let view = world.task(0, task_id(7, 0));
        view.state == TaskPhase::Queued && view.why.to_string().starts_with("no node takes it now")
    });
    assert!(world.task(0, task_id(7, 0)).failures.iter().any(|(node, _)| node == "birch"));
    world.heal(0, 2);
    world.finish();
    assert_eq!(world.task(0, task_id(7, 0)).node_name, "cedar");
}

#[test]
fn an_owner_who_returns_is_not_held_against_the_task() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::OwnerReturned);
    world.submit(0, 7, 1);
    world.until("it came back five times", |world| world.task(0, task_id(7, 0)).failures.len() >= 5);
    assert!(world.elapsed > Duration::from_secs(60), "each time after a longer pause");
    world.machines[1].comfy = Comfy::Renders;
    world.finish();
}

#[test]
fn a_result_with_foreign_keys_does_not_count() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.submit(0, 7, 1);
    for _ in 0..10_000 {
        if let Some(at) = world.packets.iter().position(|packet| is(packet, "Finished")) {
            let mut packet = world.packets.remove(at);
            if let Cargo::Question { request, .. } = &mut packet.cargo
                && let scenemesh_protocol::messages::Request::Finished(finished) = request
            {
                finished.keys = b"other keys".to_vec();
            }
            world.deliver(packet);
            break;
        }
        if !world.packets.is_empty() {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        } else if !(0..3).any(|n| world.errand(n)) {
            world.finish_runs(1);
            world.finish_runs(2);
        }
    }
    world.finish();
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.attempts, 2);
    assert!(view.failures[0].1.to_string().starts_with("result does not verify"), "{:?}", view.failures);
    assert_ne!(view.failures[0].0, view.node_name, "never there again");
}

#[test]
fn a_requester_that_restarts_waits_a_lease_before_it_judges() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let holder = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    world.cut(0, holder);
    world.restart(0);
    world.pass(Duration::from_secs(14));
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1);
    world.heal(0, holder);
    world.machines[holder].comfy = Comfy::Renders;
    world.finish();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1);
}

#[test]
fn a_result_nobody_takes_for_a_week_goes() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.finish_runs(1);
    world.flow();
    world.elapsed += Duration::from_hours(7 * 24 + 1);
    world.tick();
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 0);
    assert!(world.machines[1].blobs.is_empty());
    // The requester learns it and has it rendered again.
    world.heal(0, 1);
    world.finish();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 2);
}

#[test]
fn grants_are_written_down_before_they_leave() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    for _ in 0..1000 {
        let granted = world.machines[0]
            .journal
            .iter()
            .any(|line| matches!(line, super::world::Line::Requester(RequesterRecord::Granted { .. })));
        if world.packets.iter().any(|packet| is(packet, "Grant")) {
            assert!(granted);
            return;
        }
        if !world.packets.is_empty() {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        } else {
            world.errand(0);
            world.errand(1);
        }
    }
    panic!("no grant");
}

#[test]
fn a_node_whose_comfyui_died_gets_the_task_again_when_it_is_back() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::ComfyuiDied);
    world.submit(0, 7, 1);
    world.until("it died", |world| !world.task(0, task_id(7, 0)).failures.is_empty());
    world.machines[1].comfy = Comfy::Renders;
    world.finish();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 2);
}

#[test]
fn a_task_that_kills_every_comfyui_is_not_given_to_one_more() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::ComfyuiDied);
    world.submit(0, 7, 1);
    world.until("it fails for good", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Failed);
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.attempts, view.failures.len()), (3, 3));
}

/// One of two has the task and works on it.
fn held() -> World {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[2].comfy = Comfy::Hangs;
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    world
}

#[test]
fn a_renderer_that_never_serves_its_result_does_not_keep_the_task() {
    let mut world = held();
    let node = world.task(0, task_id(7, 0)).node_name;
    let (at, other) = if node == world.machines[1].name { (1, 2) } else { (2, 1) };
    world.machines[at].serves = false;
    world.machines[at].comfy = Comfy::Renders;
    world.machines[other].comfy = Comfy::Renders;
    world.until("another rendered it", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.node_name, world.machines[other].name);
    assert_eq!(view.failures[0].1.class, FailureClass::Transfer);
    assert!(world.elapsed < Duration::from_mins(10), "{:?}", world.elapsed);
}

#[test]
fn a_result_that_is_served_late_counts_if_it_is_the_first() {
    let mut world = held();
    let node = world.task(0, task_id(7, 0)).node_name;
    let at = if node == world.machines[1].name { 1 } else { 2 };
    world.machines[at].serves = false;
    world.machines[at].comfy = Comfy::Renders;
    world.until("it is given up", |world| !world.task(0, task_id(7, 0)).failures.is_empty());
    world.pass(Duration::from_secs(5));
    world.machines[at].serves = true;
    world.until("its result came", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.node_name, world.machines[at].name, "the other is still at work");
}
