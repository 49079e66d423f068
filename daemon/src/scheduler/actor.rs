//! Feeds the two machines, commits what they write down, then performs what they want done.
//!
//! One loop: everything that waits is fed in, the records of all these steps become one commit, and only when that
//! is on disk are the other actions performed. What takes time (sealing, fetching, asking a peer) is a task of its
//! own that reports back as an input.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::ids::{NodeId, random_bytes};
use scenemesh_protocol::messages::Response;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::conversation::{AttemptKey, Barred, IdSource, Now, Ticket};
use super::discretion;
use super::draining::Draining;
use super::link::{self, About, Inbound};
use super::record::{Acceptance, RendererRecord, RequesterRecord};
use super::renderer::{self, Renderer};
use super::requester::{self, Requester};
use super::view::JobEvent;
use super::{Command, Config, Inputs, Load, Me, Ports, ReplayError};
use crate::clock;
use crate::network::{Publication, Reply, TaskEvent};
use crate::store::{Entry, JournalError, Replay};
use crate::supervisor::Tasks;

mod bench;
mod board;
mod broom;
mod commands;
mod compaction;
mod facts;
mod fetching;
mod halt;
mod keeping;
mod leaving;
mod looking;
mod perform;
pub(in crate::scheduler) mod retention;
mod seal;
mod shelf;
mod smoking;

use board::Board;
use broom::Broom;
use facts::Picture;
use fetching::Fetching;
use halt::Halt;
use looking::Looking;
use retention::Retention;
use shelf::Shelf;

/// Reports of our own tasks that wait; beyond this the tasks wait, not the actor.
const REPORTS: usize = 256;
/// Inputs that one commit takes along.
const BATCH: usize = 128;
/// The pool is looked at again at least this often: memberships end by the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Attempts that are known to be fresh; far more than are held at once.
const FRESH: usize = 4096;
/// News of more tasks than this at once is told as news of their jobs.
const TASKS_TOLD: usize = 256;
/// Between two adverts of ours.
const PUBLISH_GAP: Duration = Duration::from_secs(1);
/// A full disk is tried again after this.
const DISK_AGAIN: Duration = Duration::from_secs(1);
/// Unwanted blobs are swept this long after a start, where results may have been half fetched: by then those are being
/// fetched again. Elsewhere at once.
const FIRST_SWEEP: Duration = Duration::from_mins(10);
/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Callers that wait for room on the disk.
const POSTPONED: usize = 64;

/// Who waits for a reply.
enum ReplyTo {
    Peer(NodeId, Reply),
    /// The other machine of this node asked.
    Here(About),
}

enum Todo {
    Requester(requester::Action),
    Renderer(renderer::Action),
}

pub(super) struct Actor {
    config: Config,
    me: Me,
    id: NodeId,
    ports: Ports,
    tasks: Tasks,
    requester: Requester,
    renderer: Renderer,
    picture: Picture,
    barred: Arc<Barred>,
    board: Board,
    shelf: Shelf,
    broom: Broom,
    /// Inputs of others' attempts that are on their way.
    fetching: HashMap<AttemptKey, Fetching>,
    /// Attempts that this process has accepted and not begun to run.
    fresh: HashSet<AttemptKey>,
    sweep_at: Instant,
    retention: Retention,
    /// Says that a compaction has succeeded; closed without a word when it has not.
    compacting: Option<oneshot::Receiver<()>>,
    entries: Vec<Entry>,
    halt: Halt,
    looking: Looking,
    todo: Vec<Todo>,
    /// Between the two machines of this node.
    inside: VecDeque<Inbound>,
    tickets: HashMap<Ticket, ReplyTo>,
    next_ticket: u64,
    /// Answers to local callers, due when the step is on disk.
    confirm: Vec<(oneshot::Sender<usize>, usize)>,
    reports: mpsc::Sender<Inbound>,
    reported: Option<mpsc::Receiver<Inbound>>,
    /// What callers wanted while nothing could be written down.
    postponed: VecDeque<Command>,
    draining: Draining,
    load: watch::Sender<Load>,
    look_at: Instant,
    published: Option<Publication>,
    publish_at: Option<Instant>,
}

