//! Adverts and inventories: who hears of whom, and who may see what.

use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::messages::{DefinitionsGet, Response};
use scenemesh_protocol::task::ModelName;

use super::harness::*;
use crate::network::*;

fn inventory(class: &str) -> Arc<Inventory> {
    Arc::new(Inventory { classes: vec![class.into()], models: Vec::<ModelName>::new() })
}

fn publication(slots_free: u16) -> Publication {
    Publication {
        availability: Availability::Available,
        hygiene: Hygiene::Full,
        slots_total: 4,
        slots_free,
        queue: 0,
        gpus: Vec::new(),
        warm: Vec::new(),
        comfyui: "0.3.0".into(),
        inventory_studio: inventory("Everything"),
        inventory_shared: inventory("Shared"),
        rules: ContentHash::of(b"rules"),
    }
}

#[tokio::test]
async fn an_advert_reaches_a_third_node_and_its_changes_too() {
    let [a, b, c] = keys();
    let members = [&a, &b, &c];
    let far = Node::started(&a, &members).await;
    let middle = Node::started(&b, &members).await;
    let near = Node::started(&c, &members).await;
    far.network.publish(publication(4));
    far.knows(&middle).await;
    let seen = middle.sees(far.id, |peer| peer.advert.is_some()).await;
    assert_eq!(seen.advert.unwrap().slots_free, 4);
    middle.knows(&near).await;
    // They are not linked: only the middle can have told.
    let seen = near.sees(far.id, |peer| peer.advert.is_some()).await;
    assert_eq!(seen.link, Link::Down);
    let sent = seen.advert.unwrap();
    assert_eq!((sent.node, sent.slots_free), (far.id, 4));
    // The second follows at once, the third a second later; the newest counts.
    far.network.publish(publication(3));
    far.network.publish(publication(1));
    middle.sees(far.id, |peer| peer.advert.as_ref().is_some_and(|advert| advert.slots_free == 1)).await;
}

/// A node, another of its studio, and one of another.
async fn two_studios() -> [Node; 3] {
    let [a, b, c] = keys();
    let members = [&a, &b, &c];
    let mut view = roster(&members);
    let shared_studio = view.members[&a.public().node()];
    view.members.insert(b.public().node(), shared_studio);
    let started = async |key| {
        let node = Node::new(key, loopback()).await;
        node.network.set_roster(view.clone());
        node.network.start(POOL).await.unwrap();
        node
    };
    [started(&a).await, started(&b).await, started(&c).await]
}

#[tokio::test]
async fn the_full_inventory_is_for_the_own_studio() {
    let [owner, mate, other] = &two_studios().await;
    owner.network.publish(publication(4));
    owner.knows(mate).await;
    owner.knows(other).await;
    let seen = mate.sees(owner.id, |peer| peer.inventory.is_some()).await;
    assert_eq!(seen.inventory, Some(inventory("Everything")));
    let seen = other.sees(owner.id, |peer| peer.inventory.is_some()).await;
    assert_eq!(seen.inventory, Some(inventory("Shared")));
    // A change that others may not see still reaches the studio.
    owner.network.publish(Publication { inventory_studio: inventory("More"), ..publication(4) });
    mate.sees(owner.id, |peer| peer.inventory == Some(inventory("More"))).await;
}

#[tokio::test]
async fn definitions_are_told_to_each_as_far_as_it_may_know() {
    let [owner, mate, other] = &two_studios().await;
    owner.network.publish(publication(4));
    owner.network.tell(Told { studio: Pack::of(b"all of it".to_vec()), shared: Pack::of(b"some".to_vec()) });
    for (node, told) in [(mate, &b"all of it"[..]), (other, b"some")] {
        owner.knows(node).await;
        node.sees(owner.id, |peer| peer.inventory.is_some()).await;
        let get = DefinitionsGet { part: 0, have: Vec::new() };
        let answer = node.network.request(owner.id, get).await.unwrap();
        let Response::Definitions(part) = answer else { panic!("{answer:?}") };
        assert_eq!((part.parts, part.bytes.as_slice()), (1, told));
    }
}

#[tokio::test]
async fn who_leaves_offers_nothing_any_more() {
    let [a, b] = keys();
    let leaver = Node::started(&a, &[&a, &b]).await;
    let stayer = Node::started(&b, &[&a, &b]).await;
    leaver.network.publish(publication(4));
    leaver.knows(&stayer).await;
    stayer.sees(leaver.id, |peer| peer.advert.is_some()).await;
    let id = leaver.id;
    leaver.shut_down().await;
    stayer.sees(id, |peer| peer.link == Link::Down && peer.advert.is_none()).await;
}
