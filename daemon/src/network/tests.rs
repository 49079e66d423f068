//! Real swarms over TCP on the loopback, several networks in one process. Everything waits for facts.

use std::time::Duration;

use scenemesh_protocol::ids::{ContentHash, TaskId};
use scenemesh_protocol::lease::{AttemptState, Probe};
use tokio::time::timeout;

use super::*;
use crate::supervisor::Supervisor;

/// Nothing here takes this long; a test that does has failed.
const SOON: Duration = Duration::from_secs(30);
const POOL: PoolId = PoolId::from_bytes([7; 16]);

struct Node {
    id: NodeId,
    key: SecretKey,
    network: Network,
    events: Events,
    supervisor: Supervisor,
}

fn loopback() -> Config {
    let free = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    Config { listen: free.clone(), porch: free, mdns: false, ..Config::default() }
}

/// Keys in order: the first is the smallest node.
fn keys<const N: usize>() -> [SecretKey; N] {
    let mut keys: [SecretKey; N] = std::array::from_fn(|_| SecretKey::generate());
    keys.sort_by_key(|key| key.public().node());
    keys
}

impl Node {
    fn new(key: &SecretKey, config: Config) -> Self {
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let identity = Identity { key: key.clone() };
        let (network, events) =
            spawn(config, identity, BootId::random(), Blobs::default(), &supervisor.tasks()).unwrap();
        Self { id: key.public().node(), key: key.clone(), network, events, supervisor }
    }

    async fn started(key: &SecretKey, members: &[&SecretKey]) -> Self {
        let node = Self::new(key, loopback());
        node.network.set_roster(roster(members));
        node.network.start(POOL).await.unwrap();
        node
    }

    async fn main_addresses(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        let listening = timeout(SOON, listening.wait_for(|on| !on.main.is_empty())).await.unwrap().unwrap();
        listening.main.clone()
    }

    async fn porch_addresses(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        let listening = timeout(SOON, listening.wait_for(|on| !on.porch.is_empty())).await.unwrap().unwrap();
        listening.porch.clone()
    }

    async fn knows(&self, other: &Self) {
        self.network.add_addresses(other.id, other.main_addresses().await).await;
    }

    async fn sees(&self, other: NodeId, what: impl Fn(&PeerView) -> bool) -> PeerView {
        let mut peers = self.network.peers();
        let seen = peers.wait_for(|table| table.peers.get(&other).is_some_and(&what));
        let table = timeout(SOON, seen).await.expect("the fact comes soon").unwrap();
        table.peers[&other].clone()
    }

    async fn sees_up(&self, other: &Self) -> PeerView {
        self.sees(other.id, |peer| peer.link == Link::Up).await
    }

    async fn next_task_event(&mut self) -> TaskEvent {
        timeout(SOON, self.events.tasks.recv()).await.expect("an event comes soon").unwrap()
    }

    async fn shut_down(self) {
        self.supervisor.run_until(std::future::ready(())).await.unwrap();
    }
}

fn roster(members: &[&SecretKey]) -> RosterView {
    let nothing = ContentHash::of(b"");
    let studio = |n: usize| StudioId::from_bytes([u8::try_from(n).unwrap(); 16]);
    RosterView {
        digest: RosterDigest { epoch: 0, head: nothing, records: nothing },
        members: members.iter().enumerate().map(|(n, key)| (key.public().node(), studio(n))).collect(),
    }
}

fn probe() -> Probe {
    Probe { task: TaskId::from_bytes([3; 16]), attempt: 1 }
}

#[tokio::test]
async fn two_members_come_up_and_talk() {
    let [small, large] = keys();
    let one = Node::started(&small, &[&small, &large]).await;
    let mut two = Node::started(&large, &[&small, &large]).await;
    one.knows(&two).await;
    let seen = one.sees_up(&two).await;
    assert_eq!(seen.versions, Some((1, 1)));
    assert!(seen.agent.unwrap().starts_with("scenemeshd "));
    two.sees_up(&one).await;
    assert!(matches!(two.next_task_event().await, TaskEvent::PeerUp { peer, .. } if peer == one.id));

    let asking = tokio::join!(one.network.request(two.id, probe()), async {
        let TaskEvent::Request { from, request, reply } = two.next_task_event().await else { panic!() };
        assert_eq!((from, request), (one.id, Request::Probe(probe())));
        reply.send(AttemptState::Unknown);
    });
    assert_eq!(asking.0, Ok(Response::Attempt(AttemptState::Unknown)));

    let asking = tokio::join!(one.network.request(two.id, probe()), async {
        let TaskEvent::Request { reply, .. } = two.next_task_event().await else { panic!() };
        drop(reply);
    });
    assert!(matches!(asking.0, Err(RequestError::Declined(Declined { why: Decline::Busy, .. }))));
    one.shut_down().await;
    two.shut_down().await;
}
