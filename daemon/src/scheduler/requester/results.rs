//! How tasks end: results fetched and stored, failures judged, cancels and retries.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::lease::{Ack, AckKind, Finished, FinishedReply, FinishedTerms, Outcome};
use scenemesh_protocol::receipt::WipeRecord;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Failure, FailureClass, OnSuspect, OutputFile};

use super::hopeless::Failed;
use super::jobs::{AttemptState, TaskState};
use super::{Action, Brought, FetchTrouble, Requester};
use crate::scheduler::conversation::{Now, Ticket};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{Line, cut};
use crate::scheduler::suspicion::Suspect;

/// First wait before a node that dropped a task may have it back; doubled each time.
const RETURN_AFTER: Duration = Duration::from_secs(10);
/// Longest such wait.
const RETURN_AT_LAST: Duration = Duration::from_mins(10);
/// First wait after a fetch that failed; doubled each time.
const FETCH_AGAIN: Duration = Duration::from_secs(1);
/// So long, and so many times, a renderer that is connected may fail to serve a result before the task is somebody
/// else's to take as well.
const FETCH_PATIENCE: Duration = Duration::from_mins(5);
const FETCH_FAILURES: u32 = 6;
/// Longest wait between two fetches.
const FETCH_AT_LAST: Duration = Duration::from_secs(30);

/// A result on its way here.
#[derive(Debug)]
pub(super) struct Fetch {
    finished: Box<Finished>,
    /// When it is tried again; `None` while it runs.
    pub(super) again: Option<Instant>,
    pub(super) tries: u32,
    pub(super) trouble: Option<String>,
    /// When it was first not served though the renderer was there, and how often since.
    unserved: Option<(Instant, u32)>,
    /// The task is not this attempt's any more; a result that comes first is taken all the same.
    pub(super) given_up: bool,
}

impl Fetch {
    fn new(finished: Box<Finished>) -> Self {
        Self { finished, again: None, tries: 0, trouble: None, unserved: None, given_up: false }
    }

    /// What is being fetched.
    pub(super) fn roots(&self) -> Vec<ContentHash> {
        match self.finished.terms.verify().map(|terms| terms.outcome.clone()) {
            Ok(Outcome::Done { roots, .. }) => roots.iter().map(|blob| blob.root).collect(),
            _ => Vec::new(),
        }
    }
}

impl Requester {
    /// A renderer says how an attempt ended. Without a ticket it said so in the answer to a probe.
    pub(super) fn finished(
        &mut self,
        now: Now,
        node: NodeId,
        finished: Box<Finished>,
        ticket: Option<Ticket>,
    ) {
        let terms = finished.terms.verify();
        let terms = terms.ok().filter(|terms| terms.signer() == PublicKey::from(node));
        let Some(terms) = terms else {
            tracing::warn!(peer = %node.short(), "a finished attempt whose signature does not hold");
            if let Some(ticket) = ticket {
                self.reply(ticket, FinishedReply::Discard);
            }
            return;
        };
        let (task, attempt) = (terms.task, terms.attempt);
        if let Some(wipe) = &finished.wipe {
            self.note_wipe(now, node, &terms, wipe);
        }
        let reply = self.take_finished(now, node, &terms, finished);
        match ticket {
            Some(ticket) => self.reply(ticket, reply),
            None if reply == FinishedReply::Discard => {
                self.out.push(Action::Ack { node, ack: Ack { task, attempt, kind: AckKind::Discard } });
            }
            None => {}
        }
    }

