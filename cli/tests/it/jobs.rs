//! Looking at jobs, and what can be done with them.

use serde_json::{Value, json};

use crate::sandbox::{JOB, Sandbox, job, node, output, task};

fn two_tasks() -> Value {
    let done = json!({
        "node": node("ws-02"), "attempts": 1, "outputs": [output(0, "key_00001_.png", 1_234_567)],
        "usage": { "exec_ms": 12_345, "rgs_milli": null },
    });
    let failed = json!({
        "attempts": 2, "failures": [
            { "node": "ws-02", "class": "out_of_memory", "why": "out of memory: needs 30 GB" },
            { "node": "ws-03", "class": "comfyui_died", "why": "ComfyUI died: it closed the connection" },
        ],
    });
    job("failed", &[task(0, "done", done), task(1, "failed", failed)])
}

#[tokio::test]
async fn jobs_are_a_table() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/jobs", json!({ "jobs": [two_tasks()] }));
    let ran = sandbox.run(&["jobs"]).await;
    assert_eq!(ran.code, 0);
    let (head, row) = ran.out.split_once('\n').unwrap();
    assert_eq!(head, "JOB       LABEL     STATE   DONE/ALL  CLASS   REACH  NODES  AGE");
    assert!(row.starts_with("3fa9c1d2  keyframe  failed  1/2       normal  pool   ws-02  "), "{row}");

    let ran = sandbox.run(&["jobs", "--active"]).await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "no jobs\n"));
    let ran = sandbox.run_ko(&["jobs", "--limit", "0"]).await;
    assert_eq!(ran.err, "작업이 없습니다\n더 오래된 작업 1개는 생략했습니다 (--limit N)\n");
}

#[tokio::test]
async fn show_tells_every_task() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/jobs/3fa9", two_tasks());
    let ran = sandbox.run(&["show", "3FA9"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        "job        3fa9c1d2  keyframe\n\
         state      failed\n\
         reach      pool\n\
         class      normal\n\
         submitted  2026-11-23T13:00:00Z\n\
         \n\
         TASK         STATE   NODE   TRIES  TIME   OUTPUT\n\
         #0 00000000  done    ws-02  1      12.3s  key_00001_.png  1.2 MB\n\
         #1 00000001  failed  -      2      -      ws-02: out of memory: needs 30 GB\n                                          \
                                                   ws-03: ComfyUI died: it closed the connection\n"
    );
    let ran = sandbox.run(&["show", "3fa9", "--json"]).await;
    let json = ran.json();
    assert_eq!(
        (&json["schema"], &json["ok"], &json["job"], &json["state"], &json["error"]),
        (&json!("show/1"), &json!(true), &json!(JOB), &json!("failed"), &Value::Null)
    );
    let first = &json["tasks"][0];
    assert_eq!(first["task"], "00000000000000000000000000000000");
    assert_eq!(
        (&first["state"], &first["node"], &first["attempts"]),
        (&json!("done"), &json!("ws-02"), &json!(1))
    );
    assert_eq!(first["outputs"][0]["path"], "3fa9c1d2/0-key_00001_.png");
    assert_eq!(first["outputs"][0]["bytes"], 1_234_567);
    assert_eq!(first["outputs"][0]["kind"], "image");
    assert_eq!(first["outputs"][0]["saved"], false);
    assert_eq!(first["usage"], json!({ "exec_ms": 12_345, "rgs_milli": null }));
}

#[tokio::test]
async fn show_in_korean() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/jobs/3fa9", two_tasks());
    let ran = sandbox.run_ko(&["show", "3fa9"]).await;
    assert_eq!(
        ran.out,
        "작업  3fa9c1d2  keyframe\n\
         상태  실패\n\
         범위  pool\n\
         등급  normal\n\
         제출  2026-11-23T13:00:00Z\n\
         \n\
         태스크       상태  노드   시도  시간   결과\n\
         #0 00000000  완료  ws-02  1     12.3s  key_00001_.png  1.2 MB\n\
         #1 00000001  실패  -      2     -      ws-02: out of memory: needs 30 GB\n                                       \
                                                ws-03: ComfyUI died: it closed the connection\n"
    );
}

#[tokio::test]
async fn why_is_one_sentence() {
    let sandbox = Sandbox::new().await;
    sandbox.says(
        "GET /v1/jobs/3fa9/why",
        json!({ "id": JOB, "why": "waits for a free slot on ws-02", "code": "in_line" }),
    );
    let ran = sandbox.run(&["why", "3fa9"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "waits for a free slot on ws-02\n"));
}

