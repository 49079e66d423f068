//! What a renderer signs that it removed reaches whoever asked for the work, however the attempt ended.

use scenemesh_protocol::receipt::{WipeCount, Wiped};
use scenemesh_protocol::task::FailureClass;

use super::world::{Comfy, World, task_id};
use crate::scheduler::requester::Input;
use crate::scheduler::view::{TaskPhase, WipeView};

const HISTORY: WipeCount = WipeCount { what: Wiped::History, count: 1 };

fn wipes(world: &World) -> Vec<WipeView> {
    world.task(0, task_id(7, 0)).wipes
}

/// A world whose renderer has one task of the first machine in its ComfyUI.
fn running() -> World {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Hangs;
    world.submit(0, 7, 1);
    world.until("it runs", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Running);
    world.flow();
    world
}

fn cancel(world: &mut World) {
    world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
}

#[test]
fn a_result_brings_the_record_of_its_wipe() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    world.until("it is done", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    let [wipe] = &wipes(&world)[..] else { panic!("one record: {:?}", wipes(&world)) };
    assert_eq!((wipe.attempt, wipe.node_name.as_str()), (1, "birch"));
    assert_eq!((&wipe.record.wiped[..], &wipe.record.left[..]), (&[HISTORY][..], &[][..]));
    world.until("everything settles", World::is_settled);
    world.assert_replay_gives_the_state();
}

#[test]
fn a_failed_attempt_brings_one_too() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].comfy = Comfy::Fails(FailureClass::InvalidGraph);
    world.submit(0, 7, 1);
    world.until("it has failed", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Failed);
    assert_eq!(wipes(&world)[0].record.wiped, [HISTORY]);
}

#[test]
fn a_cancelled_run_is_accounted_for_once_it_is_gone() {
    let mut world = running();
    cancel(&mut world);
    world.until("its wipe is known", |world| !wipes(world).is_empty());
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Cancelled);
    world.until("everything settles", World::is_settled);
    world.assert_replay_gives_the_state();
}

#[test]
fn whoever_was_away_when_a_cancelled_run_was_wiped_is_told_later() {
    let mut world = running();
    cancel(&mut world);
    // The cancel arrives; what was wiped does not.
    while world.machines[1].renderer.holdings().all().next().is_some() {
        let packet = world.packets.remove(0);
        world.deliver(packet);
    }
    world.cut(0, 1);
    world.flow();
    assert_eq!(wipes(&world), []);
    world.heal(0, 1);
    world.until("its wipe is known", |world| !wipes(world).is_empty());
}

#[test]
fn a_record_that_somebody_else_signed_is_ignored_and_the_work_is_not() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].forges_wipes = true;
    world.submit(0, 7, 1);
    world.until("it is done", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    assert_eq!(wipes(&world), []);
}

#[test]
fn what_stays_behind_is_told_and_the_work_counts() {
    let mut world = World::with_slots(&[0, 1]);
    world.machines[1].wipes_badly = true;
    world.submit(0, 7, 1);
    world.until("it is done", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    assert_eq!(wipes(&world)[0].record.left, [WipeCount { what: Wiped::Outputs, count: 1 }]);
    let log = world.machines[0].log.join("\n");
    assert!(log.contains("birch could not remove everything"), "{log}");
}
