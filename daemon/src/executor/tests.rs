//! The executor through its own door: against a scripted backend, against a ComfyUI that misbehaves, and against a
//! real one where there is one.

use std::time::Duration;

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::{Failure, InputFile, OutputFile};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::supervisor::Supervisor;

mod door;
mod greedy;
mod real;
mod stub;
mod traps;
mod wipes;

/// A running executor with its blobs and events.
struct Bench {
    supervisor: Supervisor,
    executor: Executor,
    events: mpsc::Receiver<Event>,
    blobs: Blobs,
    /// Tests share a ComfyUI; each has its own mark there.
    owner: String,
    _dir: tempfile::TempDir,
}

/// All events of an attempt, by kind.
#[derive(Debug)]
struct Story {
    started: usize,
    /// Node, step, max, nodes done, nodes in all.
    progress: Vec<(String, u32, u32, u32, u32)>,
    previews: Vec<(&'static str, bytes::Bytes)>,
    outcome: Outcome,
    wipe: Option<Wipe>,
}

impl Bench {
    async fn attached(endpoint: EndpointConfig) -> Self {
        Self::on(Supervisor::new(Duration::from_secs(20)), endpoint).await
    }

    async fn on(supervisor: Supervisor, endpoint: EndpointConfig) -> Self {
        Self::owned_by(format!("tester{}", TaskId::random().short()), supervisor, endpoint).await
    }

    async fn owned_by(owner: String, supervisor: Supervisor, endpoint: EndpointConfig) -> Self {
        let (blobs, dir) = blobs(&supervisor).await;
        let config = Config { endpoints: vec![endpoint], owner: owner.clone() };
        let (executor, events) = spawn(config, blobs.clone(), &supervisor.tasks()).unwrap();
        Self { supervisor, executor, events, blobs, owner, _dir: dir }
    }

    async fn scripted(backends: Vec<Box<dyn Backend>>) -> Self {
        let supervisor = Supervisor::new(Duration::from_secs(20));
        let (blobs, dir) = blobs(&supervisor).await;
        let (executor, events) = spawn_with(backends, &supervisor.tasks());
        Self { supervisor, executor, events, blobs, owner: String::new(), _dir: dir }
    }

    async fn until(&self, fact: impl Fn(&SlotView) -> bool) -> SlotView {
        let mut slots = self.executor.slots();
        let views =
            tokio::time::timeout(Duration::from_mins(2), slots.wait_for(|views| fact(&views[0]))).await;
        views.expect("the slot gets there").unwrap()[0].clone()
    }

    /// Waits until something is so after a probe.
    async fn until_probed(&self, fact: impl Fn() -> bool) {
        let mut slots = self.executor.slots();
        while !fact() {
            let probed = tokio::time::timeout(Duration::from_mins(2), slots.changed()).await;
            probed.expect("the slot is probed").unwrap();
        }
    }

    async fn ready(&self) -> SlotView {
        self.until(|view| view.state == SlotState::Ready).await
    }

    async fn not_ready(&self) -> String {
        let view = self.until(|view| matches!(view.state, SlotState::NotReady { .. })).await;
        let SlotState::NotReady { why } = view.state else { unreachable!() };
        why
    }

    async fn seal(&self, name: &str, bytes: &[u8]) -> InputFile {
        let mut sealer = self.blobs.seal();
        sealer.write(bytes).await.unwrap();
        let sealed = sealer.finish().await.unwrap();
        InputFile { name: name.into(), root: sealed.root, key: sealed.key.clone(), bytes: sealed.bytes }
    }

    async fn open(&self, output: &OutputFile) -> Vec<u8> {
        let mut opener = self.blobs.open(output.root, &output.key).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = opener.next().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_mins(3), self.events.recv()).await;
        event.expect("an event comes").expect("the executor lives")
    }

    /// The rest of an attempt's story.
    async fn story(&mut self) -> Story {
        let (mut started, mut progress, mut previews) = (0, Vec::new(), Vec::new());
        loop {
            match self.next().await {
                Event::Started { .. } => started += 1,
                Event::Progress { node, step, max, nodes_done, nodes_total, .. } => {
                    progress.push((node, step, max, nodes_done, nodes_total));
                }
                Event::Preview { format, bytes, .. } => previews.push((format, bytes)),
                Event::Ended { outcome, wipe, .. } => {
                    return Story { started, progress, previews, outcome, wipe };
                }
            }
        }
    }

    async fn perform(&mut self, run: Run) -> Story {
        self.executor.run(run).await.unwrap();
        self.story().await
    }

    async fn stop(self) {
        self.supervisor.run_until(std::future::ready(())).await.unwrap();
    }
}

impl Story {
    fn done(self) -> (Vec<OutputFile>, Vec<WipeCount>) {
        match self.outcome {
            Outcome::Done { outputs, .. } => (outputs, self.wipe.expect("it was in ComfyUI").left),
            Outcome::Failed(failure) => panic!("failed: {failure}"),
        }
    }

    fn failed(self) -> Failure {
        match self.outcome {
            Outcome::Failed(failure) => failure,
            Outcome::Done { .. } => panic!("it should have failed"),
        }
    }
}

async fn blobs(supervisor: &Supervisor) -> (Blobs, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::store::Config { reserve: 0, ..crate::store::Config::at(dir.path()) };
    let (store, _) = crate::store::open(&config, &supervisor.tasks()).await.unwrap();
    (store.blobs, dir)
}

fn run_of(graph: &Value) -> Run {
    Run {
        slot: SlotId(0),
        task: TaskId::random(),
        attempt: 1,
        graph: serde_json::to_vec(graph).unwrap().into(),
        extra_data: zeroize::Zeroizing::default(),
        inputs: Vec::new(),
        previews: false,
        full_hygiene: false,
        fresh: false,
        time_limit: Duration::from_mins(5),
        rules: Rules { policy: tokio::sync::watch::channel(Arc::default()).1, whose: Whose::OwnMachine },
        most_output_bytes: 64 << 20,
    }
}
