//! Feeds the pure state, journals what it decides, and talks to the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::ids::{NodeId, PoolId};
use scenemesh_protocol::invite::JoinReply;
use scenemesh_protocol::messages::{
    PorchRequest, PorchResponse, Request, Response, RosterDiff, RosterSync, Standing as Regard, StandingGet,
};
use scenemesh_protocol::roster::{Roster, SignedRecord};
use scenemesh_protocol::studio::StudioRules;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::addresses;
use super::joining::JoinOutcome;
use super::keys::{AdminFile, NodeKeys, StudioFiles};
use super::roster::Change;
use super::state::{Asked, Fact, Me, State, Step};
use super::studio::OwnStudio;
use super::{Answer, Command, Config, JoinError, KeepError, SpawnError, Standing};
use crate::clock::wall_ms;
use crate::network::{Link, Network, RosterEvent, RosterView};
use crate::store::{Entry, Journal, Record, Replay};
use crate::supervisor::Tasks;

mod commands;
mod errands;
mod questions;
mod studio;
mod trust;

use errands::Returned;
use questions::Questions;

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Errands under way at once: pushes beyond this are left to the next question.
const ERRANDS: usize = 64;
/// Least time between two visits at one node's porch.
const VISIT_PAUSE: Duration = Duration::from_secs(5);
/// Least time between two attempts to open the network, after the first failed.
const START_PAUSE: Duration = Duration::from_secs(10);

/// Addresses of an inviter that a joiner is told, and takes.
const ADDRESSES: usize = 8;

impl Record for Fact {
    const KIND: u16 = 0x0101;
    const LIMIT: usize = 4 << 20;
}

pub(super) struct Outlets {
    pub(super) standing: watch::Sender<Arc<Standing>>,
    pub(super) roster: watch::Sender<Option<Arc<Roster>>>,
    pub(super) studio: watch::Sender<Arc<OwnStudio>>,
    pub(super) rules: watch::Sender<Arc<StudioRules>>,
    pub(super) barred: watch::Sender<Arc<BTreeMap<NodeId, String>>>,
}

pub(super) struct Actor {
    config: Config,
    state: State,
    admin_file: AdminFile,
    studio_files: StudioFiles,
    /// The admin key on disk is sealed: what is in memory goes when it has no more work.
    sealed: bool,
    journal: Journal,
    network: Network,
    tasks: Tasks,
    outlets: Outlets,
    /// The roster as the network has it.
    shown: Option<RosterView>,
    open: Option<PoolId>,
    opened_at: Option<Instant>,
    returned: mpsc::Sender<Returned>,
    returns: Option<mpsc::Receiver<Returned>>,
    errands: usize,
    /// How often this node left a pool or gave up joining one.
    leaves: u64,
    /// To members, about the roster.
    roster_questions: Questions,
    /// To machines of the own studio, about its records.
    studio_questions: Questions,
    visited: BTreeMap<NodeId, Instant>,
    questioned: Option<Instant>,
    questioning: bool,
    synced: Instant,
    /// Since when this node's new keys are decided on.
    switching: Option<Instant>,
}

