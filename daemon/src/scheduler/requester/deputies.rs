//! Our jobs that a deputy holds as well: choosing it, giving it the job, telling it how tasks stand, and asking it what it
//! did while we were away before anything more is granted here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::deputy::{
    InHand, Keep, KeepNews, KeepReply, NEWS_LIMIT, Release, TakeBack, TakeBackReply, TaskNews, term_of,
};
use scenemesh_protocol::ids::{ClaimId, ContentHash, JobId, NodeId, TaskId};
use scenemesh_protocol::task::Reach;

use super::jobs::{AttemptState, TaskState};
use super::{Action, Requester};
use crate::scheduler::batch::Batch;
use crate::scheduler::conversation::{Answer, Now};
use crate::scheduler::placement::{self, Bounds, Link, Rules};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{Line, cut};

/// After a start, or when a deputy comes back: so long its answer is waited for before the job goes on without it.
const HOLD: Duration = Duration::from_secs(30);
/// A question without an answer is asked again after this; a deputy that fetches a job is asked how far it is.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const COMING: Duration = Duration::from_secs(2);
/// A deputy that refused a job is asked again after this.
const REFUSED: Duration = Duration::from_mins(10);
/// What a deputy has in hand is asked after at this pace, so many attempts at once.
const IN_HAND: Duration = Duration::from_secs(10);
const IN_HAND_AT_ONCE: usize = 32;
/// Handing a job over that failed here (a full disk) is tried again after this.
const SEAL_AGAIN: Duration = Duration::from_mins(1);

/// Which node is to hold a job as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepOn {
    /// Whichever node of the studio has the role `keep`.
    #[default]
    Anybody,
    Nobody,
    Node(NodeId),
}

/// Why a node cannot hold a job. Displayed after the node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDeputy {
    #[error("is this machine, which has the job anyway")]
    Me,
    #[error("is no node of this studio: only those hold its jobs")]
    NotOfStudio,
    #[error("has not the role `keep`, which `scenemesh invite --role keep` gives")]
    LacksRole,
    #[error("lies outside the reach of the job or of its project")]
    OutOfReach,
}

/// How it stands between us and the deputy of one job.
#[derive(Debug)]
pub(super) struct Talk {
    deputy: NodeId,
    stage: Stage,
    /// Nothing of the job is granted before, unless the deputy answers first.
    held_until: Option<Instant>,
    /// When the next word to it is due.
    again: Option<Instant>,
    /// What it has not been told yet.
    news: BTreeMap<TaskId, TaskNews>,
    /// What it was told last, of tasks that are not simply open.
    told: BTreeMap<TaskId, TaskNews>,
    telling: Vec<(TaskId, TaskNews)>,
    /// The job as it was sealed for it.
    sealed: Vec<ContentHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected.
    Away,
    Asking,
    Sealing,
    /// It has the job, or is fetching it.
    Giving,
    Kept,
    Refused,
    Releasing,
}

impl Talk {
    fn new(deputy: NodeId) -> Self {
        Self {
            deputy,
            stage: Stage::Away,
            held_until: None,
            again: None,
            news: BTreeMap::new(),
            told: BTreeMap::new(),
            telling: Vec::new(),
            sealed: Vec::new(),
        }
    }

    pub(super) fn deputy(&self) -> NodeId {
        self.deputy
    }

    pub(super) fn is_held(&self) -> bool {
        self.held_until.is_some()
    }

    /// Blobs that nobody else names.
    pub(super) fn sealed(&self) -> &[ContentHash] {
        &self.sealed
    }

    pub(super) fn deadline(&self, up: bool) -> Option<Instant> {
        self.held_until.into_iter().chain(self.again.filter(|_| up)).min()
    }
}

