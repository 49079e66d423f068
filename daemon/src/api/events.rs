//! What happens, as it happens: server-sent events.
//!
//! A job's stream begins with the whole job and is told whole again whenever its state changes or a slow listener has
//! missed something, so that whoever applies the rest in order has the truth. It ends when the node stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::sse::{Event as Sse, KeepAlive, Sse as Stream};
use axum::response::{IntoResponse, Response};
use futures::stream;
use scenemesh_protocol::api::{ErrorCode, Event};
use scenemesh_protocol::ids::JobId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::eyes::Who;
use super::guard::Caller;
use super::trouble::Trouble;
use super::views::{self, Shorts};
use super::{Node, jobs};
use crate::messages::{Lang, Message};
use crate::scheduler::view::JobEvent;

/// Clients take a longer silence for a daemon that died; theirs is 45 s.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Jobs whose people a listener remembers.
const JOBS_REMEMBERED: usize = 10_000;

/// Event streams at once: half of the places of all requests, so that whoever only watches shuts nobody out.
pub(super) const LISTENERS: usize = 64;

pub(super) async fn of_job(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let job = jobs::job_of(&node, &id).await?;
    told(node, caller, lang, Some(job))
}

pub(super) async fn of_all(
    State(node): State<Node>,
    Extension(caller): Who,
    Extension(lang): Extension<Lang>,
) -> Result<Response, Trouble> {
    told(node, caller, lang, None)
}

/// One listener.
struct Listener {
    node: Node,
    caller: Caller,
    /// Whether the caller sees what a job is about; people of a job do not change.
    seen: HashMap<JobId, bool>,
    lang: Lang,
    only: Option<JobId>,
    news: broadcast::Receiver<JobEvent>,
    shorts: Shorts,
    /// Events that are due before the next news, last first.
    due: Vec<Event>,
    _place: OwnedSemaphorePermit,
}

fn told(node: Node, caller: Caller, lang: Lang, only: Option<JobId>) -> Result<Response, Trouble> {
    let Ok(place) = node.listeners.clone().try_acquire_owned() else {
        return Err(Trouble::new(ErrorCode::Busy, &Message::TooManyRequests).hint(&Message::HintSlower));
    };
    // Subscribed before the first look, so that nothing falls in between.
    let news = node.ports.scheduler.events();
    let stop = node.stop.clone();
    let over =
        futures::future::select(Box::pin(stop.cancelled_owned()), Box::pin(caller.clone().dismissed()));
    let seen = HashMap::new();
    let shorts = Shorts::default();
    let listener = Listener { node, caller, seen, lang, only, news, shorts, due: Vec::new(), _place: place };
    let events = stream::once(async move {
        let mut listener = listener;
        listener.look().await;
        listener
    });
    let events = futures::StreamExt::flat_map(events, |listener| {
        Box::pin(stream::unfold(listener, |mut listener| async move {
            let event = listener.next().await?;
            Some((Ok::<_, Infallible>(sse(&event)), listener))
        }))
    });
    let events = futures::StreamExt::take_until(events, over);
    Ok(Stream::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

fn sse(event: &Event) -> Sse {
    // Strings and numbers always serialise; a comment keeps the stream alive if they once do not.
    Sse::default().json_data(event).unwrap_or_else(|_| Sse::default().comment("unreadable"))
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.due.pop() {
                return Some(event);
            }
            let news = match self.news.recv().await {
                Ok(news) => news,
                Err(RecvError::Lagged(_)) => {
                    self.look().await;
                    continue;
                }
                Err(RecvError::Closed) => return None,
            };
            if self.only.is_some_and(|only| only != job_of(&news)) {
                continue;
            }
            match news {
                JobEvent::Job { job } => self.look_at(Some(job)).await,
                news => {
                    let seen = self.sees(job_of(&news)).await;
                    let told = views::event(&self.node, &news, &self.shorts, seen, self.lang);
                    if let Some(event) = told {
                        return Some(event);
                    }
                }
            }
        }
    }

    async fn sees(&mut self, job: JobId) -> bool {
        if let Some(seen) = self.seen.get(&job) {
            return *seen;
        }
        let view = self.node.ports.scheduler.show(job).await;
        let seen = view.is_some_and(|view| self.caller.sees(&view.person));
        if self.seen.len() >= JOBS_REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(job, seen);
        seen
    }

    /// Has every job told whole that this listener follows.
    async fn look(&mut self) {
        self.look_at(self.only).await;
    }

    async fn look_at(&mut self, wanted: Option<JobId>) {
        if let Some(wanted) = wanted {
            let job = views::job(&self.node, wanted, &self.caller, self.lang).await;
            self.due = job.map(|job| Event::Job { job }).into_iter().collect();
            return;
        }
        let jobs = views::jobs(&self.node).await;
        self.shorts = Shorts::of(&jobs);
        let told = jobs
            .iter()
            .map(|job| views::job_view(&self.node, job, &self.shorts, &self.caller, self.lang))
            .map(|job| Event::Job { job });
        self.due = told.collect();
    }
}

fn job_of(event: &JobEvent) -> JobId {
    match event {
        JobEvent::Job { job }
        | JobEvent::Task { job, .. }
        | JobEvent::Progress { job, .. }
        | JobEvent::Preview { job, .. }
        | JobEvent::Relayed { job, .. }
        | JobEvent::Log { job, .. } => *job,
    }
}
