//! Jobs that lie on two machines: whoever of the two is left goes on, and nothing is granted by both.

use std::time::Duration;

use scenemesh_protocol::ids::JobId;
use scenemesh_protocol::roster::Roles;
use scenemesh_protocol::task::Reach;

use super::scripts_of_ends::{answers, is};
use super::world::{Comfy, Packet, World, task_id};
use crate::scheduler::batch::Batch;
use crate::scheduler::lend::Owner;
use crate::scheduler::requester::{Input, KEEP_AFTER, KeepOn, NoDeputy};
use crate::scheduler::view::TaskPhase;

const ORIGIN: usize = 0;
const DEPUTY: usize = 1;
const RENDERER: usize = 2;

/// Origin and deputy without a ComfyUI, and one who renders for both.
fn three() -> World {
    World::with_slots(&[0, 0, 1]).of_one_studio()
}

/// A job of so many tasks, held by the deputy too, with the first of them at work.
fn at_work(tasks: usize) -> World {
    let mut world = three();
    world.machines[RENDERER].comfy = Comfy::Hangs;
    world.submit_kept(ORIGIN, 7, tasks, DEPUTY);
    world.until("the deputy has it", |world| world.holds(DEPUTY, 7));
    world.pass(Duration::from_secs(5));
    world
}

impl World {
    pub(super) fn holds(&self, n: usize, job: u8) -> bool {
        self.machines[n].requester.jobs().job(&JobId::from_bytes([job; 16])).is_some()
    }

    pub(super) fn has_pen(&self, n: usize, job: u8) -> bool {
        let job = self.machines[n].requester.jobs().job(&JobId::from_bytes([job; 16]));
        job.and_then(|job| job.kept.as_ref()).is_some_and(|kept| kept.pen)
    }

    /// Pulls the plug of a machine.
    pub(super) fn unplug(&mut self, n: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != n) {
            self.cut(n, other);
        }
    }

    /// It is switched on again.
    pub(super) fn plug_in(&mut self, n: usize) {
        self.restart(n);
        for other in (0..self.machines.len()).filter(|other| *other != n) {
            self.heal(n, other);
        }
    }

    pub(super) fn phases(&self, n: usize, tasks: usize) -> Vec<TaskPhase> {
        (0..tasks).map(|task| self.phase(n, task_id(7, task))).collect()
    }

    pub(super) fn are_all(&self, n: usize, tasks: usize, phase: TaskPhase) -> bool {
        self.holds(n, 7) && self.phases(n, tasks).iter().all(|is| *is == phase)
    }

    /// How often a task was executed, whoever had granted it.
    fn executed(&self, task: usize) -> u32 {
        let all = self.machines.iter().flat_map(|machine| &machine.executions);
        all.filter(|((id, _), _)| *id == task_id(7, task)).map(|(_, times)| times).sum()
    }

    /// Delivers one by one, losing the first packet like this.
    fn lose_one(&mut self, like: impl Fn(&Packet) -> bool) -> bool {
        let at = self.packets.iter().position(like);
        if let Some(at) = at {
            let packet = self.packets.remove(at);
            self.lose(&packet);
        }
        at.is_some()
    }
}

#[test]
fn an_origin_that_never_comes_back_leaves_everything_to_its_deputy() {
    let mut world = at_work(4);
    assert!(!world.has_pen(DEPUTY, 7), "its origin is there");
    world.unplug(ORIGIN);
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("the deputy has it all", |world| world.are_all(DEPUTY, 4, TaskPhase::Done));
    for task in 0..4 {
        for output in &world.task(DEPUTY, task_id(7, task)).outputs {
            assert!(world.machines[DEPUTY].blobs.contains(&output.root), "{}", world.story());
        }
        // What was out when the origin went is rendered again.
        assert!(world.executed(task) <= 1 + u32::from(task == 0), "{}", world.story());
    }
}

