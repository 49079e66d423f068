//! Every route of the local API against every role: who is let through, who is told 403, and that a token that was
//! taken away opens nothing, streams included.

use reqwest::{Client, Method, StatusCode};
use scenemesh_protocol::api::{ErrorBody, ErrorCode, Role, UserReply, UserView, UsersReply};
use serde_json::json;

use crate::api::Running;

const ROLES: [Role; 4] = [Role::View, Role::Submit, Role::Operate, Role::Admin];

/// Every route and the least role that it takes. The ids are of nothing that is there.
const ROUTES: [(&str, &str, Role); 40] = [
    ("GET", "/v1/status", Role::View),
    ("GET", "/v1/openapi.json", Role::View),
    ("GET", "/v1/policy", Role::View),
    ("POST", "/v1/policy/class", Role::View),
    ("POST", "/v1/policy/check", Role::View),
    ("POST", "/v1/policy", Role::Operate),
    ("GET", "/v1/lend", Role::View),
    ("POST", "/v1/lend", Role::Operate),
    ("GET", "/v1/drain", Role::View),
    ("POST", "/v1/drain", Role::Operate),
    ("GET", "/v1/pool", Role::View),
    ("GET", "/v1/peers", Role::View),
    ("GET", "/v1/jobs", Role::View),
    ("GET", "/v1/jobs/3fa9", Role::View),
    ("GET", "/v1/jobs/3fa9/why", Role::View),
    ("GET", "/v1/jobs/3fa9/log", Role::View),
    ("GET", "/v1/jobs/3fa9/events", Role::View),
    ("GET", "/v1/events", Role::View),
    ("GET", "/v1/tasks/3fa9/preview", Role::View),
    ("POST", "/v1/inputs", Role::Submit),
    ("POST", "/v1/jobs", Role::Submit),
    ("POST", "/v1/jobs/3fa9/cancel", Role::Submit),
    ("POST", "/v1/jobs/3fa9/retry", Role::Submit),
    ("GET", "/v1/tasks/3fa9/outputs/0", Role::Submit),
    ("GET", "/v1/projects", Role::Submit),
    ("GET", "/v1/doctor", Role::Operate),
    ("POST", "/v1/init", Role::Admin),
    ("POST", "/v1/invite", Role::Admin),
    ("POST", "/v1/join/preview", Role::Admin),
    ("POST", "/v1/join", Role::Admin),
    ("POST", "/v1/pool/approve", Role::Admin),
    ("POST", "/v1/leave", Role::Admin),
    ("POST", "/v1/projects", Role::Admin),
    ("POST", "/v1/projects/set", Role::Admin),
    ("GET", "/v1/users", Role::Admin),
    ("POST", "/v1/users", Role::Admin),
    ("POST", "/v1/users/set", Role::Admin),
    ("POST", "/v1/users/rm", Role::Admin),
    ("GET", "/v1/nowhere", Role::View),
    ("GET", "/", Role::View),
];