#[tokio::test]
async fn logs_tell_the_story_and_follow_it() {
    let sandbox = Sandbox::new().await;
    let line = |second: u64, text: &str| {
        json!({ "at_ms": 1_795_438_800_000_u64 + second * 1000, "task": "00000000000000000000000000000000",
                "index": 0, "text": text, "code": "offered" })
    };
    sandbox
        .says("GET /v1/jobs/3fa9/log", json!({ "lines": [line(0, "offered to ws-02"), line(1, "claimed")] }));
    let ran = sandbox.run(&["logs", "3fa9"]).await;
    let told = "2026-11-23T13:00:00Z  #0  offered to ws-02\n2026-11-23T13:00:01Z  #0  claimed\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, told));

    let log = |line: Value| json!({ "event": "log", "job": JOB, "line": line });
    sandbox.tells(
        "GET /v1/jobs/3fa9/events",
        &[
            json!({ "event": "job", "job": job("running", &[task(0, "running", json!({}))]) }),
            log(line(1, "claimed")),
            log(line(2, "done")),
            json!({ "event": "job", "job": job("done", &[task(0, "done", json!({}))]) }),
        ],
    );
    let ran = sandbox.run(&["logs", "-f", "3fa9"]).await;
    assert_eq!((ran.code, ran.out), (0, format!("{told}2026-11-23T13:00:02Z  #0  done\n")));
}

#[tokio::test]
async fn cancel_and_retry_say_what_came_of_it() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/jobs/3fa9/cancel", job("cancelled", &[task(0, "cancelled", json!({}))]));
    sandbox.says("POST /v1/jobs/3fa9/retry", job("queued", &[task(0, "queued", json!({}))]));
    assert_eq!(sandbox.run(&["cancel", "3fa9"]).await.out, "job 3fa9c1d2 is cancelled\n");
    assert_eq!(sandbox.run(&["retry", "3fa9"]).await.out, "job 3fa9c1d2: 1 task is queued again\n");
    assert_eq!(sandbox.run_ko(&["cancel", "3fa9"]).await.out, "작업 3fa9c1d2: 취소됨\n");
    assert_eq!(sandbox.run(&["cancel", "3fa9", "--json"]).await.json()["state"], "cancelled");
}

#[tokio::test]
async fn fetch_saves_and_never_overwrites() {
    let sandbox = Sandbox::new().await;
    let two = json!({ "node": node("ws-02"), "outputs": [output(0, "a.png", 5), output(1, "a.png", 3)] });
    sandbox.says("GET /v1/jobs/3fa9", job("done", &[task(0, "done", two)]));
    sandbox.sends("GET /v1/tasks/00000000000000000000000000000000/outputs/0", b"first");
    sandbox.sends("GET /v1/tasks/00000000000000000000000000000000/outputs/1", b"two");
    let ran = sandbox.run(&["fetch", "3fa9", "--out", "out", "--json"]).await;
    assert_eq!(ran.code, 0);
    let paths: Vec<Value> =
        ran.json()["tasks"][0]["outputs"].as_array().unwrap().iter().map(|o| o["path"].clone()).collect();
    assert_eq!(paths, ["out/3fa9c1d2/0-a.png", "out/3fa9c1d2/0-1-a.png"]);
    assert_eq!(std::fs::read(sandbox.path("out/3fa9c1d2/0-a.png")).unwrap(), b"first");
    assert_eq!(std::fs::read(sandbox.path("out/3fa9c1d2/0-1-a.png")).unwrap(), b"two");

    sandbox.write("out/3fa9c1d2/0-a.png", "mine!");
    let ran = sandbox.run(&["fetch", "3fa9", "--out", "out", "--json"]).await;
    assert_eq!(ran.json()["tasks"][0]["outputs"][0]["path"], "out/3fa9c1d2/0-a~2.png");
    assert_eq!(ran.json()["tasks"][0]["outputs"][1]["path"], "out/3fa9c1d2/0-1-a.png");
    assert_eq!(std::fs::read(sandbox.path("out/3fa9c1d2/0-a.png")).unwrap(), b"mine!");
    assert_eq!(std::fs::read_dir(sandbox.path("out/3fa9c1d2")).unwrap().count(), 3);
}

#[tokio::test]
async fn a_result_that_breaks_off_is_not_kept() {
    let sandbox = Sandbox::new().await;
    let one = json!({ "outputs": [output(0, "a.png", 500)] });
    sandbox.says("GET /v1/jobs/3fa9", job("done", &[task(0, "done", one)]));
    sandbox.sends("GET /v1/tasks/00000000000000000000000000000000/outputs/0", b"first");
    let ran = sandbox.run(&["fetch", "3fa9", "--out", "out"]).await;
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        "error: only 5 of 500 bytes arrived for out/3fa9c1d2/0-a.png; nothing was kept of it\n\
         hint: scenemesh fetch ID --out DIR brings what is missing\n"
    );
    assert_eq!(std::fs::read_dir(sandbox.path("out/3fa9c1d2")).unwrap().count(), 0);
}

