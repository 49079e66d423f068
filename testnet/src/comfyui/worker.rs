//! The one worker: takes prompts from the queue, one after the other, and keeps what they leave for the next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::log::LogEvent;
use super::machine::Machine;
use super::nodes::Product;
use super::picture::Seed;
use super::run::run;

/// What the worker keeps between prompts.
#[derive(Debug, Default)]
pub(super) struct Bench {
    pub(super) cache: HashMap<Seed, Cached>,
    /// Models on the GPU, the longest unused first.
    pub(super) warm: VecDeque<String>,
    /// Makes the key of a node that never repeats.
    pub(super) fresh: u64,
}

#[derive(Debug)]
pub(super) struct Cached {
    pub(super) product: Product,
    pub(super) meta: Value,
}

/// Runs until the power is cut.
pub(super) async fn work(machine: Arc<Machine>) {
    let mut bench = Bench::default();
    loop {
        while let Some(item) = machine.take() {
            run(&machine, &mut bench, item).await;
            if machine.power.is_cancelled() {
                return;
            }
            free(&machine, &mut bench);
        }
        free(&machine, &mut bench);
        if machine.queue(|queue| queue.is_idle()) {
            tokio::select! {
                () = machine.wake.notified() => {}
                () = machine.power.cancelled() => return,
            }
        }
    }
}

/// Does what `/free` asked for; it waits for the running prompt, as in the real one.
fn free(machine: &Machine, bench: &mut Bench) {
    let (unload, free) = machine
        .queue(|queue| (std::mem::take(&mut queue.unload_models), std::mem::take(&mut queue.free_memory)));
    if unload || free {
        bench.warm.clear();
        machine.hold(0);
    }
    if free {
        bench.cache.clear();
        machine.log.write(None, None, LogEvent::Freed);
    }
}

impl Bench {
    /// What a node gave before, if it is still there.
    pub(super) fn cached(&self, keys: &HashMap<String, Seed>, id: &str) -> Option<&Cached> {
        self.cache.get(keys.get(id)?)
    }

    /// Notes the use of a model; whether it was cold.
    pub(super) fn warm_up(&mut self, model: &str, most: usize) -> bool {
        let at = self.warm.iter().position(|warm| warm == model);
        if let Some(at) = at {
            self.warm.remove(at);
        }
        self.warm.push_back(model.to_owned());
        while self.warm.len() > most.max(1) {
            self.warm.pop_front();
        }
        at.is_none()
    }
}
