//! Batches over real processes: varied inputs, workflows that go on with the results of others, tasks held back.
//! What came of them is read from the pictures on disk and from the log of the simulated ComfyUI.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::{finished, graph_file, one_studio, outputs, png_pixels};
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

type Story<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

fn tell(story: impl for<'a> FnOnce(&'a mut Cluster, &'a Path) -> Story<'a>) {
    story::tell(Programs::at(env!("CARGO_BIN_EXE_testnet")), async |mesh, dir| story(mesh, dir).await)
        .unwrap();
}

async fn desk_and_renderer(mesh: &mut Cluster, arguments: &[&str]) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(arguments)).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;
    mesh.advert_seen("desk", "ws-01").await
}

/// One plain colour, as it is.
fn plain() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}}
    })
}

fn pixels(job: &Value) -> Result<Vec<blake3::Hash>> {
    outputs(job).iter().map(|path| Ok(png_pixels(path)?.2)).collect()
}

async fn until(mesh: &Cluster, job: &str, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(what, || async {
        let shown = mesh.ok("desk", &["show", job]).await?;
        Ok(if good(&shown) { Ok(shown) } else { Err(shown) })
    })
    .await
}

fn states(job: &Value) -> Vec<&str> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(|task| task["state"].as_str()).collect()
}

/// Four colours are drawn and inverted, each is inverted once more, and what comes
/// out is what was put in; nothing was uploaded by anybody.
#[test]
fn results_go_on_as_inputs() {
    tell(|mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let draw = graph_file(dir, "draw.json", &workflows::tiny(0))?;
            let invert = graph_file(dir, "invert.json", &workflows::image_to_image("drawn.png"))?;
            let out = dir.join("out").display().to_string();
            let then = format!("{invert}:drawn.png=3");
            let vary = "1.color=0, 255, 65280, 16711680";
            let job =
                mesh.ok("desk", &["submit", &draw, "--vary", vary, "--then", &then, "--out", &out]).await?;
            ensure!(states(&job) == ["done"; 8], "{job:#}");
            ensure!(job["tasks"][1]["varied"]["1.color"] == 255, "{job:#}");
            let drawn = pixels(&job)?;

            let direct = graph_file(
                dir,
                "plain.json",
                &json!({
                    "1": {"class_type": "EmptyImage",
                          "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
                    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}}
                }),
            )?;
            let direct = mesh.ok("desk", &["submit", &direct, "--vary", vary, "--out", &out]).await?;
            ensure!(pixels(&direct)? == drawn[4..], "inverted twice is as it was");
            ensure!(drawn[..4].iter().all(|picture| !drawn[4..].contains(picture)), "once is not");
            ensure!(finished(mesh.node("ws-01")) == 12, "each was rendered once");
            // The third pair alone.
            let id = job["job"].as_str().context("an id")?;
            let two = dir.join("two").display().to_string();
            let fetched = mesh.ok("desk", &["fetch", &format!("{id}:2,6"), "--out", &two]).await?;
            ensure!(pixels(&fetched)? == [drawn[2], drawn[6]], "{fetched:#}");
            Ok(())
        })
    });
}

#[test]
fn a_cancelled_task_takes_along_what_builds_on_it_and_a_retry_brings_both_back() {
    tell(|mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let draw = graph_file(dir, "draw.json", &workflows::keyframe(CHECKPOINT, 1, 2, 64))?;
            let invert = graph_file(dir, "invert.json", &workflows::image_to_image("drawn.png"))?;
            let then = format!("{invert}:drawn.png=9");
            let job = mesh.ok("desk", &["submit", &draw, "--then", &then, "--detach"]).await?;
            let id = job["job"].as_str().context("an id")?.to_owned();
            mesh.ok("desk", &["cancel", &format!("{id}:0")]).await?;
            let ended = until(mesh, &id, "both are over", |job| job["state"] == "cancelled").await?;
            ensure!(states(&ended) == ["cancelled"; 2], "{ended:#}");
            ensure!(ended["tasks"][1]["waiting_code"] == "skipped", "{ended:#}");
            mesh.ok("desk", &["retry", &format!("{id}:1")]).await?;
            let done = until(mesh, &id, "both are done", |job| job["state"] == "done").await?;
            ensure!(states(&done) == ["done"; 2], "{done:#}");
            Ok(())
        })
    });
}

