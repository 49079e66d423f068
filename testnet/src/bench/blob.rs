//! A large sealed blob from one node's store to another's, over TCP on loopback, against one raw libp2p stream that carries
//! as many bytes in the same run. Both nodes live in this process: processor time and memory are those of both ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, noise, tcp, yamux};
use scenemesh_protocol::ids::{BootId, ContentHash, NodeId, PoolId, StudioId, TaskId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::roster::RosterDigest;
use scenemeshd::network::{self, Network, RosterView};
use scenemeshd::store::{self, Store};
use scenemeshd::supervisor::Supervisor;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::idle::{cpu_s, rss_mib};
use super::{Figures, ms};
use crate::talk::say;

const MIB: usize = 1 << 20;
const GIB: f64 = (1_u64 << 30) as f64;
const RAW: StreamProtocol = StreamProtocol::new("/scenemesh-bench/raw/1");
const SOON: Duration = Duration::from_secs(30);

/// A store and the network over it.
struct End {
    id: NodeId,
    store: Store,
    network: Network,
    _events: network::Events,
    supervisor: Supervisor,
    _dir: TempDir,
}

impl End {
    async fn new(key: &SecretKey, members: &[NodeId]) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a data directory")?;
        let supervisor = Supervisor::new(Duration::from_secs(10));
        let tasks = supervisor.tasks();
        let (store, _) = store::open(&store::Config::at(dir.path()), &tasks).await?;
        let free = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let config =
            network::Config { listen: free.clone(), porch: free, mdns: false, ..network::Config::default() };
        let identity = network::Identity { key: key.clone() };
        let (network, events) =
            network::spawn(config, identity, BootId::random(), store.blobs.clone(), &tasks)?;
        let nothing = ContentHash::of(b"");
        let digest = RosterDigest { epoch: 0, head: nothing, records: nothing };
        let studio = StudioId::from_bytes([1; 16]);
        let members = members.iter().map(|node| (*node, studio)).collect();
        network.set_roster(RosterView { digest, members, parting: Arc::default() });
        network.start(PoolId::from_bytes([7; 16])).await?;
        Ok(Self { id: key.public().node(), store, network, _events: events, supervisor, _dir: dir })
    }

    async fn meets(&self, other: &Self) -> Result<()> {
        let mut listening = other.network.listening();
        let addresses = timeout(SOON, listening.wait_for(|on| !on.main.is_empty())).await??.main.clone();
        self.network.add_addresses(other.id, addresses).await;
        let mut peers = self.network.peers();
        timeout(SOON, peers.wait_for(|table| table.is_up(&other.id)))
            .await
            .context("the two do not meet")??;
        Ok(())
    }
}