#[test]
fn results_that_the_origin_had_are_not_rendered_again() {
    let mut world = at_work(6);
    world.machines[RENDERER].comfy = Comfy::Renders;
    let done = |world: &World, n: usize| {
        if !world.holds(n, 7) {
            return 0;
        }
        world.phases(n, 6).iter().filter(|phase| **phase == TaskPhase::Done).count()
    };
    world.until("the deputy has half", |world| done(world, DEPUTY) >= 3);
    world.unplug(ORIGIN);
    world.until("the deputy has it all", |world| done(world, DEPUTY) == 6);
    for task in 0..6 {
        for output in &world.task(DEPUTY, task_id(7, task)).outputs {
            assert!(world.machines[DEPUTY].blobs.contains(&output.root), "{}", world.story());
        }
    }
    let twice = (0..6).filter(|task| world.executed(*task) > 1).count();
    assert!(twice <= 1, "only what was out\n{}", world.story());
}

#[test]
fn an_origin_that_comes_back_grants_nothing_that_its_deputy_has_granted() {
    let mut world = at_work(3);
    world.unplug(ORIGIN);
    // The deputy grants the first, and is not done with it.
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("the deputy has one", |world| {
        world.holds(DEPUTY, 7) && world.phases(DEPUTY, 3).contains(&TaskPhase::Done)
    });
    world.machines[RENDERER].comfy = Comfy::Hangs;
    world
        .until("the deputy waits for another", |world| world.phases(DEPUTY, 3).contains(&TaskPhase::Running));
    let before: Vec<u32> = (0..3).map(|task| world.executed(task)).collect();
    world.plug_in(ORIGIN);
    world.pass(Duration::from_secs(40));
    assert!(!world.has_pen(DEPUTY, 7), "{}", world.story());
    for (task, before) in before.iter().enumerate() {
        let running = world.phase(DEPUTY, task_id(7, task)) == TaskPhase::Running;
        assert!(!running || world.executed(task) == *before, "granted by both\n{}", world.story());
    }
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("the origin has it all", |world| world.are_all(ORIGIN, 3, TaskPhase::Done));
    for (task, before) in before.iter().enumerate() {
        for output in &world.task(ORIGIN, task_id(7, task)).outputs {
            assert!(world.machines[ORIGIN].blobs.contains(&output.root), "{}", world.story());
        }
        // The task that was out when the origin went ran for both: its attempt then is not the deputy's to know.
        assert!(world.executed(task) <= 1 + u32::from(*before > 0 && task == 0), "{}", world.story());
    }
    world.until("the deputy lets it go", |world| !world.holds(DEPUTY, 7));
    world.finish();
}

#[test]
fn a_short_absence_changes_nothing() {
    let mut world = at_work(2);
    world.unplug(ORIGIN);
    world.pass(KEEP_AFTER / 2);
    world.plug_in(ORIGIN);
    world.pass(Duration::from_secs(5));
    assert!(!world.has_pen(DEPUTY, 7));
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.finish();
    assert!((0..2).all(|task| world.executed(task) == 1), "{}", world.story());
    assert!(!world.holds(DEPUTY, 7), "what is over is not kept");
}

#[test]
fn an_origin_whose_deputy_is_gone_waits_no_longer_than_it_must() {
    let mut world = at_work(2);
    world.unplug(ORIGIN);
    world.cut(DEPUTY, RENDERER);
    world.restart(ORIGIN);
    world.heal(ORIGIN, RENDERER);
    world.pass(Duration::from_secs(10));
    let why = world.machines[ORIGIN].requester.why(world.now(), task_id(7, 1)).unwrap();
    assert_eq!(why.code(), "asks_deputy");
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("it goes on alone", |world| world.are_all(ORIGIN, 2, TaskPhase::Done));
}