/// What waits is held back, whatever runs ends, and a power cut changes nothing of that.
#[test]
fn a_paused_batch_stands_still_until_it_is_resumed() {
    tell(|mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--step-ms", "20"]).await?;
            let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 1, 20, 64))?;
            let job = mesh.ok("desk", &["submit", &graph, "--count", "4", "--detach"]).await?;
            let id = job["job"].as_str().context("an id")?.to_owned();
            until(mesh, &id, "the first is at work", |job| states(job)[0] == "running").await?;
            mesh.ok("desk", &["pause", &id]).await?;
            mesh.kill("desk").await?;
            mesh.start("desk").await?;
            mesh.all_up().await?;
            let first = until(mesh, &id, "the first is done", |job| states(job)[0] == "done").await?;
            for task in 1..4 {
                ensure!(first["tasks"][task]["waiting_code"] == "paused", "{first:#}");
            }
            let why = mesh.ok("desk", &["why", &id]).await?;
            ensure!(why["code"] == "paused", "{why:#}");
            mesh.ok("desk", &["resume", &format!("{id}:2..3")]).await?;
            let more = until(mesh, &id, "two more are done", |job| states(job)[2..] == ["done"; 2]).await?;
            ensure!(states(&more)[1] == "queued", "{more:#}");
            ensure!(finished(mesh.node("ws-01")) == 3, "the second did not run");
            let again = mesh.cli("desk", &["resume", &format!("{id}:2..3")]).await?;
            ensure!(again.code != 0, "nothing of these is paused");
            mesh.ok("desk", &["resume", &id]).await?;
            until(mesh, &id, "all are done", |job| job["state"] == "done").await?;
            ensure!(finished(mesh.node("ws-01")) == 4, "each ran once");
            Ok(())
        })
    });
}

/// What cannot be a batch is refused before anything is queued, in words.
#[test]
fn what_cannot_be_a_batch_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let draw = graph_file(dir, "draw.json", &plain())?;
            let invert = graph_file(dir, "invert.json", &workflows::image_to_image("drawn.png"))?;
            let key = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 1, 2, 64))?;
            let stage = |feed: &str| format!("{invert}:{feed}");
            let wrong = [
                (vec!["--vary", "7.color=1..3"], "no node \"7\""),
                (vec!["--vary", "1.color=red,blue"], "number"),
                (vec!["--vary", "1.color=1..200", "--vary", "1.width=1..200"], "40000"),
                (vec!["--vary", "1.color=1", "--vary", "1.color=2"], "varied twice"),
            ];
            for (arguments, said) in wrong {
                let arguments = [vec!["submit", &draw, "--detach"], arguments].concat();
                let answer = mesh.cli("desk", &arguments).await?;
                ensure!(answer.code != 0 && answer.stderr.contains(said), "{arguments:?}: {}", answer.stderr);
            }
            let stages = [
                (stage("drawn.png=7"), "no such node"),
                (stage("other.png=2"), "drawn.png"),
                (stage("drawn.png=2,drawn{i}.png=2"), "drawn0.png"),
            ];
            for (then, said) in stages {
                let answer = mesh.cli("desk", &["submit", &draw, "--then", &then, "--detach"]).await?;
                ensure!(answer.code != 0 && answer.stderr.contains(said), "{then}: {}", answer.stderr);
            }
            let models = ["submit", &key, "--vary", "4.ckpt_name=nobody.safetensors,none.safetensors", "-d"];
            let answer = mesh.cli("desk", &models).await?;
            ensure!(answer.code != 0 && answer.stderr.contains("nobody.safetensors"), "{}", answer.stderr);
            let jobs = mesh.ok("desk", &["jobs"]).await?;
            ensure!(jobs["jobs"] == json!([]), "nothing was queued: {jobs:#}");
            Ok(())
        })
    });
}

const SOLO: [&str; 9] =
    ["init", "--solo", "--pool", "home", "--studio", "home", "--name", "desk", "--no-passphrase"];

/// Nobody else is there to try it: the job ends with the reason instead of waiting for ever.
#[test]
fn what_the_only_comfyui_fails_is_over() {
    tell(|mesh, dir| {
        Box::pin(async move {
            mesh.add("desk", Comfy::simulated(&["--fault", "oom*1"])).await?;
            mesh.ok("desk", &SOLO).await?;
            let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 1, 2, 64))?;
            let failed = mesh.cli("desk", &["submit", &graph]).await?;
            ensure!(failed.code == 1 && failed.json["state"] == "failed", "{}", failed.stderr);
            let failures = failed.json["tasks"][0]["failures"].as_array().context("failures")?;
            ensure!(failures.len() == 1 && failures[0]["class"] == "out_of_memory", "{}", failed.json);
            let id = failed.json["job"].as_str().context("an id")?;
            mesh.ok("desk", &["retry", id]).await?;
            until(mesh, id, "it is done", |job| job["state"] == "done").await.map(drop)
        })
    });
}

