//! PURE: whose prompts there are, how they stand, and who is told what of them, in which order.
//!
//! A scope is a listener, or one of its tokens: what is of another scope is not there. Within a scope, frames go to the
//! socket whose client id a prompt carries, and to no other. A prompt has ended when its results are here and it is
//! written down: only then does anybody hear of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use scenemesh_protocol::ids::{ContentHash, JobId};
use scenemesh_protocol::lease::Progress;
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::task::OutputFile;
use serde_json::{Map, Number, Value, json};

use super::frames::{self, Frame, Preview, Step};
use super::record::{self, Classes, Ended, How, Summary};
use crate::scheduler::{TaskPhase, TaskView};

mod asked;

pub(super) use asked::{Named, Page, Sorted};

/// Prompts of one scope that have not ended.
pub(super) const LIVE_LIMIT: usize = 2000;
/// Prompts of one scope that are remembered; core's own number.
pub(super) const HISTORY_LIMIT: usize = 10_000;
/// Bytes of the files of one scope's prompts, of those that have ended and of those that have not. A prompt may bring
/// pictures along.
const WRITTEN_LIMIT: u64 = 2 << 30;
/// Nodes of one prompt whose progress is told: `progress_state` names all that have begun, every time.
const STEPS_TOLD: usize = 512;

/// Whose a prompt is.
pub(super) type Scope = Arc<str>;

/// A prompt's name: its client chose it, so another scope may have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) id: Arc<str>,
}

/// A socket, for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SocketId(pub(super) u64);

/// What the hub does next.
#[derive(Debug)]
pub(super) enum Effect {
    Send(SocketId, Frame),
    /// Another took its place, or it is too slow.
    Hangup(SocketId),
    /// Take the results in, write the end down, and say so.
    End {
        key: Key,
        how: How,
        outputs: Vec<OutputFile>,
        started_ms: Option<u64>,
    },
    /// Delete its file, and say when that is done: it is beyond what is remembered, or was taken out before it began.
    Forget(Key),
}

/// A prompt, as far as it is kept in memory.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) key: Key,
    pub(super) number: Number,
    pub(super) client: Option<Arc<str>>,
    pub(super) job: JobId,
    pub(super) created_ms: u64,
    /// Of its file, as it was queued.
    pub(super) bytes: u64,
    pub(super) started_ms: Option<u64>,
    pub(super) workflow: Option<String>,
    pub(super) state: State,
    pub(super) hidden: bool,
}

#[derive(Debug)]
pub(super) enum State {
    /// Boxed: most that are remembered are over.
    Live(Box<Live>),
    Over(Over),
}

/// A prompt that is waiting or running.
#[derive(Debug, Default)]
pub(super) struct Live {
    classes: Arc<Classes>,
    outputs_to_execute: Vec<String>,
    attempt: u32,
    running: Option<String>,
    steps: Vec<(String, Step)>,
    ending: bool,
}

impl Live {
    pub(super) fn new(classes: Classes, outputs_to_execute: Vec<String>) -> Self {
        Self { classes: Arc::new(classes), outputs_to_execute, ..Self::default() }
    }
}

/// How a prompt ended, in the words of lists.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) at_ms: u64,
    pub(super) how: How,
    pub(super) summary: Summary,
}

impl Over {
    pub(super) fn of(ended: &Ended, shown: &Map<String, Value>) -> Self {
        Self { at_ms: ended.at_ms, how: ended.how.clone(), summary: record::summary(shown) }
    }
}

/// A result for a node that sends its pictures over the socket.
#[derive(Clone, Debug)]
pub(super) struct Streamed {
    pub(super) node: String,
    pub(super) filename: String,
    pub(super) root: ContentHash,
    pub(super) key: BlobKey,
    pub(super) bytes: u64,
}

/// Why a prompt gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    Taken,
    Full,
}

#[derive(Debug)]
struct Socket {
    scope: Scope,
    sid: Arc<str>,
    metadata: bool,
}

/// All prompts and sockets of the gateway.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Boxed: a third of a map's places are empty.
    prompts: BTreeMap<Key, Box<Prompt>>,
    by_job: HashMap<JobId, Key>,
    sockets: BTreeMap<SocketId, Socket>,
    /// Names of prompts that are being queued.
    reserved: BTreeSet<Key>,
    /// The next number of each scope.
    numbers: HashMap<Scope, i64>,
    /// Running prompts that a client of the scope lately asked to have deleted, and when.
    marked: HashMap<Scope, (u64, Vec<Key>)>,
}

