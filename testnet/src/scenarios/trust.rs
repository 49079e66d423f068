//! Keys that go: nodes revoked while they work, blocked, exchanged; admin keys that are lost and found.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{graph_file, nodes_of, one_studio};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::workflows;

/// Links of a revoked node are cut within this of hearing of it.
const CUT_WITHIN_MS: u64 = 2000;

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("a text, not {value}"))
}

/// When a log says the first thing, and the second after it, in milliseconds of the day.
fn times_of(log: &str, first: &str, then: &str) -> Option<(u64, u64)> {
    let mut lines = log.lines();
    let first = lines.find(|line| line.contains(first)).and_then(time_of)?;
    Some((first, lines.find(|line| line.contains(then)).and_then(time_of)?))
}

fn time_of(line: &str) -> Option<u64> {
    let clock = line.split('T').nth(1)?.get(..12)?;
    let part = |range: std::ops::Range<usize>| clock.get(range)?.parse::<u64>().ok();
    let seconds = (part(0..2)? * 60 + part(3..5)?) * 60 + part(6..8)?;
    Some(seconds * 1000 + part(9..12)?)
}

/// Until nobody of these lists the node as a member, and each cut its links in time.
async fn cut_everywhere(mesh: &Cluster, at: &[&str], gone: &str) -> Result<()> {
    for node in at {
        eventually(&format!("{node} has shut {gone} out"), || async {
            let peers = mesh.ok(node, &["peers"]).await?;
            let named = |list: &Value| {
                list.as_array().is_some_and(|list| list.iter().any(|peer| peer["name"] == gone))
            };
            let out = !named(&peers["peers"]) && named(&peers["shut"]);
            Ok(if out { Ok(()) } else { Err(peers) })
        })
        .await?;
        let lines = eventually(&format!("{node} has closed its links to {gone}"), || async {
            let log = mesh.node(node).log();
            // The revoked node may have been faster: then there was nothing left to cut.
            let gone_before = times_of(&log, "a revocation holds", "linked=false");
            let closed = times_of(&log, "a revocation holds", "a link of a node that is no member is closed");
            Ok(closed.or(gone_before).ok_or(log))
        })
        .await?;
        let took = (lines.1 + 86_400_000 - lines.0) % 86_400_000;
        ensure!(took <= CUT_WITHIN_MS, "{node} took {took} ms to cut the links of {gone}");
    }
    Ok(())
}

async fn start_slow_job(mesh: &Cluster, dir: &Path, desk: &str) -> Result<(String, String)> {
    let graph = graph_file(dir, "slow.json", &workflows::keyframe(CHECKPOINT, 3, 20, 64))?;
    let job = mesh.ok(desk, &["submit", &graph, "--detach"]).await?;
    let id = text(&job["job"])?;
    let sampling = mesh
        .job_until(desk, &id, "a renderer samples", |job| {
            job["tasks"][0]["progress"]["step"].as_u64() > Some(1)
        })
        .await?;
    Ok((id, nodes_of(&sampling)[0].clone()))
}

