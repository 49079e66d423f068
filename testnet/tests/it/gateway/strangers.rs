//! Each client has its own, and nobody's web page has anything.

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster};
use scenemesh_testnet::workflows;
use serde_json::json;

use super::{kinds, studio, tell};
use crate::comfyui_contract::subject::{Subject, fresh};

const LEE: &str = "lee-has-this-token-0001";
const PARK: &str = "park-has-this-token-0002";

fn tokens() -> String {
    // The first listener, which tests ask before they know anybody, has none.
    format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n\n[[gateway.listener]]\nname = \"film\"\nlisten = \"127.0.0.1:PORT\"\n\
         class = \"batch\"\ntokens = {{ lee = \"{LEE}\", park = \"{PARK}\" }}\n"
    )
}

pub(super) async fn two(mesh: &mut Cluster, step_ms: &str) -> Result<(Subject, Subject, Subject)> {
    let port = scenemesh_testnet::port::Port::any()?;
    let config = tokens().replace("PORT", &port.address().port().to_string());
    let nobody =
        studio(mesh, &config, &[("amber", &["--step-ms", step_ms]), ("birch", &["--step-ms", step_ms])])
            .await?;
    let url = format!("http://{}", port.address());
    // Held until the daemon listens there.
    drop(port);
    Ok((nobody, Subject::with_token(&url, LEE), Subject::with_token(&url, PARK)))
}

#[test]
fn strangers_have_nothing_of_each_other() {
    tell(async |mesh| {
        let (nobody, lee, park) = two(mesh, "100").await?;
        let slow = workflows::keyframe(CHECKPOINT, 1, 200, 64);
        // The same ids on purpose: they are each one's own.
        let (client, id) = ("same-client", "0f9a3c1e-7d1b-4c55-9f6e-3a1c0b5d2e77");
        let mut lees = lee.listen(client).await;
        let mut parks = park.listen(client).await;
        for gateway in [&lee, &park] {
            let body = json!({"prompt": slow, "client_id": client, "prompt_id": id});
            let answer = gateway.post("/prompt", &body).await;
            ensure!(answer.status == 200, "{answer:?}");
        }
        lees.until("progress").await;
        parks.until("progress").await;
        let again = lee.post("/prompt", &json!({"prompt": slow, "prompt_id": id})).await;
        ensure!(again.status == 400 && again.body["error"]["type"] == "prompt_id_taken", "{again:?}");

        let waiting = lee.submit(&slow, client).await;
        let others = park.submit(&slow, "another").await;
        let queue = park.get("/queue").await.body;
        ensure!(!queue.to_string().contains(&waiting), "{queue:#}");
        let row = queue["queue_running"][0].as_array().context("a row")?.clone();
        ensure!(row.len() == 5 && row[1] == id && row[3]["client_id"] == client, "{row:?}");
        ensure!(
            nobody.get("/queue").await.body == json!({"queue_running": [], "queue_pending": []}),
            "another listener"
        );

        // Clearing and interrupting reach one's own only.
        ensure!(park.post("/queue", &json!({"delete": [waiting]})).await.status == 200, "said yes to");
        ensure!(park.post("/queue", &json!({"clear": true})).await.status == 200, "and");
        ensure!(!park.get("/queue").await.body.to_string().contains(&others), "park's own is gone");
        ensure!(lee.get("/queue").await.body.to_string().contains(&waiting), "lee's is not");
        let text = park.post_text("/interrupt", "null".to_owned()).await;
        ensure!(text.status == 200, "{text:?}");
        let frames = parks.until_done(id).await;
        ensure!(frames.iter().any(|frame| frame.is("execution_interrupted")), "{:?}", kinds(&frames));
        lees.until("progress").await;
        lees.until("progress").await;
        for path in [format!("/history/{id}"), "/history".to_owned()] {
            ensure!(lee.get(&path).await.body == json!({}), "{path}: lee's own runs still");
        }
        ensure!(
            park.get(&format!("/history/{id}")).await.body[id]["status"]["status_str"] == "error",
            "park's"
        );
        let cancelled = park.get("/api/jobs").await.body;
        ensure!(
            cancelled["jobs"][0]["status"] == "cancelled" && cancelled["pagination"]["total"] == 1,
            "{cancelled:#}"
        );

        // Files too.
        ensure!(lee.upload("/upload/image", "mine.png", b"lee's", &[]).await.status == 200, "an upload");
        for other in [&park, &nobody] {
            ensure!(other.get("/view?filename=mine.png&type=input").await.status == 404, "not anybody's");
            let load = json!({"prompt": workflows::image_to_image("mine.png")});
            ensure!(other.post("/prompt", &load).await.status == 400, "nor an input of others");
        }
        ensure!(lee.get("/view?filename=mine.png&type=input").await.bytes == b"lee's", "but one's own");

        // Cancelled by its id, as the newest clients do.
        let told = lee.post(&format!("/api/jobs/{id}/cancel"), &json!({})).await.body;
        ensure!(told == json!({"cancelled": true}), "{told}");
        lees.until_done(id).await;
        let told = lee.post("/api/jobs/cancel", &json!({"job_ids": [waiting, id]})).await.body;
        ensure!(told == json!({"cancelled": true}), "{told}");
        let told = lee.post(&format!("/api/jobs/{id}/cancel"), &json!({})).await.body;
        ensure!(told == json!({"cancelled": false}), "{told}");

        // A job of the mesh says whose it is, and how urgent.
        let jobs = mesh.ok("desk", &["jobs"]).await?;
        let job = &jobs["jobs"][0];
        ensure!(job["class"] == "batch" && (job["person"] == "lee" || job["person"] == "park"), "{job:#}");
        Ok(())
    });
}