impl Desk {
    /// A prompt of an earlier run.
    pub(super) fn restore(&mut self, prompt: Prompt) {
        let next = prompt.number.as_i64().map_or(0, |number| number.abs().saturating_add(1));
        let number = self.numbers.entry(prompt.key.scope.clone()).or_default();
        *number = next.max(*number);
        self.put(prompt);
    }

    /// Nobody forgets a scope's oldest prompts twice: called once all are restored, and with each new one.
    pub(super) fn forget_oldest(&mut self, scope: &Scope) -> Vec<Effect> {
        let over = || self.of(scope).filter(|prompt| !prompt.is_live());
        let (mut many, mut bytes) =
            over().fold((0, 0), |(many, bytes), prompt| (many + 1, bytes + prompt.bytes));
        if many <= HISTORY_LIMIT && bytes <= WRITTEN_LIMIT {
            return Vec::new();
        }
        let mut over: Vec<(u64, Key, u64)> =
            over().map(|prompt| (prompt.created_ms, prompt.key.clone(), prompt.bytes)).collect();
        over.sort();
        let beyond = over.into_iter().take_while(|(_, _, of_it)| {
            let goes = many > HISTORY_LIMIT || bytes > WRITTEN_LIMIT;
            (many, bytes) = (many - 1, bytes - of_it);
            goes
        });
        beyond.map(|(_, key, _)| self.forget(&key)).collect()
    }

    fn forget(&mut self, key: &Key) -> Effect {
        if let Some(prompt) = self.prompts.remove(key) {
            self.by_job.remove(&prompt.job);
        }
        // Until its file is gone nobody else gets the name.
        self.reserved.insert(key.clone());
        Effect::Forget(key.clone())
    }

    pub(super) fn scopes(&self) -> Vec<Scope> {
        let mut scopes: Vec<Scope> = self.prompts.keys().map(|key| key.scope.clone()).collect();
        scopes.dedup();
        scopes
    }

    /// Jobs of prompts that have not ended.
    pub(super) fn live_jobs(&self) -> Vec<JobId> {
        self.prompts.values().filter(|prompt| prompt.is_live()).map(|prompt| prompt.job).collect()
    }

    fn put(&mut self, mut prompt: Prompt) {
        // The same words are kept once, for however many prompts.
        if let Some((scope, _)) = self.numbers.get_key_value(&prompt.key.scope) {
            prompt.key.scope = scope.clone();
        }
        if let Some(client) = &prompt.client {
            let known =
                self.sockets_of(&prompt.key.scope, client).next().map(|(_, socket)| socket.sid.clone());
            prompt.client = known.or(prompt.client);
        }
        self.by_job.insert(prompt.job, prompt.key.clone());
        self.prompts.insert(prompt.key.clone(), Box::new(prompt));
    }

    fn of(&self, scope: &Scope) -> impl Iterator<Item = &Prompt> {
        let from = Key { scope: scope.clone(), id: Arc::from("") };
        let scope = scope.clone();
        self.prompts
            .range(from..)
            .map(|(_, prompt)| &**prompt)
            .take_while(move |prompt| prompt.key.scope == scope)
    }

    /// The number that the next prompt of the scope gets.
    pub(super) fn number(&mut self, scope: &Scope) -> i64 {
        let number = self.numbers.entry(scope.clone()).or_default();
        *number += 1;
        *number - 1
    }

    /// Takes a name for a prompt that is about to be queued.
    ///
    /// # Errors
    /// When it is taken, or too many wait.
    pub(super) fn reserve(&mut self, key: &Key) -> Result<(), NoRoom> {
        if self.prompts.contains_key(key) || self.reserved.contains(key) {
            return Err(NoRoom::Taken);
        }
        let coming = self.reserved.iter().filter(|reserved| reserved.scope == key.scope).count();
        let written: u64 =
            self.of(&key.scope).filter(|prompt| prompt.is_live()).map(|prompt| prompt.bytes).sum();
        if self.remaining(&key.scope) + coming >= LIVE_LIMIT || written > WRITTEN_LIMIT {
            return Err(NoRoom::Full);
        }
        self.reserved.insert(key.clone());
        Ok(())
    }

    /// It was not queued after all, or its file is gone.
    pub(super) fn unreserve(&mut self, key: &Key) {
        self.reserved.remove(key);
    }

