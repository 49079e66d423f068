//! Scripts of nodes that are shut out while something runs: requester or renderer, before and after a restart.

use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::messages::{Request, Response};

use super::world::{Cargo, Comfy, World, task_id};
use crate::scheduler::conversation::{Barred, CLAIM_HOLD};
use crate::scheduler::record::RendererRecord;
use crate::scheduler::view::TaskPhase;
use crate::scheduler::{renderer, requester};

const WORDS: &str = "birch was revoked by amber: sold";

impl World {
    /// Machine `at` shuts out `who`, as the roster tells it to.
    pub(super) fn shut_out(&mut self, at: usize, who: usize) {
        let barred: Arc<Barred> = Arc::new(Barred::from([(self.machines[who].id, WORDS.to_owned())]));
        self.tell_requester(at, requester::Input::Barred(barred.clone()));
        self.tell_renderer(at, renderer::Input::Barred(barred));
    }
}

#[test]
fn a_revoked_renderer_loses_its_lease_now_and_its_result_is_refused() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let gone = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    let other = 3 - gone;
    world.shut_out(0, gone);
    // The other may still hold its slot for a claim that came too late the first time: no lease has to run out.
    world.pass(CLAIM_HOLD + Duration::from_secs(1));
    let view = world.task(0, task_id(7, 0));
    assert_eq!(view.node_name, world.machines[other].name, "{}", view.why);
    let failures: Vec<_> =
        view.failures.iter().map(|(node, failure)| (node.as_str(), failure.to_string())).collect();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].1, format!("revoked: {WORDS}"));
    // It is the first to have a result, and nobody wants it.
    world.machines[gone].comfy = Comfy::Renders;
    world.finish_runs(gone);
    world.flow();
    assert_ne!(world.task(0, task_id(7, 0)).state, TaskPhase::Done);
    world.machines[other].comfy = Comfy::Renders;
    world.until("the other one renders it", World::is_settled);
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.state, view.node_name), (TaskPhase::Done, world.machines[other].name.clone()));
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

#[test]
fn a_revoked_requesters_task_is_stopped_and_wiped_and_stays_on_record() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 2);
    world.flow();
    let held: Vec<_> = world.machines[1].renderer.holdings().all().map(|(key, _)| *key).collect();
    let [key] = held[..] else { panic!("one runs, one waits: {held:?}") };
    world.shut_out(1, 0);
    world.flow();
    let holdings = world.machines[1].renderer.holdings();
    assert_eq!(holdings.all().count(), 0);
    assert!(holdings.is_given_up(&key), "a grant for it is refused from now on");
    let withdrawn: Vec<_> = holdings.withdrawn().map(|withdrawn| withdrawn.key()).collect();
    assert_eq!(withdrawn, [key]);
    assert!(world.machines[1].is_wiped(), "nothing in ComfyUI, no blob of it");
    assert_eq!(world.machines[1].renderer.load(), (1, 0), "the slot is free, nobody waits");
    world.assert_replay_gives_the_state();
}

#[test]
fn who_was_shut_out_while_the_daemon_was_down_is_out_after_its_start() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let gone = if world.task(0, task_id(7, 0)).node_name == "birch" { 1 } else { 2 };
    world.restart(0);
    world.shut_out(0, gone);
    world.restart(gone);
    world.shut_out(gone, 0);
    world.flow();
    assert_eq!(world.task(0, task_id(7, 0)).node_name, world.machines[3 - gone].name);
    assert_eq!(world.machines[gone].renderer.holdings().all().count(), 0);
}

#[test]
fn a_grant_that_is_being_looked_at_when_its_sender_is_shut_out_is_refused() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let grant = world.intercept_grant();
    world.deliver(grant);
    world.shut_out(1, 0);
    world.flow();
    let accepted = world.machines[1]
        .journal
        .iter()
        .any(|line| matches!(line, super::world::Line::Renderer(RendererRecord::Accepted(_))));
    assert!(!accepted, "{}", world.story());
}

impl World {
    /// Runs until a grant is under way, and takes it off the wire.
    pub(super) fn intercept_grant(&mut self) -> super::world::Packet {
        for _ in 0..1000 {
            let is_grant = |packet: &super::world::Packet| {
                matches!(&packet.cargo, Cargo::Question { request: Request::Grant(_), .. })
            };
            if let Some(at) = self.packets.iter().position(is_grant) {
                return self.packets.remove(at);
            }
            if self.packets.is_empty() {
                assert!((0..self.machines.len()).any(|n| self.errand(n)), "nothing is under way");
            } else {
                let packet = self.packets.remove(0);
                assert!(!matches!(&packet.cargo, Cargo::Answer { response: Response::Declined(_), .. }));
                self.deliver(packet);
            }
        }
        panic!("no grant\n{}", self.story());
    }
}
