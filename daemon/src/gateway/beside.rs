//! What belongs to whoever sits at a frontend is the ComfyUI's beside us, where there is one: its settings, workflows,
//! templates and the scripts of its custom nodes. Asked as that person's own browser would ask it, and for nobody with a token
//! of their own: a ComfyUI knows no strangers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Node;
use super::answer::Problem;
use super::guard::Caller;
use crate::executor::SlotState;
use crate::http::body;

/// Most bytes of what is sent on; a workflow with pictures in it has a few MiB.
const LARGEST: usize = 16 << 20;
/// It answers in this time, or it is as if it were not there.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(2);

/// Asks it. Its own proxies and redirections are not followed.
#[derive(Clone, Debug)]
pub(super) struct Beside(reqwest::Client);

impl Beside {
    pub(super) fn new() -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build();
        Self(client.unwrap_or_default())
    }
}

/// The ComfyUI beside us that answers.
fn url(node: &Node, caller: &Caller) -> Option<String> {
    if !node.listeners[caller.listener].tokens.is_empty() {
        return None;
    }
    let slots = node.ports.executor.slots().borrow().clone();
    let up = slots.iter().find(|slot| matches!(slot.state, SlotState::Ready | SlotState::Busy { .. }));
    up.map(|slot| slot.url.trim_end_matches('/').to_owned())
}

/// Lets the ComfyUI beside us answer; without one, and for what it does not know, we do. What is to be kept goes to one of
/// the two, never to the other instead.
pub(super) async fn first(State(node): State<Node>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let Some(url) = caller.and_then(|caller| url(&node, &caller)) else { return next.run(request).await };
    let path =
        request.extensions().get::<OriginalUri>().map_or_else(|| request.uri().clone(), |uri| uri.0.clone());
    let path = path.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let mut asking =
        node.beside.0.request(request.method().clone(), format!("{url}{path}")).timeout(PATIENCE);
    if let Some(kind) = request.headers().get(CONTENT_TYPE) {
        asking = asking.header(CONTENT_TYPE, kind);
    }
    if reads {
        return match asking.send().await {
            Ok(answer) if answer.status().is_success() => passed(answer),
            Ok(_) | Err(_) => next.run(request).await,
        };
    }
    let bytes = match body::read(request, LARGEST).await {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => return Problem::from(error).into_response(),
    };
    match asking.body(bytes).send().await {
        Ok(answer) => passed(answer),
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "the ComfyUI beside us does not answer");
            Problem::new(StatusCode::BAD_GATEWAY, "the ComfyUI beside this node does not answer")
                .into_response()
        }
    }
}

fn passed(answer: reqwest::Response) -> Response {
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, CACHE_CONTROL] {
        if let Some(value) = answer.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    (answer.status(), headers, Body::from_stream(answer.bytes_stream())).into_response()
}