    /// Keeps what the renderer signs that it removed. One that does not hold changes nothing else.
    fn note_wipe(&mut self, now: Now, node: NodeId, terms: &FinishedTerms, wipe: &Signed<WipeRecord>) {
        let (task, attempt) = (terms.task, terms.attempt);
        let Some(known) = self.jobs.attempt(&task, attempt).filter(|known| known.node == node) else {
            return;
        };
        let (grant, first) = (known.grant_hash, known.wipe.is_none());
        let verified = wipe.verify().ok().filter(|wipe| {
            let about = (wipe.pool, wipe.task, wipe.attempt, wipe.grant);
            wipe.signer() == PublicKey::from(node) && about == (terms.pool, task, attempt, grant)
        });
        let Some(verified) = verified else {
            tracing::warn!(peer = %node.short(), task = %task.short(), "a record of a wipe that does not hold");
            return;
        };
        if !first {
            return;
        }
        let left = verified.left.iter().map(|left| u64::from(left.count)).sum::<u64>();
        let wipe = Box::new(wipe.clone());
        self.commit(now, RequesterRecord::Wiped { task, attempt, wipe });
        if left > 0 {
            tracing::warn!(peer = %node.short(), task = %task.short(), left, "a renderer could not remove all it made");
            self.log(task, Line::NotWiped { node: self.name(node) });
        }
    }

    fn take_finished(
        &mut self,
        now: Now,
        node: NodeId,
        terms: &FinishedTerms,
        finished: Box<Finished>,
    ) -> FinishedReply {
        let (task, attempt) = (terms.task, terms.attempt);
        self.expect_from_origin(now, node, terms);
        if self.is_about_to_be_told_of(node, &task, attempt) {
            return FinishedReply::Noted;
        }
        let known = self.jobs.attempt(&task, attempt);
        let Some(known) = known.filter(|known| known.node == node && known.is_live()) else {
            return FinishedReply::Discard;
        };
        let forged = |what: &str| Failure::new(FailureClass::ResultDoesNotVerify, what);
        if terms.grant != known.grant_hash {
            self.fail(now, task, attempt, forged("the result names another grant"));
            return FinishedReply::Discard;
        }
        match &terms.outcome {
            Outcome::Failed(failure) => {
                self.fail(now, task, attempt, failure.clone());
                FinishedReply::Discard
            }
            Outcome::Done { keys, .. } if *keys != ContentHash::of(&finished.keys) => {
                self.fail(now, task, attempt, forged("the result's keys are not the ones that were signed"));
                FinishedReply::Discard
            }
            Outcome::Done { .. } => {
                if let Some(outside) = self.is_out_of_reach(&task, node) {
                    self.fail(now, task, attempt, outside);
                    return FinishedReply::Discard;
                }
                self.take_up_again(now, task, attempt);
                let Some(contact) = self.contacts.get_mut(&(task, attempt)) else {
                    return FinishedReply::Noted;
                };
                contact.heard = now.at;
                contact.probing = None;
                if contact.fetch.is_none() {
                    contact.fetch = Some(Fetch::new(finished));
                    self.fetch(task, attempt);
                    self.log(task, Line::Finished { node: self.name(node) });
                }
                FinishedReply::Noted
            }
        }
    }

