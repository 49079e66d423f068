//! Follows one prompt to its end: by its socket for progress, by history and queue for the truth.
//!
//! `execution_success` comes before the history entry, sockets go silent without closing, and a prompt that is in
//! neither history nor queue is lost, not done.

use std::time::Duration;

use bytes::Bytes;
use scenemesh_protocol::lease::RELAYED;
use scenemesh_protocol::task::{Failure, FailureClass};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::client::{CallError, Client, Socket, hang_up, next_message};
use super::deliver::Sink;
use super::frames;
use super::rewrite::Streamed;
use super::run::{Attempt, cancelled, died};
use super::tracker::{Heard, Tracker};
use crate::executor::{Reporter, Run};

/// How often history and queue are asked while the socket says nothing of ours.
const RECONCILE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(2) };
/// How soon after the end history is asked first; doubled until it answers.
const EAGER: Duration = Duration::from_millis(10);
/// How long streamed pictures may come after the history entry.
const LATE_FRAMES: Duration = Duration::from_secs(5);
/// How soon an unanswered question is repeated.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_millis(500) };
/// Answers "connection refused" in a row that mean the process is gone.
const REFUSALS: u32 = 4;
/// Longest time without any sensible answer: loading a large model from a slow disk blocks the interpreter.
const MUTE: Duration = Duration::from_secs(120);
/// Reconciliations in silence after which the socket is opened anew. Silence is normal while a model loads.
const SILENCES: u32 = if cfg!(test) { 3 } else { 8 };
/// Times in a row that a prompt must be found nowhere.
const MISSES: u32 = 3;
/// How long a prompt may wait in ComfyUI behind others' before its slot is given up.
const IN_LINE: Duration = Duration::from_hours(1);
/// How long an interrupt may take: it is looked at between steps, and one step can be long.
pub(super) const INTERRUPT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 120 });
/// Previews passed on per second at most.
const PREVIEW_EVERY: Duration = Duration::from_millis(250);
/// Frames of other kinds passed on per second at most: a node that shows text as it is made sends a few dozen.
const RELAYED_A_SECOND: u32 = 32;

pub(super) struct Followed {
    /// The history entry.
    pub entry: Value,
    /// From the first sign of execution to its end, by our clock.
    pub measured_ms: u64,
}

pub(super) struct Following<'a> {
    client: &'a Client,
    client_id: &'a str,
    run: &'a Run,
    report: &'a Reporter,
    stop: &'a CancellationToken,
    streamed: &'a Streamed,
    prompt_id: &'a str,
    tracker: Tracker,
    started: Option<Instant>,
    ended: Option<Instant>,
    previewed: Option<Instant>,
    /// Frames passed on since then.
    relaying: (Instant, u32),
    /// Reconciliations since the socket last said something of ours.
    silent: u32,
    doubts: Doubts,
}

/// Reasons to believe that the prompt or its ComfyUI is gone.
#[derive(Default)]
struct Doubts {
    misses: u32,
    refusals: u32,
    mute_since: Option<Instant>,
}

impl<'a> Following<'a> {
    pub(super) fn new(
        attempt: &'a Attempt<'a>,
        prompt_id: &'a str,
        nodes: usize,
        streamed: &'a Streamed,
    ) -> Self {
        Self {
            client: attempt.client,
            client_id: &attempt.names.client_id,
            run: attempt.run,
            report: attempt.report,
            stop: &attempt.stop,
            streamed,
            prompt_id,
            tracker: Tracker::new(prompt_id, nodes),
            started: None,
            ended: None,
            previewed: None,
            relaying: (Instant::now(), 0),
            silent: 0,
            doubts: Doubts::default(),
        }
    }