/// A renderer is revoked in the middle of a render: cut off everywhere, its task done elsewhere, its key refused.
///
/// # Errors
/// When any of it does not hold.
pub async fn renderer_revoked(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    for name in ["ws-01", "ws-02"] {
        mesh.add(name, Comfy::simulated(&["--step-ms", "150"])).await?;
    }
    one_studio(mesh, "desk", &["ws-01", "ws-02"]).await?;
    let (job, gone) = start_slow_job(mesh, dir, "desk").await?;
    let other = if gone == "ws-01" { "ws-02" } else { "ws-01" };

    let foreign = mesh.cli("ws-01", &["revoke", "desk", "--reason", "mine"]).await?;
    ensure!(foreign.code == 4, "a render box has no admin key: {}", foreign.stderr);
    let itself = mesh.cli("desk", &["revoke", "desk", "--reason", "x"]).await?;
    ensure!(itself.code == 6 && itself.stderr.contains("leave"), "{}", itself.stderr);

    let revoked = mesh.ok("desk", &["revoke", &gone, "--reason", "sold on"]).await?;
    ensure!(revoked["confirmed"][0]["name"] == other, "the other has it: {revoked:#}");
    ensure!(revoked["later"].as_array().is_some_and(Vec::is_empty), "nobody is away: {revoked:#}");
    ensure!(revoked["attempts_there"] == 1, "one attempt was touched: {revoked:#}");
    cut_everywhere(mesh, &["desk", other], &gone).await?;

    let done = mesh.job_until("desk", &job, "the task ends elsewhere", |job| job["state"] == "done").await?;
    ensure!(nodes_of(&done) == [other], "on the other: {done:#}");

    // The revoked node knows why, keeps running, and is let in by nobody any more.
    let outside = eventually("the revoked node knows", || async {
        let status = mesh.ok(&gone, &["status"]).await?;
        Ok(if status["standing"] == "outside" { Ok(status) } else { Err(status) })
    })
    .await?;
    ensure!(text(&outside["why"])?.contains("revoked by amber: sold on"), "{outside:#}");
    ensure!(outside["peers_total"] == 0, "it looks for nobody: {outside:#}");
    let peers = mesh.ok(&gone, &["peers"]).await?;
    ensure!(text(&peers["outside"])?.contains("sold on"), "{peers:#}");
    let graph = graph_file(dir, "tiny.json", &workflows::tiny(1))?;
    let own = mesh.ok(&gone, &["submit", &graph, "--reach", "machine", "--detach"]).await?;
    mesh.job_until(&gone, &text(&own["job"])?, "its own work goes on", |job| job["state"] == "done").await?;
    mesh.kill(&gone).await?;
    mesh.start(&gone).await?;
    let status = mesh.ok(&gone, &["status"]).await?;
    ensure!(status["standing"] == "outside", "after a restart too: {status:#}");
    mesh.ok(&gone, &["leave", "--yes"]).await?;
    Ok(())
}

/// A node that was away while it was revoked is told at the porch, and shown the proof.
///
/// # Errors
/// When it does not hold.
pub async fn revoked_while_away(mesh: &mut Cluster) -> Result<()> {
    mesh.add_with_porch_beside("desk", Comfy::Absent).await?;
    for name in ["ws-01", "ws-02"] {
        mesh.add(name, Comfy::Absent).await?;
    }
    one_studio(mesh, "desk", &["ws-01", "ws-02"]).await?;
    let desk = text(&mesh.ok("desk", &["status"]).await?["node"])?;
    for name in ["ws-01", "ws-02"] {
        eventually(&format!("{name} has written down where the desk is"), || async {
            let known = std::fs::read_to_string(mesh.node(name).dir.join("addresses.json"));
            Ok(known.ok().filter(|known| known.contains(&desk)).map(drop).ok_or(()))
        })
        .await?;
    }
    mesh.kill("ws-02").await?;
    mesh.kill("ws-01").await?;
    let revoked = mesh.ok("desk", &["revoke", "ws-02", "--reason", "lost laptop"]).await?;
    ensure!(revoked["later"][0]["name"] == "ws-01", "one learns it later: {revoked:#}");
    mesh.start("ws-02").await?;
    let outside = eventually("it is told when it comes back", || async {
        let status = mesh.ok("ws-02", &["status"]).await?;
        Ok(if status["standing"] == "outside" { Ok(status) } else { Err((status, mesh.last_words())) })
    })
    .await?;
    ensure!(text(&outside["why"])?.contains("revoked by amber: lost laptop"), "{outside:#}");
    // And the member that was away shuts it out as soon as it meets anybody.
    mesh.start("ws-01").await?;
    mesh.all_running_up(&["desk", "ws-01"]).await?;
    eventually("ws-01 has heard it", || async {
        let peers = mesh.ok("ws-01", &["peers"]).await?;
        Ok(if peers["shut"][0]["name"] == "ws-02" { Ok(()) } else { Err(peers) })
    })
    .await
}