    pub(super) fn fetch(&mut self, task: TaskId, attempt: u32) {
        let Some(known) = self.jobs.attempt(&task, attempt) else { return };
        let (node, grant) = (known.node, known.grant_hash);
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        let Some(fetch) = &mut contact.fetch else { return };
        fetch.again = None;
        fetch.tries += 1;
        contact.probing = None;
        let finished = fetch.finished.clone();
        self.out.push(Action::Fetch { node, task, attempt, grant, finished });
        self.out.push(Action::Moved(task));
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        task: TaskId,
        attempt: u32,
        result: Result<Brought, FetchTrouble>,
    ) {
        let Some(known) = self.jobs.attempt(&task, attempt) else { return };
        let node = known.node;
        if !known.is_live() {
            // Cancelled, or another attempt was first.
            if let Ok(brought) = result {
                self.drop_results(&brought.outputs);
            }
            self.out.push(Action::Ack { node, ack: Ack { task, attempt, kind: AckKind::Discard } });
            return;
        }
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        let Some(fetch) = &mut contact.fetch else { return };
        match result {
            Ok(Brought { outputs, suspects })
                if !suspects.is_empty() && self.jobs.on_suspect(&task) == OnSuspect::Retry =>
            {
                self.drop_results(&outputs);
                let why = words(&outputs, &suspects);
                self.fail(now, task, attempt, Failure::new(FailureClass::Suspect, why));
                self.out.push(Action::Ack { node, ack: Ack { task, attempt, kind: AckKind::Discard } });
            }
            Ok(Brought { outputs, suspects }) => {
                let exec_ms = fetch.finished.terms.verify().map_or(0, |terms| terms.exec_ms);
                let files = outputs.len();
                let at_ms = now.wall_ms;
                self.commit(now, RequesterRecord::Stored { task, attempt, outputs, exec_ms, at_ms });
                if !suspects.is_empty() {
                    let files = u32::try_from(suspects.len()).unwrap_or(u32::MAX);
                    self.commit(now, RequesterRecord::Suspected { task, suspects });
                    self.log(task, Line::Suspect { node: self.name(node), files });
                }
                self.resting.remove(&node);
                self.log(task, Line::Done { node: self.name(node), files });
                self.out.push(Action::Ack { node, ack: Ack { task, attempt, kind: AckKind::Stored } });
            }
            Err(FetchTrouble::DoesNotVerify(why)) => {
                let roots = fetch.roots();
                self.out.push(Action::DropBlobs(roots));
                self.fail(now, task, attempt, Failure::new(FailureClass::ResultDoesNotVerify, why));
                self.out.push(Action::Ack { node, ack: Ack { task, attempt, kind: AckKind::Discard } });
            }
            Err(trouble) => {
                let (FetchTrouble::Unreachable(why)
                | FetchTrouble::Here(why)
                | FetchTrouble::DoesNotVerify(why)) = trouble.clone();
                if matches!(trouble, FetchTrouble::Unreachable(_)) && self.up.contains_key(&node) {
                    let (since, times) = fetch.unserved.unwrap_or((now.at, 0));
                    fetch.unserved = Some((since, times.saturating_add(1)));
                }
                let wait = FETCH_AGAIN.saturating_mul(1 << fetch.tries.min(8)).min(FETCH_AT_LAST);
                fetch.again = Some(now.at + wait);
                if fetch.tries == 1 {
                    // Until now its bytes came: the silence begins here.
                    contact.heard = now.at;
                }
                let first = fetch.trouble.replace(why.clone()).is_none();
                if first {
                    self.log(task, Line::FetchBroke { node: self.name(node), why: why.clone() });
                }
                self.out.push(Action::Moved(task));
                self.give_up_fetching(now, task, attempt, why);
            }
        }
    }

    fn drop_results(&mut self, outputs: &[OutputFile]) {
        self.out.push(Action::DropBlobs(outputs.iter().map(|output| output.root).collect()));
    }

    /// A renderer that announces a result again and again and never serves it does not keep the task.
    fn give_up_fetching(&mut self, now: Now, task: TaskId, attempt: u32, why: String) {
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        let Some(fetch) = contact.fetch.as_mut().filter(|fetch| !fetch.given_up) else { return };
        let Some((since, times)) = fetch.unserved else { return };
        let waited = now.at.saturating_duration_since(since);
        if waited < FETCH_PATIENCE || times < FETCH_FAILURES {
            return;
        }
        fetch.given_up = true;
        if self.jobs.attempt(&task, attempt).is_some_and(|known| known.state != AttemptState::Lost) {
            self.commit(now, RequesterRecord::Lost { task, attempt });
        }
        let told = format!(
            "the result was announced, but could not be fetched {times} times in {} s; last: {why}",
            waited.as_secs()
        );
        self.fail(now, task, attempt, Failure::new(FailureClass::Transfer, told));
    }

