//! Submitting, waiting, saving.

use serde_json::{Value, json};

use crate::sandbox::{JOB, Sandbox, command, job, node, output, task};

const EVENTS: &str = "GET /v1/jobs/3fa9c1d2000000000000000000000000/events";

fn whole(state: &str, tasks: &[Value]) -> Value {
    json!({ "event": "job", "job": job(state, tasks) })
}

fn done(index: u32) -> Value {
    task(
        index,
        "done",
        json!({ "node": node("ws-02"), "attempts": 1, "outputs": [output(0, "key_00001_.png", 4)],
                "usage": { "exec_ms": 12_345, "rgs_milli": null } }),
    )
}

async fn ready() -> Sandbox {
    let sandbox = Sandbox::new().await;
    sandbox.write("keyframe.json", "{\"3\": {}}");
    sandbox
        .says("POST /v1/jobs", job("queued", &[task(0, "queued", json!({})), task(1, "queued", json!({}))]));
    for task in 0..2 {
        let line = format!("GET /v1/tasks/{task:08x}000000000000000000000000/outputs/0");
        sandbox.sends(&line, format!("pic{task}").as_bytes());
    }
    sandbox
}

fn story() -> Vec<Value> {
    let queued = |why: &str| task(1, "queued", json!({ "waiting": why }));
    let progress = |step: u32| {
        json!({ "event": "progress", "job": JOB, "task": "00000000000000000000000000000000",
                "progress": { "node": "KSampler", "step": step, "max": 20, "nodes_done": 0, "nodes_total": 1 } })
    };
    let busy = json!({ "node": node("ws-02"), "attempts": 1 });
    vec![
        whole("queued", &[task(0, "queued", json!({})), task(1, "queued", json!({}))]),
        json!({ "event": "task", "job": JOB, "task": queued("no slot is free") }),
        json!({ "event": "task", "job": JOB, "task": task(0, "granted", busy.clone()) }),
        json!({ "event": "task", "job": JOB, "task": task(0, "running", busy) }),
        progress(1),
        progress(2),
        json!({ "event": "something_newer" }),
        json!({ "event": "preview", "job": JOB, "task": "00000000000000000000000000000000" }),
        json!({ "event": "task", "job": JOB, "task": done(0) }),
        json!({ "event": "task", "job": JOB, "task": done(1) }),
        whole("done", &[done(0), done(1)]),
    ]
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_its_pictures_are_saved() {
    let sandbox = ready().await;
    sandbox.tells(EVENTS, &story());
    sandbox.sends("GET /v1/tasks/00000000000000000000000000000000/preview", b"jpeg");
    let ran = sandbox
        .run(&[
            "submit",
            "keyframe.json",
            "--count",
            "2",
            "--reach",
            "pool",
            "--out",
            "out",
            "--preview",
            "now.jpg",
        ])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.err,
        "job 3fa9c1d2: 2 tasks, reach pool\n\
         task #1: no slot is free\n\
         task #0 goes to ws-02\n\
         task #0 runs on ws-02\n\
         task #0 done on ws-02 in 12.3s\n\
         task #1 done on ws-02 in 12.3s\n"
    );
    assert_eq!(
        ran.out,
        "job        3fa9c1d2  keyframe\n\
         state      done\n\
         reach      pool\n\
         class      normal\n\
         submitted  2026-11-23T13:00:00Z\n\
         \n\
         TASK         STATE  NODE   TRIES  TIME   OUTPUT\n\
         #0 00000000  done   ws-02  1      12.3s  out/3fa9c1d2/0-key_00001_.png  4 B\n\
         #1 00000001  done   ws-02  1      12.3s  out/3fa9c1d2/1-key_00001_.png  4 B\n"
    );
    assert_eq!(std::fs::read(sandbox.path("out/3fa9c1d2/0-key_00001_.png")).unwrap(), b"pic0");
    assert_eq!(std::fs::read(sandbox.path("out/3fa9c1d2/1-key_00001_.png")).unwrap(), b"pic1");
    assert_eq!(std::fs::read(sandbox.path("now.jpg")).unwrap(), b"jpeg");
    assert_eq!(
        sandbox.heard("POST /v1/jobs")[0].json(),
        json!({
            "label": "keyframe", "workflow": "{\"3\": {}}", "set": [], "inputs": [], "count": 2, "class": "normal",
            "project": null,
            "reach": "pool", "needs": { "vram_mib": null, "min_cc": null }, "previews": true, "full_hygiene": false,
        })
    );
}

