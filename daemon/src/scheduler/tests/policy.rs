//! Scripts of policy and lending: what is refused at the offer and at the grant, what the requester makes of it, and that
//! another answer is noticed.

use std::collections::BTreeSet;
use std::sync::Arc;

use scenemesh_protocol::advert::Inventory;
use scenemesh_protocol::lease::{GrantReply, OfferReply, RefusalReason};
use scenemesh_protocol::messages::{Request, Response};
use scenemesh_protocol::task::{Class, Failure, FailureClass};

use super::world::{Cargo, World, task_id};
use crate::executor::policy::{Change, Choices, Policy};
use crate::scheduler::lend::LendFacts;
use crate::scheduler::view::TaskPhase;

const CLASS: &str = "SomebodysNode";

/// A requester without a slot and a renderer that has an unlisted class.
fn world() -> World {
    let mut world = World::with_slots(&[0, 1]);
    let classes = vec!["SaveImage".to_owned(), CLASS.to_owned()];
    world.machines[1].inventory = Arc::new(Inventory { classes, models: Vec::new() });
    tell_facts(&mut world);
    world
}

fn tell_facts(world: &mut World) {
    for n in 0..world.machines.len() {
        world.refresh_facts(n);
    }
}

fn decide(world: &mut World, n: usize, change: Change, class: &str) {
    let mut choices = Choices::default();
    choices.change(change, &[class.to_owned()]).unwrap();
    world.machines[n].policy = Arc::new(Policy { choices });
    tell_facts(world);
}

fn submit(world: &mut World, n: usize) {
    world.submit_with(n, 7, 1, |job| job.recipes[0].shape.classes = vec![CLASS.to_owned()]);
}

fn why(world: &World) -> String {
    world.task(0, task_id(7, 0)).why.to_string()
}

/// Delivers until a packet like this is under way, and leaves it there.
fn until_under_way(world: &mut World, like: impl Fn(&Cargo) -> bool) -> usize {
    for _ in 0..1000 {
        if let Some(at) = world.packets.iter().position(|packet| like(&packet.cargo)) {
            return at;
        }
        if world.packets.is_empty() {
            assert!((0..world.machines.len()).any(|n| world.errand(n)), "no such packet");
        } else {
            let packet = world.packets.remove(0);
            world.deliver(packet);
        }
    }
    panic!("no such packet");
}

#[test]
fn a_class_is_refused_at_the_offer_by_name_and_runs_once_it_is_allowed() {
    let mut world = world();
    submit(&mut world, 0);
    let at = until_under_way(&mut world, |cargo| {
        matches!(cargo, Cargo::Answer { response: Response::Offer(OfferReply::Refused(_)), .. })
    });
    let Cargo::Answer { response: Response::Offer(OfferReply::Refused(refusal)), .. } =
        &world.packets[at].cargo
    else {
        panic!("it was one");
    };
    assert_eq!(refusal.reason, RefusalReason::NotAllowed);
    assert_eq!(refusal.detail, "node class \"SomebodysNode\" is not allowed there (unlisted)");
    world.flow();
    let told = why(&world);
    let words = "birch refused: it does not run node class SomebodysNode of others: it is not on the list of classes that may run";
    assert!(told.contains(words), "{told}");
    let refused = world.machines[0].requester.refused_classes();
    assert!(refused[&world.machines[1].id].contains_key(CLASS));

    decide(&mut world, 1, Change::Allow, CLASS);
    world.until("it runs without being submitted again", |world| {
        world.phase(0, task_id(7, 0)) == TaskPhase::Done
    });
    assert_eq!(world.machines[1].executions.len(), 1);
}

#[test]
fn what_is_denied_while_it_waits_is_not_claimed() {
    let mut world = world();
    decide(&mut world, 1, Change::Allow, CLASS);
    world.machines[1].comfy = super::world::Comfy::Hangs;
    world.submit(0, 8, 1);
    world.flow();
    submit(&mut world, 0);
    world.flow();
    assert!(why(&world).contains("waits for a free slot at birch"), "{}", why(&world));
    decide(&mut world, 1, Change::Deny, CLASS);
    world.machines[1].comfy = super::world::Comfy::Renders;
    world.until("the slot is free again", |world| world.phase(0, task_id(8, 0)) == TaskPhase::Done);
    world.flow();
    assert!(world.machines[1].executions.keys().all(|(task, _)| *task != task_id(7, 0)));
    // What an owner denied by hand looks like any class that is not on the list.
    world.until("the refusal is known", |world| why(world).contains("does not run node class SomebodysNode"));
    assert!(!why(&world).contains("owner"), "{}", why(&world));
}

