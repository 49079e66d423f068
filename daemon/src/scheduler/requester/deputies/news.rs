//! What a deputy is told of the tasks of a job that it holds, and which results it is given.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::deputy::{KeepNews, NEWS_LIMIT, TaskNews, term_of};
use scenemesh_protocol::ids::{JobId, NodeId, TaskId};

use super::super::jobs::TaskState;
use super::super::{Action, Requester};
use super::{ASK_AGAIN, Hold, Stage};
use crate::scheduler::conversation::{Answer, Now};

impl Requester {
    /// How a task stands, for its deputy; `None` for one that is done.
    fn news_of(&self, task: &TaskId) -> Option<TaskNews> {
        let known = self.jobs.task(task)?;
        match known.state {
            TaskState::Done => None,
            state if !state.is_open() => Some(TaskNews::Over),
            _ if known.paused => Some(TaskNews::Paused),
            _ => Some(TaskNews::Open),
        }
    }

    /// Everything that a deputy need know that has just got the job, or may have missed something.
    pub(super) fn tell_all(&mut self, job: JobId, done: &BTreeSet<TaskId>) {
        let Some(known) = self.jobs.job(&job) else { return };
        let plans = known.submission.clone();
        let news = plans.tasks.iter().filter_map(|plan| Some((plan.task, self.news_of(&plan.task)?)));
        let news: BTreeMap<_, _> = news.collect();
        let Some(talk) = self.talks.get_mut(&job) else { return };
        let deputy = talk.deputy;
        talk.told = news.clone();
        talk.told.retain(|_, news| *news != TaskNews::Open);
        talk.news = news;
        for plan in plans.tasks.iter().filter(|plan| !done.contains(&plan.task)) {
            if let Some(attempt) = self.attempt_stored(&plan.task) {
                // Whatever it said of it before.
                self.deliveries.want((plan.task, attempt));
            }
            self.show_deputy(deputy, plan.task);
        }
        self.tell_deputy(job);
    }

    /// A result that the deputy has not brought itself.
    fn show_deputy(&mut self, deputy: NodeId, task: TaskId) {
        let Some(attempt) = self.attempt_stored(&task) else { return };
        let job = self.jobs.task(&task).map(|known| known.job);
        if job.is_none_or(|job| self.may_still_keep(job, deputy).is_err()) {
            return;
        }
        if self
            .jobs
            .attempt(&task, attempt)
            .is_some_and(|known| known.node != deputy || term_of(attempt) == 0)
        {
            self.deliver(deputy, task, attempt);
        }
    }

    /// Something of a task was written down: its deputy hears of what matters to it.
    pub(in crate::scheduler::requester) fn note_for_deputy(&mut self, task: TaskId) {
        let Some(job) = self.jobs.task(&task).map(|known| known.job) else { return };
        let Some(talk) = self.talks.get(&job) else { return };
        let (deputy, kept) = (talk.deputy, talk.stage == Stage::Kept);
        if self.jobs.job(&job).is_some_and(|known| known.open == 0) {
            if let Some(talk) = self.talks.get_mut(&job) {
                talk.hold = Hold::No;
            }
            // It is released once the step is over: a task may yet be wanted again in it.
            self.closed.insert(job);
            return;
        }
        if !kept {
            return;
        }
        let Some(news) = self.news_of(&task) else { return self.show_deputy(deputy, task) };
        let Some(talk) = self.talks.get_mut(&job) else { return };
        if talk.told.get(&task).copied().unwrap_or(TaskNews::Open) == news {
            return;
        }
        if news == TaskNews::Open {
            talk.told.remove(&task);
        } else {
            talk.told.insert(task, news);
        }
        talk.news.insert(task, news);
        self.tell_deputy(job);
    }

    pub(super) fn tell_deputy(&mut self, job: JobId) {
        let Some(talk) = self.talks.get_mut(&job) else { return };
        if talk.stage != Stage::Kept || !talk.telling.is_empty() || talk.news.is_empty() {
            return;
        }
        let node = talk.deputy;
        while talk.telling.len() < NEWS_LIMIT
            && let Some(news) = talk.news.pop_first()
        {
            talk.telling.push(news);
        }
        let news = KeepNews { job, tasks: talk.telling.clone() };
        self.out.push(Action::KeepNews { node, news });
    }

    pub(in crate::scheduler::requester) fn news_answered(
        &mut self,
        now: Now,
        job: JobId,
        answer: &Answer<()>,
    ) {
        let Some(talk) = self.talks.get_mut(&job) else { return };
        let told = std::mem::take(&mut talk.telling);
        if answer.is_ok() {
            return self.tell_deputy(job);
        }
        for (task, news) in told {
            talk.news.entry(task).or_insert(news);
        }
        let next = now.at + ASK_AGAIN;
        talk.again = Some(talk.again.map_or(next, |again| again.min(next)));
    }
}
