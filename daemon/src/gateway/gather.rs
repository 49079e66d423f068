//! Asks linked nodes what their classes look like. Most nodes of a studio have the same classes: what is known already is
//! not sent again, and is here once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use scenemesh_protocol::ids::{ContentHash, NodeId, StudioId};
use scenemesh_protocol::messages::{
    DEFINITIONS_PART, DEFINITIONS_PARTS, Decline, DefinitionsGet, DefinitionsPart, Response,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::executor::definitions::{BadDefinitions, Definitions};
use crate::network::{Link, Network, PeerTable, RequestError};
use crate::supervisor::Tasks;

/// Nodes asked at once.
const AT_ONCE: usize = 4;
/// A node tells all in this time, or is asked again later.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(30);
/// Most bytes of JSON that is kept of all nodes together. A stock ComfyUI has one and a half mebibytes, a large
/// installation six.
const MOST: usize = 64 << 20;
/// Roots that a question names at most.
const MOST_KNOWN: usize = 32;

/// What nodes told.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Those of a studio's nodes are mostly the same ones.
    pub definitions: BTreeMap<NodeId, Arc<Definitions>>,
    /// Who was asked to the end, whatever came of it.
    pub heard: BTreeSet<NodeId>,
}

/// Keeps it as nodes come and change.
pub(super) fn spawn(network: Network, tasks: &Tasks) -> watch::Receiver<Arc<Gathered>> {
    let (sender, receiver) = watch::channel(Arc::default());
    let (own, stop) = (tasks.clone(), tasks.stopping());
    tasks.spawn("gateway definitions", async move {
        stop.run_until_cancelled(run(network, own, sender)).await;
        Ok(())
    });
    receiver
}

async fn run(network: Network, tasks: Tasks, sender: watch::Sender<Arc<Gathered>>) {
    let mut peers = network.peers();
    let mut shelf = Shelf::default();
    let mut asking = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        shelf.forget_all_but(&peers.borrow_and_update());
        while asking.len() < AT_ONCE
            && let Some((node, said)) = shelf.next(now, &peers.borrow())
        {
            let known = shelf.known();
            let (network, tasks) = (network.clone(), tasks.clone());
            asking.push(async move { (node, said, ask(&network, &tasks, node, known).await) });
        }
        if std::mem::take(&mut shelf.changed) {
            sender.send_replace(Arc::new(shelf.gathered()));
        }
        let again = if asking.len() < AT_ONCE { shelf.next_try(&peers.borrow()) } else { None };
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            Some((node, said, answer)) = asking.next() => shelf.answered(Instant::now(), node, said, answer),
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }
}

/// What a node's definitions turned out to be.
#[derive(Clone, Debug)]
enum Answer {
    /// It has none, or tells none.
    None,
    /// Those of this root, which were here.
    Known(ContentHash),
    New(ContentHash, Arc<Definitions>, usize),
}

/// Why a node could not be asked to the end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("it did not tell all in {} s", PATIENCE.as_secs())]
    Slow,
    #[error("its answer is not to the question")]
    Odd,
    #[error("they changed while they were told")]
    Changed,
    #[error(transparent)]
    Bad(#[from] BadDefinitions),
    #[error("this node is stopping")]
    Stopping,
}

impl Failure {
    /// Whether asking again would be answered the same.
    fn lasts(&self) -> bool {
        match self {
            Self::Request(RequestError::Declined(declined)) => declined.why == Decline::Unsupported,
            Self::Odd | Self::Bad(_) => true,
            Self::Request(_) | Self::Slow | Self::Changed | Self::Stopping => false,
        }
    }
}

async fn ask(
    network: &Network,
    tasks: &Tasks,
    node: NodeId,
    known: Vec<ContentHash>,
) -> Result<Answer, Failure> {
    let asked = async |part, have| match network.request(node, DefinitionsGet { part, have }).await? {
        Response::Definitions(part) => Ok(part),
        _ => Err(Failure::Odd),
    };
    let told = tokio::time::timeout(PATIENCE, async {
        let first = asked(0, known.clone()).await?;
        let mut parts = Parts::begin(first, &known)?;
        while let Some(part) = parts.lacking() {
            parts.take(asked(part, Vec::new()).await?)?;
        }
        Ok::<_, Failure>(parts)
    });
    let Parts { root, of, bytes } = told.await.map_err(|_| Failure::Slow)??;
    if of == 0 {
        return Ok(Answer::None);
    }
    if bytes.is_empty() {
        return Ok(Answer::Known(root));
    }
    let unpacked = tasks.blocking(move || {
        if ContentHash::of(&bytes) != root {
            return Err(Failure::Odd);
        }
        Ok(Definitions::unpack(&bytes)?)
    });
    let (definitions, len) = unpacked.await.map_err(|_| Failure::Stopping)??;
    Ok(Answer::New(root, Arc::new(definitions), len))
}

