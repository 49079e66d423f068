//! A member that floods: it is told so, in words, and others are served as before.

use libp2p::request_response::{Event, Message};
use libp2p::swarm::SwarmEvent;
use scenemesh_protocol::lease::AttemptState;
use scenemesh_protocol::messages::{Hello, InventoryGet};
use tokio::sync::watch;
use tokio::time::timeout;

use super::harness::*;
use crate::clock::wall_ms;
use crate::network::behaviour::MainEvent;
use crate::network::*;

/// Floods with these and gives how many were declined, and the words of the last. Says meanwhile how many it is.
async fn flood(
    bare: &mut Bare,
    node: NodeId,
    requests: impl Iterator<Item = Request>,
    count: &watch::Sender<usize>,
) -> (usize, String) {
    let peer = swarm::peer_id(node);
    let mut open = 0;
    for request in requests {
        bare.swarm.behaviour_mut().control.send_request(&peer, Ok(request));
        open += 1;
    }
    let (mut declined, mut words) = (0, String::new());
    while open > 0 {
        let event = bare.until(|event| matches!(event, SwarmEvent::Behaviour(MainEvent::Control(_)))).await;
        let SwarmEvent::Behaviour(MainEvent::Control(event)) = event else { continue };
        match event {
            Event::Message { message: Message::Response { response, .. }, .. } => {
                open -= 1;
                if let Ok(Response::Declined(refusal)) = response {
                    assert_eq!(refusal.why, Decline::Busy);
                    declined += 1;
                    count.send_replace(declined);
                    words = refusal.detail;
                }
            }
            Event::OutboundFailure { error, .. } => panic!("a request without an answer: {error}"),
            _ => {}
        }
    }
    (declined, words)
}

fn hello(now_ms: u64) -> Hello {
    Hello {
        pool: POOL,
        boot: BootId::from_bytes([9; 16]),
        versions: (1, 1),
        agent: "bare".into(),
        roster: digest(),
        feeds: Vec::new(),
        now_ms,
    }
}

/// Answers Hellos and says one until the node has it up.
async fn come_up(bare: &mut Bare, node: &Node) {
    let peer = swarm::peer_id(node.id);
    bare.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    bare.swarm.behaviour_mut().control.send_request(&peer, Ok(hello(wall_ms()).into()));
    let mut peers = node.network.peers();
    let up = peers.wait_for(|table| table.is_up(&bare.id));
    let answering = async {
        loop {
            let event = futures::StreamExt::select_next_some(&mut bare.swarm).await;
            if let SwarmEvent::Behaviour(MainEvent::Control(Event::Message {
                message: Message::Request { request: Ok(Request::Hello(_)), channel, .. },
                ..
            })) = event
            {
                drop(bare.swarm.behaviour_mut().control.send_response(channel, Ok(hello(wall_ms()).into())));
            }
        }
    };
    let came = async {
        tokio::select! {
            up = up => drop(up.unwrap()),
            () = answering => {}
        }
    };
    timeout(SOON, came).await.expect("it comes up soon");
}

#[tokio::test]
async fn a_flood_of_one_member_leaves_room_for_another() {
    let [small, middle, large] = keys();
    let members = [&small, &middle, &large];
    let mut node = Node::started(&small, &members).await;
    let honest = Node::started(&middle, &members).await;
    let mut hostile = Bare::new(&large, node.id).await;
    node.network.add_addresses(hostile.id, hostile.addresses()).await;
    come_up(&mut hostile, &node).await;
    honest.knows(&node).await;
    honest.sees_up(&node).await;
    node.sees_up(&honest).await;

    // Nothing is answered yet: what the hostile member asks stays open, as far as it may.
    let (count, mut declined) = watch::channel(0);
    let flooding = async {
        let many = std::iter::repeat_n(Request::from(probe()), 100);
        flood(&mut hostile, node.id, many, &count).await
    };
    let honest_first = async {
        let mut waiting = Vec::new();
        let mut asking = std::pin::pin!(honest.network.request(node.id, probe()));
        let answer = loop {
            tokio::select! {
                answer = &mut asking => break answer,
                Some(event) = node.events.tasks.recv() => match event {
                    TaskEvent::Request { from, reply, .. } if from == honest.id => reply.send(AttemptState::Unknown),
                    // However much of the other's waits unanswered.
                    TaskEvent::Request { reply, .. } => waiting.push(reply),
                    _ => {}
                },
            }
        };
        assert_eq!(answer, Ok(Response::Attempt(AttemptState::Unknown)));
        // As many as may be are held until the rest was turned away.
        loop {
            assert!(waiting.len() <= 64, "{} of one member were open", waiting.len());
            tokio::select! {
                _ = declined.wait_for(|declined| *declined >= 36) => break,
                Some(event) = node.events.tasks.recv() => {
                    if let TaskEvent::Request { reply, .. } = event {
                        waiting.push(reply);
                    }
                }
            }
        }
        drop(waiting);
        // The rest of the flood is answered as it comes.
        while let Some(event) = node.events.tasks.recv().await {
            if let TaskEvent::Request { reply, .. } = event {
                reply.send(AttemptState::Unknown);
            }
        }
    };
    let (declined, words) = tokio::select! {
        flooded = flooding => flooded,
        () = honest_first => panic!("the node is still there"),
    };
    assert!(declined >= 36, "{declined} were turned away");
    assert!(words.contains("await their answers") || words.contains("too much to do"), "{words}");
}

#[tokio::test]
async fn the_inventory_is_told_a_few_times_and_then_the_limit() {
    let [small, large] = keys();
    let node = Node::started(&small, &[&small, &large]).await;
    let mut hostile = Bare::new(&large, node.id).await;
    node.network.add_addresses(hostile.id, hostile.addresses()).await;
    come_up(&mut hostile, &node).await;
    let (count, _) = watch::channel(0);
    let (declined, words) =
        flood(&mut hostile, node.id, std::iter::repeat_n(InventoryGet.into(), 30), &count).await;
    assert!((15..=20).contains(&declined), "{declined}");
    assert!(words.contains("inventory") && words.contains("limit of this node"), "{words}");
}
