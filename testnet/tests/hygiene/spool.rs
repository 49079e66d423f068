//! A node that renders for others holds nothing of theirs but ciphertext: not while it renders, not after, not when it
//! is killed. A node that submits holds its own graph in its own journal, and nothing readable in its spool.

use anyhow::ensure;

use super::life::{
    JOB, PERSON, PIXELS, PLATE, PROMPT, SHOT, desk_and_renderer, everything_below, graph, holding,
    holds_none, programs, samples, submit, tell,
};

const ALL: [&str; 6] = [PROMPT, PLATE, PIXELS, SHOT, JOB, PERSON];

#[test]
fn a_renderer_holds_ciphertext_only_at_any_time() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--step-ms", "150"]).await?;
            let renderer = mesh.node("birch-01").dir.clone();
            let job = submit(mesh, dir, &graph(30), &[]).await?;
            mesh.job_until("desk", &job, "it samples", samples).await?;
            ensure!(everything_below(&renderer.join("blobs")).len() > 1, "the plate lies there, sealed");
            holds_none(&renderer, &ALL, "while it renders")?;
            mesh.kill("birch-01").await?;
            holds_none(&renderer, &ALL, "killed while it renders")?;
            mesh.start("birch-01").await?;
            mesh.job_until("desk", &job, "it is done", |job| job["state"] == "done").await?;
            holds_none(&renderer, &ALL, "when it is done")?;

            // The desk is the owner's own machine: its journal holds the task, its spool and index do not.
            let desk = mesh.node("desk").dir.clone();
            ensure!(!holding(&desk.join("journal"), PROMPT).is_empty(), "the search finds what is there");
            for folder in ["blobs", "index"] {
                holds_none(&desk.join(folder), &ALL, "at the desk")?;
            }
            Ok(())
        })
    });
}

/// Every ComfyUI writes the whole graph into its pictures: that goes to whoever asked for them, and to nobody else.
#[test]
fn what_pictures_say_of_their_making_reaches_their_owner_only() {
    tell(programs(), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let out = dir.join("out");
            let mut pictures = Vec::new();
            for (node, words) in [("desk", PROMPT), ("birch-01", "canarybirch a grey heron")] {
                let mut graph =
                    scenemesh_testnet::workflows::keyframe(scenemesh_testnet::cluster::CHECKPOINT, 42, 4, 64);
                graph["6"]["inputs"]["text"] = serde_json::json!(words);
                let file = scenemesh_testnet::scenarios::graph_file(dir, &format!("{node}.json"), &graph)?;
                let to = out.join(node).display().to_string();
                let job = mesh.ok(node, &["submit", &file, "--reach", "pool", "--out", &to]).await?;
                ensure!(job["state"] == "done", "{job:#}");
                let saved = scenemesh_testnet::scenarios::outputs(&job);
                pictures.push(std::fs::read(&saved[0])?);
            }
            let base = mesh.node("birch-01").comfy_dir().display().to_string();
            for (mine, theirs, picture) in
                [(PROMPT, "canarybirch", &pictures[0]), ("canarybirch", PROMPT, &pictures[1])]
            {
                ensure!(super::life::holds(picture, mine), "it tells its owner how it was made");
                ensure!(!super::life::holds(picture, theirs), "it tells nothing of the other task");
                ensure!(!super::life::holds(picture, &base), "it names no directory of the renderer");
            }
            holds_none(&mesh.node("birch-01").dir, &[PROMPT], "after both")
        })
    });
}
