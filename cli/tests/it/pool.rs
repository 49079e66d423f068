//! Founding, inviting, joining, looking around.

use serde_json::json;

use crate::sandbox::{NODE, Sandbox, TOKEN};

const POOL: &str = "7f3c91de40ab22c80000000000000001";
const STUDIO: &str = "00000000000000000000000000000002";

fn founded() -> serde_json::Value {
    json!({
        "pool": POOL, "pool_name": "aurora", "studio": STUDIO, "studio_name": "amber",
        "node": NODE, "name": "ws-01", "admin_key": "/data/keys/admin.key", "sealed": true,
        "recovery_code": "smrec1-abcd",
        "comfyui": [{ "url": "http://127.0.0.1:8188", "configured": false, "version": "0.3.60", "trouble": null }],
    })
}

#[tokio::test]
async fn init_shows_what_was_founded_and_what_comes_next() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/init", founded());
    sandbox.write("secret", "correct horse\nsecond line\n");
    let words =
        ["init", "--pool", "aurora", "--studio", "amber", "--name", "ws-01", "--passphrase-file", "secret"];
    let ran = sandbox.run(&words).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        format!(
            "pool           aurora  {POOL}\n\
             studio         amber  {STUDIO}\n\
             node           ws-01  {NODE}\n\
             admin key      /data/keys/admin.key  (sealed with a passphrase)\n\
             recovery code  smrec1-abcd\n\
             ComfyUI        http://127.0.0.1:8188  0.3.60  (not in scenemesh.toml)\n"
        )
    );
    assert_eq!(
        ran.err,
        "the recovery code is a second admin key; it is not shown again, so write it down now\n\
         ComfyUI answers at http://127.0.0.1:8188; to render on it, put this into scenemesh.toml and restart the daemon:\n\
         [[comfyui]]\n\
         url = \"http://127.0.0.1:8188\"\n\
         next: scenemesh invite, for another machine\n"
    );
    let heard = sandbox.heard("POST /v1/init");
    assert_eq!(
        heard[0].json(),
        json!({ "pool": "aurora", "studio": "amber", "name": "ws-01", "passphrase": "correct horse", "solo": false })
    );
    assert_eq!(heard[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(heard[0].headers["accept-language"], "en");
}

#[tokio::test]
async fn init_in_korean() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/init", founded());
    let words = ["init", "--pool", "aurora", "--studio", "amber", "--name", "ws-01", "--no-passphrase"];
    let ran = sandbox.run_ko(&words).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        format!(
            "풀         aurora  {POOL}\n\
             스튜디오   amber  {STUDIO}\n\
             노드       ws-01  {NODE}\n\
             관리자 키  /data/keys/admin.key  (암호로 잠김)\n\
             복구 코드  smrec1-abcd\n\
             ComfyUI    http://127.0.0.1:8188  0.3.60  (scenemesh.toml에 없음)\n"
        )
    );
    assert_eq!(
        ran.err,
        "복구 코드는 두 번째 관리자 키입니다. 다시 보여 드리지 않으니 지금 적어 두세요\n\
         http://127.0.0.1:8188에서 ComfyUI가 응답합니다. 렌더링에 쓰려면 scenemesh.toml에 아래 내용을 넣고 데몬을 다시 시작하세요:\n\
         [[comfyui]]\n\
         url = \"http://127.0.0.1:8188\"\n\
         다음: 다른 컴퓨터를 부르려면 scenemesh invite\n"
    );
    let heard = sandbox.heard("POST /v1/init");
    assert_eq!(heard[0].json()["passphrase"], json!(null));
    assert_eq!(heard[0].headers["accept-language"], "ko");
}

#[tokio::test]
async fn init_asks_nobody_for_a_passphrase_when_nobody_is_there() {
    let sandbox = Sandbox::new().await;
    let ran = sandbox.run(&["init", "--pool", "aurora", "--studio", "amber", "--name", "ws-01"]).await;
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error: a passphrase is needed, and there is no terminal to ask for it\n\
         hint: write it to a file and pass --passphrase-file FILE\n"
    );
}

