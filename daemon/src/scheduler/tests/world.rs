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
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::task::{Class, Failure, FailureClass, OutputFile, OutputKind, Reach, Shape};

use crate::scheduler::conversation::{AttemptKey, IdSource, NoAnswer, Now, Ticket};
use crate::scheduler::link::{self, About, Inbound, Question};
use crate::scheduler::placement::{Card, Link, Node, Nodes};
use crate::scheduler::record::{Recipe, RendererRecord, RequesterRecord, Submission, TaskPlan};
use crate::scheduler::renderer::{self, Facts, MemberFacts, Renderer, RunEvent, RunOutcome, Slot, SlotState};
use crate::scheduler::requester::{self, FetchTrouble, Requester, SealedGrant};
use crate::scheduler::view::{TaskPhase, TaskView};

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
    /// Stays at work until told otherwise.
    Hangs,
}

#[derive(Debug)]
pub(super) struct Machine {
    key: SecretKey,
    pub(super) id: NodeId,
    pub(super) name: String,
    boots: u8,
    pub(super) requester: Requester,
    pub(super) renderer: Renderer,
    pub(super) journal: Vec<Line>,
    commits: usize,
    slots: Vec<String>,
    inventory: Arc<Inventory>,
    pub(super) comfy: Comfy,
    pub(super) refuses_grants: Option<Failure>,
    /// Prompts in ComfyUI, which outlives the daemon: present until taken out.
    prompts: BTreeSet<(TaskId, u32)>,
    /// Prompts that the running daemon waits for.
    watched: BTreeSet<(TaskId, u32)>,
    /// How often ComfyUI really executed each.
    pub(super) executions: BTreeMap<(TaskId, u32), u32>,
    pub(super) blobs: BTreeSet<ContentHash>,
    errands: VecDeque<Errand>,
    asked: BTreeMap<u64, About>,
    tickets: BTreeMap<Ticket, (usize, u64)>,
    pub(super) log: Vec<String>,
}

