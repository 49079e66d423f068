//! A journal of many past tasks: what a compaction leaves of it, and how long a start takes then.

use std::time::Duration;

use scenemesh_protocol::ids::{ContentHash, JobId, TaskId};
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::task::InputFile;
use tokio::time::Instant;

use super::world::{Line, World};
use crate::scheduler::actor::retention::judge;
use crate::scheduler::record::{RequesterRecord, Submission, TaskPlan};
use crate::scheduler::renderer::holdings::Holdings;
use crate::scheduler::requester::jobs::{Jobs, TaskState};
use crate::store::{self, Entry, Replay, Store};
use crate::supervisor::Supervisor;

/// Past tasks, unless `SCENEMESH_PAST_TASKS` says otherwise.
const PAST_TASKS: usize = 5_000;
const TASKS_PER_JOB: usize = 500;
/// A sealed graph of usual length.
const ENVELOPE: usize = 4_000;
const RESTART: Duration = Duration::from_secs(2);

/// What the requester wrote for a task that another machine rendered.
fn story() -> (Submission, Vec<RequesterRecord>) {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    world.until("everything settles", World::is_settled);
    let mut submission = None;
    let mut records = Vec::new();
    for line in &world.machines[0].journal {
        match line {
            Line::Requester(RequesterRecord::Submitted(it)) => submission = Some((**it).clone()),
            Line::Requester(record) => records.push(record.clone()),
            Line::Renderer(_) => {}
        }
    }
    (submission.unwrap(), records)
}

fn told_of(record: &RequesterRecord, of: TaskId) -> RequesterRecord {
    let mut record = record.clone();
    match &mut record {
        RequesterRecord::Granted { task, grant, .. } => {
            *task = of;
            grant.envelope = vec![7; ENVELOPE];
        }
        RequesterRecord::Accepted { task, .. }
        | RequesterRecord::Stored { task, .. }
        | RequesterRecord::Wiped { task, .. } => *task = of,
        other => panic!("a straight story: {other:?}"),
    }
    record
}

fn jobs_of(replay: &Replay) -> Jobs {
    let mut jobs = Jobs::default();
    for record in replay.records::<RequesterRecord>() {
        jobs.apply(&record.unwrap().1);
    }
    jobs
}

async fn open(dir: &std::path::Path) -> (Supervisor, Store, Replay) {
    let supervisor = Supervisor::new(Duration::from_secs(30));
    let (store, replay) = store::open(&store::Config::at(dir), &supervisor.tasks()).await.unwrap();
    (supervisor, store, replay)
}

fn bytes_of(dir: &std::path::Path) -> u64 {
    let segments = std::fs::read_dir(dir.join("journal")).unwrap();
    segments.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_past_tasks_take_little_room_and_no_time_to_start() {
    let count = std::env::var("SCENEMESH_PAST_TASKS").map_or(PAST_TASKS, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, store, replay) = open(dir.path()).await;
    drop(replay);
    let (submission, records) = story();
    let mut jobs = Jobs::default();
    for _ in 0..count / TASKS_PER_JOB {
        let plan = |_| crate::scheduler::record::TaskPlan { task: TaskId::random(), ..submission.tasks[0] };
        let tasks: Vec<_> = (0..TASKS_PER_JOB).map(plan).collect();
        let job = Submission { job: JobId::random(), tasks: tasks.clone(), ..submission.clone() };
        let mut all = vec![RequesterRecord::Submitted(Box::new(job))];
        all.extend(tasks.iter().flat_map(|plan| records.iter().map(|record| told_of(record, plan.task))));
        all.iter().for_each(|record| jobs.apply(record));
        store.journal.commit(all.iter().map(Entry::new).collect()).await.unwrap();
    }
    assert!(jobs.all_tasks().all(|(_, open)| !open));
    let before = bytes_of(dir.path());
    let line = store.journal.close_segment().await.unwrap();
    store.journal.compact(line, judge(&jobs, &Holdings::default())).await.unwrap();
    let after = bytes_of(dir.path());
    drop(store);
    supervisor.run_until(async {}).await.unwrap();

    let began = Instant::now();
    let (supervisor, store, replay) = open(dir.path()).await;
    let replayed = jobs_of(&replay);
    let took = began.elapsed();
    assert_eq!(replayed.all_tasks().count(), count / TASKS_PER_JOB * TASKS_PER_JOB);
    let done = |(task, _)| replayed.task(&task).is_some_and(|task| task.state == TaskState::Done);
    assert!(replayed.all_tasks().all(done));
    let per_task = after / count as u64;
    let said = format!("{count} past tasks: {before} bytes, {after} after a compaction, {took:?} to start");
    assert!(per_task < 1_200 && after * 4 < before, "{said}");
    assert!(took < RESTART, "{said}");
    drop((store, replay));
    supervisor.run_until(async {}).await.unwrap();
    if count != PAST_TASKS {
        std::fs::write(std::env::temp_dir().join("scenemesh-past-tasks.txt"), said).unwrap();
    }
}

#[test]
fn of_what_is_done_no_graph_stays_in_memory_and_all_of_what_may_be_retried() {
    let (mut submission, records) = story();
    let input = InputFile {
        name: "plate.png".into(),
        root: ContentHash::from_bytes([3; 32]),
        key: BlobKey::from_bytes([3; 32]),
        bytes: 7,
    };
    let second = TaskPlan { task: TaskId::from_bytes([9; 16]), ..submission.tasks[0] };
    submission.tasks.push(second);
    for inputs in [Vec::new(), vec![input.clone()]] {
        submission.recipes[0].inputs = inputs.clone();
        let (first, id) = (submission.tasks[0].task, submission.job);
        let mut jobs = Jobs::default();
        jobs.apply(&RequesterRecord::Submitted(Box::new(submission.clone())));
        let recipes = |jobs: &Jobs| jobs.job(&id).unwrap().submission.recipes.clone();
        records.iter().for_each(|record| jobs.apply(&told_of(record, first)));
        assert_eq!(jobs.task(&first).unwrap().state, TaskState::Done);
        assert_eq!(recipes(&jobs), submission.recipes, "another task of the job is open");
        jobs.apply(&RequesterRecord::Cancelled { tasks: vec![second.task], at_ms: 1 });
        assert_eq!(recipes(&jobs), submission.recipes, "it may be retried");
        jobs.apply(&RequesterRecord::Retried { tasks: vec![second.task], at_ms: 2 });
        assert_eq!(jobs.recipe_of(&second.task).unwrap().unwrap().graph, submission.recipes[0].graph);
        records.iter().for_each(|record| jobs.apply(&told_of(record, second.task)));
        assert!(jobs.all_tasks().all(|(_, open)| !open));
        let left = recipes(&jobs);
        assert!(left.iter().all(|recipe| recipe.graph.is_empty() && recipe.inputs == inputs), "{left:?}");
        assert_eq!(left.len(), inputs.len());
        assert_eq!(jobs.names(&input.root), !inputs.is_empty(), "its input is still its own");
        jobs.apply(&RequesterRecord::Forgotten { jobs: vec![id] });
        assert!(!jobs.names(&input.root) && jobs.roots().is_empty());
    }
}