    /// Follows until history has the end, or until there is reason to stop it.
    pub(super) async fn until_over(
        mut self,
        mut socket: Option<Socket>,
        sink: &mut Sink<'_>,
    ) -> Result<Followed, Failure> {
        let mut ask_at = Instant::now() + if socket.is_some() { RECONCILE } else { EAGER };
        let mut pace = EAGER;
        let in_line = Instant::now() + IN_LINE;
        loop {
            let deadline = self.started.map_or(in_line, |started| started + self.run.time_limit);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    stop_prompt(self.client, self.prompt_id, INTERRUPT).await;
                    return Err(cancelled());
                }
                () = tokio::time::sleep_until(deadline) => {
                    stop_prompt(self.client, self.prompt_id, INTERRUPT).await;
                    if self.started.is_none() {
                        let minutes = IN_LINE.as_secs() / 60;
                        let detail = format!("ComfyUI did not begin it within {minutes} min: other prompts hold it");
                        return Err(Failure::new(FailureClass::OwnerReturned, detail));
                    }
                    let detail = format!("not done after {} s of execution", self.run.time_limit.as_secs());
                    return Err(Failure::new(FailureClass::Timeout, detail));
                }
                message = next_of(&mut socket) => {
                    let now = Instant::now();
                    match message {
                        None => {
                            socket = None;
                            ask_at = now;
                        }
                        Some(message) => match self.hear(message, sink).await? {
                            Heard::Nothing => {}
                            Heard::Ended => ask_at = now,
                            _ => {
                                self.silent = 0;
                                if self.ended.is_none() {
                                    ask_at = now + RECONCILE;
                                }
                            }
                        },
                    }
                }
                () = tokio::time::sleep_until(ask_at) => {
                    let answer = self.reconcile().await;
                    let now = Instant::now();
                    match self.judge(now, answer)? {
                        Some(entry) => {
                            self.hear_the_end(&mut socket, sink).await?;
                            return Ok(self.over(now, entry));
                        }
                        None if self.doubts.mute_since.is_some() => ask_at = now + RETRY,
                        None if self.ended.is_some() => {
                            ask_at = now + pace;
                            pace = (pace * 2).min(RETRY);
                        }
                        None => ask_at = now + RECONCILE,
                    }
                    self.note_start(now).await;
                    self.silent += 1;
                    let deaf = socket.is_none() || (self.started.is_some() && self.silent > SILENCES);
                    if deaf && self.doubts.mute_since.is_none() && self.ended.is_none() {
                        self.silent = 0;
                        if let Some(old) = socket.take() {
                            for message in hang_up(old).await {
                                self.hear(message, sink).await?;
                            }
                        }
                        socket = self.client.socket(self.client_id).await.ok();
                    }
                }
            }
        }
    }

    /// History may be ahead of the socket, and streamed pictures come over the socket only, before the end.
    async fn hear_the_end(
        &mut self,
        socket: &mut Option<Socket>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Failure> {
        let give_up = Instant::now() + LATE_FRAMES;
        while !self.streamed.is_empty() && socket.is_some() && self.ended.is_none() {
            match tokio::time::timeout_at(give_up, next_of(socket)).await {
                Ok(Some(message)) => drop(self.hear(message, sink).await?),
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn over(&self, now: Instant, entry: Value) -> Followed {
        let took = self.started.map(|started| self.ended.unwrap_or(now) - started).unwrap_or_default();
        Followed { entry, measured_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }
    }

    async fn hear(&mut self, message: Message, sink: &mut Sink<'_>) -> Result<Heard, Failure> {
        let frame = match message {
            Message::Text(text) => frames::read_text(text.as_str()),
            Message::Binary(bytes) => frames::read_binary(&bytes),
            _ => return Ok(Heard::Nothing),
        };
        let heard = self.tracker.on_frame(frame);
        let now = Instant::now();
        self.note_start(now).await;
        match heard {
            Heard::Progress => {
                self.report.progress(self.tracker.node(), self.tracker.steps(), self.tracker.nodes());
            }
            Heard::Ended => {
                self.ended.get_or_insert(now);
            }
            Heard::Picture { node, picture } => {
                match self.streamed.get(&node) {
                    Some(name) => sink.take_picture(&node, name, picture.format, &picture.bytes).await?,
                    None => self.preview(now, picture.format, picture.bytes),
                }
                return Ok(Heard::Alive);
            }
            Heard::Relayed(frame) => {
                self.relay(now, frame);
                return Ok(Heard::Alive);
            }
            Heard::Alive | Heard::Nothing => {}
        }
        Ok(heard)
    }

    async fn note_start(&mut self, now: Instant) {
        if self.tracker.started && self.started.is_none() {
            self.started = Some(now);
            self.report.started().await;
        }
    }

    fn preview(&mut self, now: Instant, format: &'static str, bytes: Bytes) {
        let soon = self.previewed.is_some_and(|last| now - last < PREVIEW_EVERY);
        if self.run.previews && !soon {
            self.previewed = Some(now);
            self.report.preview(format, bytes);
        }
    }

    fn relay(&mut self, now: Instant, frame: Bytes) {
        if now - self.relaying.0 >= Duration::from_secs(1) {
            self.relaying = (now, 0);
        }
        if self.run.previews && self.relaying.1 < RELAYED_A_SECOND {
            self.relaying.1 += 1;
            self.report.preview(RELAYED, frame);
        }
    }

    /// Asks history, then the queue. History is asked once more before a prompt counts as missed.
    async fn reconcile(&mut self) -> Result<Sighting, CallError> {
        if let Some(entry) = self.client.history(self.prompt_id).await? {
            return Ok(Sighting::Over(entry));
        }
        if self.ended.is_some() && self.doubts.misses < 8 {
            // It is being written; the queue would say nothing new.
            return Ok(Sighting::Nowhere);
        }
        let queue = self.client.queue().await?;
        if queue.running.iter().any(|row| row.prompt_id == self.prompt_id) {
            self.tracker.started = true;
            return Ok(Sighting::Queued);
        }
        if queue.pending.iter().any(|row| row.prompt_id == self.prompt_id) {
            return Ok(Sighting::Queued);
        }
        Ok(self.client.history(self.prompt_id).await?.map_or(Sighting::Nowhere, Sighting::Over))
    }

    fn judge(&mut self, now: Instant, answer: Result<Sighting, CallError>) -> Result<Option<Value>, Failure> {
        match answer {
            Ok(sighting) => {
                (self.doubts.refusals, self.doubts.mute_since) = (0, None);
                match sighting {
                    Sighting::Over(entry) => Ok(Some(entry)),
                    Sighting::Queued => {
                        self.doubts.misses = 0;
                        Ok(None)
                    }
                    Sighting::Nowhere => {
                        self.doubts.misses += 1;
                        self.judge_misses()
                    }
                }
            }
            Err(error) => {
                let since = *self.doubts.mute_since.get_or_insert(now);
                self.doubts.refusals = if error.is_refused() { self.doubts.refusals + 1 } else { 0 };
                let gone = self.doubts.refusals >= REFUSALS || now - since > MUTE;
                if gone { Err(died(&error)) } else { Ok(None) }
            }
        }
    }

    fn judge_misses(&self) -> Result<Option<Value>, Failure> {
        if self.tracker.succeeded {
            // Somebody may have cleared the history in the moment before we looked; the frames said enough.
            let entry =
                json!({"outputs": self.tracker.outputs, "status": {"status_str": "success", "messages": []}});
            return Ok((self.doubts.misses > 12).then_some(entry));
        }
        let patience = if self.ended.is_some() { 12 } else { MISSES };
        if self.doubts.misses < patience {
            return Ok(None);
        }
        let detail = "the prompt is neither in ComfyUI's queue nor in its history; it restarted, or somebody cleared them";
        Err(Failure::new(FailureClass::ComfyuiDied, detail))
    }
}

enum Sighting {
    Over(Value),
    Queued,
    Nowhere,
}

async fn next_of(socket: &mut Option<Socket>) -> Option<Message> {
    match socket {
        Some(socket) => next_message(socket).await,
        None => std::future::pending().await,
    }
}

/// Takes a prompt out of the queue, or interrupts it if it is the one running, and waits until it is gone. Never
/// touches another's prompt. Whether it is gone: a prompt may not react, and goes on there.
pub(super) async fn stop_prompt(client: &Client, prompt_id: &str, within: Duration) -> bool {
    let give_up = Instant::now() + within;
    let mut pause = Duration::from_millis(50);
    loop {
        match stop_once(client, prompt_id).await {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) if error.is_refused() => return true,
            Err(error) => tracing::debug!(%error, "stopping a prompt"),
        }
        if Instant::now() > give_up {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Whether the prompt is gone.
async fn stop_once(client: &Client, prompt_id: &str) -> Result<bool, CallError> {
    client.unqueue(prompt_id).await?;
    let queue = client.queue().await?;
    let is_ours = |row: &super::client::Queued| row.prompt_id == prompt_id;
    if queue.running.iter().any(is_ours) {
        client.interrupt(prompt_id).await?;
        return Ok(false);
    }
    Ok(!queue.pending.iter().any(is_ours))
}
