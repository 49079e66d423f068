//! Projects, and users of this machine.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn project(more: &Value) -> Value {
    let mut project = json!({
        "project": "9a000000000000000000000000000000", "short": "9a000000", "name": "Night Train", "version": 1,
        "issued_ms": 1_795_438_800_000_u64, "max_reach": "studio", "nodes": null, "hygiene": "full",
        "retention_s": 604_800, "closed": false,
    });
    project.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    project
}

#[tokio::test]
async fn a_project_is_made_and_shown() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/projects", project(&json!({})));
    sandbox.write("secret", "correct horse\n");
    let words = [
        "project",
        "add",
        "Night Train",
        "--hygiene",
        "full",
        "--retention",
        "7d",
        "--nodes",
        "b-01,b-02",
        "--passphrase-file",
        "secret",
    ];
    let ran = sandbox.run(&words).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.out,
        "name      Night Train\n\
         id        9a000000000000000000000000000000\n\
         reach     studio\n\
         nodes     *\n\
         hygiene   full\n\
         kept for  7d\n\
         state     open\n\
         version   1  2026-11-23T13:00:00Z\n"
    );
    assert_eq!(
        sandbox.heard("POST /v1/projects")[0].json(),
        json!({
            "name": "Night Train", "max_reach": "studio", "nodes": ["b-01", "b-02"], "full_hygiene": true,
            "retention_s": 604_800, "passphrase": "correct horse",
        })
    );
    sandbox.says("GET /v1/projects", json!({ "projects": [project(&json!({ "closed": true }))] }));
    let ran = sandbox.run_ko(&["project", "ls"]).await;
    assert!(ran.out.contains("닫힘") && ran.out.contains("Night Train"), "{ran:?}");
    let ran = sandbox.run(&["--json", "project", "show", "9a00"]).await;
    assert_eq!((ran.code, &ran.json()["name"]), (0, &json!("Night Train")));
    let ran = sandbox.run(&["project", "show", "Day Train"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("your studio has no project \"Day Train\""), "{}", ran.err);
}

#[tokio::test]
async fn changes_name_only_what_becomes_different() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/projects/set", project(&json!({ "version": 2 })));
    let unchanged = json!({
        "project": "Night Train", "max_reach": null, "nodes": null, "full_hygiene": null, "retention_s": null,
        "closed": null, "passphrase": null,
    });
    let cases: [(&[&str], Value); 5] = [
        (&["set", "Night Train", "--max-reach", "birch,cedar"], json!({ "max_reach": "birch,cedar" })),
        (&["set", "Night Train", "--all-nodes"], json!({ "nodes": [] })),
        (
            &["set", "Night Train", "--retention", "never", "--hygiene", "partial"],
            json!({ "retention_s": 0, "full_hygiene": false }),
        ),
        (&["set", "Night Train", "--open"], json!({ "closed": false })),
        (&["close", "Night Train"], json!({ "closed": true })),
    ];
    for (at, (words, change)) in cases.iter().enumerate() {
        let words: Vec<&str> = ["project"].iter().chain(words.iter()).copied().collect();
        let ran = sandbox.run(&words).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let mut expected = unchanged.clone();
        expected.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(sandbox.heard("POST /v1/projects/set")[at].json(), expected);
    }
    let ran = sandbox.run(&["project", "set", "Night Train", "--retention", "soon"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test]
async fn a_token_goes_into_a_private_file_and_nowhere_else() {
    let sandbox = Sandbox::new().await;
    let reply = json!({ "name": "mina", "role": "operate", "token": "hush", "url": "http://127.0.0.1:1" });
    sandbox.says("POST /v1/users", reply);
    let words = ["--json", "user", "add", "mina", "--role", "operate", "--out", "mina.json"];
    let ran = sandbox.run(&words).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains("hush") && !ran.err.contains("hush"), "{ran:?}");
    assert!(ran.err.contains("mina.json"), "{}", ran.err);
    assert_eq!((&ran.json()["name"], &ran.json()["file"]), (&json!("mina"), &json!("mina.json")));
    let path = sandbox.path("mina.json");
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(file, json!({ "url": "http://127.0.0.1:1", "token": "hush", "gateway": null }));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A file that is there is not overwritten, and then no token is made.
    let ran = sandbox.run(&words).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(sandbox.heard("POST /v1/users").len(), 1);

    // Nor does a refusal leave an empty one.
    sandbox.fails("POST /v1/users/set", 404, "not_found", "noor has no token here", "see who has one");
    let ran = sandbox.run(&["user", "set", "noor", "--role", "view"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test]
async fn a_token_file_names_daemon_and_token() {
    let sandbox = Sandbox::new().await;
    let api: Value =
        serde_json::from_slice(&std::fs::read(sandbox.dir.path().join("api.json")).unwrap()).unwrap();
    let own = json!({ "url": api["url"], "token": "my own", "gateway": null });
    sandbox.write("own.json", &own.to_string());
    sandbox.says("GET /v1/users", json!({ "users": [{ "name": "mina", "role": "view", "since_ms": 0 }] }));
    let ran = sandbox.run(&["--token-file", "own.json", "user", "ls"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("mina"), "{}", ran.out);
    assert_eq!(sandbox.heard("GET /v1/users")[0].headers["authorization"], "Bearer my own");
    let ran = sandbox.run(&["--token-file", "nowhere.json", "user", "ls"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
}
