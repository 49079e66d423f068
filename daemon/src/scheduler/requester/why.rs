//! What people are told: views of jobs and tasks, and one sentence for every state.

use std::fmt::Write as _;

use scenemesh_protocol::ids::{JobId, TaskId};
use scenemesh_protocol::lease::Progress;

use super::attempts::words;
use super::jobs::{AttemptState, Task, TaskState};
use super::offers::Place;
use super::{Requester, results};
use crate::scheduler::conversation::Now;
use crate::scheduler::placement::WhyNot;
use crate::scheduler::view::{JobState, JobView, TaskPhase, TaskView};

/// So many nodes are named in one sentence.
const NODES_NAMED: usize = 12;
/// Silence shorter than this is not worth a word.
const SILENT_S: u64 = 6;

impl Requester {
    pub fn job_view(&self, now: Now, id: JobId) -> Option<JobView> {
        let job = self.jobs.job(&id)?;
        let submission = &job.submission;
        // Tasks that only wait, wait for the same: a job can have thousands of them.
        let mut waiting: Option<String> = None;
        let mut view = |task: TaskId| {
            let known = self.jobs.task(&task)?;
            let plain = known.state == TaskState::Ready
                && known.failures.is_empty()
                && !self.promised.contains_key(&task);
            let why = if plain {
                waiting.get_or_insert_with(|| self.why_waiting(task, known)).clone()
            } else {
                self.why(now, task)?
            };
            self.task_view_with(task, why)
        };
        let tasks: Vec<TaskView> = submission.tasks.iter().filter_map(|plan| view(plan.task)).collect();
        Some(JobView {
            job: id,
            label: submission.label.clone(),
            person: submission.person.clone(),
            state: JobState::of(tasks.iter().map(|task| task.state)),
            class: submission.class,
            reach: submission.reach.clone(),
            created_ms: submission.created_ms,
            tasks,
        })
    }

    /// A job's state alone, without its tasks' views.
    pub fn job_state(&self, id: JobId) -> Option<JobState> {
        let job = self.jobs.job(&id)?;
        let ids = job.submission.tasks.iter().map(|plan| plan.task);
        let phases = ids.filter_map(|id| Some((id, self.jobs.task(&id)?)));
        Some(JobState::of(phases.map(|(id, task)| self.phase(id, task))))
    }

    pub fn task_view(&self, now: Now, id: TaskId) -> Option<TaskView> {
        self.task_view_with(id, self.why(now, id)?)
    }

    fn task_view_with(&self, id: TaskId, why: String) -> Option<TaskView> {
        let task = self.jobs.task(&id)?;
        let held = match task.state {
            TaskState::Held(attempt) => Some(attempt),
            _ => None,
        };
        let holder = held.and_then(|attempt| task.attempts.get(&attempt)).map(|attempt| attempt.node);
        let node = holder.or(task.result.as_ref().map(|result| result.node));
        let contact = held.and_then(|attempt| self.contacts.get(&(id, attempt)));
        let result = task.result.as_ref();
        Some(TaskView {
            task: id,
            job: task.job,
            index: task.index,
            state: self.phase(id, task),
            node,
            node_name: node.map(|node| self.name(node)).unwrap_or_default(),
            attempts: u32::try_from(task.attempts.len()).unwrap_or(u32::MAX),
            progress: contact.and_then(|contact| contact.progress.clone()),
            outputs: result.map(|result| result.outputs.clone()).unwrap_or_default(),
            failures: self.failures(task),
            exec_ms: result.map(|result| result.exec_ms),
            why,
            ended_ms: task.ended_ms,
        })
    }

    /// How far the renderer of a task is, by its last report.
    pub fn progress_of(&self, id: TaskId) -> Option<(JobId, Progress)> {
        let task = self.jobs.task(&id)?;
        let TaskState::Held(attempt) = task.state else { return None };
        Some((task.job, self.contacts.get(&(id, attempt))?.progress.clone()?))
    }

    fn failures(&self, task: &Task) -> Vec<(String, String)> {
        task.failures.iter().map(|(node, failure)| (self.name(*node), failure.to_string())).collect()
    }

    fn phase(&self, id: TaskId, task: &Task) -> TaskPhase {
        match task.state {
            TaskState::Ready => TaskPhase::Queued,
            TaskState::Done => TaskPhase::Done,
            TaskState::Failed => TaskPhase::Failed,
            TaskState::Cancelled => TaskPhase::Cancelled,
            TaskState::Held(attempt) => {
                let contact = self.contacts.get(&(id, attempt));
                if contact.is_some_and(|contact| contact.fetch.is_some()) {
                    return TaskPhase::Fetching;
                }
                let granted = task.attempts.get(&attempt);
                match granted.map(|attempt| &attempt.state) {
                    Some(AttemptState::Granted(_)) => TaskPhase::Granted,
                    _ => TaskPhase::Running,
                }
            }
        }
    }

