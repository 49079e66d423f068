//! The fetching side: manifest first, then what is missing over a few streams, verified as it comes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Stream;
use scenemesh_protocol::codec::HEADER_LEN;
use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::messages::{BlobGet, BlobHead, BlobWant};
use scenemesh_protocol::sealed::{BadManifest, Manifest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Meter, Streams, wire};
use crate::network::PeerTable;
use crate::store::{BlobError, Blobs, Incoming};

/// Blobs fetched at once; others wait their turn. Each holds up to eight segments in memory.
const FETCHES: usize = 32;
/// Of those, from one peer: a slow one holds up only what it has itself.
const FETCHES_PER_PEER: usize = 4;
/// Streams per blob. They share one link; more of them only help where a window is too small for the round trip.
const STREAMS: usize = 4;
/// Most segments asked for in one request. Two requests are under way per stream: what is asked for may all lie in memory
/// when the disk stalls, whatever the streams' windows grew to.
const BATCH: u32 = 2;
/// Rounds without a single new segment after which a fetch is given up.
const FRUITLESS: u32 = 6;
/// Pause after the first fruitless round; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a blob did not arrive. What did arrive stays in the store for the next try.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is not connected; the rest of the blob is fetched when it is back")]
    NotConnected(NodeId),
    /// It has none, or not for us: the two are not told apart.
    #[error("{peer:?} does not serve blob {} to this node", root.short())]
    NotServed { peer: NodeId, root: ContentHash },
    #[error("blob {} from {peer:?} stopped coming: {cause}", root.short())]
    Stalled { peer: NodeId, root: ContentHash, cause: String },
    /// The peer sent bytes that are not the blob.
    #[error("blob {} from {peer:?} does not verify: {cause}", root.short())]
    Corrupt { peer: NodeId, root: ContentHash, cause: String },
    #[error(transparent)]
    Store(#[from] BlobError),
}

/// Why a stream ended before its work was done.
enum Cut {
    /// Worth another round.
    Broken(String),
    Final(FetchError),
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Fetches blobs from peers; cheap to clone.
#[derive(Clone)]
pub(in crate::network) struct Fetcher {
    streams: watch::Receiver<Option<Streams>>,
    peers: watch::Receiver<Arc<PeerTable>>,
    blobs: Blobs,
    meter: Meter,
    turns: Turns,
}

/// Who may fetch now: first by peer, then of all.
#[derive(Clone)]
struct Turns {
    all: Arc<Semaphore>,
    by_peer: Arc<Mutex<HashMap<NodeId, Arc<Semaphore>>>>,
}

impl Turns {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(FETCHES)), by_peer: Arc::default() }
    }

    async fn of(&self, peer: NodeId) -> (OwnedSemaphorePermit, OwnedSemaphorePermit) {
        let own = {
            let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
            by_peer.retain(|_, turns| Arc::strong_count(turns) > 1);
            by_peer.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(FETCHES_PER_PEER))).clone()
        };
        let own = own.acquire_owned().await.expect("the semaphore is never closed");
        let one = self.all.clone().acquire_owned().await.expect("the semaphore is never closed");
        (own, one)
    }
}

/// Batches of segments that nobody has asked for yet.
struct Work(Mutex<VecDeque<Range<u32>>>);

impl Work {
    /// Cuts what is missing so that all streams get a share, and no batch is too long.
    fn cut(missing: &[Range<u32>]) -> Self {
        let total: u32 = missing.iter().map(ExactSizeIterator::len).map(|len| len as u32).sum();
        let batch = (total / (4 * STREAMS as u32)).clamp(1, BATCH);
        let mut batches = VecDeque::new();
        for range in missing {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + batch);
                batches.push_back(start..end);
                start = end;
            }
        }
        Self(Mutex::new(batches))
    }

    fn take(&self) -> Option<Range<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Fetcher {
    pub(in crate::network) fn new(
        streams: watch::Receiver<Option<Streams>>,
        peers: watch::Receiver<Arc<PeerTable>>,
        blobs: Blobs,
        meter: Meter,
    ) -> Self {
        Self { streams, peers, blobs, meter, turns: Turns::new() }
    }

    pub(in crate::network) async fn fetch(
        &self,
        peer: NodeId,
        task: TaskId,
        attempt: u32,
        blob: BlobRef,
    ) -> Result<(), FetchError> {
        if self.blobs.holds(blob.root) {
            return Ok(());
        }
        let _turn = self.turns.of(peer).await;
        let errand = Errand { fetcher: self, peer, task, attempt, blob };
        let (manifest, mut first) = errand.patient_manifest().await?;
        let incoming = self.blobs.receive(manifest).await?;
        let mut fruitless = 0;
        loop {
            let missing = incoming.missing();
            if missing.is_empty() {
                return Ok(incoming.finish().await?);
            }
            let Some(cause) = errand.round(&incoming, &missing, first.take()).await? else { continue };
            fruitless = if incoming.missing() == missing { fruitless + 1 } else { 0 };
            errand.pause_or_give_up(fruitless, cause).await?;
        }
    }
}