async fn user(node: &Running, name: &str, role: Role) -> UserReply {
    node.post("/v1/users", json!({ "name": name, "role": role })).await
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_route_takes_its_role_and_the_ones_above() {
    let node = Running::start().await;
    let client = client();
    for role in ROLES {
        let token = user(&node, role.word(), role).await.token;
        for (method, path, least) in ROUTES {
            let method: Method = method.parse().unwrap();
            let request = client.request(method.clone(), format!("{}{path}", node.url())).bearer_auth(&token);
            // A body that no route takes: whoever is let through is told that, and nothing happens.
            let request = if method == Method::POST { request.body("{\"no\":") } else { request };
            let status = request.send().await.unwrap().status();
            let may = role >= least;
            assert_eq!(status != StatusCode::FORBIDDEN, may, "{role:?} {method} {path}: {status}");
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{role:?} {method} {path}");
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_given_changed_and_taken_away_at_once() {
    let node = Running::start().await;
    let client = client();
    let mina = user(&node, "mina", Role::Operate).await;
    assert!(mina.token.len() >= 50 && !format!("{mina:?}").contains(&mina.token));
    let again = json!({ "name": "mina", "role": "view" });
    let (_, error) = node.refused(Method::POST, "/v1/users", Some(again)).await;
    assert_eq!(error.code, ErrorCode::Conflict);
    for name in ["", "two words", "a\nb"] {
        let bad = json!({ "name": name, "role": "view" });
        assert_eq!(node.refused(Method::POST, "/v1/users", Some(bad)).await.1.code, ErrorCode::Usage);
    }
    let get = |path: &str| client.get(format!("{}{path}", node.url())).bearer_auth(&mina.token);
    assert!(get("/v1/doctor").send().await.unwrap().status().is_success());

    // Another role ends what the old one opened.
    let mut events = get("/v1/events").send().await.unwrap();
    let set: UserView = node.post("/v1/users/set", json!({ "name": "mina", "role": "submit" })).await;
    assert_eq!(set.role, Role::Submit);
    while let Ok(Some(_)) = events.chunk().await {}
    let refused = get("/v1/doctor").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let error: ErrorBody = refused.json().await.unwrap();
    assert_eq!(error.message, "the token does not allow this: it takes the role operate");

    let mut events = get("/v1/events").send().await.unwrap();
    let gone: UserView = node.post("/v1/users/rm", json!({ "name": "mina" })).await;
    assert_eq!(gone.name, "mina");
    while let Ok(Some(_)) = events.chunk().await {}
    assert_eq!(get("/v1/status").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(node.get::<UsersReply>("/v1/users").await.users.is_empty());
    let (_, error) = node.refused(Method::POST, "/v1/users/rm", Some(json!({ "name": "mina" }))).await;
    assert_eq!(error.code, ErrorCode::NotFound);

    // What a file holds is no token.
    user(&node, "noor", Role::View).await;
    let file = std::fs::read_to_string(node.dir().join("users.toml")).unwrap();
    let hash =
        file.lines().find_map(|line| line.strip_prefix("token = ")).unwrap().trim_matches('"').to_owned();
    let stolen = client.get(format!("{}/v1/status", node.url())).bearer_auth(hash);
    assert_eq!(stolen.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_are_made_changed_and_closed() {
    let node = Running::start().await;
    let add = json!({ "name": "Night Train", "max_reach": "pool", "retention_s": 60, "passphrase": null });
    let (_, error) = node.refused(Method::POST, "/v1/projects", Some(add.clone())).await;
    assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
    node.init().await;
    let made: serde_json::Value = node.post("/v1/projects", add.clone()).await;
    assert_eq!((&made["version"], &made["max_reach"]), (&json!(1), &json!("pool")));
    let (_, error) = node.refused(Method::POST, "/v1/projects", Some(add)).await;
    assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
    for (change, code) in [
        (json!({ "project": "Day Train" }), ErrorCode::NotFound),
        (json!({ "project": "Night Train", "max_reach": "cedar" }), ErrorCode::Usage),
        (json!({ "project": "Night Train", "nodes": ["nobody"] }), ErrorCode::NotFound),
    ] {
        let (_, error) = node.refused(Method::POST, "/v1/projects/set", Some(change.clone())).await;
        assert_eq!(error.code, code, "{change}: {error:?}");
    }
    let change =
        json!({ "project": "Night Train", "max_reach": "machine", "full_hygiene": true, "nodes": ["ws-01"] });
    let set: serde_json::Value = node.post("/v1/projects/set", change).await;
    assert_eq!((&set["version"], &set["hygiene"]), (&json!(2), &json!("full")));
    assert_eq!(set["nodes"][0]["name"], "ws-01");
    assert_eq!(set["retention_s"], 60, "what was not named stays");

    let beyond = node.submit_refused(json!({ "project": "Night Train", "reach": "studio" })).await;
    assert_eq!(beyond.code, ErrorCode::Refused);
    assert_eq!(beyond.message, "reach studio goes beyond project \"Night Train\", which allows machine");
    assert_eq!(node.submit_refused(json!({ "project": "Day Train" })).await.code, ErrorCode::NotFound);
    let shut: serde_json::Value =
        node.post("/v1/projects/set", json!({ "project": "Night Train", "closed": true })).await;
    assert_eq!(shut["closed"], true);
    let closed = node.submit_refused(json!({ "project": "Night Train" })).await;
    assert_eq!((closed.code, closed.message.contains("is closed")), (ErrorCode::Conflict, true));
    node.stop().await;
}
