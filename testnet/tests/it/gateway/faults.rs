//! What goes wrong in the mesh, as a client of ComfyUI sees it.

use anyhow::{Context, Result, bail, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

use super::{GATEWAY, kinds, knows_models, studio, tell};
use crate::comfyui_contract::subject::{Heard, Subject, fresh};

fn step(frame: &Heard) -> Option<u64> {
    frame.text().filter(|_| frame.is("progress")).and_then(|text| text["data"]["value"].as_u64())
}

/// The node that renders the only open job.
async fn renderer(mesh: &Cluster) -> Result<String> {
    eventually("somebody renders", || async {
        let jobs = mesh.ok("desk", &["jobs"]).await?;
        let id = jobs["jobs"][0]["job"].as_str().unwrap_or_default().to_owned();
        let shown = mesh.ok("desk", &["show", &id]).await?;
        let node = shown["tasks"][0]["node"].as_str().map(str::to_owned);
        Ok(node.ok_or(shown))
    })
    .await
}

#[test]
fn a_renderer_that_dies_is_followed_by_another_without_a_word_of_error() {
    tell(async |mesh| {
        let slow: &[&str] = &["--step-ms", "150"];
        let gateway = studio(mesh, GATEWAY, &[("amber", slow), ("birch", slow)]).await?;
        let client = fresh("client");
        let mut listener = gateway.listen(&client).await;
        let id = gateway.submit(&workflows::keyframe(CHECKPOINT, 3, 20, 64), &client).await;
        let mut frames = Vec::new();
        while frames.iter().filter_map(step).all(|step| step < 3) {
            frames.extend(listener.until("progress").await);
        }
        let first = renderer(mesh).await?;
        mesh.kill(&first).await?;
        let rest = listener.until_done(&id).await;
        let kinds = kinds(&rest);
        ensure!(
            !kinds.iter().any(|kind| kind == "execution_error" || kind == "execution_interrupted"),
            "{kinds:?}"
        );
        ensure!(!kinds.iter().any(|kind| kind == "execution_start"), "it began once: {kinds:?}");
        let steps: Vec<u64> = frames.iter().chain(&rest).filter_map(step).collect();
        ensure!(steps.windows(2).any(|pair| pair[1] < pair[0]), "progress begins again: {steps:?}");
        let entry = gateway.get(&format!("/history/{id}")).await.body[&id].clone();
        ensure!(entry["status"]["status_str"] == "success", "{entry:#}");
        Ok(())
    });
}

#[test]
fn a_prompt_waits_for_whoever_comes_and_survives_a_restart_of_its_gateway() {
    tell(async |mesh| {
        mesh.add_with("desk", Comfy::Absent, GATEWAY).await?;
        mesh.found("desk", "film", "oak").await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway")?);
        let client = fresh("client");
        let id = gateway.submit(&workflows::tiny(1), &client).await;
        let other = gateway.submit(&workflows::tiny(2), &client).await;
        ensure!(gateway.get("/prompt").await.body["exec_info"]["queue_remaining"] == 2, "both wait");
        let queue = gateway.get("/queue").await.body;
        ensure!(queue["queue_pending"][0][1] == id && queue["queue_running"] == json!([]), "{queue:#}");
        gateway.post("/queue", &json!({"delete": [other]})).await;
        ensure!(gateway.get("/history").await.body == json!({}), "what never began is in no history");

        mesh.kill("desk").await?;
        mesh.start("desk").await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway again")?);
        let queue = gateway.get("/queue").await.body;
        ensure!(queue["queue_pending"][0][1] == id && queue["queue_pending"][1].is_null(), "{queue:#}");
        let mut listener = gateway.listen(&client).await;
        let first = listener.next().await;
        ensure!(first.text().unwrap()["data"]["status"]["exec_info"]["queue_remaining"] == 1, "{first:?}");
        mesh.add("amber", Comfy::simulated(&[])).await?;
        mesh.admit("desk", "amber", None).await?;
        let frames = listener.until_done(&id).await;
        ensure!(frames.iter().any(|frame| frame.is("executed")), "{:?}", kinds(&frames));
        knows_models(&gateway, 1, CHECKPOINT).await
    });
}

#[test]
fn what_a_node_says_is_wrong_is_said_as_comfyui_says_it() {
    tell(async |mesh| {
        // Three nodes decide that it is the graph's own fault.
        let gateway = studio(mesh, GATEWAY, &[("amber", &[]), ("birch", &[]), ("cedar", &[])]).await?;
        ensure!(
            gateway.upload("/upload/image", "broken.png", b"no picture", &[]).await.status == 200,
            "any file"
        );
        let ran = gateway.run(&workflows::image_to_image("broken.png"), false).await;
        let error = ran.events("execution_error").first().context("an error")?.clone();
        ensure!(error["node_id"] == "1" && error["node_type"] == "LoadImage", "{error:#}");
        ensure!(error["exception_message"].as_str().is_some_and(|text| text.contains("image")), "{error:#}");
        let status = &ran.history[&ran.id]["status"];
        ensure!(status["status_str"] == "error" && status["completed"] == false, "{status:#}");
        let job = gateway.get("/api/jobs?status=failed").await.body["jobs"][0].clone();
        ensure!(job["id"] == ran.id && job["execution_error"]["node_id"] == "1", "{job:#}");

        // A graph that nobody can run is refused at once, as a ComfyUI would refuse it.
        let unknown = json!({"1": {"class_type": "NobodyHasThis", "inputs": {}}});
        let refused = gateway.post("/prompt", &json!({"prompt": unknown})).await;
        ensure!(refused.status == 400, "{refused:?}");
        let error = &refused.body["error"];
        ensure!(error["type"] == "invalid_prompt", "{error}");
        ensure!(error["message"] == "Cannot execute because node NobodyHasThis does not exist.", "{error}");
        ensure!(gateway.get("/queue").await.body["queue_pending"] == json!([]), "nothing is queued");
        Ok(())
    });
}

#[test]
fn a_prompt_that_cannot_be_written_down_is_no_job_and_a_file_without_a_job_goes() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &[])]).await?;
        let ran = gateway.run(&workflows::tiny(1), false).await;
        let prompts = mesh.node("desk").dir.join("gateway/prompts");
        let [written] = &std::fs::read_dir(&prompts)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?[..]
        else {
            bail!("one prompt has one file");
        };
        let mut record: Value = serde_json::from_slice(&std::fs::read(written)?)?;
        std::fs::rename(&prompts, prompts.with_extension("aside"))?;
        std::fs::write(&prompts, "no directory")?;
        let refused = gateway.post("/prompt", &json!({"prompt": workflows::tiny(2)})).await;
        ensure!(refused.status == 507 && refused.body["error"]["type"] == "not_written", "{refused:?}");
        let jobs = mesh.ok("desk", &["jobs"]).await?;
        ensure!(jobs["jobs"].as_array().map(Vec::len) == Some(1), "only the first: {jobs:#}");

        // As a kill between the file and the job leaves it: not ended, and a job that never was.
        std::fs::remove_file(&prompts)?;
        std::fs::rename(prompts.with_extension("aside"), &prompts)?;
        let fields = record.as_object_mut().context("a record is an object")?;
        fields.insert("job".into(), json!("0f".repeat(16)));
        fields.insert("ended".into(), Value::Null);
        mesh.kill("desk").await?;
        std::fs::write(written, record.to_string())?;
        mesh.start("desk").await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway")?);
        eventually("it is forgotten", || async {
            let queue = gateway.get("/queue").await.body;
            let empty = queue["queue_pending"] == json!([]) && queue["queue_running"] == json!([]);
            Ok(if empty && !written.exists() { Ok(()) } else { Err(queue) })
        })
        .await?;
        knows_models(&gateway, 1, CHECKPOINT).await?;
        let again =
            gateway.post("/prompt", &json!({"prompt": workflows::tiny(3), "prompt_id": ran.id})).await;
        ensure!(again.status == 200, "its id is free again: {again:?}");
        Ok(())
    });
}

