//! Nodes to test with: the network of a daemon, and a bare swarm that can misbehave.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm};
use scenemesh_protocol::ids::{ContentHash, TaskId};
use scenemesh_protocol::lease::Probe;
use scenemesh_protocol::messages::control_protocol;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::network::behaviour::{Main, MainEvent};
use crate::network::{swarm, *};
use crate::store;
use crate::supervisor::Supervisor;

/// Nothing here takes this long; a test that does has failed.
pub(in crate::network) const SOON: Duration = Duration::from_secs(30);
pub(in crate::network) const POOL: PoolId = PoolId::from_bytes([7; 16]);

/// One network with a store under it.
pub(in crate::network) struct Node {
    pub(in crate::network) id: NodeId,
    pub(in crate::network) network: Network,
    pub(in crate::network) events: Events,
    pub(in crate::network) blobs: Blobs,
    supervisor: Supervisor,
    _dir: TempDir,
}

/// Loopback, free ports, no neighbours.
pub(in crate::network) fn loopback() -> Config {
    let free = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    Config { listen: free.clone(), porch: free, mdns: false, ..Config::default() }
}

/// Keys in order: the first is the smallest node, which dials at once.
pub(in crate::network) fn keys<const N: usize>() -> [SecretKey; N] {
    let mut keys: [SecretKey; N] = std::array::from_fn(|_| SecretKey::generate());
    keys.sort_by_key(|key| key.public().node());
    keys
}

/// Members, each of its own studio.
pub(in crate::network) fn roster(members: &[&SecretKey]) -> RosterView {
    let studio = |n: usize| StudioId::from_bytes([u8::try_from(n).unwrap(); 16]);
    RosterView {
        digest: digest(),
        members: members.iter().enumerate().map(|(n, key)| (key.public().node(), studio(n))).collect(),
        parting: Arc::default(),
    }
}

pub(in crate::network) fn digest() -> RosterDigest {
    let nothing = ContentHash::of(b"");
    RosterDigest { epoch: 0, head: nothing, records: nothing }
}

pub(in crate::network) fn probe() -> Probe {
    Probe { task: TaskId::from_bytes([3; 16]), attempt: 1 }
}

impl Node {
    pub(in crate::network) async fn new(key: &SecretKey, config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let tasks = supervisor.tasks();
        let (store, _) = store::open(&store::Config::at(dir.path()), &tasks).await.unwrap();
        let identity = Identity { key: key.clone() };
        let (network, events) =
            spawn(config, identity, BootId::random(), store.blobs.clone(), &tasks).unwrap();
        Self { id: key.public().node(), network, events, blobs: store.blobs, supervisor, _dir: dir }
    }

    pub(in crate::network) async fn started(key: &SecretKey, members: &[&SecretKey]) -> Self {
        Self::started_with(key, members, loopback()).await
    }

    pub(in crate::network) async fn started_with(
        key: &SecretKey,
        members: &[&SecretKey],
        config: Config,
    ) -> Self {
        let node = Self::new(key, config).await;
        node.network.set_roster(roster(members));
        node.network.start(POOL).await.unwrap();
        node
    }

    pub(in crate::network) async fn main_addresses(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        let listening = timeout(SOON, listening.wait_for(|on| !on.main.is_empty())).await.unwrap().unwrap();
        listening.main.clone()
    }

    pub(in crate::network) async fn porch_addresses(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        let listening = timeout(SOON, listening.wait_for(|on| !on.porch.is_empty())).await.unwrap().unwrap();
        listening.porch.clone()
    }

    /// Tells this node where the other is.
    pub(in crate::network) async fn knows(&self, other: &Self) {
        self.network.add_addresses(other.id, other.main_addresses().await).await;
    }

    /// Waits until the table says so.
    pub(in crate::network) async fn sees(&self, other: NodeId, what: impl Fn(&PeerView) -> bool) -> PeerView {
        let mut peers = self.network.peers();
        let seen = timeout(SOON, peers.wait_for(|table| table.peers.get(&other).is_some_and(&what))).await;
        match seen {
            Ok(table) => table.unwrap().peers[&other].clone(),
            Err(_) => panic!("not seen in time; the table is {:#?}", self.network.peers().borrow()),
        }
    }

    pub(in crate::network) async fn sees_up(&self, other: &Self) -> PeerView {
        self.sees(other.id, |peer| peer.link == Link::Up).await
    }

    pub(in crate::network) async fn next_task_event(&mut self) -> TaskEvent {
        timeout(SOON, self.events.tasks.recv()).await.expect("an event comes soon").unwrap()
    }

    pub(in crate::network) async fn next_roster_event(&mut self) -> RosterEvent {
        timeout(SOON, self.events.roster.recv()).await.expect("an event comes soon").unwrap()
    }

    /// Waits for this peer's next coming or going.
    pub(in crate::network) async fn next_link_event(&mut self, of: NodeId) -> Option<BootId> {
        loop {
            match self.next_task_event().await {
                TaskEvent::PeerUp { peer, boot } if peer == of => return Some(boot),
                TaskEvent::PeerDown { peer } if peer == of => return None,
                _ => {}
            }
        }
    }

    /// Stops as a daemon does.
    pub(in crate::network) async fn shut_down(self) {
        self.supervisor.run_until(std::future::ready(())).await.unwrap();
    }
}

/// A bare main swarm that does only what a test tells it.
pub(in crate::network) struct Bare {
    pub(in crate::network) id: NodeId,
    pub(in crate::network) swarm: Swarm<Main>,
    _supervisor: Supervisor,
}

impl Bare {
    pub(in crate::network) async fn new(key: &SecretKey, friend: NodeId) -> Self {
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let keypair: Keypair = swarm::keypair(key).unwrap();
        let control = StreamProtocol::try_from_owned(control_protocol(&POOL)).unwrap();
        let main = Main::new(&keypair, "bare", control, &Config { mdns: false, ..Config::default() });
        let mut swarm = swarm::build(&keypair, main, SOON, &supervisor.tasks()).unwrap();
        swarm.behaviour_mut().allowed.allow_peer(swarm::peer_id(friend));
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let mut bare = Self { id: key.public().node(), swarm, _supervisor: supervisor };
        bare.until(|event| matches!(event, SwarmEvent::NewListenAddr { .. })).await;
        bare
    }

    pub(in crate::network) fn addresses(&self) -> Vec<String> {
        self.swarm.listeners().map(ToString::to_string).collect()
    }

    /// Lets the swarm run until it says this.
    pub(in crate::network) async fn until(
        &mut self,
        what: impl Fn(&SwarmEvent<MainEvent>) -> bool,
    ) -> SwarmEvent<MainEvent> {
        let found = async {
            loop {
                let event = self.swarm.select_next_some().await;
                if what(&event) {
                    return event;
                }
            }
        };
        timeout(SOON, found).await.expect("the swarm says so soon")
    }
}
