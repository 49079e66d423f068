//! The porch: strangers ask, get answers, and are slowed down.

use scenemesh_protocol::messages::{Standing, StandingGet};

use super::harness::*;
use crate::network::*;

fn standing(of: &SecretKey) -> StandingGet {
    StandingGet { key: of.public() }
}

/// Answers one question.
async fn answer_one(host: &mut Node) -> NodeId {
    loop {
        if let RosterEvent::Porch { from, reply, .. } = host.next_roster_event().await {
            reply.send(Standing::Unknown);
            return from;
        }
    }
}

#[tokio::test]
async fn a_stranger_gets_an_answer() {
    let [host_key, guest_key] = keys();
    let mut host = Node::started(&host_key, &[&host_key]).await;
    let guest = Node::new(&guest_key, loopback()).await;
    let addresses = host.porch_addresses().await;
    let host_id = host.id;
    let visit = guest.network.porch_request(&addresses, host_id, standing(&guest_key));
    let (answer, from) = tokio::join!(visit, answer_one(&mut host));
    assert_eq!(answer, Ok(PorchResponse::Standing(Standing::Unknown)));
    assert_eq!(from, guest.id);
}

#[tokio::test]
async fn the_porch_alone_can_be_open() {
    let [host_key, guest_key] = keys();
    let mut host = Node::new(&host_key, loopback()).await;
    host.network.open_porch().await.unwrap();
    let guest = Node::new(&guest_key, loopback()).await;
    let addresses = host.porch_addresses().await;
    assert!(host.network.listening().borrow().main.is_empty());
    let host_id = host.id;
    let visit = guest.network.porch_request(&addresses, host_id, standing(&guest_key));
    let (answer, _) = tokio::join!(visit, answer_one(&mut host));
    assert!(answer.is_ok());
}

#[tokio::test]
async fn who_asks_too_often_is_turned_away() {
    let [host_key, guest_key] = keys();
    let config = Config { porch_burst: 3, porch_per_minute: 0, ..loopback() };
    let mut host = Node::started_with(&host_key, &[&host_key], config).await;
    let guest = Node::new(&guest_key, loopback()).await;
    let addresses = host.porch_addresses().await;
    let host_id = host.id;
    let visit = || guest.network.porch_request(&addresses, host_id, standing(&guest_key));
    for _ in 0..3 {
        let (answer, _) = tokio::join!(visit(), answer_one(&mut host));
        assert!(answer.is_ok(), "{answer:?}");
    }
    for _ in 0..3 {
        let answer = visit().await;
        let Ok(PorchResponse::Declined(refusal)) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.why, Decline::Busy);
    }
    // Beyond that not even a handshake is made.
    let answer = visit().await;
    assert!(matches!(answer, Err(PorchError::Unreachable { .. } | PorchError::Closed { .. })), "{answer:?}");
}

#[tokio::test]
async fn another_node_at_the_address_is_named() {
    let [host_key, expected, guest_key] = keys();
    let host = Node::started(&host_key, &[&host_key]).await;
    let guest = Node::new(&guest_key, loopback()).await;
    let addresses = host.porch_addresses().await;
    let expected = expected.public().node();
    let error = guest.network.porch_request(&addresses, expected, standing(&guest_key)).await.unwrap_err();
    let PorchError::WrongNode { found, .. } = &error else { panic!("{error}") };
    assert_eq!(*found, host.id.to_string());
}

#[tokio::test]
async fn nobody_at_home_is_said_with_all_addresses() {
    let [host_key, guest_key] = keys();
    let host = Node::started(&host_key, &[&host_key]).await;
    let guest = Node::new(&guest_key, loopback()).await;
    let addresses = host.porch_addresses().await;
    let host_id = host.id;
    host.shut_down().await;
    let error = guest.network.porch_request(&addresses, host_id, standing(&guest_key)).await.unwrap_err();
    assert!(matches!(error, PorchError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&addresses[0]), "{error}");
    let error = guest.network.porch_request(&["nonsense".into()], host_id, standing(&guest_key)).await;
    assert_eq!(error, Err(PorchError::NoAddress(host_id)));
}
