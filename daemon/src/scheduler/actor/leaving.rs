//! Performing what lending and draining ask for: memory that is let go, and the end of the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{Actor, Inbound};
use crate::executor::{Freed, Verdict};
use crate::gpu::GpuReading;
use crate::scheduler::draining::{DrainWish, Draining};
use crate::scheduler::giving::Report;
use crate::scheduler::{Load, renderer};

/// How long a fresh reading of the GPUs may take; without one the last counts.
const FRESH: Duration = Duration::from_millis(500);

/// What the driver tells now. An unchanged reading is not published: then the last is as good.
async fn fresh(gpus: &mut watch::Receiver<Arc<Vec<GpuReading>>>, look: &Notify) -> Arc<Vec<GpuReading>> {
    gpus.mark_unchanged();
    look.notify_one();
    drop(tokio::time::timeout(FRESH, gpus.changed()).await);
    gpus.borrow().clone()
}

impl Actor {
    /// Has a slot's memory let go, and reads before and after what the driver tells of its GPU.
    pub(super) fn free_memory(&mut self, slot: String) {
        let Some(view) = self.picture.slots.iter().find(|view| view.url == slot) else {
            let why = "its ComfyUI is not configured any more".to_owned();
            let report = Report { freed: Freed::of(Verdict::Unknown { why }), driver: None };
            return self.inside.push_back(Inbound::Renderer(renderer::Input::Freed { slot, report }));
        };
        let (id, gpu) = (view.slot, self.picture.gpu_of(view));
        let (executor, look) = (self.ports.executor.clone(), self.ports.look_at_gpus.clone());
        let mut gpus = self.ports.gpus.clone();
        self.errand("free a GPU", async move {
            let used = |readings: &[GpuReading]| {
                let reading = readings.get(gpu?)?;
                Some(reading.vram_mib?.saturating_sub(reading.vram_free_mib?))
            };
            // The last reading may be from before the models came: it would miss that they go.
            let tells = used(&gpus.borrow()).is_some();
            let before = if tells { used(&fresh(&mut gpus, &look).await) } else { None };
            let freed = executor.free(id).await;
            let after = if tells { used(&fresh(&mut gpus, &look).await) } else { None };
            let driver = before.zip(after);
            let report = Report { freed, driver };
            Some(Inbound::Renderer(renderer::Input::Freed { slot, report }))
        });
    }

    pub(super) fn begin_to_drain(&mut self, wish: DrainWish) {
        self.draining = Draining::new(wish, self.now().at);
        self.feed(Inbound::Renderer(renderer::Input::Drain(wish.draining)));
        self.look();
    }

    /// Whether others' work goes back because the time for it is over.
    pub(super) fn is_late(&self) -> bool {
        self.draining.is_late(self.now().at)
    }

    pub(super) fn load(&self) -> Load {
        let now = self.now().at;
        let (slots_free, queue) = self.renderer.load();
        let wish = self.draining.wish();
        Load {
            slots_free,
            queue,
            draining: wish.draining,
            idle: self.renderer.is_idle(),
            held: self.renderer.holdings().all().count(),
            running: self.renderer.holdings().all().filter(|(_, held)| held.sealed.is_none()).count(),
            exits: wish.draining && wish.exit,
            // Whole seconds: watchers are not woken for less.
            left: self.draining.left(now).map(|left| Duration::from_secs(left.as_secs())),
            wanted_back: self.renderer.is_wanted_back(),
            parked: self.renderer.is_parked(),
        }
    }

    /// Ends the node when that was wanted and nothing is left.
    pub(super) fn end_when_drained(&self) {
        let held = self.renderer.holdings().all().count();
        if self.draining.is_over(self.now().at, held, self.renderer.is_idle())
            && !self.ports.exit.is_cancelled()
        {
            tracing::info!(held, "drained: the node ends");
            self.ports.exit.cancel();
        }
    }
}
