//! Renderers and requesters that take part, and cheat.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::hostile::blobs::Blob;
use scenemesh_testnet::hostile::bytes::kind;
use scenemesh_testnet::hostile::flood::timed;
use scenemesh_testnet::hostile::keys::random;
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::renderer::{Held, output};
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{Finished, FinishedTerms, OutputFile};
use scenemesh_testnet::scenarios::{graph_file, outputs};
use scenemesh_testnet::workflows;
use serde_json::json;

use crate::{AMBER, machine, mallory, still_works, tell, tell_of};

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

/// A renderer that holds a grant of amber's and delivers what `cheat` makes of it; the result is discarded, and an honest
/// renderer delivers.
fn is_discarded(cheat: impl FnOnce(&Member, &Held, &Blob) -> Result<Finished> + 'static) {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = painter(mesh, "amber-02").await?;
            let (job, held) = granted(mesh, dir, &mut peer, None).await?;
            let finished = cheat(&peer, &held, &Blob::seal(b"the picture")?)?;
            if peer.announces(&held.from, &finished).await? {
                ensure!(!peer.acked().await?, "amber does not store it");
            }
            let shown = mesh.ok(AMBER, &["show", &job]).await?;
            ensure!(shown["state"] != "done", "it is not done: {shown:#}");
            delivered_by_another(mesh, &job).await?;
            still_works(mesh, dir).await
        })
    });
}

/// An honest painter comes and delivers a job of amber's.
async fn delivered_by_another(mesh: &Cluster, job: &str) -> Result<()> {
    let mut honest = painter(mesh, "amber-03").await?;
    honest.claims_an_offer().await?;
    let held = honest.takes_a_grant().await?;
    ends_done(mesh, &mut honest, &held, job).await
}

#[test]
fn another_picture_than_the_signed_one_is_discarded() {
    is_discarded(|peer, held, signed| {
        let other = Blob::seal(b"another picture")?;
        peer.shelve(signed.root, &Blob { manifest: signed.manifest.clone(), ..other });
        peer.result_of(held, signed)
    });
}

#[test]
fn pieces_other_than_the_manifests_are_discarded() {
    is_discarded(|peer, held, signed| {
        let mut bent = signed.clone();
        bent.pieces[0][3] ^= 1;
        peer.shelve(signed.root, &bent);
        peer.result_of(held, signed)
    });
}

#[test]
fn a_manifest_of_another_root_is_discarded() {
    is_discarded(|peer, held, signed| {
        peer.shelve(signed.root, &Blob::seal(b"another picture")?);
        peer.result_of(held, signed)
    });
}

#[test]
fn a_picture_that_does_not_open_with_its_key_is_discarded() {
    is_discarded(|peer, held, signed| {
        peer.shelve(signed.root, signed);
        peer.result_of(held, &Blob { key: random(), ..signed.clone() })
    });
}

#[test]
fn a_result_of_another_grant_is_discarded() {
    is_discarded(|peer, held, signed| {
        peer.shelve(signed.root, signed);
        let keys = peer.keys_for(held, &[output(signed)])?;
        let terms = FinishedTerms { grant: random(), ..peer.finished_terms(held, signed, &keys) };
        Ok(Finished::new(&terms, keys, &peer.me.key))
    });
}

#[test]
fn keys_other_than_the_signed_ones_are_discarded() {
    is_discarded(|peer, held, signed| {
        peer.shelve(signed.root, signed);
        let honest = peer.result_of(held, signed)?;
        Ok(Finished { keys: peer.result_of(held, signed)?.keys, ..honest })
    });
}

#[test]
fn keys_of_other_outputs_than_the_signed_roots_are_discarded() {
    is_discarded(|peer, held, signed| {
        let other = Blob::seal(b"another picture")?;
        peer.shelve(signed.root, signed);
        peer.shelve(other.root, &other);
        let keys = peer.keys_for(held, &[output(&other)])?;
        Ok(Finished::new(&peer.finished_terms(held, signed, &keys), keys, &peer.me.key))
    });
}