/// A black picture and half a file are no error to ComfyUI. They are kept and said to be suspect, or rendered elsewhere.
#[test]
fn pictures_that_look_wrong_are_said_to_be_or_rendered_elsewhere() {
    tell(|mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--fault", "black*1"]).await?;
            let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 1, 2, 64))?;
            let out = dir.join("out").display().to_string();
            let mut told = Vec::new();
            for seed in ["3.seed=1", "3.seed=2", "3.seed=3"] {
                if seed == "3.seed=3" {
                    mesh.kill_comfy("ws-01").await?;
                    mesh.restart_comfy_with("ws-01", &["--fault", "corrupt*1"]).await?;
                }
                let job = mesh.ok("desk", &["submit", &graph, "--set", seed, "--out", &out]).await?;
                told.push(job["tasks"][0]["outputs"][0]["suspect"].clone());
            }
            ensure!(told == [json!("uniform"), Value::Null, json!("undecodable")], "{told:?}");
            mesh.kill_comfy("ws-01").await?;
            mesh.restart_comfy_with("ws-01", &["--fault", "black"]).await?;
            mesh.add("ws-02", Comfy::simulated(&[])).await?;
            mesh.admit("desk", "ws-02", None).await?;
            mesh.all_up().await?;
            mesh.kill("ws-02").await?;
            let wary = ["submit", &graph, "--set", "3.seed=4", "--on-suspect", "retry", "--detach"];
            let job = mesh.ok("desk", &wary).await?;
            let id = job["job"].as_str().context("an id")?.to_owned();
            let first = |job: &Value| job["tasks"][0]["failures"][0]["class"] == "suspect";
            until(mesh, &id, "the first picture is not taken", first).await?;
            mesh.start("ws-02").await?;
            let done = until(mesh, &id, "it is rendered elsewhere", |job| job["state"] == "done").await?;
            ensure!(done["tasks"][0]["node"] == "ws-02", "{done:#}");
            ensure!(done["tasks"][0]["outputs"][0]["suspect"].is_null(), "{done:#}");
            Ok(())
        })
    });
}

/// Three machines' tasks fail on one, which then leaves others' alone; mended, it finds out by itself.
#[test]
fn a_machine_on_which_everything_fails_parks_itself_until_it_is_well() {
    tell(|mesh, dir| {
        Box::pin(async move {
            mesh.add("desk", Comfy::Absent).await?;
            mesh.add("desk-2", Comfy::Absent).await?;
            mesh.add("desk-3", Comfy::Absent).await?;
            mesh.add("ws-01", Comfy::simulated(&["--fault", "oom"])).await?;
            one_studio(mesh, "desk", &["desk-2", "desk-3", "ws-01"]).await?;
            let graph = graph_file(dir, "key.json", &workflows::keyframe(CHECKPOINT, 1, 2, 64))?;
            for desk in ["desk", "desk-2", "desk-3"] {
                mesh.advert_seen(desk, "ws-01").await?;
                let job = mesh.ok(desk, &["submit", &graph, "--detach"]).await?;
                let id = job["job"].as_str().context("an id")?.to_owned();
                eventually("it has failed", || async {
                    let shown = mesh.ok(desk, &["show", &id]).await?;
                    let class = &shown["tasks"][0]["failures"][0]["class"];
                    Ok(if class == "out_of_memory" { Ok(()) } else { Err(shown) })
                })
                .await?;
                mesh.cli(desk, &["cancel", &id]).await?;
            }
            let status = mesh.ok("ws-01", &["status"]).await?;
            let parked = status["slots"][0]["parked"].as_str().context("it is parked")?;
            ensure!(parked.contains("tasks of 3 nodes failed there"), "{status:#}");
            let doctor = mesh.cli("ws-01", &["doctor"]).await?;
            ensure!(doctor.json["checks"].to_string().contains("\"parked\""), "{}", doctor.json);
            let job = mesh.ok("desk", &["submit", &graph, "--set", "3.seed=9", "--detach"]).await?;
            let id = job["job"].as_str().context("an id")?.to_owned();
            eventually("why says so", || async {
                let told = mesh.ok("desk", &["why", &id]).await?;
                let why = told["why"].as_str().unwrap_or_default();
                Ok(if why.contains("ws-01") && why.contains("it parked itself") { Ok(()) } else { Err(told) })
            })
            .await?;
            mesh.kill_comfy("ws-01").await?;
            mesh.restart_comfy_with("ws-01", &[]).await?;
            let done = until(mesh, &id, "it is done", |job| job["state"] == "done").await?;
            ensure!(done["tasks"][0]["attempts"] == 1, "{done:#}");
            let status = mesh.ok("ws-01", &["status"]).await?;
            ensure!(status["slots"][0]["parked"].is_null(), "{status:#}");
            Ok(())
        })
    });
}