#[test]
fn results_that_go_over_the_socket_arrive_there() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &[])]).await?;
        let mut graph = workflows::tiny(7);
        graph["3"] = json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}});
        let ran = gateway.run(&graph, false).await;
        let pictures: Vec<&Vec<u8>> = ran
            .frames
            .iter()
            .filter_map(|frame| match frame {
                Heard::Binary(bytes) => Some(bytes),
                Heard::Text(_) => None,
            })
            .collect();
        let [picture] = &pictures[..] else { anyhow::bail!("{} pictures", pictures.len()) };
        ensure!(picture.starts_with(b"\0\0\0\x01\0\0\0\x02\x89PNG"), "a whole PNG");
        ensure!(ran.outputs() == json!({}), "{}", ran.outputs());
        ensure!(ran.history[&ran.id]["status"]["completed"] == true, "{}", ran.history);
        Ok(())
    });
}

#[test]
fn a_gateway_that_is_killed_while_its_prompt_runs_has_it_when_it_is_back() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &["--step-ms", "100"])]).await?;
        let client = fresh("client");
        let mut listener = gateway.listen(&client).await;
        let id = gateway.submit(&workflows::keyframe(CHECKPOINT, 3, 20, 64), &client).await;
        listener.until("progress").await;
        mesh.kill("desk").await?;
        drop(listener);
        mesh.start("desk").await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("a gateway again")?);
        let mut listener = gateway.listen(&client).await;
        let file = eventually("the prompt ends", || async {
            let history = gateway.get(&format!("/history/{id}")).await.body;
            let file = history[&id]["outputs"]["9"]["images"][0].clone();
            Ok(if file.is_null() { Err(history) } else { Ok(file) })
        })
        .await?;
        let query = format!("/view?filename={}&subfolder={id}", file["filename"].as_str().unwrap());
        ensure!(gateway.get(&query).await.bytes.starts_with(b"\x89PNG"), "its picture is here");
        let frames = listener.until_done(&id).await;
        ensure!(frames.iter().any(|frame| frame.is("executed")), "{:?}", kinds(&frames));
        let ran = mesh.node("amber").comfy_log();
        let started = ran.iter().filter(|line| line["event"] == "started").count();
        ensure!(started == 1, "it ran once: {ran:?}");
        Ok(())
    });
}

/// A client that opens a socket and never reads it.
#[test]
fn who_reads_nothing_holds_up_nobody() {
    tell(async |mesh| {
        let gateway = studio(mesh, GATEWAY, &[("amber", &["--step-ms", "5"])]).await?;
        let deaf = fresh("deaf");
        let _never_read = gateway.listen(&deaf).await;
        let client = fresh("client");
        let mut listener = gateway.listen(&client).await;
        for seed in 0..4 {
            gateway.submit(&workflows::keyframe(CHECKPOINT, seed, 200, 512), &deaf).await;
        }
        let own = gateway.submit(&workflows::tiny(9), &client).await;
        listener.until_done(&own).await;
        let jobs = eventually("all of them end", || async {
            let jobs = gateway.get("/api/jobs?status=completed").await.body;
            Ok(if jobs["pagination"]["total"] == 5 { Ok(jobs) } else { Err(jobs) })
        });
        jobs.await.map(drop)
    });
}
