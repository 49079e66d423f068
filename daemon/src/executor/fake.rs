//! A scripted backend for tests of whatever stands on the executor.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::{Failure, FailureClass, ModelName};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::graph::Graph;
use super::{Backend, DeviceReading, Freed, Inventory, Outcome, Probe, Reporter, Run, RunEnd, Verdict};

/// What a run does, step by step. A script that ends without [`Step::End`] succeeds with no outputs.
#[derive(Clone, Debug)]
pub enum Step {
    Start,
    Progress {
        step: u32,
        max: u32,
    },
    Preview(bytes::Bytes),
    /// Waits for [`FakeBackend::release`].
    Hold,
    /// Waits until it is cancelled.
    Hang,
    End(Box<Outcome>),
}

/// A backend whose probes and runs are scripted from outside. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct FakeBackend {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    probe: Result<Probe, String>,
    scripts: VecDeque<Vec<Step>>,
    seen: Vec<(TaskId, u32)>,
    freed: usize,
}

impl FakeBackend {
    /// Ready, with these classes and models.
    pub fn ready(classes: &[&str], models: Vec<ModelName>) -> Self {
        let classes = classes.iter().map(ToString::to_string).collect();
        let vram = Some(24_576);
        let device =
            DeviceReading { name: "fake".into(), kind: "cuda".into(), vram_mib: vram, vram_free_mib: vram };
        let probe = Probe {
            inventory: Arc::new(Inventory::of(classes, models)),
            warm: Vec::new(),
            devices: vec![device],
            comfyui_version: "fake".into(),
            hygiene: Hygiene::Full,
            others_queued: 0,
        };
        let state = State { probe: Ok(probe), scripts: VecDeque::new(), seen: Vec::new(), freed: 0 };
        Self { state: Arc::new(Mutex::new(state)), released: Arc::new(Notify::new()) }
    }

    /// What the next probes say.
    pub fn set_probe(&self, probe: Result<Probe, String>) {
        self.with(|state| state.probe = probe);
    }

    /// Queues what the next run without a script of its own does.
    pub fn script(&self, steps: Vec<Step>) {
        self.with(|state| state.scripts.push_back(steps));
    }

    /// Lets one [`Step::Hold`] go on.
    pub fn release(&self) {
        self.released.notify_one();
    }

    /// The runs so far.
    pub fn seen(&self) -> Vec<(TaskId, u32)> {
        self.with(|state| state.seen.clone())
    }

    /// How often its memory was asked back.
    pub fn freed(&self) -> usize {
        self.with(|state| state.freed)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn play(&self, steps: Vec<Step>, run: &Run, report: &Reporter) -> Outcome {
        let nodes =
            Graph::parse(&run.graph).map_or(0, |graph| u32::try_from(graph.len()).unwrap_or(u32::MAX));
        for step in steps {
            match step {
                Step::Start => report.started().await,
                Step::Progress { step, max } => report.progress("1".into(), (step, max), (0, nodes)),
                Step::Preview(bytes) => report.preview("image/png", bytes),
                Step::Hold => self.released.notified().await,
                Step::Hang => std::future::pending().await,
                Step::End(outcome) => return *outcome,
            }
        }
        Outcome::Done { outputs: Vec::new(), exec_ms: 1 }
    }
}

impl Backend for FakeBackend {
    fn url(&self) -> String {
        "fake:".into()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<Probe, String>> {
        let probe = self.with(|state| state.probe.clone());
        async move { probe }.boxed()
    }

    fn free(&mut self) -> BoxFuture<'_, Freed> {
        self.with(|state| state.freed += 1);
        async { Freed::of(Verdict::Freed) }.boxed()
    }

    fn run<'a>(
        &'a mut self,
        run: &'a Run,
        report: &'a Reporter,
        stop: CancellationToken,
    ) -> BoxFuture<'a, RunEnd> {
        let steps = self.with(|state| {
            state.seen.push((run.task, run.attempt));
            state.scripts.pop_front().unwrap_or_else(|| vec![Step::Start])
        });
        async move {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Failed(Failure::new(FailureClass::Cancelled, "cancelled")),
                outcome = self.play(steps, run, report) => outcome,
            };
            RunEnd::from(outcome)
        }
        .boxed()
    }
}
