//! An accepted attempt: inputs, run, result, and the result's way to whoever asked for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use scenemesh_protocol::lease::{
    Ack, AttemptState as Report, Cancel, Finished, FinishedReply, Phase, Preview, Probe, Progress, RELAYED,
    Verdict,
};
use scenemesh_protocol::messages::{Decline, Declined, Done};
use scenemesh_protocol::task::{Failure, FailureClass};

use super::farewells::Farewell;
use super::holdings::Sealed;
use super::pace::Pace;
use super::{Action, InputTrouble, Occupant, Renderer, RunEvent, RunOutcome, RunTrouble, SlotState};
use crate::executor::Wipe;
use crate::scheduler::conversation::{
    Answer, AttemptKey, HEARTBEAT, NoAnswer, Now, RESULT_KEPT_MS, TOMBSTONE_KEPT_MS, Ticket,
};
use crate::scheduler::record::RendererRecord;

/// Between two reports of news.
const REPORT_GAP: Duration = Duration::from_millis(300);
/// Previews and other frames that wait for a report.
const PREVIEWS_WAITING: usize = 32;
/// How long inputs may stay out of reach, and a slot unready, before the attempt fails and the slot is somebody
/// else's.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries of what did not work.
const AGAIN: Duration = Duration::from_secs(2);
/// A result that was noted and not acknowledged is announced again after this.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30);
/// Most attempts of one requester that are remembered as given up before it must not name new ones that were never
/// here: each takes a line of the journal.
const TOMBSTONES_PER_NODE: usize = 4096;
/// Between two sweeps of what is kept too long.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// What is being done for an attempt, and is not worth writing down.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) stage: Stage,
    phase: Phase,
    seq: u64,
    node: String,
    pub(super) step: u32,
    pub(super) max: u32,
    nodes_done: u32,
    nodes_total: u32,
    /// The newest picture and what else ComfyUI sent; one goes with each report.
    previews: VecDeque<Preview>,
    /// Something new since the last report.
    news: bool,
    /// None: a report is due at once.
    reported: Option<Instant>,
    /// A report is under way.
    reporting: bool,
    /// When it was last given to the executor.
    pub(super) began: Option<Instant>,
    pub(super) pace: Pace,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Inputs are on their way; `again` when that failed, until `give_up`; all of it no longer than `until`.
    Fetching { again: Option<Instant>, give_up: Option<Instant>, until: Option<Instant> },
    /// Inputs are here; the slot is not.
    Waiting { again: Option<Instant>, give_up: Instant },
    /// Given to the executor.
    Running,
    /// Ended; the result is being sealed.
    Sealing,
    /// The result waits to be taken.
    Sealed { again: Option<Instant>, tries: u32 },
}

impl Work {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Fetching { again: None, give_up: None, until: None },
            phase: Phase::Fetching,
            seq: 0,
            node: String::new(),
            step: 0,
            max: 0,
            nodes_done: 0,
            nodes_total: 0,
            previews: VecDeque::new(),
            news: false,
            reported: Some(now),
            reporting: false,
            began: None,
            pace: Pace::default(),
        }
    }

    /// When a report is due by the clock.
    fn report_due(&self) -> Option<Instant> {
        if self.reporting || matches!(self.stage, Stage::Sealed { .. }) {
            return None;
        }
        // A preview is already as rare as previews are to be: whoever watches does not wait for the next report.
        let gap = match (self.previews.is_empty(), self.news) {
            (false, _) => Duration::ZERO,
            (true, true) => REPORT_GAP,
            (true, false) => HEARTBEAT,
        };
        self.reported.map(|at| at + gap)
    }

    pub(super) fn deadline(&self, up: bool) -> Option<Instant> {
        let (stage, needs_peer) = match &self.stage {
            Stage::Fetching { again: Some(again), give_up, .. } => {
                (Some(give_up.map_or(*again, |at| at.min(*again))), false)
            }
            Stage::Waiting { again, give_up } => (Some(again.map_or(*give_up, |at| at.min(*give_up))), false),
            Stage::Sealed { again, .. } => (*again, true),
            Stage::Fetching { again: None, .. } | Stage::Running | Stage::Sealing => (None, false),
        };
        let report = self.report_due().filter(|_| up);
        stage.filter(|_| up || !needs_peer).into_iter().chain(report).min()
    }

    /// A picture takes the place of the one before it; other frames wait their turn, the oldest not for ever.
    fn show(&mut self, preview: Preview) {
        let before = self.previews.iter_mut().find(|before| before.mime != RELAYED);
        match before.filter(|_| preview.mime != RELAYED) {
            Some(before) => *before = preview,
            None => {
                if self.previews.len() >= PREVIEWS_WAITING {
                    self.previews.pop_front();
                }
                self.previews.push_back(preview);
            }
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.news = true;
        }
    }
}

