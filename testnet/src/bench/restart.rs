//! How long a daemon with a long past takes to answer after its start, and how large its journal is: before a compaction
//! and after one. A daemon with no past, started in the same run, is what it is measured against.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{ClaimId, ContentHash, JobId, MsgId, PoolId, TaskId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::lease::{AcceptedTerms, Grant, GrantTerms};
use scenemesh_protocol::receipt::{WipeCount, WipeRecord, Wiped};
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Class, OutputFile, OutputKind, Reach, Shape};
use scenemeshd::scheduler::record::{Recipe, RequesterRecord, Submission, TaskPlan};
use scenemeshd::store::{self, Entry};
use scenemeshd::supervisor::Supervisor;
use serde_json::json;
use tokio::time::Instant;

use super::idle::cpu_s;
use super::programs;
use super::{Figures, ms, percentile};
use crate::cluster::{Cluster, Comfy};
use crate::eventually::eventually_within;
use crate::talk::say;

/// Starts of each kind, of which the median counts.
const STARTS: usize = 3;
const TASKS_PER_JOB: usize = 500;
/// A sealed graph of usual length, and the same in plain.
const ENVELOPE: usize = 4_000;
const GRAPH: usize = 3_500;
const NODE: &str = "desk";
const COMPACTED: &str = "compacted the journal";

pub(super) async fn run(past: usize) -> Result<Figures> {
    ensure!(past >= TASKS_PER_JOB, "--past {past}: at least {TASKS_PER_JOB}");
    let home = tempfile::tempdir().context("making a directory for the node")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    mesh.add(NODE, Comfy::Absent).await?;
    mesh.found(NODE, "aurora", "amber").await?;
    let dir = mesh.node(NODE).dir.clone();
    let empty = starts(&mut mesh).await?;

    mesh.kill(NODE).await?;
    let past = write_past(&dir, past).await?;
    let before = journal_bytes(&dir)?;
    mesh.start(NODE).await?;
    let long = starts(&mut mesh).await?;

    mesh.kill(NODE).await?;
    // A job that was forgotten makes the next start compact.
    commit(&dir, vec![RequesterRecord::Forgotten { jobs: vec![JobId::random()] }]).await?;
    let began = Instant::now();
    mesh.start(NODE).await?;
    eventually_within(Duration::from_mins(10), "the journal is compacted", || async {
        Ok(if mesh.node(NODE).log().contains(COMPACTED) { Ok(()) } else { Err("not yet") })
    })
    .await?;
    let compaction = began.elapsed();
    let after = journal_bytes(&dir)?;
    let short = starts(&mut mesh).await?;
    let status = mesh.ok(NODE, &["status"]).await?;
    ensure!(status["tasks_queued"] == 0, "past tasks wait again: {status}");

    say(&format!("restart: from the start of the program until the API answers, with {past} past tasks"));
    #[expect(clippy::cast_precision_loss, reason = "bytes of a journal")]
    let per_task = |bytes: u64| ms(bytes as f64 / past as f64);
    Ok(Figures::from_iter([
        ("past_tasks".into(), json!(past)),
        ("journal_bytes".into(), json!(before)),
        ("journal_bytes_compacted".into(), json!(after)),
        ("bytes_per_task".into(), per_task(before)),
        ("bytes_per_task_compacted".into(), per_task(after)),
        ("start_and_compaction_ms".into(), ms(compaction.as_secs_f64() * 1e3)),
        ("start_empty_ms".into(), ms(empty.took)),
        ("start_ms".into(), ms(long.took)),
        ("start_compacted_ms".into(), ms(short.took)),
        ("start_empty_cpu_ms".into(), ms(empty.cpu)),
        ("start_cpu_ms".into(), ms(long.cpu)),
        ("start_compacted_cpu_ms".into(), ms(short.cpu)),
    ]))
}

/// Starts after a kill: medians, in milliseconds.
struct Starts {
    took: f64,
    /// Processor time of the daemon until it answered: a busy machine does not change it much.
    cpu: f64,
}

async fn starts(mesh: &mut Cluster) -> Result<Starts> {
    let (mut took, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        mesh.kill(NODE).await?;
        let began = Instant::now();
        mesh.start(NODE).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        let pid = mesh.node(NODE).pid().context("the node runs")?;
        cpu.push(cpu_s(pid)? * 1e3);
    }
    Ok(Starts { took: percentile(&mut took, 0.5), cpu: percentile(&mut cpu, 0.5) })
}

