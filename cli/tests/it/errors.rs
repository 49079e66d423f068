//! Every way to fail: a sentence, a hint, an exit code.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, command};

#[tokio::test]
async fn every_code_of_the_daemon_has_its_exit_code() {
    for (code, status, exit) in [
        ("work_failed", 409, 1),
        ("usage", 400, 2),
        ("ui_format", 400, 2),
        ("not_found", 404, 2),
        ("ambiguous", 400, 2),
        ("bad_invite", 400, 2),
        ("stopping", 503, 3),
        ("not_authorised", 401, 4),
        ("wrong_passphrase", 403, 4),
        ("peer_unreachable", 502, 5),
        ("refused", 409, 6),
        ("missing_model", 409, 6),
        ("invite_expired", 409, 6),
        ("version_mismatch", 409, 6),
        ("timeout", 504, 7),
        ("internal", 500, 70),
        ("of_a_newer_release", 500, 70),
    ] {
        let sandbox = Sandbox::new().await;
        sandbox.fails("GET /v1/jobs/3fa9", status, code, "it did not work", "do it otherwise");
        let ran = sandbox.run(&["show", "3fa9", "--json"]).await;
        assert_eq!(ran.code, exit, "{code}");
        assert_eq!(ran.err, "error: it did not work\nhint: do it otherwise\n");
        let json = ran.json();
        assert_eq!((&json["schema"], &json["ok"]), (&json!("show/1"), &json!(false)));
        assert_eq!(json["error"]["message"], "it did not work");
        if code != "of_a_newer_release" {
            assert_eq!(json["error"]["code"], code);
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there() {
    let sandbox = Sandbox::new().await;
    std::fs::remove_file(sandbox.path("api.json")).unwrap();
    let ran = sandbox.run(&["jobs"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert_eq!(
        ran.err,
        "error: the daemon is not running: there is no [DIR]/api.json\n\
         hint: start it: scenemeshd --data-dir [DIR]\n"
    );
    let ran = sandbox.run_ko(&["jobs"]).await;
    assert_eq!(
        ran.err,
        "오류: 데몬이 실행 중이 아닙니다: [DIR]/api.json 파일이 없습니다\n\
         도움말: 데몬을 시작하세요: scenemeshd --data-dir [DIR]\n"
    );

    // A port that was free a moment ago: what a killed daemon leaves behind.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sandbox.write(
        "api.json",
        &json!({ "url": format!("http://{free}"), "token": "x", "gateway": null }).to_string(),
    );
    let ran = sandbox.run(&["status", "--json"]).await;
    assert_eq!(ran.code, 3);
    assert_eq!(ran.json()["error"]["code"], "not_running");
    assert_eq!(
        ran.json()["error"]["message"],
        format!("the daemon is not running: nothing answers at http://{free}, which [DIR]/api.json names")
    );

    sandbox.write("api.json", "{");
    let ran = sandbox.run(&["status"]).await;
    assert_eq!(ran.code, 3);
    assert_eq!(ran.err.lines().next(), Some("error: [DIR]/api.json does not say where the daemon is"));
}

#[tokio::test]
async fn answers_that_are_not_ours_are_our_bug() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/status", json!({ "hello": "world" }));
    let ran = sandbox.run(&["status", "--json"]).await;
    assert_eq!(ran.code, 70);
    assert_eq!(ran.json()["error"]["code"], "internal");
    assert!(ran.err.contains("answered what this release cannot read: missing field"), "{}", ran.err);
    sandbox.sends("GET /v1/peers", b"<html>");
    assert_eq!(sandbox.run(&["peers"]).await.code, 70);
}

#[tokio::test]
async fn command_lines_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |words: &[&str], lang: &str| {
        let output = command(dir.path(), words, &[("LANG", lang)]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let help = "hint: scenemesh --help lists the commands, scenemesh COMMAND --help their arguments\n";
    for (words, said) in [
        (&[][..], format!("error: no command was given\n{help}")),
        (&["submi"], "error: there is no command \"submi\"\nhint: did you mean submit?\n".into()),
        (&["jobs", "--frob"], format!("error: \"--frob\" is not known here\n{help}")),
        (&["show"], format!("error: <ID> is missing\n{help}")),
        (
            &["show", "xyz"],
            "error: \"xyz\" cannot be read as <ID>\nhint: it is written like this: 3fa9c1d2\n".into(),
        ),
        (&["fetch", "3fa9", "--out"], format!("error: --out <DIR> needs a value\n{help}")),
        (
            &["submit", "x.json", "--needs", "vram=24"],
            "error: \"vram=24\" cannot be read as --needs <NEEDS>\n\
             hint: it is written like this: vram=24GB, vram=24576MB\n"
                .into(),
        ),
        (
            &["submit", "x.json", "--count", "0"],
            "error: \"0\" cannot be read as --count <N>\nhint: it is written like this: 1–10000\n".into(),
        ),
        (
            &["submit", "x.json", "--set", "seed"],
            "error: \"seed\" cannot be read as --set <NODE.INPUT=VALUE>\n\
             hint: it is written like this: NODE.INPUT=VALUE, 3.seed=42\n"
                .into(),
        ),
        (
            &["invite", "--role", "king"],
            "error: \"king\" cannot be read as --role <ROLE,…>\n\
             hint: it is written like this: submit, render, keep\n"
                .into(),
        ),
        (
            &["submit", "x.json", "--detach", "--out", "a"],
            format!("error: --detach does not go with --out <DIR>\n{help}"),
        ),
    ] {
        let (out, err) = run(words, "C").await;
        assert_eq!((out.as_str(), err), ("", said), "{words:?}");
    }
    let (_, err) = run(&["submi"], "ko_KR.UTF-8").await;
    assert_eq!(err, "오류: \"submi\" 명령은 없습니다\n도움말: 혹시 submit 아닌가요?\n");
    let (out, _) = run(&["submit", "--json"], "C").await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["schema"], &json["error"]["code"], &json["error"]["message"]),
        (&json!("submit/1"), &json!("usage"), &json!("<WORKFLOW.json> is missing"))
    );
}

#[tokio::test]
async fn help_and_version_go_to_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |words: &[&str], lang: &str| {
        let output = command(dir.path(), words, &[("LANG", lang)]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["--version"], "C").await, format!("scenemesh {}\n", env!("CARGO_PKG_VERSION")));
    assert!(
        run(&["--help"], "C").await.contains("  submit       Submit a workflow and wait for its results\n")
    );
    let korean = run(&["submit", "--help"], "ko_KR.UTF-8").await;
    assert!(
        korean.starts_with("워크플로를 제출하고 결과를 기다립니다\n\n사용법: scenemesh submit"),
        "{korean}"
    );
    assert!(!korean.contains("Usage") && !korean.contains("Options"), "{korean}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell], "C").await.contains("scenemesh"), "{shell}");
    }
}