impl Renderer {
    pub(super) fn start(&mut self, now: Now) {
        self.sweep(now);
        let held: Vec<_> = self.holdings.all().map(|(key, held)| (*key, held.clone())).collect();
        for (key, held) in held {
            let mut work = Work::new(now.at);
            if let Some(sealed) = held.sealed {
                work.stage = Stage::Sealed { again: Some(now.at), tries: 0 };
                work.phase = Phase::Sealing;
                self.work.insert(key, work);
                self.out.push(Action::Serve { key, roots: sealed.roots });
            } else {
                self.taken.insert(held.acceptance.slot.clone(), Occupant::Attempt(key));
                self.work.insert(key, work);
                self.fetch_inputs(now, key);
            }
        }
    }

    /// The requester is back: whatever waited for it goes on at once, and both learn where the other stands.
    pub(super) fn reconcile(&mut self, now: Now, key: AttemptKey) {
        let Some(work) = self.work.get_mut(&key) else { return };
        work.reported = None;
        work.reporting = false;
        match &work.stage {
            Stage::Sealed { .. } => self.announce(key),
            Stage::Fetching { again: Some(_), .. } => self.fetch_inputs(now, key),
            _ => {}
        }
    }

    pub(super) fn look_after(&mut self, now: Now, key: AttemptKey) {
        let up = self.up.contains_key(&key.from);
        let Some(work) = self.work.get(&key) else { return };
        match &work.stage {
            Stage::Fetching { again: Some(_), give_up: Some(at), .. } if *at <= now.at => {
                self.held_in_vain(now, key.from);
                let failure = Failure::new(FailureClass::Transfer, "the inputs could not be fetched");
                self.seal(key, RunOutcome::Failed(failure), None);
            }
            Stage::Fetching { again: Some(at), .. } if *at <= now.at => self.fetch_inputs(now, key),
            Stage::Waiting { give_up, .. } if *give_up <= now.at => {
                let failure = Failure::new(FailureClass::ComfyuiDied, "its ComfyUI did not become ready");
                self.seal(key, RunOutcome::Failed(failure), None);
            }
            Stage::Waiting { again: Some(at), .. } if *at <= now.at => self.run(now, key),
            Stage::Sealed { again: Some(at), .. } if up && *at <= now.at => self.announce(key),
            _ => {}
        }
    }

    pub(super) fn fetch_inputs(&mut self, now: Now, key: AttemptKey) {
        let Some(held) = self.holdings.held(&key) else { return };
        let blobs = held.acceptance.roots.clone();
        let most = self.fetch_time(&blobs);
        let Some(work) = self.work.get_mut(&key) else { return };
        let (give_up, until) = match work.stage {
            Stage::Fetching { give_up, until, .. } => (give_up, until),
            _ => (None, None),
        };
        if blobs.is_empty() {
            self.inputs_fetched(now, key, Ok(()));
            return;
        }
        let until = until.unwrap_or(now.at + most);
        work.stage = Stage::Fetching { again: None, give_up, until: Some(until) };
        let within = until.saturating_duration_since(now.at);
        self.out.push(Action::FetchInputs { key, blobs, within });
    }

    pub(super) fn inputs_fetched(&mut self, now: Now, key: AttemptKey, result: Result<(), InputTrouble>) {
        let Some(work) = self.work.get_mut(&key) else { return };
        let Stage::Fetching { give_up, until, .. } = work.stage else { return };
        match result {
            Ok(()) => {
                work.stage = Stage::Waiting { again: None, give_up: now.at + PATIENCE };
                work.set_phase(Phase::Queued);
                self.meant_it(now, key.from);
                self.run(now, key);
            }
            Err(InputTrouble::Unreachable(_)) => {
                let give_up = Some(give_up.unwrap_or(now.at + PATIENCE));
                work.stage = Stage::Fetching { again: Some(now.at + AGAIN), give_up, until };
            }
            Err(InputTrouble::Failed(failure)) => {
                if failure.class == FailureClass::Transfer {
                    self.held_in_vain(now, key.from);
                }
                self.seal(key, RunOutcome::Failed(failure), None);
            }
        }
    }

