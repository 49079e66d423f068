//! The journal as a file, and the index made anew.

use serde_json::json;

use crate::sandbox::Sandbox;

#[tokio::test]
async fn an_export_is_a_new_private_file() {
    let sandbox = Sandbox::new().await;
    sandbox.sends("GET /v1/journal", b"SMJX and so on");
    let file = sandbox.path("backup.smj");
    let ran = sandbox.run(&["journal", "export", &file, "--json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!((&ran.json()["schema"], &ran.json()["bytes"]), (&json!("journal/1"), &json!(14)));
    assert_eq!(std::fs::read(&file).unwrap(), b"SMJX and so on");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = sandbox.run(&["journal", "export", &file]).await;
    assert_eq!(again.code, 2, "nothing is overwritten: {}", again.err);
    assert_eq!(std::fs::read(&file).unwrap(), b"SMJX and so on");
}

#[tokio::test]
async fn an_import_is_sent_whole_and_says_what_comes_next() {
    let sandbox = Sandbox::new().await;
    sandbox.write("backup.smj", "SMJX and so on");
    sandbox.says("POST /v1/journal", json!({ "records": 60, "bytes": 14 }));
    let file = sandbox.path("backup.smj");
    let ran = sandbox.run(&["journal", "import", &file]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "took in 60 records\n"));
    assert!(ran.err.contains("restart scenemeshd"), "{}", ran.err);
    assert_eq!(&sandbox.heard("POST /v1/journal")[0].body[..], b"SMJX and so on");
    assert!(sandbox.run_ko(&["journal", "import", &file]).await.out.contains("항목 60개"));
    let missing = sandbox.run(&["journal", "import", &sandbox.path("nowhere")]).await;
    assert_eq!(missing.code, 2, "{}", missing.err);
    let refused = Sandbox::new().await;
    refused.write("backup.smj", "x");
    refused.fails("POST /v1/journal", 409, "conflict", "it is not empty", "start anew");
    assert_eq!(refused.run(&["journal", "import", &refused.path("backup.smj")]).await.code, 6);
}

#[tokio::test]
async fn a_rebuild_goes_through_the_daemon() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/ledger/rebuild", json!({ "records": 3, "took_ms": 12 }));
    let ran = sandbox.run(&["ledger", "rebuild"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "made the index anew: 3 records in 12 ms\n"));
    std::fs::remove_file(sandbox.path("api.json")).unwrap();
    let ran = sandbox.run(&["ledger", "rebuild"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("start it: scenemeshd"), "{}", ran.err);
}
