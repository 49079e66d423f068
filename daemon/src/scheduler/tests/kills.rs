//! The kill table: every record of a run, at both ends, with the daemon dying just before and just after it is on
//! disk. The task ends exactly once each time.

use super::world::{Comfy, Kill, World};
use scenemesh_protocol::task::FailureClass;

/// Runs a script with one death in it; false when the script has fewer commits than that.
fn dies_at(kill: Kill, make: fn() -> World) -> bool {
    let mut world = make();
    world.kill = Some(kill);
    world.submit(0, 7, 2);
    if world.machines[0].requester.jobs().jobs().next().is_none() {
        // It died before the job was accepted: whoever submitted got no answer and submits again.
        world.submit(0, 7, 2);
    }
    world.until("everything settles", World::is_settled);
    if world.kill.is_some() {
        return false;
    }
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
    true
}

fn table(make: fn() -> World) -> usize {
    let nodes = make().machines.len();
    let mut points = 0;
    for node in 0..nodes {
        for commit in 1.. {
            let both = [false, true].map(|written| dies_at(Kill { node, commit, written }, make));
            points += 2;
            if both == [false, false] {
                break;
            }
        }
    }
    points
}

#[test]
fn two_machines_survive_a_death_at_every_record() {
    let points = table(|| World::with_slots(&[0, 1]));
    assert!(points >= 30, "only {points} points were tried");
}

#[test]
fn one_machine_alone_survives_a_death_at_every_record() {
    let points = table(|| World::new(1));
    assert!(points > 20, "only {points} points were tried");
}

#[test]
fn a_task_that_fails_once_survives_a_death_at_every_record() {
    table(|| {
        let mut world = World::with_slots(&[0, 1, 1]);
        world.machines[1].comfy = Comfy::Fails(FailureClass::Execution);
        world
    });
}

#[test]
fn a_death_at_any_moment_between_records() {
    // Not only at commits: after every single delivery, errand and tick.
    for victim in 0..2 {
        for moment in 0..60 {
            let mut world = World::with_slots(&[0, 1]);
            world.submit(0, 7, 2);
            for _ in 0..moment {
                if !world.packets.is_empty() {
                    let packet = world.packets.remove(0);
                    world.deliver(packet);
                } else if !(0..2).any(|n| world.errand(n)) {
                    world.finish_runs(1);
                }
            }
            world.restart(victim);
            world.until("everything settles", World::is_settled);
            world.assert_ended_exactly_once();
            world.assert_replay_gives_the_state();
        }
    }
}