#[test]
fn whatever_both_granted_in_a_partition_has_one_result_in_the_end() {
    let mut world = World::with_slots(&[0, 0, 1, 1]).of_one_studio();
    world.submit_kept(ORIGIN, 7, 3, DEPUTY);
    world.flow();
    world.machines[2].comfy = Comfy::Hangs;
    world.machines[3].comfy = Comfy::Hangs;
    // Origin and one renderer on one side, deputy and the other on the other.
    for (a, b) in [(0, 1), (0, 3), (2, 1), (2, 3)] {
        world.cut(a, b);
    }
    world.pass(KEEP_AFTER * 2);
    assert!(world.has_pen(DEPUTY, 7));
    for (a, b) in [(0, 1), (0, 3), (2, 1), (2, 3)] {
        world.heal(a, b);
    }
    world.machines[2].comfy = Comfy::Renders;
    world.machines[3].comfy = Comfy::Renders;
    world.until("the deputy lets it go", |world| !world.holds(DEPUTY, 7));
    world.finish();
}

#[test]
fn every_word_about_a_kept_job_lost_once_changes_nothing() {
    type Like = fn(&Packet) -> bool;
    let table: [(&str, Like); 11] = [
        ("the job", |packet| is(packet, "Keep")),
        ("the answer to it", |packet| answers(packet, "Keep")),
        ("the question of who grants", |packet| is(packet, "TakeBack")),
        ("the answer to that", |packet| answers(packet, "TakeBack")),
        ("news", |packet| is(packet, "KeepNews")),
        ("the answer to news", |packet| is(packet, "KeepNews")),
        ("a result that is brought", |packet| {
            is(packet, "Finished") && packet.to != RENDERER && packet.from != RENDERER
        }),
        ("the answer to it", |packet| answers(packet, "Finished") && packet.to != RENDERER),
        ("its ack", |packet| is(packet, "Ack") && packet.to != RENDERER),
        ("the release", |packet| is(packet, "Release")),
        ("the answer to the release", |packet| answers(packet, "Done")),
    ];
    for (what, like) in table {
        let mut lost_ever = false;
        for returns in [false, true] {
            let mut world = three();
            let mut lost = false;
            world.submit_kept(ORIGIN, 7, 3, DEPUTY);
            let mut away = false;
            for step in 0..60_000 {
                lost = lost || world.lose_one(like);
                if !world.packets.is_empty() {
                    let packet = world.packets.remove(0);
                    world.deliver(packet);
                } else if !(0..3).any(|n| world.errand(n)) && !(0..3).any(|n| world.finish_runs(n)) {
                    world.advance(Duration::from_millis(500));
                }
                if returns && !away && world.holds(DEPUTY, 7) && world.are_all(ORIGIN, 1, TaskPhase::Done) {
                    away = true;
                    world.unplug(ORIGIN);
                    world.until("the deputy has another", |world| {
                        world.phases(DEPUTY, 3).iter().filter(|phase| **phase == TaskPhase::Done).count() > 1
                    });
                    world.plug_in(ORIGIN);
                }
                let over = world.are_all(ORIGIN, 3, TaskPhase::Done) && !world.holds(DEPUTY, 7);
                if over && step > 0 && world.is_settled() {
                    break;
                }
            }
            lost_ever |= lost;
            world.finish();
        }
        assert!(lost_ever, "{what} was never said");
    }
}

#[test]
fn what_a_person_wants_reaches_the_deputy() {
    let mut world = at_work(4);
    let tasks = |indexes: &[usize]| indexes.iter().map(|index| task_id(7, *index)).collect::<Vec<_>>();
    world.tell_requester(ORIGIN, Input::CancelWanted(tasks(&[1])));
    world.tell_requester(ORIGIN, Input::PauseWanted(tasks(&[2, 3])));
    world.flow();
    world.tell_requester(ORIGIN, Input::ResumeWanted(tasks(&[3])));
    world.flow();
    assert_eq!(world.phase(DEPUTY, task_id(7, 1)), TaskPhase::Cancelled);
    let paused = |task| world.machines[DEPUTY].requester.jobs().task(&task_id(7, task)).unwrap().paused;
    assert!(paused(2) && !paused(3));
    world.unplug(ORIGIN);
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("it has rendered the rest", |world| {
        [0, 3].iter().all(|task| world.phase(DEPUTY, task_id(7, *task)) == TaskPhase::Done)
    });
    world.pass(Duration::from_secs(60));
    assert_eq!((world.executed(1), world.executed(2)), (0, 0), "{}", world.story());
    // Wanted again, and only then: the deputy hears of that too.
    world.plug_in(ORIGIN);
    world.flow();
    world.tell_requester(ORIGIN, Input::RetryWanted(tasks(&[1])));
    world.tell_requester(ORIGIN, Input::ResumeWanted(tasks(&[2])));
    world.until("the origin has it all", |world| world.are_all(ORIGIN, 4, TaskPhase::Done));
}

