//! The serving side: whoever the store allows gets the sealed bytes, segment by segment.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::StreamProtocol;
use scenemesh_protocol::codec;
use scenemesh_protocol::ids::{ContentHash, NodeId};
use scenemesh_protocol::messages::{BlobGet, BlobHead, BlobWant};
use scenemesh_protocol::sealed::Manifest;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Meter, Streams, wire};
use crate::network::shares::Shares;
use crate::network::{PeerTable, swarm};
use crate::store::{BlobError, Blobs};
use crate::supervisor::Tasks;

/// Streams served at once; each holds two segments in memory.
const STREAMS: usize = 64;
/// Of those, streams of one peer at most; fewer, the more peers are served.
const STREAMS_PER_PEER: usize = 24;
/// Streams beyond a peer's part that hear that we are busy, at once; further ones are dropped without a word.
const TURNED_AWAY: usize = 32;

/// Serves blobs on the main swarm while it is open.
pub(in crate::network) struct Server {
    desk: Desk,
    tasks: Tasks,
    open: Option<CancellationToken>,
}

/// What serving one stream needs.
#[derive(Clone)]
struct Desk {
    blobs: Blobs,
    peers: watch::Receiver<Arc<PeerTable>>,
    meter: Meter,
}

impl Server {
    pub(in crate::network) fn new(
        blobs: Blobs,
        peers: watch::Receiver<Arc<PeerTable>>,
        meter: Meter,
        tasks: Tasks,
    ) -> Self {
        let desk = Desk { blobs, peers, meter };
        Self { desk, tasks, open: None }
    }

    /// Begins to accept streams of a fresh swarm; the returned handle opens streams on the same swarm.
    ///
    /// # Panics
    /// When the swarm's blob protocol is accepted twice: a mistake in the caller.
    pub(in crate::network) fn open(
        &mut self,
        mut control: libp2p_stream::Control,
        protocol: StreamProtocol,
    ) -> Streams {
        self.close();
        let incoming =
            control.accept(protocol.clone()).expect("the swarm is fresh: nothing is registered on it");
        let closed = self.tasks.stopping().child_token();
        self.open = Some(closed.clone());
        let (desk, tasks) = (self.desk.clone(), self.tasks.clone());
        self.tasks.spawn("blob streams", async move {
            closed.run_until_cancelled(accept(incoming, desk, tasks, closed.clone())).await;
            Ok(())
        });
        Streams { control, protocol }
    }

    pub(in crate::network) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.cancel();
        }
    }
}

/// Whether a stream is served, or only told that we are busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Served,
    TurnedAway,
}

/// Only hands streams to tasks: whatever waits here is dropped by libp2p-stream without a word.
async fn accept(
    mut incoming: libp2p_stream::IncomingStreams,
    desk: Desk,
    tasks: Tasks,
    closed: CancellationToken,
) {
    let mut served = Shares::new(STREAMS, STREAMS_PER_PEER);
    let mut turned_away = Shares::new(TURNED_AWAY, TURNED_AWAY);
    // Each stream says once that it has ended.
    let (ended, mut ends) = mpsc::channel(STREAMS + TURNED_AWAY);
    loop {
        let (peer, stream) = tokio::select! {
            Some((peer, place)) = ends.recv() => {
                match place {
                    Place::Served => served.leave(&peer),
                    Place::TurnedAway => turned_away.leave(&peer),
                }
                continue;
            }
            accepted = incoming.next() => match accepted {
                Some(accepted) => accepted,
                None => return,
            },
        };
        let Some(peer) = swarm::node_id(&peer) else { continue };
        let place = if served.admit(peer) {
            Place::Served
        } else if turned_away.admit(peer) {
            Place::TurnedAway
        } else {
            tracing::debug!(peer = %peer.short(), "too many blob streams: one was dropped");
            continue;
        };
        let (desk, closed, ended) = (desk.clone(), closed.clone(), ended.clone());
        tasks.spawn("blob stream", async move {
            let serving = desk.serve(peer, stream, place);
            if let Some(Err(error)) = closed.run_until_cancelled(serving).await {
                tracing::debug!(peer = %peer.short(), %error, "a blob stream ended early");
            }
            // Nobody listens any more when the swarm is closed.
            let _ = ended.send((peer, place)).await;
            Ok(())
        });
    }
}

