//! A wire that can be cut: a TCP relay on loopback that counts what passes and breaks on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A relay from its own address to a target. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    open: watch::Sender<bool>,
    /// Ends the connections that are up when it changes.
    cut: watch::Sender<u64>,
    relayed: Arc<AtomicU64>,
    /// Cuts by itself once this many bytes have passed; `u64::MAX` for never.
    cut_at: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on an ephemeral loopback port and relays to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the relay")?;
        let address = listener.local_addr()?;
        let (target, targets) = watch::channel(target);
        let (open, opens) = watch::channel(true);
        let (cut, cuts) = watch::channel(0);
        let relayed = Arc::new(AtomicU64::new(0));
        let cut_at = Arc::new(AtomicU64::new(u64::MAX));
        let mut accepting = JoinSet::new();
        let (counter, limit, cutter) = (relayed.clone(), cut_at.clone(), cut.clone());
        accepting.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while links.try_join_next().is_some() {}
                if !*opens.borrow() {
                    continue;
                }
                let target = *targets.borrow();
                let wire = Wire {
                    counter: counter.clone(),
                    limit: limit.clone(),
                    cutter: cutter.clone(),
                    cuts: cuts.clone(),
                };
                links.spawn(async move {
                    if let Ok(far) = TcpStream::connect(target).await {
                        wire.relay(near, far).await;
                    }
                });
            }
        });
        Ok(Self { address, target, open, cut, relayed, cut_at, _accepting: accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays new connections to another target.
    pub fn aim(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Breaks every connection and refuses new ones until [`Proxy::heal`].
    pub fn cut(&self) {
        self.open.send_replace(false);
        self.cut.send_modify(|count| *count += 1);
    }

    pub fn heal(&self) {
        self.open.send_replace(true);
    }

    /// Breaks every connection once `bytes` more have passed; new connections are let through.
    pub fn break_after(&self, bytes: u64) {
        let at = self.relayed.load(Ordering::SeqCst) + bytes;
        self.cut_at.store(at, Ordering::SeqCst);
    }

    /// Bytes relayed so far, both ways.
    pub fn relayed(&self) -> u64 {
        self.relayed.load(Ordering::SeqCst)
    }

    /// How often connections were broken.
    pub fn cuts(&self) -> u64 {
        *self.cut.borrow()
    }
}

struct Wire {
    counter: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
    cutter: watch::Sender<u64>,
    cuts: watch::Receiver<u64>,
}

impl Wire {
    async fn relay(mut self, near: TcpStream, far: TcpStream) {
        drop(near.set_nodelay(true));
        drop(far.set_nodelay(true));
        self.cuts.mark_unchanged();
        let mut cuts = self.cuts.clone();
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::select! {
            _ = cuts.changed() => {}
            () = self.pump(near_read, far_write) => {}
            () = self.pump(far_read, near_write) => {}
        }
    }

    async fn pump(&self, mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            let passed = self.counter.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if passed >= self.limit.load(Ordering::SeqCst) {
                self.limit.store(u64::MAX, Ordering::SeqCst);
                self.cutter.send_modify(|count| *count += 1);
                return;
            }
        }
    }
}
