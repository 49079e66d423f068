//! Chance: packets lost, repeated and overtaken, links cut, daemons killed, in any order; then peace. Every task
//! ends exactly once.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{Comfy, World, task_id};
use crate::scheduler::lend::Owner;
use crate::scheduler::requester::Input;
use crate::scheduler::view::TaskPhase;

#[derive(Clone, Copy, Debug)]
enum Event {
    Deliver(u8),
    Lose(u8),
    Repeat(u8),
    Errand(u8),
    FinishRuns(u8),
    Pass(u16),
    Cut(u8, u8),
    Heal(u8, u8),
    Restart(u8),
    /// The owner comes or goes; what is nearly done may take so many seconds.
    Owner(u8, Option<u8>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => any::<u8>().prop_map(Event::Deliver),
        6 => any::<u8>().prop_map(Event::Lose),
        6 => any::<u8>().prop_map(Event::Repeat),
        25 => any::<u8>().prop_map(Event::Errand),
        6 => any::<u8>().prop_map(Event::FinishRuns),
        10 => (1..8_000_u16).prop_map(Event::Pass),
        2 => any::<(u8, u8)>().prop_map(|(a, b)| Event::Cut(a, b)),
        4 => any::<(u8, u8)>().prop_map(|(a, b)| Event::Heal(a, b)),
        2 => any::<u8>().prop_map(Event::Restart),
        2 => any::<(u8, Option<u8>)>().prop_map(|(n, finish)| Event::Owner(n, finish)),
    ]
}

/// With absences long enough for a deputy to go on.
fn long_event() -> impl Strategy<Value = Event> {
    prop_oneof![15 => event(), 1 => (30_000..60_000_u16).prop_map(Event::Pass)]
}

fn apply(world: &mut World, event: Event) {
    let machines = world.machines.len();
    let machine = |n: u8| usize::from(n) % machines;
    let pick =
        |world: &World, n: u8| (!world.packets.is_empty()).then(|| usize::from(n) % world.packets.len());
    match event {
        Event::Deliver(n) => {
            if let Some(at) = pick(world, n) {
                let packet = world.packets.remove(at);
                world.deliver(packet);
            }
        }
        Event::Lose(n) => {
            if let Some(at) = pick(world, n) {
                let packet = world.packets.remove(at);
                // Between the two machines of one node nothing is lost.
                if packet.from == packet.to { world.deliver(packet) } else { world.lose(&packet) }
            }
        }
        Event::Repeat(n) => {
            if let Some(at) = pick(world, n) {
                let packet = world.packets[at].clone();
                world.deliver(packet);
            }
        }
        Event::Errand(n) => {
            world.errand(machine(n));
        }
        Event::FinishRuns(n) => {
            world.finish_runs(machine(n));
        }
        Event::Pass(ms) => world.advance(Duration::from_millis(u64::from(ms))),
        Event::Cut(a, b) if machine(a) != machine(b) => world.cut(machine(a), machine(b)),
        Event::Heal(a, b) if machine(a) != machine(b) => world.heal(machine(a), machine(b)),
        Event::Restart(n) => world.restart(machine(n)),
        Event::Owner(n, finish) => own(world, machine(n), finish),
        Event::Cut(..) | Event::Heal(..) => {}
    }
}

fn own(world: &mut World, n: usize, finish: Option<u8>) {
    let said_ms = world.now().wall_ms;
    world.machines[n].owner = finish.map_or(Owner::Away, |finish| Owner::Back {
        finish: Duration::from_secs(u64::from(finish % 60)),
        said_ms,
    });
    world.refresh_facts(n);
}

fn peace(world: &mut World) {
    let machines = world.machines.len();
    (0..machines).for_each(|n| own(world, n, None));
    for a in 0..machines {
        for b in a + 1..machines {
            world.heal(a, b);
        }
    }
    world.until("everything settles", World::is_settled);
    world.assert_ended_exactly_once();
    world.assert_replay_gives_the_state();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_machines_in_any_weather(events in prop::collection::vec(event(), 0..400)) {
        let mut world = World::with_slots(&[0, 1]);
        world.submit(0, 7, 3);
        events.into_iter().for_each(|event| apply(&mut world, event));
        peace(&mut world);
    }

    #[test]
    fn three_machines_that_all_ask_and_all_render(events in prop::collection::vec(event(), 0..600)) {
        let mut world = World::with_slots(&[1, 2, 1]);
        world.submit(0, 7, 3);
        world.submit(2, 8, 3);
        events.into_iter().for_each(|event| apply(&mut world, event));
        peace(&mut world);
    }

    #[test]
    fn a_job_on_two_machines_in_any_weather(events in prop::collection::vec(long_event(), 0..600)) {
        let mut world = World::with_slots(&[1, 0, 1]).of_one_studio();
        world.submit_kept(0, 7, 3, 1);
        events.into_iter().for_each(|event| apply(&mut world, event));
        peace(&mut world);
    }

    #[test]
    fn a_cancel_in_any_weather(
        events in prop::collection::vec(event(), 0..300),
        at in 0..300_usize,
    ) {
        let mut world = World::with_slots(&[0, 1, 1]);
        world.submit(0, 7, 1);
        for (n, event) in events.into_iter().enumerate() {
            if n == at {
                world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
            }
            apply(&mut world, event);
        }
        world.tell_requester(0, Input::CancelWanted(vec![task_id(7, 0)]));
        (0..3).for_each(|n| own(&mut world, n, None));
        for a in 0..3 {
            for b in a + 1..3 {
                world.heal(a, b);
            }
        }
        world.until("everything settles", World::is_settled);
        let state = world.phase(0, task_id(7, 0));
        prop_assert!(matches!(state, TaskPhase::Cancelled | TaskPhase::Done));
        world.assert_replay_gives_the_state();
    }

    #[test]
    fn flaky_graphics_cards_in_any_weather(events in prop::collection::vec(event(), 0..300)) {
        let mut world = World::with_slots(&[0, 1, 1]);
        world.machines[1].comfy = Comfy::Fails(scenemesh_protocol::task::FailureClass::OwnerReturned);
        world.submit(0, 7, 2);
        events.into_iter().for_each(|event| apply(&mut world, event));
        peace(&mut world);
    }
}
