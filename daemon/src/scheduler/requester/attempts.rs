//! From grant to result: sends a grant until it is answered, hears the renderer, doubts it when it falls silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{NodeId, TaskId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::lease::{
    Ack, AckKind, AttemptState as Report, GrantReply, PREVIEW_LIMIT, Phase, Preview, Probe, Progress,
    RELAYED, RELAYED_LIMIT, RefusalReason, Verdict,
};
use scenemesh_protocol::task::{Failure, FailureClass};

use super::jobs::{AttemptState, TaskState};
use super::offers::{no_of, patience};
use super::results::Fetch;
use super::{Action, Requester};
use crate::scheduler::conversation::{Answer, Barred, LEASE, NoAnswer, Now, PROBE_PATIENCE, Ticket};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{Doing, Line};

/// A grant without an answer is sent again after this.
const GRANT_AGAIN: Duration = Duration::from_secs(2);
/// How long a node rests that twice did not take what it had claimed; doubled each time.
const REST: Duration = Duration::from_secs(2);
/// So often between two results an owner may come back just after a claim, with nothing held against the node.
const EXCUSES: u32 = 8;
/// Longest such rest.
const REST_AT_LAST: Duration = Duration::from_mins(10);

/// What is known of a live attempt, and is not worth writing down.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) node: NodeId,
    /// When the renderer last said anything about it.
    pub(super) heard: Instant,
    /// When our one probe of a silent renderer left.
    pub(super) probing: Option<Instant>,
    /// When the grant is sent again; `None` while it is under way.
    grant_again: Option<Instant>,
    pub(super) progress: Option<Progress>,
    /// Last line of the log about progress: phase and quarter.
    milestone: Option<(Phase, u64)>,
    pub(super) fetch: Option<Fetch>,
}

/// A node that did not take or keep what it had claimed, since its last result.
#[derive(Debug, Default)]
pub(super) struct Rest {
    balks: u32,
    /// Times it had a reason that is nobody's fault.
    excuses: u32,
    /// It is not asked before.
    pub(super) until: Option<Instant>,
}

impl Rest {
    /// How long it rests after one more; not at all after the first.
    fn wait(&self) -> Option<Duration> {
        let times = self.balks.checked_sub(1)?;
        Some(REST.saturating_mul(1 << times.min(12)).min(REST_AT_LAST))
    }
}

impl Contact {
    pub(super) fn new(node: NodeId, now: Instant) -> Self {
        Self {
            node,
            heard: now,
            probing: None,
            grant_again: None,
            progress: None,
            milestone: None,
            fetch: None,
        }
    }

    /// `quiet`: nothing follows from its silence.
    pub(super) fn deadline(&self, state: &AttemptState, up: bool, quiet: bool) -> Option<Instant> {
        let silence = match (state, &self.fetch) {
            _ if quiet => None,
            (AttemptState::Lost | AttemptState::Over(_), _) | (_, Some(Fetch { again: None, .. })) => None,
            _ => Some(self.probing.map_or(self.heard + LEASE, |since| since + PROBE_PATIENCE)),
        };
        let grant = if matches!(state, AttemptState::Granted(_)) { self.grant_again } else { None };
        let fetch = self.fetch.as_ref().and_then(|fetch| fetch.again);
        let sends = grant.into_iter().chain(fetch).filter(|_| up);
        sends.chain(silence).min()
    }

    fn hear(&mut self, now: Now) {
        self.heard = now.at;
        self.probing = None;
    }
}

impl Requester {
    pub(super) fn send_grant(&mut self, task: TaskId, attempt: u32) {
        let Some(known) = self.jobs.attempt(&task, attempt) else { return };
        let AttemptState::Granted(grant) = &known.state else { return };
        let grant = grant.clone();
        let node = known.node;
        // Written down, and meanwhile the project, the roster or a deputy says no: it does not leave, and its lease runs
        // out.
        let job = self.jobs.task(&task).map(|known| known.job);
        let leaves = job.is_some_and(|job| self.within_reach(job, node) && self.may_grant(job));
        if let Some(contact) = self.contacts.get_mut(&(task, attempt)) {
            contact.grant_again = None;
        }
        if !leaves {
            return;
        }
        self.out.push(Action::Grant { node, task, attempt, grant });
    }

