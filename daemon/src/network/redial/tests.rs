use super::*;

const ME: NodeId = NodeId::from_bytes([5; 32]);
const SMALLER: NodeId = NodeId::from_bytes([1; 32]);
const LARGER: NodeId = NodeId::from_bytes([9; 32]);

fn address(n: u8) -> Multiaddr {
    format!("/ip4/10.0.0.{n}/tcp/7872").parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn supervisor(now: Instant, members: &[NodeId]) -> Redial {
    let mut redial = Redial::new(ME, 42);
    redial.set_members(now, &members.iter().copied().chain([ME]).collect());
    redial
}

fn due(redial: &mut Redial, now: Instant) -> Vec<NodeId> {
    redial.due(now).into_iter().map(|dial| dial.node).collect()
}

/// When the next attempt comes, looked for in steps of 50 ms.
fn next_due(redial: &mut Redial, from: Instant) -> Duration {
    let steps = (0..20_000_u32).map(|n| Duration::from_millis(50) * n);
    let mut late = steps.skip_while(|late| redial.due(from + *late).is_empty());
    late.next().expect("an attempt comes within 1000 s")
}

#[test]
fn the_smaller_node_dials_at_once_the_larger_gives_it_a_head_start() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[SMALLER, LARGER]);
    redial.learn(now, SMALLER, address(1), Source::Fixed);
    redial.learn(now, LARGER, address(9), Source::Fixed);
    assert_eq!(due(&mut redial, now + AFTER_LOSS), [LARGER]);
    assert_eq!(due(&mut redial, now + HEAD_START - Duration::from_millis(1)), []);
    assert_eq!(due(&mut redial, now + HEAD_START), [SMALLER]);
}

#[test]
fn without_an_address_nobody_is_dialled() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    assert_eq!(due(&mut redial, now + seconds(100)), []);
    redial.learn(now + seconds(100), LARGER, address(9), Source::Neighbour);
    assert_eq!(due(&mut redial, now + seconds(101)), [LARGER]);
}

#[test]
fn strangers_and_oneself_are_never_dialled() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[]);
    redial.learn(now, LARGER, address(9), Source::Hint);
    redial.learn(now, ME, address(5), Source::Advert);
    assert_eq!(due(&mut redial, now + seconds(100)), []);
    // What was heard of a stranger is there once it is a member.
    redial.set_members(now + seconds(100), &BTreeSet::from([ME, LARGER]));
    assert_eq!(redial.due(now + seconds(100)), [Dial { node: LARGER, addresses: vec![address(9)] }]);
}

#[test]
fn pauses_grow_to_a_minute_and_spread() {
    let mut now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    redial.learn(now, LARGER, address(9), Source::Fixed);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        now += next_due(&mut redial, now);
        redial.dial_failed(now, LARGER);
        let State::Waiting(until) = redial.routes[&LARGER].state else { panic!() };
        pauses.push((until - now).as_secs_f64());
    }
    for (n, pause) in pauses.iter().enumerate() {
        let full = (2f64.powi(i32::try_from(n).unwrap())).min(60.0);
        assert!(*pause >= full * 0.75 && *pause <= full * 1.25, "pause {n} is {pause}");
    }
    let last: BTreeSet<_> = pauses[6..].iter().map(|pause| (pause * 1000.0).round().to_string()).collect();
    assert!(last.len() > 1, "no two nodes should act in step");
}

#[test]
fn a_lost_link_is_dialled_again_soon_and_a_refusal_is_not() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    redial.learn(now, LARGER, address(9), Source::Fixed);
    for _ in 0..5 {
        redial.due(now + seconds(1000));
        redial.dial_failed(now, LARGER);
    }
    redial.linked(LARGER);
    assert_eq!(due(&mut redial, now + seconds(5000)), []);
    redial.up(LARGER, Some(address(9)), 1);
    redial.unlinked(now, LARGER, true);
    assert!(next_due(&mut redial, now) < seconds(1));
    // Linked again, but closed before Hello: that is no progress.
    for n in 0..4 {
        redial.linked(LARGER);
        redial.unlinked(now, LARGER, false);
        let pause = next_due(&mut redial, now);
        assert!(pause >= seconds(1 << n) * 3 / 4, "attempt {n} after {pause:?}");
    }
}

#[test]
fn who_said_goodbye_is_left_alone_until_it_comes_back() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    redial.learn(now, LARGER, address(9), Source::Fixed);
    redial.linked(LARGER);
    redial.up(LARGER, None, 1);
    redial.goodbye(LARGER);
    redial.unlinked(now, LARGER, true);
    redial.learn(now, LARGER, address(10), Source::Neighbour);
    assert_eq!(next_due(&mut redial, now), AFTER_GOODBYE);
    redial.linked(LARGER);
    redial.unlinked(now, LARGER, true);
    assert!(next_due(&mut redial, now) < seconds(1));
}

#[test]
fn news_of_an_address_shortens_the_wait_and_old_news_does_not() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    redial.learn(now, LARGER, address(9), Source::Fixed);
    for _ in 0..8 {
        redial.due(now + seconds(1000));
        redial.dial_failed(now, LARGER);
    }
    redial.learn(now, LARGER, address(9), Source::Neighbour);
    assert_eq!(due(&mut redial, now + seconds(30)), []);
    redial.learn(now, LARGER, address(10), Source::Neighbour);
    assert_eq!(due(&mut redial, now + seconds(1)), [LARGER]);
}

#[test]
fn the_best_addresses_come_first_and_memory_is_bounded() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    for n in 0..100 {
        redial.learn(now, LARGER, address(n), Source::Identify);
    }
    redial.learn(now, LARGER, address(101), Source::Fixed);
    redial.restore(LARGER, address(102), 1000);
    redial.restore(LARGER, address(103), 2000);
    let dial = redial.due(now + seconds(10)).remove(0);
    assert_eq!(dial.addresses.len(), TRIED);
    assert_eq!(dial.addresses[..3], [address(103), address(102), address(101)]);
    assert_eq!(redial.routes[&LARGER].known.len(), REMEMBERED);
}

#[test]
fn known_addresses_are_handed_to_the_next_life() {
    let now = Instant::now();
    let mut redial = supervisor(now, &[LARGER]);
    redial.learn(now, LARGER, address(8), Source::Hint);
    redial.learn(now, LARGER, address(9), Source::Hint);
    redial.up(LARGER, Some(address(9)), 77);
    assert_eq!(redial.known(), BTreeMap::from([(LARGER, vec![(address(8), 0), (address(9), 77)])]));
    // Also of members that were dropped: they may come back.
    redial.set_members(now, &BTreeSet::new());
    assert_eq!(redial.known().len(), 1);
}
