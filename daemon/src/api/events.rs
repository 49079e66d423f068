//! What happens, as it happens: server-sent events.
//!
//! A job's stream begins with the whole job and is told whole again whenever its state changes or a slow listener has
//! missed something, so that whoever applies the rest in order has the truth. It ends when the node stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::sse::{Event as Sse, KeepAlive, Sse as Stream};
use axum::response::{IntoResponse, Response};
use futures::stream;
use scenemesh_protocol::api::Event;
use scenemesh_protocol::ids::JobId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::trouble::Trouble;
use super::views::{self, Shorts};
use super::{Node, jobs};
use crate::messages::Lang;
use crate::scheduler::view::JobEvent;

/// Clients take a longer silence for a daemon that died; theirs is 45 s.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

pub(super) async fn of_job(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let job = jobs::job_of(&node, &id).await?;
    Ok(told(node, lang, Some(job)))
}

pub(super) async fn of_all(State(node): State<Node>, Extension(lang): Extension<Lang>) -> Response {
    told(node, lang, None)
}

/// One listener.
struct Listener {
    node: Node,
    lang: Lang,
    only: Option<JobId>,
    news: broadcast::Receiver<JobEvent>,
    shorts: Shorts,
    /// Events that are due before the next news, last first.
    due: Vec<Event>,
}

fn told(node: Node, lang: Lang, only: Option<JobId>) -> Response {
    // Subscribed before the first look, so that nothing falls in between.
    let news = node.ports.scheduler.events();
    let stop = node.stop.clone();
    let listener = Listener { node, lang, only, news, shorts: Shorts::default(), due: Vec::new() };
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
    let events = futures::StreamExt::take_until(events, stop.cancelled_owned());
    Stream::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
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
                    if let Some(event) = views::event(&self.node, &news, &self.shorts, self.lang) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Has every job told whole that this listener follows.
    async fn look(&mut self) {
        self.look_at(self.only).await;
    }

    async fn look_at(&mut self, wanted: Option<JobId>) {
        if let Some(wanted) = wanted {
            let job = views::job(&self.node, wanted, self.lang).await;
            self.due = job.map(|job| Event::Job { job }).into_iter().collect();
            return;
        }
        let jobs = views::jobs(&self.node).await;
        self.shorts = Shorts::of(&jobs);
        let told = jobs
            .iter()
            .map(|job| Event::Job { job: views::job_view(&self.node, job, &self.shorts, self.lang) });
        self.due = told.collect();
    }
}

fn job_of(event: &JobEvent) -> JobId {
    match event {
        JobEvent::Job { job }
        | JobEvent::Task { job, .. }
        | JobEvent::Progress { job, .. }
        | JobEvent::Preview { job, .. }
        | JobEvent::Log { job, .. } => *job,
    }
}