#[test]
fn keys_of_another_task_are_discarded() {
    is_discarded(|peer, held, signed| {
        peer.shelve(signed.root, signed);
        let mut other = held.clone();
        other.terms.task = random();
        let keys = peer.keys_for(&other, &[output(signed)])?;
        Ok(Finished::new(&peer.finished_terms(held, signed, &keys), keys, &peer.me.key))
    });
}

#[test]
fn an_output_named_like_a_path_stays_where_it_belongs() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = painter(mesh, "amber-02").await?;
            let (job, held) = granted(mesh, dir, &mut peer, None).await?;
            let blob = Blob::seal(b"gotcha")?;
            peer.shelve(blob.root, &blob);
            let escape = OutputFile { filename: "../../escaped.png".into(), ..output(&blob) };
            let keys = peer.keys_for(&held, &[escape])?;
            let finished = Finished::new(&peer.finished_terms(&held, &blob, &keys), keys, &peer.me.key);
            let noted = peer.announces(&held.from, &finished).await?;
            if noted && peer.acked().await? {
                mesh.job_until(AMBER, &job, "it is done", |job| job["state"] == "done").await?;
                let out = dir.join("deep/er/out");
                mesh.cli(AMBER, &["fetch", &job, "--out", &out.display().to_string()]).await?;
                for place in
                    [dir.join("deep/escaped.png"), dir.join("escaped.png"), dir.join("deep/er/escaped.png")]
                {
                    ensure!(!place.exists(), "{} was written", place.display());
                }
            }
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_renderer_that_claims_and_never_accepts_does_not_keep_the_task() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut cheat = painter(mesh, "amber-02").await?;
            let job = paint_job(mesh, dir, None).await?;
            cheat.claims_an_offer().await?;
            // It hears the grant and hangs up on it.
            drop(cheat.asked(kind::GRANT).await?);
            let ((), took) = timed(delivered_by_another(mesh, &job)).await?;
            println!("delivered by another {took:?} after a claim that was never taken up");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_renderer_that_announces_and_never_serves_does_not_keep_the_task() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut cheat = painter(mesh, "amber-02").await?;
            let (job, held) = granted(mesh, dir, &mut cheat, None).await?;
            let blob = Blob::seal(b"never seen")?;
            let finished = cheat.result_of(&held, &blob)?;
            ensure!(cheat.announces(&held.from, &finished).await?, "it is noted at first");
            let ((), took) = timed(delivered_by_another(mesh, &job)).await?;
            println!("delivered by another {took:?} after a result that was never served");
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_requester_that_grants_and_never_serves_its_inputs_does_not_keep_the_slot() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            let plate = Blob::seal(b"never served")?;
            let order = Order::new(&workflows::image_to_image("plate.png"), &[("plate.png", &plate)])?;
            let claim = peer.claim_of(&amber, &order.offer).await?;
            peer.accepted(&amber, &peer.grant_for(&amber, claim, &order)?).await?;
            let ((), took) = timed(still_works(mesh, dir)).await?;
            println!("amber's own work came to its slot {took:?} after a grant without inputs");
            ensure!(took.as_secs() < 100, "the slot was pinned for {took:?}");
            Ok(())
        })
    });
}

#[test]
fn a_requester_whose_streams_stay_mute_does_not_keep_the_slot() {
    tell_of(&[], "\n[limits]\nfetch_time = \"5s\"\n", |mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            peer.manners.shelf.send_modify(|shelf| shelf.mute = true);
            let plate = Blob::seal(b"never said")?;
            let order = Order::new(&workflows::image_to_image("plate.png"), &[("plate.png", &plate)])?;
            let claim = peer.claim_of(&amber, &order.offer).await?;
            peer.accepted(&amber, &peer.grant_for(&amber, claim, &order)?).await?;
            let ((), took) = timed(still_works(mesh, dir)).await?;
            println!("amber's own work came to its slot {took:?} after a grant whose inputs stay mute");
            ensure!(took.as_secs() < 30, "the slot was pinned for {took:?}");
            Ok(())
        })
    });
}
