//! A renderer killed in the middle of a task that nobody wants any more when it comes back: afterwards nothing is left,
//! in ComfyUI's folders, history and queue, and in its own spool. Once per stage in which it can be killed.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::eventually::eventually;
use serde_json::{Value, json};

use super::life::{desk_and_renderer, everything_below, graph, plate, programs, samples, submit, tell};

/// The simulated ComfyUI beside the renderer.
struct Beside {
    url: String,
    http: reqwest::Client,
}

impl Beside {
    fn of(mesh: &Cluster) -> Self {
        let url = mesh.node("birch-01").comfy_url().unwrap().trim_end_matches('/').to_owned();
        Self { url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<()> {
        self.http.post(format!("{}{path}", self.url)).json(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Prompts of ours, by where they are.
    async fn prompts(&self, queue: &str) -> Result<usize> {
        let queues = self.get("/queue").await?;
        let rows = queues[queue].as_array().context("a queue")?;
        Ok(rows.iter().filter(|row| row[3].get("scenemesh").is_some()).count())
    }

    async fn remembered(&self) -> Result<usize> {
        let history = self.get("/history").await?;
        let entries = history.as_object().context("a history")?;
        Ok(entries.values().filter(|entry| entry["prompt"][3].get("scenemesh").is_some()).count())
    }
}

fn ours_in_comfy(mesh: &Cluster) -> Vec<std::path::PathBuf> {
    let folder = mesh.node("birch-01").comfy_dir();
    let folders = ["input", "output", "temp"].map(|name| everything_below(&folder.join(name)));
    folders.into_iter().flatten().collect()
}

/// Kills the renderer, cancels the job meanwhile, starts the renderer, and waits until nothing is left.
async fn is_swept(mesh: &mut Cluster, job: &str) -> Result<()> {
    mesh.kill("birch-01").await?;
    mesh.ok("desk", &["cancel", job]).await?;
    mesh.start("birch-01").await?;
    let beside = Beside::of(mesh);
    let spool = mesh.node("birch-01").dir.join("blobs");
    let mesh = &*mesh;
    eventually("nothing is left", || async {
        let left = (
            ours_in_comfy(mesh),
            beside.remembered().await?,
            beside.prompts("queue_running").await? + beside.prompts("queue_pending").await?,
            everything_below(&spool),
        );
        let clean = left.0.is_empty() && left.1 == 0 && left.2 == 0 && left.3.is_empty();
        Ok(if clean { Ok(()) } else { Err(left) })
    })
    .await?;
    // The next task finds a slot that is ready for it.
    let file = scenemesh_testnet::scenarios::graph_file(
        mesh.node("desk").dir.parent().unwrap(),
        "next.json",
        &scenemesh_testnet::workflows::tiny(9),
    )?;
    let next = mesh.ok("desk", &["submit", &file, "--reach", "pool", "--detach"]).await?;
    let next = next["job"].as_str().context("a job")?;
    mesh.job_until("desk", next, "the next one is done", |job| job["state"] == "done").await.map(drop)
}

#[test]
fn killed_while_uploading() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            // The second upload takes a while.
            let large = dir.join("large.png");
            plate(&large, 4000)?;
            let mut graph = graph(4);
            graph["30"] = json!({"class_type": "LoadImage", "inputs": {"image": "z_large.png"}});
            graph["31"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["30", 0]}});
            let input = format!("z_large.png={}", large.display());
            let job = submit(mesh, dir, &graph, &["--input", &input]).await?;
            let begun = || ours_in_comfy(mesh).iter().any(|path| path.is_file());
            let what = "an upload has begun";
            eventually(what, || async { Ok(if begun() { Ok(()) } else { Err(mesh.last_words()) }) }).await?;
            is_swept(mesh, &job).await
        })
    });
}

