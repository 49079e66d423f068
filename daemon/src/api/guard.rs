//! Who may speak, and in which shape failures leave.
//!
//! Loopback is no proof of anything: any page in a browser on this machine can reach it. So every request shows the
//! token of `api.json`, a `Host` of our own (else a name that an attacker's DNS points here would do), and, when a
//! page sends it, an `Origin` of our own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_LANGUAGE, AUTHORIZATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use scenemesh_protocol::api::{ErrorCode, Role};
use tokio::sync::{Semaphore, watch};

use super::trouble::Trouble;
use super::users::Token;
use crate::http::hosts::{Foreign, Hosts, clip};
use crate::messages::{Lang, Message};

/// Requests at once, event streams included: a few people with a few windows each.
const REQUESTS_AT_ONCE: usize = 128;

/// Who asks. Every request that gets past the guard has one.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) role: Role,
    pub(super) person: Arc<str>,
    hash: blake3::Hash,
    tokens: watch::Receiver<Arc<Vec<Token>>>,
}

impl Caller {
    /// Resolves when the token was taken away or means another role: what it opened is over.
    pub(super) async fn dismissed(mut self) {
        let stands = |token: &Token| token.hash == self.hash && token.role == self.role;
        let gone = |tokens: &Arc<Vec<Token>>| !tokens.iter().any(stands);
        // An error means that the node stops.
        drop(self.tokens.wait_for(gone).await);
    }
}

/// Checks requests before anything else sees them.
#[derive(Clone, Debug)]
pub(super) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokens: watch::Receiver<Arc<Vec<Token>>>,
    hosts: Hosts,
    places: Arc<Semaphore>,
}

impl Guard {
    /// Each token opens what its role may do.
    pub(super) fn new(tokens: watch::Receiver<Arc<Vec<Token>>>, hosts: Hosts) -> Self {
        Self(Arc::new(Inner { tokens, hosts, places: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)) }))
    }

    fn check(&self, headers: &HeaderMap) -> Result<Caller, Trouble> {
        let refuse = |message, hint| Trouble::new(ErrorCode::NotAuthorised, &message).hint(&hint);
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        self.0.hosts.check(headers).map_err(|foreign| match foreign {
            Foreign::Host(host) => refuse(Message::ForeignHost { host }, Message::HintLoopback)
                .status(StatusCode::MISDIRECTED_REQUEST),
            Foreign::Origin(origin) | Foreign::Site(origin) => {
                refuse(Message::ForeignOrigin { origin }, Message::HintLoopback).status(StatusCode::FORBIDDEN)
            }
        })?;
        let Some(token) = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(refuse(Message::NoToken, Message::HintToken));
        };
        let given = blake3::hash(token.trim().as_bytes());
        // All are looked at: how long it takes does not tell which one fits.
        let all = self.0.tokens.borrow().clone();
        let known = all.iter().filter(|token| token.hash == given).max_by_key(|token| token.role);
        let caller = known.map(|token| Caller {
            role: token.role,
            person: token.person.clone(),
            hash: token.hash,
            tokens: self.0.tokens.clone(),
        });
        caller.ok_or_else(|| refuse(Message::WrongToken, Message::HintToken))
    }
}

/// The outermost layer: lets nobody in who may not, and gives every failure one shape in the asker's language.
pub(super) async fn keep(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let lang = request
        .headers()
        .get(ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok())
        .map_or(Lang::En, Lang::of_header);
    let (method, path) = (request.method().to_string(), clip(request.uri().path()));
    let caller = match guard.check(request.headers()) {
        Ok(caller) => caller,
        Err(trouble) => return trouble.answer(lang),
    };
    let Ok(place) = guard.0.places.clone().try_acquire_owned() else {
        return Trouble::new(ErrorCode::Busy, &Message::TooManyRequests)
            .hint(&Message::HintSlower)
            .answer(lang);
    };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(lang);
    let mut response = next.run(request).await;
    if let Some(trouble) = response.extensions_mut().remove::<Trouble>() {
        response = trouble.answer(lang);
    } else if response.status().is_client_error() || response.status().is_server_error() {
        response = foreign(response.status(), method, path).answer(lang);
    }
    // The place is given up when the body has been sent, which for event streams is much later.
    response.map(|body| {
        let stream = futures::StreamExt::inspect(body.into_data_stream(), move |_| {
            let _held = &place;
        });
        axum::body::Body::from_stream(stream)
    })
}

/// What the framework refused in its own words.
fn foreign(status: StatusCode, method: String, path: String) -> Trouble {
    match status {
        StatusCode::NOT_FOUND => Trouble::new(ErrorCode::NotFound, &Message::NoSuchPath { path }),
        StatusCode::METHOD_NOT_ALLOWED => {
            Trouble::new(ErrorCode::Usage, &Message::NoSuchMethod { method, path }).status(status)
        }
        other if other.is_client_error() => {
            Trouble::new(ErrorCode::Usage, &Message::BodyNotJson { why: other.to_string() }).status(other)
        }
        other => Trouble::broke(&other),
    }
    .hint(&Message::HintSameRelease)
}

/// Lets through callers of at least this role.
pub(super) async fn require(State(need): State<Role>, request: Request, next: Next) -> Response {
    let role = request.extensions().get::<Caller>().map(|caller| caller.role);
    if role.is_some_and(|role| role >= need) {
        return next.run(request).await;
    }
    let need = need.word();
    Trouble::new(ErrorCode::NotAllowed, &Message::RoleLacking { need })
        .hint(&Message::HintRole)
        .into_response()
}