#[test]
fn a_job_is_held_by_nodes_of_its_studio_that_may_and_within_its_reach_only() {
    let mut world = three();
    let judge = |world: &World, change: fn(&mut Batch), keep_on: KeepOn| {
        let mut batch: Batch = world.submission(7, 1).into();
        change(&mut batch);
        world.machines[ORIGIN].requester.deputy_for(&batch, keep_on)
    };
    let [me, deputy, renderer] = [0, 1, 2].map(|n| world.machines[n].id);
    let same: fn(&mut Batch) = |_| {};
    assert!(
        matches!(judge(&world, same, KeepOn::Anybody), Ok(Some(node)) if node == deputy || node == renderer)
    );
    assert_eq!(judge(&world, same, KeepOn::Nobody), Ok(None));
    assert_eq!(judge(&world, same, KeepOn::Node(me)), Err(NoDeputy::Me));
    let local: fn(&mut Batch) = |batch| batch.submission.reach = Reach::Machine;
    assert_eq!(judge(&world, local, KeepOn::Anybody), Ok(None));
    assert_eq!(judge(&world, local, KeepOn::Node(deputy)), Err(NoDeputy::OutOfReach));
    world.machines[DEPUTY].roles = Roles { keep: false, ..Roles::ALL };
    world.machines[RENDERER].studio = scenemesh_protocol::ids::StudioId::from_bytes([9; 16]);
    (0..3).for_each(|n| world.refresh_facts(n));
    assert_eq!(judge(&world, same, KeepOn::Anybody), Ok(None));
    assert_eq!(judge(&world, same, KeepOn::Node(deputy)), Err(NoDeputy::LacksRole));
    assert_eq!(judge(&world, same, KeepOn::Node(renderer)), Err(NoDeputy::NotOfStudio));
    // Whoever is asked all the same says no, and the job goes on.
    world.machines[RENDERER].comfy = Comfy::Hangs;
    world.submit_kept(ORIGIN, 7, 1, DEPUTY);
    world.pass(Duration::from_secs(5));
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("it ends", |world| world.are_all(ORIGIN, 1, TaskPhase::Done));
    assert!(!world.holds(DEPUTY, 7));
    assert!(world.machines[ORIGIN].log.iter().any(|line| line.contains("role keep")), "{}", world.story());
}

#[test]
fn nobody_but_its_origin_gets_at_a_kept_job() {
    let mut world = at_work(2);
    let job = JobId::from_bytes([7; 16]);
    let stranger = world.machines[RENDERER].id;
    let ticket = crate::scheduler::conversation::Ticket(u64::MAX);
    let before = world.machines[DEPUTY].journal.len();
    use scenemesh_protocol::deputy::{KeepNews, Release, TakeBack, TaskNews};
    let news =
        KeepNews { job, tasks: vec![(task_id(7, 0), TaskNews::Over), (task_id(7, 1), TaskNews::Over)] };
    world.tell_requester(DEPUTY, Input::NewsTold { node: stranger, news, ticket });
    world.tell_requester(DEPUTY, Input::TakeBackAsked { node: stranger, ask: TakeBack { job }, ticket });
    world.tell_requester(DEPUTY, Input::Released { node: stranger, ask: Release { job }, ticket });
    assert_eq!(world.machines[DEPUTY].journal.len(), before, "{}", world.story());
}

