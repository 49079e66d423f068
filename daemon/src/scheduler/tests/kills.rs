//! The kill table: every record of a run, at both ends, with the daemon dying just before and just after it is on
//! disk. The task ends exactly once each time.

use std::collections::BTreeSet;
use std::time::Duration;

use scenemesh_protocol::messages::Request;
use scenemesh_protocol::task::FailureClass;

use super::world::{Cargo, Comfy, Kill, World, task_id};
use crate::scheduler::conversation::CLAIM_HOLD;
use crate::scheduler::requester::Input;
use crate::scheduler::view::TaskPhase;

/// What is done to a pool. Whoever wants something that was not written down wants it again.
struct Script {
    world: fn() -> World,
    drive: fn(&mut World),
    /// How every task ends.
    end: TaskPhase,
}

const FIRST: usize = 0;

fn two() -> World {
    World::with_slots(&[0, 1])
}

/// One renders for the other, and is not done before it is told so.
fn two_at_work() -> World {
    let mut world = two();
    world.machines[1].comfy = Comfy::Hangs;
    world
}

/// Origin, deputy, and one who renders for both.
fn three() -> World {
    let mut world = World::with_slots(&[0, 0, 1]).of_one_studio();
    world.machines[2].comfy = Comfy::Hangs;
    world
}

/// A job that is on record in the end: whoever got no answer submits again.
fn submitted(world: &mut World, job: u8, tasks: usize) {
    while world.machines[0].requester.jobs().task(&task_id(job, FIRST)).is_none() {
        world.submit(0, job, tasks);
    }
}

/// Says something until the first task is as it should be.
fn insist(world: &mut World, phase: TaskPhase, wanted: fn() -> Input) {
    while world.phase(0, task_id(7, FIRST)) != phase {
        world.tell_requester(0, wanted());
    }
}

fn cancel() -> Input {
    Input::CancelWanted(vec![task_id(7, FIRST)])
}

fn ends(world: &mut World) {
    world.until("everything settles", World::is_settled);
}

fn scripts() -> Vec<(&'static str, Script)> {
    let done = TaskPhase::Done;
    let script = |world, drive, end| Script { world, drive, end };
    vec![
        ("alone", script(|| World::new(1), |world| submitted(world, 7, 2), done)),
        ("for another", script(two, |world| submitted(world, 7, 2), done)),
        ("for a project", {
            let world = || {
                let mut world = two();
                world.keep_ms = Some(3_600_000);
                world
            };
            script(world, |world| submitted(world, 7, 1), done)
        }),
        ("fails once", {
            let world = || {
                let mut world = World::with_slots(&[0, 1, 1]);
                world.machines[1].comfy = Comfy::Fails(FailureClass::Execution);
                world
            };
            script(world, |world| submitted(world, 7, 2), done)
        }),
        ("fails and is wanted again", script(two, failed_and_retried, done)),
        ("what comes looks wrong", {
            let world = || {
                let mut world = two();
                world.machines[1].comfy = Comfy::LooksWrong;
                world
            };
            script(world, |world| submitted(world, 7, 1), done)
        }),
        ("the only node fails it", {
            let world = || {
                let mut world = two();
                world.machines[1].comfy = Comfy::Fails(FailureClass::Execution);
                world
            };
            script(world, |world| submitted(world, 7, 1), TaskPhase::Failed)
        }),
        ("a batch is paused and goes on", script(two, paused_and_resumed, done)),
        ("cancelled", script(two_at_work, cancelled, TaskPhase::Cancelled)),
        ("the link is gone and comes back", script(two_at_work, lost_and_revived, done)),
        ("the renderer lost its data", script(two_at_work, not_held, done)),
        ("the grant comes too late", script(two, late_grant, done)),
        ("weeks go by", script(two, weeks_later, done)),
        ("held by a deputy, which is never needed", script(three, kept, done)),
        ("a deputy goes on and gives back", script(three, kept_and_back, done)),
        ("the requester is shut out", script(two_at_work, shut_out, TaskPhase::Cancelled)),
    ]
}

fn kept(world: &mut World) {
    while world.machines[0].requester.jobs().task(&task_id(7, FIRST)).is_none() {
        world.submit_kept(0, 7, 3, 1);
    }
    world.until("the deputy has it", |world| world.holds(1, 7));
    world.machines[2].comfy = Comfy::Renders;
}

fn kept_and_back(world: &mut World) {
    kept(world);
    world.machines[2].comfy = Comfy::Hangs;
    world.unplug(0);
    world.until("the deputy goes on", |world| world.has_pen(1, 7));
    world.machines[2].comfy = Comfy::Renders;
    world.until("it has one", |world| world.phases(1, 3).contains(&TaskPhase::Done));
    world.machines[2].comfy = Comfy::Hangs;
    world.pass(Duration::from_secs(5));
    world.plug_in(0);
    world.pass(Duration::from_secs(10));
    world.machines[2].comfy = Comfy::Renders;
}

