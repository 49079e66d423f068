//! The actor between the mesh and the gateway's clients: feeds the desk, keeps its files, fills its sockets' outboxes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scenemesh_protocol::ids::JobId;
use scenemesh_protocol::task::OutputFile;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::desk::{Desk, Effect, Key, Live, Over, Prompt, Scope, SocketId, State, Streamed};
use super::files::Files;
use super::outbox::Outbox;
use super::record::{Class, Ended, How, Output, Record, is_shown_text};
use super::view::whole;
use crate::clock;
pub(super) use crate::scheduler::Stopping;
use crate::scheduler::{JobEvent, Scheduler};
use crate::store::Blobs;
use crate::supervisor::Tasks;

/// Requests that wait at once: they are local, the next one waits for a place.
const WAITING: usize = 256;
/// First wait before an end is written down again, doubled each time, and the longest.
const WRITTEN_AGAIN: Duration = Duration::from_secs(1);
const WRITTEN_AT_LAST: Duration = Duration::from_mins(1);
/// How often waiting clients hear that we are alive; comfy-cli gives up after thirty seconds.
const BEAT: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce(&mut Desk) -> Vec<Effect> + Send>;

enum Command {
    Connect { socket: SocketId, scope: Scope, sid: Arc<str>, outbox: Arc<Outbox> },
    Work(Work),
    Accepted(Box<Prompt>),
    Ended { key: Key, ended: Box<Ended>, streamed: Vec<Streamed> },
}

/// Handle to the hub; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    commands: mpsc::Sender<Command>,
    sockets: Arc<AtomicU64>,
}

/// What the hub stands on.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) scheduler: Scheduler,
    pub(super) blobs: Blobs,
    pub(super) files: Files,
    pub(super) tasks: Tasks,
}

/// Reads what earlier runs wrote down and starts.
pub(super) async fn spawn(ground: Ground) -> Hub {
    let (commands, inbox) = mpsc::channel(WAITING);
    let hub = Hub { commands, sockets: Arc::default() };
    let news = ground.scheduler.events();
    let files = ground.files.clone();
    let restored = ground.tasks.blocking(move || {
        let mut desk = Desk::default();
        files
            .prompts()
            .filter_map(|(record, bytes)| restored(&record, bytes))
            .for_each(|prompt| desk.restore(prompt));
        desk
    });
    let desk = restored.await.unwrap_or_default();
    let (tasks, stop) = (ground.tasks.clone(), ground.tasks.stopping());
    let mut actor = Actor { ground, desk, outboxes: HashMap::new(), hub: hub.clone() };
    tasks.spawn("gateway", async move {
        stop.run_until_cancelled(actor.run(inbox, news)).await;
        // Whoever listens is hung up on: the node may be gone for a while.
        actor.outboxes.values().for_each(|outbox| outbox.close());
        Ok(())
    });
    hub
}

fn restored(record: &Record, bytes: u64) -> Option<Prompt> {
    let key = Key { scope: record.scope.as_str().into(), id: record.id.as_str().into() };
    let state = match &record.ended {
        Some(ended) => State::Over(Over::of(ended, &record.outputs())),
        None => State::Live(Box::new(Live::new(record.classes(), record.outputs_to_execute.clone()))),
    };
    prompt(record, key, record.job.parse().ok()?, state, bytes)
}

fn prompt(record: &Record, key: Key, job: JobId, state: State, bytes: u64) -> Option<Prompt> {
    Some(Prompt {
        key,
        number: record.number.clone(),
        client: record.client.as_deref().map(Arc::from),
        job,
        created_ms: record.created_ms,
        bytes,
        started_ms: record.started_ms,
        workflow: record.workflow(),
        state,
        hidden: record.hidden,
    })
}

