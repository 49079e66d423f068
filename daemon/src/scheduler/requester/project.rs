//! What the studio's projects say about our jobs: where they may go, and how long anything of them is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId, TaskId};
use scenemesh_protocol::signed::Verified;
use scenemesh_protocol::studio::{Project, StudioRules};
use scenemesh_protocol::task::{Failure, FailureClass, Reach};

use super::jobs::Job;
use super::{Action, Requester};
use crate::scheduler::conversation::Now;
use crate::scheduler::placement::{self, Bounds, Rules};
use crate::scheduler::record::{RequesterRecord, Submission};

/// Jobs in one record: what they name is dropped with it.
const FORGOTTEN_AT_ONCE: usize = 1_000;

impl Requester {
    /// The projects changed, or time has passed. Waiting tasks follow the record that holds now.
    pub(super) fn see_rules(&mut self, now: Now, rules: Arc<StudioRules>) {
        if self.rules.projects != rules.projects {
            self.dirty.extend(self.jobs.open_jobs());
        }
        self.rules = rules;
        self.review_deputies(now);
        self.expire(now);
    }

    /// The record of a job's project, as it holds now.
    pub fn project_of(&self, job: &JobId) -> Option<&Verified<Project>> {
        self.rules.projects.get(&self.jobs.job(job)?.submission.project?)
    }

    /// How far a job may travel, known here or not yet.
    pub(super) fn bounds_of<'a>(&'a self, submission: &'a Submission) -> Bounds<'a> {
        let project = match submission.project {
            None => Rules::None,
            Some(id) => self.rules.projects.get(&id).map_or(Rules::Gone, |rules| Rules::Hold(rules)),
        };
        Bounds { reach: &submission.reach, project }
    }

    pub(super) fn bounds<'a>(&'a self, job: &'a Job) -> Bounds<'a> {
        self.bounds_of(&job.submission)
    }

    /// Whether a job may lie on this node as well as on the one that submitted it.
    pub(super) fn may_lie_on(&self, submission: &Submission, node: NodeId) -> bool {
        submission.reach != Reach::Machine
            && placement::may_hold(&self.nodes, node, self.bounds_of(submission))
    }

    /// Whether a job's tasks may travel to this node, and its results come from there, as roster and project are now.
    pub(super) fn within_reach(&self, job: JobId, node: NodeId) -> bool {
        self.jobs.job(&job).is_some_and(|known| placement::reaches(&self.nodes, node, self.bounds(known)))
    }

    pub(super) fn wants_full_hygiene(&self, job: &JobId) -> bool {
        self.project_of(job).is_some_and(|rules| rules.hygiene == Hygiene::Full)
    }

    /// A result of a node outside the job's reach is not taken, whoever gave it the task.
    pub(super) fn is_out_of_reach(&self, task: &TaskId, node: NodeId) -> Option<Failure> {
        let job = self.jobs.task(task)?.job;
        let known = self.jobs.job(&job)?;
        // Whoever holds the whole job may bring its results.
        if [known.deputy, known.origin()].contains(&Some(node)) {
            return None;
        }
        let words = "the node is outside the reach of the job or of its project";
        (!self.within_reach(job, node)).then(|| Failure::new(FailureClass::Policy, words))
    }

    /// Forgets jobs whose project keeps nothing so long after their end.
    fn expire(&mut self, now: Now) {
        let over: Vec<JobId> = self
            .jobs
            .jobs()
            .filter(|job| job.open == 0)
            .filter_map(|job| {
                let keep_s = self.rules.projects.get(&job.submission.project?)?.retention_s?;
                let ended =
                    job.submission.tasks.iter().filter_map(|plan| self.jobs.task(&plan.task)?.ended_ms);
                let until = ended.max()?.saturating_add(u64::from(keep_s) * 1000);
                (until <= now.wall_ms).then_some(job.submission.job)
            })
            .collect();
        self.forget(&over);
    }

    /// These jobs have ended, and nothing of them is kept any longer: nobody is told of, or asked about, what is not
    /// there any more.
    pub(super) fn forget(&mut self, over: &[JobId]) {
        for job in over {
            self.end_talk(*job);
            self.end_deliveries_of(*job);
        }
        for jobs in over.chunks(FORGOTTEN_AT_ONCE) {
            let tasks_of = |id: &JobId| {
                let plans = self.jobs.job(id).into_iter().flat_map(|job| &job.submission.tasks);
                (*id, plans.map(|plan| plan.task).collect())
            };
            let forgotten: Vec<(JobId, Vec<TaskId>)> = jobs.iter().map(tasks_of).collect();
            let named: BTreeSet<ContentHash> = jobs.iter().flat_map(|id| self.jobs.roots_of(id)).collect();
            let record = RequesterRecord::Forgotten { jobs: jobs.to_vec() };
            self.jobs.apply(&record);
            self.out.push(Action::Record(record));
            let gone: Vec<ContentHash> = named.into_iter().filter(|root| !self.jobs.names(root)).collect();
            self.out.push(Action::DropBlobs(gone));
            let forgotten = forgotten.into_iter();
            self.out.extend(forgotten.map(|(job, tasks)| Action::Forgotten { job, tasks }));
        }
        if over.is_empty() {
            return;
        }
        self.cancels.retain(|(task, _), _| self.jobs.task(task).is_some());
        self.returns.retain(|(task, _), _| self.jobs.task(task).is_some());
        self.refusals.retain(|(job, _), _| self.jobs.job(job).is_some());
        self.reservations.retain(|job, _| self.jobs.job(job).is_some());
    }
}
