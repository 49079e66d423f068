//! Others' offers here: which of them gets a free slot, and every accepted attempt until its result is taken.
//!
//! Pure, like the requester's machine: [`Renderer::on_input`] turns what happened into what must be done; all
//! `Record`s of a step are on disk before any of its other actions. Reservations and claims are not written
//! down: they die with either side's run, and a grant for a claim that nobody remembers finds the slot busy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::advert::{Hygiene, Inventory};
use scenemesh_protocol::ids::{
    BootId, ClaimId, ContentHash, MsgId, NodeId, PoolId, ReservationId, StudioId, TaskId,
};
use scenemesh_protocol::lease::{
    AcceptedTerms, Ack, BlobRef, Cancel, Claim, ClaimReply, Finished, FinishedReply, Grant, Offer, Preview,
    Probe, Progress, Refusal, Verdict,
};
use scenemesh_protocol::messages::Response;
use scenemesh_protocol::roster::Roles;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Failure, ModelName, OutputFile};

use super::conversation::{Answer, AttemptKey, Barred, IdSource, Now, Ticket};
use super::giving::{GivenBack, Report};
use super::lend::{LendFacts, Owner};
use super::record::RendererRecord;
use crate::executor::Wipe;
use crate::executor::policy::Policy;

mod attempts;
mod farewells;
mod giving;
mod grants;
pub mod holdings;
mod limits;
mod pace;
mod parking;
mod queue;

use attempts::Work;
use farewells::Farewell;
use giving::Giving;
use holdings::Holdings;
use limits::Tallies;
pub use limits::{INPUTS_LIMIT, Limits};
use parking::Parking;
pub use parking::{ParkedSlot, SMOKE_ATTEMPT};
use queue::{HeldClaim, Queued};

/// What this machine is, as far as rendering for somebody depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub me: NodeId,
    /// None while this machine is in no pool; it then renders for itself only.
    pub pool: Option<PoolId>,
    pub my_studio: Option<StudioId>,
    /// Has the role `render`.
    pub renders: bool,
    pub members: BTreeMap<NodeId, MemberFacts>,
    pub slots: Vec<Slot>,
    /// Which node classes run here.
    pub policy: Arc<Policy>,
    /// Whose work is taken now.
    pub lend: LendFacts,
    /// Whether whoever sits here wants the GPU.
    pub owner: Owner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    pub studio: StudioId,
    pub roles: Roles,
}

/// One ComfyUI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What the configuration calls it.
    pub name: String,
    pub state: SlotState,
    pub inventory: Arc<Inventory>,
    /// What other studios may use of it.
    pub shared: Arc<Inventory>,
    pub warm: Vec<ModelName>,
    pub vram_mib: Option<u32>,
    pub cc: Option<u16>,
    pub hygiene: Hygiene,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    Ready,
    /// The executor has something on it.
    Busy {
        task: TaskId,
        attempt: u32,
    },
    NotReady {
        why: String,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// One record of the journal, in order, before anything else.
    Restored(RendererRecord),
    /// The journal is read: what is held goes on.
    Started,
    Facts(Arc<Facts>),
    /// Nodes that are shut out from now on, and only these.
    Barred(Arc<Barred>),
    PeerUp {
        node: NodeId,
        boot: BootId,
    },
    PeerDown {
        node: NodeId,
    },
    Offered {
        from: NodeId,
        offer: Offer,
        ticket: Ticket,
    },
    Granted {
        from: NodeId,
        grant: Box<Grant>,
        ticket: Ticket,
    },
    CancelAsked {
        from: NodeId,
        cancel: Cancel,
        ticket: Ticket,
    },
    Probed {
        from: NodeId,
        probe: Probe,
        ticket: Ticket,
    },
    Acked {
        from: NodeId,
        ack: Ack,
        ticket: Ticket,
    },
    ClaimAnswered {
        claim: ClaimId,
        answer: Answer<ClaimReply>,
    },
    ProgressAnswered {
        key: AttemptKey,
        answer: Answer<Verdict>,
    },
    FinishedAnswered {
        key: AttemptKey,
        answer: Answer<FinishedReply>,
    },
    /// The answer to [`Action::Examine`].
    Examined {
        claim: ClaimId,
        result: Result<Examination, Rejection>,
    },
    /// The answer to [`Action::FetchInputs`].
    InputsFetched {
        key: AttemptKey,
        result: Result<(), InputTrouble>,
    },
    /// The answer to [`Action::Run`].
    RunAnswered {
        key: AttemptKey,
        result: Result<(), RunTrouble>,
    },
    Ran {
        task: TaskId,
        attempt: u32,
        event: RunEvent,
    },
    /// The answer to [`Action::SealResult`].
    Sealed {
        key: AttemptKey,
        finished: Box<Finished>,
        roots: Vec<ContentHash>,
        /// Where its project says so: kept no longer than this, in milliseconds.
        keep_ms: Option<u64>,
    },
    /// The answer to [`Action::FreeMemory`].
    Freed {
        slot: String,
        report: Report,
    },
    /// The answer to [`Action::LookAtSmoke`]; to [`Action::Smoke`] only where that did not begin.
    Smoked {
        task: TaskId,
        result: Result<(), String>,
    },
    /// Take nothing new, or take work again.
    Drain(bool),
    /// [`Renderer::deadline`] has come.
    Tick,
}

