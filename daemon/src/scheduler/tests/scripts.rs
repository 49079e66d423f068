//! Scripts of everyday life: offers, claims, grants, losses.

use std::time::Duration;

use scenemesh_protocol::ids::{ClaimId, ReservationId};
use scenemesh_protocol::lease::{Claim, ClaimReply, GrantReply, RefusalReason};
use scenemesh_protocol::messages::{Request, Response};
use scenemesh_protocol::task::{Class, Failure, FailureClass, ModelName, Reach};

use super::world::{Cargo, Comfy, Packet, World, task_id};
use crate::scheduler::conversation::{CLAIM_HOLD, LEASE};
use crate::scheduler::view::TaskPhase;

/// Whether a packet is a question of this name.
fn asks(packet: &Packet, name: &str) -> bool {
    matches!(&packet.cargo, Cargo::Question { request, .. } if request.name() == name)
}

fn answers(packet: &Packet, name: &str) -> bool {
    matches!(&packet.cargo, Cargo::Answer { response, .. } if response.name() == name)
}

impl World {
    /// Runs until a packet like this is under way, and takes it off the wire.
    fn intercept(&mut self, like: impl Fn(&Packet) -> bool) -> Packet {
        for _ in 0..10_000 {
            if let Some(at) = self.packets.iter().position(&like) {
                return self.packets.remove(at);
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

    fn finish_all(&mut self) {
        self.until("everything settles", Self::is_settled);
        self.assert_ended_exactly_once();
        self.assert_replay_gives_the_state();
    }
}

#[test]
fn a_first_render() {
    let mut world = World::with_slots(&[0, 1]);
    let job = world.submit(0, 7, 1);
    world.finish_all();
    let view = world.machines[0].requester.job_view(world.now(), job).unwrap();
    assert_eq!(view.state.word(), "done");
    assert_eq!(view.tasks[0].node_name, "birch");
    assert_eq!(view.tasks[0].why.to_string(), "done by birch in 1.5 s");
    let log = world.machines[0].log.join("\n");
    for line in ["queued", "offered to birch", "claimed by birch", "granted to birch, attempt 1"] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    for line in ["accepted by birch", "finished by birch: fetching the results", "done: 1 files from birch"] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert_eq!(world.machines[1].executions.values().sum::<u32>(), 1);
    assert!(world.machines[1].blobs.is_empty(), "the renderer dropped its copy");
}

#[test]
fn a_batch_spreads_over_all_machines() {
    let mut world = World::new(3);
    world.submit(0, 7, 12);
    world.finish_all();
    for machine in &world.machines {
        assert_eq!(machine.executions.len(), 4, "{} did its part", machine.name);
    }
}

#[test]
fn ones_own_machine_takes_the_same_way() {
    let mut world = World::new(1);
    world.submit_with(0, 7, 3, |job| job.reach = Reach::Machine);
    world.finish_all();
    assert_eq!(world.machines[0].executions.len(), 3);
    assert_eq!(world.machines[0].blobs.len(), 3, "results stay where they were made");
}

#[test]
fn nobody_eligible_and_why() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[2].has_models(&["other.safetensors"]);
    for n in 0..3 {
        world.refresh_facts(n);
    }
    world.submit_with(0, 7, 1, |job| {
        job.recipes[0].shape.models = vec![ModelName::new("checkpoints", "sd.safetensors")];
    });
    world.flow();
    let why = world.task(0, task_id(7, 0)).why.to_string();
    assert!(why.starts_with("no node takes it now: "), "{why}");
    assert!(why.contains("birch lacks model checkpoints/sd.safetensors"), "{why}");
    assert!(why.contains("amber has no ComfyUI ready"), "{why}");
    // The model arrives: nobody has to ask again.
    world.machines[2].has_models(&["sd.safetensors"]);
    for n in 0..3 {
        world.refresh_facts(n);
    }
    world.finish_all();
    assert_eq!(world.machines[2].executions.len(), 1);
}

#[test]
fn a_claim_too_many_finds_nothing() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.submit(0, 7, 1);
    world.finish_all();
    let ran: usize = world.machines.iter().map(|machine| machine.executions.len()).sum();
    assert_eq!(ran, 1, "one task, one claim that got it");
    // A claim for a reservation that is over.
    let claim =
        Claim { reservation: ReservationId::from_bytes([9; 16]), claim: ClaimId::from_bytes([8; 16]) };
    let request = Request::from(claim);
    world.deliver(Packet { from: 1, to: 0, cargo: Cargo::Question { id: 1_000_000, request } });
    let gone = |packet: &Packet| {
        matches!(&packet.cargo, Cargo::Answer { response: Response::Claim(ClaimReply::Gone), .. })
    };
    assert!(world.packets.iter().any(gone));
}

#[test]
fn a_slot_is_held_for_two_seconds_and_no_longer() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let grant = world.intercept(|packet| asks(packet, "Grant"));
    world.elapsed += CLAIM_HOLD + Duration::from_millis(1);
    world.tick();
    world.deliver(grant);
    let reply = world.intercept(|packet| answers(packet, "Grant"));
    let Cargo::Answer { response: Response::Grant(GrantReply::Rejected { refusal, failure }), .. } =
        &reply.cargo
    else {
        panic!("{reply:?}");
    };
    assert_eq!((refusal.reason, failure), (RefusalReason::Busy, &None));
    world.deliver(reply);
    // Nobody's failure: it goes to the same node again, as the next attempt.
    world.finish_all();
    let view = world.task(0, task_id(7, 0));
    assert!(view.failures.is_empty());
    assert_eq!((view.attempts, view.node_name.as_str()), (2, "birch"));
}

