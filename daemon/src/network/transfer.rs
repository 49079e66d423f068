//! Sealed blobs over streams: serving them to the peers of live attempts, and fetching them.
//!
//! One stream carries any number of [`BlobGet`]s, each answered in order with a [`BlobHead`] and what it announces, so
//! that the next request is there before the last answer ends and no round trip is spent between them.
//!
//! [`BlobGet`]: scenemesh_protocol::messages::BlobGet
//! [`BlobHead`]: scenemesh_protocol::messages::BlobHead

use std::sync::Arc;
use std::time::Duration;

use libp2p::{Stream, StreamProtocol};
use scenemesh_protocol::ids::NodeId;
use tokio::sync::watch;

use super::swarm;

mod fetch;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use fetch::FetchError;
pub(super) use fetch::Fetcher;
pub(super) use serve::Server;

/// A stream that cannot be opened in this time will not be.
const OPENING: Duration = Duration::from_secs(10);

/// Opens streams on the links of the running main swarm.
#[derive(Clone)]
pub(super) struct Streams {
    control: libp2p_stream::Control,
    protocol: StreamProtocol,
}

impl Streams {
    /// A stream to a peer that is linked.
    async fn open(&self, peer: NodeId) -> Result<Stream, String> {
        let mut control = self.control.clone();
        let opening = control.open_stream(swarm::peer_id(peer), self.protocol.clone());
        match tokio::time::timeout(OPENING, opening).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no stream within {} s", OPENING.as_secs())),
        }
    }
}

/// Sealed bytes of blobs that went over links since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent: u64,
    /// Only what verified and is in the store.
    pub received: u64,
}

/// Counts traffic, for whoever watches.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<watch::Sender<Traffic>>);

impl Meter {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Traffic> {
        self.0.subscribe()
    }

    fn sent(&self, bytes: u64) {
        self.0.send_modify(|traffic| traffic.sent += bytes);
    }

    fn received(&self, bytes: u64) {
        self.0.send_modify(|traffic| traffic.received += bytes);
    }
}