#[test]
fn two_clients_of_one_listener_hear_their_own() {
    tell(async |mesh| {
        let (gateway, ..) = two(mesh, "60").await?;
        let (ours, others) = (fresh("ours"), fresh("others"));
        let (mut one, mut two) = (gateway.listen(&ours).await, gateway.listen(&others).await);
        two.send(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}})).await;
        ensure!(two.until("feature_flags").await.len() == 2, "status, then the flags");
        let first = gateway.submit(&workflows::keyframe(CHECKPOINT, 1, 20, 64), &ours).await;
        let second = gateway.submit(&workflows::keyframe(CHECKPOINT, 2, 20, 64), &others).await;
        let (heard, other) = tokio::join!(one.until_done(&first), two.until_done(&second));
        for (frames, id, event) in [(&heard, &first, 1_u8), (&other, &second, 4)] {
            let texts = frames.iter().filter_map(|frame| frame.text());
            let foreign: Vec<_> = texts
                .filter(|text| text["data"].get("prompt_id").is_some_and(|prompt| prompt != id.as_str()))
                .collect();
            ensure!(foreign.is_empty(), "{foreign:?}");
            let mut steps =
                frames.iter().filter(|frame| frame.is("progress")).filter_map(|frame| frame.text());
            ensure!(
                steps.all(|text| text["data"]["max"] == 20 && text["data"]["node"] == "3"),
                "of its own sampler"
            );
            let previews: Vec<_> = frames
                .iter()
                .filter_map(|frame| match frame {
                    crate::comfyui_contract::subject::Heard::Binary(bytes) => Some(bytes[3]),
                    _ => None,
                })
                .collect();
            ensure!(!previews.is_empty() && previews.iter().all(|kind| *kind == event), "{previews:?}");
        }
        // What counts is each one's own queue.
        let last =
            heard.iter().rev().find(|frame| frame.is("status")).and_then(|frame| frame.text()).unwrap();
        ensure!(last["data"]["status"]["exec_info"]["queue_remaining"] == 0, "{last}");

        // An interrupt with a client's name is for that client's prompt.
        let slow = |seed| workflows::keyframe(CHECKPOINT, seed, 300, 64);
        let (mine, its) = (gateway.submit(&slow(3), &ours).await, gateway.submit(&slow(4), &others).await);
        one.until("progress").await;
        two.until("progress").await;
        gateway.post("/interrupt", &json!({"client_id": others})).await;
        let frames = two.until_done(&its).await;
        ensure!(frames.iter().any(|frame| frame.is("execution_interrupted")), "{:?}", kinds(&frames));
        one.until("progress").await;
        gateway.post("/queue", &json!({"delete": [mine]})).await;
        gateway.post_text("/interrupt", String::new()).await;
        let frames = one.until_done(&mine).await;
        ensure!(frames.iter().any(|frame| frame.is("execution_interrupted")), "{:?}", kinds(&frames));
        Ok(())
    });
}

#[test]
fn no_web_page_and_nobody_without_a_token_may_ask() {
    tell(async |mesh| {
        let (open, lee, _) = two(mesh, "5").await?;
        for header in [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for path in
                ["/ws", "/queue", "/history", "/view?filename=a.png", "/object_info", "/api/jobs", "/nowhere"]
            {
                ensure!(open.get_with(path, header).await.status == 403, "{header:?} {path}");
            }
            for path in ["/prompt", "/queue", "/interrupt", "/free", "/upload/image", "/api/jobs/cancel"] {
                ensure!(open.post_with(path, header).await.status == 403, "POST {header:?} {path}");
            }
        }
        ensure!(
            open.get_with("/queue", ("sec-fetch-site", "same-origin")).await.status == 200,
            "our own page"
        );
        let url = mesh.node("desk").gateway().context("a gateway")?;
        ensure!(open.get_with("/queue", ("origin", &url)).await.status == 200, "our own page");
        let bare = Subject::at(&lee.url);
        for path in ["/queue", "/prompt", "/ws", "/features", "/nowhere"] {
            ensure!(bare.get(path).await.status == 401, "{path}");
        }
        let wrong = Subject::with_token(&lee.url, "a-token-of-somebody-else");
        ensure!(wrong.get("/queue").await.status == 401, "a wrong token");
        for body in ["", "{oops", "[]", "{\"prompt\": [1]}", "{\"prompt\": {}}", "{}"] {
            let answer = open.post_text("/prompt", body.to_owned()).await;
            ensure!(answer.status == 400 && answer.body["error"]["type"].is_string(), "{body:?}: {answer:?}");
        }
        ensure!(open.post_text("/queue", "[".repeat(100_000)).await.status == 400, "nonsense");
        Ok(())
    });
}
