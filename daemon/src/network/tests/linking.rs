//! Links: who comes up, who is refused, how many links stay, and what happens after a loss.

use libp2p::request_response::{Event, Message};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use scenemesh_protocol::codec::DecodeError;
use scenemesh_protocol::lease::AttemptState;
use scenemesh_protocol::messages::Hello;

use super::harness::*;
use crate::clock::wall_ms;
use crate::network::behaviour::MainEvent;
use crate::network::*;

#[tokio::test]
async fn two_members_come_up_and_talk() {
    let [small, large] = keys();
    let one = Node::started(&small, &[&small, &large]).await;
    let mut two = Node::started(&large, &[&small, &large]).await;
    one.knows(&two).await;
    let seen = one.sees_up(&two).await;
    assert_eq!(seen.versions, Some((1, 1)));
    assert!(seen.agent.unwrap().starts_with("scenemeshd "));
    assert!(seen.skew_ms.unwrap().abs() < 60_000);
    two.sees_up(&one).await;
    assert!(two.next_link_event(one.id).await.is_some());
    assert!(matches!(two.next_roster_event().await, RosterEvent::Hello { peer, .. } if peer == one.id));

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

#[tokio::test]
async fn a_stranger_is_refused_and_told_why() {
    let [stranger, member] = keys();
    let mut stranger = Node::started(&stranger, &[&stranger, &member]).await;
    let member = Node::started(&member, &[&member]).await;
    stranger.knows(&member).await;
    let event = stranger.next_roster_event().await;
    assert!(matches!(event, RosterEvent::ShutOut { peer, .. } if peer == member.id), "{event:?}");
    let seen = stranger.sees(member.id, |peer| peer.last_error.is_some()).await;
    assert_eq!(seen.link, Link::Down);
    assert!(seen.last_error.unwrap().contains("may not know yet"));
    assert!(member.network.peers().borrow().peers.is_empty());
    let refused = stranger.network.request(member.id, probe()).await;
    assert_eq!(refused, Err(RequestError::NotConnected(member.id)));
}

#[tokio::test]
async fn nothing_is_heard_before_hello() {
    let [small, large] = keys();
    let node = Node::started(&small, &[&small, &large]).await;
    let mut bare = Bare::new(&large, node.id).await;
    node.network.add_addresses(bare.id, bare.addresses()).await;
    bare.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    let peer = swarm::peer_id(node.id);
    bare.swarm.behaviour_mut().control.send_request(&peer, Ok(probe().into()));
    let refusal = answer(&mut bare).await;
    assert!(matches!(refusal, Response::Declined(Declined { why: Decline::NoHello, .. })), "{refusal:?}");
    assert_eq!(node.network.peers().borrow().peers[&bare.id].link, Link::Down);
}

#[tokio::test]
async fn a_wrong_clock_is_said_in_words_and_heals() {
    let [small, large] = keys();
    let node = Node::started(&small, &[&small, &large]).await;
    let mut bare = Bare::new(&large, node.id).await;
    node.network.add_addresses(bare.id, bare.addresses()).await;
    bare.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    let mut hello = Hello {
        pool: POOL,
        boot: BootId::random(),
        versions: (1, 1),
        agent: "bare".into(),
        roster: digest(),
        feeds: Vec::new(),
        now_ms: wall_ms() - 20 * 60_000,
    };
    let peer = swarm::peer_id(node.id);
    bare.swarm.behaviour_mut().control.send_request(&peer, Ok(hello.clone().into()));
    let refusal = answer(&mut bare).await;
    assert!(matches!(refusal, Response::Declined(Declined { why: Decline::NotAllowed, .. })), "{refusal:?}");
    let seen = node.sees(bare.id, |peer| matches!(peer.link, Link::Refused { .. })).await;
    let Link::Refused { words } = seen.link else { panic!() };
    assert!(words.contains("20 minutes behind"), "{words}");

    hello.now_ms = wall_ms();
    bare.swarm.behaviour_mut().control.send_request(&peer, Ok(hello.clone().into()));
    let is_hello = |event: &SwarmEvent<MainEvent>| matches!(message(event), Some(Message::Request { .. }));
    // Its own Hello comes again, is answered, and the peer is up.
    loop {
        let event = bare.until(is_hello).await;
        let SwarmEvent::Behaviour(MainEvent::Control(Event::Message {
            message: Message::Request { channel, .. },
            ..
        })) = event
        else {
            panic!()
        };
        let answered = bare.swarm.behaviour_mut().control.send_response(channel, Ok(hello.clone().into()));
        if answered.is_ok() {
            let sees_up = node.sees(bare.id, |peer| peer.link == Link::Up);
            tokio::select! {
                _ = sees_up => break,
                _ = bare.until(|_| false) => {}
            }
        }
    }
}

#[tokio::test]
async fn a_node_of_another_pool_is_refused_in_words() {
    let [small, large] = keys();
    let one = Node::started(&small, &[&small, &large]).await;
    let two = Node::new(&large, loopback()).await;
    two.network.set_roster(roster(&[&small, &large]));
    two.network.start(PoolId::from_bytes([8; 16])).await.unwrap();
    one.knows(&two).await;
    let seen = one.sees(two.id, |peer| matches!(peer.link, Link::Refused { .. })).await;
    let Link::Refused { words } = seen.link else { panic!() };
    assert!(words.contains("another pool"), "{words}");
}

#[tokio::test]
async fn of_two_links_one_stays() {
    let [small, large] = keys();
    let node = Node::started(&small, &[&small, &large]).await;
    let mut bare = Bare::new(&large, node.id).await;
    node.network.add_addresses(bare.id, bare.addresses()).await;
    let event = bare.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    let SwarmEvent::ConnectionEstablished { connection_id: first, .. } = event else { panic!() };
    // As if both had dialled at once: the larger node's link goes.
    dial(&mut bare, &node).await;
    let event = bare.until(|event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    let SwarmEvent::ConnectionClosed { connection_id, num_established, .. } = event else { panic!() };
    assert_ne!(connection_id, first);
    assert_eq!(num_established, 1);
}

async fn dial(bare: &mut Bare, node: &Node) {
    let addresses = node.main_addresses().await.iter().map(|text| text.parse().unwrap()).collect();
    let options = DialOpts::peer_id(swarm::peer_id(node.id))
        .condition(PeerCondition::Always)
        .addresses(addresses)
        .allocate_new_port()
        .build();
    bare.swarm.dial(options).unwrap();
}

type Said = Message<Result<Request, DecodeError>, Result<Response, DecodeError>>;

fn message(event: &SwarmEvent<MainEvent>) -> Option<&Said> {
    match event {
        SwarmEvent::Behaviour(MainEvent::Control(Event::Message { message, .. })) => Some(message),
        _ => None,
    }
}

/// The next answer that a bare swarm gets.
async fn answer(bare: &mut Bare) -> Response {
    let event = bare.until(|event| matches!(message(event), Some(Message::Response { .. }))).await;
    match event {
        SwarmEvent::Behaviour(MainEvent::Control(Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => response.unwrap(),
        _ => unreachable!("just matched"),
    }
}

#[tokio::test]
async fn a_dropped_member_loses_its_link_at_once() {
    let [small, large] = keys();
    let mut one = Node::started(&small, &[&small, &large]).await;
    let two = Node::started(&large, &[&small, &large]).await;
    one.knows(&two).await;
    assert!(one.next_link_event(two.id).await.is_some());
    two.sees_up(&one).await;
    one.network.set_roster(roster(&[&small]));
    assert!(one.next_link_event(two.id).await.is_none());
    two.sees(one.id, |peer| peer.link == Link::Down).await;
    assert_eq!(one.network.request(two.id, probe()).await, Err(RequestError::NotConnected(two.id)));
}

#[tokio::test]
async fn a_restarted_member_is_a_new_boot() {
    let [small, large] = keys();
    let first = Node::started(&small, &[&small, &large]).await;
    let mut two = Node::started(&large, &[&small, &large]).await;
    first.knows(&two).await;
    let boot = two.next_link_event(first.id).await;
    assert!(boot.is_some());
    first.sees_up(&two).await;
    first.shut_down().await;
    assert_eq!(two.next_link_event(small.public().node()).await, None);
    let again = Node::started(&small, &[&small, &large]).await;
    again.knows(&two).await;
    let new_boot = two.next_link_event(again.id).await;
    assert!(new_boot.is_some() && new_boot != boot);
    again.sees_up(&two).await;
}

#[tokio::test]
async fn a_killed_member_is_dialled_again_where_it_was() {
    let [small, large] = keys();
    let mut one = Node::started(&small, &[&small, &large]).await;
    let (address, born) = oneshot::channel();
    let (kill, killed) = oneshot::channel::<()>();
    let keys = [small.clone(), large.clone()];
    let life = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let node = runtime.block_on(async {
            let [small, large] = &keys;
            let node = Node::started(large, &[small, large]).await;
            address.send(node.main_addresses().await).unwrap();
            killed.await.unwrap();
            node
        });
        // No goodbye: every task is dropped where it stands.
        runtime.shutdown_background();
        drop(node);
    });
    let address = born.await.unwrap();
    let id = large.public().node();
    one.network.add_addresses(id, address.clone()).await;
    assert!(one.next_link_event(id).await.is_some());
    kill.send(()).unwrap();
    assert!(one.next_link_event(id).await.is_none());
    life.join().unwrap();
    let config = Config { listen: address, ..loopback() };
    let two = Node::started_with(&large, &[&small, &large], config).await;
    assert!(one.next_link_event(two.id).await.is_some());
    two.sees_up(&one).await;
}

#[tokio::test]
async fn a_stopped_network_is_gone_and_can_start_again() {
    let [small, large] = keys();
    let mut one = Node::started(&small, &[&small, &large]).await;
    let two = Node::started(&large, &[&small, &large]).await;
    one.knows(&two).await;
    assert!(one.next_link_event(two.id).await.is_some());
    two.sees_up(&one).await;
    one.network.stop().await;
    assert_eq!(*one.network.listening().borrow(), Listening::default());
    assert!(one.next_link_event(two.id).await.is_none());
    two.sees(one.id, |peer| peer.link == Link::Down).await;
    one.network.start(POOL).await.unwrap();
    assert!(one.next_link_event(two.id).await.is_some());
}

#[tokio::test]
async fn a_taken_port_is_said_and_nothing_stays_open() {
    let [small, large] = keys();
    let one = Node::started(&small, &[&small]).await;
    let taken = one.main_addresses().await;
    let two = Node::new(&large, Config { porch: taken.clone(), ..loopback() }).await;
    let error = two.network.start(POOL).await.unwrap_err();
    assert!(error.to_string().contains(&taken[0]), "{error}");
    assert_eq!(*two.network.listening().borrow(), Listening::default());
}

#[tokio::test]
async fn a_bad_address_in_the_configuration_is_named() {
    let [key] = keys();
    let supervisor = crate::supervisor::Supervisor::new(SOON);
    let dir = tempfile::tempdir().unwrap();
    let (store, _) =
        crate::store::open(&crate::store::Config::at(dir.path()), &supervisor.tasks()).await.unwrap();
    let refused = |config| {
        let identity = Identity { key: key.clone() };
        spawn(config, identity, BootId::random(), store.blobs.clone(), &supervisor.tasks())
            .unwrap_err()
            .to_string()
    };
    let error = refused(Config { listen: vec!["0.0.0.0:7872".into()], ..loopback() });
    assert!(error.starts_with("listen has \"0.0.0.0:7872\", which is not an address"), "{error}");
    let error = refused(Config { peers: vec!["/ip4/10.0.0.1/tcp/7872".into()], ..loopback() });
    assert!(error.contains("does not end in /p2p/NODE"), "{error}");
}

#[tokio::test]
async fn a_small_mesh_comes_up_in_one_process() {
    let keys: [SecretKey; 6] = keys();
    let members: Vec<_> = keys.iter().collect();
    let mut nodes = Vec::new();
    for key in &keys {
        nodes.push(Node::started(key, &members).await);
    }
    for one in &nodes {
        for two in &nodes {
            if one.id < two.id {
                one.knows(two).await;
            }
        }
    }
    for one in &nodes {
        for two in &nodes {
            if one.id != two.id {
                one.sees_up(two).await;
            }
        }
    }
}
