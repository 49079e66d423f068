//! A pool in memory: nodes with both machines, their journals, ComfyUIs that outlive a daemon, and a network whose
//! packets are delivered, lost, repeated or overtaken as a test says. Nothing here waits; time is a number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::advert::{Availability, Hygiene, Inventory};
use scenemesh_protocol::ids::{BootId, ContentHash, JobId, MsgId, NodeId, PoolId, StudioId, TaskId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::lease::{
    AcceptedTerms, BlobRef, Finished, FinishedTerms, Grant, GrantTerms, Outcome,
};
use scenemesh_protocol::messages::{Request, Response};
use scenemesh_protocol::receipt::{WipeCount, WipeRecord, Wiped};
use scenemesh_protocol::roster::Roles;
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Class, Failure, FailureClass, OutputFile, OutputKind, Reach, Shape};

use crate::executor::Wipe;
use crate::scheduler::conversation::{AttemptKey, IdSource, NoAnswer, Now, Ticket};
use crate::scheduler::link::{self, About, Inbound, Question, Sorted};
use crate::scheduler::placement::{Card, Link, Node, Nodes};
use crate::scheduler::record::{Recipe, RendererRecord, RequesterRecord, Submission, TaskPlan};
use crate::scheduler::renderer::{self, Facts, MemberFacts, Renderer, RunEvent, RunOutcome, Slot, SlotState};
use crate::scheduler::requester::{self, FetchTrouble, Requester, SealedGrant};
use crate::scheduler::view::{TaskPhase, TaskView};

mod errands;
mod judge;
mod keeping;
mod machine;
mod submitting;

pub(super) use errands::Errand;
pub(super) use machine::Machine;

pub(super) const POOL: PoolId = PoolId::from_bytes([1; 16]);
const START_MS: u64 = 1_800_000_000_000;
/// Before this every loss is undone: a test that needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One line of a node's journal.
#[derive(Clone, Debug)]
pub(super) enum Line {
    Requester(RequesterRecord),
    Renderer(RendererRecord),
}

/// Where a daemon dies: at its n-th commit, with or without it on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) node: usize,
    pub(super) commit: usize,
    pub(super) written: bool,
}

/// What a ComfyUI does with every prompt.
#[derive(Clone, Debug, Default)]
pub(super) enum Comfy {
    #[default]
    Renders,
    Fails(FailureClass),
    /// What it renders looks wrong.
    LooksWrong,
    /// Stays at work until told otherwise.
    Hangs,
}

#[expect(clippy::large_enum_variant, reason = "a handful are on their way")]
#[derive(Clone, Debug)]
pub(super) enum Cargo {
    Question { id: u64, request: Request },
    Answer { id: u64, response: Response },
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) cargo: Cargo,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) machines: Vec<Machine>,
    pub(super) packets: Vec<Packet>,
    cut: BTreeSet<(usize, usize)>,
    origin: Instant,
    /// What projects say to renderers of how long results are kept.
    pub(super) keep_ms: Option<u64>,
    pub(super) elapsed: Duration,
    next: u64,
    pub(super) kill: Option<Kill>,
    pub(super) kills: usize,
    /// Times a job was sealed for a deputy.
    pub(super) given_away: usize,
    /// Records at which the daemon died.
    pub(super) died_at: BTreeSet<&'static str>,
}

fn node_id(n: usize) -> NodeId {
    secret(n).public().node()
}

fn secret(n: usize) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(n).unwrap() + 1; 32])
}

pub(super) fn task_id(job: u8, index: usize) -> TaskId {
    let mut bytes = [job; 16];
    bytes[15] = u8::try_from(index).unwrap();
    TaskId::from_bytes(bytes)
}

pub(super) fn root(of: &str) -> ContentHash {
    ContentHash::of(of.as_bytes())
}

impl World {
    /// So many machines of one studio, each with one ComfyUI, all connected.
    pub(super) fn new(machines: usize) -> Self {
        Self::with_slots(&vec![1; machines])
    }