#[tokio::test]
async fn an_invite_is_a_code_and_four_words() {
    let sandbox = Sandbox::new().await;
    sandbox.says(
        "POST /v1/invite",
        json!({ "code": "smesh1abc", "check": "amber fox ledger nine", "expires_ms": 1_795_438_800_000_u64,
                "new_studio": "birch", "pending": 1 }),
    );
    let ran = sandbox.run(&["invite", "--new-studio", "birch", "--expires", "2h", "--json"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        "{\"schema\":\"invite/1\",\"ok\":true,\"code\":\"smesh1abc\",\"check\":\"amber fox ledger nine\",\
         \"expires_ms\":1795438800000,\"new_studio\":\"birch\",\"pending\":1,\"error\":null}\n"
    );
    assert_eq!(
        sandbox.heard("POST /v1/invite")[0].json(),
        json!({ "roles": [], "new_studio": "birch", "expires_s": 7200, "passphrase": null, "unlock": false })
    );
    let ran = sandbox.run(&["invite"]).await;
    assert_eq!(
        ran.out,
        "code         smesh1abc\n\
         check words  amber fox ledger nine\n\
         new studio   birch\n\
         expires      2026-11-23T13:00:00Z\n"
    );
    assert_eq!(ran.err, "next, on the other machine: scenemesh join smesh1abc\n");
}

#[tokio::test]
async fn a_sealed_admin_key_needs_its_passphrase() {
    let sandbox = Sandbox::new().await;
    sandbox.fails("POST /v1/invite", 403, "passphrase_needed", "the admin key is sealed", "give it");
    let ran = sandbox.run(&["invite"]).await;
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error: a passphrase is needed, and there is no terminal to ask for it\n\
         hint: write it to a file and pass --passphrase-file FILE\n"
    );
}

fn preview() -> serde_json::Value {
    json!({ "pool": POOL, "inviter": NODE, "check": "amber fox ledger nine", "addresses": ["/ip4/10.0.0.1/tcp/7873"] })
}

fn joined(state: &str) -> serde_json::Value {
    json!({
        "state": state, "pool": POOL, "pool_name": "aurora", "studio_name": "amber", "node": NODE,
        "name": "ws-02", "signatures_missing": 1, "peers_up": 3, "notes": [],
        "comfyui": [{ "url": "http://127.0.0.1:8188", "configured": true, "version": "0.3.60", "trouble": null }],
    })
}

#[tokio::test]
async fn join_asks_first_and_goes_on_with_yes() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/join/preview", preview()).says("POST /v1/join", joined("joined"));
    let ran = sandbox.run(&["join", "smesh1abc"]).await;
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        format!(
            "pool     {POOL}\n\
             inviter  {NODE}\n\
             check    amber fox ledger nine\n\
             the inviter must read out the same words\n\
             error: this needs a yes, and there is no terminal to ask\n\
             hint: add --yes to mean it\n"
        )
    );
    assert!(sandbox.heard("POST /v1/join").is_empty());

    let ran = sandbox.run(&["join", "smesh1 abc\n", "--name", "ws-02", "--yes"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        format!(
            "pool     aurora  {POOL}\n\
             studio   amber\n\
             node     ws-02  {NODE}\n\
             ComfyUI  http://127.0.0.1:8188  0.3.60\n"
        )
    );
    assert_eq!(ran.err, "asking …5v1m3XyZ at /ip4/10.0.0.1/tcp/7873\njoined; peers up: 3\n");
    assert_eq!(
        sandbox.heard("POST /v1/join")[0].json(),
        json!({ "code": "smesh1abc", "name": "ws-02", "passphrase": null, "no_passphrase": false })
    );
}

