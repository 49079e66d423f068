//! When a task is over although fewer than three nodes have failed it: nobody else is there who could take it. And when
//! a node has failed so much of a job that it gets no more of it.

use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{JobId, NodeId, TaskId};

use super::Requester;
use super::jobs::{Task, TaskState};
use crate::scheduler::conversation::Now;
use crate::scheduler::placement::WhyNot;
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{Line, No};

/// A ComfyUI that is not ready is waited for so long: it may be starting.
const STARTING: Duration = Duration::from_mins(2);

/// A task that some node has failed and that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// Until when nodes whose ComfyUI is not ready are waited for; `None` once that is over.
    until: Option<Instant>,
}

impl Failed {
    pub(super) fn at(now: Instant) -> Self {
        Self { until: Some(now + STARTING) }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// So many tasks of one job that a node fails keep it away from the job.
const FAULTS: usize = 3;
/// As Afanasy has it (`errors_forgive_time`): whatever was broken may be mended by then.
const FORGIVEN_AFTER: Duration = Duration::from_hours(5);

impl Requester {
    /// Counts what a node fails of a job. A start forgets it: what is broken is soon found to be.
    pub(super) fn note_fault(&mut self, now: Now, task: TaskId, node: NodeId) {
        let Some(job) = self.jobs.task(&task).map(|known| known.job) else { return };
        let tasks = self.faults.entry((job, node)).or_default();
        tasks.insert(task);
        let tasks = tasks.len();
        if tasks >= FAULTS {
            self.refuse(now, job, node, No::FailedMany { tasks }, FORGIVEN_AFTER);
            self.faults.remove(&(job, node));
        }
    }

    /// Whoever tries again does so everywhere.
    pub(super) fn forgive(&mut self, job: JobId) {
        self.faults.retain(|(of, _), _| *of != job);
        self.refusals.retain(|(of, _), refusal| *of != job || !matches!(refusal.no, No::FailedMany { .. }));
    }

    /// Looks again at tasks for which long enough was waited.
    pub(super) fn end_waits(&mut self, now: Now) {
        for (task, failed) in &mut self.failed {
            if failed.until.take_if(|until| *until <= now.at).is_some() {
                self.dirty.extend(self.jobs.task(task).map(|known| known.job));
            }
        }
    }

    /// Ends the tasks of a job that failed, and for which no node is left. A node that is away, busy or does not take
    /// work now may still take them.
    pub(super) fn give_up(&mut self, now: Now, job: JobId) {
        if !self.sees_nodes {
            return;
        }
        let of_job = |task: &&TaskId| self.jobs.task(task).is_some_and(|known| known.job == job);
        let failed: Vec<TaskId> = self.failed.keys().filter(of_job).copied().collect();
        for task in failed {
            if self.may_grant(job) && self.is_hopeless(task) {
                self.commit(now, RequesterRecord::GivenUp { task, at_ms: now.wall_ms });
                self.log(task, Line::FailedForGood);
            }
            if self.jobs.task(&task).is_none_or(|known| !known.state.is_open()) {
                self.failed.remove(&task);
            }
            if self.jobs.job(&job).is_none_or(|known| known.open == 0) {
                self.faults.retain(|(of, _), _| *of != job);
            }
        }
    }

    fn is_hopeless(&self, id: TaskId) -> bool {
        let Some(task) = self.jobs.task(&id) else { return false };
        let waits = task.state == TaskState::Ready && !task.paused && !self.promised.contains_key(&id);
        let counts = task.failures.iter().any(|(_, failure)| failure.class.may_be_the_tasks_own());
        // A result that is late may still come.
        let comes = task.attempts.values().any(|attempt| attempt.is_live());
        let nodes = self.nodes.nodes.keys();
        waits && counts && !comes && nodes.copied().all(|node| self.is_lost_on(id, task, node))
    }

    fn is_lost_on(&self, id: TaskId, task: &Task, node: NodeId) -> bool {
        let asked = || {
            let (_, _, recipe) = self.jobs.plan(&id).ok_or(WhyNot::NoneLeft)?;
            let mut shape = recipe.shape.clone();
            shape.full_hygiene |= self.wants_full_hygiene(&task.job);
            self.may_have(id, task, node)?;
            self.may_be_asked(task.job, &shape, node)
        };
        let waited = self.failed.get(&id).is_none_or(|failed| failed.until.is_none());
        asked().is_err_and(|why| !why.may_pass() || (why == WhyNot::NoSlot && waited))
    }
}