impl Actor {
    pub(super) fn new(
        config: Config,
        me: Me,
        ports: Ports,
        news: broadcast::Sender<JobEvent>,
        load: watch::Sender<Load>,
        tasks: Tasks,
    ) -> Self {
        let id = me.id();
        let (reports, reported) = mpsc::channel(REPORTS);
        let picture = Picture::new(id, config.shared_folders.clone(), config.lend.clone());
        let (limits, keep_after) = (config.limits.clone(), config.keep_after);
        let shelf = Shelf::new(ports.store.blobs.clone());
        let retention = Retention::new(config.keep_results, Instant::now(), clock::wall_ms());
        let looking = Looking::new(tasks.clone());
        Self {
            config,
            me,
            id,
            ports,
            tasks,
            requester: Requester::new(id, IdSource::new(random_bytes())).keeping_after(keep_after),
            renderer: Renderer::new(id, IdSource::new(random_bytes())).with_limits(limits),
            picture,
            barred: Arc::default(),
            board: Board::new(news),
            shelf,
            broom: Broom::default(),
            fetching: HashMap::new(),
            fresh: HashSet::new(),
            sweep_at: Instant::now() + FIRST_SWEEP,
            retention,
            compacting: None,
            entries: Vec::new(),
            halt: Halt::wanted(),
            looking,
            todo: Vec::new(),
            inside: VecDeque::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            confirm: Vec::new(),
            reports,
            reported: Some(reported),
            postponed: VecDeque::new(),
            draining: Draining::default(),
            load,
            look_at: Instant::now(),
            published: None,
            publish_at: None,
        }
    }

    /// Both machines as the journal left them.
    pub(super) fn restore(&mut self, replay: &Replay) -> Result<(), ReplayError> {
        let now = self.now();
        for record in replay.records::<RequesterRecord>() {
            let record = record?.1;
            if matches!(record, RequesterRecord::Forgotten { .. }) {
                self.retention.forgot();
            }
            self.requester.on_input(now, requester::Input::Restored(record));
            self.retention.recorded(1);
        }
        for record in replay.records::<RendererRecord>() {
            self.renderer.on_input(now, renderer::Input::Restored(record?.1));
            self.retention.recorded(1);
        }
        Ok(())
    }