#[tokio::test]
async fn show_says_what_was_wiped_and_warns_of_what_was_not() {
    let sandbox = Sandbox::new().await;
    let wipe = |left: Value| {
        json!([{ "attempt": 1, "node": "ws-02", "hygiene": "full", "left": left,
                 "wiped": { "history": 1, "inputs": 2, "cache": 1 } }])
    };
    let clean = json!({ "node": node("ws-02"), "full_hygiene": true, "wipes": wipe(json!({})) });
    sandbox.says("GET /v1/jobs/3fa9", job("done", &[task(0, "done", clean)]));
    let ran = sandbox.run(&["show", "3fa9"]).await;
    let told = "#0 wiped by ws-02: history 1, inputs 2, cache 1; left: nothing\n";
    assert!(ran.code == 0 && ran.out.ends_with(told) && ran.err.is_empty(), "{ran:?}");
    let ran = sandbox.run_ko(&["show", "3fa9"]).await;
    assert!(ran.out.ends_with("#0 ws-02에서 지움: 기록 1, 입력 2, 캐시 1; 남음: 없음\n"), "{ran:?}");

    let unclean =
        json!({ "node": node("ws-02"), "full_hygiene": true, "wipes": wipe(json!({ "outputs": 1 })) });
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/jobs/3fa9", job("done", &[task(0, "done", unclean)]));
    let ran = sandbox.run(&["show", "3fa9"]).await;
    let warning = "warning: task #0 insists on leaving nothing, but this stays on ws-02: outputs 1; \
                   ask its owner to remove it\n";
    assert_eq!((ran.code, ran.err.as_str()), (0, warning));
    let shown = sandbox.run(&["show", "3fa9", "--json"]).await.json();
    assert_eq!(shown["state"], "done");
    assert_eq!(shown["tasks"][0]["wipes"][0]["left"]["outputs"], 1);

    let silent = json!({ "node": node("ws-02"), "full_hygiene": true });
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/jobs/3fa9", job("done", &[task(0, "done", silent)]));
    let ran = sandbox.run_ko(&["show", "3fa9"]).await;
    assert!(ran.err.contains("ws-02이(가) 무엇을 지웠는지 알리지 않았습니다"), "{ran:?}");
}

#[tokio::test]
async fn pause_and_resume_say_what_came_of_it() {
    let sandbox = Sandbox::new().await;
    let paused = json!({ "waiting": "paused: it waits for `scenemesh resume`", "waiting_code": "paused" });
    let tasks = [task(0, "running", json!({})), task(1, "queued", paused)];
    sandbox.says("POST /v1/jobs/3fa9:0..1/pause", job("running", &tasks));
    let ran = sandbox.run(&["pause", "3fa9:0..1"]).await;
    assert_eq!(ran.out, "job 3fa9c1d2: 1 task is paused; what runs goes on\n");
    sandbox.says("POST /v1/jobs/3fa9/resume", job("queued", &[task(0, "queued", json!({}))]));
    assert_eq!(sandbox.run(&["resume", "3FA9"]).await.out, "job 3fa9c1d2: 1 task waits for a node\n");
    assert_eq!(
        sandbox.run_ko(&["resume", "3fa9"]).await.out,
        "작업 3fa9c1d2: 태스크 1개가 노드를 기다립니다\n"
    );
    let ran = sandbox.run(&["pause", "3fa9:7..3"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("3fa9c1d2:3..7"), "{}", ran.err);
}

#[tokio::test]
async fn show_tells_what_sets_tasks_apart_and_why_one_never_ran() {
    let sandbox = Sandbox::new().await;
    let varied = json!({
        "node": node("ws-02"), "outputs": [output(0, "key_00001_.png", 4)],
        "varied": [{ "path": "3.cfg", "value": "6.5" }, { "path": "6.text", "value": "\"a cat\"" }],
    });
    let skipped =
        json!({ "waiting": "not rendered: task #0, on which it builds, failed", "waiting_code": "skipped" });
    sandbox
        .says("GET /v1/jobs/3fa9", job("failed", &[task(0, "done", varied), task(1, "cancelled", skipped)]));
    let ran = sandbox.run(&["show", "3fa9"]).await;
    assert!(ran.out.contains("3.cfg=6.5  6.text=\"a cat\"\n"), "{}", ran.out);
    assert!(ran.out.contains("not rendered: task #0, on which it builds, failed"), "{}", ran.out);
    let shown = sandbox.run(&["show", "3fa9", "--json"]).await.json();
    assert_eq!(shown["tasks"][0]["varied"], json!({ "3.cfg": 6.5, "6.text": "a cat" }));
}
