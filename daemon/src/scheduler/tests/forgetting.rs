//! A compacted journal replays to the same state, whatever the weather was, and forgets what it may.

use std::time::Duration;

use super::world::{Line, World, task_id};
use crate::scheduler::actor::retention::judge;
use crate::scheduler::conversation::{IdSource, Now};
use crate::scheduler::record::{RendererRecord, RequesterRecord};
use crate::scheduler::renderer::{self, Renderer};
use crate::scheduler::requester::{self, Input, Requester};
use crate::store::{Judge, Record, Verdict};

/// What a judge leaves of a journal.
fn squeezed(judge: &Judge, lines: &[Line]) -> Vec<Line> {
    fn left<R: Record>(judge: &Judge, record: &R) -> Option<R> {
        match judge.verdict(record) {
            Verdict::Keep => Some(
                scenemesh_protocol::codec::decode_body(
                    &scenemesh_protocol::codec::encode_body(record),
                    R::LIMIT,
                )
                .unwrap(),
            ),
            Verdict::Drop => None,
            Verdict::Shorten(short) => Some(short),
        }
    }
    lines
        .iter()
        .filter_map(|line| match line {
            Line::Requester(record) => left(judge, record).map(Line::Requester),
            Line::Renderer(record) => left(judge, record).map(Line::Renderer),
        })
        .collect()
}

fn replayed(world: &World, n: usize, lines: &[Line], now: Now) -> (Requester, Renderer) {
    let id = world.machines[n].id;
    let mut requester = Requester::new(id, IdSource::new([1; 32]));
    let mut renderer = Renderer::new(id, IdSource::new([2; 32]));
    for line in lines.iter().cloned() {
        match line {
            Line::Requester(record) => drop(requester.on_input(now, requester::Input::Restored(record))),
            Line::Renderer(record) => drop(renderer.on_input(now, renderer::Input::Restored(record))),
        }
    }
    (requester, renderer)
}

/// Compacts every journal and compares what replays. Blobs that an ended attempt could fetch are nobody's any more.
fn assert_compaction_changes_nothing(world: &World) {
    let now = world.now();
    for n in 0..world.machines.len() {
        let machine = &world.machines[n];
        let lines = machine.journal.clone();
        let (before, held) = replayed(world, n, &lines, now);
        let short = squeezed(&judge(before.jobs(), held.holdings()), &lines);
        let (after, held_after) = replayed(world, n, &short, now);
        assert_eq!(held.holdings(), held_after.holdings(), "machine {n} as a renderer");
        assert_eq!(before.jobs().roots(), after.jobs().roots(), "machine {n}: blobs that are kept");
        for (task, open) in before.jobs().all_tasks() {
            let (was, is) = (before.jobs().task(&task).unwrap(), after.jobs().task(&task).unwrap());
            if open {
                assert_eq!(was, is, "machine {n}: an open task");
                continue;
            }
            let states = |task: &requester::jobs::Task| {
                let attempts =
                    task.attempts.iter().map(|(n, a)| (n, a.node, a.claim, a.grant_hash, a.state.clone()));
                (
                    task.state,
                    task.result.clone(),
                    task.failures.clone(),
                    task.ended_ms,
                    attempts.collect::<Vec<_>>(),
                )
            };
            assert_eq!(states(was), states(is), "machine {n}: an ended task");
        }
        assert_eq!(before.jobs().all_tasks().count(), after.jobs().all_tasks().count());
        let bytes = |lines: &[Line]| -> usize {
            lines
                .iter()
                .map(|line| match line {
                    Line::Requester(record) => scenemesh_protocol::codec::encode_body(record).len(),
                    Line::Renderer(record) => scenemesh_protocol::codec::encode_body(record).len(),
                })
                .sum()
        };
        assert!(bytes(&short) <= bytes(&lines));
    }
}

#[test]
fn a_compacted_journal_replays_to_the_same_state_at_every_step() {
    let mut world = World::with_slots(&[0, 1, 1]);
    world.submit(0, 7, 3);
    world.submit(0, 8, 2);
    world.tell_requester(0, Input::CancelWanted(vec![task_id(8, 1)]));
    world.until("everything settles", |world| {
        assert_compaction_changes_nothing(world);
        world.is_settled()
    });
    assert_compaction_changes_nothing(&world);
    let records = |world: &World, n: usize| world.machines[n].journal.len();
    assert!(records(&world, 0) > 10 && records(&world, 1) + records(&world, 2) > 6);
}

