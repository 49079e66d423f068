//! Sealed blobs over streams: serving them to the peers of live attempts, and fetching them.

use std::sync::Arc;

use libp2p::StreamProtocol;
use scenemesh_protocol::ids::{NodeId, TaskId};
use scenemesh_protocol::lease::BlobRef;
use tokio::sync::watch;

use super::PeerTable;
use crate::store::Blobs;
use crate::supervisor::Tasks;

/// Why a blob did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is not connected")]
    NotConnected(NodeId),
}

/// Opens streams on the links of the running main swarm.
#[derive(Clone)]
pub(super) struct Streams {
    control: libp2p_stream::Control,
    protocol: StreamProtocol,
}

/// Fetches blobs from peers.
#[derive(Clone)]
pub(super) struct Fetcher {
    streams: watch::Receiver<Option<Streams>>,
    peers: watch::Receiver<Arc<PeerTable>>,
    blobs: Blobs,
    tasks: Tasks,
}

impl Fetcher {
    pub(super) fn new(
        streams: watch::Receiver<Option<Streams>>,
        peers: watch::Receiver<Arc<PeerTable>>,
        blobs: Blobs,
        tasks: Tasks,
    ) -> Self {
        Self { streams, peers, blobs, tasks }
    }

    pub(super) async fn fetch(
        &self,
        peer: NodeId,
        task: TaskId,
        attempt: u32,
        blob: BlobRef,
    ) -> Result<(), FetchError> {
        Err(FetchError::NotConnected(peer))
    }
}

/// Serves blobs to peers.
pub(super) struct Server {
    blobs: Blobs,
    peers: watch::Receiver<Arc<PeerTable>>,
    tasks: Tasks,
}

impl Server {
    pub(super) fn new(blobs: Blobs, peers: watch::Receiver<Arc<PeerTable>>, tasks: Tasks) -> Self {
        Self { blobs, peers, tasks }
    }

    pub(super) fn open(&mut self, mut control: libp2p_stream::Control, protocol: StreamProtocol) -> Streams {
        Streams { control, protocol }
    }

    pub(super) fn close(&mut self) {}
}
