//! The page is enough: the second node does all that an honest one does.

use anyhow::{Context, ensure};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::blobs::Blob;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::Verdict;
use scenemesh_testnet::scenarios::{graph_file, outputs};
use scenemesh_testnet::workflows;

use crate::{AMBER, machine, mallory, still_works, tell};

/// The classes of [`workflows::tiny`].
pub(crate) const TINY: [&str; 3] = ["EmptyImage", "ImageInvert", "SaveImage"];

#[test]
fn the_second_node_founds_a_studio_and_a_machine_joins_one() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let founder = mallory(mesh).await?;
            let amber = founder.host();
            founder.agrees_with(&amber).await?;
            let machine = machine(mesh, "amber-02").await?;
            ensure!(machine.studio != founder.studio, "two studios");
            machine.agrees_with(&amber).await?;
            mesh.all_up().await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn the_second_node_requests_and_amber_renders() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            let files = peer.render_at(&amber, &Order::new(&workflows::tiny(3), &[])?).await?;
            ensure!(files.len() == 1 && files[0].starts_with(b"\x89PNG"), "one picture");

            let plate = Blob::seal(&files[0])?;
            peer.shelve(plate.root, &plate);
            let order = Order::new(&workflows::image_to_image("plate.png"), &[("plate.png", &plate)])?;
            let files = peer.render_at(&amber, &order).await?;
            ensure!(files.len() == 1 && files[0].starts_with(b"\x89PNG"), "one picture of a picture");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn the_second_node_renders_what_amber_requests() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            mesh.kill_comfy(AMBER).await?;
            // Else amber's own slot is the first to claim the task.
            eventually("amber knows that its ComfyUI is gone", || async {
                let status = mesh.ok(AMBER, &["status"]).await?;
                Ok(if status["slots"][0]["state"] == "ready" { Err(status) } else { Ok(()) })
            })
            .await?;
            peer.open_stall(&amber, &TINY).await?;
            let graph = graph_file(dir, "tiny.json", &workflows::tiny(3))?;
            let job = mesh.ok(AMBER, &["submit", &graph, "--reach", "pool", "--detach"]).await?;
            let id = job["job"].as_str().context("a job id")?.to_owned();
            peer.claims_an_offer().await?;
            let held = peer.takes_a_grant().await?;
            ensure!(held.spec.graph.starts_with(b"{"), "a graph came");
            let verdict = peer.reports(&amber, &held.terms.task, held.terms.attempt, 1).await?;
            ensure!(verdict == Verdict::Continue, "it goes on: {verdict:?}");

            let picture = b"what the second node painted";
            let blob = Blob::seal(picture)?;
            peer.shelve(blob.root, &blob);
            let finished = peer.result_of(&held, &blob)?;
            ensure!(peer.announces(&amber, &finished).await?, "it is noted");
            ensure!(peer.acked().await?, "it is stored");
            mesh.job_until(AMBER, &id, "it is done", |job| job["state"] == "done").await?;
            let out = dir.join("out").display().to_string();
            let fetched = mesh.ok(AMBER, &["fetch", &id, "--out", &out]).await?;
            let files = outputs(&fetched);
            ensure!(files.len() == 1 && std::fs::read(&files[0])? == picture, "the very bytes: {fetched:#}");
            mesh.restart_comfy(AMBER).await?;
            still_works(mesh, dir).await
        })
    });
}
