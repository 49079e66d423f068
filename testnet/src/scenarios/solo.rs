//! A solo node has no socket but loopback, whatever it does.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::graph_file;
use crate::cluster::{CHECKPOINT, Cluster, Comfy};
use crate::workflows;

/// A socket of a process, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    kind: &'static str,
    local: String,
    remote: String,
    listens: bool,
    loopback: bool,
}

fn inodes(pid: u32) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile is no socket of the process any more.
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let text = link.display().to_string();
        if let Some(inode) = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            found.insert(inode.parse()?);
        }
    }
    Ok(found)
}

fn address(text: &str) -> Option<IpAddr> {
    let (ip, _) = text.split_once(':')?;
    if ip.len() == 8 {
        return Some(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.swap_bytes()).into());
    }
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.swap_bytes());
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let bits = words.iter().fold(0_u128, |bits, word| bits << 32 | u128::from(*word));
    let ip = Ipv6Addr::from(bits);
    Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
}

/// All sockets of a process; unnamed pairs of Unix sockets, which lead nowhere, aside.
///
/// # Errors
/// When the kernel's tables cannot be read.
fn sockets(pid: u32) -> Result<Vec<Socket>> {
    let mine = inodes(pid)?;
    let mut found = Vec::new();
    for kind in ["tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6"] {
        let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")) else { continue };
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode: u64 = words.get(9).context("an inode")?.parse()?;
            if !mine.contains(&inode) {
                continue;
            }
            let here = |text: &str| address(text).is_some_and(|ip| ip.is_loopback());
            // 0A: LISTEN, which has no other end.
            let listens = words[3] == "0A";
            found.push(Socket {
                kind,
                local: words[1].to_owned(),
                remote: words[2].to_owned(),
                listens,
                loopback: kind.starts_with("tcp") && here(words[1]) && (listens || here(words[2])),
            });
        }
    }
    let unix = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    for line in unix.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let inode = words.get(6).and_then(|inode| inode.parse().ok());
        if let (true, Some(path)) = (inode.is_some_and(|inode| mine.contains(&inode)), words.get(7)) {
            let (local, remote) = ((*path).to_owned(), String::new());
            found.push(Socket { kind: "unix", local, remote, listens: true, loopback: false });
        }
    }
    for kind in ["packet", "netlink", "icmp", "icmp6"] {
        let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")) else { continue };
        for line in table.lines().skip(1) {
            let last = line.split_whitespace().rev().take(4).filter_map(|word| word.parse().ok());
            if last.into_iter().any(|inode: u64| inode > 1000 && mine.contains(&inode)) {
                let (local, remote) = (line.to_owned(), String::new());
                found.push(Socket { kind, local, remote, listens: false, loopback: false });
            }
        }
    }
    Ok(found)
}

fn only_loopback(mesh: &Cluster, node: &str, when: &str) -> Result<()> {
    let found = sockets(mesh.node(node).pid().context("the daemon runs")?)?;
    ensure!(found.iter().any(|socket| socket.listens), "{when}: its API listens: {found:#?}");
    let bad: Vec<_> = found.iter().filter(|socket| !socket.loopback).collect();
    ensure!(bad.is_empty(), "{when}: sockets that are not loopback: {bad:#?}");
    Ok(())
}

/// # Errors
/// When any of it does not hold.
pub async fn run(mesh: &mut Cluster, dir: &Path) -> Result<()> {
    mesh.add("alone", Comfy::simulated(&["--step-ms", "100"])).await?;
    let words =
        ["init", "--pool", "home", "--studio", "amber", "--name", "alone", "--no-passphrase", "--solo"];
    mesh.ok("alone", &words).await?;
    only_loopback(mesh, "alone", "after init")?;

    let graph = graph_file(dir, "slow.json", &workflows::keyframe(CHECKPOINT, 3, 10, 64))?;
    let job = mesh.ok("alone", &["submit", &graph, "--detach"]).await?;
    let id = job["job"].as_str().context("a job id")?.to_owned();
    let samples = |job: &Value| job["tasks"][0]["progress"]["step"].as_u64() > Some(0);
    mesh.job_until("alone", &id, "it samples", samples).await?;
    only_loopback(mesh, "alone", "while it renders")?;
    mesh.job_until("alone", &id, "it is done", |job| job["state"] == "done").await?;
    only_loopback(mesh, "alone", "when it is done")?;
    let out = dir.join("out").display().to_string();
    mesh.ok("alone", &["fetch", &id, "--out", &out]).await?;
    let doctor = mesh.cli("alone", &["doctor"]).await?;
    let solo = |check: &Value| check["name"] == "ports" && check["state"] == "ok";
    ensure!(doctor.json["checks"].as_array().is_some_and(|all| all.iter().any(solo)), "{}", doctor.stdout);
    only_loopback(mesh, "alone", "after doctor")?;

    for refused in [vec!["invite"], vec!["invite", "--new-studio", "birch"]] {
        let answer = mesh.cli("alone", &refused).await?;
        ensure!(answer.code == 6 && answer.stderr.contains("solo"), "{}", answer.stderr);
    }
    // It stays what it is over a kill.
    mesh.kill("alone").await?;
    mesh.start("alone").await?;
    let status = mesh.ok("alone", &["status"]).await?;
    ensure!(status["solo"] == true && status["standing"] == "member", "{status:#}");
    ensure!(status["listening"] == serde_json::json!([]), "{status:#}");
    only_loopback(mesh, "alone", "after a restart")?;

    // A node that is not solo shows that the test sees what it looks for.
    mesh.add("open", Comfy::Absent).await?;
    mesh.found("open", "aurora", "birch").await?;
    let found = sockets(mesh.node("open").pid().context("the daemon runs")?)?;
    let listeners = found.iter().filter(|socket| socket.listens).count();
    ensure!(listeners >= 3, "API, main port and porch: {found:#?}");
    Ok(())
}
