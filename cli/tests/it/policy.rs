//! `policy`: what is asked of the daemon, what is said of its answers, and how it ends.

use serde_json::{Value, json};

use crate::sandbox::{NODE, Sandbox};

fn policy(allowed: &[&str], denied: &[&str]) -> Value {
    json!({
        "version": 1, "comfyui": "0.3.64", "listed_allowed": 700, "listed_denied": 150,
        "allowed": allowed, "denied": denied,
        "lend": { "to": ["birch"], "classes": ["batch"], "max_vram_mib": 20480, "hours": ["19:00-08:00"], "open": false },
    })
}

#[tokio::test]
async fn the_list_the_owners_choices_and_the_lending_are_shown() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/policy", policy(&["AmberHouseGrade"], &[]));
    for words in [vec!["policy"], vec!["policy", "show"]] {
        let ran = sandbox.run(&words).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        for said in [
            "version 1 for ComfyUI 0.3.64",
            "AmberHouseGrade",
            "birch",
            "batch",
            "20",
            "19:00-08:00",
            "not now",
        ] {
            assert!(ran.out.contains(said), "{said} is not in {}", ran.out);
        }
    }
    let lend = sandbox.run(&["policy", "lend"]).await;
    assert!(lend.out.contains("birch") && !lend.out.contains("ComfyUI"), "{}", lend.out);
    let json = sandbox.run(&["policy", "--json"]).await.json();
    assert_eq!((&json["schema"], &json["allowed"][0]), (&json!("policy/1"), &json!("AmberHouseGrade")));
    let korean = sandbox.run_ko(&["policy"]).await;
    assert!(korean.out.contains("직접 허용"), "{}", korean.out);
}

#[tokio::test]
async fn a_classs_verdict_says_why_and_what_to_do() {
    let sandbox = Sandbox::new().await;
    let verdict = json!({
        "class": "RegexMatch", "allowed": false, "allowed_own": true, "reason": "family", "family": "hang",
        "from": "ComfyUI 0.3.64", "words": "it does not run for others: nothing can interrupt it",
    });
    sandbox.says("POST /v1/policy/class", verdict);
    let ran = sandbox.run(&["policy", "show", "RegexMatch"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("nothing can interrupt it") && ran.out.contains("hang"), "{}", ran.out);
    assert!(ran.err.contains("scenemesh policy allow"), "{}", ran.err);
    assert_eq!(sandbox.heard("POST /v1/policy/class")[0].json(), json!({ "class": "RegexMatch" }));
}

#[tokio::test]
async fn a_workflow_that_would_be_refused_ends_with_6_and_all_findings() {
    let sandbox = Sandbox::new().await;
    sandbox.write("shot.json", r#"{"3": {"class_type": "RegexMatch", "inputs": {}}}"#);
    let findings = json!([
        { "node": "3", "class": "RegexMatch", "input": null, "kind": "class", "family": "hang",
          "words": "nothing can interrupt it" },
        { "node": "9", "class": "SaveImage", "input": "filename_prefix", "kind": "literal", "family": null,
          "words": "it is an absolute path" },
    ]);
    let elsewhere = json!([
        { "node": NODE, "name": "birch-01", "studio": "birch", "takes": true, "words": "nothing speaks against it" }
    ]);
    let reply = json!({ "refused": true, "findings": findings, "elsewhere": elsewhere });
    sandbox
        .says("POST /v1/policy/check", reply)
        .says("POST /v1/policy/check", json!({ "refused": false, "findings": [], "elsewhere": [] }));
    let ran = sandbox.run(&["policy", "show", "shot.json", "--json"]).await;
    assert_eq!(ran.code, 6);
    for said in ["RegexMatch", "filename_prefix", "it is an absolute path", "birch-01"] {
        assert!(ran.out.contains(said), "{said} is not in {}", ran.out);
    }
    assert!(ran.err.contains("2 findings"), "{}", ran.err);
    let json = ran.json();
    assert_eq!(
        (&json["schema"], &json["ok"], &json["refused"]),
        (&json!("policy/1"), &json!(false), &json!(true))
    );
    let sent = sandbox.heard("POST /v1/policy/check")[0].json();
    assert!(sent["workflow"].as_str().is_some_and(|text| text.contains("RegexMatch")));
    let fine = sandbox.run(&["policy", "show", "shot.json"]).await;
    assert_eq!((fine.code, fine.out.trim()), (0, "this node would refuse nothing of it"));
    let absent = sandbox.run(&["policy", "show", "absent.json"]).await;
    assert_eq!(absent.code, 2);
}

#[tokio::test]
async fn allow_deny_and_reset_send_all_classes_at_once() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/policy", policy(&["A", "Epsilon Scaling"], &[]));
    for verb in ["allow", "deny", "reset"] {
        let ran = sandbox.run(&["policy", verb, "A", "Epsilon Scaling"]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("A, Epsilon Scaling"), "{}", ran.out);
        let sent = sandbox.heard("POST /v1/policy").pop().unwrap().json();
        assert_eq!(sent, json!({ "change": verb, "classes": ["A", "Epsilon Scaling"] }));
    }
    assert_eq!(sandbox.run(&["policy", "allow"]).await.code, 2);
}