    pub(super) fn grant_answered(
        &mut self,
        now: Now,
        task: TaskId,
        attempt: u32,
        answer: Answer<GrantReply>,
    ) {
        let Some(known) = self.jobs.attempt(&task, attempt).filter(|known| known.is_live()) else { return };
        let (node, grant, granted) =
            (known.node, known.grant_hash, matches!(known.state, AttemptState::Granted(_)));
        let name = self.name(node);
        match answer {
            Ok(GrantReply::Accepted(accepted)) => {
                let holds = accepted.verify().is_ok_and(|terms| {
                    let named = (terms.task, terms.attempt, terms.grant) == (task, attempt, grant);
                    named && terms.signer() == PublicKey::from(node)
                });
                if !holds {
                    self.log(task, Line::BadSignature { node: name });
                    self.grant_again(now, task, attempt);
                    return;
                }
                self.hear(now, task, attempt);
                if granted {
                    let accepted = Box::new(accepted);
                    self.commit(now, RequesterRecord::Accepted { task, attempt, accepted });
                    self.log(task, Line::Accepted { node: name });
                } else {
                    self.verdict(now, node, task, attempt);
                }
            }
            Ok(GrantReply::Rejected { refusal, failure: Some(failure) }) => {
                self.log(task, Line::Rejected { node: name, no: no_of(refusal) });
                self.fail(now, task, attempt, failure);
            }
            Ok(GrantReply::Rejected { refusal, failure: None }) => {
                let reason = refusal.reason;
                let no = no_of(refusal);
                self.log(task, Line::NotTaken { node: name, no: no.clone() });
                self.commit(now, RequesterRecord::Refused { task, attempt, reason });
                match reason {
                    RefusalReason::NotNow | RefusalReason::Stopping => self.excused(now, node),
                    _ => self.balked(now, node),
                }
                let job = self.jobs.task(&task).map(|task| task.job);
                if let Some(job) = job.filter(|_| reason != RefusalReason::Busy) {
                    self.refuse(now, job, node, no, patience(reason));
                }
            }
            Err(NoAnswer(_)) => self.grant_again(now, task, attempt),
        }
    }

    /// A node did not take or keep what it had claimed. Once is chance: a hold of two seconds runs out. Again and
    /// again it would fill both journals with grants, so each time it is left alone for longer.
    fn balked(&mut self, now: Now, node: NodeId) {
        let rest = self.resting.entry(node).or_default();
        let wait = rest.wait();
        rest.balks = rest.balks.saturating_add(1);
        rest.until = wait.map(|wait| now.at + wait);
        if wait.is_some() {
            self.dirty.extend(self.jobs.open_jobs());
        }
    }

    /// Its owner came back, or it is leaving, between its claim and our grant: nobody broke a word. Who says so again
    /// and again without ever rendering is treated like who did.
    fn excused(&mut self, now: Now, node: NodeId) {
        let rest = self.resting.entry(node).or_default();
        rest.excuses = rest.excuses.saturating_add(1);
        if rest.excuses > EXCUSES {
            self.balked(now, node);
        }
    }

    fn grant_again(&mut self, now: Now, task: TaskId, attempt: u32) {
        if let Some(contact) = self.contacts.get_mut(&(task, attempt)) {
            contact.grant_again = Some(now.at + GRANT_AGAIN);
        }
    }

    pub(super) fn hear(&mut self, now: Now, task: TaskId, attempt: u32) {
        if let Some(contact) = self.contacts.get_mut(&(task, attempt)) {
            contact.hear(now);
        }
    }

    /// The node of a live attempt is back: find out where both stand.
    pub(super) fn reconcile(&mut self, task: TaskId, attempt: u32) {
        let Some(known) = self.jobs.attempt(&task, attempt) else { return };
        let node = known.node;
        if self.is_with_deputy(&task, attempt) {
            // It is asked for all of them at once.
            return;
        }
        if matches!(known.state, AttemptState::Granted(_)) {
            // Not a probe: that would make the renderer refuse a grant it has not seen yet.
            self.send_grant(task, attempt);
            return;
        }
        match self.contacts.get_mut(&(task, attempt)).and_then(|contact| contact.fetch.as_mut()) {
            Some(fetch) if fetch.again.is_some() => {
                fetch.tries = 0;
                self.fetch(task, attempt);
            }
            Some(_) => {}
            None => self.out.push(Action::Probe { node, task, attempt }),
        }
    }

