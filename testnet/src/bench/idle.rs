//! What a daemon costs that only keeps its links and sends and receives adverts. Read from `/proc`, so on Linux only.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::programs;
use super::{Figures, ms};
use crate::cluster::{Cluster, Comfy};
use crate::talk::say;

/// Clock ticks per second of `/proc/PID/stat`: fixed at 100 in Linux's user interface (`man 5 proc`, USER_HZ).
const TICKS_PER_S: f64 = 100.0;

pub(super) async fn run(minutes: u64, nodes: usize) -> Result<Figures> {
    let home = tempfile::tempdir().context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(programs()?, home.path());
    let names: Vec<String> = (1..=nodes.max(2)).map(|at| format!("ws-{at:02}")).collect();
    for name in &names {
        mesh.add(name, Comfy::simulated(&[])).await?;
    }
    let others: Vec<&str> = names[1..].iter().map(String::as_str).collect();
    crate::scenarios::one_studio(&mut mesh, &names[0], &others).await?;

    let pids: Vec<u32> = mesh.nodes().filter_map(crate::cluster::Node::pid).collect();
    let before: Vec<f64> = pids.iter().map(|pid| cpu_s(*pid)).collect::<Result<_>>()?;
    say(&format!(
        "idle: {} daemons beside simulated ComfyUIs, nothing submitted, for {minutes} min",
        pids.len()
    ));
    let span = Duration::from_mins(minutes);
    tokio::time::sleep(span).await;
    let mut percent = Vec::new();
    let mut rss = Vec::new();
    for (pid, before) in pids.iter().zip(before) {
        percent.push((cpu_s(*pid)? - before) / span.as_secs_f64() * 100.0);
        rss.push(rss_mib(*pid)?);
    }
    Ok(Figures::from_iter([
        ("minutes".into(), json!(minutes)),
        ("nodes".into(), json!(pids.len())),
        ("cpu_percent".into(), ms(percent.iter().copied().fold(0.0, f64::max))),
        ("rss_mib".into(), ms(rss.iter().copied().fold(0.0, f64::max))),
    ]))
}

/// Processor seconds that a process has used, in user and kernel mode.
pub(super) fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("reading /proc (Linux only)")?;
    // The second field is the name in parentheses and may hold anything; count from its end.
    let after_name = stat.rsplit(") ").next().context("the fields of /proc/PID/stat")?;
    let field = |at: usize| after_name.split(' ').nth(at).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (field(11).context("utime")?, field(12).context("stime")?);
    Ok((user + system) / TICKS_PER_S)
}

/// Memory that a process holds, in MiB.
pub(super) fn rss_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
