//! A machine on which everybody's tasks fail: it leaves others' alone until it is seen to be well.

use std::time::Duration;

use scenemesh_protocol::task::FailureClass;

use super::world::{Comfy, World, task_id};
use crate::scheduler::lend::Owner;
use crate::scheduler::requester::Input;
use crate::scheduler::view::TaskPhase;

/// Who renders: the last of four, and nobody else.
const AT: usize = 3;

/// Three requesters, and one renderer that fails them all in the same way.
fn failing(class: FailureClass) -> World {
    let mut world = World::with_slots(&[0, 0, 0, 1]);
    world.machines[AT].comfy = Comfy::Fails(class);
    for requester in 0..3 {
        fails(&mut world, requester, u8::try_from(requester).unwrap() + 1);
    }
    world
}

/// Submits a task, and takes it back as soon as it has failed once.
fn fails(world: &mut World, requester: usize, job: u8) {
    world.submit(requester, job, 1);
    world.until("it has failed", |world| !world.task(requester, task_id(job, 0)).failures.is_empty());
    world.tell_requester(requester, Input::CancelWanted(vec![task_id(job, 0)]));
    world.flow();
}

fn parked(world: &World) -> bool {
    world.machines[AT].renderer.is_parked()
}

fn why(world: &World, requester: usize, job: u8) -> String {
    let told = world.machines[requester].requester.why(world.now(), task_id(job, 0));
    told.unwrap().to_string()
}

#[test]
fn three_owners_failures_park_a_machine_and_a_good_smoke_render_ends_it() {
    let mut world = failing(FailureClass::Execution);
    assert!(parked(&world));
    assert_eq!(world.machines[AT].renderer.load().0, 0, "no slot for others, as adverts tell");
    world.submit(0, 9, 1);
    world.flow();
    let told = why(&world, 0, 9);
    assert!(told.contains("it parked itself: tasks of 3 nodes failed there"), "{told}");
    assert_eq!(world.machines[AT].smokes, 0, "not at once");
    world.until("the third smoke render has failed", |world| world.machines[AT].smokes == 4);
    assert!(world.elapsed >= Duration::from_secs(10 + 20 + 40 + 80), "at growing intervals");
    let view = world.machines[AT].renderer.parked(world.now());
    assert_eq!((view.len(), view[0].owners, view[0].last), (1, 3, FailureClass::Execution));
    assert_eq!(view[0].trouble.as_deref(), Some("execution error: as the test wants it"));
    assert!(parked(&world));
    world.machines[AT].comfy = Comfy::Renders;
    world.until("the task is done", |world| world.phase(0, task_id(9, 0)) == TaskPhase::Done);
    assert!(!parked(&world));
    assert_eq!(world.machines[AT].renderer.parked(world.now()), []);
    assert_eq!(world.task(0, task_id(9, 0)).attempts, 1, "it was spared the failure");
    world.assert_replay_gives_the_state();
}

#[test]
fn a_smoke_render_must_come_out_right_and_nothing_of_it_is_kept() {
    let mut world = failing(FailureClass::Execution);
    world.machines[AT].comfy = Comfy::LooksWrong;
    world.until("two were tried", |world| world.machines[AT].smokes == 2);
    assert!(parked(&world), "a black picture proves nothing");
    world.machines[AT].comfy = Comfy::Renders;
    world.until("it is well", |world| !parked(world));
    world.flow();
    assert!(world.machines[AT].blobs.is_empty(), "{:?}", world.machines[AT].blobs);
}

#[test]
fn two_owners_are_not_enough_and_a_render_in_between_begins_anew() {
    let mut world = World::with_slots(&[0, 0, 0, 1]);
    world.machines[AT].comfy = Comfy::Fails(FailureClass::OutOfMemory);
    for job in 1..=3 {
        fails(&mut world, 0, job);
    }
    fails(&mut world, 1, 4);
    world.machines[AT].comfy = Comfy::Renders;
    world.submit(2, 5, 1);
    world.until("one is rendered", |world| world.phase(2, task_id(5, 0)) == TaskPhase::Done);
    world.machines[AT].comfy = Comfy::Fails(FailureClass::OutOfMemory);
    fails(&mut world, 2, 6);
    fails(&mut world, 1, 7);
    assert!(!parked(&world), "two since then");
    fails(&mut world, 0, 8);
    assert!(parked(&world));
}