impl Requester {
    /// Which node is to hold this job as well; `None` where none may.
    ///
    /// # Errors
    /// When a node was named that may not.
    pub fn deputy_for(&self, batch: &Batch, keep_on: KeepOn) -> Result<Option<NodeId>, NoDeputy> {
        let named = match keep_on {
            KeepOn::Nobody => return Ok(None),
            KeepOn::Node(node) => Some(node),
            KeepOn::Anybody => None,
        };
        let submission = &batch.submission;
        let project = match submission.project {
            None => Rules::None,
            Some(id) => self.rules.projects.get(&id).map_or(Rules::Gone, |rules| Rules::Hold(rules)),
        };
        let bounds = Bounds { reach: &submission.reach, project };
        let judge = |node: NodeId| {
            let known = self.nodes.nodes.get(&node);
            if node == self.nodes.me {
                return Err(NoDeputy::Me);
            }
            let of_studio =
                |known: &&placement::Node| known.studio.is_some() && known.studio == self.nodes.my_studio;
            let Some(known) = known.filter(of_studio) else { return Err(NoDeputy::NotOfStudio) };
            if !known.roles.keep {
                return Err(NoDeputy::LacksRole);
            }
            let within = submission.reach != Reach::Machine && placement::may_hold(&self.nodes, node, bounds);
            if within { Ok(node) } else { Err(NoDeputy::OutOfReach) }
        };
        if let Some(node) = named {
            return judge(node).map(Some);
        }
        // One that is there comes first; jobs spread over several by a hash of both names.
        let may = self.nodes.nodes.iter().filter(|(node, _)| judge(**node).is_ok());
        let first = may.max_by_key(|(node, known)| {
            let both = [submission.job.as_bytes().as_slice(), node.as_bytes()].concat();
            (known.link == Link::Up, *ContentHash::of(&both).as_bytes())
        });
        Ok(first.map(|(node, _)| *node))
    }

    /// Whether tasks of this job may be granted from here now.
    pub(super) fn may_grant(&self, job: JobId) -> bool {
        let held = self.talks.get(&job).is_some_and(Talk::is_held);
        !held
            && self.jobs.job(&job).is_some_and(|known| match &known.kept {
                None => true,
                Some(kept) => kept.pen && self.gone.contains(&kept.origin),
            })
    }

    /// The deputy that is asked before a job goes on.
    pub(super) fn held_for(&self, job: &JobId) -> Option<NodeId> {
        self.talks.get(job).filter(|talk| talk.is_held()).map(|talk| talk.deputy)
    }

    /// Whether an attempt of ours was granted by our deputy, which brings its result.
    pub(super) fn is_with_deputy(&self, task: &TaskId, attempt: u32) -> bool {
        let job = || self.jobs.job(&self.jobs.task(task)?.job);
        term_of(attempt) > 0 && job().is_some_and(|job| job.kept.is_none())
    }

    pub(super) fn keep_with(&mut self, now: Now, job: JobId, deputy: NodeId) {
        self.commit(now, RequesterRecord::KeptWith { job, deputy, at_ms: now.wall_ms });
        self.talks.insert(job, Talk::new(deputy));
        if self.up.contains_key(&deputy) {
            self.ask_deputy(now, job, false);
        }
    }

    /// Jobs whose deputies may have granted while this node was down.
    pub(super) fn hold_kept(&mut self, now: Now) {
        let jobs = self.jobs.jobs().filter_map(|job| Some((job.submission.job, job.deputy?, job.open > 0)));
        let held = jobs.map(|(job, deputy, open)| {
            let held_until = open.then(|| now.at + HOLD);
            (job, Talk { held_until, ..Talk::new(deputy) })
        });
        self.talks.extend(held.collect::<Vec<_>>());
    }

    pub(super) fn greet_deputy(&mut self, now: Now, node: NodeId) {
        for job in self.talks_with(node) {
            self.ask_deputy(now, job, true);
        }
    }

    pub(super) fn miss_deputy(&mut self, now: Now, node: NodeId) {
        for job in self.talks_with(node) {
            if let Some(talk) = self.talks.get_mut(&job) {
                (talk.stage, talk.again) = (Stage::Away, None);
                talk.telling.clear();
            }
        }
        // The silence of what it had in hand begins now.
        let (jobs, contacts) = (&self.jobs, &mut self.contacts);
        for ((task, attempt), contact) in contacts.iter_mut().filter(|(_, contact)| contact.node == node) {
            let job = jobs.task(task).and_then(|known| jobs.job(&known.job));
            if term_of(*attempt) > 0 && job.is_some_and(|job| job.kept.is_none()) {
                contact.heard = now.at;
            }
        }
    }