/// A grant whose envelope opened and whose graph may run here.
#[derive(Clone, Debug)]
pub struct Examination {
    pub msg_id: MsgId,
    pub expires_ms: u64,
    pub roots: Vec<BlobRef>,
    pub accepted: Signed<AcceptedTerms>,
}

/// Why a grant is not taken; with a failure when the graph itself was found wanting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub refusal: Refusal,
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputTrouble {
    /// The requester could not be reached, or the transfer broke off.
    Unreachable(String),
    /// Trying again will not help.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunTrouble {
    /// The slot does not take it now.
    NotNow(String),
    /// It cannot run here.
    Failed(Failure),
}

/// The executor's report on a run.
#[derive(Clone, Debug)]
pub enum RunEvent {
    Started,
    Progress { node: String, step: u32, max: u32, nodes_done: u32, nodes_total: u32 },
    Preview(Preview),
    Ended { outcome: RunOutcome, wipe: Option<Wipe> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    Done { outputs: Vec<OutputFile>, exec_ms: u64 },
    Failed(Failure),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write it down; before everything else of the step.
    Record(RendererRecord),
    Claim {
        node: NodeId,
        claim: Claim,
    },
    /// Open the envelope, check the task against policy and inventory, sign the acceptance; answer with
    /// [`Input::Examined`].
    Examine {
        claim: ClaimId,
        from: NodeId,
        slot: String,
        grant: Box<Grant>,
    },
    /// Fetch these sealed blobs from the requester; answer with [`Input::InputsFetched`].
    FetchInputs {
        key: AttemptKey,
        blobs: Vec<BlobRef>,
        /// Longest that it may take; then it has failed.
        within: Duration,
    },
    /// Give it to ComfyUI, once: a repetition finds the prompt that is there.
    Run {
        key: AttemptKey,
        slot: String,
    },
    CancelRun {
        task: TaskId,
        attempt: u32,
    },
    /// Have a slot's ComfyUI let the GPU's memory go; answer with [`Input::Freed`].
    FreeMemory {
        slot: String,
    },
    /// Give a slot a small render of this node's own; how it ends is told as that of any run.
    Smoke {
        task: TaskId,
        slot: String,
    },
    /// See whether it came out right; answer with [`Input::Smoked`].
    LookAtSmoke {
        task: TaskId,
        outputs: Vec<OutputFile>,
    },
    DropSmoke {
        roots: Vec<ContentHash>,
    },
    /// Sign how it ended and seal the keys; answer with [`Input::Sealed`].
    SealResult {
        key: AttemptKey,
        /// Hash of the grant's terms.
        grant: ContentHash,
        outcome: RunOutcome,
        /// What was removed from ComfyUI, to be signed too.
        wipe: Option<Wipe>,
    },
    Progress {
        key: AttemptKey,
        progress: Box<Progress>,
    },
    Finished {
        key: AttemptKey,
        finished: Box<Finished>,
    },
    /// Let the requester fetch these results until [`Action::Unserve`].
    Serve {
        key: AttemptKey,
        roots: Vec<ContentHash>,
    },
    Unserve {
        key: AttemptKey,
    },
    /// Results that are acknowledged or not wanted.
    DropResults {
        key: AttemptKey,
        roots: Vec<ContentHash>,
    },
    /// Inputs that no attempt held here names any more.
    DropInputs {
        key: AttemptKey,
        roots: Vec<ContentHash>,
    },
    Reply {
        ticket: Ticket,
        response: Response,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Renderer {
    ids: IdSource,
    holdings: Holdings,
    facts: Arc<Facts>,
    barred: Arc<Barred>,
    up: BTreeMap<NodeId, BootId>,
    queue: Vec<Queued>,
    /// The round of turns being served.
    round: u64,
    rounds: BTreeMap<NodeId, u64>,
    arrivals: u64,
    claims: BTreeMap<ClaimId, HeldClaim>,
    work: BTreeMap<AttemptKey, Work>,
    /// Given up while they ran: their requesters are still told what was removed afterwards.
    farewells: BTreeMap<AttemptKey, Farewell>,
    /// Which slots are not free, whatever the executor says of them.
    taken: BTreeMap<String, Occupant>,
    tallies: Tallies,
    parking: Parking,
    draining: bool,
    /// While the GPU is wanted back.
    giving: Option<Giving>,
    given_back: Option<GivenBack>,
    /// The offer being answered: it may get its claim at once.
    asking: Option<(NodeId, ReservationId, Ticket)>,
    sweep_at: Option<Instant>,
    out: Vec<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occupant {
    Claim(ClaimId),
    Attempt(AttemptKey),
    /// Cancelled; the executor has not let go yet.
    Leaving(AttemptKey),
    /// A smoke render.
    Smoke(TaskId),
}

impl Renderer {
    pub fn new(me: NodeId, ids: IdSource) -> Self {
        let facts = Facts {
            me,
            pool: None,
            my_studio: None,
            renders: false,
            members: BTreeMap::new(),
            slots: Vec::new(),
            policy: Arc::default(),
            lend: LendFacts::default(),
            owner: Owner::default(),
        };
        Self {
            ids,
            holdings: Holdings::default(),
            facts: Arc::new(facts),
            barred: Arc::default(),
            up: BTreeMap::new(),
            queue: Vec::new(),
            round: 0,
            rounds: BTreeMap::new(),
            arrivals: 0,
            claims: BTreeMap::new(),
            work: BTreeMap::new(),
            farewells: BTreeMap::new(),
            taken: BTreeMap::new(),
            tallies: Tallies::default(),
            parking: Parking::default(),
            draining: false,
            giving: None,
            given_back: None,
            asking: None,
            sweep_at: None,
            out: Vec::new(),
        }
    }

    /// What the journal holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Slots that would take others' work now, and offers that wait: for the advert.
    pub fn load(&self) -> (usize, usize) {
        let free = |slot: &&Slot| self.is_free(slot) && !self.parking.holds(&slot.name);
        let free = self.facts.slots.iter().filter(free).count();
        (free, self.queue.len())
    }

    /// Whether nothing runs and nothing is promised: a drained node may stop.
    pub fn is_idle(&self) -> bool {
        self.taken.is_empty()
    }

    pub fn on_input(&mut self, now: Now, input: Input) -> Vec<Action> {
        match input {
            Input::Restored(record) => self.holdings.apply(&record),
            Input::Started => {
                self.start(now);
                self.shut_out(now, self.barred.clone());
            }
            Input::Facts(facts) => self.see_facts(now, facts),
            Input::Barred(barred) => self.shut_out(now, barred),
            Input::PeerUp { node, boot } => self.greet(now, node, boot),
            Input::PeerDown { node } => {
                self.up.remove(&node);
            }
            Input::Offered { from, offer, ticket } => self.offered(now, from, offer, ticket),
            Input::Granted { from, grant, ticket } => self.granted(now, from, grant, ticket),
            Input::CancelAsked { from, cancel, ticket } => self.cancel_asked(now, from, cancel, ticket),
            Input::Probed { from, probe, ticket } => self.probed(now, from, probe, ticket),
            Input::Acked { from, ack, ticket } => self.acked(now, from, ack, ticket),
            Input::ClaimAnswered { claim, answer } => self.claim_answered(now, claim, answer),
            Input::ProgressAnswered { key, answer } => self.progress_answered(now, key, answer),
            Input::FinishedAnswered { key, answer } => self.finished_answered(now, key, answer),
            Input::Examined { claim, result } => self.examined(now, claim, result),
            Input::InputsFetched { key, result } => self.inputs_fetched(now, key, result),
            Input::RunAnswered { key, result } => self.run_answered(now, key, result),
            Input::Ran { task, attempt, event } => self.ran(now, task, attempt, event),
            Input::Sealed { key, finished, roots, keep_ms } => {
                self.sealed(now, key, finished, roots, keep_ms);
            }
            Input::Freed { slot, report } => self.freed(now, &slot, report),
            Input::Smoked { task, result } => self.smoked(now, task, result),
            Input::Drain(draining) => self.drain(draining),
            Input::Tick => self.tick(now),
        }
        self.mind_the_owner(now);
        self.mind_the_parked(now);
        self.claim_free_slots(now);
        self.answer_waiting();
        self.report(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Tick`] is next due.
    pub fn deadline(&self) -> Option<Instant> {
        let claims = self.claims.values().filter_map(HeldClaim::deadline);
        let queue = self.queue.iter().filter_map(|queued| queued.not_before);
        let passed = self.queue.iter().filter_map(|queued| self.tallies.passed_until(&queued.from));
        let work = self.work.iter();
        let work = work.filter_map(|(key, work)| work.deadline(self.up.contains_key(&key.from)));
        let giving = self.giving.as_ref().and_then(Giving::deadline);
        let (sweep, parked) = (self.sweep_at, self.parking.deadline());
        claims.chain(queue).chain(passed).chain(work).chain(sweep).chain(giving).chain(parked).min()
    }

    fn commit(&mut self, record: RendererRecord) {
        self.holdings.apply(&record);
        self.out.push(Action::Record(record));
    }

    fn reply(&mut self, ticket: Ticket, response: impl Into<Response>) {
        self.out.push(Action::Reply { ticket, response: response.into() });
    }

    fn greet(&mut self, now: Now, node: NodeId, boot: BootId) {
        if self.up.insert(node, boot) != Some(boot) {
            self.forget_reservations_of(node);
        }
        let held: BTreeSet<AttemptKey> = self.work.keys().filter(|key| key.from == node).copied().collect();
        for key in held {
            self.reconcile(now, key);
        }
        self.say_farewell_to(node);
    }

    fn tick(&mut self, now: Now) {
        self.release_expired_claims(now);
        self.tallies.tick(now);
        for queued in &mut self.queue {
            queued.not_before = queued.not_before.filter(|at| *at > now.at);
        }
        let keys: Vec<AttemptKey> = self.work.keys().copied().collect();
        for key in keys {
            self.look_after(now, key);
        }
        if self.sweep_at.is_some_and(|at| at <= now.at) {
            self.sweep(now);
        }
    }
}