#[test]
fn what_is_not_the_machines_fault_does_not_count() {
    for class in [FailureClass::InvalidGraph, FailureClass::MissingModelOrClass, FailureClass::Policy] {
        assert!(!parked(&failing(class)), "{class:?}");
    }
}

#[test]
fn its_owners_tasks_go_on_and_show_that_it_is_well() {
    let mut world = failing(FailureClass::Execution);
    fails(&mut world, AT, 8);
    assert!(parked(&world));
    world.machines[AT].comfy = Comfy::Renders;
    let smokes = world.machines[AT].smokes;
    world.submit(AT, 9, 1);
    world.until("its own is done", |world| world.phase(AT, task_id(9, 0)) == TaskPhase::Done);
    assert!(!parked(&world));
    assert_eq!(world.machines[AT].smokes, smokes, "no other proof was needed");
}

#[test]
fn five_hours_end_it_whatever_comes() {
    let mut world = failing(FailureClass::Execution);
    world.machines[AT].comfy = Comfy::Hangs;
    world.pass(Duration::from_hours(5) - Duration::from_mins(1));
    assert!(parked(&world), "a smoke render that never ends is no proof");
    world.pass(Duration::from_mins(2));
    assert!(!parked(&world));
    world.machines[AT].comfy = Comfy::Renders;
    world.submit(1, 9, 1);
    world.until("the task is done", |world| world.phase(1, task_id(9, 0)) == TaskPhase::Done);
}

#[test]
fn a_smoke_render_makes_room_for_whoever_wants_the_gpu() {
    let mut world = failing(FailureClass::Execution);
    world.machines[AT].comfy = Comfy::Hangs;
    world.pass(Duration::from_secs(11));
    assert_eq!(world.machines[AT].smokes, 1);
    let said_ms = world.now().wall_ms;
    world.machines[AT].owner = Owner::Back { finish: Duration::from_secs(30), said_ms };
    world.refresh_facts(AT);
    world.flow();
    assert_eq!(world.machines[AT].freed.len(), 1, "it was stopped, and the memory let go");
    world.pass(Duration::from_mins(10));
    assert_eq!(world.machines[AT].smokes, 1, "none is tried meanwhile");
    world.machines[AT].owner = Owner::Away;
    world.machines[AT].comfy = Comfy::Renders;
    world.refresh_facts(AT);
    world.until("it is well", |world| !parked(world));
}

#[test]
fn a_start_forgets_it() {
    let mut world = failing(FailureClass::Execution);
    world.restart(AT);
    assert!(!parked(&world));
    world.machines[AT].comfy = Comfy::Renders;
    world.submit(0, 9, 1);
    world.until("the task is done", |world| world.phase(0, task_id(9, 0)) == TaskPhase::Done);
}

#[test]
fn one_slot_of_two_goes_on() {
    let mut world = World::with_slots(&[0, 0, 0, 2]);
    world.machines[AT].comfy = Comfy::Fails(FailureClass::ComfyuiDied);
    for requester in 0..3 {
        fails(&mut world, requester, u8::try_from(requester).unwrap() + 1);
    }
    let slots = world.machines[AT].renderer.parked(world.now());
    assert_eq!(slots.len(), 1, "all three had the first slot");
    assert!(!parked(&world), "the other takes work");
    assert_eq!(world.machines[AT].renderer.load().0, 1);
    world.machines[AT].comfy = Comfy::Renders;
    world.submit(0, 9, 1);
    world.flow();
    let running = world.machines[AT].renderer.holdings().all();
    let slots: Vec<_> = running.map(|(_, held)| held.acceptance.slot.clone()).collect();
    assert_eq!(slots, ["http://comfy-1"]);
}