/// One blob, from one peer.
struct Errand<'a> {
    fetcher: &'a Fetcher,
    peer: NodeId,
    task: TaskId,
    attempt: u32,
    blob: BlobRef,
}

impl Errand<'_> {
    /// Asks for the manifest until it comes, while the peer is there.
    async fn patient_manifest(&self) -> Result<(Manifest, Option<Stream>), FetchError> {
        let mut fruitless = 0;
        loop {
            match self.manifest().await {
                Ok(done) => return Ok(done),
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Broken(cause)) => {
                    fruitless += 1;
                    self.pause_or_give_up(fruitless, cause).await?;
                }
            }
        }
    }

    async fn pause_or_give_up(&self, fruitless: u32, cause: String) -> Result<(), FetchError> {
        if !self.is_up() {
            return Err(FetchError::NotConnected(self.peer));
        }
        if fruitless >= FRUITLESS {
            return Err(FetchError::Stalled { peer: self.peer, root: self.blob.root, cause });
        }
        tokio::time::sleep(PAUSE * (1 << fruitless)).await;
        Ok(())
    }

    fn is_up(&self) -> bool {
        self.fetcher.peers.borrow().is_up(&self.peer)
    }

    async fn open(&self) -> Result<Stream, Cut> {
        if !self.is_up() {
            return Err(Cut::Final(FetchError::NotConnected(self.peer)));
        }
        let streams = self.fetcher.streams.borrow().clone();
        let streams = streams.ok_or(Cut::Final(FetchError::NotConnected(self.peer)))?;
        streams.open(self.peer).await.map_err(Cut::Broken)
    }

    async fn ask(&self, stream: &mut Stream, want: BlobWant) -> Result<(), Cut> {
        let get = BlobGet { task: self.task, attempt: self.attempt, root: self.blob.root, want };
        Ok(wire::write_message(stream, &get).await?)
    }

    /// Reads the head of an answer: how many bytes follow.
    async fn head(&self, stream: &mut Stream) -> Result<u64, Cut> {
        match wire::read_message(stream).await? {
            BlobHead::Sending { bytes } => Ok(bytes),
            BlobHead::Busy => Err(Cut::Broken("it is busy".into())),
            BlobHead::NotServed => {
                Err(Cut::Final(FetchError::NotServed { peer: self.peer, root: self.blob.root }))
            }
        }
    }

    fn corrupt(&self, cause: impl ToString) -> Cut {
        Cut::Final(FetchError::Corrupt { peer: self.peer, root: self.blob.root, cause: cause.to_string() })
    }

    /// The manifest, and the stream it came over: it can carry more.
    async fn manifest(&self) -> Result<(Manifest, Option<Stream>), Cut> {
        let mut stream = self.open().await?;
        self.ask(&mut stream, BlobWant::Manifest).await?;
        self.head(&mut stream).await?;
        let frame = wire::read_frame::<Manifest, _>(&mut stream).await?;
        let manifest = Manifest::open(&frame[HEADER_LEN..], &self.blob.root)
            .map_err(|error: BadManifest| self.corrupt(error))?;
        if manifest.sealed_bytes() != self.blob.sealed_bytes {
            let (has, said) = (manifest.sealed_bytes(), self.blob.sealed_bytes);
            return Err(self.corrupt(format!("it has {has} sealed bytes, the task says {said}")));
        }
        Ok((manifest, Some(stream)))
    }

    /// Asks for everything that is missing over several streams. `None`: all of it came; else why not.
    async fn round(
        &self,
        incoming: &Incoming,
        missing: &[Range<u32>],
        first: Option<Stream>,
    ) -> Result<Option<String>, FetchError> {
        let work = Work::cut(missing);
        // One stream after the other: the far end drops streams that arrive before it has taken the last.
        let opening = tokio::sync::Mutex::new(());
        const { assert!(STREAMS == 4) };
        // Spelled out: with a closure the compiler cannot see that the future may move between threads.
        let (a, b, c, d) = tokio::try_join!(
            self.haul(incoming, &work, &opening, first),
            self.haul(incoming, &work, &opening, None),
            self.haul(incoming, &work, &opening, None),
            self.haul(incoming, &work, &opening, None),
        )?;
        Ok(a.or(b).or(c).or(d))
    }

    /// Takes batches from the work until there is none left, over one stream; what broke it, if it broke.
    async fn haul(
        &self,
        incoming: &Incoming,
        work: &Work,
        opening: &tokio::sync::Mutex<()>,
        stream: Option<Stream>,
    ) -> Result<Option<String>, FetchError> {
        let mut last = None;
        let hauled = self.haul_batches(incoming, work, opening, stream, &mut last).await;
        // What has arrived is kept, however the stream ended.
        let kept = self.keep(incoming, last).await;
        match hauled.and(kept) {
            Ok(()) => Ok(None),
            Err(Cut::Broken(cause)) => Ok(Some(cause)),
            Err(Cut::Final(error)) => Err(error),
        }
    }

    async fn haul_batches(
        &self,
        incoming: &Incoming,
        work: &Work,
        opening: &tokio::sync::Mutex<()>,
        stream: Option<Stream>,
        last: &mut Option<(u32, Bytes)>,
    ) -> Result<(), Cut> {
        let mut turn = Some(opening.lock().await);
        if work.is_empty() {
            return Ok(());
        }
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.open().await?,
        };
        let mut asked = VecDeque::new();
        self.ask_next(&mut stream, work, &mut asked).await?;
        while let Some(batch) = asked.pop_front() {
            let bytes = self.head(&mut stream).await?;
            // The far end has taken the stream: the next one may knock.
            drop(turn.take());
            self.ask_next(&mut stream, work, &mut asked).await?;
            if bytes != sealed_bytes(incoming.manifest(), &batch) {
                return Err(self.corrupt("the announced length is not that of the segments"));
            }
            for index in batch {
                let reading = self.read_segment(incoming.manifest(), index, &mut stream);
                let (read, kept) = tokio::join!(reading, self.keep(incoming, last.take()));
                kept?;
                *last = Some((index, read?));
            }
        }
        Ok(())
    }

    /// Keeps two requests under way.
    async fn ask_next(
        &self,
        stream: &mut Stream,
        work: &Work,
        asked: &mut VecDeque<Range<u32>>,
    ) -> Result<(), Cut> {
        while asked.len() < 2
            && let Some(batch) = work.take()
        {
            let want = BlobWant::Segments(vec![(batch.start, batch.end - batch.start)]);
            self.ask(stream, want).await?;
            asked.push_back(batch);
        }
        Ok(())
    }

    async fn read_segment(&self, manifest: &Manifest, index: u32, stream: &mut Stream) -> Result<Bytes, Cut> {
        let len = manifest.sealed_range(index).map_or(0, |range| range.end - range.start);
        let mut sealed = vec![0; usize::try_from(len).unwrap_or_default()];
        wire::in_time(wire::SEGMENT, wire::read_exact(stream, &mut sealed)).await?;
        Ok(sealed.into())
    }

    /// Verifies and stores a segment, off this task.
    async fn keep(&self, incoming: &Incoming, segment: Option<(u32, Bytes)>) -> Result<(), Cut> {
        let Some((index, sealed)) = segment else { return Ok(()) };
        let bytes = sealed.len() as u64;
        incoming.write_segment(index, sealed).await.map_err(|error| match error {
            BlobError::Segment { source, .. } => self.corrupt(source),
            other => Cut::Final(other.into()),
        })?;
        self.fetcher.meter.received(bytes);
        Ok(())
    }
}

