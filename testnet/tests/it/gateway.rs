//! The ComfyUI gateway of a node that has no ComfyUI: a mesh of real daemons renders for clients of ComfyUI.

mod clients;
mod contract;
mod faults;
mod frontend;
mod krita;
mod rucomfyui;
mod strangers;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::{story, workflows};
use serde_json::{Value, json};

use crate::comfyui_contract::subject::{Heard, Subject, fresh};

const GATEWAY: &str = "[gateway]\nlisten = \"127.0.0.1:0\"\n";

fn tell(story: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    story::tell(Programs::at(env!("CARGO_BIN_EXE_testnet")), async |mesh, _| story(mesh).await).unwrap();
}

/// A studio whose `desk` has the gateway and no ComfyUI, and whose other nodes have simulated ones.
async fn studio(mesh: &mut Cluster, config: &str, renderers: &[(&str, &[&str])]) -> Result<Subject> {
    mesh.add_with("desk", Comfy::Absent, config).await?;
    mesh.found("desk", "film", "oak").await?;
    for (name, arguments) in renderers {
        mesh.add(name, Comfy::simulated(arguments)).await?;
        mesh.admit("desk", name, None).await?;
    }
    mesh.all_up().await?;
    let subject = Subject::at(&mesh.node("desk").gateway().context("desk tells where its gateway is")?);
    knows_models(&subject, renderers.len(), CHECKPOINT).await?;
    Ok(subject)
}

/// Waits until the gateway shows the models, and as many devices, of all renderers.
async fn knows_models(subject: &Subject, renderers: usize, checkpoint: &str) -> Result<()> {
    eventually("the gateway knows what its studio has", || async {
        let models = subject.get("/models/checkpoints").await.body;
        let devices = subject.get("/system_stats").await.body["devices"].clone();
        let many = devices.as_array().map_or(0, Vec::len);
        let defined = subject.get("/object_info/KSampler").await.body["KSampler"]["input"].is_object();
        let has = models.as_array().is_some_and(|models| models.contains(&json!(checkpoint)));
        let all = has && many == renderers && defined;
        Ok(if all { Ok(()) } else { Err((models, devices, defined)) })
    })
    .await
}

/// Names of the nodes on which a prompt ran, by the logs of their ComfyUIs.
fn rendered_on(mesh: &Cluster) -> Vec<String> {
    let ran = |node: &&scenemesh_testnet::cluster::Node| {
        node.comfy_log().iter().any(|line| line["event"] == "finished" && line["outcome"] == "success")
    };
    mesh.nodes().filter(ran).map(|node| node.name.clone()).collect()
}

