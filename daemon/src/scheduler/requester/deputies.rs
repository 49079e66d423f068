//! Our jobs that a deputy holds as well: giving it the job, and asking it what it did while we were away before anything
//! more is granted here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::deputy::{
    InHand, Keep, KeepReply, Release, TakeBack, TakeBackReply, TaskNews, term_of,
};
use scenemesh_protocol::ids::{ClaimId, ContentHash, JobId, NodeId, TaskId};

use super::jobs::{AttemptState, TaskState};
use super::{Action, Requester};
use crate::scheduler::conversation::{Answer, Now};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{Line, cut};

mod choosing;
mod news;

pub use choosing::{KeepOn, NoDeputy};

/// So long an answer is waited for before a job goes on without it.
const HOLD: Duration = Duration::from_secs(30);
/// A question without an answer is asked again after this; a deputy that fetches a job is asked how far it is.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const COMING: Duration = Duration::from_secs(2);
/// A deputy that refused a job is asked again after this, as is one that again and again did not get hold of it.
const REFUSED: Duration = Duration::from_mins(10);
/// What a deputy has in hand is asked after at this pace, so many attempts at once.
const IN_HAND: Duration = Duration::from_secs(10);
const IN_HAND_AT_ONCE: usize = 32;
/// Handing a job over that failed here (a full disk) is tried again after this.
const SEAL_AGAIN: Duration = Duration::from_mins(1);
/// Jobs of which one deputy is asked, and that one is given, at the same time; the others wait their turn.
const ASKED_AT_ONCE: usize = 32;
const GIVEN_AT_ONCE: usize = 8;

/// How it stands between us and the deputy of one job.
#[derive(Debug)]
pub(super) struct Talk {
    deputy: NodeId,
    stage: Stage,
    hold: Hold,
    /// A hold ran out, and nothing was heard since: there is no other.
    unanswered: bool,
    /// When the next word to it is due.
    again: Option<Instant>,
    /// It is fetching the job.
    coming: bool,
    /// Times the job was given since the deputy last had it, and before when it is not given again.
    given: u32,
    give_after: Option<Instant>,
    /// What it has not been told yet.
    news: BTreeMap<TaskId, TaskNews>,
    /// What it was told last, of tasks that are not simply open.
    told: BTreeMap<TaskId, TaskNews>,
    telling: Vec<(TaskId, TaskNews)>,
    /// The job as it was sealed for it.
    sealed: Vec<ContentHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not connected.
    Away,
    /// Its turn to be asked, or released, comes.
    ToAsk,
    Asking,
    /// The job's turn to be given comes.
    ToGive,
    Sealing,
    /// It has the job, or is fetching it.
    Giving,
    Kept,
    Refused,
    Releasing,
}

/// Whether nothing of the job is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// Until it was asked and has answered.
    Queued,
    /// Until then, unless the deputy answers first.
    Until(Instant),
}

impl Talk {
    fn new(deputy: NodeId) -> Self {
        Self {
            deputy,
            stage: Stage::Away,
            hold: Hold::No,
            unanswered: false,
            again: None,
            coming: false,
            given: 0,
            give_after: None,
            news: BTreeMap::new(),
            told: BTreeMap::new(),
            telling: Vec::new(),
            sealed: Vec::new(),
        }
    }

    pub(super) fn deputy(&self) -> NodeId {
        self.deputy
    }

    fn is_held(&self) -> bool {
        self.hold != Hold::No
    }

    fn is_asked(&self) -> bool {
        matches!(self.stage, Stage::Asking | Stage::Releasing) && self.again.is_none()
    }

    fn is_given(&self) -> bool {
        matches!(self.stage, Stage::Sealing | Stage::Giving) || self.coming
    }

    /// Blobs that nobody else names.
    pub(super) fn sealed(&self) -> &[ContentHash] {
        &self.sealed
    }

    pub(super) fn deadline(&self, up: bool) -> Option<Instant> {
        let held = match self.hold {
            Hold::Until(until) => Some(until),
            Hold::No | Hold::Queued => None,
        };
        held.into_iter().chain(self.again.filter(|_| up)).min()
    }
}

impl Requester {
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

