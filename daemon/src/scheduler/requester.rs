//! Our tasks out there: offers them, grants them to whoever claims, watches their leases, takes their results.
//!
//! Pure: [`Requester::on_input`] turns what happened into what must be done. All `Record`s of a step are on disk
//! before any of its other actions is performed; every action may be repeated. What the journal does not hold
//! (reservations, silences, refusals) is made anew after a start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{BootId, ClaimId, ContentHash, JobId, NodeId, TaskId};
use scenemesh_protocol::lease::Probe;
use scenemesh_protocol::messages::Response;
use scenemesh_protocol::studio::StudioRules;

use super::batch::Batch;
use super::conversation::{Barred, IdSource, Now, Ticket};
use super::placement::Nodes;
use super::record::RequesterRecord;
use super::story::{Line, No};
use crate::executor::policy::WhyDenied;

mod attempts;
mod deliveries;
mod deputies;
mod events;
mod hopeless;
pub mod jobs;
mod keeping;
mod lines;
mod offers;
mod project;
mod results;
mod why;

use attempts::{Contact, Rest};
use deliveries::Deliveries;
use deputies::Talk;
pub use deputies::{KeepOn, NoDeputy, SealedKeep};
pub use events::{Action, Brought, FetchTrouble, Input, SealedGrant};
use hopeless::Failed;
use jobs::{AttemptState, Jobs, Over};
pub use keeping::KEEP_AFTER;
use keeping::{Coming, Met};
use lines::Lines;
use offers::{Refusal, Reservation};

/// Tasks of one job in whose logs a line about the whole job stands.
const TASKS_TOLD: usize = 16;

/// The machine.
#[derive(Debug)]
pub struct Requester {
    ids: IdSource,
    jobs: Jobs,
    nodes: Arc<Nodes>,
    rules: Arc<StudioRules>,
    barred: Arc<Barred>,
    up: BTreeMap<NodeId, BootId>,
    reservations: BTreeMap<JobId, BTreeMap<NodeId, Reservation>>,
    /// Who asked not to be asked, for a while.
    refusals: BTreeMap<(JobId, NodeId), Refusal>,
    /// A node that lost or dropped a task gets it back only later.
    returns: BTreeMap<(TaskId, NodeId), Instant>,
    /// Nodes that claimed and then did not take it.
    resting: BTreeMap<NodeId, Rest>,
    /// Tasks promised to a claim whose grant is being sealed.
    promised: BTreeMap<TaskId, Promise>,
    /// Live attempts.
    contacts: BTreeMap<(TaskId, u32), Contact>,
    /// Cancels that were not answered yet.
    cancels: BTreeMap<(TaskId, u32), NodeId>,
    /// Our jobs' lines at the nodes, and who waits for a place in one.
    lines: Lines,
    /// Tasks that some node has failed and that have not ended.
    failed: BTreeMap<TaskId, Failed>,
    /// Tasks of each job that a node has failed, until there are too many.
    faults: BTreeMap<(JobId, NodeId), BTreeSet<TaskId>>,
    /// How it stands with the deputies of our jobs.
    talks: BTreeMap<JobId, Talk>,
    /// Jobs with a deputy that have just ended.
    closed: BTreeSet<JobId>,
    /// Jobs that are to be held here and are being fetched.
    coming: BTreeMap<JobId, Coming>,
    /// Origins of jobs held here that are not connected, and since when.
    away: BTreeMap<NodeId, Instant>,
    /// Those of them that are gone on without.
    gone: BTreeSet<NodeId>,
    /// Origins that are there, until when they are to have asked for their jobs, and for which they have not.
    met: BTreeMap<NodeId, Met>,
    keep_after: Duration,
    deliveries: Deliveries,
    /// The pool's machines were told of: before that nobody is known to be left.
    sees_nodes: bool,
    /// Jobs to look at.
    dirty: BTreeSet<JobId>,
    out: Vec<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    node: NodeId,
    claim: ClaimId,
    job: JobId,
}