#[test]
fn a_lost_grant_is_sent_again_with_the_same_bytes() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let lost = world.intercept(|packet| asks(packet, "Grant"));
    world.lose(&lost);
    // The hold runs out meanwhile; what is sent again is the same grant all the same.
    let again = world.intercept(|packet| asks(packet, "Grant"));
    let bytes = |packet: &Packet| match &packet.cargo {
        Cargo::Question { request, .. } => request.encode(),
        Cargo::Answer { .. } => unreachable!(),
    };
    assert_eq!(bytes(&lost), bytes(&again));
    world.packets.push(again);
    world.finish_all();
}

#[test]
fn a_lost_acceptance_is_said_again() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    let lost = world.intercept(|packet| answers(packet, "Grant"));
    world.lose(&lost);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Running);
    world.machines[1].comfy = Comfy::Renders;
    world.finish_all();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1);
}

#[test]
fn a_renderer_that_vanishes_loses_its_lease() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    let first = world.task(0, task_id(7, 0)).node_name;
    let (lost, other) = if first == "birch" { (1, 2) } else { (2, 1) };
    world.cut(0, lost);
    world.pass(LEASE - Duration::from_secs(1));
    assert_eq!(world.task(0, task_id(7, 0)).node_name, first, "not before its lease ran out");
    let why = world.task(0, task_id(7, 0)).why.to_string();
    assert!(why.contains("silent for"), "{why}");
    world.pass(Duration::from_secs(10));
    let view = world.task(0, task_id(7, 0));
    assert_eq!((view.attempts, view.node_name.clone()), (2, world.machines[other].name.clone()));
    // It comes back with its half: the other one holds the lease now.
    world.heal(0, lost);
    world.pass(Duration::from_secs(10));
    assert!(world.machines[lost].renderer.is_idle());
    world.machines[other].comfy = Comfy::Renders;
    world.finish_all();
}

#[test]
fn a_renderer_that_comes_back_before_anybody_else_has_it_keeps_it() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Queued);
    world.heal(0, 1);
    world.flow();
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Running);
    world.machines[1].comfy = Comfy::Renders;
    world.finish_all();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1);
    assert_eq!(world.machines[1].executions.values().sum::<u32>(), 1);
}

#[test]
fn a_silent_renderer_is_asked_once_before_it_is_given_up() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    // Its reports are lost, but it is there.
    for _ in 0..40 {
        world.advance(Duration::from_millis(500));
        let (reports, rest) =
            std::mem::take(&mut world.packets).into_iter().partition(|packet| asks(packet, "Progress"));
        world.packets = rest;
        let reports: Vec<Packet> = reports;
        reports.iter().for_each(|packet| world.lose(packet));
        while let Some(packet) = world.packets.pop() {
            world.deliver(packet);
        }
    }
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Running);
    assert!(world.machines[0].log.iter().any(|line| line == "birch is silent: asking it"));
}

#[test]
fn two_requesters_take_turns_on_one_renderer() {
    let mut world = World::with_slots(&[0, 0, 1]);
    world.submit(0, 7, 4);
    world.submit(1, 8, 4);
    world.finish_all();
    let order: Vec<u8> = world.machines[2]
        .journal
        .iter()
        .filter_map(|line| match line {
            super::world::Line::Renderer(crate::scheduler::record::RendererRecord::Accepted(accepted)) => {
                Some(accepted.task.as_bytes()[0])
            }
            _ => None,
        })
        .collect();
    assert_eq!(order, [7, 8, 7, 8, 7, 8, 7, 8]);
}

#[test]
fn urgent_work_goes_first() {
    let mut world = World::with_slots(&[0, 0, 1]);
    world.machines[2].comfy = Comfy::Hangs;
    world.submit(0, 7, 2);
    world.flow();
    world.submit_with(1, 8, 1, |job| job.class = Class::Urgent);
    world.flow();
    assert_eq!(world.phase(1, task_id(8, 0)), TaskPhase::Queued);
    world.machines[2].comfy = Comfy::Renders;
    world.finish_runs(2);
    world.machines[2].comfy = Comfy::Hangs;
    world.flow();
    assert_eq!(world.phase(1, task_id(8, 0)), TaskPhase::Running);
    world.machines[2].comfy = Comfy::Renders;
    world.finish_all();
}