fn kinds(frames: &[Heard]) -> Vec<String> {
    let texts = frames.iter().map(|frame| match frame.text() {
        Some(text) => text["type"].as_str().unwrap_or_default().to_owned(),
        None => "binary".to_owned(),
    });
    let mut kinds: Vec<String> = texts.collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_client_of_comfyui_renders_on_another_machine() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &["--step-ms", "300"])]).await?;
        let client = fresh("client");
        let mut listener = gateway.listen(&client).await;
        let first = listener.next().await;
        ensure!(first.text().is_some_and(|text| text["data"]["sid"] == client), "{first:?}");
        let (id, graph) = ("0f9a3c1e-7d1b-4c55-9f6e-3a1c0b5d2e77", workflows::keyframe(CHECKPOINT, 7, 4, 64));
        let workflow = json!({"id": "w-1", "nodes": []});
        let body = json!({
            "prompt": graph, "client_id": client, "prompt_id": id,
            "extra_data": {"extra_pnginfo": {"workflow": workflow}, "auth_token_comfy_org": "CANARY-TOKEN"},
        });
        let answer = gateway.post("/api/prompt", &body).await;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.body == json!({"prompt_id": id, "number": 0, "node_errors": {}}), "{answer:?}");

        // History and bytes are there when the last frames come.
        let mut frames = listener.until("execution_success").await;
        let history = gateway.get(&format!("/history/{id}")).await.body;
        let entry = &history[id];
        ensure!(
            entry["status"]["completed"] == true && entry["status"]["status_str"] == "success",
            "{history:#}"
        );
        let file = entry["outputs"]["9"]["images"][0].clone();
        ensure!(file["subfolder"] == id && file["type"] == "output", "{file}");
        let query =
            format!("/view?filename={}&subfolder={id}&type=output", file["filename"].as_str().unwrap());
        let picture = gateway.get(&query).await;
        ensure!(picture.status == 200 && picture.content_type == "image/png", "{picture:?}");
        ensure!(picture.bytes.starts_with(b"\x89PNG"), "a picture");
        frames.extend(listener.until_done(id).await);

        let kinds = kinds(&frames);
        for wanted in [
            "execution_start",
            "execution_cached",
            "executing",
            "progress_state",
            "progress",
            "binary",
            "executed",
        ] {
            ensure!(kinds.iter().any(|kind| kind == wanted), "no {wanted} in {kinds:?}");
        }
        let order: Vec<&str> = kinds.iter().map(String::as_str).collect();
        ensure!(order.ends_with(&["execution_success", "status", "executing"]), "{order:?}");
        ensure!(
            order.iter().position(|kind| *kind == "execution_start")
                < order.iter().position(|kind| *kind == "progress"),
            "{order:?}"
        );
        let executed = frames.iter().find(|frame| frame.is("executed")).and_then(Heard::text).unwrap();
        ensure!(executed["data"]["output"]["images"][0] == file, "{executed}");

        // It ran over there, and is a job like any other here.
        ensure!(rendered_on(mesh) == ["amber"], "{:?}", rendered_on(mesh));
        let jobs = mesh.ok("desk", &["jobs"]).await?;
        let label = jobs["jobs"][0]["label"].as_str().unwrap_or_default();
        ensure!(label.contains(id) && jobs["jobs"][0]["reach"] == "studio", "{jobs:#}");

        // Ranges, pictures of another kind, and what is not there.
        let part = gateway.get_with(&query, ("range", "bytes=0-7")).await;
        ensure!(part.status == 206 && part.bytes == b"\x89PNG\r\n\x1a\n", "{part:?}");
        let tail = gateway.get_with(&query, ("range", "bytes=-4")).await;
        ensure!(tail.bytes == picture.bytes[picture.bytes.len() - 4..], "{tail:?}");
        ensure!(
            gateway.get(&format!("{query}&preview=webp;90")).await.content_type == "image/webp",
            "as WebP"
        );
        ensure!(
            gateway.get(&format!("/api{query}&channel=rgb")).await.content_type == "image/png",
            "without alpha"
        );
        for (query, status) in [
            ("/view", 404),
            ("/view?filename=none.png", 404),
            ("/view?filename=../x", 400),
            ("/view?filename=a&type=x", 400),
            ("/view?filename=a.png&subfolder=../..", 403),
            ("/nowhere", 404),
            ("/models/nope", 404),
        ] {
            ensure!(gateway.get(query).await.status == status, "{query}");
        }

        // The newer clients' list says the same.
        let jobs = gateway.get("/api/jobs?status=completed&limit=5").await.body;
        let job = &jobs["jobs"][0];
        ensure!(job["id"] == id && job["status"] == "completed" && job["workflow_id"] == "w-1", "{jobs:#}");
        ensure!(
            job["preview_output"]["filename"] == file["filename"] && job["outputs_count"] == 1,
            "{jobs:#}"
        );
        ensure!(
            jobs["pagination"] == json!({"offset": 0, "limit": 5, "total": 1, "has_more": false}),
            "{jobs:#}"
        );
        let detail = gateway.get(&format!("/api/jobs/{id}")).await.body;
        ensure!(
            detail["outputs"]["9"]["images"][0] == file && detail["workflow"]["prompt"]["3"].is_object(),
            "{detail:#}"
        );
        ensure!(gateway.get("/api/jobs?status=nonsense").await.status == 400, "a bad status");
        ensure!(gateway.get("/api/jobs/none").await.status == 404, "an unknown job");

        // Logins at comfy.org are kept nowhere.
        for node in mesh.nodes() {
            ensure!(!node.log().contains("CANARY-TOKEN"), "{} logs it", node.name);
        }
        ensure!(!history.to_string().contains("CANARY-TOKEN"), "{history}");
        Ok(())
    });
}