/// Work of a daemon that takes a while: it is lost when the daemon dies.
#[derive(Debug)]
enum Errand {
    SealGrant { node: NodeId, task: TaskId, attempt: u32, claim: scenemesh_protocol::ids::ClaimId },
    Fetch { node: NodeId, task: TaskId, attempt: u32, finished: Box<Finished> },
    Examine { claim: scenemesh_protocol::ids::ClaimId, grant: Box<Grant> },
    FetchInputs { key: AttemptKey },
    Run { key: AttemptKey },
    SealResult { key: AttemptKey, outcome: RunOutcome },
}

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
    pub(super) elapsed: Duration,
    next: u64,
    pub(super) kill: Option<Kill>,
    pub(super) kills: usize,
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
            elapsed: Duration::ZERO,
            next: 0,
            kill: None,
            kills: 0,
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
        let studio = |n: usize| StudioId::from_bytes([u8::try_from(n).unwrap() + 50; 16]);
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
            };
            let node = Node {
                name: machine.name.clone(),
                studio: Some(studio(at)),
                link: Link::Up,
                renders: true,
                card: Some(card),
            };
            nodes.insert(machine.id, node);
            members.insert(machine.id, MemberFacts { studio: studio(at), submits: true });
        }
        let me = self.machines[n].id;
        let nodes = Nodes { me, my_studio: Some(studio(n)), nodes };
        let slots = self.machines[n].slot_facts(n);
        let facts = Facts { me, pool: Some(POOL), my_studio: Some(studio(n)), renders: true, members, slots };
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

    pub(super) fn commits(&self, n: usize) -> usize {
        self.machines[n].commits
    }

    fn perform_for_requester(&mut self, n: usize, action: requester::Action) {
        use requester::Action as A;
        let action = match link::requester_asks(action) {
            Ok(question) => return self.ask(n, question),
            Err(action) => action,
        };
        let machine = &mut self.machines[n];
        match action {
            A::SealGrant { node, task, attempt, claim, .. } => {
                machine.errands.push_back(Errand::SealGrant { node, task, attempt, claim });
            }
            A::Fetch { node, task, attempt, finished, .. } => {
                machine.errands.push_back(Errand::Fetch { node, task, attempt, finished });
            }
            A::DropBlobs(roots) => machine.blobs.retain(|root| !roots.contains(root)),
            A::Reply { ticket, response } => self.reply(n, ticket, response),
            A::Log { line, .. } => machine.log.push(line),
            _ => {}
        }
    }

    fn perform_for_renderer(&mut self, n: usize, action: renderer::Action) {
        use renderer::Action as A;
        let action = match link::renderer_asks(action) {
            Ok(question) => return self.ask(n, question),
            Err(action) => action,
        };
        let machine = &mut self.machines[n];
        match action {
            A::Examine { claim, grant, .. } => machine.errands.push_back(Errand::Examine { claim, grant }),
            A::FetchInputs { key, .. } => machine.errands.push_back(Errand::FetchInputs { key }),
            A::Run { key, .. } => machine.errands.push_back(Errand::Run { key }),
            A::SealResult { key, outcome } => {
                machine.errands.push_back(Errand::SealResult { key, outcome });
            }
            A::CancelRun { task, attempt } => {
                machine.prompts.remove(&(task, attempt));
                if machine.watched.remove(&(task, attempt)) {
                    let failure = Failure::new(FailureClass::Cancelled, "cancelled");
                    let event = RunEvent::Ended(RunOutcome::Failed(failure));
                    self.tell_renderer(n, renderer::Input::Ran { task, attempt, event });
                }
            }
            A::DropResults { key, roots } if key.from != machine.id => {
                machine.blobs.retain(|root| !roots.contains(root));
            }
            A::Reply { ticket, response } => self.reply(n, ticket, response),
            _ => {}
        }
    }

    fn ask(&mut self, n: usize, question: Question) {
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
                let ours = |probe: &_| peer != self.machines[to].id && requester.granted_to(peer, probe);
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

    /// Does the oldest errand of a machine.
    pub(super) fn errand(&mut self, n: usize) -> bool {
        let Some(errand) = self.machines[n].errands.pop_front() else { return false };
        let now_ms = self.now().wall_ms;
        let machine = &mut self.machines[n];
        match errand {
            Errand::SealGrant { node, task, attempt, claim } => {
                self.next += 1;
                let sealed = Ok(machine.seal_grant(self.next, node, task, attempt, claim));
                self.tell_requester(n, requester::Input::GrantSealed { task, node, claim, sealed });
            }
            Errand::Examine { claim, grant } => {
                let result = machine.examine(&grant, now_ms);
                self.tell_renderer(n, renderer::Input::Examined { claim, result });
            }
            Errand::FetchInputs { key } => {
                self.tell_renderer(n, renderer::Input::InputsFetched { key, result: Ok(()) });
            }
            Errand::Run { key } => {
                let prompt = (key.task, key.attempt);
                // Looked up before it is posted: a prompt that is there is not posted again.
                if machine.prompts.insert(prompt) {
                    *machine.executions.entry(prompt).or_default() += 1;
                }
                machine.watched.insert(prompt);
                self.tell_renderer(n, renderer::Input::RunAnswered { key, result: Ok(()) });
            }
            Errand::SealResult { key, outcome } => {
                let (finished, roots) = machine.seal_result(key, outcome);
                self.tell_renderer(n, renderer::Input::Sealed { key, finished: Box::new(finished), roots });
            }
            Errand::Fetch { node, task, attempt, finished } => {
                let result = self.fetch(n, node, task, attempt, &finished);
                self.tell_requester(n, requester::Input::Fetched { task, attempt, result });
            }
        }
        true
    }

    fn fetch(
        &mut self,
        n: usize,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        finished: &Finished,
    ) -> Result<Vec<OutputFile>, FetchTrouble> {
        let at = self.machines.iter().position(|machine| machine.id == node).unwrap();
        if at != n && !self.connected(n, at) {
            return Err(FetchTrouble::Unreachable("not connected".into()));
        }
        let terms = finished.terms.verify().unwrap();
        let Outcome::Done { roots, .. } = &terms.outcome else { panic!("only results are fetched") };
        for blob in roots {
            if !self.machines[at].blobs.contains(&blob.root) {
                return Err(FetchTrouble::Unreachable("not served".into()));
            }
            self.machines[n].blobs.insert(blob.root);
        }
        Ok(vec![output(task, attempt)])
    }

    /// A ComfyUI gets done with whatever it runs.
    pub(super) fn finish_runs(&mut self, n: usize) -> bool {
        let outcome = match &self.machines[n].comfy {
            Comfy::Hangs => return false,
            Comfy::Renders => None,
            Comfy::Fails(class) => Some(Failure::new(*class, "as the test wants it")),
        };
        let watched = std::mem::take(&mut self.machines[n].watched);
        let any = !watched.is_empty();
        for (task, attempt) in watched {
            let machine = &mut self.machines[n];
            machine.prompts.remove(&(task, attempt));
            let outcome = match &outcome {
                Some(failure) => RunOutcome::Failed(failure.clone()),
                None => {
                    let output = output(task, attempt);
                    machine.blobs.insert(output.root);
                    RunOutcome::Done { outputs: vec![output], exec_ms: 1500 }
                }
            };
            let event = RunEvent::Ended(outcome);
            self.tell_renderer(n, renderer::Input::Ran { task, attempt, event });
        }
        any
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

    pub(super) fn submit(&mut self, n: usize, job: u8, tasks: usize) -> JobId {
        self.submit_with(n, job, tasks, |_| {})
    }

    pub(super) fn submit_with(
        &mut self,
        n: usize,
        job: u8,
        tasks: usize,
        change: impl FnOnce(&mut Submission),
    ) -> JobId {
        let recipe = Recipe {
            graph: b"{}".to_vec(),
            extra_data: Vec::new(),
            inputs: Vec::new(),
            shape: Shape { classes: vec!["SaveImage".into()], ..Shape::default() },
            previews: false,
            time_limit_ms: 60_000,
        };
        let plan = |index| TaskPlan { task: task_id(job, index), recipe: 0, add_to_seeds: index as u64 };
        let mut submission = Submission {
            job: JobId::from_bytes([job; 16]),
            label: "test".into(),
            person: "somebody".into(),
            class: Class::Normal,
            reach: Reach::Pool,
            created_ms: self.now().wall_ms,
            recipes: vec![recipe],
            tasks: (0..tasks).map(plan).collect(),
        };
        change(&mut submission);
        let id = submission.job;
        self.tell_requester(n, requester::Input::Submitted(Box::new(submission)));
        id
    }

    pub(super) fn task(&self, n: usize, task: TaskId) -> TaskView {
        self.machines[n].requester.task_view(self.now(), task).unwrap()
    }

    pub(super) fn phase(&self, n: usize, task: TaskId) -> TaskPhase {
        self.task(n, task).state
    }

    /// Every task has ended and no renderer holds anything.
    pub(super) fn is_settled(&self) -> bool {
        self.machines.iter().all(|machine| {
            machine.requester.jobs().open_jobs().next().is_none()
                && machine.renderer.holdings().all().next().is_none()
                && machine.renderer.is_idle()
        })
    }

    /// The promise: every task ended once, with one result, and nothing was executed beyond what deaths explain.
    pub(super) fn assert_ended_exactly_once(&self) {
        for machine in &self.machines {
            let mut stored: BTreeMap<TaskId, u32> = BTreeMap::new();
            for line in &machine.journal {
                if let Line::Requester(RequesterRecord::Stored { task, .. }) = line {
                    *stored.entry(*task).or_default() += 1;
                }
            }
            for job in machine.requester.jobs().jobs() {
                for plan in &job.submission.tasks {
                    let view = machine.requester.task_view(self.now(), plan.task).unwrap();
                    assert_eq!(view.state, TaskPhase::Done, "{}", self.story());
                    assert_eq!(stored.get(&plan.task), Some(&1), "{}", self.story());
                    for output in &view.outputs {
                        assert!(machine.blobs.contains(&output.root), "a result is gone\n{}", self.story());
                    }
                }
            }
            for (prompt, count) in &machine.executions {
                let bound = 1 + self.kills;
                assert!(usize::try_from(*count).unwrap() <= bound, "{prompt:?} ran {count} times");
            }
        }
    }

    /// What replaying a journal gives is what the machine has.
    pub(super) fn assert_replay_gives_the_state(&self) {
        for machine in &self.machines {
            let mut jobs = requester::jobs::Jobs::default();
            let mut holdings = renderer::holdings::Holdings::default();
            for line in &machine.journal {
                match line {
                    Line::Requester(record) => jobs.apply(record),
                    Line::Renderer(record) => holdings.apply(record),
                }
            }
            assert_eq!(&jobs, machine.requester.jobs());
            let cutoff = u64::MAX;
            let mut known = machine.renderer.holdings().clone();
            known.forget_tombstones(cutoff);
            holdings.forget_tombstones(cutoff);
            assert_eq!(holdings, known);
        }
    }

    pub(super) fn story(&self) -> String {
        let mut story = format!("after {:?}, {} kills\n", self.elapsed, self.kills);
        for machine in &self.machines {
            story += &format!("{}: {:?}\n", machine.name, machine.renderer.holdings());
            for line in &machine.journal {
                let text = format!("{line:?}");
                story += &format!("  {}\n", text.chars().take(160).collect::<String>());
            }
            for job in machine.requester.jobs().jobs() {
                for plan in &job.submission.tasks {
                    let why = machine.requester.why(self.now(), plan.task);
                    story += &format!("  {:?}: {}\n", plan.task, why.unwrap_or_default());
                }
            }
            for line in &machine.log {
                story += &format!("  · {line}\n");
            }
        }
        story
    }
}

fn output(task: TaskId, attempt: u32) -> OutputFile {
    OutputFile {
        node: "9".into(),
        kind: OutputKind::Image,
        filename: "a.png".into(),
        root: root(&format!("result of {task} {attempt}")),
        key: BlobKey::from_bytes([3; 32]),
        bytes: 10,
    }
}

impl Machine {
    fn new(n: usize, slots: usize) -> Self {
        let names = ["amber", "birch", "cedar", "damson", "elm"];
        let id = node_id(n);
        let mut machine = Self {
            key: secret(n),
            id,
            name: names[n].to_owned(),
            boots: 0,
            requester: Requester::new(id, IdSource::new([0; 32])),
            renderer: Renderer::new(id, IdSource::new([0; 32])),
            journal: Vec::new(),
            commits: 0,
            slots: (0..slots).map(|slot| format!("http://comfy-{slot}")).collect(),
            inventory: Arc::new(Inventory { classes: vec!["SaveImage".into()], models: Vec::new() }),
            comfy: Comfy::default(),
            refuses_grants: None,
            prompts: BTreeSet::new(),
            watched: BTreeSet::new(),
            executions: BTreeMap::new(),
            blobs: BTreeSet::new(),
            errands: VecDeque::new(),
            asked: BTreeMap::new(),
            tickets: BTreeMap::new(),
            log: Vec::new(),
        };
        machine.die();
        machine
    }

    fn die(&mut self) {
        self.boots += 1;
        let mut seed = [self.boots; 32];
        seed[..16].copy_from_slice(&self.id.as_bytes()[..16]);
        self.requester = Requester::new(self.id, IdSource::new(seed));
        self.renderer = Renderer::new(self.id, IdSource::new(seed));
        self.errands.clear();
        self.watched.clear();
        self.asked.clear();
        self.tickets.clear();
        self.log.push("— restart —".into());
    }

    fn boot_id(&self) -> BootId {
        BootId::from_bytes([self.boots; 16])
    }

    pub(super) fn has_models(&mut self, names: &[&str]) {
        let models =
            names.iter().map(|name| scenemesh_protocol::task::ModelName::new("checkpoints", name)).collect();
        self.inventory = Arc::new(Inventory { classes: vec!["SaveImage".into()], models });
    }

    fn slot_facts(&self, n: usize) -> Vec<Slot> {
        let slot = |name: &String| Slot {
            name: name.clone(),
            state: SlotState::Ready,
            inventory: self.inventory.clone(),
            warm: Vec::new(),
            vram_mib: Some(u32::try_from(8192 * (n + 1)).unwrap()),
            cc: Some(86),
            hygiene: Hygiene::Full,
        };
        self.slots.iter().map(slot).collect()
    }

    fn asked_whom(&self, about: About, me: NodeId) -> NodeId {
        let of_attempt = |task: &TaskId, attempt: u32| {
            self.requester.jobs().attempt(task, attempt).map_or(me, |attempt| attempt.node)
        };
        match about {
            About::Offer { node, .. } => node,
            About::Grant { task, attempt }
            | About::Cancel { task, attempt }
            | About::Probe { task, attempt } => of_attempt(&task, attempt),
            About::Progress { key } | About::Finished { key } => key.from,
            // Answers to these change nothing that a timeout does not heal.
            About::Ack | About::Claim { .. } => me,
        }
    }

    fn seal_grant(
        &self,
        n: u64,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        claim: scenemesh_protocol::ids::ClaimId,
    ) -> SealedGrant {
        let envelope = n.to_le_bytes().to_vec();
        let mut msg_id = [0; 16];
        msg_id[..8].copy_from_slice(&n.to_le_bytes());
        let roots = vec![BlobRef { root: root("input"), sealed_bytes: 5 }];
        let terms = GrantTerms {
            pool: POOL,
            claim,
            task,
            attempt,
            from: self.id,
            to: node,
            msg_id: MsgId::from_bytes(msg_id),
            envelope: ContentHash::of(&envelope),
            roots: roots.clone(),
            lease_ms: 15_000,
            class: Class::Normal,
            quote: None,
        };
        SealedGrant { grant: Grant { terms: Signed::new(&terms, &self.key), envelope }, roots }
    }

    fn examine(&self, grant: &Grant, now_ms: u64) -> Result<renderer::Examination, renderer::Rejection> {
        let terms = grant.terms.verify().unwrap();
        if let Some(failure) = &self.refuses_grants {
            let refusal = scenemesh_protocol::lease::Refusal {
                reason: scenemesh_protocol::lease::RefusalReason::BadGrant,
                detail: "not here".into(),
            };
            return Err(renderer::Rejection { refusal, failure: Some(failure.clone()) });
        }
        let accepted = AcceptedTerms {
            grant: terms.hash(),
            task: terms.task,
            attempt: terms.attempt,
            sigma_milli: None,
        };
        Ok(renderer::Examination {
            msg_id: terms.msg_id,
            expires_ms: now_ms + 600_000,
            roots: terms.roots.clone(),
            accepted: Signed::new(&accepted, &self.key),
        })
    }

    fn seal_result(&self, key: AttemptKey, outcome: RunOutcome) -> (Finished, Vec<ContentHash>) {
        let held = self.renderer.holdings().held(&key);
        let grant = held.map_or(root("nothing"), |held| held.acceptance.grant.terms.hash());
        let keys = b"keys".to_vec();
        let (outcome, exec_ms, roots) = match outcome {
            RunOutcome::Done { outputs, exec_ms } => {
                let roots: Vec<ContentHash> = outputs.iter().map(|output| output.root).collect();
                let blobs = roots.iter().map(|root| BlobRef { root: *root, sealed_bytes: 10 }).collect();
                (Outcome::Done { roots: blobs, keys: ContentHash::of(&keys) }, exec_ms, roots)
            }
            RunOutcome::Failed(failure) => (Outcome::Failed(failure), 0, Vec::new()),
        };
        let terms =
            FinishedTerms { pool: POOL, task: key.task, attempt: key.attempt, grant, outcome, exec_ms };
        (Finished { terms: Signed::new(&terms, &self.key), keys, usage: None }, roots)
    }
}
