//! The queue and the history, each caller's own.

use std::collections::HashSet;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use scenemesh_protocol::ids::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::Node;
use super::answer::{Problem, object};
use super::desk::{Desk, Effect, Key, Named};
use super::frames;
use super::guard::Caller;
use super::record::Record;
use crate::clock;
use crate::scheduler::Id;

/// Entries of a history that nobody bounds: core's whole one is as long as its memory.
const UNASKED: usize = 1000;

pub(super) async fn exec_info(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Problem> {
    let remaining = node.hub.ask(move |desk| desk.remaining(&caller.scope)).await?;
    Ok(Json(frames::exec_info(remaining)))
}

pub(super) async fn show(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let (running, waiting) = node.hub.ask(move |desk| desk.queue(&caller.scope)).await?;
    let tuple = |record: &Record| record.tuple().to_string();
    let parts = [
        vec![Part::Text("{\"queue_running\": [")],
        entries(running),
        vec![Part::Text("], \"queue_pending\": [")],
        entries(waiting),
        vec![Part::Text("]}")],
    ];
    Ok(written(&node, parts.concat(), tuple))
}

#[derive(Debug, Deserialize)]
pub(super) struct Bounds {
    max_items: Option<usize>,
    offset: Option<i64>,
}

pub(super) async fn history(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Query(bounds): Query<Bounds>,
) -> Result<Response, Problem> {
    let all = node.hub.ask(move |desk| desk.history(&caller.scope)).await?;
    let most = bounds.max_items.unwrap_or(UNASKED);
    // As core has it: the newest, unless an offset counts from the oldest.
    let skip = match bounds.offset {
        Some(offset) if offset >= 0 => usize::try_from(offset).unwrap_or(usize::MAX),
        _ => all.len().saturating_sub(most),
    };
    let page: Vec<Key> = all.into_iter().skip(skip).take(most).collect();
    let parts = [vec![Part::Text("{")], entries(page), vec![Part::Text("}")]];
    Ok(written(&node, parts.concat(), entry))
}

fn entry(record: &Record) -> String {
    format!("{}:{}", json!(record.id), record.history())
}

#[derive(Clone, Debug)]
enum Part {
    Text(&'static str),
    Entry(Key),
}

fn entries(keys: Vec<Key>) -> Vec<Part> {
    keys.into_iter().map(Part::Entry).collect()
}

/// JSON whose entries are read from disk one by one, as they are sent; what is gone by then is left out.
fn written(node: &Node, parts: Vec<Part>, entry: fn(&Record) -> String) -> Response {
    let start = (parts.into_iter(), true, node.clone());
    let pieces = stream::unfold(start, move |(mut parts, mut empty, node)| async move {
        loop {
            let text = match parts.next()? {
                Part::Text(text) => {
                    empty = true;
                    text.to_owned()
                }
                Part::Entry(key) => {
                    let files = node.files.clone();
                    let read = node.tasks.blocking(move || files.read(&key).map(|record| entry(&record)));
                    let Some(text) = read.await.ok().flatten() else { continue };
                    if std::mem::replace(&mut empty, false) { text } else { format!(", {text}") }
                }
            };
            return Some((Ok::<_, Infallible>(Bytes::from(text)), (parts, empty, node)));
        }
    });
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], Body::from_stream(pieces)).into_response()
}

pub(super) async fn history_of(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let wanted = Key { scope: caller.scope.clone(), id: id.as_str().into() };
    let over = node
        .hub
        .ask(move |desk| desk.find(&caller.scope, &id).is_some_and(|prompt| !prompt.is_live()))
        .await?;
    if !over {
        return Ok(Json(json!({})));
    }
    let files = node.files.clone();
    let record = node.tasks.blocking(move || files.read(&wanted)).await.ok().flatten();
    let entry = record.map(|record| Map::from_iter([(record.id.clone(), record.history())]));
    Ok(Json(Value::Object(entry.unwrap_or_default())))
}

fn ids(body: &Map<String, Value>, name: &str) -> HashSet<String> {
    let ids = body.get(name).and_then(Value::as_array).into_iter().flatten();
    ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

fn named(body: &Map<String, Value>) -> Named {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    match (text("prompt_id"), text("client_id")) {
        (Some(prompt), _) => Named::Prompt(prompt),
        (None, Some(client)) => Named::Client(client),
        (None, None) => Named::Nobody,
    }
}

/// Does something with the desk and cancels the jobs that come of it, whatever becomes of the client that asked: one that
/// hangs up leaves no job behind that nobody names any more. Gives how many they were.
pub(super) async fn cancel(
    node: &Node,
    choose: impl FnOnce(&mut Desk) -> (Vec<JobId>, Vec<Effect>) + Send + 'static,
) -> Result<usize, Problem> {
    let (reply, answer) = oneshot::channel();
    let own = node.clone();
    node.tasks.spawn("gateway cancel", async move {
        let jobs = own.hub.with(choose).await.unwrap_or_default();
        for job in &jobs {
            own.ports.scheduler.cancel(Id::Job(*job).into()).await;
        }
        let _ = reply.send(jobs.len());
        Ok(())
    });
    answer.await.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping"))
}

pub(super) async fn change(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let body = object(request).await?;
    let (ids, clear, named) =
        (ids(&body, "delete"), body.get("clear") == Some(&Value::Bool(true)), named(&body));
    let choose = move |desk: &mut Desk| {
        let (mut jobs, mut effects) = (Vec::new(), Vec::new());
        if clear {
            let cleared = desk.clear(&caller.scope, &named);
            jobs.extend(cleared.0);
            effects.extend(cleared.1);
        }
        let deleted = desk.delete(&caller.scope, &ids, clock::wall_ms());
        jobs.extend(deleted.0);
        effects.extend(deleted.1);
        (jobs, effects)
    };
    cancel(&node, choose).await.map(|_| StatusCode::OK)
}

pub(super) async fn interrupt(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let named = named(&object(request).await?);
    let choose = move |desk: &mut Desk| (desk.interrupt(&caller.scope, &named, clock::wall_ms()), Vec::new());
    cancel(&node, choose).await.map(|_| StatusCode::OK)
}

pub(super) async fn forget(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let body = object(request).await?;
    let all = body.get("clear") == Some(&Value::Bool(true));
    let ids = ids(&body, "delete");
    let hidden = node.hub.with(move |desk| {
        let hidden = desk.hide(&caller.scope, (!all).then_some(&ids));
        (hidden, Vec::new())
    });
    let (hidden, files) = (hidden.await?, node.files.clone());
    let written = node.tasks.blocking(move || {
        for key in hidden {
            let Some(mut record) = files.read(&key) else { continue };
            record.hidden = true;
            if let Err(error) = files.write(&record) {
                tracing::warn!(%error, "a prompt that was taken out of the history comes back with the next start");
            }
        }
    });
    drop(written.await);
    Ok(StatusCode::OK)
}

/// Models are the renderers' own affair: they unload what others need room for. Said yes to, as clients expect it.
pub(super) async fn free(request: Request) -> Result<StatusCode, Problem> {
    object(request).await.map(|_| StatusCode::OK)
}