impl Hub {
    /// Does something with the desk and gives what came of it.
    ///
    /// # Errors
    /// When the node is stopping.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> (T, Vec<Effect>) + Send + 'static,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |desk| {
            let (value, effects) = work(desk);
            // Nobody waits any more: what was done is done.
            drop(reply.send(value));
            effects
        });
        self.commands.send(Command::Work(work)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// A question that changes nothing.
    ///
    /// # Errors
    /// When the node is stopping.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Desk) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        self.with(move |desk| (question(desk), Vec::new())).await
    }

    /// A prompt that is queued and written down, in so many bytes.
    ///
    /// # Errors
    /// When the node is stopping.
    pub(super) async fn accepted(&self, record: &Record, bytes: u64, job: JobId) -> Result<(), Stopping> {
        let key = Key { scope: record.scope.as_str().into(), id: record.id.as_str().into() };
        let live = State::Live(Box::new(Live::new(record.classes(), record.outputs_to_execute.clone())));
        let Some(prompt) = prompt(record, key, job, live, bytes) else { return Ok(()) };
        self.commands.send(Command::Accepted(Box::new(prompt))).await.map_err(|_| Stopping)
    }

    /// Opens a socket: its frames come out of the outbox.
    ///
    /// # Errors
    /// When the node is stopping.
    pub(super) async fn connect(
        &self,
        scope: Scope,
        sid: Arc<str>,
    ) -> Result<(SocketId, Arc<Outbox>), Stopping> {
        let socket = SocketId(self.sockets.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        let command = Command::Connect { socket, scope, sid, outbox: outbox.clone() };
        self.commands.send(command).await.map_err(|_| Stopping)?;
        Ok((socket, outbox))
    }
}

struct Actor {
    ground: Ground,
    desk: Desk,
    outboxes: HashMap<SocketId, Arc<Outbox>>,
    hub: Hub,
}

impl Actor {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Command>, mut news: broadcast::Receiver<JobEvent>) {
        for scope in self.desk.scopes() {
            let effects = self.desk.forget_oldest(&scope);
            self.perform(effects);
        }
        self.look_at_all().await;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                heard = news.recv() => match heard {
                    Ok(event) => self.on_news(event).await,
                    Err(RecvError::Lagged(_)) => self.look_at_all().await,
                    Err(RecvError::Closed) => return,
                },
                _ = beat.tick() => {
                    let effects = self.desk.beat();
                    self.perform(effects);
                }
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Connect { socket, scope, sid, outbox } => {
                self.outboxes.insert(socket, outbox);
                let effects = self.desk.connected(socket, &scope, &sid);
                self.perform(effects);
            }
            Command::Work(work) => {
                let effects = work(&mut self.desk);
                self.perform(effects);
            }
            Command::Accepted(prompt) => {
                let job = prompt.job;
                let effects = self.desk.accepted(*prompt);
                self.perform(effects);
                // It may have begun before it was known here.
                self.look_at(job).await;
            }
            Command::Ended { key, ended, streamed } => {
                let effects = self.desk.ended(&key, &ended, &streamed);
                self.perform(effects);
            }
        }
        self.outboxes.retain(|socket, _| self.desk.is_open(*socket));
    }

    async fn on_news(&mut self, event: JobEvent) {
        let effects = match event {
            JobEvent::Task { task, .. } => self.desk.on_task(&task, clock::wall_ms()),
            JobEvent::Progress { job, progress, .. } => {
                self.desk.on_progress(job, &progress, clock::wall_ms())
            }
            JobEvent::Preview { job, task } if self.desk.is_watched(job) => {
                match self.ground.scheduler.preview(task).await {
                    Some(preview) => self.desk.on_preview(job, &preview.mime, &preview.bytes),
                    None => Vec::new(),
                }
            }
            JobEvent::Relayed { job, frame } => self.desk.on_relayed(job, frame),
            JobEvent::Job { job } if self.desk.knows(job) => return self.look_at(job).await,
            JobEvent::Job { .. } | JobEvent::Preview { .. } | JobEvent::Log { .. } => Vec::new(),
        };
        self.perform(effects);
    }

    async fn look_at_all(&mut self) {
        for job in self.desk.live_jobs() {
            self.look_at(job).await;
        }
    }

    async fn look_at(&mut self, job: JobId) {
        let effects = match self.ground.scheduler.look_up(job).await {
            Ok(Some(view)) => {
                view.tasks.iter().flat_map(|task| self.desk.on_task(task, clock::wall_ms())).collect()
            }
            Ok(None) => self.desk.lost(job, clock::wall_ms()),
            // It is found again after the next start.
            Err(Stopping) => Vec::new(),
        };
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(socket, frame) => {
                    if let Some(outbox) = self.outboxes.get(&socket) {
                        outbox.push(frame);
                    }
                }
                Effect::Hangup(socket) => {
                    if let Some(outbox) = self.outboxes.remove(&socket) {
                        outbox.close();
                    }
                }
                Effect::Forget(key) => {
                    let (ground, hub) = (self.ground.clone(), self.hub.clone());
                    self.ground.tasks.spawn("gateway file", async move {
                        let gone = key.clone();
                        drop(ground.tasks.blocking(move || ground.files.remove(&gone)).await);
                        // A node that stops needs to know of no free name.
                        drop(hub.with(move |desk| (desk.unreserve(&key), Vec::new())).await);
                        Ok(())
                    });
                }
                Effect::End { key, how, outputs, started_ms } => {
                    let (ground, hub) = (self.ground.clone(), self.hub.clone());
                    self.ground.tasks.spawn("gateway end", async move {
                        let command = end(&ground, key, how, outputs, started_ms).await;
                        drop(hub.commands.send(command).await);
                        Ok(())
                    });
                }
            }
        }
    }
}

