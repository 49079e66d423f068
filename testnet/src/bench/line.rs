//! The blob bench over a line of a given rate: loopback of a network namespace that is made for it and removed, shaped by
//! `tc`. Needs root, iproute2 and Linux.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Figures, ms};
use crate::talk::say;

/// As Ethernet has it: with jumbo frames a line looks faster than it is.
const MTU: &str = "1500";

/// A network namespace with nothing in it but a shaped loopback. Removed when dropped.
struct Namespace(String);

impl Namespace {
    async fn new(mbit: u32) -> Result<Self> {
        let namespace = Self(format!("scenemesh-bench-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]).await?;
        let inside = |arguments: &[&str]| {
            let mut all = vec!["netns", "exec", &namespace.0];
            all.extend(arguments);
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rate = format!("{mbit}mbit");
        let shape = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", &rate, "burst", "256kb"];
        let shape = [&shape[..], &["latency", "20ms"]].concat();
        for command in [&["ip", "link", "set", "lo", "up", "mtu", MTU][..], &shape] {
            let command = inside(command);
            ip(&command.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
        if !removed.is_ok_and(|status| status.success()) {
            say(&format!("the network namespace {} is left over: ip netns del {}", self.0, self.0));
        }
    }
}

async fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().await.context("running ip: is iproute2 here?")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ip {}: {said} (this bench needs root)", arguments.join(" "));
    Ok(())
}

pub(super) async fn run(mib: usize, mbit: u32) -> Result<Figures> {
    ensure!(mbit > 0, "--line-mbit 0: at least 1");
    let namespace = Namespace::new(mbit).await?;
    let program = std::env::current_exe().context("finding this program's own path")?;
    let output = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(program)
        .args(["bench", "blob", "--mib", &mib.to_string(), "--json"])
        .kill_on_drop(true)
        .output()
        .await?;
    drop(namespace);
    ensure!(output.status.success(), "the bench failed: {}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = stdout.lines().last().context("the bench says nothing")?;
    let mut figures: Figures = serde_json::from_str::<Value>(last)?.as_object().cloned().unwrap_or_default();
    figures.retain(|name, _| !matches!(name.as_str(), "schema" | "ok"));
    let line = f64::from(mbit) / 8.0;
    for (name, rate) in [("line_ratio", "send_mb_per_s"), ("raw_line_ratio", "raw_mb_per_s")] {
        let rate = figures[rate].as_f64().context("a rate")?;
        figures.insert(name.into(), ms(rate / line));
    }
    figures.insert("line_mbit".into(), json!(mbit));
    say(&format!(
        "the same over a line of {mbit} Mbit/s; TCP/IP and acknowledgements take their part of it too"
    ));
    Ok(figures)
}