/// The name of a prompt's only picture, as `/view` takes it.
async fn only_picture(gateway: &Subject, id: &str) -> Value {
    gateway.get(&format!("/history/{id}")).await.body[id]["outputs"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()["images"][0]
        .clone()
}

#[test]
fn uploads_and_earlier_results_are_inputs_also_after_a_restart() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &[])]).await?;
        let run = async |gateway: &Subject, graph: &Value| {
            let client = fresh("client");
            let mut listener = gateway.listen(&client).await;
            let id = gateway.submit(graph, &client).await;
            listener.until_done(&id).await;
            id
        };
        let first = run(&gateway, &workflows::tiny(0x0000_ff00)).await;
        let made = only_picture(&gateway, &first).await;
        let name = format!("{first}/{} [output]", made["filename"].as_str().unwrap());
        let again = run(&gateway, &workflows::image_to_image(&name)).await;
        let inverted = only_picture(&gateway, &again).await;

        // Uploads are named, renamed and listed as ComfyUI does it.
        let query = |file: &Value| {
            let part = |name: &str| file[name].as_str().unwrap().to_owned();
            format!(
                "/view?filename={}&subfolder={}&type={}",
                part("filename"),
                part("subfolder"),
                part("type")
            )
        };
        let bytes = gateway.get(&query(&inverted)).await.bytes;
        let upload = async |gateway: &Subject, bytes: &[u8], fields: &[(&str, String)]| {
            gateway.upload("/upload/image", "plate.png", bytes, fields).await.body["name"].clone()
        };
        ensure!(upload(&gateway, &bytes, &[]).await == "plate.png", "under its name");
        ensure!(upload(&gateway, &bytes, &[]).await == "plate.png", "the same bytes once");
        ensure!(upload(&gateway, b"other", &[]).await == "plate (1).png", "other bytes under another");
        let in_folder = [("subfolder", "scene/1".to_owned())];
        ensure!(upload(&gateway, &bytes, &in_folder).await == "plate.png", "in a folder of its own");
        let escape =
            gateway.upload("/upload/image", "x.png", b"x", &[("subfolder", "../../x".to_owned())]).await;
        ensure!(escape.status == 400, "{escape:?}");
        ensure!(gateway.post_text("/upload/image", String::new()).await.status == 400, "no form");
        run(&gateway, &workflows::image_to_image("scene/1/plate.png")).await;

        // Mask and picture become one file, whose texts stay.
        let alpha = gateway.get(&format!("{}&channel=a", query(&made))).await.bytes;
        let masked =
            gateway.upload("/upload/mask", "masked.png", &alpha, &[("original_ref", made.to_string())]).await;
        ensure!(masked.status == 200 && masked.body["name"] == "masked.png", "{masked:?}");
        let stored = gateway.get("/view?filename=masked.png&type=input").await.bytes;
        ensure!(stored.windows(6).any(|part| part == b"prompt"), "the original's texts stay");

        let missing =
            gateway.post("/prompt", &json!({"prompt": workflows::image_to_image("absent.png")})).await;
        ensure!(missing.status == 400, "{missing:?}");
        let error = &missing.body["node_errors"]["1"]["errors"][0];
        ensure!(error["details"] == "image - Invalid image file: absent.png", "{error}");

        mesh.kill("desk").await?;
        mesh.start("desk").await?;
        mesh.all_up().await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway again")?);
        knows_models(&gateway, 1, CHECKPOINT).await?;
        ensure!(gateway.get(&query(&inverted)).await.bytes == bytes, "results are where they were");
        ensure!(gateway.get("/view?filename=plate.png&type=input").await.bytes == bytes, "uploads too");
        let history = gateway.get("/history").await.body;
        ensure!(
            history.as_object().is_some_and(|all| all.len() == 3 && all.contains_key(&first)),
            "{history:#}"
        );
        let third = run(&gateway, &workflows::image_to_image(&name)).await;
        run(&gateway, &workflows::image_to_image("plate.png")).await;
        let newest = gateway.get("/history?max_items=1").await.body;
        ensure!(
            newest.as_object().is_some_and(|all| all.len() == 1 && !all.contains_key(&third)),
            "{newest:#}"
        );
        let numbers: Vec<i64> = gateway
            .get("/history")
            .await
            .body
            .as_object()
            .unwrap()
            .values()
            .map(|entry| entry["prompt"][0].as_i64().unwrap())
            .collect();
        ensure!(numbers == [0, 1, 2, 3, 4], "numbers go on: {numbers:?}");

        // Out of the history, a file can still be seen.
        gateway.post("/history", &json!({"delete": [first]})).await;
        ensure!(gateway.get(&format!("/history/{first}")).await.body == json!({}), "it is gone");
        ensure!(gateway.get(&query(&made)).await.status == 200, "its file is not");
        gateway.post("/history", &json!({"clear": true})).await;
        ensure!(gateway.get("/history").await.body == json!({}), "all are gone");
        Ok(())
    });
}