fn failed_and_retried(world: &mut World) {
    world.machines[1].comfy = Comfy::Fails(FailureClass::InvalidGraph);
    submitted(world, 7, 1);
    world.until("it fails", |world| world.phase(0, task_id(7, FIRST)) == TaskPhase::Failed);
    world.machines[1].comfy = Comfy::Renders;
    insist(world, TaskPhase::Queued, || Input::RetryWanted(vec![task_id(7, FIRST)]));
}

fn paused_and_resumed(world: &mut World) {
    let tasks = [task_id(7, FIRST), task_id(7, 1)];
    while world.machines[0].requester.jobs().task(&tasks[0]).is_none() {
        super::batches::submit_chain(world, 7);
    }
    let paused = |world: &World| world.machines[0].requester.jobs().task(&tasks[1]).unwrap().paused;
    while !paused(world) {
        world.tell_requester(0, Input::PauseWanted(tasks.to_vec()));
    }
    world.flow();
    while paused(world) {
        world.tell_requester(0, Input::ResumeWanted(tasks.to_vec()));
    }
}

fn cancelled(world: &mut World) {
    submitted(world, 7, 1);
    world.flow();
    insist(world, TaskPhase::Cancelled, cancel);
}

fn lost_and_revived(world: &mut World) {
    submitted(world, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.pass(Duration::from_secs(30));
    world.heal(0, 1);
    world.flow();
    world.machines[1].comfy = Comfy::Renders;
}

fn not_held(world: &mut World) {
    submitted(world, 7, 1);
    world.flow();
    world.machines[1].journal.clear();
    world.restart(1);
    world.pass(Duration::from_secs(30));
    world.machines[1].comfy = Comfy::Renders;
}

fn late_grant(world: &mut World) {
    submitted(world, 7, 1);
    let is_grant = |packet: &super::world::Packet| {
        matches!(&packet.cargo, Cargo::Question { request: Request::Grant(_), .. })
    };
    for _ in 0..1000 {
        if world.packets.iter().any(is_grant) {
            break;
        }
        if world.packets.is_empty() {
            let any = (0..2).any(|n| world.errand(n));
            if !any {
                // A death on the way: the claim comes back when the renderer is heard again.
                world.advance(Duration::from_millis(500));
            }
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    world.advance(CLAIM_HOLD + Duration::from_secs(1));
}

fn weeks_later(world: &mut World) {
    submitted(world, 7, 1);
    ends(world);
    world.elapsed += Duration::from_hours(24 * 30);
    world.tick();
    submitted(world, 8, 1);
    ends(world);
    // The first job is forgotten; the second is still there to be judged.
    while world.machines[0].requester.jobs().task(&task_id(7, FIRST)).is_some() {
        let before_ms = world.now().wall_ms - 24 * 3_600_000;
        world.tell_requester(0, Input::Forget { before_ms });
    }
}

fn shut_out(world: &mut World) {
    submitted(world, 7, 1);
    world.flow();
    while world.machines[1].renderer.holdings().all().next().is_some() {
        world.shut_out(1, 0);
        world.flow();
    }
    insist(world, TaskPhase::Cancelled, cancel);
}

/// Runs a script with one death in it; none when the script has fewer commits than that.
fn dies_at(kill: Kill, script: &Script) -> Option<BTreeSet<&'static str>> {
    let mut world = (script.world)();
    world.kill = Some(kill);
    world.machines[0].log.push(format!("— {kill:?} —"));
    (script.drive)(&mut world);
    ends(&mut world);
    if script.end == TaskPhase::Done {
        world.assert_ended_exactly_once();
    } else {
        assert_eq!(world.phase(0, task_id(7, FIRST)), script.end, "{}", world.story());
    }
    world.assert_replay_gives_the_state();
    world.kill.is_none().then_some(world.died_at)
}

#[test]
fn every_record_at_both_ends_before_and_after_it_is_on_disk() {
    let mut tried = BTreeSet::new();
    for (name, script) in scripts() {
        let nodes = (script.world)().machines.len();
        let mut points = 0;
        for node in 0..nodes {
            for commit in 1.. {
                let deaths = [false, true].map(|written| dies_at(Kill { node, commit, written }, &script));
                let [Some(before), Some(after)] = deaths else { break };
                points += 2;
                tried.extend(before.into_iter().map(|record| (record, "before")));
                tried.extend(after.into_iter().map(|record| (record, "after")));
            }
        }
        assert!(points >= 10, "{name}: only {points} points were tried");
    }
    let source = include_str!("../record.rs");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split('"').nth(1));
    let all: BTreeSet<_> = names.filter(|name| name.contains('.')).collect();
    assert!(all.len() >= 20, "the names were read: {all:?}");
    for name in all {
        for when in ["before", "after"] {
            assert!(tried.contains(&(name, when)), "nobody died {when} {name}");
        }
    }
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