/// Takes the results in and writes the end down; only then is anybody told.
async fn end(
    ground: &Ground,
    key: Key,
    how: How,
    files: Vec<OutputFile>,
    started_ms: Option<u64>,
) -> Command {
    let mut outputs = Vec::with_capacity(files.len());
    for (file, index) in files.iter().zip(0..) {
        let text = if is_shown_text(file) { read_text(&ground.blobs, file).await } else { None };
        outputs.push(Output::of(file, index, text));
    }
    let at_ms = clock::wall_ms();
    let began = started_ms.or((how == How::Success).then_some(at_ms));
    let ended = Ended { at_ms, how, outputs };
    let mut wait = WRITTEN_AGAIN;
    let classes = loop {
        let (store, mine, written) = (ground.files.clone(), key.clone(), ended.clone());
        let writing = ground.tasks.blocking(move || {
            let Some(mut record) = store.read(&mine) else { return Ok(Default::default()) };
            (record.ended, record.started_ms) = (Some(written), began);
            store.update(&record).map(|()| record.classes())
        });
        match writing.await {
            Ok(Ok(classes)) => break classes,
            Ok(Err(error)) => {
                // Until it is on disk nobody is told: what is told must be found in the history.
                tracing::warn!(%error, "the end of a prompt could not be written down, and is tried again");
                let stop = ground.tasks.stopping();
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    break BTreeMap::default();
                }
                wait = (wait * 2).min(WRITTEN_AT_LAST);
            }
            // The node is stopping: it ends again after the next start.
            Err(_) => break BTreeMap::default(),
        }
    };
    let streamed = files
        .into_iter()
        .filter(|file| classes.get(&file.node).is_some_and(Class::streams))
        .map(|file| Streamed {
            node: file.node,
            filename: file.filename,
            root: file.root,
            key: file.key,
            bytes: file.bytes,
        })
        .collect();
    Command::Ended { key, ended: Box::new(ended), streamed }
}

async fn read_text(blobs: &Blobs, file: &OutputFile) -> Option<String> {
    let opener = blobs.open(file.root, &file.key).await.ok()?;
    String::from_utf8(whole(opener).await.ok()?).ok()
}