#[test]
fn ones_own_tasks_pass_the_list_but_not_ones_own_no() {
    let mut world = World::with_slots(&[1]);
    let classes = vec!["SaveImage".to_owned(), CLASS.to_owned()];
    world.machines[0].inventory = Arc::new(Inventory { classes, models: Vec::new() });
    tell_facts(&mut world);
    submit(&mut world, 0);
    world.until("it runs", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    decide(&mut world, 0, Change::Deny, CLASS);
    world.submit_with(0, 9, 1, |job| job.recipes[0].shape.classes = vec![CLASS.to_owned()]);
    world.flow();
    let told = world.task(0, task_id(9, 0)).why.to_string();
    assert!(told.contains("does not run node class SomebodysNode"), "{told}");
}

#[test]
fn another_studio_hears_not_now_and_never_why() {
    let open = LendFacts::default();
    for lend in [
        LendFacts { open: false, ..open.clone() },
        LendFacts { to: Some(BTreeSet::new()), ..open.clone() },
        LendFacts { classes: Some(BTreeSet::from([Class::Batch])), ..open.clone() },
        LendFacts { max_vram_mib: Some(1024), ..open.clone() },
    ] {
        let mut world = World::with_slots(&[0, 1]);
        world.machines[1].lend = lend.clone();
        tell_facts(&mut world);
        world.submit_with(0, 7, 1, |job| job.recipes[0].shape.vram_mib = Some(4096));
        let at = until_under_way(&mut world, |cargo| {
            matches!(cargo, Cargo::Answer { response: Response::Offer(OfferReply::Refused(_)), .. })
        });
        let Cargo::Answer { response: Response::Offer(OfferReply::Refused(refusal)), .. } =
            &world.packets[at].cargo
        else {
            panic!("it was one");
        };
        assert_eq!((refusal.reason, refusal.detail.as_str()), (RefusalReason::NotNow, "not now"), "{lend:?}");
        world.flow();
        assert!(why(&world).contains("birch takes no work of others now"), "{}", why(&world));
        world.machines[1].lend = open.clone();
        tell_facts(&mut world);
        world.until("it runs when it may", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
    }
}

#[test]
fn hours_that_end_between_claim_and_grant_end_it_there_too() {
    let mut world = World::with_slots(&[0, 1]);
    world.submit(0, 7, 1);
    let at = until_under_way(&mut world, |cargo| {
        matches!(cargo, Cargo::Question { request: Request::Grant(_), .. })
    });
    world.machines[1].lend.open = false;
    world.refresh_facts(1);
    let grant = world.packets.remove(at);
    world.deliver(grant);
    let rejected = |cargo: &Cargo| {
        matches!(cargo, Cargo::Answer { response: Response::Grant(GrantReply::Rejected { refusal, failure: None }), .. }
            if refusal.reason == RefusalReason::NotNow)
    };
    assert!(world.packets.iter().any(|packet| rejected(&packet.cargo)), "{}", world.story());
    world.flow();
    assert_eq!(world.phase(0, task_id(7, 0)), TaskPhase::Queued);
    assert!(world.machines[1].executions.is_empty());
    assert!(why(&world).contains("takes no work of others now"), "{}", why(&world));
}

#[test]
fn a_graph_found_wanting_at_the_grant_fails_there_and_may_run_elsewhere() {
    let mut world = World::with_slots(&[0, 1, 1]);
    let found = "node 3 (SaveImage), input filename_prefix: it climbs out of its folder (..)";
    for n in [1, 2] {
        world.machines[n].refuses_grants = Some(Failure::new(FailureClass::Policy, found));
    }
    world.submit(0, 7, 1);
    world.flow();
    world.pass(std::time::Duration::from_secs(30));
    let told = why(&world);
    for name in ["birch", "cedar"] {
        assert!(told.contains(&format!("{name} failed it: refused by policy: {found}")), "{told}");
    }
    assert!(world.machines[1].executions.is_empty() && world.machines[2].executions.is_empty());
}
