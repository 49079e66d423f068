//! Who asks: nobody's web page, and whoever a listener's tokens let in.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_LANGUAGE, AUTHORIZATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ListenerConfig;
use super::answer::Problem;
use super::desk::Scope;
use crate::http::hosts::{Foreign, Hosts};
use crate::messages::Lang;

/// Whoever got past the guard.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) scope: Scope,
    pub(super) person: Arc<str>,
    /// Place of its listener.
    pub(super) listener: usize,
}

/// Stands before everything else of a listener.
#[derive(Clone, Debug)]
pub(super) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Hosts,
    /// Without tokens: everybody.
    anybody: Option<Caller>,
    tokens: Vec<(blake3::Hash, Caller)>,
}

impl Guard {
    pub(super) fn new(at: usize, listener: &ListenerConfig, person: &str, hosts: Hosts) -> Self {
        let caller =
            |scope: String, person: &str| Caller { scope: scope.into(), person: person.into(), listener: at };
        let tokens = listener.tokens.iter().map(|(name, token)| {
            (blake3::hash(token.as_bytes()), caller(format!("{}/{name}", listener.name), name))
        });
        let anybody = listener.tokens.is_empty().then(|| caller(listener.name.clone(), person));
        Self(Arc::new(Inner { hosts, anybody, tokens: tokens.collect() }))
    }

    fn check(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.0.hosts.check_site(headers).map_err(|foreign| {
            let why = match foreign {
                Foreign::Host(host) => format!("{host:?} is not this machine; ask 127.0.0.1 or localhost"),
                Foreign::Origin(origin) => format!("a page of {origin:?} may not ask here"),
                Foreign::Site(site) => format!("a page of another site may not ask here ({site:?})"),
            };
            Problem::new(StatusCode::FORBIDDEN, why)
        })?;
        if let Some(anybody) = &self.0.anybody {
            return Ok(anybody.clone());
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let given = given.ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer …")
        })?;
        let given = blake3::hash(given.trim().as_bytes());
        // All are looked at: how long it takes does not tell which one fits.
        let fits =
            |known, (hash, caller): &(_, Caller)| if *hash == given { Some(caller.clone()) } else { known };
        let known = self.0.tokens.iter().fold(None, fits);
        known
            .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "this token is not one of this listener's"))
    }
}

/// Lets nobody in who may not.
pub(super) async fn keep(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.check(request.headers()) {
        Ok(caller) => {
            let lang = request.headers().get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            let lang = lang.map_or(Lang::En, Lang::of_header);
            request.extensions_mut().insert(lang);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use axum::http::header::HOST;
    use scenemesh_protocol::task::Class;
    use zeroize::Zeroizing;

    use super::*;

    fn guard(tokens: &[(&str, &str)]) -> Guard {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7871));
        let tokens: BTreeMap<_, _> = tokens
            .iter()
            .map(|(name, token)| ((*name).to_owned(), Zeroizing::new((*token).to_owned())))
            .collect();
        let name = "gateway".to_owned();
        let listener =
            ListenerConfig { name, listen, class: Class::Normal, reach: None, project: None, tokens };
        Guard::new(3, &listener, "kim", Hosts::of(listen))
    }

    fn asks(guard: &Guard, authorization: Option<&'static str>) -> Result<Caller, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "127.0.0.1:7871".parse().unwrap());
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        guard.check(&headers).map_err(|problem| problem.into_response().status())
    }

    #[test]
    fn without_tokens_everybody_is_one() {
        let caller = asks(&guard(&[]), None).unwrap();
        assert_eq!((&*caller.scope, &*caller.person, caller.listener), ("gateway", "kim", 3));
    }

    #[test]
    fn each_token_is_somebody_else() {
        let guard = guard(&[("lee", "one"), ("park", "two")]);
        assert_eq!(asks(&guard, None).unwrap_err(), StatusCode::UNAUTHORIZED);
        assert_eq!(asks(&guard, Some("Bearer three")).unwrap_err(), StatusCode::UNAUTHORIZED);
        assert_eq!(asks(&guard, Some("Basic one")).unwrap_err(), StatusCode::UNAUTHORIZED);
        let lee = asks(&guard, Some("Bearer one")).unwrap();
        let park = asks(&guard, Some("Bearer two")).unwrap();
        assert_eq!((&*lee.scope, &*lee.person), ("gateway/lee", "lee"));
        assert_ne!(lee.scope, park.scope);
        let foreign = HeaderMap::from_iter([(HOST, "evil.example".parse().unwrap())]);
        let refused = guard.check(&foreign).map_err(|problem| problem.into_response().status());
        assert_eq!(refused.unwrap_err(), StatusCode::FORBIDDEN);
    }
}
