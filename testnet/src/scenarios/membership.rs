//! Who belongs spreads to all, whoever was away and whoever invited at the same time.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Comfy};
use crate::eventually::eventually;

/// Two studios of a pool invite a third and a fourth at the same time, from two nodes.
///
/// # Errors
/// When not all four end up in one pool.
pub async fn two_invites_at_once(mesh: &mut Cluster) -> Result<()> {
    for name in ["amber-01", "birch-01", "cedar-01", "dogwood-01"] {
        mesh.add(name, Comfy::Absent).await?;
    }
    mesh.found("amber-01", "aurora", "amber").await?;
    mesh.admit("amber-01", "birch-01", Some("birch")).await?;
    mesh.all_running_up(&["amber-01", "birch-01"]).await?;

    let code = |answer: Value| answer["code"].as_str().map(str::to_owned).context("an invite has a code");
    let cedar = code(mesh.ok("amber-01", &["invite", "--new-studio", "cedar"]).await?)?;
    let dogwood = code(mesh.ok("birch-01", &["invite", "--new-studio", "dogwood"]).await?)?;
    let join = |name: &'static str, code: String| {
        let mesh = &*mesh;
        async move { mesh.ok(name, &["join", &code, "--name", name, "--yes", "--no-passphrase"]).await }
    };
    let (one, other) = tokio::join!(join("cedar-01", cedar), join("dogwood-01", dogwood));
    one?;
    other?;

    // A pool of two lets nobody in without the other's word: each approves what it finds until nothing is left.
    eventually("both new studios are in", || async {
        for (approver, studio) in [("amber-01", "amber"), ("birch-01", "birch")] {
            let pool = mesh.ok(approver, &["pool"]).await?;
            for proposal in pool["proposals"].as_array().into_iter().flatten() {
                let signed =
                    proposal["signed_by"].as_array().is_some_and(|by| by.iter().any(|name| name == studio));
                if let (Some(id), false) = (proposal["id"].as_str(), signed) {
                    // It may have been overtaken by the other's approval meanwhile.
                    mesh.cli(approver, &["pool", "approve", id]).await?;
                }
            }
        }
        let pool = mesh.ok("amber-01", &["pool"]).await?;
        Ok(if studios(&pool) == ["amber", "birch", "cedar", "dogwood"] { Ok(()) } else { Err(pool) })
    })
    .await?;
    mesh.all_up().await?;
    let mut epochs = Vec::new();
    for name in mesh.names() {
        epochs.push(mesh.ok(&name, &["pool"]).await?["epoch"].clone());
    }
    ensure!(epochs.iter().all(|epoch| *epoch == epochs[0]), "all hold one epoch: {epochs:?}");
    Ok(())
}

fn studios(pool: &Value) -> Vec<String> {
    let list = pool["studios"].as_array().into_iter().flatten();
    let mut names: Vec<_> = list.filter_map(|studio| studio["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

/// A member is admitted while another is away; when that one is back, the two find each other.
///
/// # Errors
/// When they do not.
pub async fn admitted_while_away(mesh: &mut Cluster) -> Result<()> {
    for name in ["ws-01", "ws-03"] {
        mesh.add(name, Comfy::Absent).await?;
    }
    // It may be gone before an advert says where its porch is: that is looked for beside its main port as well.
    mesh.add_with_porch_beside("ws-02", Comfy::Absent).await?;
    mesh.found("ws-01", "aurora", "amber").await?;
    mesh.admit("ws-01", "ws-02", None).await?;
    mesh.all_running_up(&["ws-01", "ws-02"]).await?;
    mesh.advert_seen("ws-01", "ws-02").await?;
    mesh.kill("ws-02").await?;
    mesh.admit("ws-01", "ws-03", None).await?;
    // The inviter goes away before the one that was away returns: only the new member can tell of itself.
    mesh.all_running_up(&["ws-01", "ws-03"]).await?;
    // From the inviter it has heard where the absent one was last.
    mesh.advert_seen("ws-03", "ws-02").await?;
    mesh.kill("ws-01").await?;
    mesh.start("ws-02").await?;
    mesh.all_up().await
}

/// A machine that loses power right after `join`, before its first link, finds its pool when it is back: nothing else
/// tells it where that is.
///
/// # Errors
/// When it does not.
pub async fn killed_after_join(mesh: &mut Cluster) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.found("desk", "aurora", "amber").await?;
    for name in ["ws-01", "ws-02", "ws-03", "ws-04"] {
        mesh.add(name, Comfy::Absent).await?;
        mesh.admit("desk", name, None).await?;
        mesh.kill(name).await?;
        mesh.start(name).await?;
        mesh.all_running_up(&["desk", name]).await?;
    }
    Ok(())
}
