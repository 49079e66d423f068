//! Members that are shut out: heard no more at once, told why, cut off.

use std::collections::BTreeMap;

use scenemesh_protocol::messages::{Request, Response, RosterDiff};
use scenemesh_protocol::roster::{Revoked, SignedRecord};
use scenemesh_protocol::signed::Signed;
use tokio::time::timeout;

use super::harness::*;
use crate::network::*;

fn without(host: &SecretKey, gone: &SecretKey) -> (RosterView, RosterDiff) {
    let record = Revoked {
        pool: POOL,
        studio: StudioId::from_bytes([0; 16]),
        key: gone.public(),
        reason: "sold".into(),
        issued_ms: 1,
    };
    let records = vec![SignedRecord::Revoked(Signed::new(&record, host))];
    let proof = RosterDiff { records, ..RosterDiff::default() };
    let words = "your key was revoked: sold".to_owned();
    let parting = Parting { words, proof: proof.clone() };
    let parting = Arc::new(BTreeMap::from([(gone.public().node(), parting)]));
    (RosterView { parting, ..roster(&[host]) }, proof)
}

async fn pair() -> (SecretKey, Node, SecretKey, Node) {
    let [host_key, guest_key] = keys();
    let members = [&host_key, &guest_key];
    let mut host = Node::started(&host_key, &members).await;
    let mut guest = Node::started(&guest_key, &members).await;
    guest.knows(&host).await;
    host.sees_up(&guest).await;
    guest.sees_up(&host).await;
    assert!(host.next_link_event(guest.id).await.is_some());
    assert!(guest.next_link_event(host.id).await.is_some());
    (host_key, host, guest_key, guest)
}

async fn next_request(node: &mut Node) -> (Request, Reply) {
    loop {
        if let RosterEvent::Request { request, reply, .. } = node.next_roster_event().await {
            return (request, reply);
        }
    }
}

#[tokio::test]
async fn a_member_that_is_shut_out_hears_why_and_nothing_else() {
    let (host_key, mut host, guest_key, mut guest) = pair().await;
    let (view, proof) = without(&host_key, &guest_key);
    host.network.set_roster(view);
    assert_eq!(host.next_link_event(guest.id).await, None, "the scheduler hears of it at once");
    assert!(!host.network.peers().borrow().peers.contains_key(&guest.id));
    let (request, reply) = next_request(&mut guest).await;
    assert_eq!(request, Request::Roster(proof));
    // The link is still there until it has answered, and nothing is heard over it.
    let refused = guest.network.request(host.id, probe()).await.unwrap_err();
    let RequestError::Declined(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.detail, "your key was revoked: sold");
    reply.send(Response::Done(scenemesh_protocol::messages::Done));
    assert_eq!(guest.next_link_event(host.id).await, None, "the link is cut");
    // It is let in no more: its next dial ends before Hello.
    let shut_out = timeout(SOON, async {
        loop {
            if let RosterEvent::ShutOut { peer, .. } = guest.next_roster_event().await {
                return peer;
            }
        }
    });
    assert_eq!(shut_out.await.unwrap(), host.id);
}

#[tokio::test]
async fn one_that_does_not_answer_is_cut_off_all_the_same() {
    let (host_key, host, guest_key, mut guest) = pair().await;
    let begun = tokio::time::Instant::now();
    host.network.set_roster(without(&host_key, &guest_key).0);
    let (_, unanswered) = next_request(&mut guest).await;
    assert_eq!(guest.next_link_event(host.id).await, None);
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(unanswered);
}

#[tokio::test]
async fn a_member_that_is_back_at_once_gets_a_new_link() {
    let (host_key, host, guest_key, guest) = pair().await;
    let (view, _) = without(&host_key, &guest_key);
    host.network.set_roster(view);
    let mut peers = host.network.peers();
    let gone = peers.wait_for(|table| !table.peers.contains_key(&guest.id));
    timeout(SOON, gone).await.unwrap().unwrap();
    host.network.set_roster(roster(&[&host_key, &guest_key]));
    host.sees_up(&guest).await;
    guest.sees_up(&host).await;
}