/// A requester is revoked while its task runs: interrupted, wiped, its place in the queue gone.
///
/// # Errors
/// When any of it does not hold.
pub async fn requester_revoked(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    for name in ["admin", "desk"] {
        mesh.add(name, Comfy::Absent).await?;
    }
    mesh.add("ws-01", Comfy::simulated(&["--step-ms", "500"])).await?;
    one_studio(mesh, "admin", &["desk", "ws-01"]).await?;
    start_slow_job(mesh, dir, "desk").await?;
    mesh.ok("admin", &["revoke", "desk", "--reason", "stolen"]).await?;
    cut_everywhere(mesh, &["admin", "ws-01"], "desk").await?;
    eventually("its prompt is interrupted", || async {
        let log = mesh.node("ws-01").comfy_log();
        let stopped = log.iter().any(|line| line["outcome"] == "interrupted");
        Ok(if stopped { Ok(()) } else { Err(log) })
    })
    .await?;
    eventually("nothing of it is left", || async {
        let mut left = Vec::new();
        for folder in ["input", "output", "temp"] {
            files(&mesh.node("ws-01").comfy_dir().join(folder), &mut left)?;
        }
        files(&mesh.node("ws-01").dir.join("blobs"), &mut left)?;
        let status = mesh.ok("ws-01", &["status"]).await?;
        let ready = status["slots"][0]["state"] == "ready";
        Ok(if left.is_empty() && ready { Ok(()) } else { Err((left, status)) })
    })
    .await?;
    let status = mesh.ok("desk", &["status"]).await?;
    ensure!(status["standing"] == "outside", "{status:#}");
    let jobs = mesh.ok("desk", &["jobs"]).await?;
    ensure!(jobs["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1), "its own jobs stay: {jobs:#}");
    let why = mesh.ok("desk", &["why", &text(&jobs["jobs"][0]["job"])?]).await?;
    ensure!(text(&why["why"])?.contains("revoked by amber: stolen"), "{why:#}");
    Ok(())
}

fn files(dir: &Path, into: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, into)?;
        } else {
            into.push(path.display().to_string());
        }
    }
    Ok(())
}

/// A studio blocks another studio's node: its machines only, without an admin key, until the block is lifted.
///
/// # Errors
/// When any of it does not hold.
pub async fn blocked(mesh: &mut Cluster) -> Result<()> {
    for name in ["amber-01", "amber-02", "birch-01", "birch-02"] {
        mesh.add(name, Comfy::Absent).await?;
    }
    mesh.found("amber-01", "aurora", "amber").await?;
    mesh.admit("amber-01", "amber-02", None).await?;
    mesh.admit("amber-01", "birch-01", Some("birch")).await?;
    mesh.admit("birch-01", "birch-02", None).await?;
    mesh.all_up().await?;

    let refused = mesh.cli("amber-01", &["revoke", "birch-02", "--reason", "odd"]).await?;
    ensure!(refused.code == 4 && refused.stderr.contains("scenemesh block birch-02"), "{}", refused.stderr);
    let blocked = mesh.ok("amber-02", &["block", "birch-02", "--reason", "odd results"]).await?;
    ensure!(blocked["until_ms"].as_u64().is_some(), "it ends by itself: {blocked:#}");
    for node in ["amber-01", "amber-02"] {
        eventually(&format!("{node} has shut it out"), || async {
            let peers = mesh.ok(node, &["peers"]).await?;
            let shut = &peers["shut"][0];
            let out = shut["name"] == "birch-02" && shut["state"] == "blocked";
            let gone = !peers["peers"].as_array().is_some_and(|l| l.iter().any(|p| p["name"] == "birch-02"));
            Ok(if out && gone { Ok(()) } else { Err(peers) })
        })
        .await?;
    }
    mesh.all_running_up(&["birch-01", "birch-02"]).await?;
    mesh.all_running_up(&["amber-01", "amber-02", "birch-01"]).await?;
    // A restart does not forget it.
    mesh.kill("amber-01").await?;
    mesh.start("amber-01").await?;
    mesh.all_running_up(&["amber-01", "amber-02", "birch-01"]).await?;
    let peers = mesh.ok("amber-01", &["peers"]).await?;
    ensure!(peers["shut"][0]["state"] == "blocked", "{peers:#}");
    mesh.ok("amber-01", &["block", "birch-02", "--lift"]).await?;
    mesh.all_up().await
}