/// Definitions as they arrive.
#[derive(Debug)]
struct Parts {
    root: ContentHash,
    of: u16,
    bytes: Vec<u8>,
}

impl Parts {
    fn begin(first: DefinitionsPart, known: &[ContentHash]) -> Result<Self, Failure> {
        let DefinitionsPart { root, parts, bytes } = first;
        if known.contains(&root) {
            // Whatever else it sent.
            return Ok(Self { root, of: parts.max(1), bytes: Vec::new() });
        }
        if parts > DEFINITIONS_PARTS {
            return Err(Failure::Odd);
        }
        let mut begun = Self { root, of: parts, bytes: Vec::new() };
        if parts > 0 {
            begun.take(DefinitionsPart { root, parts, bytes })?;
        }
        Ok(begun)
    }

    fn lacking(&self) -> Option<u16> {
        let have = u16::try_from(self.bytes.len().div_ceil(DEFINITIONS_PART)).unwrap_or(u16::MAX);
        (have > 0 && have < self.of).then_some(have)
    }

    fn take(&mut self, part: DefinitionsPart) -> Result<(), Failure> {
        if part.root != self.root {
            return Err(Failure::Changed);
        }
        let have = self.bytes.len().div_ceil(DEFINITIONS_PART);
        let last = have + 1 == usize::from(self.of);
        let whole = part.bytes.len() == DEFINITIONS_PART;
        let fits = whole || (last && (1..DEFINITIONS_PART).contains(&part.bytes.len()));
        if part.parts != self.of || !fits {
            return Err(Failure::Odd);
        }
        self.bytes.extend_from_slice(&part.bytes);
        Ok(())
    }
}

/// PURE: what was told by whom, and whom to ask next.
#[derive(Debug, Default)]
struct Shelf {
    nodes: BTreeMap<NodeId, Told>,
    asking: BTreeSet<NodeId>,
    definitions: HashMap<ContentHash, (Arc<Definitions>, usize)>,
    /// Whether somebody's definitions are others than before.
    changed: bool,
}

/// What makes it worth asking: the root of what the node shows, which its advert names, and whose it is: the nodes of
/// one's own studio tell more.
type Said = (ContentHash, StudioId);

#[derive(Debug)]
struct Told {
    said: Said,
    root: Option<ContentHash>,
    again: Option<Instant>,
}

impl Shelf {
    fn forget_all_but(&mut self, peers: &PeerTable) {
        let before = self.nodes.len();
        self.nodes.retain(|node, _| peers.peers.contains_key(node));
        if self.nodes.len() == before {
            return;
        }
        self.changed = true;
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        let used: BTreeSet<ContentHash> = self.nodes.values().filter_map(|told| told.root).collect();
        self.definitions.retain(|root, _| used.contains(root));
    }

    fn known(&self) -> Vec<ContentHash> {
        self.definitions.keys().copied().take(MOST_KNOWN).collect()
    }

    /// A node that is to be asked now, and the root that its advert names.
    fn next(&mut self, now: Instant, peers: &PeerTable) -> Option<(NodeId, Said)> {
        let next = peers.peers.iter().find_map(|(node, peer)| {
            let advert = peer.advert.as_ref().filter(|_| peer.link == Link::Up)?;
            let said = (advert.inventory_root, peer.studio);
            let news = match self.nodes.get(node) {
                Some(told) => told.said != said || told.again.is_some_and(|again| again <= now),
                None => true,
            };
            (news && !self.asking.contains(node)).then_some((*node, said))
        })?;
        self.asking.insert(next.0);
        Some(next)
    }