    /// Fifteen seconds without a word, then one question of our own, then the task is somebody else's to take.
    pub(super) fn judge_silence(&mut self, now: Now, task: TaskId, attempt: u32) {
        let with_deputy = self.is_with_deputy(&task, attempt);
        let Some(known) = self.jobs.attempt(&task, attempt) else { return };
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        let node = contact.node;
        let up = self.up.contains_key(&node);
        let (granted, lost) =
            (matches!(known.state, AttemptState::Granted(_)), known.state == AttemptState::Lost);
        if granted && up && contact.grant_again.is_some_and(|at| at <= now.at) {
            self.send_grant(task, attempt);
            return;
        }
        match &contact.fetch {
            Some(Fetch { again: None, .. }) => return,
            Some(Fetch { again: Some(at), .. }) if up && *at <= now.at => {
                self.fetch(task, attempt);
                return;
            }
            _ => {}
        }
        if lost || now.at < contact.heard + LEASE || (up && with_deputy) {
            return;
        }
        match contact.probing {
            None if up => {
                contact.probing = Some(now.at);
                self.out.push(Action::Probe { node, task, attempt });
                self.log(task, Line::Silent { node: self.name(node) });
            }
            Some(since) if now.at < since + PROBE_PATIENCE => {}
            _ => self.lose(now, task, attempt),
        }
    }

    fn lose(&mut self, now: Now, task: TaskId, attempt: u32) {
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        contact.probing = None;
        let silent_s = now.at.saturating_duration_since(contact.heard).as_secs();
        let node = self.name(self.contacts[&(task, attempt)].node);
        self.log(task, Line::Lost { node, silent_s });
        self.commit(now, RequesterRecord::Lost { task, attempt });
    }

    /// These nodes are shut out: their leases are lost now, and what they bring is refused even if it is the first.
    pub(super) fn shut_out(&mut self, now: Now, barred: Arc<Barred>) {
        self.barred = barred;
        self.let_go_of_barred(now);
        let me = self.nodes.me;
        let gone = self.contacts.iter().filter_map(|((task, attempt), contact)| {
            let words = self.barred.get(&contact.node).filter(|_| contact.node != me)?;
            Some((*task, *attempt, words.clone()))
        });
        for (task, attempt, words) in gone.collect::<Vec<_>>() {
            self.fail(now, task, attempt, Failure::new(FailureClass::Revoked, words));
        }
        let (barred, dirty) = (self.barred.clone(), &mut self.dirty);
        let mut ended: Vec<NodeId> = Vec::new();
        for (job, reservations) in &self.reservations {
            let out = reservations.keys().filter(|node| **node != me && barred.contains_key(*node));
            ended.extend(out);
            dirty.insert(*job);
        }
        ended.into_iter().for_each(|node| self.forget_reservations_at(node));
    }

    pub(super) fn probe_answered(&mut self, now: Now, task: TaskId, attempt: u32, answer: Answer<Report>) {
        let Some(known) = self.jobs.attempt(&task, attempt).filter(|known| known.is_live()) else { return };
        let (node, granted) = (known.node, matches!(known.state, AttemptState::Granted(_)));
        let Some(contact) = self.contacts.get(&(task, attempt)) else { return };
        match answer {
            // What is being fetched proves itself, or fails by itself.
            Ok(Report::Unknown) if contact.fetch.as_ref().is_some_and(|fetch| fetch.again.is_none()) => {}
            Ok(Report::Unknown) => {
                self.log(task, Line::Unheld { node: self.name(node) });
                self.commit(now, RequesterRecord::Unheld { task, attempt });
                if !self.is_with_deputy(&task, attempt) {
                    self.balked(now, node);
                }
            }
            Ok(Report::Running(_)) => {
                self.verdict(now, node, task, attempt);
                if granted {
                    self.send_grant(task, attempt);
                }
            }
            Ok(Report::Finished(finished)) => self.finished(now, node, finished, None),
            // The probe was the last question only where silence had run the lease out.
            Err(NoAnswer(_)) if contact.probing.is_some() => self.lose(now, task, attempt),
            Err(NoAnswer(_)) => {}
        }
    }