impl Requester {
    pub fn new(me: NodeId, ids: IdSource) -> Self {
        Self {
            ids,
            jobs: Jobs::default(),
            nodes: Arc::new(Nodes::alone(me)),
            rules: Arc::default(),
            barred: Arc::default(),
            up: BTreeMap::new(),
            reservations: BTreeMap::new(),
            refusals: BTreeMap::new(),
            returns: BTreeMap::new(),
            resting: BTreeMap::new(),
            promised: BTreeMap::new(),
            contacts: BTreeMap::new(),
            cancels: BTreeMap::new(),
            lines: Lines::default(),
            failed: BTreeMap::new(),
            faults: BTreeMap::new(),
            talks: BTreeMap::new(),
            closed: BTreeSet::new(),
            coming: BTreeMap::new(),
            away: BTreeMap::new(),
            gone: BTreeSet::new(),
            met: BTreeMap::new(),
            keep_after: KEEP_AFTER,
            deliveries: Deliveries::default(),
            sees_nodes: false,
            dirty: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// What the journal holds.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Blobs that no job names yet: results and kept jobs on their way here, and jobs sealed for their deputies.
    pub fn under_way(&self) -> impl Iterator<Item = ContentHash> {
        let fetches = self.contacts.values().filter_map(|contact| contact.fetch.as_ref());
        let coming = self.coming.values().flat_map(Coming::roots).copied();
        let sealed = self.talks.values().flat_map(Talk::sealed).copied();
        fetches.flat_map(results::Fetch::roots).chain(coming).chain(sealed)
    }

    /// Node classes that nodes said they do not run, as far as they are remembered.
    pub fn refused_classes(&self) -> BTreeMap<NodeId, BTreeMap<String, WhyDenied>> {
        let mut refused: BTreeMap<NodeId, BTreeMap<String, WhyDenied>> = BTreeMap::new();
        for ((_, node), refusal) in &self.refusals {
            if let No::Class { class, why } = &refusal.no {
                refused.entry(*node).or_default().insert(class.clone(), *why);
            }
        }
        refused
    }

    /// Whether we ever granted this attempt to this node: then it is us it should ask.
    pub fn granted_to(&self, node: NodeId, probe: &Probe) -> bool {
        self.jobs.attempt(&probe.task, probe.attempt).is_some_and(|attempt| attempt.node == node)
    }

    pub fn on_input(&mut self, now: Now, input: Input) -> Vec<Action> {
        match input {
            Input::Restored(record) => self.jobs.apply(&record),
            Input::Started => self.start(now),
            Input::Nodes(nodes) => self.see_nodes(now, nodes),
            Input::Rules(rules) => self.see_rules(now, rules),
            Input::Barred(barred) => self.shut_out(now, barred),
            Input::PeerUp { node, boot } => self.greet(now, node, boot),
            Input::PeerDown { node } => self.miss(now, node),
            Input::Submitted { batch, deputy } => self.submit(now, batch, deputy),
            Input::CancelWanted(tasks) => self.cancel(now, tasks),
            Input::RetryWanted(tasks) => self.retry(now, &tasks),
            Input::PauseWanted(tasks) => self.pause(now, tasks),
            Input::ResumeWanted(tasks) => self.resume(now, tasks),
            Input::Claimed { node, claim, ticket } => self.claimed(now, node, &claim, Some(ticket)),
            Input::Progressed { node, progress, ticket } => self.progressed(now, node, *progress, ticket),
            Input::Finished { node, finished, ticket } => self.finished(now, node, finished, Some(ticket)),
            Input::Probed { node, probe, ticket } => self.probed(now, node, probe, ticket),
            Input::OfferAnswered { node, reservation, answer } => {
                self.offer_answered(now, node, reservation, answer);
            }
            Input::GrantSealed { task, node, claim, sealed } => {
                self.grant_sealed(now, task, node, claim, sealed);
            }
            Input::GrantAnswered { task, attempt, answer } => {
                self.grant_answered(now, task, attempt, answer);
            }
            Input::ProbeAnswered { task, attempt, answer } => {
                self.probe_answered(now, task, attempt, answer);
            }
            Input::CancelAnswered { task, attempt, answer } => self.cancel_answered(task, attempt, answer),
            Input::Fetched { task, attempt, result } => self.fetched(now, task, attempt, result),
            Input::KeptSealed { job, sealed } => self.kept_sealed(now, job, sealed),
            Input::KeepAnswered { job, answer } => self.keep_answered(now, job, answer),
            Input::TakenBack { job, answer } => self.taken_back(now, job, answer),
            Input::NewsAnswered { job, answer } => self.news_answered(now, job, &answer),
            Input::ReleaseAnswered { job, answer } => self.release_answered(now, job, &answer),
            Input::KeepAsked { node, keep, ticket } => self.keep_asked(now, node, keep, ticket),
            Input::KeptBrought { job, brought } => self.kept_brought(now, job, brought),
            Input::NewsTold { node, news, ticket } => self.news_told(now, node, news, ticket),
            Input::TakeBackAsked { node, ask, ticket } => self.take_back(now, node, ask, ticket),
            Input::Released { node, ask, ticket } => self.released(now, node, ask, ticket),
            Input::CancelAsked { node, cancel, ticket } => self.cancel_asked(now, node, cancel, ticket),
            Input::Acked { node, ack, ticket } => self.acked(node, ack, ticket),
            Input::DeliveryAnswered { node, task, attempt, answer } => {
                self.delivery_answered(now, node, task, attempt, &answer);
            }
            Input::Undeliverable { node, task, attempt } => self.recall(node, task, attempt),
            Input::Forget { before_ms } => self.forget(&self.jobs.ended_before(before_ms)),
            Input::Tick => self.tick(now),
        }
        self.place_waiting_jobs(now);
        self.release_closed(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Tick`] is next due.
    pub fn deadline(&self) -> Option<Instant> {
        let contacts = self.contacts.iter().filter_map(|((task, attempt), contact)| {
            let state = &self.jobs.attempt(task, *attempt)?.state;
            let up = self.up.contains_key(&contact.node);
            contact.deadline(state, up, up && self.is_with_deputy(task, *attempt))
        });
        let talks =
            self.talks.values().filter_map(|talk| talk.deadline(self.up.contains_key(&talk.deputy())));
        let deliveries = self.deliveries.deadline(|node| self.up.contains_key(node));
        let keeping = talks.chain(deliveries).chain(self.away_deadline()).chain(self.met_deadline());
        let refusals = self.refusals.values().map(|refusal| refusal.until);
        let reservations = self.reservations.values().flatten();
        let offers = reservations.filter(|(node, _)| self.up.contains_key(*node));
        let offers = offers.map(|(_, reservation)| reservation.refresh_at());
        let rests = self.resting.values().filter_map(|rest| rest.until);
        let rests = rests.chain(self.failed.values().filter_map(Failed::until));
        let rests = rests.chain(self.lines.deadline(|node| self.up.contains_key(node)));
        let returns = self.returns.values().copied();
        contacts.chain(refusals).chain(offers).chain(rests).chain(keeping).chain(returns).min()
    }

    fn start(&mut self, now: Now) {
        self.hold_kept(now);
        self.miss_origins(now);
        let tasks: BTreeSet<TaskId> = self.jobs.live_attempts().map(|(task, _, _)| task).collect();
        for task in tasks {
            self.settle(now, task);
        }
        self.dirty.extend(self.jobs.open_jobs());
        self.failed.extend(self.jobs.failed_and_open().map(|task| (task, Failed::at(now.at))));
        self.shut_out(now, self.barred.clone());
    }

    /// How many attempts of ours a node has, or is about to get; all of them without a node.
    pub fn attempts_at(&self, node: Option<&NodeId>) -> usize {
        let is = |at: &NodeId| node.is_none_or(|node| node == at);
        let promised = self.promised.values().filter(|promise| is(&promise.node)).count();
        self.contacts.values().filter(|contact| is(&contact.node)).count() + promised
    }

    fn tick(&mut self, now: Now) {
        let passed: Vec<_> = self
            .refusals
            .iter()
            .filter(|(_, refusal)| refusal.until <= now.at)
            .map(|(key, _)| *key)
            .collect();
        for key in passed {
            self.refusals.remove(&key);
            self.dirty.insert(key.0);
        }
        let passed: Vec<_> =
            self.returns.iter().filter(|(_, until)| **until <= now.at).map(|(key, _)| *key).collect();
        for key in passed {
            self.returns.remove(&key);
            self.dirty.extend(self.jobs.task(&key.0).map(|task| task.job));
        }
        for rest in self.resting.values_mut().filter(|rest| rest.until.is_some_and(|until| until <= now.at)) {
            rest.until = None;
            self.dirty.extend(self.jobs.open_jobs());
        }
        self.end_waits(now);
        self.mind_deputies(now);
        self.take_up_jobs(now);
        self.let_go_of_unasked(now);
        self.deliver_due(now);
        let live: Vec<_> = self.contacts.keys().copied().collect();
        for (task, attempt) in live {
            self.judge_silence(now, task, attempt);
        }
        self.move_lines_on(now);
        self.refresh_offers(now);
    }

    /// Writes a record down, and brings what is not written down in line with it.
    fn commit(&mut self, now: Now, record: RequesterRecord) {
        let tasks = record.tasks();
        self.jobs.apply(&record);
        self.out.push(Action::Record(record));
        for task in tasks {
            self.settle(now, task);
        }
    }

    /// Live attempts are watched and served; ended ones are not, and those that another end overtook are told.
    fn settle(&mut self, now: Now, task: TaskId) {
        let Some(known) = self.jobs.task(&task) else { return };
        for (number, attempt) in known.attempts.iter() {
            let key = (task, number);
            match &attempt.state {
                AttemptState::Over(over) => {
                    if self.contacts.remove(&key).is_none() {
                        continue;
                    }
                    let node = attempt.node;
                    self.out.push(Action::Unserve { node, task, attempt: number });
                    if matches!(over, Over::Cancelled | Over::Superseded) {
                        self.cancels.insert(key, node);
                        if self.up.contains_key(&node) {
                            self.out.push(Action::Cancel { node, task, attempt: number });
                        }
                    }
                }
                _ if self.contacts.contains_key(&key) => {}
                _ => {
                    self.contacts.insert(key, Contact::new(attempt.node, now.at));
                    let roots = attempt.roots.iter().map(|blob| blob.root).collect();
                    self.out.push(Action::Serve { node: attempt.node, task, attempt: number, roots });
                }
            }
        }
        self.dirty.insert(known.job);
        self.out.push(Action::Changed(task));
        self.note_for_deputy(task);
        self.bring_to_origin(task);
    }

    fn submit(&mut self, now: Now, batch: Box<Batch>, deputy: Option<NodeId>) {
        let tasks: Vec<TaskId> = batch.submission.tasks.iter().map(|plan| plan.task).collect();
        let job = batch.submission.job;
        self.commit(now, RequesterRecord::submitted(batch));
        for task in tasks {
            self.log(task, Line::Queued);
        }
        if let Some(deputy) = deputy {
            self.keep_with(now, job, deputy);
        }
    }

    fn greet(&mut self, now: Now, node: NodeId, boot: BootId) {
        if self.up.insert(node, boot) != Some(boot) {
            self.forget_reservations_at(node);
        }
        self.dirty.extend(self.jobs.open_jobs());
        let cancels = self.cancels.iter().filter(|(_, at)| **at == node);
        let cancels = cancels.map(|(&(task, attempt), _)| Action::Cancel { node, task, attempt });
        self.out.extend(cancels);
        let live = self.contacts.iter().filter(|(_, contact)| contact.node == node);
        let live: Vec<_> = live.map(|(key, _)| *key).collect();
        self.greet_origin(now, node);
        self.greet_deputy(now, node);
        for (task, attempt) in live {
            self.reconcile(task, attempt);
        }
        self.deliver_again(node);
    }

    fn miss(&mut self, now: Now, node: NodeId) {
        self.up.remove(&node);
        self.miss_origin(now, node);
        self.miss_deputy(now, node);
        self.dirty.extend(self.jobs.open_jobs());
    }

    /// What people call a node.
    pub fn name(&self, node: NodeId) -> String {
        self.nodes.name(&node)
    }

    fn log(&mut self, task: TaskId, line: Line) {
        self.out.push(Action::Log { task, line });
    }

    fn reply(&mut self, ticket: Ticket, response: impl Into<Response>) {
        self.out.push(Action::Reply { ticket, response: response.into() });
    }
}
