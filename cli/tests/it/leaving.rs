//! `lend` and `drain`: what is asked of the daemon, what is waited for, and how they end.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const COMFYUI: &str = "http://127.0.0.1:8188";

fn lend(say: &str, state: &str, slots: &Value) -> Value {
    let last = if state == "back" {
        json!({ "at_ms": 1_795_438_800_000_u64, "took_ms": 1234, "slots": slots })
    } else {
        Value::Null
    };
    json!({
        "say": say, "until_ms": null, "until": null, "state": state, "words": format!("it is {state}"),
        "finish_s": 0, "running": [], "slots": slots, "last": last,
    })
}

fn slot(state: &str, used: Option<(u32, u32)>) -> Value {
    json!([{
        "comfyui": COMFYUI, "state": state, "words": format!("memory {state}"),
        "vram_before_mib": used.map(|used| used.0), "vram_after_mib": used.map(|used| used.1),
    }])
}

#[tokio::test]
async fn now_waits_until_the_memory_is_free() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/lend", lend("now", "giving_back", &slot("stopping", None)));
    sandbox
        .says("GET /v1/lend", lend("now", "giving_back", &slot("freeing", None)))
        .says("GET /v1/lend", lend("now", "back", &slot("free", Some((9216, 512)))));
    let ran = sandbox.run(&["lend", "now"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(sandbox.heard("POST /v1/lend")[0].json(), json!({ "say": "now", "until": null }));
    for said in ["it is back", "memory free", "9.0 → 0.5 GiB in use", "given back in 1.2s"] {
        assert!(ran.out.contains(said), "{said} is not in {}", ran.out);
    }
    for said in ["memory stopping", "memory freeing"] {
        assert_eq!(ran.err.matches(said).count(), 1, "{said} once in {}", ran.err);
    }
    let json = sandbox.run(&["--json", "lend", "now", "--detach"]).await;
    assert_eq!(
        (json.json()["schema"].clone(), json.json()["state"].clone()),
        (json!("lend/1"), json!("giving_back"))
    );
    assert_eq!(json.code, 0, "who does not wait asks for no more");
}

#[tokio::test]
async fn memory_that_is_still_held_is_a_failure() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/lend", lend("off", "back", &slot("held", Some((9216, 9000)))));
    let ran = sandbox.run(&["lend", "off", "--until", "18:30"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("restart ComfyUI"), "{}", ran.err);
    assert_eq!(sandbox.heard("POST /v1/lend")[0].json(), json!({ "say": "off", "until": "18:30" }));
    let unverified = Sandbox::new().await;
    unverified.says("POST /v1/lend", lend("off", "back", &slot("unverified", None)));
    assert_eq!(unverified.run(&["lend", "off"]).await.code, 0, "it said so, and nobody knows better");
}

#[tokio::test]
async fn on_and_until_lend_and_status_shows_who_has_it() {
    let sandbox = Sandbox::new().await;
    let mut lent = lend("on", "lent", &json!([]));
    lent["until"] = json!("2026-11-26 18:30");
    lent["running"] = json!([
        { "studio": "birch", "comfyui": COMFYUI, "step": 3, "max": 20, "left_s": 90, "stopping": false },
        { "studio": null, "comfyui": COMFYUI, "step": 0, "max": 0, "left_s": null, "stopping": true },
    ]);
    sandbox.says("POST /v1/lend", lent.clone()).says("GET /v1/lend", lent);
    let until = sandbox.run(&["lend", "until", "2026-11-26 18:30"]).await;
    assert_eq!(sandbox.heard("POST /v1/lend")[0].json(), json!({ "say": "on", "until": "2026-11-26 18:30" }));
    assert!(until.err.contains("lend off --until"), "the other way round: {}", until.err);
    sandbox.run(&["lend", "on"]).await;
    assert_eq!(sandbox.heard("POST /v1/lend")[1].json(), json!({ "say": "on", "until": null }));
    for words in [vec!["lend"], vec!["lend", "status"]] {
        let ran = sandbox.run(&words).await;
        for said in ["it is lent", "birch", "3/20", "needs about 1m30s", "elsewhere", "being stopped"] {
            assert!(ran.out.contains(said), "{said} is not in {}", ran.out);
        }
    }
    let korean = sandbox.run_ko(&["lend"]).await;
    assert!(korean.out.contains("빌려주기") && korean.out.contains("멈추는 중"), "{}", korean.out);
}

fn drain(running: u32, results: u32) -> Value {
    json!({ "draining": true, "exit": false, "running": running, "results": results, "left_s": null })
}

#[tokio::test]
async fn drain_waits_until_nothing_is_left() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/drain", drain(1, 0));
    sandbox
        .says("GET /v1/drain", drain(1, 0))
        .says("GET /v1/drain", drain(0, 1))
        .says("GET /v1/drain", drain(0, 0));
    let ran = sandbox.run(&["drain", "--within", "10m"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = sandbox.heard("POST /v1/drain")[0].json();
    assert_eq!(sent, json!({ "draining": true, "exit": false, "within_s": 600 }));
    assert!(
        ran.out.contains("nothing is left here") && ran.err.contains("results not taken yet: 1"),
        "{ran:?}"
    );
    let off = sandbox.run(&["drain", "--off"]).await;
    assert!(off.out.contains("takes work again"), "{off:?}");
    assert_eq!(sandbox.heard("POST /v1/drain")[1].json()["draining"], false);
    let detached = sandbox.run(&["--json", "drain", "--detach", "--then", "exit"]).await;
    assert_eq!((detached.code, &detached.json()["running"]), (0, &json!(1)));
    assert_eq!(sandbox.heard("POST /v1/drain")[2].json()["exit"], true);
    for wrong in [
        vec!["drain", "--off", "--then", "exit"],
        vec!["drain", "--then", "nap"],
        vec!["drain", "--within", "5"],
    ] {
        assert_eq!(sandbox.run(&wrong).await.code, 2, "{wrong:?}");
    }
}

#[tokio::test]
async fn somebody_elses_word_ends_the_waiting() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/drain", drain(1, 0));
    sandbox.says(
        "GET /v1/drain",
        json!({ "draining": false, "exit": false, "running": 1, "results": 0, "left_s": null }),
    );
    let ran = sandbox.run(&["drain"]).await;
    assert_eq!(ran.code, 6);
    assert!(ran.err.contains("scenemesh drain"), "{}", ran.err);
}
