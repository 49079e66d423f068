//! Blobs between two real networks.

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::lease::BlobRef;
use tokio::time::{Instant, timeout};

use super::FetchError;
use crate::network::tests::harness::*;
use crate::network::{Link, Traffic};
use crate::store::Sealed;

const MIB: u64 = 1 << 20;
const TASK: TaskId = TaskId::from_bytes([5; 16]);

/// Seals bytes that differ from segment to segment.
async fn seal(node: &Node, mib: u64) -> Sealed {
    let mut sealer = node.blobs.seal();
    for n in 0..mib {
        let byte = u8::try_from(n % 251).unwrap();
        sealer.write(&vec![byte; 1 << 20]).await.unwrap();
    }
    sealer.finish().await.unwrap()
}

fn reference(sealed: &Sealed) -> BlobRef {
    BlobRef { root: sealed.root, sealed_bytes: sealed.sealed_bytes }
}

async fn pair() -> (Node, Node, [scenemesh_protocol::keys::SecretKey; 2]) {
    let keys = keys();
    let [small, large] = &keys;
    let giver = Node::started(small, &[small, large]).await;
    let taker = Node::started(large, &[small, large]).await;
    giver.knows(&taker).await;
    giver.sees_up(&taker).await;
    taker.sees_up(&giver).await;
    (giver, taker, keys)
}

fn allow(giver: &Node, taker: &Node, sealed: &Sealed) {
    giver.blobs.allow(sealed.root, taker.id, Instant::now() + SOON);
}

#[tokio::test]
async fn a_blob_arrives_whole_and_opens() {
    let (giver, taker, _) = pair().await;
    let sealed = seal(&giver, 5).await;
    allow(&giver, &taker, &sealed);
    taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap();
    let mut opener = taker.blobs.open(sealed.root, &sealed.key).await.unwrap();
    let mut bytes = 0;
    while let Some(plain) = opener.next().await.unwrap() {
        bytes += plain.len() as u64;
    }
    assert_eq!(bytes, 5 * MIB);
    let moved = Traffic { sent: 0, received: sealed.sealed_bytes };
    assert_eq!(*taker.network.traffic().borrow(), moved);
    // Once more costs nothing.
    taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap();
    assert_eq!(*taker.network.traffic().borrow(), moved);
}

#[tokio::test]
async fn an_empty_blob_arrives_too() {
    let (giver, taker, _) = pair().await;
    let sealed = seal(&giver, 0).await;
    allow(&giver, &taker, &sealed);
    taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap();
    assert!(taker.blobs.holds(sealed.root));
}

#[tokio::test]
async fn only_who_may_gets_a_blob() {
    let (giver, taker, _) = pair().await;
    let sealed = seal(&giver, 1).await;
    let refused = taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap_err();
    assert!(matches!(refused, FetchError::NotServed { .. }), "{refused}");
    // What is not there sounds the same.
    allow(&giver, &taker, &sealed);
    giver.blobs.remove(sealed.root).await.unwrap();
    let refused = taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap_err();
    assert!(matches!(refused, FetchError::NotServed { .. }), "{refused}");
    assert_eq!(giver.network.traffic().borrow().sent, 0);
}

#[tokio::test]
async fn a_size_that_was_not_agreed_is_refused() {
    let (giver, taker, _) = pair().await;
    let sealed = seal(&giver, 1).await;
    allow(&giver, &taker, &sealed);
    let lie = BlobRef { sealed_bytes: 7, ..reference(&sealed) };
    let refused = taker.network.fetch(giver.id, TASK, 1, lie).await.unwrap_err();
    assert!(matches!(refused, FetchError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn after_a_cut_only_the_rest_is_sent() {
    let (giver, taker, [small, large]) = pair().await;
    let sealed = seal(&giver, 16).await;
    allow(&giver, &taker, &sealed);
    let cut = async {
        let mut traffic = taker.network.traffic();
        timeout(SOON, traffic.wait_for(|traffic| traffic.received >= 6 * MIB)).await.unwrap().unwrap();
        giver.network.set_roster(roster(&[&small]));
    };
    let (fetched, ()) = tokio::join!(taker.network.fetch(giver.id, TASK, 1, reference(&sealed)), cut);
    let error = fetched.unwrap_err();
    assert!(matches!(error, FetchError::NotConnected(_)), "{error}");
    let (first, sent_first) =
        (taker.network.traffic().borrow().received, giver.network.traffic().borrow().sent);
    assert!(first >= 6 * MIB && first < sealed.sealed_bytes);

    giver.network.set_roster(roster(&[&small, &large]));
    taker.sees(giver.id, |peer| peer.link == Link::Up).await;
    giver.sees_up(&taker).await;
    taker.network.fetch(giver.id, TASK, 1, reference(&sealed)).await.unwrap();
    assert!(taker.blobs.holds(sealed.root));
    // Every segment was taken once, and sent once but for those that were on the way when the link broke.
    assert_eq!(taker.network.traffic().borrow().received, sealed.sealed_bytes);
    assert_eq!(giver.network.traffic().borrow().sent - sent_first, sealed.sealed_bytes - first);
}
