//! Performing smoke renders: this node's own small prompt on one of its slots, and a look at what came of it.

use std::time::Duration;

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::OutputFile;
use zeroize::Zeroizing;

use super::{Actor, Inbound};
use crate::executor::Run;
use crate::scheduler::conversation::AttemptKey;
use crate::scheduler::{renderer, smoke};

/// It takes a second; a machine that needs longer is not well.
const TIME_LIMIT: Duration = Duration::from_mins(2);
/// Room for one small picture.
const OUTPUT_BYTES: u64 = 1 << 20;

fn answer(task: TaskId, result: Result<(), String>) -> Inbound {
    Inbound::Renderer(renderer::Input::Smoked { task, result })
}

impl Actor {
    /// Gives the render to a slot. How it ends is heard from the executor; an answer here is that it did not begin.
    pub(super) fn smoke(&mut self, task: TaskId, slot: &str) {
        let view = self.picture.slots.iter().find(|view| view.url == slot);
        let Some(view) = view else {
            let gone = Err("its ComfyUI is not configured any more".to_owned());
            return self.inside.push_back(answer(task, gone));
        };
        let Some(graph) = smoke::graph(&view.inventory) else {
            let bare = Err("its ComfyUI lacks EmptyImage or SaveImage".to_owned());
            return self.inside.push_back(answer(task, bare));
        };
        let run = Run {
            slot: view.slot,
            task,
            attempt: renderer::SMOKE_ATTEMPT,
            graph: Zeroizing::new(graph),
            extra_data: Zeroizing::default(),
            inputs: Vec::new(),
            previews: false,
            full_hygiene: false,
            fresh: false,
            time_limit: TIME_LIMIT,
            most_output_bytes: OUTPUT_BYTES,
            rules: self.rules(AttemptKey { from: self.id, task, attempt: renderer::SMOKE_ATTEMPT }),
        };
        let executor = self.ports.executor.clone();
        self.errand("start a smoke render", async move {
            let refused = executor.run(run).await.err()?;
            Some(answer(task, Err(refused.to_string())))
        });
    }

    /// Looks at what came of it.
    pub(super) fn look_at_smoke(&self, task: TaskId, outputs: Vec<OutputFile>) {
        let (looking, blobs) = (self.looking.clone(), self.ports.store.blobs.clone());
        self.errand("look at a smoke render", async move {
            Some(answer(task, looking.judge(&outputs, &blobs).await))
        });
    }
}
