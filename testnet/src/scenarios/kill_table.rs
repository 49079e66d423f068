//! The kill table over real processes: a daemon stands still just before or after a record of one task is on disk, and
//! there it is killed, or both ends are, or the link is cut. The task ends exactly once.
//!
//! What happened is judged by what the simulated ComfyUI ran and what lies on the disks, not by what daemons say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{graph_file, one_studio, outputs, png_pixels, started};
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::eventually::eventually;
use crate::workflows;

const DESK: &str = "desk";
const WS: &str = "ws";

/// Every record that one task of a project leaves at either end, cancelled or not. The others (a lease that runs out, a
/// retry, a purge) are in the scheduler's own table, whose time is a number.
pub const POINTS: [(&str, &str); 9] = [
    ("requester.submitted", DESK),
    ("requester.granted", DESK),
    ("requester.accepted", DESK),
    ("requester.wiped", DESK),
    ("requester.stored", DESK),
    ("renderer.accepted", WS),
    ("renderer.sealed", WS),
    ("renderer.keeping", WS),
    ("renderer.dropped", WS),
];

/// What happens to the one that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGKILL to both ends, and a new start of both.
    KillBoth,
    /// The link is cut until both ends have noticed; nobody dies.
    Cut,
}

/// What one point came to.
#[derive(Clone, Debug)]
struct Ended {
    /// It had to be submitted again: nobody had been told that it is safe.
    again: bool,
    attempts: u64,
    /// Prompts that ComfyUI started.
    renders: usize,
}

/// Runs the whole table for one kind of fault, and gives it as lines of text.
///
/// # Errors
/// At the first point where a task does not end exactly once.
pub async fn run(mesh: &mut Cluster, dir: &Path, fault: Fault) -> Result<Vec<String>> {
    mesh.add_wired(DESK, Comfy::Absent).await?;
    mesh.add_wired(WS, Comfy::simulated(&["--step-ms", "10"])).await?;
    one_studio(mesh, DESK, &[WS]).await?;
    mesh.ok(DESK, &["project", "add", "kept", "--max-reach", "studio", "--retention", "3d"]).await?;
    let mut table = vec![format!("{:<20} {:<7} submitted again, attempts, renders", "record", "when")];
    for (number, (record, at)) in POINTS.into_iter().enumerate() {
        for when in ["before", "after"] {
            let seed = 2 * number as u64 + u64::from(when == "after");
            let graph = graph_file(dir, "graph.json", &workflows::keyframe(CHECKPOINT, seed, 2, 64))?;
            let point = Point { record, at, when, graph };
            let ended = point.run(mesh, dir, fault).await;
            let ended = ended.with_context(|| format!("{fault:?} at {at}, {when} {record}"))?;
            let Ended { again, attempts, renders } = ended;
            table.push(format!("{record:<20} {when:<7} {again:>15} {attempts:>9} {renders:>8}"));
            let unsaid = fault != Fault::Cut && (record, when) == ("requester.submitted", "before");
            ensure!(
                again == unsaid,
                "{when} {record}: what was accepted is safe, and what was not is not there"
            );
        }
    }
    Ok(table)
}

struct Point {
    record: &'static str,
    at: &'static str,
    when: &'static str,
    graph: String,
}