impl Desk {
    /// Answers requests until the peer ends the stream.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: NodeId,
        mut stream: S,
        place: Place,
    ) -> io::Result<()> {
        while let Some(get) = wire::in_time(wire::READING, wire::read_next::<BlobGet, _>(&mut stream)).await?
        {
            if place == Place::TurnedAway || !self.peers.borrow().is_up(&peer) {
                return wire::write_message(&mut stream, &BlobHead::Busy).await;
            }
            let Some(manifest) = self.allowed_manifest(peer, get.root).await? else {
                wire::write_message(&mut stream, &BlobHead::NotServed).await?;
                continue;
            };
            match get.want {
                BlobWant::Manifest => {
                    let frame = codec::encode(&*manifest);
                    wire::write_message(&mut stream, &BlobHead::Sending { bytes: frame.len() as u64 })
                        .await?;
                    wire::write(&mut stream, &frame).await?;
                    wire::flush(&mut stream).await?;
                }
                BlobWant::Segments(ranges) => match wanted(&manifest, &ranges) {
                    Some((indices, bytes)) => {
                        wire::write_message(&mut stream, &BlobHead::Sending { bytes }).await?;
                        self.send(peer, get.root, &indices, &mut stream).await?;
                    }
                    None => wire::write_message(&mut stream, &BlobHead::NotServed).await?,
                },
            }
        }
        Ok(())
    }

    async fn allowed_manifest(&self, peer: NodeId, root: ContentHash) -> io::Result<Option<Arc<Manifest>>> {
        if !self.blobs.is_allowed(root, peer, Instant::now()) {
            return Ok(None);
        }
        match self.blobs.manifest(root).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(BlobError::Unknown { .. }) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Sends segments in order, reading one ahead.
    async fn send<S: AsyncWrite + Unpin>(
        &self,
        peer: NodeId,
        root: ContentHash,
        indices: &[u32],
        stream: &mut S,
    ) -> io::Result<()> {
        let mut ready: Option<Bytes> = None;
        for index in indices {
            // Asked again for every segment: a right may end in the middle of a long blob.
            let welcome = self.peers.borrow().is_up(&peer);
            if !welcome || !self.blobs.is_allowed(root, peer, Instant::now()) {
                return Err(io::Error::other("the right to this blob has ended"));
            }
            let (next, ()) =
                tokio::try_join!(self.segment(root, *index), self.send_one(ready.take(), stream))?;
            ready = Some(next);
        }
        self.send_one(ready, stream).await?;
        wire::flush(stream).await
    }

    async fn segment(&self, root: ContentHash, index: u32) -> io::Result<Bytes> {
        self.blobs.segment(root, index).await.map_err(io::Error::other)
    }

    async fn send_one<S: AsyncWrite + Unpin>(
        &self,
        segment: Option<Bytes>,
        stream: &mut S,
    ) -> io::Result<()> {
        if let Some(segment) = segment {
            wire::in_time(wire::SEGMENT, wire::write(stream, &segment)).await?;
            self.meter.sent(segment.len() as u64);
        }
        Ok(())
    }
}

/// The segments of a request and their sealed bytes; none when it names what the blob does not have.
fn wanted(manifest: &Manifest, ranges: &[(u32, u32)]) -> Option<(Vec<u32>, u64)> {
    let mut indices = Vec::new();
    let mut bytes = 0;
    for (first, count) in ranges {
        let end = first.checked_add(*count).filter(|end| *end <= manifest.segment_count())?;
        for index in *first..end {
            let range = manifest.sealed_range(index)?;
            bytes += range.end - range.start;
            indices.push(index);
        }
        // Overlapping ranges could ask for more than there is, many times over.
        if indices.len() > manifest.segments().len() {
            return None;
        }
    }
    Some((indices, bytes))
}