#[test]
fn an_origin_that_is_shut_out_has_nothing_kept() {
    let mut world = at_work(2);
    world.unplug(ORIGIN);
    world.until("the deputy goes on", |world| world.has_pen(DEPUTY, 7));
    let barred = [(world.machines[ORIGIN].id, "revoked".to_owned())].into_iter().collect();
    world.tell_requester(DEPUTY, Input::Barred(std::sync::Arc::new(barred)));
    assert!(!world.holds(DEPUTY, 7));
}

#[test]
fn what_a_deputy_grants_itself_is_not_its_owners_own() {
    let mut world = World::with_slots(&[0, 1]).of_one_studio();
    world.machines[DEPUTY].comfy = Comfy::Hangs;
    world.machines[DEPUTY].owner = Owner::Back { finish: Duration::ZERO, said_ms: 0 };
    world.refresh_facts(DEPUTY);
    world.submit_kept(ORIGIN, 7, 2, DEPUTY);
    world.until("the deputy has it", |world| world.holds(DEPUTY, 7));
    world.unplug(ORIGIN);
    world.until("the deputy goes on", |world| world.has_pen(DEPUTY, 7));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.executed(0) + world.executed(1), 0, "its owner wants the GPU\n{}", world.story());
    world.machines[DEPUTY].owner = Owner::Away;
    world.refresh_facts(DEPUTY);
    world.until("it runs", |world| world.executed(0) == 1);
    world.machines[DEPUTY].owner = Owner::Back { finish: Duration::ZERO, said_ms: 1 };
    world.refresh_facts(DEPUTY);
    world.flow();
    assert!(world.machines[DEPUTY].renderer.is_idle(), "it was interrupted\n{}", world.story());
}

#[test]
fn a_late_result_of_the_origins_that_is_first_costs_the_deputy_nothing() {
    let mut world = World::with_slots(&[0, 0, 1, 1]).of_one_studio();
    (2..4).for_each(|n| world.machines[n].comfy = Comfy::Hangs);
    // Of each two tasks the second builds on the first.
    let batch = super::batches::chain(&world, 7);
    let deputy = Some(world.machines[DEPUTY].id);
    world.tell_requester(ORIGIN, Input::Submitted { batch: Box::new(batch), deputy });
    world.until("the deputy has it", |world| world.holds(DEPUTY, 7));
    world.pass(Duration::from_secs(5));
    let had = (2..4).find(|n| !world.machines[*n].executions.is_empty()).unwrap();
    // The renderer of the first is done while the origin is away, and the deputy, which cannot see it, grants it again.
    world.unplug(ORIGIN);
    world.cut(DEPUTY, had);
    world.machines[had].comfy = Comfy::Renders;
    world.until("the deputy has it rendered", |world| world.has_pen(DEPUTY, 7) && world.executed(0) == 2);
    world.plug_in(ORIGIN);
    world.flow();
    assert_eq!(world.phase(ORIGIN, task_id(7, 0)), TaskPhase::Done, "{}", world.story());
    let second = world.phase(DEPUTY, task_id(7, 1));
    assert!(!second.is_over(), "nothing of it is skipped: {second}\n{}", world.story());
    world.pass(Duration::from_secs(5));
    world.unplug(ORIGIN);
    (2..4).for_each(|n| world.machines[n].comfy = Comfy::Renders);
    world.until("the deputy has it all", |world| world.are_all(DEPUTY, 2, TaskPhase::Done));
}

#[test]
fn a_deputy_that_never_gets_hold_of_a_job_is_not_given_it_without_end() {
    let mut world = at_work_without_deputy();
    let given =
        |world: &World| world.machines[ORIGIN].log.iter().filter(|line| line.contains("not held")).count();
    world.machines[DEPUTY].cannot_keep = true;
    world.submit_kept(ORIGIN, 7, 2, DEPUTY);
    world.pass(Duration::from_hours(1));
    assert!(world.given_away <= 24, "{} times", world.given_away);
    assert!(given(&world) >= 1, "{}", world.story());
    world.machines[DEPUTY].cannot_keep = false;
    world.until("it has it at last", |world| world.holds(DEPUTY, 7));
}

