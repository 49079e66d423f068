//! Progress for logs and pipes: a line when something happens, and now and then while nothing does.

use std::collections::BTreeMap;
use std::time::Duration;

use scenemesh_protocol::api::{JobView, TaskState, TaskView};
use tokio::time::Instant;

use crate::job_view;
use crate::messages::{Lang, Message};
use crate::ui::clip;

/// At most one line of progress per task in this time.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Jobs with more tasks than this get one line for all.
const MOST_TASKS: usize = 20;

/// What has been said already.
#[derive(Debug, Default)]
pub(super) struct Lines {
    tasks: BTreeMap<u32, Said>,
    summary: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct Said {
    state: TaskState,
    node: Option<String>,
    attempts: u32,
    waiting: Option<String>,
    percent: u32,
    at: Instant,
}

impl Lines {
    pub(super) fn note(&mut self, now: Instant, job: &JobView, lang: Lang) -> Vec<Message> {
        let few = job.tasks.len() <= MOST_TASKS;
        let mut messages = Vec::new();
        for task in &job.tasks {
            if let Some(message) = self.note_task(now, task, lang)
                && (few || task.state == TaskState::Failed)
            {
                messages.push(message);
            }
        }
        if !few {
            messages.extend(self.note_all(now, job));
        }
        messages
    }

    fn note_task(&mut self, now: Instant, task: &TaskView, lang: Lang) -> Option<Message> {
        let percent = task.progress.as_ref().map_or(0, job_view::percent);
        let node = task.node.as_ref().map(|node| node.name.clone());
        let fresh = Said {
            state: task.state,
            node: node.clone(),
            attempts: task.attempts,
            waiting: task.waiting.clone(),
            percent,
            at: now,
        };
        let Some(said) = self.tasks.get_mut(&task.index) else {
            self.tasks.insert(task.index, fresh);
            return told(task);
        };
        let changed = said.state != fresh.state
            || (said.node != fresh.node && fresh.node.is_some())
            || said.attempts != fresh.attempts
            || (said.waiting != fresh.waiting && fresh.waiting.is_some());
        if changed {
            *said = fresh;
            return told(task);
        }
        let progress = task.progress.as_ref().filter(|_| task.state == TaskState::Running)?;
        if percent == said.percent || now.duration_since(said.at) < PROGRESS_EVERY {
            return None;
        }
        *said = fresh;
        Some(Message::TaskProgress {
            index: task.index,
            node: node.unwrap_or_default(),
            percent,
            at: job_view::progress(progress, lang),
        })
    }

    fn note_all(&mut self, now: Instant, job: &JobView) -> Option<Message> {
        let ended = job.tasks.iter().filter(|task| task.state.is_final()).count();
        let due = self.summary.is_none_or(|(said, at)| {
            said != ended && (now.duration_since(at) >= PROGRESS_EVERY || ended == job.tasks.len())
        });
        if !due {
            return None;
        }
        self.summary = Some((ended, now));
        let running = job.tasks.iter().filter(|task| task.state == TaskState::Running).count();
        Some(Message::JobProgress { ended, total: job.tasks.len(), running })
    }
}

fn told(task: &TaskView) -> Option<Message> {
    let index = task.index;
    let node = task.node.as_ref().map(|node| node.name.clone()).unwrap_or_default();
    match task.state {
        TaskState::Queued => {
            task.waiting.clone().map(|why| Message::TaskWaits { index, why: clip(&why, 400) })
        }
        TaskState::Granted => Some(Message::TaskGranted { index, node }),
        TaskState::Running => Some(Message::TaskRuns { index, node }),
        TaskState::Fetching => None,
        TaskState::Done | TaskState::Failed | TaskState::Cancelled => Some(ended(task)),
    }
}

/// How a task ended.
pub(super) fn ended(task: &TaskView) -> Message {
    let index = task.index;
    let node = task.node.as_ref().map(|node| node.name.clone()).unwrap_or_default();
    match task.state {
        TaskState::Done => Message::TaskDone {
            index,
            node,
            took: task.usage.exec_ms.map(crate::human::span_ms).unwrap_or_default(),
        },
        TaskState::Failed => Message::TaskFailed { index, why: last_failure(task) },
        TaskState::Cancelled => Message::TaskCancelled { index },
        _ => Message::TaskGivenUp { index, node },
    }
}

/// `node: class: detail` of the last failure.
pub(crate) fn last_failure(task: &TaskView) -> String {
    task.failures.last().map_or_else(|| "?".into(), job_view::failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenemesh_protocol::api::ProgressView;

    fn job(tasks: &[(&str, u32)]) -> JobView {
        let task = |(index, (state, step)): (usize, &(&str, u32))| {
            let task = serde_json::json!({
                "task": format!("{index:032x}"), "short": "0", "index": index, "state": state, "node": null,
                "attempts": 1, "progress": null, "outputs": [], "failures": [],
                "usage": { "exec_ms": null, "rgs_milli": null }, "waiting": null,
            });
            let mut task: TaskView = serde_json::from_value(task).unwrap();
            task.progress = Some(ProgressView { step: *step, max: 100, ..ProgressView::default() });
            task
        };
        let job = serde_json::json!({
            "job": "00000000000000000000000000000000", "short": "0", "label": "", "state": "running",
            "class": "normal", "reach": "pool", "created_ms": 0, "tasks": [],
        });
        let job: JobView = serde_json::from_value(job).unwrap();
        JobView { tasks: tasks.iter().enumerate().map(task).collect(), ..job }
    }

    #[test]
    fn progress_is_told_now_and_then() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let mut told = |after: u64, step| {
            lines.note(start + Duration::from_secs(after), &job(&[("running", step)]), Lang::En).len()
        };
        assert_eq!(told(0, 0), 1, "it runs");
        assert_eq!((1..10).map(|second| told(second, u32::try_from(second).unwrap())).sum::<usize>(), 0);
        assert_eq!(told(10, 10), 1);
        assert_eq!(told(30, 10), 0, "nothing moved");
        assert_eq!(told(31, 11), 1);
    }

    #[test]
    fn many_tasks_share_a_line() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let mut told = 0;
        for done in 0..=100 {
            let tasks: Vec<_> =
                (0..100).map(|i| if i < done { ("done", 0) } else { ("running", 0) }).collect();
            told += lines.note(start + Duration::from_secs(done), &job(&tasks), Lang::En).len();
        }
        assert_eq!(told, 11, "one at the beginning, then every ten seconds of a hundred");
    }
}
