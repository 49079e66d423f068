//! One actor per slot: probes its backend, holds at most one run, publishes what the slot is doing.

use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::task::{Failure, FailureClass};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Backend, Command, Event, Executor, Freed, Inventory, Outcome, Reporter, Run, RunEnd, RunError, SlotId,
    SlotState, SlotView, Verdict,
};
use crate::supervisor::Tasks;

/// Time between probes of an idle slot. Two cheap requests; shorter would wake laptops for nothing.
const PROBE_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(3) };

/// How long a stopping node waits for its run to be interrupted and cleaned up. Below the supervisor's grace.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// Commands waiting for one slot: its run, and cancels that were sent to all slots.
const INBOX: usize = 32;

/// Events waiting for the scheduler. Progress and previews beyond it are dropped, everything else waits.
const EVENTS: usize = 256;

/// Room in that inbox which progress leaves for starts and endings: a scheduler that waits for one slot's answer
/// does not read, and no slot may wait for it meanwhile.
pub(super) const KEPT_FOR_ENDINGS: usize = 128;

type Views = Arc<watch::Sender<Arc<Vec<SlotView>>>>;

pub(super) fn spawn(backends: Vec<Box<dyn Backend>>, tasks: &Tasks) -> (Executor, mpsc::Receiver<Event>) {
    let (events, receiver) = mpsc::channel(EVENTS);
    let numbered = (0..=u16::MAX).map(SlotId).zip(backends);
    let (views, actors): (Vec<SlotView>, Vec<_>) =
        numbered.map(|(slot, backend)| (starting(slot, backend.url()), (slot, backend))).unzip();
    let (views, slots) = watch::channel(Arc::new(views));
    let views = Arc::new(views);
    let mut inboxes = Vec::new();
    for (slot, backend) in actors {
        let (inbox, commands) = mpsc::channel(INBOX);
        inboxes.push(inbox);
        let actor = Slot {
            slot,
            backend,
            views: views.clone(),
            events: events.clone(),
            state: SlotState::Starting,
            stopping: tasks.stopping(),
        };
        tasks.spawn("executor slot", async move {
            actor.live(commands).await;
            Ok(())
        });
    }
    (Executor { slots, inboxes: Arc::new(inboxes) }, receiver)
}

fn starting(slot: SlotId, url: String) -> SlotView {
    SlotView {
        slot,
        url,
        state: SlotState::Starting,
        inventory: Arc::new(Inventory::default()),
        warm: Vec::new(),
        devices: Vec::new(),
        comfyui_version: String::new(),
        hygiene: Hygiene::Partial,
        others_queued: 0,
    }
}

struct Slot {
    slot: SlotId,
    backend: Box<dyn Backend>,
    views: Views,
    events: mpsc::Sender<Event>,
    state: SlotState,
    stopping: CancellationToken,
}

impl Slot {
    async fn live(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut probe_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Cancel { task, attempt }) => {
                        self.backend.abandon(task, attempt);
                        probe_at = Instant::now();
                    }
                    Some(Command::Free { reply }) => {
                        let stopping = self.stopping.clone();
                        tokio::select! {
                            () = stopping.cancelled() => return,
                            freed = self.backend.free() => drop(reply.send(freed)),
                        }
                        probe_at = Instant::now();
                    }
                    Some(Command::Run { run, reply }) => {
                        let answer = self.admit();
                        let accepted = answer.is_ok();
                        // When the caller gave up waiting, nobody knows of this run: leave it.
                        if reply.send(answer).is_ok() && accepted {
                            self.perform(*run, &mut commands).await;
                            probe_at = Instant::now();
                        }
                    }
                },
                () = tokio::time::sleep_until(probe_at) => {
                    let stopping = self.stopping.clone();
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = self.probe() => {}
                    }
                    probe_at = Instant::now() + PROBE_EVERY;
                }
            }
        }
    }

    fn admit(&self) -> Result<(), RunError> {
        match &self.state {
            SlotState::Ready => Ok(()),
            SlotState::Busy { .. } => Err(RunError::Busy(self.slot)),
            SlotState::Starting => {
                Err(RunError::NotReady { slot: self.slot, why: "it has not answered yet".into() })
            }
            SlotState::NotReady { why } => Err(RunError::NotReady { slot: self.slot, why: why.clone() }),
        }
    }

    async fn probe(&mut self) {
        match self.backend.probe().await {
            Ok(probe) => {
                if self.state != SlotState::Ready {
                    tracing::info!(slot = self.slot.0, comfyui = %probe.comfyui_version, "ComfyUI is ready");
                }
                self.state = SlotState::Ready;
                self.publish(|view| {
                    view.inventory = probe.inventory;
                    view.warm = probe.warm;
                    view.devices = probe.devices;
                    view.comfyui_version = probe.comfyui_version;
                    view.hygiene = probe.hygiene;
                    view.others_queued = probe.others_queued;
                });
            }
            Err(why) => self.not_ready(why),
        }
    }

    fn not_ready(&mut self, why: String) {
        let state = SlotState::NotReady { why };
        if self.state != state {
            if let SlotState::NotReady { why } = &state {
                tracing::warn!(slot = self.slot.0, %why, "ComfyUI is not ready");
            }
            self.state = state;
            self.publish(|view| view.warm.clear());
        }
    }

    async fn perform(&mut self, run: Run, commands: &mut mpsc::Receiver<Command>) {
        let (task, attempt) = (run.task, run.attempt);
        self.state = SlotState::Busy { task, attempt };
        self.publish(|_| {});
        let reporter = Reporter { task, attempt, events: self.events.clone() };
        let stop = CancellationToken::new();
        // Dropping this future in any way also tells the run to stop.
        let _cancel_on_drop = stop.clone().drop_guard();
        let ended = {
            let mut running = self.backend.run(&run, &reporter, stop.clone());
            let mut give_up_at = None;
            loop {
                tokio::select! {
                    biased;
                    ended = &mut running => break Some(ended),
                    () = self.stopping.cancelled(), if give_up_at.is_none() => {
                        stop.cancel();
                        give_up_at = Some(Instant::now() + STOP_WITHIN);
                    }
                    () = tokio::time::sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => {
                        break None;
                    }
                    Some(command) = commands.recv() => match command {
                        Command::Cancel { task: t, attempt: a } if (t, a) == (task, attempt) => stop.cancel(),
                        Command::Cancel { .. } => {}
                        Command::Free { reply } => drop(reply.send(Freed::of(Verdict::InUse))),
                        Command::Run { run, reply } => {
                            let same = (run.task, run.attempt) == (task, attempt);
                            let answer = if same { Ok(()) } else { Err(RunError::Busy(self.slot)) };
                            drop(reply.send(answer));
                        }
                    },
                }
            }
        };
        let RunEnd { outcome, wipe } = ended.unwrap_or_else(|| {
            let words = "the node stopped before ComfyUI did";
            Outcome::Failed(Failure::new(FailureClass::Cancelled, words)).into()
        });
        match &outcome {
            Outcome::Failed(failure) if failure.class == FailureClass::ComfyuiDied => {
                self.not_ready(failure.detail.clone());
            }
            _ => self.state = SlotState::Ready,
        }
        self.publish(|_| {});
        drop(self.events.send(Event::Ended { task, attempt, outcome, wipe }).await);
    }

    fn publish(&self, change: impl FnOnce(&mut SlotView)) {
        self.views.send_modify(|views| {
            let views = Arc::make_mut(views);
            if let Some(view) = views.get_mut(usize::from(self.slot.0)) {
                view.state = self.state.clone();
                change(view);
            }
        });
    }
}