impl Actor {
    pub(super) async fn restore(
        config: Config,
        keys: &NodeKeys,
        journal: Journal,
        network: Network,
        outlets: Outlets,
        replay: &Replay,
        tasks: Tasks,
    ) -> Result<Self, SpawnError> {
        let mut state = State::new(Me { node: keys.node.clone(), kem: keys.kem.public() });
        for fact in replay.records::<Fact>() {
            state.replay(fact?.1)?;
        }
        let admin_file = AdminFile::of(&config.dir);
        let studio_files = StudioFiles::of(&config.dir);
        // A key without a passphrase is never locked.
        let (file, files) = (admin_file.clone(), studio_files.clone());
        let (unsealed, secrets) = tasks
            .blocking(move || (file.unsealed(), files.read()))
            .await
            .map_err(|_| SpawnError::Network(crate::network::StartError::Stopping))?;
        let (sealed, admin) = unsealed?;
        state.admin = admin;
        state.replay_secrets(secrets?);
        // As many as errands: each reports once.
        let (returned, returns) = mpsc::channel(ERRANDS);
        let mut actor = Self {
            config,
            state,
            admin_file,
            studio_files,
            sealed,
            journal,
            network,
            tasks,
            outlets,
            shown: None,
            open: None,
            opened_at: None,
            returned,
            returns: Some(returns),
            errands: 0,
            leaves: 0,
            roster_questions: Questions::default(),
            studio_questions: Questions::default(),
            visited: BTreeMap::new(),
            questioned: None,
            questioning: false,
            synced: Instant::now(),
            switching: None,
        };
        actor.show();
        if let Some(pool) = actor.state.roster().filter(|_| !actor.state.solo).map(|roster| roster.pool()) {
            actor.network.start(pool).await?;
            actor.open = Some(pool);
        } else if actor.state.asked.is_some() {
            actor.open_porch().await;
        }
        Ok(actor)
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<RosterEvent>,
    ) -> anyhow::Result<()> {
        let stopping = self.tasks.stopping();
        let Some(mut returns) = self.returns.take() else { anyhow::bail!("membership runs twice") };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                Some(returned) = returns.recv() => {
                    self.errands = self.errands.saturating_sub(1);
                    self.on_returned(returned).await;
                }
                Some(command) = commands.recv() => self.on_command(command).await,
                Some(event) = events.recv() => self.on_event(event).await,
                _ = tick.tick() => self.on_tick().await,
            }
        }
    }

    /// Journals what a changed copy of the state decided, keeps it, and acts.
    async fn keep(&mut self, next: State, step: Step) -> Result<(), KeepError> {
        self.store_secrets(step.secrets).await?;
        if !step.facts.is_empty() {
            self.journal.commit(step.facts.iter().map(Entry::new).collect()).await?;
        }
        self.state = next;
        let revokes = |record: &SignedRecord| matches!(record, SignedRecord::Revoked(_));
        if step
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Circle(Change::Record(record)) if revokes(record)))
        {
            tracing::info!("a revocation holds");
        }
        for words in &step.warnings {
            tracing::warn!("{words}");
            self.state.warn(words);
        }
        let now_ms = wall_ms();
        if self.sealed && self.state.admin.is_some() && !self.state.needs_admin(now_ms) {
            // Wiped when dropped.
            self.state.admin = None;
        }
        self.show();
        self.tell(step.news);
        self.tell_studio(step.studio);
        for peer in step.ask {
            self.ask(peer);
        }
        for peer in step.ask_studio {
            self.ask_studio(peer);
        }
        for peer in step.show {
            self.visit(peer, Vec::new(), true);
        }
        Ok(())
    }

    /// As [`Self::keep`], for what nobody waits for: a failed commit leaves everything as it was.
    async fn keep_or_log(&mut self, next: State, step: Step) -> bool {
        match self.keep(next, step).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "news of the roster was not recorded, and not taken over");
                false
            }
        }
    }

    /// Hands the roster and the standing to whoever looks.
    fn show(&mut self) {
        let now_ms = wall_ms();
        let standing = self.state.standing(now_ms);
        self.outlets.standing.send_if_modified(|shown| {
            let news = **shown != standing;
            if news {
                *shown = Arc::new(standing);
            }
            news
        });
        let studio = self.state.own_studio_records(now_ms);
        let rules = studio.rules();
        self.outlets.rules.send_if_modified(|shown| {
            let news = **shown != rules;
            if news {
                *shown = Arc::new(rules);
            }
            news
        });
        self.outlets.studio.send_if_modified(|shown| {
            let news = **shown != studio;
            if news {
                *shown = Arc::new(studio);
            }
            news
        });
        let roster = self.state.roster().cloned();
        // Who is out loses its place in the queues before its links.
        let barred = self.state.barred(now_ms);
        self.outlets.barred.send_if_modified(|shown| {
            let news = **shown != barred;
            if news {
                *shown = Arc::new(barred);
            }
            news
        });
        let view = self.state.roster_view(now_ms);
        if self.shown == view {
            return;
        }
        self.outlets.roster.send_replace(roster);
        if let Some(view) = &view {
            self.network.set_roster(view.clone());
        }
        self.shown = view;
    }

    /// Opens the network of the pool that this node is in, if it is not open.
    async fn open_network(&mut self) -> Result<(), crate::network::StartError> {
        let pool = self.state.roster().filter(|_| !self.state.solo).map(|roster| roster.pool());
        if let Some(pool) = pool.filter(|pool| self.open != Some(*pool)) {
            self.opened_at = Some(Instant::now());
            self.network.start(pool).await?;
            self.open = Some(pool);
        }
        Ok(())
    }

    async fn open_porch(&self) {
        if let Err(error) = self.network.open_porch().await {
            // Asking goes on; only others cannot bring the approval.
            tracing::warn!(%error, "the porch stays closed while the join is pending");
        }
    }

    async fn on_event(&mut self, event: RosterEvent) {
        let now_ms = wall_ms();
        match event {
            RosterEvent::Hello { peer, digest } => {
                if self.state.differs(&digest) {
                    self.ask(peer);
                }
                self.ask_studio(peer);
            }
            RosterEvent::Request { from, request, reply } => {
                let mut next = self.state.clone();
                let (step, response) = next.on_request(from, request, now_ms);
                if self.keep_or_log(next, step).await {
                    reply.send(response);
                }
            }
            RosterEvent::Porch { from, address, request, reply } => {
                let mut next = self.state.clone();
                let waited = self.state.circle.is_none();
                let (step, mut response) = next.on_porch(from, &address, request, Instant::now(), now_ms);
                if let PorchResponse::Join(JoinReply::Admitted { addresses, .. }) = &mut response {
                    addresses
                        .extend(self.network.listening().borrow().told_main.iter().take(ADDRESSES).cloned());
                }
                if self.keep_or_log(next, step).await {
                    reply.send(response);
                }
                if waited && self.state.circle.is_some() {
                    self.enter_or_log().await;
                }
            }
            RosterEvent::ShutOut { peer, address } => {
                if self.state.is_member(now_ms) {
                    self.visit(peer, self.porches_of(&peer, &address), false);
                }
            }
        }
    }

    /// Where a member's porch is: where its last advert says, else near the address it was reached at.
    fn porches_of(&self, peer: &NodeId, address: &str) -> Vec<String> {
        let advert = self.network.peers().borrow().peers.get(peer).and_then(|peer| peer.advert.clone());
        let told = advert.map(|advert| advert.porch.clone()).unwrap_or_default();
        told.into_iter().chain(addresses::porches_near(address)).collect()
    }

    async fn enter_or_log(&mut self) {
        if let Err(error) = self.open_network().await {
            let words = format!("this node is a member, but closed to others: {error}");
            tracing::error!("{words}");
            self.state.warn(&words);
        }
    }

    async fn on_tick(&mut self) {
        let now = Instant::now();
        let mut next = self.state.clone();
        let step = next.on_tick(wall_ms());
        self.keep_or_log(next, step).await;
        if self.opened_at.is_none_or(|at| now.duration_since(at) >= START_PAUSE) {
            self.enter_or_log().await;
        }
        self.follow_rotation().await;
        let due = self.questioned.is_none_or(|at| now.duration_since(at) >= self.config.ask_every);
        if due && !self.questioning {
            self.question();
        }
        if now.duration_since(self.synced) >= self.config.sync_every {
            self.synced = now;
            self.ask_one();
            self.ask_one_sister();
        }
        self.visited.retain(|_, at| now.duration_since(*at) < VISIT_PAUSE);
    }

    /// Asks the connected members in turn, one at a time.
    fn ask_one(&mut self) {
        let up = self.up();
        if let Some(peer) = self.roster_questions.next(&up) {
            self.ask(peer);
        }
    }

    /// Members that are connected.
    fn up(&self) -> BTreeSet<NodeId> {
        let peers = self.network.peers().borrow().clone();
        peers.peers.iter().filter(|(_, peer)| peer.link == Link::Up).map(|(id, _)| *id).collect()
    }
}