impl Point {
    async fn run(&self, mesh: &mut Cluster, dir: &Path, fault: Fault) -> Result<Ended> {
        mesh.kill(self.at).await?;
        mesh.start_halting(self.at, self.record, self.when).await?;
        mesh.all_up().await?;
        mesh.advert_seen(DESK, WS).await?;
        let before = jobs(mesh).await?;
        let ran = started(mesh.node(WS));
        self.until_it_stands(mesh).await?;
        match fault {
            Fault::Kill => {
                mesh.kill(self.at).await?;
                mesh.start(self.at).await?;
            }
            Fault::KillBoth => {
                for node in [DESK, WS] {
                    mesh.kill(node).await?;
                }
                for node in [DESK, WS] {
                    mesh.start(node).await?;
                }
            }
            Fault::Cut => {
                let wires = || [DESK, WS].into_iter().filter_map(|node| mesh.node(node).wire());
                wires().for_each(crate::proxy::Proxy::cut);
                let other = if self.at == DESK { WS } else { DESK };
                sees(mesh, other, self.at, false).await?;
                mesh.node(self.at).go_on()?;
                sees(mesh, self.at, other, false).await?;
                wires().for_each(crate::proxy::Proxy::heal);
            }
        }
        let fresh: Vec<_> = jobs(mesh).await?.difference(&before).cloned().collect();
        ensure!(fresh.len() <= 1, "one submission, one job: {fresh:?}");
        let job = match fresh.first() {
            Some(job) => job.clone(),
            None => submitted(&mesh.ok(DESK, &self.submit()).await?)?,
        };
        let done = mesh.job_until(DESK, &job, "it ends", |job| job["state"] == "done").await?;
        self.judge(mesh, dir, &job).await?;
        let after = started(mesh.node(WS));
        // A renderer that dies after ComfyUI is clean and before the result is on record renders that attempt again.
        let renders: usize = after.iter().map(|(id, times)| times - ran.get(id).copied().unwrap_or(0)).sum();
        let attempts = done["tasks"][0]["attempts"].as_u64().context("attempts")?;
        let ended = Ended { again: fresh.is_empty(), attempts, renders };
        ensure!(
            (1..=2).contains(&ended.renders) && ended.attempts <= 2,
            "no more than a death explains: {ended:?}\n{done:#}"
        );
        let renderer_died = fault == Fault::KillBoth || (fault == Fault::Kill && self.at == WS);
        ensure!(renderer_died || renders == 1, "the renderer did not die: {ended:?}");
        Ok(ended)
    }

    fn submit(&self) -> [&str; 5] {
        ["submit", &self.graph, "--project", "kept", "--detach"]
    }

    /// Submits, and waits until the daemon is where it should be. Who submitted may get no answer.
    async fn until_it_stands(&self, mesh: &Cluster) -> Result<()> {
        let submit = self.submit();
        let submitting = async {
            let answer = mesh.cli(DESK, &submit).await?;
            ensure!(answer.code == 0, "it was not taken: {}{}", answer.stdout, answer.stderr);
            std::future::pending::<Result<()>>().await
        };
        let what = format!("{} stands still {} {}", self.at, self.when, self.record);
        let standing = eventually(&what, || async {
            Ok(if mesh.node(self.at).is_halted() { Ok(()) } else { Err(mesh.last_words()) })
        });
        tokio::select! {
            gone = submitting => gone,
            standing = standing => standing,
        }
    }

    /// Exactly one result, a picture that decodes; the renderer keeps nothing of it once it was fetched.
    async fn judge(&self, mesh: &Cluster, dir: &Path, job: &str) -> Result<()> {
        let out = dir.join(job);
        let fetched = mesh.ok(DESK, &["fetch", job, "--out", &out.display().to_string()]).await?;
        let [picture] = &outputs(&fetched)[..] else { anyhow::bail!("exactly one result: {fetched:#}") };
        png_pixels(picture)?;
        eventually("the renderer keeps nothing", || async {
            let mut left = files_below(&mesh.node(WS).dir.join("blobs"));
            for folder in ["input", "output", "temp"] {
                left.extend(files_below(&mesh.node(WS).comfy_dir().join(folder)));
            }
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .await
    }
}

fn submitted(answer: &Value) -> Result<String> {
    Ok(answer["job"].as_str().context("a job")?.to_owned())
}

async fn jobs(mesh: &Cluster) -> Result<BTreeSet<String>> {
    let listed = mesh.ok(DESK, &["jobs"]).await?;
    let jobs = listed["jobs"].as_array().context("a list of jobs")?.iter();
    Ok(jobs.filter_map(|job| job["job"].as_str().map(str::to_owned)).collect())
}

async fn sees(mesh: &Cluster, viewer: &str, of: &str, up: bool) -> Result<()> {
    eventually(&format!("{viewer} sees {of} {}", if up { "up" } else { "down" }), || async {
        let peers = mesh.ok(viewer, &["peers"]).await?;
        let mut list = peers["peers"].as_array().into_iter().flatten();
        let is_up = list.any(|peer| peer["name"] == of && peer["link"] == "up");
        Ok(if is_up == up { Ok(()) } else { Err(peers) })
    })
    .await
}

/// Locks and directories aside.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_none_or(|kind| kind != "lock") {
            found.push(path);
        }
    }
    found
}
