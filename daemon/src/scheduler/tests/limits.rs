//! Requesters that take more than their part: they are told so, or passed over, and others are served.

use std::time::Duration;

use scenemesh_protocol::ids::{JobId, ReservationId};
use scenemesh_protocol::lease::{ClaimReply, Offer};
use scenemesh_protocol::messages::{Request, Response};
use scenemesh_protocol::task::{Class, Shape};

use super::world::{Cargo, Packet, World, task_id};
use crate::scheduler::conversation::{IdSource, Ticket};
use crate::scheduler::renderer::{Input, Limits, Renderer};
use crate::scheduler::view::TaskPhase;

impl World {
    /// Gives a machine other limits, before it has seen anything.
    fn limit(&mut self, n: usize, limits: Limits) {
        let machine = &mut self.machines[n];
        machine.renderer = Renderer::new(machine.id, IdSource::new([n as u8; 32])).with_limits(limits);
        self.tell_renderer(n, Input::Started);
        self.refresh_facts(n);
        for peer in 0..self.machines.len() {
            let node = self.machines[peer].id;
            let boot = scenemesh_protocol::ids::BootId::from_bytes([1; 16]);
            self.tell_renderer(n, Input::PeerUp { node, boot });
        }
    }

    /// Everything that happens without time passing; claims to one machine are answered that its grant comes, and it
    /// never does. Gives how many there were.
    fn flow_but_claims_to(&mut self, hostile: usize) -> usize {
        let mut claims = 0;
        loop {
            let claim = self.packets.iter().position(|packet| {
                packet.to == hostile
                    && matches!(&packet.cargo, Cargo::Question { request: Request::Claim(_), .. })
            });
            if let Some(at) = claim {
                let Packet { from, cargo: Cargo::Question { id, .. }, .. } = self.packets.remove(at) else {
                    continue;
                };
                claims += 1;
                let response = Response::from(ClaimReply::Coming);
                self.packets.push(Packet { from: hostile, to: from, cargo: Cargo::Answer { id, response } });
            } else if !self.packets.is_empty() {
                let packet = self.packets.remove(0);
                self.deliver(packet);
            } else if !(0..self.machines.len()).any(|n| self.errand(n)) {
                return claims;
            }
        }
    }
}

fn urgent_offer(ready: u32) -> Offer {
    Offer {
        reservation: ReservationId::from_bytes([9; 16]),
        job: JobId::from_bytes([9; 16]),
        shape: Shape { classes: vec!["SaveImage".into()], ..Shape::default() },
        class: Class::Urgent,
        ready,
        right: None,
    }
}

#[test]
fn a_requester_that_never_grants_is_passed_over_and_another_gets_the_slot() {
    let mut world = World::with_slots(&[0, 0, 1]);
    let hostile = world.machines[0].id;
    let mut claims = 0;
    world.submit(1, 7, 20);
    for n in 0..600 {
        // As often as it likes: that changes nothing.
        let ticket = Ticket(1_000_000 + n);
        world.tell_renderer(2, Input::Offered { from: hostile, offer: urgent_offer(1000), ticket });
        claims += world.flow_but_claims_to(0);
        world.finish_runs(2);
        claims += world.flow_but_claims_to(0);
        world.advance(Duration::from_secs(1));
    }
    assert!((4..=12).contains(&claims), "{claims} slots were held in vain in ten minutes");
    let done = (0..20).filter(|index| world.phase(1, task_id(7, *index)) == TaskPhase::Done).count();
    assert_eq!(done, 20, "the other's work went on");
}

#[test]
fn grants_are_written_down_up_to_a_limit_and_then_the_requester_is_told_which() {
    let mut world = World::with_slots(&[0, 1]);
    world.limit(1, Limits { journal_per_hour: 8192, ..Limits::default() });
    world.submit(0, 7, 6);
    for _ in 0..60 {
        world.flow();
        world.finish_runs(1);
        world.flow();
        world.advance(Duration::from_secs(1));
    }
    let done =
        |world: &World| (0..6).filter(|index| world.phase(0, task_id(7, *index)) == TaskPhase::Done).count();
    assert!((1..6).contains(&done(&world)), "{} were done at once", done(&world));
    let log = world.machines[0].log.join("\n");
    let why = format!("{log}\n{}", world.task(0, task_id(7, 5)).why);
    assert!(why.contains("limits.journal_per_hour"), "{why}");
    let refused = world.machines[0].log.iter().filter(|line| line.contains("not taken by")).count();
    assert_eq!(refused, 0, "no grant is made in vain");
    world.until("the rest is done as time passes", |world| done(world) == 6);
}

#[test]
fn inputs_over_the_part_of_one_node_are_refused_in_words() {
    let mut world = World::with_slots(&[0, 1]);
    world.limit(1, Limits { disk_per_node: 4, ..Limits::default() });
    world.submit(0, 7, 1);
    world.flow();
    let log = world.machines[0].log.join("\n");
    assert!(log.contains("limits.disk_per_node"), "{log}");
    assert_eq!(world.machines[1].renderer.holdings().all().count(), 0);
    world.limit(1, Limits { disk_per_node: 5, ..Limits::default() });
    world.until("with room it renders", |world| world.phase(0, task_id(7, 0)) == TaskPhase::Done);
}

#[test]
fn offers_of_one_node_fill_its_part_of_the_line_only() {
    let mut world = World::with_slots(&[0, 0, 1]);
    let hostile = world.machines[0].id;
    for n in 0..2000_u64 {
        let mut offer = urgent_offer(1);
        offer.reservation = ReservationId::from_bytes(u128::from(n).to_le_bytes());
        offer.job = JobId::from_bytes(u128::from(n).to_le_bytes());
        world.tell_renderer(2, Input::Offered { from: hostile, offer, ticket: Ticket(1_000_000 + n) });
    }
    assert!(world.machines[2].renderer.load().1 <= 256);
    let mut wide = urgent_offer(1);
    wide.shape.classes = (0..5000).map(|n| format!("C{n}")).collect();
    let before = world.machines[2].renderer.load();
    world.tell_renderer(2, Input::Offered { from: hostile, offer: wide, ticket: Ticket(9_000_000) });
    assert_eq!(world.machines[2].renderer.load(), before);
    world.packets.clear();
    world.submit(1, 7, 1);
    world.until("another's offer finds its place", |world| world.phase(1, task_id(7, 0)) == TaskPhase::Done);
}