/// Keys are exchanged where the admin key is, and where it is not; the queue survives, the old key is refused.
///
/// # Errors
/// When any of it does not hold.
pub async fn rotated(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("desk", Comfy::Absent).await?;
    mesh.add_with_porch_beside("ws-01", Comfy::simulated(&[])).await?;
    mesh.add("ws-02", Comfy::Absent).await?;
    one_studio(mesh, "desk", &["ws-01", "ws-02"]).await?;
    let id = |status: &Value| text(&status["node"]);
    let (desk, box_) =
        (id(&mesh.ok("desk", &["status"]).await?)?, id(&mesh.ok("ws-01", &["status"]).await?)?);

    // A job that waits for the only renderer: it must be there afterwards.
    let waiting = graph_file(dir, "waiting.json", &workflows::tiny(7))?;
    mesh.kill("ws-01").await?;
    let job = mesh.ok("desk", &["submit", &waiting, "--detach"]).await?;
    let job = text(&job["job"])?;
    let switched = mesh.ok("desk", &["rotate"]).await?;
    ensure!(switched["state"] == "switching" && switched["old"] == desk.as_str(), "{switched:#}");
    let now = mesh.ok("desk", &["status"]).await?;
    ensure!(now["node"] == switched["new"] && now["standing"] == "member", "{now:#}");
    ensure!(now["tasks_queued"] == 1, "the queue survives: {now:#}");
    mesh.listens("desk").await?;

    mesh.all_running_up(&["desk", "ws-02"]).await?;

    // The render box was away and hears of it from a third; it has no admin key, and asks for a countersignature.
    mesh.start("ws-01").await?;
    mesh.all_up().await?;
    mesh.job_until("desk", &job, "the job that waited is rendered", |job| job["state"] == "done").await?;
    let asked = mesh.ok("ws-01", &["rotate", "--node-key"]).await?;
    ensure!(asked["state"] == "requested", "{asked:#}");
    let code = text(&asked["code"])?;
    let bad = mesh.cli("desk", &["rotate", "--countersign", &code[..80]]).await?;
    ensure!(bad.code == 2, "a code that was cut off is one: {}", bad.stderr);
    let signed = mesh.ok("desk", &["rotate", "--countersign", &code]).await?;
    ensure!(signed["old"] == box_.as_str() && signed["name"] == "ws-01", "{signed:#}");
    eventually("the box goes on under its new key", || async {
        let status = mesh.cli("ws-01", &["status"]).await?;
        let new = status.json["node"] == signed["new"] && status.json["standing"] == "member";
        Ok(if new { Ok(()) } else { Err((status, mesh.last_words())) })
    })
    .await?;
    mesh.listens("ws-01").await?;
    mesh.all_up().await?;
    let peers = mesh.ok("desk", &["peers"]).await?;
    let shut = peers["shut"].as_array().context("a list")?;
    ensure!(shut.iter().any(|node| node["node"] == box_.as_str() && node["state"] == "rotated"), "{peers:#}");
    ensure!(shut.iter().all(|node| node["node"] != now["node"]), "{peers:#}");
    // Both render for each other under their new keys.
    let after = graph_file(dir, "after.json", &workflows::tiny(8))?;
    let job = mesh.ok("desk", &["submit", &after, "--detach"]).await?;
    mesh.job_until("desk", &text(&job["job"])?, "a job runs under the new keys", |job| {
        job["state"] == "done"
    })
    .await?;
    Ok(())
}