/// Nothing gets done.
fn at_work_without_deputy() -> World {
    let mut world = three();
    world.machines[RENDERER].comfy = Comfy::Hangs;
    world
}

#[test]
fn a_link_that_comes_and_goes_holds_a_job_only_once() {
    let mut world = at_work(2);
    // The deputy's link is there, and its answers are lost.
    let mut waited = 0;
    for _ in 0..20 {
        world.cut(ORIGIN, DEPUTY);
        world.heal(ORIGIN, DEPUTY);
        while world.lose_one(|packet| is(packet, "TakeBack")) {}
        world.advance(Duration::from_secs(20));
        while world.lose_one(|packet| is(packet, "TakeBack")) {}
        let why = world.machines[ORIGIN].requester.why(world.now(), task_id(7, 1)).unwrap();
        waited += usize::from(why.code() == "asks_deputy");
    }
    assert!((1..=3).contains(&waited), "held {waited} times of 20");
}

#[test]
fn a_job_that_is_wanted_again_is_held_again() {
    let mut world = at_work(1);
    world.tell_requester(ORIGIN, Input::CancelWanted(vec![task_id(7, 0)]));
    world.until("the deputy lets it go", |world| !world.holds(DEPUTY, 7));
    world.tell_requester(ORIGIN, Input::RetryWanted(vec![task_id(7, 0)]));
    world.until("the deputy has it again", |world| world.holds(DEPUTY, 7));
}

#[test]
fn whoever_may_not_hold_a_job_any_more_lets_it_go() {
    let mut world = at_work(2);
    world.machines[DEPUTY].roles = Roles { keep: false, ..Roles::ALL };
    (0..3).for_each(|n| world.refresh_facts(n));
    world.flow();
    assert!(!world.holds(DEPUTY, 7), "{}", world.story());
    world.machines[RENDERER].comfy = Comfy::Renders;
    world.until("it is rendered all the same", |world| world.are_all(ORIGIN, 2, TaskPhase::Done));
}

#[test]
fn a_job_whose_right_has_ended_is_gone_on_with_by_nobody_and_ends() {
    let mut world = at_work(2);
    world.pass(Duration::from_secs(1));
    world.elapsed += Duration::from_hours(31 * 24);
    world.unplug(ORIGIN);
    world.until("it ends at the deputy", |world| world.are_all(DEPUTY, 2, TaskPhase::Cancelled));
    assert!(!world.has_pen(DEPUTY, 7));
}

#[test]
fn a_job_that_its_origin_forgot_is_let_go() {
    let mut world = at_work(2);
    world.unplug(ORIGIN);
    // As after a restore of an old backup.
    world.machines[ORIGIN].journal.clear();
    world.plug_in(ORIGIN);
    world.pass(Duration::from_mins(10));
    assert!(world.holds(DEPUTY, 7), "it might still ask");
    world.pass(Duration::from_mins(10));
    assert!(!world.holds(DEPUTY, 7));
}

#[test]
fn many_jobs_are_asked_for_by_turns() {
    let mut world = at_work_without_deputy();
    for job in 10..110 {
        world.submit_kept(ORIGIN, job, 1, DEPUTY);
    }
    world.until("the deputy has them all", |world| (10..110).all(|job| world.holds(DEPUTY, job)));
    world.plug_in(ORIGIN);
    let asked = world.packets.iter().filter(|packet| is(packet, "TakeBack")).count();
    assert!((1..=40).contains(&asked), "{asked} at once");
    world.pass(Duration::from_secs(2));
    let held = (10..110).filter(|job| {
        let why = world.machines[ORIGIN].requester.why(world.now(), task_id(*job, 0));
        why.is_some_and(|why| why.code() == "asks_deputy")
    });
    assert_eq!(held.count(), 0, "all were answered");
}