#[tokio::test]
async fn in_korean_and_without_a_place_to_save() {
    let sandbox = ready().await;
    sandbox.tells(EVENTS, &story());
    let ran = sandbox.run_ko(&["submit", "keyframe.json"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.err,
        "작업 3fa9c1d2: 태스크 2개, 범위 pool\n\
         태스크 #1: no slot is free\n\
         태스크 #0 → ws-02\n\
         태스크 #0 렌더링 시작: ws-02\n\
         태스크 #0 완료: ws-02, 12.3s\n\
         태스크 #1 완료: ws-02, 12.3s\n\
         결과는 데몬에 있습니다: scenemesh fetch 3fa9c1d2 --out DIR\n"
    );
    assert!(sandbox.heard("GET /v1/tasks/00000000000000000000000000000000/outputs/0").is_empty());
}

#[tokio::test]
async fn with_json_the_last_line_is_one_object() {
    let sandbox = ready().await;
    sandbox.tells(EVENTS, &story());
    let ran = sandbox.run(&["--json", "submit", "keyframe.json", "--out", &sandbox.path("pictures")]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(ran.out.lines().count(), 1);
    let json = ran.json();
    assert_eq!(
        (&json["schema"], &json["ok"], &json["job"], &json["state"], &json["error"]),
        (&json!("submit/1"), &json!(true), &json!(JOB), &json!("done"), &Value::Null)
    );
    assert_eq!(json["tasks"][1]["outputs"][0]["path"], "[DIR]/pictures/3fa9c1d2/1-key_00001_.png");
    assert_eq!(json["tasks"][1]["outputs"][0]["saved"], true);
    assert_eq!(json["tasks"][1]["usage"]["exec_ms"], 12_345);
}

#[tokio::test]
async fn settings_inputs_and_needs_arrive_as_they_were_typed() {
    let sandbox = ready().await;
    sandbox.write("shot.png", "pixels");
    sandbox.says("POST /v1/inputs", json!({ "input": "handle-1", "bytes": 6 }));
    let ran = sandbox
        .run(&[
            "submit",
            "keyframe.json",
            "--set",
            "3.seed=42",
            "--set",
            "6.text=a = b",
            "--input",
            "start.png=shot.png",
            "--class",
            "urgent",
            "--reach",
            "amber,birch",
            "--needs",
            "vram=24GB,cc=8.9",
            "--full-hygiene",
            "--detach",
        ])
        .await;
    assert_eq!((ran.code, ran.out), (0, format!("{JOB}\n")));
    assert_eq!(ran.err, "job 3fa9c1d2: 2 tasks, reach pool\nlook at it: scenemesh show 3fa9c1d2\n");
    assert_eq!(sandbox.heard("POST /v1/inputs")[0].body, "pixels");
    assert_eq!(sandbox.heard("POST /v1/inputs")[0].headers["content-length"], "6");
    assert_eq!(
        sandbox.heard("POST /v1/jobs")[0].json(),
        json!({
            "label": "keyframe", "workflow": "{\"3\": {}}",
            "set": [{ "path": "3.seed", "value": "42" }, { "path": "6.text", "value": "a = b" }],
            "inputs": [{ "name": "start.png", "input": "handle-1" }], "count": 1, "class": "urgent",
            "project": null, "reach": "amber,birch", "needs": { "vram_mib": 24_576, "min_cc": 89 }, "previews": false,
            "full_hygiene": true,
        })
    );
}

#[tokio::test]
async fn a_failed_task_is_exit_code_one_with_its_reason() {
    let sandbox = ready().await;
    let failed = task(
        1,
        "failed",
        json!({ "attempts": 1, "failures": [{ "node": "ws-02", "class": "out_of_memory", "why": "out of memory: needs 30 GB" }] }),
    );
    sandbox.tells(EVENTS, &[whole("failed", &[done(0), failed])]);
    let ran = sandbox.run(&["submit", "keyframe.json", "--json"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.json()["error"],
        json!({
            "code": "work_failed",
            "message": "1 of 2 tasks failed; ws-02: out of memory: needs 30 GB",
            "hint": "scenemesh logs 3fa9c1d2 tells the story, scenemesh retry 3fa9c1d2 tries again",
        })
    );
    assert_eq!((&ran.json()["ok"], &ran.json()["state"]), (&json!(false), &json!("failed")));
    assert!(ran.err.contains("task #1 failed: ws-02: out of memory: needs 30 GB\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_cancelled_job_is_exit_code_one() {
    let sandbox = ready().await;
    sandbox.tells(EVENTS, &[whole("cancelled", &[task(0, "cancelled", json!({}))])]);
    let ran = sandbox.run(&["submit", "keyframe.json"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("error: job 3fa9c1d2 was cancelled\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_daemon_that_restarts_is_found_again() {
    let sandbox = ready().await;
    sandbox.tells(EVENTS, &story()[..4]);
    sandbox.tells(EVENTS, &[whole("done", &[done(0), done(1)])]);
    let ran = sandbox.run(&["submit", "keyframe.json", "--out", "out"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.err,
        "job 3fa9c1d2: 2 tasks, reach pool\n\
         task #1: no slot is free\n\
         task #0 goes to ws-02\n\
         task #0 runs on ws-02\n\
         the daemon went away; looking for it again for a minute\n\
         the daemon is back\n\
         task #0 done on ws-02 in 12.3s\n\
         task #1 done on ws-02 in 12.3s\n"
    );
    assert_eq!(sandbox.heard(EVENTS).len(), 2);
}

#[tokio::test]
async fn nothing_is_sent_when_something_here_is_wrong() {
    let sandbox = ready().await;
    let ran = sandbox.run(&["submit", "missing.json"]).await;
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        "error: missing.json cannot be read: No such file or directory\n\
         hint: check the path, and that you may read it\n"
    );
    let ran = sandbox.run(&["submit", "keyframe.json", "--input", "a.png=missing.png"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: input a.png: missing.png cannot be read: "), "{}", ran.err);
    let ran = sandbox.run(&["submit", "keyframe.json", "--input", "a.png=."]).await;
    assert_eq!(ran.err.lines().next(), Some("error: input a.png: . cannot be read: not a file"));
    let ran = sandbox.run(&["submit", "keyframe.json", "--out", "keyframe.json"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("error: keyframe.json cannot be written: "), "{}", ran.err);
    std::fs::write(sandbox.dir.path().join("picture.png"), [0x89, 0x50, 0xff, 0xfe]).unwrap();
    let ran = sandbox.run(&["submit", "picture.png", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["error"]["code"]), (2, &json!("not_json")));
    assert!(sandbox.heard("POST /v1/jobs").is_empty());
    assert!(sandbox.heard("POST /v1/inputs").is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_detaches_and_says_how_to_look_again() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

    let sandbox = ready().await;
    // The stream ends and the daemon does not come back: the command is waiting when the signal comes.
    sandbox.tells(EVENTS, &[whole("queued", &[task(0, "queued", json!({}))])]);
    sandbox.fails(EVENTS, 503, "stopping", "the daemon is stopping", "");
    let mut child = command(sandbox.dir.path(), &["submit", "keyframe.json", "--json"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = err.next_line().await.unwrap() {
        if line.starts_with("the daemon went away") {
            break;
        }
    }
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert_eq!(
        err.next_line().await.unwrap().as_deref(),
        Some(
            "the job goes on without this command; look again: scenemesh show 3fa9c1d2 · scenemesh fetch 3fa9c1d2 \
             --out DIR · scenemesh cancel 3fa9c1d2"
        )
    );
    let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&json["ok"], &json["state"]), (&json!(true), &json!("queued")));
}

#[tokio::test]
async fn what_is_varied_and_what_follows_arrives_with_its_files() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/inputs", json!({ "input": "handle-1", "bytes": 6 }));
    sandbox.says("POST /v1/jobs", job("queued", &[task(0, "queued", json!({}))]));
    std::fs::write(sandbox.path("draw.json"), r#"{"3": {}}"#).unwrap();
    std::fs::write(sandbox.path("up.json"), r#"{"1": {"image": "mask.png"}}"#).unwrap();
    std::fs::write(sandbox.path("mask.png"), "pixels").unwrap();
    std::fs::write(sandbox.path("prompts.txt"), "a cat, sitting\n\na dog\n").unwrap();
    let vary = ["--vary", "3.cfg=6..7", "--vary", "6.text=@prompts.txt"];
    let then = ["--then", "up.json:drawn.png=9#1", "--input", "mask.png"];
    let ran = sandbox.run(&[&["submit", "draw.json", "-d"], &vary[..], &then[..]].concat()).await;
    assert_eq!((ran.code, ran.err.lines().count()), (0, 2), "{}", ran.err);
    let asked = sandbox.heard("POST /v1/jobs")[0].json();
    assert_eq!(asked["inputs"], json!([]), "the first workflow does not name it");
    assert_eq!(
        (&asked["vary"], &asked["then"]),
        (
            &json!([
                { "path": "3.cfg", "values": ["6", "7"] },
                { "path": "6.text", "values": ["a cat, sitting", "a dog"] },
            ]),
            &json!([{
                "workflow": "{\"1\": {\"image\": \"mask.png\"}}", "set": [], "count": 1, "vary": [],
                "inputs": [{ "name": "mask.png", "input": "handle-1" }],
                "feeds": [{ "name": "drawn.png", "node": "9", "file": 1, "stage": null }],
            }])
        )
    );
}
