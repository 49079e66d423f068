//! The door of the API: who gets in, and in which shape failures leave.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use reqwest::header::{ACCEPT_LANGUAGE, HOST, ORIGIN};
use reqwest::{Method, RequestBuilder};
use scenemesh_protocol::api::{ErrorBody, ErrorCode, JoinPreviewRequest, Role};
use tokio::net::TcpListener;

use super::body::Asked;
use super::{guard, guarded};
use crate::supervisor::Supervisor;

/// A few routes behind the real guard.
struct Door {
    address: SocketAddr,
    users: super::users::Users,
    _dir: tempfile::TempDir,
    _supervisor: Supervisor,
}

async fn echo(Asked(asked): Asked<JoinPreviewRequest>) -> String {
    asked.code
}

impl Door {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admin = Router::new()
            .route("/v1/admin", get(|| async { "secret" }))
            .route_layer(middleware::from_fn_with_state(Role::Admin, guard::require));
        let routes = Router::new()
            .route("/v1/look", get(|| async { "seen" }))
            .route("/v1/echo", post(echo))
            .route_layer(middleware::from_fn_with_state(Role::View, guard::require))
            .merge(admin);
        let users = super::users::Users::open(dir.path(), "right", "kim").unwrap();
        users.add("viewer", Role::View, "mina");
        let app = guarded(routes, guard::Guard::new(users.tokens(), crate::http::hosts::Hosts::of(address)));
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let stop = supervisor.tasks().stopping();
        supervisor.tasks().spawn("door", async move {
            axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await?;
            Ok(())
        });
        Self { address, users, _dir: dir, _supervisor: supervisor }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.request(method, format!("http://{}{path}", self.address)).bearer_auth("right")
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }
}

