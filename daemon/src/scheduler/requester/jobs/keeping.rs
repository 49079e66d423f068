//! Jobs that lie on two machines: ours with a deputy, and others' that are held here.

use std::collections::BTreeSet;

use scenemesh_protocol::deputy::{GrantRight, InHand, first_attempt, term_of};
use scenemesh_protocol::ids::{JobId, NodeId, TaskId};
use scenemesh_protocol::signed::Signed;

use super::{AttemptState, Job, Jobs, Over, Task, TaskState};
use crate::scheduler::batch::Batch;

/// What makes a job another node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub origin: NodeId,
    /// What the origin signed for us.
    pub right: Signed<GrantRight>,
    /// How often it was taken up here.
    pub term: u32,
    /// Its tasks are ours to grant now.
    pub pen: bool,
}

impl Job {
    /// Whether tasks of it are granted from here now.
    pub fn is_ours_to_grant(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.pen)
    }

    /// For whom it is held here.
    pub fn origin(&self) -> Option<NodeId> {
        self.kept.as_ref().map(|kept| kept.origin)
    }
}

impl Jobs {
    pub(super) fn keep_with(&mut self, job: &JobId, deputy: Option<NodeId>) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.last_deputy = job.deputy.or(job.last_deputy);
            job.deputy = deputy;
        }
    }

    pub(super) fn keep(&mut self, right: &Signed<GrantRight>, batch: &Batch) {
        let job = batch.submission.job;
        if self.jobs.contains_key(&job) {
            return;
        }
        // It was judged before it was written down.
        let Ok(verified) = right.verify() else { return };
        let Batch { submission, stages, on_suspect } = batch;
        self.submitted(submission, stages, *on_suspect);
        if let Some(known) = self.jobs.get_mut(&job) {
            let kept = Kept { origin: verified.origin, right: right.clone(), term: 0, pen: false };
            known.kept = Some(Box::new(kept));
        }
        self.queue_all(&job);
    }

    /// To this node with a term, or back to the origin.
    pub(super) fn pass_pen(&mut self, job: &JobId, taken: Option<u32>) {
        if let Some(kept) = self.jobs.get_mut(job).and_then(|job| job.kept.as_mut()) {
            kept.pen = taken.is_some();
            kept.term = taken.unwrap_or(kept.term);
        }
        self.queue_all(job);
    }

    fn queue_all(&mut self, job: &JobId) {
        let Some(submission) = self.jobs.get(job).map(|job| job.submission.clone()) else { return };
        submission.tasks.iter().for_each(|plan| self.queue(&plan.task));
    }

    /// The number that the next attempt at a task gets when it is granted from here.
    pub fn next_attempt(&self, id: &TaskId) -> u32 {
        let Some(task) = self.tasks.get(id) else { return 1 };
        let kept = self.jobs.get(&task.job).and_then(|job| job.kept.as_ref());
        let term = kept.map_or(0, |kept| kept.term);
        let first = first_attempt(term);
        let last = task
            .attempts
            .iter()
            .map(|(number, _)| number)
            .filter(|last| *last >= first && term_of(*last) == term);
        last.max().map_or(first, |last| last + 1)
    }

    /// Tasks of a job whose results are here.
    pub fn done_of(&self, job: &JobId) -> BTreeSet<TaskId> {
        let plans =
            self.jobs.get(job).into_iter().flat_map(|job| &job.submission.tasks).map(|plan| plan.task);
        plans.filter(|id| self.tasks.get(id).is_some_and(|task| task.state == TaskState::Done)).collect()
    }

    /// Attempts that were granted from here for the origin of a job, and whose results it is still to have.
    pub fn in_hand(&self, job: &JobId) -> Vec<InHand> {
        let Some(job) = self.jobs.get(job).filter(|job| job.kept.is_some()) else { return Vec::new() };
        let tasks =
            job.submission.tasks.iter().filter_map(|plan| Some((plan.task, self.tasks.get(&plan.task)?)));
        let hand = tasks.flat_map(|(id, task)| {
            let ours = task.attempts.iter().filter(|(number, _)| is_in_hand(task, *number));
            ours.map(move |(attempt, known)| InHand { task: id, attempt, grant: known.grant_hash })
        });
        hand.collect()
    }

    /// Whether this attempt is one of those, and the node the origin of its job.
    pub fn is_in_hand_for(&self, origin: &NodeId, id: &TaskId, attempt: u32) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        let of = self.job(&task.job).and_then(Job::origin);
        of == Some(*origin) && is_in_hand(task, attempt)
    }
}

/// One that has the task, or has brought its result.
fn is_in_hand(task: &Task, number: u32) -> bool {
    let Some(attempt) = task.attempts.get(number).filter(|_| term_of(number) > 0) else { return false };
    // Whatever the journal has of earlier attempts: one at a time holds the task, one alone brought its result.
    task.state == TaskState::Held(number) || attempt.state == AttemptState::Over(Over::Stored)
}
