//! Jobs of other nodes of this studio that are held here: taken in, gone on with while their origins are away, given back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use scenemesh_protocol::deputy::{
    GrantRight, Keep, KeepNews, KeepReply, LAST_TERM, NoRight, Release, Shown, TakeBack, TakeBackReply,
    TaskNews, term_of,
};
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId, StudioId, TaskId};
use scenemesh_protocol::lease::{AttemptState as Report, Cancel, FinishedTerms, Outcome, Phase};
use scenemesh_protocol::messages::{Done, Request};
use scenemesh_protocol::roster::Roles;
use scenemesh_protocol::signed::Signed;

use super::jobs::{Attempt, AttemptState, Job, Over, TaskState};
use super::{Action, Requester};
use crate::scheduler::batch::Batch;
use crate::scheduler::conversation::{Now, Ticket};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::Line;

/// An origin that was out of sight for so long is gone on without, unless the configuration says otherwise.
pub const KEEP_AFTER: Duration = Duration::from_mins(2);
/// Most jobs of one origin that are held here, and that are on their way here at once: of all, and of one.
const KEPT_LIMIT: usize = 10_000;
const COMING_LIMIT: usize = 64;
const COMING_LIMIT_PER_ORIGIN: usize = 16;
/// An origin that is there for so long and asks nothing of a job that it left here does not know it any more.
const ASKED_WITHIN: Duration = Duration::from_mins(15);

/// Jobs of an origin that is there, of which it has said nothing yet.
#[derive(Debug)]
pub(super) struct Met {
    until: Instant,
    unasked: BTreeSet<JobId>,
}

/// A job that is being fetched from its origin.
#[derive(Debug)]
pub(super) struct Coming {
    origin: NodeId,
    right: Box<Signed<GrantRight>>,
    roots: Vec<ContentHash>,
}

impl Coming {
    pub(super) fn roots(&self) -> &[ContentHash] {
        &self.roots
    }
}

impl Requester {
    /// Goes on with a kept job once its origin was away for so long.
    pub fn keeping_after(mut self, after: Duration) -> Self {
        self.keep_after = after;
        self
    }