    pub(super) fn run_what_waits(&mut self, now: Now) {
        let waiting = self.work.iter().filter(|(_, work)| matches!(work.stage, Stage::Waiting { .. }));
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.run(now, key);
        }
    }

    /// Gives it to the executor when its slot is ready: the same slot as before a restart, because that is
    /// where its prompt may be.
    fn run(&mut self, now: Now, key: AttemptKey) {
        let Some(held) = self.holdings.held(&key) else { return };
        let slot = held.acceptance.slot.clone();
        let Some(work) = self.work.get_mut(&key) else { return };
        let Stage::Waiting { give_up, .. } = work.stage else { return };
        let ready = self.facts.slots.iter().find(|known| known.name == slot).is_some_and(|known| {
            let mine = SlotState::Busy { task: key.task, attempt: key.attempt };
            known.state == SlotState::Ready || known.state == mine
        });
        if ready {
            work.stage = Stage::Running;
            work.began = Some(now.at);
            self.out.push(Action::Run { key, slot });
        } else {
            work.stage = Stage::Waiting { again: Some(now.at + AGAIN), give_up };
        }
    }

    pub(super) fn run_answered(&mut self, now: Now, key: AttemptKey, result: Result<(), RunTrouble>) {
        let leaving = self.is_leaving(&key);
        let Some(work) = self.work.get_mut(&key).filter(|_| !leaving) else {
            // Given up while it was being handed over. The executor may have heard of the end before the
            // beginning: say it again; where it took nothing there is nothing to wait for.
            match result {
                Ok(()) => self.out.push(Action::CancelRun { task: key.task, attempt: key.attempt }),
                Err(_) => {
                    self.let_go(key);
                    self.farewells.remove(&key);
                }
            }
            return;
        };
        if !matches!(work.stage, Stage::Running) {
            return;
        }
        match result {
            Ok(()) => {}
            Err(RunTrouble::NotNow(_)) => {
                work.stage = Stage::Waiting { again: Some(now.at + AGAIN), give_up: now.at + PATIENCE };
            }
            Err(RunTrouble::Failed(failure)) => self.seal(key, RunOutcome::Failed(failure), None),
        }
    }

    pub(super) fn ran(&mut self, now: Now, task: TaskId, attempt: u32, event: RunEvent) {
        let named = |key: &AttemptKey| (key.task, key.attempt) == (task, attempt) && !self.is_leaving(key);
        let Some(key) = self.work.keys().copied().find(named) else {
            if self.smoke_ran(now, task, &event) {
                return;
            }
            if let RunEvent::Ended { outcome, wipe } = event {
                self.ended_unwanted(task, attempt, outcome, wipe);
            }
            return;
        };
        let Some(work) = self.work.get_mut(&key) else { return };
        if !matches!(work.stage, Stage::Running) {
            return;
        }
        match event {
            RunEvent::Started => {
                work.set_phase(Phase::Running);
                work.pace.start(now.at);
            }
            RunEvent::Progress { node, step, max, nodes_done, nodes_total } => {
                work.set_phase(Phase::Running);
                work.pace.note(now.at, &node, (step, max), (nodes_done, nodes_total));
                work.node = node;
                (work.step, work.max) = (step, max);
                (work.nodes_done, work.nodes_total) = (nodes_done, nodes_total);
                work.news = true;
            }
            RunEvent::Preview(preview) => {
                work.show(preview);
                work.news = true;
            }
            RunEvent::Ended { outcome, wipe } => {
                self.note_health(now, key, &outcome);
                self.seal(key, outcome, wipe);
            }
        }
    }

    pub(super) fn seal(&mut self, key: AttemptKey, outcome: RunOutcome, wipe: Option<Wipe>) {
        let Some(held) = self.holdings.held(&key) else { return };
        let grant = held.acceptance.grant.terms.hash();
        if let Some(work) = self.work.get_mut(&key) {
            work.stage = Stage::Sealing;
            work.set_phase(Phase::Sealing);
            self.out.push(Action::SealResult { key, grant, outcome, wipe });
        }
    }

    pub(super) fn sealed(
        &mut self,
        now: Now,
        key: AttemptKey,
        finished: Box<Finished>,
        roots: Vec<ContentHash>,
        keep_ms: Option<u64>,
    ) {
        // What was removed after an attempt that was given back: its end was told before.
        if finished.wipe.is_some() && self.work.contains_key(&key) && self.farewells.contains_key(&key) {
            return self.farewell(key, finished);
        }
        let Some(work) = self.work.get_mut(&key) else {
            self.out.push(Action::DropResults { key, roots });
            if self.farewells.contains_key(&key) {
                self.farewell(key, finished);
            }
            return;
        };
        if !matches!(work.stage, Stage::Sealing) {
            return;
        }
        work.stage = Stage::Sealed { again: Some(now.at), tries: 0 };
        let AttemptKey { from, task, attempt } = key;
        let record = RendererRecord::Sealed {
            from,
            task,
            attempt,
            finished,
            roots: roots.clone(),
            at_ms: now.wall_ms,
        };
        if let RendererRecord::Sealed { finished, roots, .. } = &record {
            self.charge_result(now, from, finished, roots.len());
        }
        self.commit(record);
        if let Some(keep_ms) = keep_ms.filter(|keep_ms| *keep_ms < RESULT_KEPT_MS) {
            self.commit(RendererRecord::Keeping { from, task, attempt, keep_ms });
        }
        self.vacate(key);
        self.drop_inputs(key);
        self.out.push(Action::Serve { key, roots });
        if self.up.contains_key(&from) {
            self.announce(key);
        }
    }

    fn announce(&mut self, key: AttemptKey) {
        let Some(sealed) = self.holdings.held(&key).and_then(|held| held.sealed.as_ref()) else { return };
        let finished = sealed.finished.clone();
        let Some(Work { stage: Stage::Sealed { again, tries }, .. }) = self.work.get_mut(&key) else {
            return;
        };
        *again = None;
        *tries += 1;
        self.out.push(Action::Finished { key, finished });
    }

    pub(super) fn finished_answered(&mut self, now: Now, key: AttemptKey, answer: Answer<FinishedReply>) {
        let Some(Work { stage: Stage::Sealed { again, tries }, .. }) = self.work.get_mut(&key) else {
            if answer.is_ok() {
                self.farewells.retain(|of, owed| *of != key || matches!(owed, Farewell::Leaving(_)));
            }
            return;
        };
        match answer {
            Ok(FinishedReply::Discard) => self.give_up(now, key),
            Ok(FinishedReply::Noted) => *again = Some(now.at + ANNOUNCE_AGAIN),
            Err(NoAnswer(_)) => {
                let wait = AGAIN.saturating_mul(1 << (*tries).min(5));
                *again = Some(now.at + wait);
            }
        }
    }

    pub(super) fn progress_answered(&mut self, now: Now, key: AttemptKey, answer: Answer<Verdict>) {
        let Some(work) = self.work.get_mut(&key) else { return };
        work.reporting = false;
        match answer {
            // Without an answer the lease may run out over there; the render goes on all the same: a late
            // result is taken if it is the first.
            Ok(Verdict::Continue) | Err(NoAnswer(_)) => {}
            Ok(Verdict::Drain) => self.forget_reservations_of(key.from),
            Ok(Verdict::Cancel | Verdict::Unknown) => self.give_up(now, key),
        }
    }

    pub(super) fn acked(&mut self, now: Now, from: NodeId, ack: Ack, ticket: Ticket) {
        let key = AttemptKey { from, task: ack.task, attempt: ack.attempt };
        if self.holdings.held(&key).is_some() {
            self.give_up(now, key);
        }
        self.reply(ticket, Done);
    }

    pub(super) fn cancel_asked(&mut self, now: Now, from: NodeId, cancel: Cancel, ticket: Ticket) {
        let key = AttemptKey { from, task: cancel.task, attempt: cancel.attempt };
        match self.refuse_from_now_on(now, key) {
            Ok(()) => self.reply(ticket, Report::Unknown),
            Err(declined) => self.reply(ticket, declined),
        }
    }

    pub(super) fn probed(&mut self, now: Now, from: NodeId, probe: Probe, ticket: Ticket) {
        let key = AttemptKey { from, task: probe.task, attempt: probe.attempt };
        let examining =
            self.claims.values().any(|claim| claim.exam.as_ref().is_some_and(|exam| exam.key == key));
        let report = match (self.holdings.held(&key), self.work.get(&key)) {
            (Some(held), Some(work)) => match &held.sealed {
                Some(sealed) => Report::Finished(sealed.finished.clone()),
                None => Report::Running(work.phase),
            },
            _ if examining => Report::Running(Phase::Fetching),
            _ => match self.refuse_from_now_on(now, key) {
                Ok(()) => Report::Unknown,
                Err(declined) => return self.reply(ticket, declined),
            },
        };
        self.reply(ticket, report);
    }

    /// Held or not: this attempt will not run here any more, whatever is still under way.
    ///
    /// # Errors
    /// When so many that were never seen here were refused that this one is not written down, and so not promised.
    fn refuse_from_now_on(&mut self, now: Now, key: AttemptKey) -> Result<(), Declined> {
        let AttemptKey { from, task, attempt } = key;
        if self.holdings.held(&key).is_some() {
            self.give_up(now, key);
        } else if !self.holdings.is_given_up(&key) {
            if self.holdings.given_up_by(&from) >= TOMBSTONES_PER_NODE {
                let detail = "too many attempts that it never had, ask again later".to_owned();
                return Err(Declined { why: Decline::Busy, detail });
            }
            self.commit(RendererRecord::Dropped { from, task, attempt, at_ms: now.wall_ms });
        }
        Ok(())
    }

    /// The attempt is over for us: stop it if it runs, keep nothing of it.
    fn give_up(&mut self, now: Now, key: AttemptKey) {
        let AttemptKey { from, task, attempt } = key;
        self.end(key, RendererRecord::Dropped { from, task, attempt, at_ms: now.wall_ms });
    }

    /// An attempt that has ended needs its inputs no more, though its result may wait for days.
    fn drop_inputs(&mut self, key: AttemptKey) {
        let Some(held) = self.holdings.held(&key) else { return };
        let inputs = held.acceptance.roots.iter().map(|blob| blob.root).collect();
        self.drop_unnamed(key, inputs);
    }

    pub(super) fn drop_unnamed(&mut self, key: AttemptKey, mut roots: Vec<ContentHash>) {
        let still_named = self.holdings.roots();
        roots.retain(|root| !still_named.contains(root));
        if !roots.is_empty() {
            self.out.push(Action::DropInputs { key, roots });
        }
    }

    /// Tells requesters how far their attempts are.
    pub(super) fn report(&mut self, now: Now) {
        for (key, work) in &mut self.work {
            let at_once = work.reported.is_none() && !matches!(work.stage, Stage::Sealed { .. });
            let due = at_once || work.report_due().is_some_and(|at| at <= now.at);
            if !due || !self.up.contains_key(&key.from) {
                continue;
            }
            work.seq += 1;
            (work.news, work.reporting, work.reported) = (false, true, Some(now.at));
            let progress = Progress {
                task: key.task,
                attempt: key.attempt,
                seq: work.seq,
                phase: work.phase,
                node: work.node.clone(),
                step: work.step,
                max: work.max,
                nodes_done: work.nodes_done,
                nodes_total: work.nodes_total,
                preview: work.previews.pop_front(),
            };
            self.out.push(Action::Progress { key: *key, progress: Box::new(progress) });
        }
    }

    /// Results that nobody took for a week, or for as long as their project keeps anything, go; tombstones that have done their duty too.
    pub(super) fn sweep(&mut self, now: Now) {
        self.sweep_at = Some(now.at + SWEEP_EVERY);
        self.holdings.forget_tombstones(now.wall_ms.saturating_sub(TOMBSTONE_KEPT_MS));
        let old = self.holdings.all().filter(|(_, held)| {
            let over = |sealed: &Sealed| now.wall_ms.saturating_sub(sealed.at_ms) > sealed.keep_ms;
            held.sealed.as_ref().is_some_and(over)
        });
        for key in old.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.give_up(now, key);
        }
    }
}