#[test]
fn what_belongs_to_whoever_sits_here_is_kept_or_is_the_comfyuis_beside_us() {
    tell(async |mesh| {
        // Without a ComfyUI the gateway keeps it.
        let port = scenemesh_testnet::port::Port::any()?;
        let config = format!(
            "{GATEWAY}\n[[gateway.listener]]\nname = \"film\"\nlisten = \"{}\"\ntokens = {{ lee = \"a-token-of-sixteen\" }}\n",
            port.address()
        );
        mesh.add_with("desk", Comfy::Absent, &config).await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway")?);
        let lee = Subject::with_token(&format!("http://{}", port.address()), "a-token-of-sixteen");
        ensure!(gateway.post("/api/settings", &json!({"Comfy.Theme": "dark"})).await.status == 200, "kept");
        ensure!(gateway.post_text("/api/settings/Other", "5".into()).await.status == 200, "kept");
        ensure!(gateway.get("/settings").await.body == json!({"Comfy.Theme": "dark", "Other": 5}), "both");
        ensure!(gateway.get("/api/settings/Other").await.body == 5, "one");
        ensure!(lee.get("/settings").await.body == json!({}), "another's are others");
        let saved = gateway
            .post_text("/api/userdata/workflows%2Fa.json?overwrite=false&full_info=true", "{}".into())
            .await;
        ensure!(saved.body["path"] == "workflows/a.json" && saved.body["size"] == 2, "{saved:?}");
        let again = gateway.post_text("/api/userdata/workflows%2Fa.json?overwrite=false", "{}".into()).await;
        ensure!(again.status == 409, "{again:?}");
        let listed =
            gateway.get("/api/userdata?dir=workflows&recurse=true&split=false&full_info=true").await.body;
        ensure!(listed[0]["path"] == "a.json", "{listed}");
        ensure!(gateway.get("/userdata/workflows%2Fa.json").await.body == json!({}), "as it was saved");
        ensure!(lee.get("/userdata/workflows%2Fa.json").await.status == 404, "not another's");
        let moved =
            gateway.post("/api/userdata/workflows%2Fa.json/move/workflows%2Fb.json", &json!({})).await;
        ensure!(moved.body == "workflows/b.json", "{moved:?}");
        ensure!(gateway.get("/userdata/workflows%2Fa.json").await.status == 404, "it went");
        ensure!(gateway.get("/userdata/..%2Fsettings.json").await.status == 403, "out of the folder");

        // With one, it is that one's; and whoever has a token has nothing of it.
        mesh.add_with(
            "birch",
            Comfy::simulated(&[]),
            &config.replace(&port.address().to_string(), "127.0.0.1:0"),
        )
        .await?;
        let gateway = Subject::at(&mesh.node("birch").gateway().context("a gateway")?);
        eventually("the ComfyUI beside it is up", || async {
            let users = gateway.get("/api/users").await.body;
            Ok(if users == json!({"storage": "server", "migrated": false}) { Ok(()) } else { Err(users) })
        })
        .await?;
        ensure!(gateway.get("/settings").await.body == json!({}), "its settings");
        let refused = gateway.post("/settings", &json!({"x": 1})).await;
        ensure!(refused.status == 405, "its own refusal: {refused:?}");
        mesh.kill_comfy("birch").await?;
        eventually("without it we answer again", || async {
            let users = gateway.get("/api/users").await.body;
            Ok(if users == json!({"storage": "server", "migrated": true}) { Ok(()) } else { Err(users) })
        })
        .await
    });
}