    /// Machines with so many slots each; a machine without slots only submits.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test's time")]
    pub(super) fn with_slots(slots: &[usize]) -> Self {
        let machines = slots.iter().enumerate().map(|(n, count)| Machine::new(n, *count)).collect();
        let mut world = Self {
            machines,
            packets: Vec::new(),
            cut: BTreeSet::new(),
            origin: Instant::now(),
            keep_ms: None,
            elapsed: Duration::ZERO,
            next: 0,
            kill: None,
            kills: 0,
            given_away: 0,
            died_at: BTreeSet::new(),
        };
        for n in 0..world.machines.len() {
            world.boot(n);
        }
        world
    }

    pub(super) fn now(&self) -> Now {
        let wall_ms = START_MS + u64::try_from(self.elapsed.as_millis()).unwrap();
        Now { at: self.origin + self.elapsed, wall_ms }
    }

    pub(super) fn connected(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Pulls the cable between two machines: what is under way is lost, questions end without an answer.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if !self.cut.insert((a.min(b), a.max(b))) {
            return;
        }
        let between =
            |packet: &Packet| (packet.from, packet.to) == (a, b) || (packet.from, packet.to) == (b, a);
        self.packets.retain(|packet| !between(packet));
        for (here, there) in [(a, b), (b, a)] {
            let peer = self.machines[there].id;
            self.lose_answers(here, peer);
            self.tell_both(
                here,
                requester::Input::PeerDown { node: peer },
                renderer::Input::PeerDown { node: peer },
            );
        }
    }

    pub(super) fn heal(&mut self, a: usize, b: usize) {
        if !self.cut.remove(&(a.min(b), a.max(b))) {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            let (node, boot) = (self.machines[there].id, self.machines[there].boot_id());
            self.tell_both(
                here,
                requester::Input::PeerUp { node, boot },
                renderer::Input::PeerUp { node, boot },
            );
        }
    }

    fn lose_answers(&mut self, here: usize, peer: NodeId) {
        let asked = std::mem::take(&mut self.machines[here].asked);
        let me = self.machines[here].id;
        for (id, about) in asked {
            let to = self.machines[here].asked_whom(about, me);
            if to == peer {
                self.answered(here, about, Err(NoAnswer("the link was cut".into())));
            } else {
                self.machines[here].asked.insert(id, about);
            }
        }
    }

    /// SIGKILL and a new start: everything but journal, blobs and ComfyUI is gone.
    pub(super) fn restart(&mut self, n: usize) {
        self.kills += 1;
        self.packets.retain(|packet| packet.to != n);
        let machine = &mut self.machines[n];
        machine.die();
        for peer in 0..self.machines.len() {
            if peer != n && self.connected(n, peer) {
                let id = self.machines[n].id;
                self.lose_answers(peer, id);
                self.tell_both(
                    peer,
                    requester::Input::PeerDown { node: id },
                    renderer::Input::PeerDown { node: id },
                );
            }
        }
        self.boot(n);
        let (node, boot) = (self.machines[n].id, self.machines[n].boot_id());
        for peer in 0..self.machines.len() {
            if peer != n && self.connected(n, peer) {
                self.tell_both(
                    peer,
                    requester::Input::PeerUp { node, boot },
                    renderer::Input::PeerUp { node, boot },
                );
            }
        }
    }

    fn boot(&mut self, n: usize) {
        for line in self.machines[n].journal.clone() {
            let now = self.now();
            let machine = &mut self.machines[n];
            match line {
                Line::Requester(record) => {
                    let none = machine.requester.on_input(now, requester::Input::Restored(record));
                    assert!(none.is_empty(), "restoring does nothing");
                }
                Line::Renderer(record) => {
                    let none = machine.renderer.on_input(now, renderer::Input::Restored(record));
                    assert!(none.is_empty(), "restoring does nothing");
                }
            }
        }
        self.tell_both(n, requester::Input::Started, renderer::Input::Started);
        self.refresh_facts(n);
        for peer in 0..self.machines.len() {
            if peer == n || self.connected(n, peer) {
                let (node, boot) = (self.machines[peer].id, self.machines[peer].boot_id());
                self.tell_both(
                    n,
                    requester::Input::PeerUp { node, boot },
                    renderer::Input::PeerUp { node, boot },
                );
            }
        }
    }

