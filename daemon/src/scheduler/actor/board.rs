//! What is shown to people and not written down: logs, the latest previews, and news for whoever watches.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::{JobId, TaskId};
use scenemesh_protocol::lease::Preview;
use tokio::sync::broadcast;

use crate::scheduler::story::Line;
use crate::scheduler::view::{JobEvent, LogLine};

/// Lines kept of one task.
const LINES: usize = 200;
/// Room is made for so many more bytes, about four lines.
const ROOM: usize = 64;
/// Tasks whose lines are kept; the oldest go first.
const TASKS: usize = 20_000;
/// Previews kept; each is at most a quarter of a megabyte.
const PREVIEWS: usize = 64;

/// The lines of one task, one after the other and encoded: thousands of tasks are remembered with a dozen each, and read
/// hardly ever.
#[derive(Debug, Default)]
struct Told {
    /// Index of the task within its job.
    index: u32,
    count: usize,
    encoded: Vec<u8>,
}

impl Told {
    fn push(&mut self, at_ms: u64, line: &Line) {
        if self.count == LINES {
            let first = read(&self.encoded).map_or(self.encoded.len(), |(_, bytes)| bytes);
            self.encoded.drain(..first);
            self.count -= 1;
        }
        let line = codec::encode_tight(&(at_ms, line));
        if self.encoded.capacity() - self.encoded.len() < line.len() {
            self.encoded.reserve_exact(line.len().max(ROOM));
        }
        self.encoded.extend_from_slice(&line);
        self.count += 1;
    }

    fn lines(&self) -> impl Iterator<Item = (u64, Line)> {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || {
            let (line, bytes) = read(rest)?;
            rest = &rest[bytes..];
            Some(line)
        })
    }
}

/// The first line, and how many bytes it takes.
fn read(encoded: &[u8]) -> Option<((u64, Line), usize)> {
    codec::first_tight(encoded)
}

#[derive(Debug)]
pub(super) struct Board {
    logs: HashMap<TaskId, Told>,
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
        let told = self.logs.entry(line.task).or_insert_with(|| {
            self.order.push_back(line.task);
            Told { index: line.index, ..Told::default() }
        });
        told.push(line.at_ms, &line.line);
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

    pub(super) fn lines(&self, task: TaskId) -> impl Iterator<Item = LogLine> {
        let told = self.logs.get(&task);
        told.into_iter().flat_map(move |told| {
            told.lines().map(move |(at_ms, line)| LogLine { at_ms, task, index: told.index, line })
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::story::Doing;

    #[test]
    fn the_last_lines_of_a_task_are_told_as_they_were() {
        let mut board = Board::new(broadcast::channel(1).0);
        let (job, task) = (JobId::from_bytes([1; 16]), TaskId::from_bytes([2; 16]));
        let line = |at: u32| {
            let doing = Doing::Steps { graph_node: "3".into(), step: at, max: 1000 };
            LogLine {
                at_ms: u64::from(at),
                task,
                index: 7,
                line: Line::Doing { node: "amber".into(), doing },
            }
        };
        for at in 0..(LINES as u32 + 50) {
            board.log(job, line(at));
        }
        let told: Vec<LogLine> = board.lines(task).collect();
        let wanted: Vec<LogLine> = (50..LINES as u32 + 50).map(line).collect();
        assert_eq!(told, wanted);
        board.forget(job, &[task]);
        assert_eq!(board.lines(task).count(), 0);
    }
}
