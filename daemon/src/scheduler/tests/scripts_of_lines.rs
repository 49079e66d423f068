//! Scripts of many jobs that wait at once: nobody is kept out for ever, whoever is before them.

use scenemesh_protocol::task::{Class, ModelName};

use super::world::*;
use crate::scheduler::record::Submission;
use crate::scheduler::view::TaskPhase;

/// One more than a line holds waits at a busy machine, and one runs there.
const MANY: u8 = 70;

fn needs(model: &'static str) -> impl Fn(&mut Submission) {
    move |submission| submission.recipes[0].shape.models = vec![ModelName::new("checkpoints", model)]
}

/// `birch` has one slot at work for good and a full line before it.
fn crowded() -> World {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.machines[1].has_models(&["a"]);
    world.machines[2].has_models(&["b"]);
    world.machines[1].comfy = Comfy::Hangs;
    for n in 0..3 {
        world.refresh_facts(n);
    }
    for job in 0..MANY {
        world.submit_with(0, job, 1, needs("a"));
        world.flow();
    }
    world
}

fn offered(world: &World) -> usize {
    world.machines[0].log.iter().filter(|line| *line == "offered to birch").count()
}

#[test]
fn a_job_for_an_idle_machine_does_not_wait_behind_those_of_a_busy_one() {
    let mut world = crowded();
    world.submit_with(0, 200, 1, needs("b"));
    world.until("it is done", |world| world.phase(0, task_id(200, 0)) == TaskPhase::Done);
    assert_eq!(world.task(0, task_id(200, 0)).node_name, "cedar");
}

#[test]
fn a_line_is_bounded_and_those_behind_it_come_in_when_it_moves() {
    let mut world = crowded();
    let before = offered(&world);
    assert!(before < usize::from(MANY), "{before}: the line has an end");
    let last = world.task(0, task_id(MANY - 1, 0)).why.to_string();
    assert_eq!(last, "waits behind other jobs of this machine");
    world.machines[1].comfy = Comfy::Renders;
    world.until("all are done", World::is_settled);
}

#[test]
fn an_urgent_job_overtakes_a_full_line() {
    let mut world = crowded();
    world.submit_with(0, 201, 1, |submission| {
        needs("a")(submission);
        submission.class = Class::Urgent;
    });
    world.flow();
    world.machines[1].comfy = Comfy::Renders;
    world.until("it is done", |world| world.phase(0, task_id(201, 0)) == TaskPhase::Done);
    let waiting = (0..MANY).filter(|job| world.phase(0, task_id(*job, 0)) == TaskPhase::Queued).count();
    assert!(waiting + 3 > usize::from(MANY), "{waiting}: before all but what ran already");
}

#[test]
fn every_job_has_its_turn_in_a_line_that_does_not_move() {
    let mut world = crowded();
    let waits = |world: &World, job: u8| world.task(0, task_id(job, 0)).why.code() == "behind_others";
    assert!(waits(&world, MANY - 1));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        world.pass(std::time::Duration::from_secs(61));
        seen.extend((0..MANY).filter(|job| !waits(&world, *job)));
    }
    assert_eq!(seen.len(), usize::from(MANY), "each was in line once");
}