/// The admin's laptop only submits. While it is off the boxes work; when it is back its invite is locked until its
/// passphrase is given; when it is lost, the code on paper takes its place.
///
/// # Errors
/// When any of it does not hold.
pub async fn admin_laptop(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("laptop", Comfy::Absent).await?;
    for name in ["ws-01", "ws-02"] {
        mesh.add(name, Comfy::simulated(&[])).await?;
    }
    mesh.add("ws-03", Comfy::Absent).await?;
    let secret = dir.join("secret").display().to_string();
    std::fs::write(&secret, "correct horse\n")?;
    let sealed = ["--passphrase-file", secret.as_str()];
    let words = ["init", "--pool", "aurora", "--studio", "amber", "--name", "laptop"];
    let founded = mesh.ok("laptop", &[&words[..], &sealed[..]].concat()).await?;
    let paper = text(&founded["recovery_code"])?;
    mesh.listens("laptop").await?;
    for name in ["ws-01", "ws-02"] {
        let code = mesh.ok("laptop", &[&["invite"][..], &sealed[..]].concat()).await?;
        mesh.ok(name, &["join", &text(&code["code"])?, "--name", name, "--yes"]).await?;
        mesh.listens(name).await?;
    }
    mesh.all_running_up(&["laptop", "ws-01", "ws-02"]).await?;
    let doctor = mesh.cli("laptop", &["doctor"]).await?;
    let warned = |answer: &Value| {
        answer["checks"].as_array().is_some_and(|checks| checks.iter().any(|check| check["name"] == "admins"))
    };
    ensure!(warned(&doctor.json), "one admin key is a warning: {}", doctor.stdout);

    // Off: the boxes render for each other all the same.
    let pending = mesh.ok("laptop", &[&["invite"][..], &sealed[..]].concat()).await?;
    mesh.kill("laptop").await?;
    let graph = graph_file(dir, "tiny.json", &workflows::tiny(1))?;
    for box_ in ["ws-01", "ws-02"] {
        let job = mesh.ok(box_, &["submit", &graph, "--detach"]).await?;
        mesh.job_until(box_, &text(&job["job"])?, "a box's job ends", |job| job["state"] == "done").await?;
    }
    // Back: the invite is locked until its admin key is.
    mesh.start("laptop").await?;
    let locked = mesh.cli("ws-03", &["join", &text(&pending["code"])?, "--name", "ws-03", "--yes"]).await?;
    ensure!(locked.json["state"] == "awaiting_unlock", "{} {}", locked.stdout, locked.stderr);
    mesh.ok("laptop", &[&["invite", "--unlock"][..], &sealed[..]].concat()).await?;
    mesh.listens("ws-03").await?;
    mesh.all_up().await?;
    let asked = mesh.cli("laptop", &["revoke", "ws-03", "--reason", "test"]).await?;
    ensure!(asked.code == 4, "a sealed key wants its passphrase: {}", asked.stderr);
    mesh.ok("laptop", &[&["revoke", "ws-03", "--reason", "test"][..], &sealed[..]].concat()).await?;

    // Lost: the paper key, on a box.
    mesh.kill("laptop").await?;
    let file = dir.join("paper").display().to_string();
    std::fs::write(&file, format!("{paper}\n"))?;
    mesh.ok("ws-01", &["admin", "recover", "--code-file", &file, "--no-passphrase"]).await?;
    let admins = mesh.ok("ws-01", &["admin"]).await?;
    let keys = admins["keys"].as_array().context("a list")?.clone();
    let here = |key: &&Value| key["here"] == true;
    ensure!(keys.len() == 2 && keys.iter().filter(here).count() == 1, "{admins:#}");
    let old = keys.iter().find(|key| key["here"] == false).context("the laptop's key")?;
    let own = keys.iter().find(here).context("the paper key")?;
    let itself = mesh.cli("ws-01", &["revoke", "--admin", &text(&own["key"])?, "--reason", "x"]).await?;
    ensure!(itself.code == 6, "a key does not revoke itself: {}", itself.stderr);
    let void = mesh.ok("ws-01", &["revoke", "--admin", &text(&old["key"])?, "--reason", "stolen"]).await?;
    ensure!(void["resigned"].as_u64() >= Some(3), "what it had signed is signed again: {void:#}");
    mesh.ok("ws-01", &["revoke", "laptop", "--reason", "stolen"]).await?;
    mesh.all_running_up(&["ws-01", "ws-02"]).await?;
    let only = mesh.cli("ws-01", &["revoke", "--admin", &text(&own["key"])?, "--reason", "x"]).await?;
    ensure!(only.code == 6 && only.stderr.contains("admin add"), "{}", only.stderr);

    // A second admin, on another machine; then both sign.
    let made = mesh.ok("ws-02", &["admin", "new", "--no-passphrase"]).await?;
    let none = mesh.cli("ws-02", &["invite"]).await?;
    ensure!(none.code == 4, "a key that was not added signs nothing: {}", none.stderr);
    let added = mesh.ok("ws-01", &["admin", "add", &text(&made["key"])?]).await?;
    ensure!(added["in_force"] == true, "a pool of one signs alone: {added:#}");
    eventually("the second admin can invite", || async {
        let answer = mesh.cli("ws-02", &["invite"]).await?;
        Ok(if answer.code == 0 { Ok(()) } else { Err(answer) })
    })
    .await?;
    mesh.ok("ws-02", &["admin", "remove", &text(&own["key"])?]).await?;
    mesh.all_running_up(&["ws-01", "ws-02"]).await
}