    /// One sentence: why a task stands where it stands.
    pub fn why(&self, now: Now, id: TaskId) -> Option<String> {
        let task = self.jobs.task(&id)?;
        Some(match task.state {
            TaskState::Ready => self.why_waiting(id, task),
            TaskState::Held(attempt) => self.why_held(now, id, task, attempt),
            TaskState::Cancelled => "cancelled".to_owned(),
            TaskState::Done => task.result.as_ref().map_or_else(String::new, |result| {
                let seconds = std::time::Duration::from_millis(result.exec_ms).as_secs_f64();
                format!("done by {} in {seconds:.1} s", self.name(result.node))
            }),
            TaskState::Failed => {
                let all = self.failures(task);
                let reasons: Vec<String> =
                    all.iter().map(|(node, failure)| format!("{node}: {failure}")).collect();
                format!("failed: {}", reasons.join("; "))
            }
        })
    }

    fn why_held(&self, now: Now, id: TaskId, task: &Task, number: u32) -> String {
        let Some(attempt) = task.attempts.get(&number) else { return String::new() };
        let name = self.name(attempt.node);
        let Some(contact) = self.contacts.get(&(id, number)) else { return format!("with {name}") };
        let mut text = match (&contact.fetch, &attempt.state) {
            (Some(results::Fetch { trouble: Some(why), again: Some(_), .. }), _) => {
                format!("rendered by {name}; fetching the results broke off ({why}) and is tried again")
            }
            (Some(_), _) => format!("rendered by {name}; fetching the results"),
            (None, AttemptState::Granted(_)) => format!("granted to {name}, which has not answered yet"),
            (None, _) => match &contact.progress {
                Some(progress) => format!("{} on {name}", words(progress)),
                None => format!("accepted by {name}"),
            },
        };
        let silent = now.at.saturating_duration_since(contact.heard).as_secs();
        if silent >= SILENT_S && contact.fetch.is_none() {
            let _ = write!(text, "; silent for {silent} s");
        }
        text
    }

    fn why_waiting(&self, id: TaskId, task: &Task) -> String {
        if let Some(promise) = self.promised.get(&id) {
            return format!("claimed by {}, being sealed for it", self.name(promise.node));
        }
        let in_line: Vec<String> = self
            .reservations
            .get(&task.job)
            .into_iter()
            .flatten()
            .filter(|(node, _)| self.up.contains_key(*node))
            .map(|(node, reservation)| match reservation.place() {
                Place::Asked => format!("{} (asked)", self.name(*node)),
                Place::Waiting { position, eta_ms: None } => {
                    format!("{} ({position} ahead)", self.name(*node))
                }
                Place::Waiting { position, eta_ms: Some(eta) } => {
                    format!("{} ({position} ahead, about {} s)", self.name(*node), eta / 1000)
                }
            })
            .collect();
        if !in_line.is_empty() {
            return format!("waits for a free slot at {}", in_line.join(", "));
        }
        self.why_nobody(task)
    }

    fn why_nobody(&self, task: &Task) -> String {
        let Some(shape) = self.shape_of(task.job) else { return "waits".to_owned() };
        let outside = self.barred.get(&self.nodes.me);
        if self.nodes.nodes.is_empty() {
            return "no node is known: this machine has no ComfyUI and is in no pool yet".to_owned();
        }
        let mut reasons = Vec::new();
        for node in self.nodes.nodes.keys() {
            match self.may_take(task.job, &shape, *node) {
                Err(why) => reasons.push((why, *node)),
                Ok(()) => return "waits behind other jobs of this machine".to_owned(),
            }
        }
        // What is closest to working comes first: reach is a wall, a refusal passes.
        reasons.sort_by_key(|(why, _)| match why {
            WhyNot::SaidNo { .. } => 0,
            WhyNot::OutOfReach(_) => 2,
            _ => 1,
        });
        let more = reasons.len().saturating_sub(NODES_NAMED);
        let named: Vec<String> = reasons
            .iter()
            .take(NODES_NAMED)
            .map(|(why, node)| format!("{} {why}", self.name(*node)))
            .collect();
        let mut text = format!("no node takes it now: {}", named.join("; "));
        if let Some(words) = outside {
            text = format!("{words}, so that only this machine can take it: {}", named.join("; "));
        }
        if more > 0 {
            let _ = write!(text, "; and {more} more");
        }
        let missing = reasons.iter().find_map(|(why, _)| match why {
            WhyNot::LacksModels { first, .. } => Some(first),
            _ => None,
        });
        if let Some(model) = missing {
            let holders = self.nodes.holders(model);
            if !holders.is_empty() {
                let _ = write!(text, " ({model} is on {})", holders.join(", "));
            }
        }
        text
    }
}
