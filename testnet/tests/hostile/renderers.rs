//! Renderers and requesters that take part, and cheat.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::blobs::Blob;
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::renderer::Held;
use scenemesh_testnet::scenarios::{graph_file, outputs};
use serde_json::json;

use crate::{AMBER, machine};

/// A class that only the second node has, so that amber's jobs go to it.
const PAINT: &str = "PaintByHand";

/// A machine of amber's studio with a slot for [`PAINT`].
pub(crate) async fn painter(mesh: &Cluster, name: &str) -> Result<Member> {
    let peer = machine(mesh, name).await?;
    peer.open_stall(&peer.host(), &[PAINT, "LoadImage"]).await?;
    Ok(peer)
}

/// Submits a job on amber that only a painter can render, with a plate as its input or without.
pub(crate) async fn paint_job(mesh: &Cluster, dir: &Path, plate: Option<&[u8]>) -> Result<String> {
    let mut graph = json!({"1": {"class_type": PAINT, "inputs": {}}});
    let mut command = vec!["submit".to_owned()];
    if let Some(plate) = plate {
        graph["1"]["inputs"]["image"] = json!(["2", 0]);
        graph["2"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
        let path = dir.join("plate.png");
        std::fs::write(&path, plate)?;
        command.extend(["--input".into(), format!("plate.png={}", path.display())]);
    }
    command.insert(1, graph_file(dir, "paint.json", &graph)?);
    command.extend(["--reach", "pool", "--detach"].map(str::to_owned));
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let job = eventually("what the painter can do is known", || async {
        let answer = mesh.cli(AMBER, &command).await?;
        let known = answer.json["error"]["code"] != "unknown_class";
        Ok(if known { Ok(answer) } else { Err(answer) })
    })
    .await?;
    Ok(job.json["job"].as_str().with_context(|| format!("a job id: {}", job.stderr))?.to_owned())
}

/// Such a job, offered to and held by the painter.
pub(crate) async fn granted(
    mesh: &Cluster,
    dir: &Path,
    peer: &mut Member,
    plate: Option<&[u8]>,
) -> Result<(String, Held)> {
    let job = paint_job(mesh, dir, plate).await?;
    peer.claims_an_offer().await?;
    Ok((job, peer.takes_a_grant().await?))
}

/// The painter delivers honestly, and amber has the very bytes.
pub(crate) async fn ends_done(mesh: &Cluster, peer: &mut Member, held: &Held, job: &str) -> Result<()> {
    let picture = b"painted by hand";
    let blob = Blob::seal(picture)?;
    peer.shelve(blob.root, &blob);
    let finished = peer.result_of(held, &blob)?;
    ensure!(peer.announces(&held.from, &finished).await?, "an honest result is noted");
    ensure!(peer.acked().await?, "an honest result is stored");
    mesh.job_until(AMBER, job, "it is done", |job| job["state"] == "done").await?;
    let out = tempfile::tempdir()?;
    let fetched = mesh.ok(AMBER, &["fetch", job, "--out", &out.path().display().to_string()]).await?;
    let files = outputs(&fetched);
    ensure!(files.len() == 1 && std::fs::read(&files[0])? == picture, "the very bytes: {fetched:#}");
    Ok(())
}