    /// Whether it is of a prompt here.
    pub(super) fn knows(&self, job: JobId) -> bool {
        self.by_job.contains_key(&job)
    }

    /// A prompt that is queued now.
    pub(super) fn accepted(&mut self, prompt: Prompt) -> Vec<Effect> {
        self.reserved.remove(&prompt.key);
        let (scope, client) = (prompt.key.scope.clone(), prompt.client.clone());
        self.put(prompt);
        let mut effects = self.forget_oldest(&scope);
        effects.extend(self.status_of(&scope, client.as_deref()));
        effects
    }

    // sockets

    pub(super) fn connected(&mut self, socket: SocketId, scope: &Scope, sid: &Arc<str>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let before: Vec<SocketId> = self.sockets_of(scope, sid).map(|(id, _)| id).collect();
        for old in before {
            self.sockets.remove(&old);
            effects.push(Effect::Hangup(old));
        }
        self.sockets.insert(socket, Socket { scope: scope.clone(), sid: sid.clone(), metadata: false });
        effects.push(Effect::Send(socket, frames::welcome(self.waiting(scope, sid), sid)));
        for prompt in self.of(scope).filter(|prompt| prompt.client.as_ref() == Some(sid)) {
            if let State::Live(live) = &prompt.state
                && let Some(node) = &live.running
            {
                effects.push(Effect::Send(socket, frames::executing(&prompt.key.id, Some(node))));
            }
        }
        effects
    }