    /// Whether a question of a peer is about something that this machine does for it though it is no renderer of ours:
    /// an attempt that we granted as its deputy, or a result that we bring.
    pub fn is_asked(&self, node: NodeId, request: &Request) -> bool {
        match request {
            Request::Probe(probe) => {
                self.granted_to(node, probe)
                    || self.jobs.is_in_hand_for(&node, &probe.task, probe.attempt)
                    || self.deliveries.has(&node, (probe.task, probe.attempt))
            }
            Request::Cancel(cancel) => self.jobs.is_in_hand_for(&node, &cancel.task, cancel.attempt),
            Request::Ack(ack) => self.deliveries.has(&node, (ack.task, ack.attempt)),
            _ => false,
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket) {
        self.reply(ticket, Done);
    }

    pub(super) fn keep_asked(&mut self, now: Now, node: NodeId, keep: Box<Keep>, ticket: Ticket) {
        let reply = match self.judge_keep(now, node, &keep) {
            Ok(Some(job)) => {
                let roots = keep.roots.iter().map(|blob| blob.root).collect();
                let coming = Coming { origin: node, right: Box::new(keep.right.clone()), roots };
                self.coming.insert(job, coming);
                self.out.push(Action::BringKept { node, job, keep });
                KeepReply::Coming
            }
            Ok(None) => KeepReply::Coming,
            Err(why) => {
                tracing::info!(peer = %node.short(), why, "a job is not kept here");
                KeepReply::Refused(why)
            }
        };
        self.reply(ticket, reply);
    }

    /// The job to be fetched; `None` when it is here or on its way.
    fn judge_keep(&self, now: Now, node: NodeId, keep: &Keep) -> Result<Option<JobId>, String> {
        let right = keep.right.verify().map_err(|error| error.to_string())?;
        let pool = self.nodes.pool.ok_or("it is in no pool")?;
        let job = right.job;
        let member = |node: &NodeId| self.seat_of(node);
        let shown = Shown { pool, by: self.nodes.me, job, now_ms: now.wall_ms, member: &member };
        GrantRight::judge(&keep.right, &shown).map_err(|error| error.to_string())?;
        if right.origin != node {
            return Err("the right is of another origin".into());
        }
        if let Some(known) = self.jobs.job(&job) {
            let same = known.origin() == Some(node);
            return if same { Ok(None) } else { Err("another job has its name here".into()) };
        }
        if self.coming.contains_key(&job) {
            return Ok(None);
        }
        let of_origin = self.coming.values().filter(|coming| coming.origin == node).count();
        if self.coming.len() >= COMING_LIMIT || of_origin >= COMING_LIMIT_PER_ORIGIN {
            return Err("too many jobs are on their way here; later".into());
        }
        let kept = self.jobs.jobs().filter(|known| known.origin() == Some(node)).count();
        if kept >= KEPT_LIMIT {
            return Err(format!("{kept} of your jobs are held here, which is the most"));
        }
        Ok(Some(job))
    }

    /// A job is here, or could not be had.
    pub(super) fn kept_brought(&mut self, now: Now, job: JobId, brought: Result<Box<Batch>, String>) {
        let Some(Coming { origin, right, roots }) = self.coming.remove(&job) else {
            // Let go meanwhile. The broom takes what was fetched.
            return;
        };
        let taken = brought.and_then(|batch| {
            let submission = &batch.submission;
            if submission.job != job {
                return Err("it is another job than the one that was named".to_owned());
            }
            if !self.may_lie_on(submission, self.nodes.me) {
                return Err("its reach or its project keeps it elsewhere".to_owned());
            }
            let known = |plan: &crate::scheduler::record::TaskPlan| self.jobs.task(&plan.task).is_some();
            if self.jobs.job(&job).is_some() || submission.tasks.iter().any(known) {
                return Err("one of its tasks is known here already".to_owned());
            }
            Ok(batch)
        });
        match taken {
            Ok(batch) => {
                self.commit(now, RequesterRecord::Keeping { right, batch, at_ms: now.wall_ms });
                if !self.up.contains_key(&origin) {
                    self.away.entry(origin).or_insert(now.at);
                }
                let node = self.name(origin);
                self.log_job(job, &Line::KeptFor { node });
            }
            Err(why) => {
                tracing::warn!(peer = %origin.short(), job = %job.short(), why, "a job is not kept here");
            }
        }
        self.out.push(Action::DropBlobs(roots));
    }

    /// A line in the log of every task of a job; bounded, because a job can have thousands.
    pub(super) fn log_job(&mut self, job: JobId, line: &Line) {
        let Some(known) = self.jobs.job(&job) else { return };
        let tasks: Vec<TaskId> =
            known.submission.tasks.iter().map(|plan| plan.task).take(super::TASKS_TOLD).collect();
        for task in tasks {
            self.log(task, line.clone());
        }
    }

    /// Studio and roles of a node that may act now.
    fn seat_of(&self, node: &NodeId) -> Option<(StudioId, Roles)> {
        let known = self.nodes.nodes.get(node)?;
        Some((known.studio?, known.roles))
    }

    fn kept_for(&self, job: &JobId, origin: NodeId) -> Option<&Job> {
        self.jobs.job(job).filter(|known| known.origin() == Some(origin))
    }

    fn asked_of(&mut self, origin: NodeId, job: &JobId) {
        if let Some(met) = self.met.get_mut(&origin) {
            met.unasked.remove(job);
        }
    }

    pub(super) fn met_deadline(&self) -> Option<Instant> {
        self.met.values().map(|met| met.until).min()
    }

    /// Jobs that their origins forgot while we were away.
    pub(super) fn let_go_of_unasked(&mut self, now: Now) {
        let due: Vec<NodeId> =
            self.met.iter().filter(|(_, met)| met.until <= now.at).map(|(origin, _)| *origin).collect();
        for origin in due {
            for job in self.met.remove(&origin).map(|met| met.unasked).unwrap_or_default() {
                tracing::info!(peer = %origin.short(), job = %job.short(), "a kept job is let go: its origin does not know it");
                self.let_go(now, job);
            }
        }
    }

    fn kept_of(&self, origin: NodeId) -> Vec<JobId> {
        let kept = self.jobs.jobs().filter(|job| job.origin() == Some(origin));
        kept.map(|job| job.submission.job).collect()
    }

    /// Its origin is back: nothing more of the job is granted here, and what came of it is brought.
    pub(super) fn take_back(&mut self, now: Now, node: NodeId, ask: TakeBack, ticket: Ticket) {
        let job = ask.job;
        self.asked_of(node, &job);
        let Some(known) = self.kept_for(&job, node) else {
            let coming = self.coming.get(&job).is_some_and(|coming| coming.origin == node);
            let reply = if coming { TakeBackReply::Coming } else { TakeBackReply::Unknown };
            return self.reply(ticket, reply);
        };
        if known.kept.as_ref().is_some_and(|kept| kept.pen) {
            self.commit(now, RequesterRecord::GivenBack { job, at_ms: now.wall_ms });
            self.promised.retain(|_, promise| promise.job != job);
            let node = self.name(node);
            self.log_job(job, &Line::GivenBack { node });
        }
        self.dirty.insert(job);
        let mut in_hand = self.jobs.in_hand(&job);
        in_hand.retain(|hand| !self.deliveries.is_over((hand.task, hand.attempt)));
        let done = self.jobs.done_of(&job);
        let stored: Vec<_> = in_hand.iter().filter(|hand| done.contains(&hand.task)).copied().collect();
        let done = done.into_iter().collect();
        self.reply(ticket, TakeBackReply::Yours { in_hand, done });
        for hand in stored {
            self.deliver(node, hand.task, hand.attempt);
        }
    }

    pub(super) fn news_told(&mut self, now: Now, node: NodeId, news: KeepNews, ticket: Ticket) {
        let of_it = |task: &TaskId| {
            let job = self.jobs.task(task).map(|known| known.job);
            job == Some(news.job) && self.kept_for(&news.job, node).is_some()
        };
        let told = |wanted: TaskNews| -> Vec<TaskId> {
            let tasks = news.tasks.iter().filter(|(task, news)| *news == wanted && of_it(task));
            tasks.map(|(task, _)| *task).collect()
        };
        let (open, paused, over) = (told(TaskNews::Open), told(TaskNews::Paused), told(TaskNews::Over));
        self.cancel(now, over);
        self.retry(now, &open);
        self.retry(now, &paused);
        self.resume(now, open);
        self.pause(now, paused);
        self.done(ticket);
    }

    pub(super) fn released(&mut self, now: Now, node: NodeId, ask: Release, ticket: Ticket) {
        if self.coming.get(&ask.job).is_some_and(|coming| coming.origin == node) {
            self.coming.remove(&ask.job);
        }
        if self.kept_for(&ask.job, node).is_some() {
            self.let_go(now, ask.job);
        }
        self.done(ticket);
    }

    /// Nothing of a kept job stays.
    fn let_go(&mut self, now: Now, job: JobId) {
        let Some(known) = self.jobs.job(&job) else { return };
        let tasks = known.submission.tasks.iter().map(|plan| plan.task).collect();
        self.cancel(now, tasks);
        self.end_deliveries_of(job);
        self.forget(&[job]);
    }

    /// What these nodes had kept here is not kept any longer.
    pub(super) fn let_go_of_barred(&mut self, now: Now) {
        let barred = |origin: &NodeId| self.barred.contains_key(origin);
        let kept = self.jobs.jobs().filter(|job| job.origin().as_ref().is_some_and(barred));
        for job in kept.map(|job| job.submission.job).collect::<Vec<_>>() {
            self.let_go(now, job);
        }
    }

    /// Whoever is not seen after a start is away from now on.
    pub(super) fn miss_origins(&mut self, now: Now) {
        let origins = self.jobs.jobs().filter_map(Job::origin);
        let origins: BTreeSet<NodeId> = origins.filter(|origin| !self.up.contains_key(origin)).collect();
        self.away = origins.into_iter().map(|origin| (origin, now.at)).collect();
    }

    pub(super) fn greet_origin(&mut self, now: Now, node: NodeId) {
        self.away.remove(&node);
        let unasked: BTreeSet<JobId> = self.kept_of(node).into_iter().collect();
        if !unasked.is_empty() {
            self.met.insert(node, Met { until: now.at + ASKED_WITHIN, unasked });
        }
        if self.gone.remove(&node) {
            // It has yet to ask, but it is there: from now on nothing more is granted.
            self.dirty.extend(self.kept_of(node));
        }
    }

    pub(super) fn miss_origin(&mut self, now: Now, node: NodeId) {
        self.met.remove(&node);
        if self.jobs.jobs().any(|job| job.origin() == Some(node)) {
            self.away.entry(node).or_insert(now.at);
        }
    }

    pub(super) fn away_deadline(&self) -> Option<Instant> {
        let waited = self.away.iter().filter(|(origin, _)| !self.gone.contains(*origin));
        waited.map(|(_, since)| *since + self.keep_after).min()
    }

    /// Origins that were away for long enough are gone on without.
    pub(super) fn take_up_jobs(&mut self, now: Now) {
        let long = self
            .away
            .iter()
            .filter(|(origin, since)| !self.gone.contains(*origin) && **since + self.keep_after <= now.at);
        for origin in long.map(|(origin, _)| *origin).collect::<Vec<_>>() {
            self.gone.insert(origin);
            for job in self.kept_of(origin) {
                self.take_up(now, job, origin);
            }
        }
    }

    fn take_up(&mut self, now: Now, job: JobId, origin: NodeId) {
        let Some(known) = self.jobs.job(&job).filter(|known| known.open > 0) else { return };
        let Some(kept) = known.kept.as_ref() else { return };
        self.dirty.insert(job);
        if kept.pen {
            return;
        }
        let term = kept.term + 1;
        let right = kept.right.verify().map_err(NoRight::from);
        let holds = right.and_then(|right| right.still_holds(now.wall_ms, &|node| self.seat_of(node)));
        if term > LAST_TERM || holds.is_err() {
            let why = holds.as_ref().err().map(ToString::to_string);
            tracing::warn!(job = %job.short(), term, why, "a kept job is not gone on with");
            if holds == Err(NoRight::Expired) {
                // Nobody will: it ends, and is kept no longer than any that has.
                let tasks = known.submission.tasks.iter().map(|plan| plan.task).collect();
                self.cancel(now, tasks);
            }
            return;
        }
        self.commit(now, RequesterRecord::TakenUp { job, term, at_ms: now.wall_ms });
        let node = self.name(origin);
        self.log_job(job, &Line::TakenUp { node });
    }

    /// The origin brings a result of a kept job of its: it is taken like a renderer's.
    pub(super) fn expect_from_origin(&mut self, now: Now, node: NodeId, terms: &FinishedTerms) {
        let (task, attempt) = (terms.task, terms.attempt);
        let Some(known) = self.jobs.task(&task) else { return };
        let of_it = self.kept_for(&known.job, node).is_some();
        // One that was under way when this machine died is told again.
        let again =
            |attempt: &Attempt| matches!(attempt.state, AttemptState::Over(Over::Unheld | Over::Superseded));
        let new = known.state.is_open() && known.attempts.get(attempt).is_none_or(again);
        if of_it && new && term_of(attempt) == 0 && matches!(terms.outcome, Outcome::Done { .. }) {
            if let TaskState::Held(attempt) = known.state {
                self.commit(now, RequesterRecord::Lost { task, attempt });
            }
            self.adopt(now, task, attempt, node, terms.grant);
        }
    }

    /// A result that we had rendered for an origin which is there again.
    pub(super) fn bring_to_origin(&mut self, task: TaskId) {
        let Some(known) = self.jobs.task(&task).filter(|known| known.state == TaskState::Done) else {
            return;
        };
        let Some(kept) = self.jobs.job(&known.job).and_then(|job| job.kept.as_ref()) else { return };
        let (origin, pen) = (kept.origin, kept.pen);
        let Some(attempt) = self.attempt_stored(&task).filter(|attempt| term_of(*attempt) > 0) else {
            return;
        };
        if !pen {
            self.deliver(origin, task, attempt);
        }
    }

    /// The origin does not want this attempt any more. What it wants of the task it says by itself.
    pub(super) fn cancel_asked(&mut self, now: Now, node: NodeId, cancel: Cancel, ticket: Ticket) {
        let Cancel { task, attempt } = cancel;
        if self.jobs.is_in_hand_for(&node, &task, attempt) {
            let live =
                self.jobs.attempt(&task, attempt).filter(|known| known.is_live()).map(|known| known.node);
            if let Some(renderer) = live {
                self.commit(now, RequesterRecord::Unheld { task, attempt });
                self.cancels.insert((task, attempt), renderer);
                if self.up.contains_key(&renderer) {
                    self.out.push(Action::Cancel { node: renderer, task, attempt });
                }
            }
            self.recall(node, task, attempt);
        }
        self.reply(ticket, Report::Unknown);
    }

    /// How it is with an attempt that we granted for the origin of its job, or a result that we bring: it comes, or not.
    pub(super) fn tell_of_hand(&mut self, node: NodeId, task: TaskId, attempt: u32) -> Report {
        if self.deliveries.has(&node, (task, attempt)) {
            self.deliver_now(node, task, attempt);
            return Report::Running(Phase::Running);
        }
        if !self.jobs.is_in_hand_for(&node, &task, attempt) || self.deliveries.is_over((task, attempt)) {
            return Report::Unknown;
        }
        self.bring_to_origin(task);
        Report::Running(Phase::Running)
    }
}