fn journal_bytes(dir: &Path) -> Result<u64> {
    let segments = std::fs::read_dir(dir.join("journal"))?;
    segments.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Commits records behind a daemon that does not run.
async fn commit(dir: &Path, records: Vec<RequesterRecord>) -> Result<()> {
    let supervisor = Supervisor::new(Duration::from_secs(30));
    let (store, replay) = store::open(&store::Config::at(dir), &supervisor.tasks()).await?;
    drop(replay);
    store.journal.commit(records.iter().map(Entry::new).collect()).await?;
    drop(store);
    supervisor.run_until(std::future::ready(())).await?;
    Ok(())
}

/// What this node would have written of jobs that another one rendered; gives the number of their tasks.
async fn write_past(dir: &Path, past: usize) -> Result<usize> {
    let supervisor = Supervisor::new(Duration::from_secs(30));
    let (store, replay) = store::open(&store::Config::at(dir), &supervisor.tasks()).await?;
    drop(replay);
    let life = Life::new();
    let jobs = past / TASKS_PER_JOB;
    for _ in 0..jobs {
        let tasks: Vec<TaskId> = (0..TASKS_PER_JOB).map(|_| TaskId::random()).collect();
        let mut records = vec![RequesterRecord::Submitted(Box::new(submission(&tasks)))];
        records.extend(tasks.iter().flat_map(|task| life.records(*task)));
        store.journal.commit(records.iter().map(Entry::new).collect()).await?;
    }
    drop(store);
    supervisor.run_until(std::future::ready(())).await?;
    Ok(jobs * TASKS_PER_JOB)
}

fn submission(tasks: &[TaskId]) -> Submission {
    let recipe = Recipe {
        graph: vec![b'x'; GRAPH],
        extra_data: Vec::new(),
        inputs: Vec::new(),
        shape: Shape::default(),
        previews: false,
        time_limit_ms: 60_000,
    };
    let plan = |(seed, task): (u64, &TaskId)| TaskPlan { task: *task, recipe: 0, add_to_seeds: seed };
    Submission {
        job: JobId::random(),
        label: "shot 010".into(),
        person: "somebody".into(),
        class: Class::Normal,
        reach: Reach::Studio,
        project: None,
        created_ms: scenemeshd::clock::wall_ms(),
        recipes: vec![recipe],
        tasks: (0..).zip(tasks).map(plan).collect(),
    }
}

/// One attempt that went well. Its signatures were checked before anything was written down, and serve all tasks.
struct Life {
    terms: Signed<GrantTerms>,
    accepted: Signed<AcceptedTerms>,
    wipe: Signed<WipeRecord>,
    renderer: SecretKey,
}

impl Life {
    fn new() -> Self {
        let (requester, renderer) = (SecretKey::generate(), SecretKey::generate());
        let (pool, task, attempt) = (PoolId::from_bytes([1; 16]), TaskId::random(), 1);
        let terms = GrantTerms {
            pool,
            claim: ClaimId::random(),
            task,
            attempt,
            from: requester.public().node(),
            to: renderer.public().node(),
            msg_id: MsgId::random(),
            envelope: ContentHash::of(b"envelope"),
            roots: Vec::new(),
            lease_ms: 30_000,
            class: Class::Normal,
            quote: None,
            memo: None,
        };
        let terms = Signed::new(&terms, &requester);
        let grant = terms.hash();
        let accepted = AcceptedTerms { grant, task, attempt, sigma_milli: None };
        let wiped =
            vec![WipeCount { what: Wiped::History, count: 1 }, WipeCount { what: Wiped::Outputs, count: 1 }];
        let wipe = WipeRecord { pool, task, attempt, grant, hygiene: Hygiene::Full, wiped, left: Vec::new() };
        Self {
            accepted: Signed::new(&accepted, &renderer),
            wipe: Signed::new(&wipe, &renderer),
            terms,
            renderer,
        }
    }

    fn records(&self, task: TaskId) -> [RequesterRecord; 4] {
        let at_ms = scenemeshd::clock::wall_ms();
        let attempt = 1;
        let grant = Grant { terms: self.terms.clone(), envelope: vec![7; ENVELOPE] };
        let output = OutputFile {
            node: "9".into(),
            kind: OutputKind::Image,
            filename: "shot_010_00001_.png".into(),
            root: ContentHash::of(task.as_bytes()),
            key: BlobKey::generate(),
            bytes: 2_000_000,
        };
        [
            RequesterRecord::Granted {
                task,
                attempt,
                node: self.renderer.public().node(),
                claim: ClaimId::random(),
                grant: Box::new(grant),
                roots: Vec::new(),
                at_ms,
            },
            RequesterRecord::Accepted { task, attempt, accepted: Box::new(self.accepted.clone()) },
            RequesterRecord::Stored { task, attempt, outputs: vec![output], exec_ms: 41_000, at_ms },
            RequesterRecord::Wiped { task, attempt, wipe: Box::new(self.wipe.clone()) },
        ]
    }
}