    pub(super) fn reads_metadata(&mut self, socket: SocketId, reads: bool) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.metadata = reads;
        }
    }

    pub(super) fn gone(&mut self, socket: SocketId) {
        self.sockets.remove(&socket);
    }

    pub(super) fn is_open(&self, socket: SocketId) -> bool {
        self.sockets.contains_key(&socket)
    }

    fn sockets_of(&self, scope: &Scope, sid: &str) -> impl Iterator<Item = (SocketId, &Socket)> {
        let known = self.sockets.iter().map(|(id, socket)| (*id, socket));
        known.filter(move |(_, socket)| socket.scope == *scope && *socket.sid == *sid)
    }

    /// Prompts of one client that have not ended.
    fn waiting(&self, scope: &Scope, sid: &str) -> usize {
        self.of(scope).filter(|prompt| prompt.is_live() && prompt.client.as_deref() == Some(sid)).count()
    }

    /// Prompts of a scope that have not ended.
    pub(super) fn remaining(&self, scope: &Scope) -> usize {
        self.of(scope).filter(|prompt| prompt.is_live()).count()
    }

    fn tell(&self, prompt: &Prompt, frame: impl Fn(&Socket) -> Frame) -> Vec<Effect> {
        let Some(client) = &prompt.client else { return Vec::new() };
        let sockets = self.sockets_of(&prompt.key.scope, client);
        sockets.map(|(id, socket)| Effect::Send(id, frame(socket))).collect()
    }

    fn status_of(&self, scope: &Scope, client: Option<&str>) -> Vec<Effect> {
        let Some(client) = client else { return Vec::new() };
        let waiting = self.waiting(scope, client);
        self.sockets_of(scope, client).map(|(id, _)| Effect::Send(id, frames::status(waiting))).collect()
    }

    /// A sign of life for whoever waits: some clients take half a minute of silence for the end.
    pub(super) fn beat(&self) -> Vec<Effect> {
        let waiting = |(id, socket): (&SocketId, &Socket)| {
            let waiting = self.waiting(&socket.scope, &socket.sid);
            (waiting > 0).then(|| Effect::Send(*id, frames::status(waiting)))
        };
        self.sockets.iter().filter_map(waiting).collect()
    }

    // what the mesh says

    /// A task changed in more than its progress.
    pub(super) fn on_task(&mut self, view: &TaskView, now_ms: u64) -> Vec<Effect> {
        let Some(key) = self.by_job.get(&view.job).cloned() else { return Vec::new() };
        let effects = match view.state {
            TaskPhase::Running | TaskPhase::Fetching => self.begin(&key, now_ms),
            _ => Vec::new(),
        };
        if !view.state.is_over() {
            return effects;
        }
        let Some(prompt) = self.prompts.get_mut(&key) else { return effects };
        let State::Live(live) = &mut prompt.state else { return effects };
        if std::mem::replace(&mut live.ending, true) {
            return effects;
        }
        let how = match view.state {
            TaskPhase::Done => How::Success,
            TaskPhase::Cancelled => How::Interrupted(live.running.clone()),
            _ => match view.failures.last() {
                Some((on, failure)) => {
                    let running = live.running.as_deref();
                    How::Error(record::error_data(&key.id, failure, on, running, &live.classes))
                }
                None => How::Error(record::unexplained(&key.id, "the task failed")),
            },
        };
        let outputs = if view.state == TaskPhase::Done { view.outputs.clone() } else { Vec::new() };
        let mut effects = effects;
        effects.push(Effect::End { key, how, outputs, started_ms: prompt.started_ms });
        effects
    }

    /// A node has taken it: said once, whatever becomes of that node.
    fn begin(&mut self, key: &Key, now_ms: u64) -> Vec<Effect> {
        let Some(prompt) = self.prompts.get_mut(key) else { return Vec::new() };
        if !prompt.is_live() || prompt.started_ms.is_some() {
            return Vec::new();
        }
        prompt.started_ms = Some(now_ms);
        let Some(prompt) = self.prompts.get(key) else { return Vec::new() };
        let mut effects = self.status_of(&key.scope, prompt.client.as_deref());
        for (event, data) in record::beginning(&key.id, now_ms) {
            effects.extend(self.tell(prompt, |_| frames::event(event, &data)));
        }
        effects
    }

    pub(super) fn on_progress(&mut self, job: JobId, progress: &Progress, now_ms: u64) -> Vec<Effect> {
        let Some(key) = self.by_job.get(&job).cloned() else { return Vec::new() };
        if progress.node.is_empty() {
            return Vec::new();
        }
        let mut effects = self.begin(&key, now_ms);
        let Some(prompt) = self.prompts.get_mut(&key) else { return effects };
        let State::Live(live) = &mut prompt.state else { return effects };
        if live.ending || !live.classes.contains_key(&progress.node) || progress.attempt < live.attempt {
            return effects;
        }
        if progress.attempt != live.attempt {
            // Another node begins from the beginning.
            (live.attempt, live.running) = (progress.attempt, None);
            live.steps.clear();
        }
        let mut said = Vec::new();
        live.move_to(&key.id, &progress.node, &mut said);
        if progress.max > 0 {
            live.step(&key.id, progress.step, progress.max, &mut said);
        }
        effects.extend(self.say(&key, said));
        effects
    }

    fn say(&self, key: &Key, said: Vec<Frame>) -> Vec<Effect> {
        let Some(prompt) = self.prompts.get(key) else { return Vec::new() };
        said.into_iter().flat_map(|frame| self.tell(prompt, |_| frame.clone())).collect()
    }

    pub(super) fn on_preview(&mut self, job: JobId, mime: &str, picture: &[u8]) -> Vec<Effect> {
        let Some(prompt) = self.by_job.get(&job).and_then(|key| self.prompts.get(key)) else {
            return Vec::new();
        };
        let State::Live(live) = &prompt.state else { return Vec::new() };
        let Some(node) = live.running.as_ref().filter(|_| !live.ending) else { return Vec::new() };
        let preview = Preview::new(&prompt.key.id, node, mime, picture);
        self.tell(prompt, |socket| preview.frame(socket.metadata))
    }

    /// What a node shows, or an extension says, as its ComfyUI sent it. What tells of prompts is ours to say.
    pub(super) fn on_relayed(&mut self, job: JobId, frame: Bytes) -> Vec<Effect> {
        let prompt = self.by_job.get(&job).and_then(|key| self.prompts.get(key));
        let Some(prompt) = prompt.filter(|prompt| prompt.is_live()) else { return Vec::new() };
        let Some(frame) = Frame::relayed(frame) else { return Vec::new() };
        self.tell(prompt, |_| frame.clone())
    }

    /// Whether anybody would see a preview of this job.
    pub(super) fn is_watched(&self, job: JobId) -> bool {
        let prompt = self.by_job.get(&job).and_then(|key| self.prompts.get(key));
        prompt.is_some_and(|prompt| {
            let client = prompt.client.as_deref().unwrap_or_default();
            prompt.is_live() && self.sockets_of(&prompt.key.scope, client).next().is_some()
        })
    }

    /// The results are here and the end is written down.
    pub(super) fn ended(&mut self, key: &Key, ended: &Ended, streamed: &[Streamed]) -> Vec<Effect> {
        let Some(prompt) = self.prompts.get_mut(key) else { return Vec::new() };
        let State::Live(live) = &mut prompt.state else { return Vec::new() };
        let id = key.id.clone();
        let shown = record::shown(&id, &ended.outputs, &live.classes);
        let mut said = Vec::new();
        if ended.how == How::Success {
            for node in live.outputs_to_execute.clone() {
                let own: Vec<&Streamed> = streamed.iter().filter(|result| result.node == node).collect();
                let output = shown.get(&node);
                if output.is_none() && own.is_empty() {
                    continue;
                }
                live.move_to(&id, &node, &mut said);
                let many = u32::try_from(own.len()).unwrap_or(u32::MAX);
                for (result, at) in own.into_iter().zip(0..) {
                    said.extend([live.state(&id), frames::progress(&id, &node, at, many)]);
                    let head = frames::result_head(&result.filename);
                    let Streamed { root, key, bytes, .. } = result.clone();
                    said.push(Frame::Result { head, root, key, bytes });
                }
                said.extend(output.map(|output| frames::executed(&id, &node, output)));
            }
            live.finish(&id, &mut said);
        }
        let (event, data) = record::ending(&id, ended, &live.classes);
        let over = Over::of(ended, &shown);
        // What only helps those who watch is of no use any more; a result and what announces it is not missed.
        let began = prompt.started_ms.is_none().then_some(ended.at_ms);
        prompt.started_ms =
            prompt.started_ms.or(began).filter(|_| !matches!(ended.how, How::Interrupted(None)));
        prompt.state = State::Over(over);
        let client = prompt.client.clone();
        let mut effects = Vec::new();
        if let Some(ms) = began.filter(|_| ended.how == How::Success) {
            let first = record::beginning(&id, ms).map(|(event, data)| frames::event(event, &data));
            effects.extend(self.say(key, first.into()));
        }
        said.push(frames::event(event, &data));
        effects.extend(self.say(key, said));
        effects.extend(self.status_of(&key.scope, client.as_deref()));
        effects.extend(self.say(key, vec![frames::executing(&id, None)]));
        effects
    }

    /// The job is not known to the mesh any more: kept no longer, or never written down. Whoever waits for it hears so.
    pub(super) fn lost(&mut self, job: JobId, now_ms: u64) -> Vec<Effect> {
        let Some(key) = self.by_job.get(&job).cloned() else { return Vec::new() };
        let live = self.prompts.get(&key).is_some_and(|prompt| prompt.is_live());
        let mut said = Vec::new();
        if live {
            let why = "the prompt came as the node stopped, and was not kept: send it again";
            let (event, mut data) = ("execution_error", record::unexplained(&key.id, why));
            data["timestamp"] = json!(now_ms);
            said = self.say(&key, vec![frames::event(event, &data), frames::executing(&key.id, None)]);
        }
        let client = self.prompts.get(&key).and_then(|prompt| prompt.client.clone());
        said.push(self.forget(&key));
        said.extend(self.status_of(&key.scope, client.as_deref()));
        said
    }
}