#[test]
fn the_only_eligible_node_refuses_and_why_says_so() {
    let mut world = World::with_slots(&[0, 1]);
    world.tell(1, crate::scheduler::link::Inbound::Renderer(crate::scheduler::renderer::Input::Drain(true)));
    world.submit(0, 7, 1);
    world.flow();
    let why = world.task(0, task_id(7, 0)).why.to_string();
    assert!(why.contains("birch refused: it takes no new work: it is being drained"), "{why}");
    world.tell(1, crate::scheduler::link::Inbound::Renderer(crate::scheduler::renderer::Input::Drain(false)));
    world.finish_all();
}

#[test]
fn a_grant_that_preflight_refuses_goes_elsewhere() {
    let mut world = World::with_slots(&[0, 1, 1]);
    let missing = Failure::new(FailureClass::MissingModelOrClass, "checkpoints/x is gone");
    world.machines[1].refuses_grants = Some(missing);
    world.submit(0, 7, 4);
    world.finish_all();
    assert!(world.machines[1].executions.is_empty());
    assert_eq!(world.machines[2].executions.len(), 4);
}

#[test]
fn a_restarted_renderer_gets_its_offers_again() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 3);
    world.flow();
    world.restart(1);
    world.machines[1].comfy = Comfy::Renders;
    world.finish_all();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 1, "the prompt was found, not posted again");
    assert!(world.machines[1].executions.values().all(|count| *count == 1));
}

#[test]
fn a_requester_away_for_ten_minutes_finds_its_results() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 2);
    world.flow();
    world.cut(0, 1);
    world.finish_runs(1);
    world.pass(Duration::from_mins(10));
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 1, "kept for whoever asked");
    world.heal(0, 1);
    world.finish_all();
    assert_eq!(world.machines[1].executions.len(), 2);
}

#[test]
fn a_requester_away_for_ten_minutes_with_a_full_queue_gets_all_of_it_done_once() {
    let mut world = World::with_slots(&[0, 1, 1]);
    for job in 1..=64 {
        world.submit(0, job, 2);
    }
    world.flow();
    for renderer in [1, 2] {
        world.cut(0, renderer);
        world.finish_runs(renderer);
    }
    world.pass(Duration::from_mins(10));
    for renderer in [1, 2] {
        assert_eq!(world.machines[renderer].renderer.holdings().all().count(), 1, "kept for whoever asked");
        world.heal(0, renderer);
    }
    world.finish_all();
    let runs: usize = world.machines.iter().map(|machine| machine.executions.len()).sum();
    assert_eq!(runs, 128, "nothing was rendered twice");
}

#[test]
fn a_grant_that_a_probe_overtook_is_refused() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let late = world.intercept(|packet| asks(packet, "Grant"));
    let probe = scenemesh_protocol::lease::Probe { task: task_id(7, 0), attempt: 1 };
    let request = Request::from(probe);
    world.deliver(Packet { from: 0, to: 1, cargo: Cargo::Question { id: 1_000_000, request } });
    world.deliver(late);
    let reply = world.intercept(|packet| answers(packet, "Grant"));
    let Cargo::Answer { response: Response::Grant(GrantReply::Rejected { refusal, .. }), .. } = &reply.cargo
    else {
        panic!("{reply:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::Tombstone);
    world.deliver(reply);
    world.finish_all();
    assert_eq!(world.task(0, task_id(7, 0)).attempts, 2);
}

#[test]
fn every_contact_begins_with_a_question_about_what_is_held() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.heal(0, 1);
    assert!(world.packets.iter().any(|packet| packet.from == 0 && asks(packet, "Probe")));
    assert!(world.packets.iter().any(|packet| packet.from == 1 && asks(packet, "Progress")));
    world.machines[1].comfy = Comfy::Renders;
    world.finish_all();
}

#[test]
fn a_cancel_while_the_run_is_handed_over_frees_the_slot() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 2);
    // Up to the moment at which the renderer is about to start it.
    while !world.machines[1].is_about_to_run() {
        if world.packets.is_empty() {
            assert!((0..2).any(|n| world.errand(n)), "it never gets there");
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    world.tell_requester(0, crate::scheduler::requester::Input::CancelWanted(vec![task_id(7, 0)]));
    while let Some(packet) = (!world.packets.is_empty()).then(|| world.packets.remove(0)) {
        world.deliver(packet);
    }
    world.until("the other one is done", World::is_settled);
    assert_eq!(world.phase(0, task_id(7, 1)), TaskPhase::Done);
    assert!(world.machines[1].executions.keys().all(|(task, _)| *task != task_id(7, 0)));
}

#[test]
fn what_is_open_is_counted_and_nothing_of_the_past() {
    let open = |world: &World| {
        let open = world.machines[0].requester.open_tasks();
        (open.queued, open.running)
    };
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 2);
    world.finish();
    assert_eq!(open(&world), (0, 0));
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 8, 3);
    world.flow();
    assert_eq!(open(&world), (2, 1));
}