pub(super) async fn run(mib: usize) -> Result<Figures> {
    ensure!(mib > 0, "--mib 0: at least 1");
    let before = raw(mib).await.context("the raw stream")?;
    let mut keys = [SecretKey::generate(), SecretKey::generate()];
    keys.sort_by_key(|key| key.public().node());
    let members = keys.each_ref().map(|key| key.public().node());
    let giver = End::new(&keys[0], &members).await?;
    let taker = End::new(&keys[1], &members).await?;
    giver.meets(&taker).await?;
    taker.meets(&giver).await?;
    let me = std::process::id();
    let (idle_rss, idle_cpu) = (rss_mib(me)?, cpu_s(me)?);
    forget_peak()?;

    let began = Instant::now();
    let mut sealer = giver.store.blobs.seal();
    let mut plain = vec![0; MIB];
    for n in 0..mib {
        plain[..8].copy_from_slice(&n.to_le_bytes());
        sealer.write(&plain).await?;
    }
    drop(plain);
    let sealed = sealer.finish().await?;
    let seal = began.elapsed();

    giver.store.blobs.allow(sealed.root, taker.id, Instant::now() + Duration::from_hours(1));
    let blob = BlobRef { root: sealed.root, sealed_bytes: sealed.sealed_bytes };
    let began = Instant::now();
    taker.network.fetch(giver.id, TaskId::from_bytes([5; 16]), 1, blob).await?;
    let send = began.elapsed();

    let began = Instant::now();
    let mut opener = taker.store.blobs.open(sealed.root, &sealed.key).await?;
    let mut opened = 0;
    while let Some(piece) = opener.next().await? {
        opened += piece.len();
    }
    let open = began.elapsed();
    ensure!(opened == mib * MIB, "{opened} bytes came out of {mib} MiB");
    let (peak, cpu) = (peak_mib(me)? - idle_rss, cpu_s(me)? - idle_cpu);
    for end in [giver, taker] {
        end.supervisor.run_until(std::future::ready(())).await?;
    }
    let after = raw(mib).await.context("the raw stream")?;

    let bytes = (mib * MIB) as f64;
    let raw = f64::midpoint(before.as_secs_f64(), after.as_secs_f64());
    let rate = |took: f64| ms(bytes / took / 1e6);
    let whole = (seal + send + open).as_secs_f64();
    say(&format!("blob: {mib} MiB between two nodes on loopback, fsync on, both ends in this process"));
    Ok(Figures::from_iter([
        ("mib".into(), json!(mib)),
        ("raw_mb_per_s".into(), rate(raw)),
        ("seal_mb_per_s".into(), rate(seal.as_secs_f64())),
        ("send_mb_per_s".into(), rate(send.as_secs_f64())),
        ("open_mb_per_s".into(), rate(open.as_secs_f64())),
        ("sealed_send_ratio".into(), ms(raw / send.as_secs_f64())),
        ("whole_way_ratio".into(), ms(raw / whole)),
        ("cpu_s_per_gib".into(), ms(cpu / (bytes / GIB))),
        ("rss_mib".into(), ms(peak)),
    ]))
}

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    let building = libp2p::SwarmBuilder::with_new_identity().with_tokio();
    let building =
        building.with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?;
    let building = building.with_behaviour(|_| libp2p_stream::Behaviour::new())?;
    Ok(building.with_swarm_config(|config| config.with_idle_connection_timeout(SOON)).build())
}

/// One stream, as fast as it goes: no sealing, no hash, no disk.
async fn raw(mib: usize) -> Result<Duration> {
    let (mut giver, mut taker) = (swarm()?, swarm()?);
    taker.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = taker.select_next_some().await {
            break address;
        }
    };
    let peer = *taker.local_peer_id();
    let mut incoming = taker.behaviour().new_control().accept(RAW)?;
    let mut control = giver.behaviour().new_control();
    giver.dial(address)?;
    while !matches!(
        tokio::select! { event = giver.select_next_some() => Some(event), _ = taker.select_next_some() => None },
        Some(SwarmEvent::ConnectionEstablished { .. })
    ) {}
    // The links run in tasks of their own; here somebody only has to ask the swarms.
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(async move { while giver.next().await.is_some() {} });
    driving.spawn(async move { while taker.next().await.is_some() {} });
    let mut receiving = tokio::task::JoinSet::new();
    receiving.spawn(async move {
        let (_, mut stream) = incoming.next().await.context("no stream")?;
        let (mut buffer, mut received) = (vec![0; MIB], 0);
        while received < mib * MIB {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "the stream ended after {received} bytes");
            received += read;
        }
        stream.write_all(b"!").await?;
        stream.flush().await?;
        anyhow::Ok(())
    });
    let mut stream = control.open_stream(peer, RAW).await?;
    let piece = vec![7; MIB];
    let began = Instant::now();
    for _ in 0..mib {
        stream.write_all(&piece).await?;
    }
    stream.flush().await?;
    stream.read_exact(&mut [0]).await?;
    let took = began.elapsed();
    receiving.join_next().await.context("the receiver")???;
    Ok(took)
}

/// From here on the peak is counted anew.
fn forget_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("writing /proc/self/clear_refs (Linux only)")
}

/// The most memory that a process held, in MiB.
fn peak_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
