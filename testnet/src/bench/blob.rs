//! A large sealed blob from one node's store to another's, over TCP, against one raw libp2p stream that carries as many
//! bytes in the same run. The nodes are processes of their own: this one gives, a child takes.

mod end;
mod raw;
mod taker;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenemesh_protocol::codec;
use scenemesh_protocol::lease::BlobRef;
use serde_json::json;
use tokio::time::Instant;

use super::{Figures, ms};
use crate::talk::say;
use end::{Effort, End, Side};
pub(super) use taker::serve;
use taker::{Answer, Question, Taker};

const MIB: usize = 1 << 20;
const GIB: f64 = (1_u64 << 30) as f64;
const SOON: Duration = Duration::from_secs(30);

/// Where the two ends are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Place {
    /// This end listens here
    #[arg(long, hide = true, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(super) listen: IpAddr,
    /// The other end listens there
    #[arg(long, hide = true, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(super) taker: IpAddr,
    /// The other end runs in this network namespace
    #[arg(long, hide = true, value_name = "NAME")]
    pub(super) taker_namespace: Option<String>,
}

pub(super) async fn run(mib: usize, place: &Place) -> Result<Figures> {
    ensure!(mib > 0, "--mib 0: at least 1");
    let (mut taker, there) = Taker::start(place).await?;
    let before = raw::give(&there.raw, mib).await.context("the raw stream")?;
    let giver = End::new(Side::Giver, place.listen).await?;
    giver.network.add_addresses(Side::Taker.id(), there.addresses.clone()).await;
    giver.meets(Side::Taker).await?;
    taker.ask(&Question::Mark).await?;
    let effort = Effort::begin()?;

    let began = Instant::now();
    let mut sealer = giver.store.blobs.seal();
    let mut plain = vec![0; MIB];
    for n in 0..mib {
        plain[..8].copy_from_slice(&n.to_le_bytes());
        sealer.write(&plain).await?;
    }
    drop(plain);
    let sealed = sealer.finish().await?;
    let seal_s = began.elapsed().as_secs_f64();

    giver.store.blobs.allow(sealed.root, Side::Taker.id(), Instant::now() + Duration::from_hours(1));
    let blob = BlobRef { root: sealed.root, sealed_bytes: sealed.sealed_bytes };
    let blob = codec::encode_body(&(blob, sealed.key.clone()));
    let Answer::Took { send_s, open_s, opened, cpu_s: their_cpu_s, peak_mib: their_peak_mib } =
        taker.ask(&Question::Take { blob }).await?
    else {
        anyhow::bail!("the other end answers something else");
    };
    ensure!(opened == (mib * MIB) as u64, "{opened} bytes came out of {mib} MiB");
    let (cpu_s, peak_mib) = effort.end()?;
    let after = raw::give(&there.raw, mib).await.context("the raw stream")?;
    taker.end().await?;
    giver.supervisor.run_until(std::future::ready(())).await?;

    let bytes = (mib * MIB) as f64;
    let raw_s = f64::midpoint(before.as_secs_f64(), after.as_secs_f64());
    let rate = |took_s: f64| ms(bytes / took_s / 1e6);
    say(&format!("blob: {mib} MiB between two nodes, processes of their own, fsync on"));
    Ok(Figures::from_iter([
        ("mib".into(), json!(mib)),
        ("raw_mb_per_s".into(), rate(raw_s)),
        ("seal_mb_per_s".into(), rate(seal_s)),
        ("send_mb_per_s".into(), rate(send_s)),
        ("open_mb_per_s".into(), rate(open_s)),
        ("sealed_send_ratio".into(), ms(raw_s / send_s)),
        ("whole_way_ratio".into(), ms(raw_s / (seal_s + send_s + open_s))),
        ("cpu_s_per_gib".into(), ms((cpu_s + their_cpu_s) / (bytes / GIB))),
        ("giver_rss_mib".into(), ms(peak_mib)),
        ("taker_rss_mib".into(), ms(their_peak_mib)),
    ]))
}