#[test]
fn killed_while_its_prompt_waits_behind_somebody_elses() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--step-ms", "100"]).await?;
            let beside = Beside::of(mesh);
            let checkpoint = scenemesh_testnet::cluster::CHECKPOINT;
            let theirs = scenemesh_testnet::workflows::keyframe(checkpoint, 1, 5000, 64);
            beside.post("/prompt", &json!({"prompt": theirs})).await?;
            let job = submit(mesh, dir, &graph(4), &[]).await?;
            eventually("it waits in the queue", || async {
                let waiting = beside.prompts("queue_pending").await?;
                Ok(if waiting == 1 { Ok(()) } else { Err(mesh.last_words()) })
            })
            .await?;
            mesh.kill("birch-01").await?;
            mesh.ok("desk", &["cancel", &job]).await?;
            mesh.start("birch-01").await?;
            eventually("it is taken out of the queue, and theirs is not", || async {
                let queue = beside.get("/queue").await?;
                let ours = beside.prompts("queue_pending").await?;
                let theirs = queue["queue_running"].as_array().map(Vec::len);
                let files = ours_in_comfy(mesh);
                let clean = ours == 0 && theirs == Some(1) && files.is_empty();
                Ok(if clean { Ok(()) } else { Err((ours, theirs, files)) })
            })
            .await?;
            beside.post("/interrupt", &json!({})).await?;
            let next = submit(mesh, dir, &graph(4), &[]).await?;
            mesh.job_until("desk", &next, "the next one is done", |job| job["state"] == "done")
                .await
                .map(drop)
        })
    });
}

#[test]
fn killed_while_sampling() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--step-ms", "100"]).await?;
            let job = submit(mesh, dir, &graph(5000), &["--full-hygiene"]).await?;
            mesh.job_until("desk", &job, "it samples", samples).await?;
            is_swept(mesh, &job).await?;
            // It was to leave nothing in the cache either.
            let freed = mesh.node("birch-01").comfy_log().iter().any(|line| line["event"] == "freed");
            ensure!(freed, "the cache was emptied");
            Ok(())
        })
    });
}

#[test]
fn killed_while_collecting() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let beside = Beside::of(mesh);
            let job = submit(mesh, dir, &many(), &[]).await?;
            eventually("it is in the history", || async {
                Ok(if beside.remembered().await? == 1 { Ok(()) } else { Err("not yet") })
            })
            .await?;
            is_swept(mesh, &job).await
        })
    });
}

/// From the moment that ComfyUI is clean the result is sealed here; whoever is killed then still has it, or had
/// delivered it, and in neither case is anything left.
#[test]
fn killed_while_sealing_and_delivering() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let beside = Beside::of(mesh);
            let job = submit(mesh, dir, &many(), &[]).await?;
            eventually("it has been in the history", || async {
                Ok(if beside.remembered().await? == 1 { Ok(()) } else { Err("not yet") })
            })
            .await?;
            eventually("it is forgotten", || async {
                Ok(if beside.remembered().await? == 0 { Ok(()) } else { Err("still there") })
            })
            .await?;
            ensure!(ours_in_comfy(mesh).is_empty(), "the files went before the entry");
            is_swept(mesh, &job).await
        })
    });
}

/// A graph whose pictures take a while to be collected.
fn many() -> Value {
    let mut graph = graph(2);
    graph["40"] = json!({"class_type": "EmptyImage", "inputs":
        {"width": 512, "height": 512, "batch_size": 60, "color": 7}});
    graph["41"] = json!({"class_type": "SaveImage", "inputs":
        {"images": ["40", 0], "filename_prefix": "many"}});
    graph
}

#[test]
fn files_of_another_node_are_not_swept() {
    tell(programs(), |mesh, _| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            mesh.kill("birch-01").await?;
            let theirs =
                mesh.node("birch-01").comfy_dir().join("output/scenemesh/someoneelse-aaaaaaaa-1/x.png");
            std::fs::create_dir_all(theirs.parent().unwrap())?;
            std::fs::write(&theirs, "x")?;
            mesh.start("birch-01").await?;
            mesh.advert_seen("desk", "birch-01").await?;
            ensure!(Path::new(&theirs).exists(), "it is not ours to remove");
            Ok(())
        })
    });
}