    /// Every machine knows every other, as adverts would have it.
    pub(super) fn refresh_facts(&mut self, n: usize) {
        let mut nodes = BTreeMap::new();
        let mut members = BTreeMap::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let slots = u16::try_from(machine.slots.len()).unwrap();
            let card = Card {
                availability: Availability::Available,
                hygiene: Hygiene::Full,
                slots_total: slots,
                slots_free: slots,
                vram_mib: Some(u32::try_from(8192 * (at + 1)).unwrap()),
                cc: Some(86),
                warm: Vec::new(),
                inventory: Some(machine.inventory.clone()),
                revision: Some(machine.policy.fingerprint()),
            };
            let node = Node {
                name: machine.name.clone(),
                studio: Some(machine.studio),
                link: Link::Up,
                roles: machine.roles,
                card: Some(card),
            };
            nodes.insert(machine.id, node);
            members.insert(machine.id, MemberFacts { studio: machine.studio, roles: machine.roles });
        }
        let me = self.machines[n].id;
        let nodes = Nodes { me, pool: Some(POOL), my_studio: Some(self.machines[n].studio), nodes };
        let slots = self.machines[n].slot_facts(n);
        let facts = Facts {
            me,
            pool: Some(POOL),
            my_studio: Some(self.machines[n].studio),
            renders: true,
            members,
            slots,
            policy: self.machines[n].policy.clone(),
            lend: self.machines[n].lend.clone(),
            owner: self.machines[n].owner,
        };
        self.tell_both(n, requester::Input::Nodes(Arc::new(nodes)), renderer::Input::Facts(Arc::new(facts)));
    }

    fn tell_both(&mut self, n: usize, ask: requester::Input, render: renderer::Input) {
        self.tell_requester(n, ask);
        self.tell_renderer(n, render);
    }

    pub(super) fn tell(&mut self, n: usize, inbound: Inbound) {
        match inbound {
            Inbound::Requester(input) => self.tell_requester(n, input),
            Inbound::Renderer(input) => self.tell_renderer(n, input),
        }
    }

    pub(super) fn tell_requester(&mut self, n: usize, input: requester::Input) {
        let now = self.now();
        let actions = self.machines[n].requester.on_input(now, input);
        let records = actions.iter().filter_map(|action| match action {
            requester::Action::Record(record) => Some(Line::Requester(record.clone())),
            _ => None,
        });
        if self.commit(n, records.collect()) {
            for action in actions {
                self.perform_for_requester(n, action);
            }
        }
    }

    pub(super) fn tell_renderer(&mut self, n: usize, input: renderer::Input) {
        let now = self.now();
        let actions = self.machines[n].renderer.on_input(now, input);
        let records = actions.iter().filter_map(|action| match action {
            renderer::Action::Record(record) => Some(Line::Renderer(record.clone())),
            _ => None,
        });
        if self.commit(n, records.collect()) {
            for action in actions {
                self.perform_for_renderer(n, action);
            }
        }
    }

    /// Writes a step's records; false when the daemon died at it, and with it the rest of the step.
    fn commit(&mut self, n: usize, records: Vec<Line>) -> bool {
        if records.is_empty() {
            return true;
        }
        let machine = &mut self.machines[n];
        machine.commits += 1;
        let dies = self.kill.filter(|kill| kill.node == n && kill.commit == machine.commits);
        if dies.is_some() {
            self.died_at.extend(records.iter().map(Line::name));
        }
        if dies.is_none_or(|kill| kill.written) {
            machine.journal.extend(records);
        }
        if dies.is_some() {
            self.kill = None;
            self.restart(n);
            return false;
        }
        true
    }

    fn perform_for_requester(&mut self, n: usize, action: requester::Action) {
        use requester::Action as A;
        let action = match link::sort_for_requester(action) {
            Sorted::Asks(question) => return self.ask(n, *question),
            Sorted::Does(action) => action,
        };
        let machine = &mut self.machines[n];
        match action {
            A::SealGrant { node, task, attempt, claim, .. } => {
                machine.errands.push_back(Errand::SealGrant { node, task, attempt, claim });
            }
            A::Fetch { node, task, attempt, finished, .. } => {
                machine.errands.push_back(Errand::Fetch { node, task, attempt, finished });
            }
            A::SealKept { .. } | A::Keep { .. } | A::BringKept { .. } | A::Deliver { .. } => {
                machine.errands.push_back(Errand::Keeping(Box::new(action)));
            }
            A::DropBlobs(roots) => machine.blobs.retain(|root| !roots.contains(root)),
            A::Reply { ticket, response } => self.reply(n, ticket, response),
            A::Log { line, .. } => machine.log.push(line.to_string()),
            _ => {}
        }
    }

    fn perform_for_renderer(&mut self, n: usize, action: renderer::Action) {
        use renderer::Action as A;
        let action = match link::sort_for_renderer(action) {
            Sorted::Asks(question) => return self.ask(n, *question),
            Sorted::Does(action) => action,
        };
        let machine = &mut self.machines[n];
        match action {
            A::Examine { claim, grant, .. } => machine.errands.push_back(Errand::Examine { claim, grant }),
            A::FetchInputs { key, .. } => machine.errands.push_back(Errand::FetchInputs { key }),
            A::Run { key, .. } => machine.errands.push_back(Errand::Run { key }),
            A::FreeMemory { slot } => machine.errands.push_back(Errand::FreeMemory { slot }),
            A::SealResult { key, grant, outcome, wipe } => {
                machine.errands.push_back(Errand::SealResult { key, grant, outcome, wipe });
            }
            A::CancelRun { .. } if machine.wedged => {}
            A::CancelRun { task, attempt } => {
                machine.prompts.remove(&(task, attempt));
                if machine.watched.remove(&(task, attempt)) {
                    let failure = Failure::new(FailureClass::Cancelled, "cancelled");
                    let outcome = RunOutcome::Failed(failure);
                    let event = RunEvent::Ended { outcome, wipe: Some(machine.wipe()) };
                    self.tell_renderer(n, renderer::Input::Ran { task, attempt, event });
                }
            }
            A::DropResults { key, roots } if key.from != machine.id => {
                machine.blobs.retain(|root| !roots.contains(root));
            }
            A::Reply { ticket, response } => self.reply(n, ticket, response),
            other => machine.smoke(other),
        }
    }

    pub(super) fn ask(&mut self, n: usize, question: Question) {
        self.next += 1;
        let id = self.next;
        let to = self.machines.iter().position(|machine| machine.id == question.to).unwrap();
        if to != n && !self.connected(n, to) {
            return self.answered(n, question.about, Err(NoAnswer("not connected".into())));
        }
        self.machines[n].asked.insert(id, question.about);
        self.packets.push(Packet { from: n, to, cargo: Cargo::Question { id, request: question.request } });
    }

    fn reply(&mut self, n: usize, ticket: Ticket, response: Response) {
        let Some((to, id)) = self.machines[n].tickets.remove(&ticket) else { return };
        if to == n || self.connected(n, to) {
            self.packets.push(Packet { from: n, to, cargo: Cargo::Answer { id, response } });
        }
    }

    fn answered(&mut self, n: usize, about: About, answer: Result<Response, NoAnswer>) {
        if let Some(inbound) = link::understand(about, answer) {
            self.tell(n, inbound);
        }
    }

    /// Delivers one packet, as bytes: what is said is what is understood.
    pub(super) fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, cargo } = packet;
        match cargo {
            Cargo::Question { id, request } => {
                let request = Request::decode(&request.encode()).unwrap();
                self.next += 1;
                let ticket = Ticket(self.next);
                self.machines[to].tickets.insert(ticket, (from, id));
                let peer = self.machines[from].id;
                let requester = &self.machines[to].requester;
                let ours = |asked: &_| peer != self.machines[to].id && requester.is_asked(peer, asked);
                let inbound = link::route(peer, request, ticket, ours).unwrap();
                self.tell(to, inbound);
            }
            Cargo::Answer { id, response } => {
                let response = Response::decode(&response.encode()).unwrap();
                if let Some(about) = self.machines[to].asked.remove(&id) {
                    self.answered(to, about, Ok(response));
                }
            }
        }
    }

    /// Loses a packet: whoever asked gets no answer.
    pub(super) fn lose(&mut self, packet: &Packet) {
        let (asker, id) = match packet.cargo {
            Cargo::Question { id, .. } => (packet.from, id),
            Cargo::Answer { id, .. } => (packet.to, id),
        };
        if let Some(about) = self.machines[asker].asked.remove(&id) {
            self.answered(asker, about, Err(NoAnswer("timed out".into())));
        }
    }

    pub(super) fn tick(&mut self) {
        for n in 0..self.machines.len() {
            let now = self.now();
            if self.machines[n].requester.deadline().is_some_and(|at| at <= now.at) {
                self.tell_requester(n, requester::Input::Tick);
            }
            if self.machines[n].renderer.deadline().is_some_and(|at| at <= now.at) {
                self.tell_renderer(n, renderer::Input::Tick);
            }
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.elapsed += by;
        self.tick();
    }

    /// To the next moment at which a machine wants to be woken.
    fn advance_to_deadline(&mut self) {
        let deadlines = self.machines.iter().flat_map(|machine| {
            [machine.requester.deadline(), machine.renderer.deadline()].into_iter().flatten()
        });
        let next = deadlines.min().unwrap_or(self.origin + self.elapsed + Duration::from_secs(1));
        let by = next.saturating_duration_since(self.origin + self.elapsed);
        self.advance(by.max(Duration::from_millis(1)));
    }

    /// Delivers everything that is under way and does every errand, in order, without time passing.
    pub(super) fn flow(&mut self) {
        for _ in 0..100_000 {
            if !self.packets.is_empty() {
                let packet = self.packets.remove(0);
                self.deliver(packet);
            } else if !(0..self.machines.len()).any(|n| self.errand(n)) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets everything happen, ComfyUIs included, until a fact holds.
    pub(super) fn until(&mut self, what: &str, fact: impl Fn(&Self) -> bool) {
        let deadline = self.elapsed + PATIENCE;
        loop {
            self.flow();
            if fact(self) {
                return;
            }
            let machines = 0..self.machines.len();
            let finished = machines.filter(|n| self.finish_runs(*n)).count();
            if finished > 0 {
                continue;
            }
            assert!(self.elapsed < deadline, "never came true: {what}\n{}", self.story());
            self.advance_to_deadline();
        }
    }

    /// Lets time pass with everything delivered, and no ComfyUI getting done.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.elapsed + time;
        self.flow();
        while self.elapsed < end {
            let left = end - self.elapsed;
            let deadlines = self.machines.iter().flat_map(|machine| {
                [machine.requester.deadline(), machine.renderer.deadline()].into_iter().flatten()
            });
            let next = deadlines.min().map(|at| at.saturating_duration_since(self.origin + self.elapsed));
            self.advance(
                next.unwrap_or(left).clamp(Duration::from_millis(1), left.max(Duration::from_millis(1))),
            );
            self.flow();
        }
    }

    pub(super) fn task(&self, n: usize, task: TaskId) -> TaskView {
        self.machines[n].requester.task_view(self.now(), task).unwrap()
    }

    pub(super) fn phase(&self, n: usize, task: TaskId) -> TaskPhase {
        self.task(n, task).state
    }
}
