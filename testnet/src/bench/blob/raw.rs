//! One libp2p stream, as fast as it goes: no sealing, no hash, no disk.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Stream, StreamProtocol, Swarm, noise, tcp, yamux};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::end::address;
use super::{MIB, SOON};

const RAW: StreamProtocol = StreamProtocol::new("/scenemesh-bench/raw/1");

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    let building = libp2p::SwarmBuilder::with_new_identity().with_tokio();
    let building =
        building.with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?;
    let building = building.with_behaviour(|_| libp2p_stream::Behaviour::new())?;
    Ok(building.with_swarm_config(|config| config.with_idle_connection_timeout(SOON)).build())
}

/// Takes every stream that comes, until it is dropped; gives the address to dial.
pub(super) async fn take(listen: IpAddr) -> Result<(Multiaddr, JoinSet<Result<()>>)> {
    let mut swarm = swarm()?;
    swarm.listen_on(address(listen).parse()?)?;
    let address = timeout(SOON, async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    });
    let address = address.await.context("the raw stream's end does not listen")?;
    let address = address.with(Protocol::P2p(*swarm.local_peer_id()));
    let mut incoming = swarm.behaviour().new_control().accept(RAW)?;
    // The links run in tasks of their own; here somebody only has to ask the swarm.
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        while swarm.next().await.is_some() {}
        Ok(())
    });
    driving.spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            swallow(stream).await?;
        }
        Ok(())
    });
    Ok((address, driving))
}

/// Reads as many bytes as the first eight say, and says that they are there.
async fn swallow(mut stream: Stream) -> Result<()> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    let bytes = u64::from_le_bytes(bytes);
    let (mut buffer, mut received) = (vec![0; MIB], 0);
    while received < bytes {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the stream ended after {received} bytes");
        received += read as u64;
    }
    stream.write_all(b"!").await?;
    stream.flush().await?;
    Ok(())
}

/// How long it takes until the other end has so many MiB.
pub(super) async fn give(there: &Multiaddr, mib: usize) -> Result<Duration> {
    let Some(Protocol::P2p(peer)) = there.iter().last() else { anyhow::bail!("no peer in {there}") };
    let mut swarm = swarm()?;
    let mut control = swarm.behaviour().new_control();
    swarm.dial(there.clone())?;
    timeout(SOON, async {
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    })
    .await
    .context("dialling the other end")?;
    let mut driving = JoinSet::new();
    driving.spawn(async move { while swarm.next().await.is_some() {} });
    let mut stream = control.open_stream(peer, RAW).await?;
    let piece = vec![7; MIB];
    stream.write_all(&((mib * MIB) as u64).to_le_bytes()).await?;
    stream.flush().await?;
    let began = Instant::now();
    for _ in 0..mib {
        stream.write_all(&piece).await?;
    }
    stream.flush().await?;
    stream.read_exact(&mut [0]).await?;
    Ok(began.elapsed())
}
