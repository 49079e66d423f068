//! Slots, runs and cancels against a scripted backend.

use scenemesh_protocol::task::{FailureClass, ModelName};
use serde_json::json;

use super::*;
use crate::executor::fake::{FakeBackend, Step};

fn graph() -> Value {
    json!({"1": {"class_type": "SaveImage", "inputs": {}}})
}

async fn bench() -> (Bench, FakeBackend) {
    let fake = FakeBackend::ready(&["SaveImage"], vec![ModelName::new("checkpoints", "a.safetensors")]);
    let bench = Bench::scripted(vec![Box::new(fake.clone())]).await;
    bench.ready().await;
    (bench, fake)
}

#[tokio::test]
async fn a_run_tells_its_story_and_frees_its_slot() {
    let (mut bench, fake) = bench().await;
    fake.script(vec![Step::Start, Step::Progress { step: 1, max: 2 }, Step::Hold]);
    let run = run_of(&graph());
    bench.executor.run(run.clone()).await.unwrap();
    bench.until(|view| view.state == SlotState::Busy { task: run.task, attempt: 1 }).await;

    bench.executor.run(run.clone()).await.expect("the same attempt twice is one run");
    let other = bench.executor.run(run_of(&graph())).await.unwrap_err();
    assert_eq!(other.to_string(), "slot 0 is busy with another task");

    fake.release();
    let story = bench.story().await;
    assert_eq!((story.started, story.progress.len()), (1, 1));
    assert!(matches!(story.outcome, Outcome::Done { .. }));
    bench.executor.run(run_of(&graph())).await.expect("the slot is free when the end is told");
    assert_eq!(fake.seen()[0], (run.task, 1));
    bench.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_only_its_attempt() {
    let (mut bench, fake) = bench().await;
    fake.script(vec![Step::Start, Step::Hang]);
    let run = run_of(&graph());
    bench.executor.run(run.clone()).await.unwrap();
    bench.executor.cancel(TaskId::random(), 1).await;
    bench.executor.cancel(run.task, 0).await;
    assert!(matches!(bench.next().await, Event::Started { .. }));
    bench.executor.cancel(run.task, 1).await;
    assert_eq!(bench.story().await.failed().class, FailureClass::Cancelled);
    bench.stop().await;
}

#[tokio::test]
async fn a_slot_that_is_not_ready_says_why() {
    let fake = FakeBackend::ready(&["SaveImage"], Vec::new());
    fake.set_probe(Err("nobody home".into()));
    let bench = Bench::scripted(vec![Box::new(fake)]).await;
    assert_eq!(bench.not_ready().await, "nobody home");
    let refused = bench.executor.run(run_of(&graph())).await.unwrap_err();
    assert_eq!(refused.to_string(), "the ComfyUI of slot 0 is not ready: nobody home");
    let missing = bench.executor.run(Run { slot: SlotId(7), ..run_of(&graph()) }).await.unwrap_err();
    assert!(missing.to_string().contains("no slot 7"), "{missing}");
    bench.stop().await;
}

#[tokio::test]
async fn progress_nobody_reads_does_not_hold_up_the_end() {
    let (mut bench, fake) = bench().await;
    let mut steps = vec![Step::Start];
    steps.extend((0..2000).map(|step| Step::Progress { step, max: 2000 }));
    fake.script(steps);
    bench.executor.run(run_of(&graph())).await.unwrap();
    bench.until(|view| view.state == SlotState::Ready).await;
    let story = bench.story().await;
    assert!(matches!(story.outcome, Outcome::Done { .. }));
    assert!(story.progress.len() < 2000);
    bench.stop().await;
}

#[tokio::test]
async fn a_stopping_node_ends_its_runs() {
    let (bench, fake) = bench().await;
    fake.script(vec![Step::Start, Step::Hang]);
    bench.executor.run(run_of(&graph())).await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_wrong_url_is_refused_at_once() {
    let supervisor = Supervisor::new(Duration::from_secs(1));
    let (blobs, _dir) = super::blobs(&supervisor).await;
    let endpoint = EndpointConfig { url: "8188".into(), ..EndpointConfig::default() };
    let config = Config { endpoints: vec![endpoint], owner: String::new() };
    let error = spawn(config, blobs, &supervisor.tasks()).map(drop).unwrap_err();
    assert!(error.to_string().contains("[[comfyui]]"), "{error}");
}
