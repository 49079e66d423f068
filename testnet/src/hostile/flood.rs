//! Floods: many links, garbage, streams that drip. Each is bounded in rate, in number and in time, and stops by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::AsyncWriteExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::bytes::{frame, frame_that_says, kind};
use super::keys::{Key, random};
use super::link::{Control, Link, PORCH, blob_of, control_of};
use super::member::Member;
use super::porch::Porch;

/// How large each flood is. What changes when you change it: how long the tests of the floods take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// TCP links in one flood of links, all told.
    pub links: u64,
    /// Of those, links that are held open at once.
    pub links_at_once: usize,
    /// Links opened per second.
    pub links_per_s: u64,
    /// Garbage per second, spread over all verbs of a protocol.
    pub garbage_per_s: u64,
    /// Bytes in one garbage frame.
    pub garbage_frame: usize,
    /// Substreams that drip one byte at a time.
    pub drips: usize,
    /// A drip's pause between two bytes.
    pub drip_ms: u64,
    /// No flood runs longer than this, whatever happens.
    pub longest_s: u64,
}

pub const SIZES: Sizes = Sizes {
    links: 10_000,
    links_at_once: 256,
    links_per_s: 500,
    garbage_per_s: 1 << 20,
    garbage_frame: 32 << 10,
    drips: 100,
    drip_ms: 200,
    longest_s: 60,
};

/// Ticks per second of everything that is paced.
const TICKS: u64 = 32;

/// A flood under way. Dropping it stops it.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    running: JoinSet<()>,
}

impl Flood {
    fn begin(flow: impl Future<Output = ()> + Send + 'static, sent: Arc<AtomicU64>) -> Self {
        let mut running = JoinSet::new();
        running.spawn(async move { drop(timeout(Duration::from_secs(SIZES.longest_s), flow).await) });
        Self { sent, running }
    }

    /// Bytes, links or streams so far, as the flood counts.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until it has stopped by itself.
    pub async fn ended(mut self) -> u64 {
        while self.running.join_next().await.is_some() {}
        self.sent()
    }

    /// Frames of random bodies, of every verb in turn, on the control protocol of a member.
    pub fn garbage_on_control(member: &Member) -> Self {
        let (control, node, protocol) = (member.link.control(), member.host(), control_of(&member.me.pool));
        Self::garbage(control, node, protocol, kind::CONTROL.to_vec())
    }

    /// The same on the blob protocol.
    pub fn garbage_on_blobs(member: &Member) -> Self {
        let (control, node, protocol) = (member.link.control(), member.host(), blob_of(&member.me.pool));
        Self::garbage(control, node, protocol, vec![kind::BLOB_GET])
    }