fn sealed_bytes(manifest: &Manifest, batch: &Range<u32>) -> u64 {
    batch.clone().filter_map(|index| manifest.sealed_range(index)).map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches<const N: usize>(missing: [Range<u32>; N]) -> Vec<Range<u32>> {
        let work = Work::cut(&missing);
        std::iter::from_fn(|| work.take()).collect()
    }

    #[tokio::test]
    async fn one_peer_does_not_take_all_turns() {
        use futures::FutureExt;
        let turns = Turns::new();
        let mut held = Vec::new();
        for peer in 1..8 {
            let peer = NodeId::from_bytes([peer; 32]);
            for _ in 0..FETCHES_PER_PEER {
                held.push(turns.of(peer).await);
            }
            assert!(turns.of(peer).now_or_never().is_none(), "its fifth waits");
        }
        assert!(turns.of(NodeId::from_bytes([9; 32])).now_or_never().is_some(), "another's first does not");
        drop(held);
        drop(turns.of(NodeId::from_bytes([9; 32])).await);
        assert_eq!(turns.by_peer.lock().unwrap().len(), 1);
    }

    #[test]
    fn work_is_cut_so_that_all_streams_get_a_share() {
        assert_eq!(batches([0..2, 5..6]), [0..1, 1..2, 5..6]);
        assert_eq!(batches([0..30, 40..42]).len(), 16);
        let many = batches([0..1000, 2000..2010]);
        assert!(many.iter().all(|batch| batch.len() <= 16));
        assert_eq!(many.iter().map(ExactSizeIterator::len).sum::<usize>(), 1010);
    }
}