    pub(super) fn cancel_answered(&mut self, task: TaskId, attempt: u32, answer: Answer<Report>) {
        let Ok(report) = answer else { return };
        let Some(node) = self.cancels.remove(&(task, attempt)) else { return };
        if matches!(report, Report::Finished(_)) {
            let ack = Ack { task, attempt, kind: AckKind::Discard };
            self.out.push(Action::Ack { node, ack });
        }
    }

    pub(super) fn probed(&mut self, now: Now, node: NodeId, probe: Probe, ticket: Ticket) {
        if !self.granted_to(node, &probe) {
            let report = self.tell_of_hand(node, probe.task, probe.attempt);
            return self.reply(ticket, report);
        }
        let verdict = self.verdict(now, node, probe.task, probe.attempt);
        self.reply(ticket, verdict);
    }

    pub(super) fn progressed(&mut self, now: Now, node: NodeId, progress: Progress, ticket: Ticket) {
        let (task, attempt) = (progress.task, progress.attempt);
        let verdict = self.verdict(now, node, task, attempt);
        self.reply(ticket, verdict);
        if !matches!(verdict, Verdict::Continue | Verdict::Drain) {
            return;
        }
        let Some(contact) = self.contacts.get_mut(&(task, attempt)) else { return };
        if contact.progress.as_ref().is_some_and(|last| last.seq >= progress.seq) {
            return;
        }
        let mut progress = progress;
        let fits = |preview: &Preview| {
            let limit = if preview.mime == RELAYED { RELAYED_LIMIT } else { PREVIEW_LIMIT };
            preview.bytes.len() <= limit
        };
        if let Some(preview) = progress.preview.take().filter(fits) {
            self.out.push(Action::Preview { task, preview });
        }
        let quarter = (u64::from(progress.step) * 4).checked_div(u64::from(progress.max)).unwrap_or(0);
        let milestone = (progress.phase, quarter);
        let line = (contact.milestone.replace(milestone) != Some(milestone)).then(|| Doing::of(&progress));
        contact.progress = Some(progress);
        self.out.push(Action::Moved(task));
        if let Some(doing) = line {
            self.log(task, Line::Doing { node: self.name(node), doing });
        }
    }

    /// What a renderer that speaks of an attempt is told; hearing from it renews the lease, and a lease that was
    /// lost is taken up again while nobody else has the task.
    fn verdict(&mut self, now: Now, node: NodeId, task: TaskId, attempt: u32) -> Verdict {
        let Some(known) = self.jobs.attempt(&task, attempt).filter(|known| known.node == node) else {
            return Verdict::Unknown;
        };
        match known.state {
            AttemptState::Over(_) => Verdict::Cancel,
            AttemptState::Granted(_) | AttemptState::Running => {
                self.hear(now, task, attempt);
                Verdict::Continue
            }
            AttemptState::Lost => {
                self.hear(now, task, attempt);
                self.take_up_again(now, task, attempt);
                match self.jobs.task(&task).map(|task| task.state) {
                    // Two at work: the one that holds the lease goes on, unless it may yet refuse.
                    Some(TaskState::Held(other)) if other != attempt => match self.jobs.attempt(&task, other)
                    {
                        Some(other) if other.state == AttemptState::Running => Verdict::Cancel,
                        _ => Verdict::Continue,
                    },
                    _ => Verdict::Continue,
                }
            }
        }
    }

    /// A renderer whose lease was lost still has the task, and nobody else does: it is its again.
    pub(super) fn take_up_again(&mut self, now: Now, task: TaskId, attempt: u32) {
        let Some(known) = self.jobs.task(&task) else { return };
        let waits = known.state == TaskState::Ready && !self.promised.contains_key(&task);
        let lost = known.attempts.get(attempt).filter(|attempt| attempt.state == AttemptState::Lost);
        let Some(node) = lost.filter(|_| waits).map(|attempt| attempt.node) else { return };
        let fetch = self.contacts.get(&(task, attempt)).and_then(|contact| contact.fetch.as_ref());
        if fetch.is_some_and(|fetch| fetch.given_up) {
            return;
        }
        self.commit(now, RequesterRecord::Revived { task, attempt });
        self.log(task, Line::Back { node: self.name(node) });
    }
}