    fn garbage(control: Control, node: [u8; 32], protocol: String, kinds: Vec<u16>) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let flow = async move {
            let mut waiting = JoinSet::new();
            let mut verbs = kinds.iter().cycle();
            let mut pace = pace();
            loop {
                pace.tick().await;
                for _ in 0..frames_per_tick() {
                    let bytes = garbage_frame(*verbs.next().expect("some verb"));
                    let (mut control, protocol) = (control.clone(), protocol.clone());
                    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    waiting.spawn(async move { drop(control.exchange(&node, &protocol, &bytes).await) });
                    while waiting.len() > 64 {
                        waiting.join_next().await;
                    }
                }
            }
        };
        Self::begin(flow, sent)
    }

    /// Frames of random bodies, of every verb in turn, at a porch, by ever new strangers.
    pub fn garbage_at_porch(porch: &Porch) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, porch) = (sent.clone(), porch.clone());
        let flow = async move {
            let mut pace = pace();
            let mut verbs = kind::PORCH.iter().cycle();
            let mut link = None;
            loop {
                pace.tick().await;
                for _ in 0..frames_per_tick() {
                    let bytes = garbage_frame(*verbs.next().expect("some verb"));
                    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let open = match link.take() {
                        Some(open) => Some(open),
                        None => visit(&porch).await.ok(),
                    };
                    let Some(open) = open else { continue };
                    if open.exchange(&porch.node, PORCH, &bytes).await.is_ok() {
                        link = Some(open);
                    }
                }
            }
        };
        Self::begin(flow, sent)
    }

    /// Random bytes on TCP links to a port, no handshake at all.
    pub fn garbage_on_tcp(address: std::net::SocketAddr) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let flow = async move {
            let mut pace = pace();
            let mut stream: Option<TcpStream> = None;
            let piece = usize::try_from(SIZES.garbage_per_s / TICKS).unwrap_or(1);
            let mut noise = vec![0; piece];
            blake3::Hasher::new().update(&random::<32>()).finalize_xof().fill(&mut noise);
            loop {
                pace.tick().await;
                if stream.is_none() {
                    stream = TcpStream::connect(address).await.ok();
                }
                let Some(open) = &mut stream else { continue };
                counter.fetch_add(piece as u64, Ordering::Relaxed);
                if open.write_all(&noise).await.is_err() {
                    stream = None;
                }
            }
        };
        Self::begin(flow, sent)
    }

    /// Links that greet and never finish the handshake; [`Sizes::links`] of them, then it ends.
    pub fn links(address: std::net::SocketAddr) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let flow = async move {
            let mut held = std::collections::VecDeque::new();
            let mut pace = pace();
            let mut opened = 0;
            while opened < SIZES.links {
                pace.tick().await;
                for _ in 0..(SIZES.links_per_s / TICKS).min(SIZES.links - opened) {
                    opened += 1;
                    if let Ok(mut stream) = TcpStream::connect(address).await {
                        counter.fetch_add(1, Ordering::Relaxed);
                        drop(stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").await);
                        held.push_back(stream);
                    }
                    if held.len() > SIZES.links_at_once {
                        held.pop_front();
                    }
                }
            }
        };
        Self::begin(flow, sent)
    }

    /// Links that say nothing at all and stay.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub async fn silent_links(address: std::net::SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(TcpStream::connect(address).await.context("connecting")?);
        }
        Ok(held)
    }

    /// Substreams of a member that begin a long frame and go on a byte at a time.
    pub fn drips(member: &Member, protocol: String, kind: u16) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, control, node) = (sent.clone(), member.link.control(), member.host());
        let flow = async move {
            let mut streams = JoinSet::new();
            for _ in 0..SIZES.drips {
                let (mut control, protocol, counter) = (control.clone(), protocol.clone(), counter.clone());
                streams.spawn(async move {
                    let Ok(mut stream) = control.open(&node, &protocol).await else { return };
                    let mut bytes = frame_that_says(kind, 400, &[]);
                    bytes.resize(400, 0);
                    let mut pause = interval(Duration::from_millis(SIZES.drip_ms));
                    for byte in bytes {
                        pause.tick().await;
                        let dripped = async {
                            stream.write_all(&[byte]).await?;
                            stream.flush().await
                        };
                        if dripped.await.is_err() {
                            return;
                        }
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while streams.join_next().await.is_some() {}
        };
        Self::begin(flow, sent)
    }

    /// TCP links that send a text a byte at a time.
    pub fn drips_on_tcp(address: std::net::SocketAddr, text: &'static str) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let flow = async move {
            let mut streams = JoinSet::new();
            for _ in 0..SIZES.drips {
                let counter = counter.clone();
                streams.spawn(async move {
                    let mut pause = interval(Duration::from_millis(SIZES.drip_ms));
                    // Whoever is shown out comes again.
                    loop {
                        pause.tick().await;
                        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                        for byte in text.as_bytes().iter().cycle() {
                            pause.tick().await;
                            if stream.write_all(&[*byte]).await.is_err() {
                                break;
                            }
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            while streams.join_next().await.is_some() {}
        };
        Self::begin(flow, sent)
    }
}

async fn visit(porch: &Porch) -> Result<Link> {
    let link = Link::new(&Key::random())?;
    link.dial(&porch.node, &porch.address).await?;
    Ok(link)
}

fn pace() -> tokio::time::Interval {
    let mut pace = interval(Duration::from_secs(1) / TICKS as u32);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn frames_per_tick() -> u64 {
    SIZES.garbage_per_s / TICKS / SIZES.garbage_frame as u64
}

fn garbage_frame(kind: u16) -> Vec<u8> {
    let mut body = vec![0; SIZES.garbage_frame];
    blake3::Hasher::new().update(&random::<32>()).finalize_xof().fill(&mut body);
    frame(kind, &body)
}

/// How long something takes.
///
/// # Errors
/// Those of the thing.
pub async fn timed<T>(thing: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
    let begun = Instant::now();
    Ok((thing.await?, begun.elapsed()))
}
