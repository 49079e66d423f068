//! What is shown to people and not written down: logs, the latest previews, and news for whoever watches.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use scenemesh_protocol::ids::{JobId, TaskId};
use scenemesh_protocol::lease::Preview;
use tokio::sync::broadcast;

use crate::scheduler::view::{JobEvent, LogLine};

/// Lines kept of one task.
const LINES: usize = 200;
/// Room is made for so many more.
const LINES_AT_ONCE: usize = 4;
/// Tasks whose lines are kept; the oldest go first.
const TASKS: usize = 20_000;
/// Previews kept; each is at most a quarter of a megabyte.
const PREVIEWS: usize = 64;

#[derive(Debug)]
pub(super) struct Board {
    logs: HashMap<TaskId, VecDeque<LogLine>>,
    order: VecDeque<TaskId>,
    previews: BTreeMap<TaskId, Arc<Preview>>,
    preview_order: VecDeque<TaskId>,
    /// Tasks to tell about when the step is done: each once.
    pub(super) changed: BTreeSet<TaskId>,
    pub(super) moved: BTreeSet<TaskId>,
    pub(super) news: broadcast::Sender<JobEvent>,
}

impl Board {
    pub(super) fn new(news: broadcast::Sender<JobEvent>) -> Self {
        Self {
            logs: HashMap::new(),
            order: VecDeque::new(),
            previews: BTreeMap::new(),
            preview_order: VecDeque::new(),
            changed: BTreeSet::new(),
            moved: BTreeSet::new(),
            news,
        }
    }

    pub(super) fn tell(&self, event: JobEvent) {
        // Nobody watching is the usual case.
        drop(self.news.send(event));
    }

    pub(super) fn log(&mut self, job: JobId, line: LogLine) {
        let lines = self.logs.entry(line.task).or_insert_with(|| {
            self.order.push_back(line.task);
            VecDeque::new()
        });
        if lines.len() == LINES {
            lines.pop_front();
        }
        if lines.len() == lines.capacity() {
            // Thousands of tasks are remembered with a dozen lines each: not twice as many as there are.
            lines.reserve_exact(LINES_AT_ONCE);
        }
        lines.push_back(line.clone());
        if self.order.len() > TASKS
            && let Some(oldest) = self.order.pop_front()
        {
            self.logs.remove(&oldest);
        }
        self.tell(JobEvent::Log { job, line });
    }

    /// Nothing of a job is remembered any more.
    pub(super) fn forget(&mut self, job: JobId, tasks: &[TaskId]) {
        for task in tasks {
            self.logs.remove(task);
            self.previews.remove(task);
            self.changed.remove(task);
            self.moved.remove(task);
        }
        let gone: BTreeSet<&TaskId> = tasks.iter().collect();
        self.order.retain(|task| !gone.contains(task));
        self.preview_order.retain(|task| !gone.contains(task));
        self.tell(JobEvent::Job { job });
    }

    pub(super) fn lines(&self, task: TaskId) -> impl Iterator<Item = &LogLine> {
        self.logs.get(&task).into_iter().flatten()
    }

    pub(super) fn set_preview(&mut self, job: JobId, task: TaskId, preview: Preview) {
        if self.previews.insert(task, Arc::new(preview)).is_none() {
            self.preview_order.push_back(task);
        }
        if self.preview_order.len() > PREVIEWS
            && let Some(oldest) = self.preview_order.pop_front()
        {
            self.previews.remove(&oldest);
        }
        self.tell(JobEvent::Preview { job, task });
    }

    pub(super) fn preview(&self, task: TaskId) -> Option<Arc<Preview>> {
        self.previews.get(&task).cloned()
    }
}
