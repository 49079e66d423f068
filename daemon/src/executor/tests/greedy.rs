//! Runs against a ComfyUI, or nodes in it, that would take all there is: memory, disk, time.

use futures::FutureExt;
use futures::future::BoxFuture;
use scenemesh_protocol::task::FailureClass;
use serde_json::json;

use super::stub::Stub;
use super::*;
use crate::executor::comfyui::testing;

async fn against(
    on_prompt: impl Fn(Stub, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> (Bench, Stub) {
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), on_prompt).await;
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    (Bench::on(supervisor, endpoint).await, stub)
}

#[tokio::test]
async fn results_over_the_limit_fail_the_task_in_words_and_leave_nothing() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.run(&id);
            stub.finish(&id);
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let failure = bench.perform(Run { most_output_bytes: 5, ..run_of(&testing::ksampler()) }).await.failed();
    assert_eq!(failure.class, FailureClass::DiskFull);
    assert!(failure.detail.contains("limits.output_bytes"), "{failure}");
    assert_eq!(bench.blobs.used_bytes(), 0, "what was sealed until then is gone");
    bench.stop().await;
}

#[tokio::test]
async fn frames_without_sense_or_end_do_not_keep_a_run_from_its_end() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            for n in 0..2000_u32 {
                let nodes: serde_json::Map<String, Value> =
                    (0..50).map(|k| (format!("{n}.{k}"), json!({"state": "finished"}))).collect();
                stub.frame("progress_state", json!({"prompt_id": id, "nodes": nodes}));
                stub.frame(
                    "executed",
                    json!({"prompt_id": id, "node": n.to_string(), "output": {"text": ["x"]}}),
                );
            }
            stub.finish(&id);
            stub.frame("execution_success", json!({"prompt_id": id}));
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let story = bench.perform(run_of(&testing::ksampler())).await;
    assert!(matches!(story.outcome, Outcome::Done { .. }), "it is done");
    bench.stop().await;
}