async fn text(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn refusal(request: RequestBuilder) -> (u16, ErrorCode, String) {
    let (status, text) = text(request).await;
    let body: ErrorBody = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not an error body: {text}"));
    (status, body.code, body.message)
}

#[tokio::test]
async fn only_the_token_opens() {
    let door = Door::open().await;
    assert_eq!(text(door.get("/v1/look")).await, (200, "seen".into()));

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bare = client.get(format!("http://{}/v1/look", door.address));
    let (status, code, message) = refusal(bare).await;
    assert_eq!((status, code), (401, ErrorCode::NotAuthorised));
    assert_eq!(message, "the request has no token");

    for wrong in ["wrong", "righ", "right1", ""] {
        let request = client.get(format!("http://{}/v1/look", door.address)).bearer_auth(wrong);
        let (status, code, _) = refusal(request).await;
        assert_eq!((status, code), (401, ErrorCode::NotAuthorised), "{wrong:?}");
    }
    let (status, ..) = refusal(client.get(format!("http://{}/nowhere", door.address))).await;
    assert_eq!(status, 401, "without a token nobody learns which paths there are");
}

#[tokio::test]
async fn roles_open_what_they_may() {
    let door = Door::open().await;
    assert_eq!(text(door.get("/v1/admin")).await, (200, "secret".into()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let viewer = |path: &str| client.get(format!("http://{}{path}", door.address)).bearer_auth("viewer");
    assert_eq!(text(viewer("/v1/look")).await, (200, "seen".into()));
    let (status, code, message) = refusal(viewer("/v1/admin")).await;
    assert_eq!((status, code), (403, ErrorCode::NotAllowed));
    assert_eq!(message, "the token does not allow this: it takes the role admin");
}

#[tokio::test]
async fn a_token_that_was_taken_away_opens_nothing_any_more() {
    let door = Door::open().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let look = || client.get(format!("http://{}/v1/look", door.address)).bearer_auth("viewer");
    assert_eq!(text(look()).await.0, 200);
    door.users.remove("mina");
    let (status, code, _) = refusal(look()).await;
    assert_eq!((status, code), (401, ErrorCode::NotAuthorised));
}

#[tokio::test]
async fn a_page_or_a_foreign_name_gets_nothing_even_with_the_token() {
    let door = Door::open().await;
    let port = door.address.port();
    for ours in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("LOCALHOST:{port}")] {
        assert_eq!(text(door.get("/v1/look").header(HOST, &ours)).await.0, 200, "{ours}");
        let origin = format!("http://{ours}");
        assert_eq!(text(door.get("/v1/look").header(ORIGIN, origin)).await.0, 200, "{ours}");
    }
    for foreign in
        [format!("rebound.example:{port}"), "127.0.0.1".into(), "127.0.0.1:1".into(), "[::1]:1".into()]
    {
        let (status, code, message) = refusal(door.get("/v1/look").header(HOST, &foreign)).await;
        assert_eq!((status, code), (421, ErrorCode::NotAuthorised), "{foreign}");
        assert!(message.contains(&foreign), "{message}");
    }
    for foreign in [
        "http://evil.example".to_owned(),
        "null".into(),
        format!("https://127.0.0.1:{port}"),
        "http://127.0.0.1:1".into(),
    ] {
        let (status, code, _) = refusal(door.get("/v1/look").header(ORIGIN, &foreign)).await;
        assert_eq!((status, code), (403, ErrorCode::NotAuthorised), "{foreign}");
    }
}

#[tokio::test]
async fn every_failure_has_one_shape() {
    let door = Door::open().await;
    assert_eq!(
        refusal(door.get("/v1/nowhere")).await,
        (404, ErrorCode::NotFound, "the API has no /v1/nowhere".into())
    );
    assert_eq!(
        refusal(door.request(Method::DELETE, "/v1/look")).await,
        (405, ErrorCode::Usage, "/v1/look does not take DELETE".into())
    );
    let post = |body: &str| door.request(Method::POST, "/v1/echo").body(body.to_owned());
    assert_eq!(text(post(r#"{"code":"smesh1"}"#)).await, (200, "smesh1".into()));
    for bad in
        ["", "{", "[]", "{}", r#"{"code":1}"#, r#"{"code":"a","more":1}"#, "{\"code\":\"a\"} x", "\u{0}"]
    {
        let (status, code, message) = refusal(post(bad)).await;
        assert_eq!((status, code), (400, ErrorCode::Usage), "{bad:?}");
        assert!(message.starts_with("the request's body cannot be read: "), "{message}");
    }
    let large = format!(r#"{{"code":"{}"}}"#, "a".repeat(64 << 10));
    let (status, code, message) = refusal(post(&large)).await;
    assert_eq!((status, code), (413, ErrorCode::TooLarge));
    assert_eq!(message, "the request's body is over the limit of 64 KiB");
    let chunks = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    let endless = door.request(Method::POST, "/v1/echo").body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(
        refusal(endless).await.1,
        ErrorCode::TooLarge,
        "no length was declared, and it counts all the same"
    );
}

#[tokio::test]
async fn failures_speak_the_language_of_the_asker() {
    let door = Door::open().await;
    let request = door.get("/v1/nowhere").header(ACCEPT_LANGUAGE, "ko-KR,en;q=0.8");
    assert_eq!(refusal(request).await.2, "API에 /v1/nowhere 경로가 없습니다");
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let dir = tempfile::tempdir().unwrap();
    let config = super::Config { listen: ([0, 0, 0, 0], 0).into(), ..super::Config::at(dir.path()) };
    assert_eq!(
        super::bind(config).await.unwrap_err().to_string(),
        "the local API may listen on loopback only, and 0.0.0.0:0 is not; use 127.0.0.1:PORT or [::1]:PORT (--api, or api \
         in scenemesh.toml)"
    );
    let config = super::Config { listen: ([127, 0, 0, 1], 0).into(), ..super::Config::at(dir.path()) };
    let bound = super::bind(config.clone()).await.unwrap();
    let taken = super::Config { listen: bound.address(), ..config };
    let error = super::bind(taken).await.unwrap_err().to_string();
    assert!(error.contains("another program may hold the port, choose one with --api"), "{error}");
}