    /// An attempt failed: the class says whether and where the task goes on.
    pub(super) fn fail(&mut self, now: Now, task: TaskId, attempt: u32, failure: Failure) {
        let Some(known) = self.jobs.attempt(&task, attempt).filter(|known| known.is_live()) else { return };
        let node = known.node;
        let mut failure = Failure { class: failure.class, detail: cut(failure.detail) };
        if failure.class == FailureClass::Cancelled {
            // We did not ask for it: somebody at that machine stopped it, which is theirs to do.
            failure.class = FailureClass::OwnerReturned;
        }
        let class = failure.class;
        let card = self.nodes.nodes.get(&node).and_then(|node| node.card.as_ref());
        let more_vram_than_mib =
            (class == FailureClass::OutOfMemory).then(|| card.and_then(|card| card.vram_mib)).flatten();
        self.log(task, Line::Failed { node: self.name(node), failure: failure.clone() });
        let at_ms = now.wall_ms;
        self.commit(now, RequesterRecord::Failed { task, attempt, failure, more_vram_than_mib, at_ms });
        self.failed.insert(task, Failed::at(now.at));
        if class.counts_against_task() {
            self.note_fault(now, task, node);
        }
        let Some(known) = self.jobs.task(&task) else { return };
        match known.state {
            TaskState::Failed => self.log(task, Line::FailedForGood),
            _ if class.may_return_here() => {
                let times = known.failures.iter().filter(|(at, _)| *at == node).count().min(8);
                let wait = RETURN_AFTER.saturating_mul(1 << times.saturating_sub(1)).min(RETURN_AT_LAST);
                self.returns.insert((task, node), now.at + wait);
            }
            _ => {}
        }
    }

    pub(super) fn cancel(&mut self, now: Now, tasks: Vec<TaskId>) {
        let open = |task: &TaskId| self.jobs.task(task).is_some_and(|known| known.state.is_open());
        let tasks: Vec<TaskId> = tasks.into_iter().filter(open).collect();
        if tasks.is_empty() {
            return;
        }
        for task in &tasks {
            self.promised.remove(task);
        }
        self.commit(now, RequesterRecord::Cancelled { tasks: tasks.clone(), at_ms: now.wall_ms });
        for task in tasks {
            self.log(task, Line::Cancelled);
        }
    }

    pub(super) fn retry(&mut self, now: Now, tasks: &[TaskId]) {
        let tasks = self.jobs.to_retry(tasks);
        if tasks.is_empty() {
            return;
        }
        self.returns.retain(|(task, _), _| !tasks.contains(task));
        let jobs: BTreeSet<_> =
            tasks.iter().filter_map(|task| self.jobs.task(task)).map(|task| task.job).collect();
        jobs.into_iter().for_each(|job| self.forgive(job));
        let again: BTreeSet<_> =
            tasks.iter().filter_map(|task| self.jobs.task(task)).map(|task| task.job).collect();
        self.commit(now, RequesterRecord::Retried { tasks: tasks.clone(), at_ms: now.wall_ms });
        again.into_iter().for_each(|job| self.keep_again(now, job));
        for task in tasks {
            self.log(task, Line::QueuedAgain);
        }
    }

    /// What has not begun does not begin. A claim whose grant is still being sealed gets none.
    pub(super) fn pause(&mut self, now: Now, tasks: Vec<TaskId>) {
        let wanted =
            |task: &TaskId| self.jobs.task(task).is_some_and(|known| known.state.is_open() && !known.paused);
        let tasks: Vec<TaskId> = tasks.into_iter().filter(wanted).collect();
        if tasks.is_empty() {
            return;
        }
        for task in &tasks {
            self.promised.remove(task);
        }
        self.commit(now, RequesterRecord::Paused { tasks: tasks.clone(), at_ms: now.wall_ms });
        for task in tasks {
            self.log(task, Line::Paused);
        }
    }

    pub(super) fn resume(&mut self, now: Now, tasks: Vec<TaskId>) {
        let wanted = |task: &TaskId| self.jobs.task(task).is_some_and(|known| known.paused);
        let tasks: Vec<TaskId> = tasks.into_iter().filter(wanted).collect();
        if tasks.is_empty() {
            return;
        }
        self.commit(now, RequesterRecord::Resumed { tasks: tasks.clone(), at_ms: now.wall_ms });
        for task in tasks {
            self.log(task, Line::Resumed);
        }
    }
}

/// `key_00001_.png: every pixel has the same colour`.
fn words(outputs: &[OutputFile], suspects: &[Suspect]) -> String {
    let told = suspects.iter().map(|suspect| {
        let file = outputs.get(suspect.output as usize).map_or("", |output| output.filename.as_str());
        format!("{file}: {}", suspect.why)
    });
    told.collect::<Vec<_>>().join("; ")
}
