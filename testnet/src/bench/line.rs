//! The blob bench over a line of a given rate: two network namespaces that are made for it and removed, with a pair of
//! virtual Ethernet devices between them, shaped by `tc` in both directions. Needs root, iproute2 and Linux.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Figures, ms};
use crate::talk::say;

/// As Ethernet has it: with jumbo frames a line looks faster than it is.
const MTU: &str = "1500";

/// Of the two namespaces alone; whatever else has these addresses on this machine.
const ADDRESSES: [&str; 2] = ["10.255.255.1", "10.255.255.2"];

/// Two network namespaces with nothing in them but a line from one to the other. Removed when dropped.
struct Namespaces([String; 2]);

impl Namespaces {
    async fn new(mbit: u32) -> Result<Self> {
        let me = std::process::id();
        let namespaces = Self(["giver", "taker"].map(|end| format!("scenemesh-bench-{me}-{end}")));
        let [giver, taker] = &namespaces.0;
        for namespace in [giver, taker] {
            ip(&["netns", "add", namespace]).await?;
        }
        let pair = ["link", "add", "line", "netns", giver, "type", "veth", "peer", "name", "line"];
        ip(&[&pair[..], &["netns", taker]].concat()).await?;
        let rate = format!("{mbit}mbit");
        for (namespace, address) in namespaces.0.iter().zip(ADDRESSES) {
            let address = format!("{address}/30");
            let shape = ["tc", "qdisc", "add", "dev", "line", "root", "tbf", "rate", &rate, "burst", "256kb"];
            let commands: [&[&str]; 4] = [
                &["ip", "link", "set", "lo", "up"],
                &["ip", "address", "add", &address, "dev", "line"],
                &["ip", "link", "set", "line", "up", "mtu", MTU],
                &[&shape[..], &["latency", "20ms"]].concat(),
            ];
            for command in commands {
                ip(&[&["netns", "exec", namespace][..], command].concat()).await?;
            }
        }
        Ok(namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in &self.0 {
            let removed = std::process::Command::new("ip").args(["netns", "del", namespace]).status();
            if !removed.is_ok_and(|status| status.success()) {
                say(&format!("the network namespace {namespace} is left over: ip netns del {namespace}"));
            }
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
    let namespaces = Namespaces::new(mbit).await?;
    let [giver, taker] = &namespaces.0;
    let program = std::env::current_exe().context("finding this program's own path")?;
    let output = Command::new("ip")
        .args(["netns", "exec", giver])
        .arg(program)
        .args(["bench", "blob", "--mib", &mib.to_string(), "--json"])
        .args(["--listen", ADDRESSES[0], "--taker", ADDRESSES[1], "--taker-namespace", taker])
        .kill_on_drop(true)
        .output()
        .await?;
    drop(namespaces);
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