    fn talks_with(&self, node: NodeId) -> Vec<JobId> {
        let with = self.talks.iter().filter(|(_, talk)| talk.deputy == node);
        with.map(|(job, _)| *job).collect()
    }

    /// Asks what it did meanwhile; of a job that is over it need not keep anything.
    fn ask_deputy(&mut self, now: Now, job: JobId, hold: bool) {
        let open = self.jobs.job(&job).is_some_and(|known| known.open > 0);
        let Some(talk) = self.talks.get_mut(&job) else { return };
        let node = talk.deputy;
        talk.again = None;
        if open {
            talk.stage = Stage::Asking;
            if hold {
                talk.held_until = Some(now.at + HOLD);
                self.dirty.insert(job);
            }
            self.out.push(Action::TakeBack { node, ask: TakeBack { job } });
        } else {
            talk.stage = Stage::Releasing;
            self.out.push(Action::Release { node, ask: Release { job } });
        }
    }

    /// The job goes on here.
    fn end_hold(&mut self, job: JobId) {
        let Some(talk) = self.talks.get_mut(&job) else { return };
        if talk.held_until.take().is_none() {
            return;
        }
        self.dirty.insert(job);
        // Grants that were held back with it.
        let granted = self.contacts.keys().copied().filter(|(task, attempt)| {
            let of_it = self.jobs.task(task).is_some_and(|known| known.job == job);
            let known = self.jobs.attempt(task, *attempt);
            of_it && known.is_some_and(|known| matches!(known.state, AttemptState::Granted(_)))
        });
        for (task, attempt) in granted.collect::<Vec<_>>() {
            self.send_grant(task, attempt);
        }
    }

    pub(super) fn mind_deputies(&mut self, now: Now) {
        let due = self.talks.iter().filter(|(_, talk)| {
            talk.deadline(self.up.contains_key(&talk.deputy)).is_some_and(|at| at <= now.at)
        });
        for job in due.map(|(job, _)| *job).collect::<Vec<_>>() {
            let Some(talk) = self.talks.get_mut(&job) else { continue };
            if talk.held_until.is_some_and(|until| until <= now.at) {
                self.end_hold(job);
            }
            let Some(talk) = self.talks.get_mut(&job) else { continue };
            if talk.again.take_if(|again| *again <= now.at).is_none() {
                continue;
            }
            match talk.stage {
                Stage::Kept => {
                    self.tell_deputy(job);
                    self.ask_after(now, job);
                }
                Stage::Away | Stage::Sealing => {}
                _ => self.ask_deputy(now, job, false),
            }
        }
    }

    /// Asks after attempts that the deputy has in hand, those first of which nothing was heard for longest.
    fn ask_after(&mut self, now: Now, job: JobId) {
        let Some(talk) = self.talks.get(&job) else { return };
        let node = talk.deputy;
        let of_it = |task: &TaskId| self.jobs.task(task).is_some_and(|known| known.job == job);
        let in_hand = self.contacts.iter().filter(|((task, attempt), contact)| {
            contact.node == node && of_it(task) && self.is_with_deputy(task, *attempt)
        });
        let mut asked: Vec<_> = in_hand
            .filter(|(_, contact)| contact.fetch.is_none())
            .map(|(key, contact)| (contact.heard, *key))
            .collect();
        asked.sort_unstable();
        let any = !asked.is_empty();
        for (_, (task, attempt)) in asked.into_iter().take(IN_HAND_AT_ONCE) {
            self.out.push(Action::Probe { node, task, attempt });
        }
        if let Some(talk) = self.talks.get_mut(&job).filter(|_| any) {
            let next = now.at + IN_HAND;
            talk.again = Some(talk.again.map_or(next, |again| again.min(next)));
        }
    }