    fn next_try(&self, peers: &PeerTable) -> Option<Instant> {
        let waiting = self.nodes.iter().filter(|(node, _)| !self.asking.contains(node) && peers.is_up(node));
        waiting.filter_map(|(_, told)| told.again).min()
    }

    fn answered(&mut self, now: Instant, node: NodeId, said: Said, answer: Result<Answer, Failure>) {
        self.asking.remove(&node);
        let known = self.nodes.get(&node);
        let (first, before) = (known.is_none(), known.and_then(|told| told.root));
        let (root, again) = match answer {
            Ok(Answer::None) => (None, None),
            Ok(Answer::Known(root)) if self.definitions.contains_key(&root) => (Some(root), None),
            // It was forgotten meanwhile.
            Ok(Answer::Known(_)) => (before, Some(now)),
            Ok(Answer::New(root, definitions, len)) => {
                let held: usize = self.definitions.values().map(|(_, len)| len).sum();
                if self.definitions.contains_key(&root) || held + len <= MOST {
                    self.definitions.entry(root).or_insert((definitions, len));
                    (Some(root), None)
                } else {
                    tracing::warn!(peer = %node.short(), "too many different definitions: this node is known by names only");
                    (None, None)
                }
            }
            Err(failure) if failure.lasts() => {
                tracing::info!(peer = %node.short(), %failure, "a node's classes are known by names only");
                (None, None)
            }
            Err(failure) => {
                tracing::debug!(peer = %node.short(), %failure, "a node did not tell its definitions; it is asked again");
                (before, Some(now + PAUSE))
            }
        };
        self.nodes.insert(node, Told { said, root, again });
        if first || root != before {
            self.changed = true;
            self.forget_unused();
        }
    }

