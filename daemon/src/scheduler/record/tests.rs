//! The bytes of every record, pinned: journals of every release stay readable. A changed line of `golden.txt` is a journal
//! that no longer reads; a new record is a new line. `SCENEMESH_GOLDEN=write cargo test -p scenemeshd --lib record` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::codec;
use scenemesh_protocol::ids::{PoolId, StudioId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::lease::{FinishedTerms, GrantTerms, Outcome};
use scenemesh_protocol::receipt::{WipeCount, Wiped};
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::task::{FailureClass, ModelName, OutputKind};

use super::*;
use crate::scheduler::batch::{Feed, Stage, Varied};
use crate::scheduler::suspicion::Suspicion;

const POOL: PoolId = PoolId::from_bytes([1; 16]);
const JOB: JobId = JobId::from_bytes([2; 16]);
const TASK: TaskId = TaskId::from_bytes([3; 16]);
const CLAIM: ClaimId = ClaimId::from_bytes([4; 16]);
const MSG: MsgId = MsgId::from_bytes([5; 16]);
const AT_MS: u64 = 1_800_000_000_000;

fn key() -> SecretKey {
    SecretKey::from_seed(&[6; 32])
}

fn node() -> NodeId {
    key().public().node()
}

fn root() -> ContentHash {
    ContentHash::from_bytes([7; 32])
}

fn blob() -> BlobRef {
    BlobRef { root: root(), sealed_bytes: 1000 }
}

fn submission() -> Submission {
    let input = InputFile { name: "a.png".into(), root: root(), key: BlobKey::from_bytes([8; 32]), bytes: 9 };
    let shape = Shape {
        classes: vec!["KSampler".into()],
        models: vec![ModelName::new("checkpoints", "base.safetensors")],
        vram_mib: Some(24_576),
        min_cc: Some(89),
        input_bytes: 1000,
        full_hygiene: true,
    };
    let recipe = Recipe {
        graph: b"{}".to_vec(),
        extra_data: b"{}".to_vec(),
        inputs: vec![input],
        shape,
        previews: true,
        time_limit_ms: 60_000,
    };
    Submission {
        job: JOB,
        label: "key".into(),
        person: "kim".into(),
        class: Class::Urgent,
        reach: Reach::Studios(vec![StudioId::from_bytes([9; 16])]),
        project: Some(ProjectId::from_bytes([10; 16])),
        created_ms: AT_MS,
        recipes: vec![recipe],
        tasks: vec![TaskPlan { task: TASK, recipe: 0, add_to_seeds: 5 }],
    }
}

fn grant() -> Grant {
    let terms = GrantTerms {
        pool: POOL,
        claim: CLAIM,
        task: TASK,
        attempt: 1,
        from: node(),
        to: node(),
        msg_id: MSG,
        envelope: root(),
        roots: vec![blob()],
        lease_ms: 15_000,
        class: Class::Batch,
        quote: None,
        memo: None,
    };
    Grant { terms: Signed::new(&terms, &key()), envelope: vec![11; 4] }
}

fn accepted() -> Signed<AcceptedTerms> {
    Signed::new(&AcceptedTerms { grant: root(), task: TASK, attempt: 1, sigma_milli: Some(1500) }, &key())
}

fn wipe() -> Signed<WipeRecord> {
    let count = |what| vec![WipeCount { what, count: 2 }];
    let record = WipeRecord {
        pool: POOL,
        task: TASK,
        attempt: 1,
        grant: root(),
        hygiene: Hygiene::Full,
        wiped: count(Wiped::History),
        left: count(Wiped::Cache),
    };
    Signed::new(&record, &key())
}

fn finished() -> Finished {
    let outcome = Outcome::Done { roots: vec![blob()], keys: root() };
    let terms = FinishedTerms { pool: POOL, task: TASK, attempt: 1, grant: root(), outcome, exec_ms: 1234 };
    Finished { terms: Signed::new(&terms, &key()), keys: vec![12; 4], usage: None, wipe: Some(wipe()) }
}

fn requesters() -> Vec<RequesterRecord> {
    let (task, attempt, at_ms, tasks) = (TASK, 1, AT_MS, vec![TASK]);
    let output = OutputFile {
        node: "9".into(),
        kind: OutputKind::Image,
        filename: "key_00001_.png".into(),
        root: root(),
        key: BlobKey::from_bytes([13; 32]),
        bytes: 14,
    };
    let varied = Varied { path: "3.cfg".into(), values: vec!["6".into(), "\"x\"".into()] };
    let feed = Feed { name: "f{i}.png".into(), stage: 0, node: "9".into(), file: 1 };
    let stage = Stage { first: 0, tasks: 1, count: 1, varied: vec![varied], feeds: vec![feed] };
    vec![
        RequesterRecord::Submitted(Box::new(submission())),
        RequesterRecord::Granted {
            task,
            attempt,
            node: node(),
            claim: CLAIM,
            grant: Box::new(grant()),
            roots: vec![blob()],
            at_ms,
        },
        RequesterRecord::Accepted { task, attempt, accepted: Box::new(accepted()) },
        RequesterRecord::Refused { task, attempt, reason: RefusalReason::NotNow },
        RequesterRecord::Lost { task, attempt },
        RequesterRecord::Revived { task, attempt },
        RequesterRecord::Unheld { task, attempt },
        RequesterRecord::Failed {
            task,
            attempt,
            failure: Failure::new(FailureClass::OutOfMemory, "words"),
            more_vram_than_mib: Some(8192),
            at_ms,
        },
        RequesterRecord::Stored { task, attempt, outputs: vec![output], exec_ms: 1234, at_ms },
        RequesterRecord::Cancelled { tasks: tasks.clone(), at_ms },
        RequesterRecord::Retried { tasks: tasks.clone(), at_ms },
        RequesterRecord::Wiped { task, attempt, wipe: Box::new(wipe()) },
        RequesterRecord::Forgotten { jobs: vec![JOB] },
        RequesterRecord::Tried { task, attempt, node: node(), claim: CLAIM, grant: root() },
        RequesterRecord::SubmittedBatch(Box::new(Batch {
            submission: submission(),
            stages: vec![stage],
            on_suspect: OnSuspect::Retry,
        })),
        RequesterRecord::Paused { tasks: tasks.clone(), at_ms },
        RequesterRecord::Resumed { tasks, at_ms },
        RequesterRecord::GivenUp { task, at_ms },
        RequesterRecord::Suspected { task, suspects: suspects() },
        RequesterRecord::KeptWith { job: JOB, deputy: node(), at_ms },
        RequesterRecord::KeptNoMore { job: JOB },
        RequesterRecord::Keeping { right: Box::new(right()), batch: Box::new(submission().into()), at_ms },
        RequesterRecord::TakenUp { job: JOB, term: 2, at_ms },
        RequesterRecord::GivenBack { job: JOB, at_ms },
    ]
}

fn right() -> Signed<GrantRight> {
    let (origin, issued_ms) = (key().public().node(), AT_MS);
    let right = GrantRight {
        pool: POOL,
        studio: StudioId::from_bytes([0x44; 16]),
        origin,
        deputy: NodeId::from_bytes([0x45; 32]),
        job: JOB,
        issued_ms,
        not_after_ms: issued_ms + 1000,
    };
    Signed::new(&right, &key())
}

fn suspects() -> Vec<Suspect> {
    let wrong = Suspicion::WrongSize { width: 1, height: 2, wanted_width: 3, wanted_height: 4 };
    let whys = [Suspicion::Undecodable, Suspicion::Uniform, wrong];
    (0..).zip(whys).map(|(output, why)| Suspect { output, why }).collect()
}

fn renderers() -> Vec<RendererRecord> {
    let (from, task, attempt, at_ms) = (node(), TASK, 1, AT_MS);
    let acceptance = Acceptance {
        from,
        task,
        attempt,
        claim: CLAIM,
        slot: "http://127.0.0.1:8188".into(),
        msg_id: MSG,
        expires_ms: AT_MS,
        grant: grant(),
        accepted: accepted(),
        roots: vec![blob()],
        class: Class::Normal,
        at_ms,
    };
    vec![
        RendererRecord::Accepted(Box::new(acceptance)),
        RendererRecord::Sealed {
            from,
            task,
            attempt,
            finished: Box::new(finished()),
            roots: vec![root()],
            at_ms,
        },
        RendererRecord::Dropped { from, task, attempt, at_ms },
        RendererRecord::Purged { expires_ms: AT_MS },
        RendererRecord::Keeping { from, task, attempt, keep_ms: 1000 },
        RendererRecord::Withdrawn(Withdrawn { from, task, attempt, grant: root(), ran_ms: 15, at_ms }),
    ]
}

/// Thirty-two bytes on each line below the record's name.
fn print(name: &str, body: &[u8]) -> String {
    let mut text = format!("{name}\n");
    for line in body.chunks(32) {
        writeln!(text, "    {}", HEXLOWER.encode(line)).unwrap();
    }
    text
}

#[test]
fn every_record_has_the_bytes_it_always_had() {
    let requesters = requesters();
    let renderers = renderers();
    let printed = requesters.iter().map(|record| print(record.name(), &codec::encode_body(record)));
    let renderers = renderers.iter().map(|record| print(record.name(), &codec::encode_body(record)));
    let printed: String = printed.chain(renderers).collect::<Vec<_>>().join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scheduler/record/golden.txt");
    if std::env::var_os("SCENEMESH_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &printed).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap().replace('\r', "");
    let mut now = printed.lines();
    for (number, line) in pinned.lines().enumerate() {
        assert_eq!(now.next(), Some(line), "golden.txt line {}", number + 1);
    }
    assert_eq!(now.next(), None, "golden.txt lacks a record");
}

#[test]
fn every_record_reads_as_it_was_written_and_has_a_sample() {
    let mut sampled = BTreeSet::new();
    for record in requesters() {
        sampled.insert(record.name());
        let bytes = codec::encode_body(&record);
        assert_eq!(codec::decode_body(&bytes, RequesterRecord::LIMIT), Ok(record));
    }
    for record in renderers() {
        sampled.insert(record.name());
        let bytes = codec::encode_body(&record);
        assert_eq!(codec::decode_body(&bytes, RendererRecord::LIMIT), Ok(record));
    }
    let source = include_str!("../record.rs");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split('"').nth(1));
    let all: BTreeSet<_> = names.filter(|name| name.contains('.')).collect();
    assert_eq!(sampled, all);
}