#[tokio::test]
async fn a_join_may_have_to_wait() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/join/preview", preview());
    sandbox
        .says("POST /v1/join", joined("awaiting_approval"))
        .says("POST /v1/join", joined("awaiting_unlock"));
    let ran = sandbox.run(&["join", "smesh1abc", "--yes", "--json"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(ran.json()["state"], "awaiting_approval");
    assert!(ran.err.contains("waits for signatures of other studios: 1 missing"), "{}", ran.err);

    let ran = sandbox.run(&["join", "smesh1abc", "--yes", "--json"]).await;
    assert_eq!(ran.code, 6);
    assert_eq!(ran.json()["error"]["code"], "invite_locked");
    assert_eq!(ran.json()["ok"], false);
    assert!(ran.err.ends_with("hint: on the inviting machine: scenemesh invite --unlock\n"), "{}", ran.err);
}

fn pool() -> serde_json::Value {
    json!({
        "pool": POOL, "name": "aurora", "epoch": 3,
        "studios": [
            { "id": STUDIO, "name": "amber", "weight": 1, "admins": 2, "mine": true },
            { "id": "00000000000000000000000000000003", "name": "birch", "weight": 2, "admins": 1, "mine": false },
        ],
        "members": [
            { "node": NODE, "name": "ws-01", "studio": "amber", "roles": ["submit", "render"], "me": true },
        ],
        "proposals": [{
            "id": "aa00000000000000000000000000000000000000000000000000000000000000", "short": "aa000000", "epoch": 4,
            "change": "adds the studio cedar", "signed_by": ["birch"], "signatures_missing": 1, "mine": false,
        }],
        "invites": [], "unlocked": true, "warnings": ["a clock is wrong"],
    })
}

#[tokio::test]
async fn pool_shows_and_approves() {
    let sandbox = Sandbox::new().await;
    sandbox.says("GET /v1/pool", pool());
    let ran = sandbox.run(&["pool"]).await;
    assert_eq!(
        ran.out,
        format!(
            "pool   aurora  {POOL}\n\
             epoch  3\n\
             \n\
             STUDIO   ID        WEIGHT  ADMINS\n\
             amber *  00000000  1       2\n\
             birch    00000000  2       1\n\
             \n\
             NODE     STUDIO  ROLES          ID\n\
             ws-01 *  amber   submit,render  {NODE}\n\
             \n\
             CHANGE    WHAT                   SIGNED BY  MISSING\n\
             aa000000  adds the studio cedar  birch      1\n"
        )
    );
    assert_eq!(ran.err, "next: scenemesh pool approve signs a change\na clock is wrong\n");

    let mut signed = pool()["proposals"][0].clone();
    signed["signatures_missing"] = json!(0);
    sandbox.says("POST /v1/pool/approve", json!({ "proposal": signed, "in_force": true }));
    let ran = sandbox.run(&["pool", "approve", "AA00"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "signed, and in force: adds the studio cedar\n"));
    assert_eq!(
        sandbox.heard("POST /v1/pool/approve")[0].json(),
        json!({ "proposal": "aa00", "passphrase": null })
    );
}

fn peer(name: &str, link: &str, more: serde_json::Value) -> serde_json::Value {
    let mut peer = json!({
        "node": NODE, "name": name, "studio": "amber", "link": link, "why": null, "address": null, "rtt_us": null,
        "agent": null, "skew_ms": null, "availability": null, "hygiene": null, "slots_total": 0, "slots_free": 0,
        "queue": 0, "gpus": [], "models": null, "comfyui": null, "last_seen_ms": null,
    });
    peer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer
}

#[tokio::test]
async fn peers_in_a_table_that_lines_up() {
    let sandbox = Sandbox::new().await;
    let gpu =
        |free: u32| json!({ "name": "NVIDIA GeForce RTX 4090", "vram_mib": 24_576, "vram_free_mib": free });
    let up = json!({
        "address": "/ip4/10.0.0.2/tcp/7872", "rtt_us": 340, "slots_total": 1, "slots_free": 1, "models": 38,
        "availability": "available", "gpus": [gpu(22_630)],
    });
    let busy = json!({
        "address": "/ip4/10.0.0.3/tcp/7872", "rtt_us": 18_200, "slots_total": 2, "queue": 4, "models": 51,
        "availability": "available", "gpus": [gpu(2048), gpu(1024)],
    });
    let refused = json!({ "why": "speaks protocol 2, this node 1; upgrade one of them" });
    sandbox.says(
        "GET /v1/peers",
        json!({ "peers": [
            peer("ws-02", "up", up),
            peer("버치-1", "up", busy),
            peer("old-7", "refused", refused),
            peer("desk", "down", json!({})),
        ]}),
    );
    let ran = sandbox.run(&["peers"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        "NAME    STUDIO  STATE        GPU          VRAM FREE/ALL  MODELS  PATH                    RTT    SEEN\n\
         ws-02   amber   idle 1/1     RTX 4090     22.1/24.0      38      /ip4/10.0.0.2/tcp/7872  0.3ms  now\n\
         버치-1  amber   busy 2/2 q4  2x RTX 4090  3.0/48.0       51      /ip4/10.0.0.3/tcp/7872  18ms   now\n\
         old-7   amber   refused      -            -              -       -                       -      never\n  \
           speaks protocol 2, this node 1; upgrade one of them\n\
         desk    amber   away         -            -              -       -                       -      never\n"
    );
    let ran = sandbox.run_ko(&["peers"]).await;
    assert!(
        ran.out.starts_with("이름    스튜디오  상태            GPU          VRAM 여유/전체  모델  경로"),
        "{}",
        ran.out
    );
    assert_eq!(sandbox.run(&["peers", "--json"]).await.json()["peers"][0]["name"], "ws-02");
}

fn status(standing: &str, more: serde_json::Value) -> serde_json::Value {
    let mut status = json!({
        "version": "0.1.0", "uptime_s": 11_520, "data_dir": "/data", "standing": standing, "node": NODE,
        "name": null, "pool": null, "pool_name": null, "studio_name": null, "epoch": null, "why": null,
        "warnings": [], "peers_up": 0, "peers_total": 0, "listening": [], "porch": [], "slots": [], "gpus": [],
        "tasks_queued": 0, "tasks_running": 0,
    });
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    status
}

#[tokio::test]
async fn status_of_a_member_and_of_a_loner() {
    let sandbox = Sandbox::new().await;
    let member = json!({
        "name": "ws-01", "pool": POOL, "pool_name": "aurora", "studio_name": "amber", "epoch": 3,
        "peers_up": 2, "peers_total": 3, "listening": ["/ip4/10.0.0.1/tcp/7872"], "tasks_queued": 4, "tasks_running": 1,
        "slots": [{ "url": "http://127.0.0.1:8188", "state": "not_ready", "why": "connection refused", "task": null,
                    "comfyui": null, "models": 0, "hygiene": null }],
    });
    sandbox
        .says("GET /v1/status", status("member", member))
        .says("GET /v1/status", status("alone", json!({})));
    let ran = sandbox.run(&["status"]).await;
    assert_eq!(
        ran.out,
        format!(
            "daemon     scenemeshd 0.1.0, up 3h12m\n\
             data dir   /data\n\
             node       ws-01  {NODE}\n\
             pool       aurora  {POOL}\n\
             studio     amber\n\
             peers      2 of 3 peers up\n\
             listening  /ip4/10.0.0.1/tcp/7872\n\
             ComfyUI    http://127.0.0.1:8188  NOT READY  connection refused\n\
             tasks      1 running, 4 queued\n"
        )
    );
    let ran = sandbox.run_ko(&["status"]).await;
    assert_eq!(
        ran.out,
        format!(
            "데몬         scenemeshd 0.1.0, 실행한 지 3h12m\n\
             데이터 폴더  /data\n\
             노드         {NODE}\n\
             풀           없음\n\
             태스크       렌더링 중 0, 대기 0\n"
        )
    );
    assert_eq!(ran.err, "다음: scenemesh init으로 풀을 만들거나 scenemesh join CODE로 들어가세요\n");
}

#[tokio::test]
async fn leaving_says_who_heard_it() {
    let sandbox = Sandbox::new().await;
    sandbox.says("POST /v1/leave", json!({ "pool_name": "aurora", "told": 2 }));
    let ran = sandbox.run(&["leave"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "left aurora; peers told: 2\n"));
}

#[tokio::test]
async fn doctor_fails_when_something_is_wrong() {
    let sandbox = Sandbox::new().await;
    let check = |name: &str, state: &str, found: &str, hint: Option<&str>| json!({ "name": name, "state": state, "found": found, "hint": hint });
    let fine = check("disk", "ok", "200 GB free", None);
    let wrong = check("comfyui", "fail", "nothing answers", Some("start it"));
    sandbox.says("GET /v1/doctor", json!({ "checks": [fine, wrong] }));
    sandbox.says("GET /v1/doctor?peer=ws-02", json!({ "checks": [fine] }));
    let ran = sandbox.run(&["doctor"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.out,
        "ok     daemon   answers at http://[API]\n\
         ok     disk     200 GB free\n\
         wrong  comfyui  nothing answers\n                \
                         → start it\n"
    );
    assert_eq!(ran.err, "error: checks that failed: 1\nhint: each has an arrow with what to do\n");
    let ran = sandbox.run(&["--lang", "ko", "doctor"]).await;
    assert!(ran.out.starts_with("정상  데몬     "), "{}", ran.out);
    assert!(
        ran.out.contains("\n정상  디스크   200 GB free\n문제  ComfyUI  nothing answers\n"),
        "{}",
        ran.out
    );
    let ran = sandbox.run(&["doctor", "--peer", "ws-02", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["checks"][1]["name"]), (0, &json!("disk")));
}

#[tokio::test]
async fn top_is_printed_once_when_nobody_watches() {
    let sandbox = Sandbox::new().await;
    let member = json!({ "pool_name": "aurora", "peers_up": 1, "peers_total": 1, "tasks_running": 1 });
    let running = crate::sandbox::task(
        0,
        "running",
        json!({ "node": crate::sandbox::node("ws-02"),
                "progress": { "node": "3", "step": 10, "max": 20, "nodes_done": 2, "nodes_total": 4 } }),
    );
    sandbox.says("GET /v1/status", status("member", member));
    sandbox.says("GET /v1/peers", json!({ "peers": [] }));
    sandbox.says("GET /v1/jobs", json!({ "jobs": [crate::sandbox::job("running", &[running])] }));
    let ran = sandbox.run(&["top"]).await;
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.out,
        "aurora  1 of 1 peers up  1 running, 0 queued\n\
         \n\
         JOB       LABEL     TASK  STATE    NODE   PROGRESS\n\
         3fa9c1d2  keyframe  #0    running  ws-02  node 3 10/20  (2/4)\n"
    );
}