    fn gathered(&self) -> Gathered {
        let of = |told: &Told| Some(self.definitions.get(&told.root?)?.0.clone());
        let definitions = self.nodes.iter().filter_map(|(node, told)| Some((*node, of(told)?)));
        Gathered { definitions: definitions.collect(), heard: self.nodes.keys().copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::advert::Advert;
    use scenemesh_protocol::messages::Declined;

    use super::super::reachable::tests::peer;
    use super::*;
    use crate::network::testing::advert;

    fn part(root: u8, of: u16, len: usize) -> DefinitionsPart {
        DefinitionsPart { root: ContentHash::from_bytes([root; 32]), parts: of, bytes: vec![root; len] }
    }

    #[test]
    fn parts_come_in_order_and_whole() {
        let mut parts = Parts::begin(part(1, 3, DEFINITIONS_PART), &[]).unwrap();
        assert_eq!(parts.lacking(), Some(1));
        assert!(matches!(parts.take(part(2, 3, DEFINITIONS_PART)), Err(Failure::Changed)));
        for odd in
            [part(1, 4, DEFINITIONS_PART), part(1, 3, 7), part(1, 3, 0), part(1, 3, DEFINITIONS_PART + 1)]
        {
            assert!(matches!(parts.take(odd), Err(Failure::Odd)));
        }
        parts.take(part(1, 3, DEFINITIONS_PART)).unwrap();
        assert_eq!(parts.lacking(), Some(2));
        parts.take(part(1, 3, 7)).unwrap();
        assert_eq!((parts.lacking(), parts.bytes.len()), (None, 2 * DEFINITIONS_PART + 7));
        assert!(matches!(
            Parts::begin(part(1, DEFINITIONS_PARTS + 1, DEFINITIONS_PART), &[]),
            Err(Failure::Odd)
        ));
        assert!(matches!(Parts::begin(part(1, 1, 0), &[]), Err(Failure::Odd)));
        let none = Parts::begin(part(1, 0, 0), &[]).unwrap();
        assert_eq!((none.of, none.lacking()), (0, None));
        let known = Parts::begin(part(1, 3, 0), &[ContentHash::from_bytes([1; 32])]).unwrap();
        assert_eq!((known.lacking(), known.bytes.len()), (None, 0));
    }

    fn definitions(class: &str) -> Arc<Definitions> {
        let info = format!(r#"{{"{class}": {{"input": {{}}, "output": []}}}}"#);
        Arc::new(Definitions::read(info.as_bytes()).unwrap())
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn root(n: u8) -> ContentHash {
        ContentHash::from_bytes([n; 32])
    }

    /// As the advert of a node of the studio that [`peer`] gives it.
    fn said(n: u8) -> Said {
        (root(n), StudioId::from_bytes([1; 16]))
    }

    /// `(node, the root its advert names)`.
    fn table(nodes: &[(u8, u8)]) -> PeerTable {
        let row = |&(node, said): &(u8, u8)| {
            let mut view = peer(Link::Up, &[]);
            view.advert = Some(Arc::new(Advert { inventory_root: root(said), ..advert(id(node)) }));
            (id(node), view)
        };
        PeerTable { peers: nodes.iter().map(row).collect() }
    }

    #[test]
    fn each_node_is_asked_once_for_what_it_shows_and_later_where_it_failed() {
        let now = Instant::now();
        let peers = table(&[(1, 1), (2, 1)]);
        let mut shelf = Shelf::default();
        assert_eq!(shelf.next(now, &peers), Some((id(1), said(1))));
        assert_eq!(shelf.next(now, &peers), Some((id(2), said(1))));
        assert_eq!(shelf.next(now, &peers), None, "both are being asked");
        let new = Answer::New(root(9), definitions("A"), 10);
        shelf.answered(now, id(1), said(1), Ok(new));
        shelf.answered(now, id(2), said(1), Err(Failure::Slow));
        assert_eq!(shelf.next(now, &peers), None);
        assert_eq!(shelf.next_try(&peers), Some(now + PAUSE));
        assert_eq!(shelf.next_try(&table(&[(1, 1)])), None, "whoever is away is not waited for");
        assert_eq!(shelf.next(now + PAUSE, &peers), Some((id(2), said(1))));
        assert_eq!(shelf.known(), [root(9)]);
        shelf.answered(now, id(2), said(1), Ok(Answer::Known(root(9))));
        let gathered = shelf.gathered().definitions;
        assert!(Arc::ptr_eq(&gathered[&id(1)], &gathered[&id(2)]), "they are here once");
        assert_eq!(
            shelf.next(now, &table(&[(1, 1), (2, 3)])),
            Some((id(2), said(3))),
            "it shows something new"
        );
        let mut moved = peers;
        moved.peers.get_mut(&id(1)).unwrap().studio = StudioId::from_bytes([2; 16]);
        let new = (root(1), StudioId::from_bytes([2; 16]));
        assert_eq!(shelf.next(now, &moved), Some((id(1), new)), "it is another studio's now");
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let now = Instant::now();
        let mut shelf = Shelf::default();
        shelf.next(now, &table(&[(1, 1)])).unwrap();
        shelf.answered(now, id(1), said(1), Ok(Answer::New(root(9), definitions("A"), 10)));
        assert!(std::mem::take(&mut shelf.changed));
        shelf.forget_all_but(&table(&[(1, 1)]));
        assert!(!shelf.changed && !shelf.definitions.is_empty());
        shelf.forget_all_but(&table(&[]));
        assert!(shelf.changed && shelf.definitions.is_empty() && shelf.gathered().definitions.is_empty());
    }

    #[test]
    fn an_older_release_is_known_by_names_and_not_asked_over_and_over() {
        let now = Instant::now();
        let peers = table(&[(1, 1)]);
        let mut shelf = Shelf::default();
        shelf.next(now, &peers).unwrap();
        let declined = Declined { why: Decline::Unsupported, detail: String::new() };
        shelf.answered(now, id(1), said(1), Err(RequestError::Declined(declined).into()));
        assert_eq!((shelf.next(now + 10 * PAUSE, &peers), shelf.next_try(&peers)), (None, None));
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let now = Instant::now();
        let peers = table(&[(1, 1), (2, 1)]);
        let mut shelf = Shelf::default();
        for node in [1, 2] {
            shelf.next(now, &peers).unwrap();
            let new = Answer::New(root(node), definitions("A"), MOST / 2 + 1);
            shelf.answered(now, id(node), said(1), Ok(new));
        }
        let gathered = shelf.gathered();
        assert_eq!(gathered.definitions.keys().collect::<Vec<_>>(), [&id(1)]);
        assert_eq!(gathered.heard.len(), 2);
        assert_eq!(shelf.next_try(&peers), None);
    }
}