    /// Whether a deputy speaks of an attempt that its answer, which is under way, tells of.
    pub(super) fn is_about_to_be_told_of(&self, node: NodeId, task: &TaskId, attempt: u32) -> bool {
        let Some(known) = self.jobs.task(task) else { return false };
        let asked = |talk: &Talk| talk.deputy == node && matches!(talk.stage, Stage::ToAsk | Stage::Asking);
        let new = known.state.is_open() && !known.attempts.contains(attempt);
        new && self.is_with_deputy(task, attempt) && self.talks.get(&known.job).is_some_and(asked)
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
            let hold = if open { Hold::Until(now.at + HOLD) } else { Hold::No };
            (job, Talk { hold, ..Talk::new(deputy) })
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
            let Some(talk) = self.talks.get_mut(&job) else { continue };
            (talk.stage, talk.again, talk.coming) = (Stage::Away, None, false);
            talk.telling.clear();
            if talk.hold == Hold::Queued {
                talk.hold = Hold::Until(now.at + HOLD);
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

    /// Has it asked what it did meanwhile; of a job that is over it need not keep anything.
    fn ask_deputy(&mut self, now: Now, job: JobId, hold: bool) {
        let open = self.jobs.job(&job).is_some_and(|known| known.open > 0);
        let Some(talk) = self.talks.get_mut(&job) else { return };
        (talk.stage, talk.again) = (Stage::ToAsk, None);
        if hold && open && !talk.unanswered && talk.hold == Hold::No {
            talk.hold = Hold::Queued;
            self.dirty.insert(job);
        }
        let node = talk.deputy;
        self.next_words(now, node);
    }

    /// Says to a deputy what there is room for.
    fn next_words(&mut self, now: Now, node: NodeId) {
        if !self.up.contains_key(&node) {
            return;
        }
        let of_it = || self.talks.iter().filter(|(_, talk)| talk.deputy == node);
        let room = ASKED_AT_ONCE.saturating_sub(of_it().filter(|(_, talk)| talk.is_asked()).count());
        let ask = of_it().filter(|(_, talk)| talk.stage == Stage::ToAsk).take(room);
        let ask: Vec<JobId> = ask.map(|(job, _)| *job).collect();
        let room = GIVEN_AT_ONCE.saturating_sub(of_it().filter(|(_, talk)| talk.is_given()).count());
        let give = of_it().filter(|(_, talk)| talk.stage == Stage::ToGive).take(room);
        let give: Vec<JobId> = give.map(|(job, _)| *job).collect();
        for job in ask {
            let open = self.jobs.job(&job).is_some_and(|known| known.open > 0);
            let Some(talk) = self.talks.get_mut(&job) else { continue };
            if open {
                talk.stage = Stage::Asking;
                if talk.hold == Hold::Queued {
                    talk.hold = Hold::Until(now.at + HOLD);
                }
                self.out.push(Action::TakeBack { node, ask: TakeBack { job } });
            } else {
                talk.stage = Stage::Releasing;
                self.out.push(Action::Release { node, ask: Release { job } });
            }
        }
        for job in give {
            if let Err(why) = self.may_still_keep(job, node) {
                self.dismiss(now, job, why);
                continue;
            }
            let Some(talk) = self.talks.get_mut(&job) else { continue };
            talk.stage = Stage::Sealing;
            talk.given = talk.given.saturating_add(1);
            let wait = COMING.saturating_mul(1 << talk.given.min(16)).min(REFUSED);
            talk.give_after = Some(now.at + wait);
            self.unkeep(job);
            self.out.push(Action::SealKept { node, job });
        }
    }

    /// The job goes on here.
    fn end_hold(&mut self, job: JobId) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.is_held()) else { return };
        talk.hold = Hold::No;
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
            if matches!(talk.hold, Hold::Until(until) if until <= now.at) {
                talk.unanswered = true;
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
                Stage::Away | Stage::Sealing | Stage::ToAsk | Stage::ToGive => {}
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
        if answer.is_ok() {
            (talk.unanswered, talk.coming) = (false, false);
        }
        match answer {
            Err(_) => talk.again = Some(now.at + ASK_AGAIN),
            Ok(TakeBackReply::Unknown) => {
                let (wait, given) = (talk.give_after.filter(|at| *at > now.at), talk.given);
                (talk.stage, talk.again) = match wait {
                    Some(at) => (Stage::Refused, Some(at)),
                    None => (Stage::ToGive, None),
                };
                self.take_in_hand(now, job, node, &[]);
                self.end_hold(job);
                if wait.is_some() && given == 1 {
                    let why = "it did not get hold of the job; its log says why".to_owned();
                    self.log_job(job, &Line::NotKept { node: self.name(node), why });
                }
            }
            Ok(TakeBackReply::Coming) => {
                (talk.stage, talk.again, talk.coming) = (Stage::Giving, Some(now.at + COMING), true);
                self.end_hold(job);
            }
            Ok(TakeBackReply::Yours { in_hand, done }) => {
                (talk.stage, talk.again) = (Stage::Kept, None);
                (talk.given, talk.give_after) = (0, None);
                self.unkeep(job);
                self.take_in_hand(now, job, node, &in_hand);
                self.end_hold(job);
                self.tell_all(job, &done.into_iter().collect());
                self.ask_after(now, job);
                self.log_job(job, &Line::KeptOn { node: self.name(node) });
            }
        }
        if self.jobs.job(&job).is_none_or(|known| known.open == 0) {
            self.ask_deputy(now, job, false);
        }
        self.next_words(now, node);
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
            if known.attempts.contains(attempt) {
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

    /// What was sealed for the deputy is not served any longer.
    fn unkeep(&mut self, job: JobId) {
        let Some(talk) = self.talks.get_mut(&job) else { return };
        let (node, sealed) = (talk.deputy, std::mem::take(&mut talk.sealed));
        if !sealed.is_empty() {
            self.out.push(Action::Unkeep { node, job, sealed });
        }
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
                self.next_words(now, node);
            }
        }
    }

    pub(super) fn keep_answered(&mut self, now: Now, job: JobId, answer: Answer<KeepReply>) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Giving) else { return };
        let node = talk.deputy;
        match answer {
            Ok(KeepReply::Coming) => (talk.again, talk.coming) = (Some(now.at + COMING), true),
            Err(_) => talk.again = Some(now.at + ASK_AGAIN),
            Ok(KeepReply::Refused(why)) => {
                (talk.stage, talk.again) = (Stage::Refused, Some(now.at + REFUSED));
                self.unkeep(job);
                self.log_job(job, &Line::NotKept { node: self.name(node), why: cut(why) });
                self.next_words(now, node);
            }
        }
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

    pub(super) fn release_answered(&mut self, now: Now, job: JobId, answer: &Answer<()>) {
        let Some(talk) = self.talks.get_mut(&job).filter(|talk| talk.stage == Stage::Releasing) else {
            return;
        };
        let node = talk.deputy;
        if answer.is_err() {
            talk.again = Some(now.at + ASK_AGAIN);
        } else if self.jobs.job(&job).is_some_and(|known| known.open > 0) {
            // Wanted again meanwhile.
            self.ask_deputy(now, job, false);
        } else {
            self.end_talk(job);
            if self.jobs.job(&job).is_some() {
                self.commit(now, RequesterRecord::KeptNoMore { job });
            }
        }
        self.next_words(now, node);
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
