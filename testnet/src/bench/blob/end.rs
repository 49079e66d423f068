//! One of the two nodes: a store on disk and the network over it, and what it costs its process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use scenemesh_protocol::ids::{BootId, ContentHash, NodeId, PoolId, StudioId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::roster::RosterDigest;
use scenemeshd::network::{self, Network, RosterView};
use scenemeshd::store::{self, Store};
use scenemeshd::supervisor::Supervisor;
use tempfile::TempDir;
use tokio::time::timeout;

use super::SOON;
use crate::bench::idle::{cpu_s, rss_mib};

/// Which of the two it is. Their keys are no secret: nothing but bytes of this bench is sealed to them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Giver,
    Taker,
}

impl Side {
    fn key(self) -> SecretKey {
        let seed = match self {
            Self::Giver => [1; 32],
            Self::Taker => [2; 32],
        };
        SecretKey::from_seed(&seed)
    }

    pub(super) fn id(self) -> NodeId {
        self.key().public().node()
    }
}

pub(super) struct End {
    pub(super) store: Store,
    pub(super) network: Network,
    pub(super) supervisor: Supervisor,
    _events: network::Events,
    _dir: TempDir,
}

impl End {
    pub(super) async fn new(side: Side, listen: IpAddr) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a data directory")?;
        let supervisor = Supervisor::new(Duration::from_secs(10));
        let tasks = supervisor.tasks();
        let (store, _) = store::open(&store::Config::at(dir.path()), &tasks).await?;
        let free = vec![address(listen)];
        let config =
            network::Config { listen: free.clone(), porch: free, mdns: false, ..network::Config::default() };
        let identity = network::Identity { key: side.key() };
        let (network, events) =
            network::spawn(config, identity, BootId::random(), store.blobs.clone(), &tasks)?;
        let nothing = ContentHash::of(b"");
        let digest = RosterDigest { epoch: 0, head: nothing, records: nothing };
        let studio = StudioId::from_bytes([1; 16]);
        let members = [Side::Giver, Side::Taker].map(|side| (side.id(), studio)).into_iter().collect();
        network.set_roster(RosterView { digest, members, parting: Arc::default() });
        network.start(PoolId::from_bytes([7; 16])).await?;
        Ok(Self { store, network, supervisor, _events: events, _dir: dir })
    }

    /// Waits until the other is linked.
    pub(super) async fn meets(&self, other: Side) -> Result<()> {
        let mut peers = self.network.peers();
        let up = timeout(SOON, peers.wait_for(|table| table.is_up(&other.id()))).await;
        up.context("the two do not meet")??;
        Ok(())
    }
}

/// Any free port there.
pub(super) fn address(listen: IpAddr) -> String {
    let family = if listen.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{family}/{listen}/tcp/0")
}

/// What this process does from a moment on.
#[derive(Debug)]
pub(super) struct Effort {
    cpu_s: f64,
    rss_mib: f64,
}

impl Effort {
    /// Counts from here on, the peak of memory too.
    pub(super) fn begin() -> Result<Self> {
        let me = std::process::id();
        std::fs::write("/proc/self/clear_refs", "5").context("writing /proc/self/clear_refs (Linux only)")?;
        Ok(Self { cpu_s: cpu_s(me)?, rss_mib: rss_mib(me)? })
    }

    /// Processor seconds since then, and how far memory rose above what it was, in MiB.
    pub(super) fn end(&self) -> Result<(f64, f64)> {
        let me = std::process::id();
        Ok((cpu_s(me)? - self.cpu_s, peak_mib(me)? - self.rss_mib))
    }
}

/// The most memory that a process held, in MiB.
fn peak_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