#[test]
fn ended_jobs_are_forgotten_and_open_ones_never() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 2);
    world.until("everything settles", World::is_settled);
    world.cut(0, 1);
    world.submit(0, 9, 1);
    world.advance(Duration::from_hours(1));
    let before_ms = world.now().wall_ms - 1;
    world.tell_requester(0, Input::Forget { before_ms });
    let jobs = world.machines[0].requester.jobs();
    assert!(jobs.task(&task_id(7, 0)).is_none() && jobs.task(&task_id(9, 0)).is_some());
    assert!(matches!(
        world.machines[0].journal.last(),
        Some(Line::Requester(RequesterRecord::Forgotten { jobs })) if jobs.len() == 1
    ));
    let lines = world.machines[0].journal.clone();
    let (requester, renderer) = replayed(&world, 0, &lines, world.now());
    let short = squeezed(&judge(requester.jobs(), renderer.holdings()), &lines);
    let left = short.iter().filter(|line| matches!(line, Line::Requester(_))).count();
    assert_eq!(left, 1, "only the open job's submission: {short:?}");
    world.assert_replay_gives_the_state();
}

/// A journal put back from a backup: the attempt is granted again under its old number, and nobody renders it twice
/// under that number or accepts the old grant.
#[test]
fn a_requester_set_back_accepts_one_result_per_task() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let backup = world.machines[0].journal.clone();
    world.until("everything settles", World::is_settled);
    assert!(backup.len() < world.machines[0].journal.len());
    world.machines[0].journal = backup;
    world.restart(0);
    world.until("everything settles again", World::is_settled);
    let stored = world.machines[0].journal.iter();
    let stored =
        stored.filter(|line| matches!(line, Line::Requester(RequesterRecord::Stored { .. }))).count();
    assert_eq!(stored, 1);
    let executions = world.machines[1].executions.values().copied().collect::<Vec<_>>();
    assert!(executions.iter().all(|times| *times == 1), "no attempt ran twice: {executions:?}");
}

/// The renderer's journal put back: grants of before its restart come to claims that nobody holds.
#[test]
fn a_renderer_set_back_takes_no_old_grant() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    world.until("everything settles", World::is_settled);
    let accepted: Vec<RendererRecord> = world.machines[1]
        .journal
        .iter()
        .filter_map(|line| match line {
            Line::Renderer(record @ RendererRecord::Accepted(_)) => Some(record.clone()),
            _ => None,
        })
        .collect();
    let [RendererRecord::Accepted(old)] = &accepted[..] else { panic!("{accepted:?}") };
    world.machines[1].journal.clear();
    world.restart(1);
    let ticket = crate::scheduler::conversation::Ticket(u64::MAX);
    let granted = renderer::Input::Granted { from: old.from, grant: Box::new(old.grant.clone()), ticket };
    let now = world.now();
    let actions = world.machines[1].renderer.on_input(now, granted);
    let records = actions.iter().filter(|action| matches!(action, renderer::Action::Record(_))).count();
    assert_eq!(records, 0, "{actions:?}");
}

/// What renderers write since projects and revocations: how long a result is kept, and what was done for nothing.
#[test]
fn a_kept_result_and_withdrawn_work_outlive_a_compaction_and_go_with_their_attempt() {
    let mut world = World::with_slots(&[0, 1]);
    world.keep_ms = Some(3_600_000);
    world.submit(0, 7, 1);
    world.flow();
    world.cut(0, 1);
    world.finish_runs(1);
    world.flow();
    assert_compaction_changes_nothing(&world);
    let left = |world: &World| {
        let machine = &world.machines[1];
        squeezed(&judge(machine.requester.jobs(), machine.renderer.holdings()), &machine.journal)
    };
    let keeping = |line: &Line| matches!(line, Line::Renderer(RendererRecord::Keeping { .. }));
    assert!(left(&world).iter().any(keeping), "the result waits");
    world.elapsed += Duration::from_hours(2);
    world.tick();
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 0);
    assert!(!left(&world).iter().any(keeping), "the result is gone");
    assert_compaction_changes_nothing(&world);

    world.heal(0, 1);
    world.machines[1].comfy = super::world::Comfy::Hangs;
    world.submit(0, 8, 1);
    world.flow();
    let words = "birch was revoked by amber: sold".to_owned();
    let barred = std::sync::Arc::new([(world.machines[0].id, words)].into());
    world.tell_renderer(1, renderer::Input::Barred(barred));
    world.flow();
    // Long after its tombstone has done its duty, the proof of work is there.
    world.elapsed += Duration::from_hours(24 * 30);
    world.tick();
    let withdrawn = |line: &Line| matches!(line, Line::Renderer(RendererRecord::Withdrawn(_)));
    let short = left(&world);
    assert_eq!(short.iter().filter(|line| withdrawn(line)).count(), 1, "{short:?}");
    let (_, renderer) = replayed(&world, 1, &short, world.now());
    assert_eq!(renderer.holdings().withdrawn().count(), 1);
    assert_compaction_changes_nothing(&world);
}
