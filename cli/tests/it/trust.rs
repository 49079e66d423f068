//! Keys: revoking, blocking, rotating, admin keys.

use serde_json::json;

use crate::sandbox::{NODE, Sandbox};

const KEY: &str = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";

fn revoked() -> serde_json::Value {
    json!({
        "node": NODE, "key": KEY, "name": "ws-02", "studio": "amber", "reason": "sold",
        "confirmed": [{ "id": NODE, "name": "ws-01", "studio": "amber" }], "later": [],
        "attempts_there": 1, "attempts_here": 0, "resigned": 0, "fallen": [],
    })
}

#[tokio::test]
async fn revoke_says_who_has_it_and_what_cannot_be_recalled() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/revoke", revoked());
    let ran = sandbox.run(&["revoke", "ws-02", "--reason", "sold"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        "revoked                 ws-02  amber\n\
         confirmed by            ws-01\n\
         learn it later          none\n\
         our tasks taken back    1\n\
         its tasks stopped here  0\n"
    );
    assert_eq!(ran.err, "files already delivered to ws-02 cannot be recalled\n");
    assert_eq!(
        sandbox.heard("POST /v1/revoke")[0].json(),
        json!({ "node": "ws-02", "admin": null, "reason": "sold", "void": false, "passphrase": null })
    );
}

#[tokio::test]
async fn revoke_wants_a_node_or_a_key_and_a_reason() {
    let sandbox = Sandbox::new().await;
    for words in [
        &["revoke", "ws-02"][..],
        &["revoke", "--reason", "x"],
        &["revoke", "a", "--admin", KEY, "--reason", "x"],
    ] {
        assert_eq!(sandbox.run(words).await.code, 2, "{words:?}");
    }
}

#[tokio::test]
async fn a_block_tells_until_when() {
    let sandbox = Sandbox::new().await;
    let until = 1_800_000_000_000_u64;
    sandbox.says(
        "POST /v1/block",
        json!({ "node": NODE, "name": "bx-01", "studio": "birch", "until_ms": until }),
    );
    let ran = sandbox.run(&["block", "bx-01"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.starts_with("bx-01 is blocked by this studio's machines until "), "{}", ran.out);
    assert!(ran.out.contains("scenemesh block bx-01 --lift"), "{}", ran.out);
}

#[tokio::test]
async fn a_rotation_code_is_one_line_to_copy() {
    let sandbox = Sandbox::new().await;
    sandbox.says(
        "POST /v1/rotate",
        json!({ "state": "requested", "code": "smeshrot1abc", "name": "ws-01", "old": NODE, "new": NODE }),
    );
    let ran = sandbox.run(&["rotate"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "code  smeshrot1abc\n"));
    assert!(ran.err.contains("scenemesh rotate --countersign smeshrot1abc"), "{}", ran.err);
}

#[tokio::test]
async fn a_paper_key_never_reaches_the_daemon() {
    let sandbox = Sandbox::new().await;
    let ran = sandbox.run(&["--json", "admin", "new", "--paper"]).await;
    assert_eq!(ran.code, 0);
    let told: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    let code = told["recovery_code"].as_str().unwrap();
    let key = scenemesh_protocol::keyfile::from_recovery_code(code).unwrap();
    assert_eq!(told["key"], key.public().to_string());
}

#[tokio::test]
async fn admin_keys_are_listed_with_where_they_are() {
    let sandbox = Sandbox::new().await;
    sandbox.says(
        "GET /v1/admin",
        json!({
            "studio": "amber", "file": "/data/keys/admin.key", "on_file": KEY, "sealed": true,
            "keys": [
                { "key": KEY, "here": true, "recovery": false, "revoked": null },
                { "key": KEY.replace('e', "f"), "here": false, "recovery": true, "revoked": null },
                { "key": KEY.replace('e', "0"), "here": false, "recovery": false, "revoked": "stolen" },
            ],
        }),
    );
    let ran = sandbox.run(&["admin"]).await;
    assert_eq!(ran.code, 0);
    for words in ["on this machine", "recovery code", "revoked: stolen", "sealed with a passphrase"] {
        assert!(ran.out.contains(words), "{words} is not in\n{}", ran.out);
    }
}