impl Live {
    /// Says that this node runs now, unless that is known.
    fn move_to(&mut self, id: &str, node: &str, said: &mut Vec<Frame>) {
        if self.running.as_deref() == Some(node) {
            return;
        }
        self.finish(id, said);
        self.running = Some(node.to_owned());
        self.steps.retain(|(known, _)| known != node);
        if self.steps.len() < STEPS_TOLD {
            self.steps.push((node.to_owned(), Step { value: 0, max: 1, finished: false }));
        }
        said.push(self.state(id));
        said.push(frames::executing(id, Some(node)));
    }

    fn step(&mut self, id: &str, value: u32, max: u32, said: &mut Vec<Frame>) {
        let Some(node) = self.running.clone() else { return };
        let step = Step { value, max, finished: false };
        match self.steps.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) if *known == step => return,
            Some((_, known)) => *known = step,
            None => {}
        }
        said.push(self.state(id));
        said.push(frames::progress(id, &node, value, max));
    }

    /// Says that what runs has run.
    fn finish(&mut self, id: &str, said: &mut Vec<Frame>) {
        let Some(node) = self.running.take() else { return };
        if let Some((_, step)) = self.steps.iter_mut().find(|(known, _)| *known == node) {
            *step = Step { value: step.max, max: step.max, finished: true };
        }
        said.push(self.state(id));
    }

    fn state(&self, id: &str) -> Frame {
        frames::progress_state(id, self.steps.iter().map(|(node, step)| (node.as_str(), *step)))
    }
}

impl Prompt {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_live() && self.started_ms.is_some()
    }
}

#[cfg(test)]
mod tests;
