//! The only node that has what it takes says no: the task waits, `why` says why, and it runs when the answer changes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{graph_file, one_studio};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::workflows;

/// A node class that no list knows, as a studio's own pack would bring it.
const OWN_CLASS: &str = "AmberHouseGrade";

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add("ws-01", Comfy::simulated(&["--vram-mib", "8192", "--with", OWN_CLASS])).await?;
    one_studio(mesh, "desk", &["ws-01"]).await?;
    mesh.advert_seen("desk", "ws-01").await?;

    // Known not to fit: it is not even asked.
    let graph = graph_file(dir, "keyframe.json", &workflows::keyframe(CHECKPOINT, 7, 4, 64))?;
    let id = submitted(mesh, "desk", &["submit", &graph, "--needs", "vram=24GB", "--detach"]).await?;
    why_says(mesh, "desk", &id, &["ws-01", "24"]).await?;
    mesh.ok("desk", &["cancel", &id]).await?;
    mesh.job_until("desk", &id, "it is cancelled", |job| job["state"] == "cancelled").await?;

    // It has the class, and its policy refuses it in the answer to the offer.
    let mut graph = workflows::tiny(3);
    graph["9"] = json!({ "class_type": OWN_CLASS, "inputs": {} });
    let path = graph_file(dir, "grade.json", &graph)?;
    let foreseen = mesh.cli("ws-01", &["policy", "show", &path]).await?;
    ensure!(foreseen.code == 6, "the renderer would refuse it: {}", foreseen.json);
    ensure!(foreseen.json["findings"][0]["class"] == OWN_CLASS, "{}", foreseen.json);
    let id = submitted(mesh, "desk", &["submit", &path, "--detach"]).await?;
    why_says(mesh, "desk", &id, &["ws-01", OWN_CLASS, "not on the list"]).await?;
    let shown = mesh.ok("desk", &["show", &id]).await?;
    ensure!(shown["state"] == "queued", "it waits: {shown:#}");
    ensure!(super::started(mesh.node("ws-01")).is_empty(), "nothing reached ComfyUI");

    // Allowed on the renderer, it runs without another word from whoever submitted it.
    mesh.ok("ws-01", &["policy", "allow", OWN_CLASS]).await?;
    mesh.job_until("desk", &id, "it ran after all", |job| job["state"] == "done").await?;

    // Denied by hand, what runs everywhere else does not run here.
    mesh.ok("ws-01", &["policy", "deny", "ImageInvert"]).await?;
    let path = graph_file(dir, "tiny.json", &workflows::tiny(4))?;
    let id = submitted(mesh, "desk", &["submit", &path, "--detach"]).await?;
    why_says(mesh, "desk", &id, &["ws-01", "ImageInvert"]).await?;
    mesh.ok("ws-01", &["policy", "reset", "ImageInvert"]).await?;
    mesh.job_until("desk", &id, "it ran after all", |job| job["state"] == "done").await?;

    // A partner node goes nowhere at all.
    let partner = json!({ "1": { "class_type": "OpenAIChatNode", "inputs": { "prompt": "hello" } } });
    let path = graph_file(dir, "partner.json", &partner)?;
    let refused = mesh.cli("desk", &["submit", &path, "--detach"]).await?;
    ensure!(refused.code == 6 && refused.json.to_string().contains("partner"), "{}", refused.json);
    Ok(())
}

/// What one studio lends to another, and no more than "not now" about the rest.
///
/// # Errors
/// When any of it does not hold.
pub async fn lending(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("amber-01", Comfy::Absent).await?;
    mesh.add_with("birch-01", Comfy::simulated(&[]), "[lend]\nto = [\"amber\"]\nclasses = [\"batch\"]\n")
        .await?;
    mesh.found("amber-01", "aurora", "amber").await?;
    mesh.admit("amber-01", "birch-01", Some("birch")).await?;
    mesh.all_up().await?;
    mesh.advert_seen("amber-01", "birch-01").await?;

    let path = graph_file(dir, "tiny.json", &workflows::tiny(5))?;
    let id = submitted(mesh, "amber-01", &["submit", &path, "--reach", "pool", "--detach"]).await?;
    why_says(mesh, "amber-01", &id, &["birch-01 takes no work of others now"]).await?;
    let why = mesh.ok("amber-01", &["why", &id]).await?["why"].to_string();
    ensure!(!why.contains("batch") && !why.contains("class"), "it does not say why: {why}");
    let batch = ["submit", &path, "--reach", "pool", "--class", "batch", "--detach"];
    let batch = submitted(mesh, "amber-01", &batch).await?;
    mesh.job_until("amber-01", &batch, "batch work is taken", |job| job["state"] == "done").await?;
    let shown = mesh.ok("amber-01", &["show", &id]).await?;
    ensure!(shown["state"] == "queued", "the other one still waits: {shown:#}");
    Ok(())
}

async fn submitted(mesh: &Cluster, node: &str, command: &[&str]) -> Result<String> {
    let job: Value = mesh.ok(node, command).await?;
    Ok(job["job"].as_str().context("a job id")?.to_owned())
}

async fn why_says(mesh: &Cluster, node: &str, id: &str, words: &[&str]) -> Result<()> {
    eventually("why names the node and the reason", || async {
        let why = mesh.cli(node, &["why", id]).await?;
        let text = why.json.to_string();
        Ok(if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) })
    })
    .await
}