    fn now(&self) -> Now {
        Now { at: Instant::now().into_std(), wall_ms: clock::wall_ms() }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inputs: Inputs,
    ) -> anyhow::Result<()> {
        let Some(mut reported) = self.reported.take() else { return Ok(()) };
        let stopping = self.tasks.stopping();
        let mut roster = self.ports.roster.clone();
        let mut peers = self.ports.network.peers();
        let mut slots = self.ports.executor.slots();
        let mut gpus = self.ports.gpus.clone();
        let mut studio = self.ports.studio.clone();
        let mut barred = self.ports.barred.clone();
        let mut policy = self.ports.policy.clone();
        let mut lending = self.ports.lending.clone();
        self.look();
        self.feed(Inbound::Requester(requester::Input::Started));
        self.feed(Inbound::Renderer(renderer::Input::Started));
        if !self.is_fetching_elsewhere() {
            // Nothing that is half here is wanted: what an earlier run left goes at once.
            self.sweep_at = Instant::now();
        }
        self.greet(self.id, self.me.boot);
        self.settle(&mut commands).await?;
        self.compact_when_due().await;
        loop {
            let wake = self.deadline();
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                Some(inbound) = reported.recv() => self.feed(inbound),
                Some(event) = inputs.executor.recv() => self.ran(event),
                Some(event) = inputs.network.recv() => self.heard(event),
                Some(command) = commands.recv() => self.obey(command).await,
                Ok(()) = roster.changed() => self.look(),
                Ok(()) = peers.changed() => self.look(),
                Ok(()) = slots.changed() => self.look(),
                Ok(()) = gpus.changed() => self.look(),
                Ok(()) = studio.changed() => self.look(),
                Ok(()) = barred.changed() => self.look(),
                Ok(()) = policy.changed() => self.look(),
                Ok(()) = lending.changed() => self.look(),
                () = tokio::time::sleep_until(wake) => self.tick(),
            }
            // Whatever else waits shares the commit.
            for _ in 0..BATCH {
                if let Ok(inbound) = reported.try_recv() {
                    self.feed(inbound);
                } else if let Ok(event) = inputs.executor.try_recv() {
                    self.ran(event);
                } else if let Ok(event) = inputs.network.try_recv() {
                    self.heard(event);
                } else {
                    break;
                }
            }
            // A stop is like a kill: runs that the executor breaks off now are no failures, they go on next time.
            if stopping.is_cancelled() || !self.settle(&mut commands).await? {
                return Ok(());
            }
            self.compact_when_due().await;
            while let Some(command) = self.postponed.pop_front() {
                self.obey(command).await;
                if !self.settle(&mut commands).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Whether results of other nodes may be half here: their names are known once those nodes are heard again.
    fn is_fetching_elsewhere(&self) -> bool {
        self.requester.jobs().live_attempts().any(|(_, _, attempt)| attempt.node != self.id)
    }

    fn deadline(&self) -> Instant {
        let machines = [self.requester.deadline(), self.renderer.deadline()];
        let machines = machines.into_iter().flatten().map(Instant::from_std);
        let drained = self.draining.deadline(self.now().at).map(Instant::from_std);
        machines
            .chain(drained)
            .chain(self.publish_at)
            .chain([self.look_at, self.sweep_at])
            .min()
            .unwrap_or(self.look_at)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.look_at <= now || self.is_late() != self.picture.late {
            self.look();
        }
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP_EVERY;
            if let Some(before_ms) = self.retention.forget_before(now, clock::wall_ms()) {
                self.feed(Inbound::Requester(requester::Input::Forget { before_ms }));
            }
            self.sweep_blobs();
        }
        let due = |at: Option<std::time::Instant>| at.is_some_and(|at| at <= now.into_std());
        if due(self.requester.deadline()) {
            self.feed(Inbound::Requester(requester::Input::Tick));
        }
        if due(self.renderer.deadline()) {
            self.feed(Inbound::Renderer(renderer::Input::Tick));
        }
    }

    /// One input for one machine; its actions wait for [`Actor::settle`].
    fn feed(&mut self, inbound: Inbound) {
        let now = self.now();
        match inbound {
            Inbound::Requester(input) => {
                for action in self.requester.on_input(now, input) {
                    match action {
                        requester::Action::Record(record) => {
                            self.write_down(record.name(), Entry::new(&record));
                        }
                        other => self.todo.push(Todo::Requester(other)),
                    }
                }
            }
            Inbound::Renderer(input) => {
                for action in self.renderer.on_input(now, input) {
                    match action {
                        renderer::Action::Record(record) => {
                            if let RendererRecord::Accepted(accepted) = &record {
                                self.accepted_here(accepted);
                            }
                            self.write_down(record.name(), Entry::new(&record));
                        }
                        other => self.todo.push(Todo::Renderer(other)),
                    }
                }
            }
        }
    }

    /// Those that never run, cancelled before their turn, are forgotten with all the others: they are looked for then, as after a
    /// start.
    fn accepted_here(&mut self, accepted: &Acceptance) {
        if self.fresh.len() == FRESH {
            self.fresh.clear();
        }
        let Acceptance { from, task, attempt, .. } = *accepted;
        self.fresh.insert(AttemptKey { from, task, attempt });
    }

    fn write_down(&mut self, name: &'static str, entry: Entry) {
        self.halt.sees(name);
        self.entries.push(entry);
    }

    /// Commits and performs until both machines are at rest; false when the node stops.
    async fn settle(&mut self, commands: &mut mpsc::Receiver<Command>) -> anyhow::Result<bool> {
        loop {
            if !self.commit(commands).await? {
                return Ok(false);
            }
            let todo = std::mem::take(&mut self.todo);
            if todo.is_empty() {
                break;
            }
            for action in todo {
                match action {
                    Todo::Requester(action) => self.perform_for_requester(action),
                    Todo::Renderer(action) => self.perform_for_renderer(action),
                }
            }
            while let Some(inbound) = self.inside.pop_front() {
                self.feed(inbound);
            }
        }
        for (reply, count) in self.confirm.drain(..) {
            // A caller that went away does not mind.
            let _ = reply.send(count);
        }
        self.tell_news();
        self.tell_load();
        Ok(true)
    }

    /// Everything written down so far goes to disk, together. While the disk is full nothing is performed and
    /// nothing new is taken in: what was accepted is safe, peers are told that we are busy, and people what is wrong.
    async fn commit(&mut self, commands: &mut mpsc::Receiver<Command>) -> anyhow::Result<bool> {
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() {
            return Ok(true);
        }
        self.retention.recorded(entries.len());
        let stopping = self.tasks.stopping();
        self.halt.before_commit();
        loop {
            match self.ports.store.journal.commit(entries.clone()).await {
                Ok(_) => {
                    self.halt.after_commit();
                    return Ok(true);
                }
                Err(JournalError::Stopping) => return Ok(false),
                Err(error @ (JournalError::NoSpace { .. } | JournalError::Write { .. })) => {
                    tracing::error!(%error, "the scheduler waits until it can write again");
                    let again = Instant::now() + DISK_AGAIN;
                    loop {
                        tokio::select! {
                            () = stopping.cancelled() => return Ok(false),
                            () = tokio::time::sleep_until(again) => break,
                            Some(command) = commands.recv(), if self.postponed.len() < POSTPONED => {
                                self.obey_later(command, &error);
                            }
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn greet(&mut self, node: NodeId, boot: scenemesh_protocol::ids::BootId) {
        self.feed(Inbound::Requester(requester::Input::PeerUp { node, boot }));
        self.feed(Inbound::Renderer(renderer::Input::PeerUp { node, boot }));
    }

    fn heard(&mut self, event: TaskEvent) {
        match event {
            TaskEvent::PeerUp { peer, boot } => {
                // Its card may have come with it.
                self.look();
                self.greet(peer, boot);
            }
            TaskEvent::PeerDown { peer } => {
                self.feed(Inbound::Requester(requester::Input::PeerDown { node: peer }));
                self.feed(Inbound::Renderer(renderer::Input::PeerDown { node: peer }));
            }
            TaskEvent::Request { from, request, reply } => {
                let ticket = self.ticket();
                let requester = &self.requester;
                match link::route(from, request, ticket, |asked| requester.is_asked(from, asked)) {
                    Ok(inbound) => {
                        self.tickets.insert(ticket, ReplyTo::Peer(from, reply));
                        self.feed(inbound);
                    }
                    Err(declined) => reply.send(declined),
                }
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn reply(&mut self, ticket: Ticket, response: Response) {
        match self.tickets.remove(&ticket) {
            Some(ReplyTo::Peer(from, reply)) => {
                let foreign = self.picture.is_foreign(&from, clock::wall_ms());
                reply.send(if foreign { discretion::response(response) } else { response });
            }
            Some(ReplyTo::Here(about)) => self.inside.extend(link::understand(about, Ok(response))),
            None => {}
        }
    }

    /// Takes in what the modules below know now.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_AGAIN;
        self.retention.observe(Instant::now(), clock::wall_ms());
        let roster = self.ports.roster.borrow().clone();
        let peers = self.ports.network.peers().borrow().clone();
        let slots = self.ports.executor.slots().borrow().clone();
        let gpus = self.ports.gpus.borrow().clone();
        let barred = self.ports.barred.borrow().clone();
        let policy = self.ports.policy.borrow().clone();
        (self.picture.lending, self.picture.late) = (*self.ports.lending.borrow(), self.is_late());
        self.picture.update(roster, peers, slots, gpus, barred.clone(), policy);
        let now_ms = clock::wall_ms();
        let facts = Arc::new(self.picture.renderer(now_ms));
        self.feed(Inbound::Renderer(renderer::Input::Facts(facts)));
        let nodes = Arc::new(self.picture.nodes(now_ms, self.renderer.load().0));
        self.feed(Inbound::Requester(requester::Input::Nodes(nodes)));
        let rules = self.ports.studio.borrow().clone();
        self.feed(Inbound::Requester(requester::Input::Rules(rules)));
        if self.barred != barred {
            self.barred = barred.clone();
            self.feed(Inbound::Renderer(renderer::Input::Barred(barred.clone())));
            self.feed(Inbound::Requester(requester::Input::Barred(barred)));
        }
        self.publish_at.get_or_insert_with(Instant::now);
    }

    fn tell_news(&mut self) {
        let now = self.now();
        let watched = self.board.news.receiver_count() > 0;
        let changed = std::mem::take(&mut self.board.changed);
        if changed.len() > TASKS_TOLD {
            let job = |task| self.requester.jobs().task(task).map(|known| known.job);
            for job in changed.iter().filter_map(job).collect::<BTreeSet<_>>() {
                self.board.tell(JobEvent::Job { job });
            }
            return;
        }
        for task in changed {
            let Some(known) = self.requester.jobs().task(&task) else { continue };
            let (job, over) = (known.job, !known.state.is_open());
            if !watched {
                continue;
            }
            if let Some(view) = self.requester.task_view(now, task) {
                self.board.tell(JobEvent::Task { job, task: Arc::new(view) });
            }
            if over && self.requester.jobs().job(&job).is_some_and(|job| job.open == 0) {
                self.board.tell(JobEvent::Job { job });
            }
        }
        for task in std::mem::take(&mut self.board.moved) {
            if let Some((job, progress)) = self.requester.progress_of(task).filter(|_| watched) {
                self.board.tell(JobEvent::Progress { job, task, progress });
            }
        }
    }

    fn tell_load(&mut self) {
        self.end_when_drained();
        let load = self.load();
        let (queue, closed) = (load.queue, load.draining || load.parked);
        // To others there is no slot here now.
        let slots_free = if closed || load.wanted_back { 0 } else { load.slots_free };
        let before = *self.load.borrow();
        let changed = self.load.send_if_modified(|known| std::mem::replace(known, load) != load);
        let open = |load: &Load| (load.draining, load.wanted_back, load.parked);
        if open(&before) != open(&load) {
            // Whoever was refused in between must learn that another answer may come.
            self.publish_at = Some(Instant::now());
        } else if changed {
            self.publish_at.get_or_insert_with(|| Instant::now() + PUBLISH_GAP);
        }
        if self.publish_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.publish_at = None;
        let publication = self.picture.publication(clock::wall_ms(), slots_free, queue, closed);
        if self.published.as_ref() != Some(&publication) {
            self.ports.network.publish(publication.clone());
            self.published = Some(publication);
        }
    }
}
