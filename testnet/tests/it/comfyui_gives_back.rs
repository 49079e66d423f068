//! What an executor of the daemon does with a ComfyUI whose GPU is wanted back, in each phase of a render: the prompt
//! is interrupted, nothing of it is left, and the memory is seen to be free.

use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::receipt::Wiped;
use scenemesh_testnet::comfyui::{LogEvent, LogLine, Options, Simulated};
use scenemesh_testnet::workflows;
use scenemeshd::executor::policy::Whose;
use scenemeshd::executor::{
    self, EndpointConfig, Event, Executor, Freed, Outcome, Rules, Run, SlotId, SlotState, Verdict,
};
use scenemeshd::store;
use scenemeshd::supervisor::Supervisor;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

const MODEL: &str = "tiny_sd15.safetensors";
const SOON: Duration = Duration::from_secs(30);

/// A machine whose phases are long enough to be met.
fn slow() -> Options {
    Options { load_ms: 700, step_ms: 40, decode_ms: 700, ..Options::default() }
}

struct Bench {
    comfy: Simulated,
    executor: Executor,
    events: mpsc::Receiver<Event>,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(options: Options) -> Self {
        let comfy = Simulated::start(options).await.unwrap();
        let supervisor = Supervisor::new(Duration::from_secs(10));
        let dir = tempfile::tempdir().unwrap();
        let config = store::Config { reserve: 0, ..store::Config::at(dir.path()) };
        let (store, _) = store::open(&config, &supervisor.tasks()).await.unwrap();
        let endpoint = EndpointConfig { url: comfy.url(), ..EndpointConfig::default() };
        let config = executor::Config { endpoints: vec![endpoint], owner: "tester".into() };
        let (executor, events) = executor::spawn(config, store.blobs, &supervisor.tasks()).unwrap();
        let mut slots = executor.slots();
        let ready = slots.wait_for(|views| views[0].state == SlotState::Ready);
        drop(tokio::time::timeout(SOON, ready).await.expect("it becomes ready").unwrap());
        Self { comfy, executor, events, supervisor, _dir: dir }
    }

    async fn begin(&self, graph: &Value) -> TaskId {
        let run = Run {
            slot: SlotId(0),
            task: TaskId::random(),
            attempt: 1,
            graph: serde_json::to_vec(graph).unwrap().into(),
            extra_data: Vec::new().into(),
            inputs: Vec::new(),
            previews: false,
            full_hygiene: false,
            fresh: false,
            time_limit: Duration::from_mins(5),
            most_output_bytes: 64 << 20,
            rules: Rules { policy: watch::channel(Arc::default()).1, whose: Whose::Others },
        };
        let task = run.task;
        self.executor.run(run).await.unwrap();
        task
    }

    async fn reaches(&self, phase: impl Fn(&LogEvent) -> bool) {
        let any = |lines: &[LogLine]| lines.iter().any(|line| phase(&line.event));
        tokio::time::timeout(SOON, self.comfy.log().until(any)).await.expect("it comes so far");
    }

    async fn ended(&mut self) -> (Outcome, Option<executor::Wipe>) {
        loop {
            let event = tokio::time::timeout(SOON, self.events.recv()).await.expect("it ends").unwrap();
            if let Event::Ended { outcome, wipe, .. } = event {
                return (outcome, wipe);
            }
        }
    }

    async fn free(&self) -> Freed {
        tokio::time::timeout(SOON, self.executor.free(SlotId(0))).await.expect("it answers")
    }

    async fn stop(self) {
        self.supervisor.run_until(std::future::ready(())).await.unwrap();
        self.comfy.stop().await;
    }
}

async fn given_back(phase: fn(&LogEvent) -> bool) {
    let mut bench = Bench::new(slow()).await;
    let task = bench.begin(&workflows::keyframe(MODEL, 5, 20, 64)).await;
    bench.reaches(phase).await;
    bench.executor.cancel(task, 1).await;
    let (outcome, wipe) = bench.ended().await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let wipe = wipe.expect("it was in ComfyUI");
    assert_eq!((wipe.wiped(Wiped::History), wipe.left.len()), (1, 0), "{wipe:?}");
    let freed = bench.free().await;
    assert_eq!(freed.verdict, Verdict::Freed);
    let (before, after) = (freed.before.unwrap(), freed.after.unwrap());
    assert!(before.held_mib > 4096 && after.held_mib < 512, "{freed:?}");
    assert!(before.used_mib - after.used_mib >= 4096 && after.used_mib > 0, "{freed:?}");
    bench.stop().await;
}

#[tokio::test]
async fn while_a_model_loads() {
    given_back(|event| matches!(event, LogEvent::Loading { .. })).await;
}

#[tokio::test]
async fn while_it_samples() {
    given_back(|event| matches!(event, LogEvent::Step { step: 3, .. })).await;
}

#[tokio::test]
async fn while_it_decodes() {
    given_back(|event| matches!(event, LogEvent::Decoding)).await;
}

#[tokio::test]
async fn a_prompt_of_whoever_sits_there_keeps_its_models() {
    let bench = Bench::new(slow()).await;
    let theirs = json!({ "prompt": workflows::keyframe(MODEL, 6, 200, 64), "client_id": "browser" });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let posted = http.post(format!("{}/prompt", bench.comfy.url())).json(&theirs).send().await.unwrap();
    assert!(posted.status().is_success());
    bench.reaches(|event| matches!(event, LogEvent::Step { .. })).await;
    let freed = bench.free().await;
    assert_eq!(freed.verdict, Verdict::InUse);
    let unloaded = bench.comfy.log().lines().iter().any(|line| line.event == LogEvent::Freed);
    assert!(!unloaded, "it was not even asked");
    bench.stop().await;
}

#[tokio::test]
async fn memory_of_a_process_that_is_gone_is_free() {
    let bench = Bench::new(slow()).await;
    bench.comfy.set_faults(vec!["crash".parse().unwrap()]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let prompt = json!({ "prompt": workflows::tiny(1) });
    drop(http.post(format!("{}/prompt", bench.comfy.url())).json(&prompt).send().await);
    bench.comfy.ended().await;
    assert_eq!(bench.free().await.verdict, Verdict::NotRunning);
    bench.stop().await;
}