    pub(super) fn taken_back(&mut self, now: Now, job: JobId, answer: Answer<TakeBackReply>) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Asking) else { return };
        let node = talk.deputy;
        match answer {
            Err(_) => talk.again = Some(now.at + ASK_AGAIN),
            Ok(TakeBackReply::Unknown) => {
                self.take_in_hand(now, job, node, &[]);
                self.end_hold(job);
                self.hand_over(job);
            }
            Ok(TakeBackReply::Coming) => {
                (talk.stage, talk.again) = (Stage::Giving, Some(now.at + COMING));
                self.end_hold(job);
            }
            Ok(TakeBackReply::Yours { in_hand, done }) => {
                (talk.stage, talk.again) = (Stage::Kept, None);
                let sealed = std::mem::take(&mut talk.sealed);
                self.out.push(Action::Unkeep { node, job, sealed });
                self.take_in_hand(now, job, node, &in_hand);
                self.end_hold(job);
                self.tell_all(now, job, &done.into_iter().collect());
                self.ask_after(now, job);
                self.log_job(job, &Line::KeptOn { node: self.name(node) });
            }
        }
        if self.jobs.job(&job).is_none_or(|known| known.open == 0) {
            self.ask_deputy(now, job, false);
        }
    }

    /// What the deputy granted and has, or had, rendered is its to bring.
    fn take_in_hand(&mut self, now: Now, job: JobId, node: NodeId, in_hand: &[InHand]) {
        let listed: BTreeSet<(TaskId, u32)> = in_hand.iter().map(|hand| (hand.task, hand.attempt)).collect();
        let of_it = |task: &TaskId| self.jobs.task(task).is_some_and(|known| known.job == job);
        let gone = self.contacts.iter().filter(|((task, attempt), contact)| {
            let unlisted =
                contact.node == node && !listed.contains(&(*task, *attempt)) && contact.fetch.is_none();
            unlisted && of_it(task) && self.is_with_deputy(task, *attempt)
        });
        for (task, attempt) in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.commit(now, RequesterRecord::Unheld { task, attempt });
        }
        let mut told = 0;
        for InHand { task, attempt, grant } in in_hand.iter().copied() {
            let Some(known) = self.jobs.task(&task) else { continue };
            if known.job != job || !self.is_with_deputy(&task, attempt) {
                continue;
            }
            if known.attempts.contains_key(&attempt) {
                self.hear(now, task, attempt);
                self.take_up_again(now, task, attempt);
                continue;
            }
            match known.state {
                TaskState::Ready => {}
                // Whoever had it from us may still be first.
                TaskState::Held(attempt) => self.commit(now, RequesterRecord::Lost { task, attempt }),
                _ => continue,
            }
            self.adopt(now, task, attempt, node, grant);
            told += 1;
            if told <= super::TASKS_TOLD {
                self.log(task, Line::InHand { node: self.name(node) });
            }
        }
    }

    /// From here on that node is the renderer of this attempt, as far as its result goes.
    pub(super) fn adopt(&mut self, now: Now, task: TaskId, attempt: u32, node: NodeId, grant: ContentHash) {
        self.promised.remove(&task);
        let claim = ClaimId::from_bytes([0; 16]);
        self.commit(now, RequesterRecord::Tried { task, attempt, node, claim, grant });
    }

    fn hand_over(&mut self, job: JobId) {
        let Some(talk) = self.talks.get_mut(&job) else { return };
        let node = talk.deputy;
        talk.stage = Stage::Sealing;
        self.out.push(Action::SealKept { node, job });
    }

    /// The job is sealed for its deputy.
    pub(super) fn kept_sealed(&mut self, now: Now, job: JobId, sealed: Result<SealedKeep, String>) {
        let talk = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Sealing);
        let Some(talk) = talk else {
            if let Ok(sealed) = sealed {
                self.out.push(Action::DropBlobs(vec![sealed.root]));
            }
            return;
        };
        let node = talk.deputy;
        match sealed {
            Ok(SealedKeep { keep, root }) => {
                talk.stage = Stage::Giving;
                talk.sealed = vec![root];
                self.out.push(Action::Keep { node, job, keep: Box::new(keep) });
            }
            Err(why) => {
                (talk.stage, talk.again) = (Stage::Refused, Some(now.at + SEAL_AGAIN));
                self.log_job(job, &Line::NotKept { node: self.name(node), why: cut(why) });
            }
        }
    }

    pub(super) fn keep_answered(&mut self, now: Now, job: JobId, answer: Answer<KeepReply>) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Giving) else { return };
        let node = talk.deputy;
        match answer {
            Ok(KeepReply::Coming) => talk.again = Some(now.at + COMING),
            Err(_) => talk.again = Some(now.at + ASK_AGAIN),
            Ok(KeepReply::Refused(why)) => {
                (talk.stage, talk.again) = (Stage::Refused, Some(now.at + REFUSED));
                let sealed = std::mem::take(&mut talk.sealed);
                self.out.push(Action::Unkeep { node, job, sealed });
                self.log_job(job, &Line::NotKept { node: self.name(node), why: cut(why) });
            }
        }
    }

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
    fn tell_all(&mut self, now: Now, job: JobId, done: &BTreeSet<TaskId>) {
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
            self.show_deputy(now, deputy, plan.task);
        }
        self.tell_deputy(job);
    }

    /// A result that the deputy has not brought itself.
    fn show_deputy(&mut self, _now: Now, deputy: NodeId, task: TaskId) {
        let Some(attempt) = self.attempt_stored(&task) else { return };
        if self
            .jobs
            .attempt(&task, attempt)
            .is_some_and(|known| known.node != deputy || term_of(attempt) == 0)
        {
            self.deliver(deputy, task, attempt);
        }
    }

    /// Something of a task was written down: its deputy hears of what matters to it.
    pub(super) fn note_for_deputy(&mut self, now: Now, task: TaskId) {
        let Some(job) = self.jobs.task(&task).map(|known| known.job) else { return };
        let Some(talk) = self.talks.get(&job) else { return };
        let (deputy, kept) = (talk.deputy, talk.stage == Stage::Kept);
        if self.jobs.job(&job).is_some_and(|known| known.open == 0) {
            if let Some(talk) = self.talks.get_mut(&job) {
                talk.held_until = None;
            }
            // It is released once the step is over: a task may yet be wanted again in it.
            self.closed.insert(job);
            return;
        }
        if !kept {
            return;
        }
        let Some(news) = self.news_of(&task) else { return self.show_deputy(now, deputy, task) };
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

    /// Jobs that have ended are let go by their deputies.
    pub(super) fn release_closed(&mut self, now: Now) {
        for job in std::mem::take(&mut self.closed) {
            let Some(talk) = self.talks.get(&job) else { continue };
            let there = self.up.contains_key(&talk.deputy) && talk.stage != Stage::Releasing;
            if there && self.jobs.job(&job).is_some_and(|known| known.open == 0) {
                self.ask_deputy(now, job, false);
            }
        }
    }

    fn tell_deputy(&mut self, job: JobId) {
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

    pub(super) fn news_answered(&mut self, now: Now, job: JobId, answer: &Answer<()>) {
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

    pub(super) fn release_answered(&mut self, now: Now, job: JobId, answer: &Answer<()>) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Releasing) else {
            return;
        };
        if answer.is_err() {
            talk.again = Some(now.at + ASK_AGAIN);
            return;
        }
        if self.jobs.job(&job).is_some_and(|known| known.open > 0) {
            // Wanted again meanwhile.
            return self.ask_deputy(now, job, false);
        }
        self.end_talk(job);
        if self.jobs.job(&job).is_some() {
            self.commit(now, RequesterRecord::KeptNoMore { job });
        }
    }

    pub(super) fn end_talk(&mut self, job: JobId) {
        let Some(talk) = self.talks.remove(&job) else { return };
        self.end_deliveries_of(job);
        self.out.push(Action::Unkeep { node: talk.deputy, job, sealed: talk.sealed });
    }
}

/// A job ready to be given to its deputy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKeep {
    pub keep: Keep,
    /// The job itself, as a blob.
    pub root: ContentHash,
}
