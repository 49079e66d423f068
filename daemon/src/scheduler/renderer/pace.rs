//! How long a run may still take, by how it went so far. Pure.
//!
//! Steps of a sampler come evenly; everything else is taken to last as long per node as it did so far. Before the
//! first step nothing is known: a model that loads tells nothing of what follows.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Pace {
    started: Option<Instant>,
    node: String,
    /// Since when this node is at work.
    node_since: Option<Instant>,
    stepping: Option<Stepping>,
    /// Nodes that went by steps and are done, and how long they took together.
    stepped: (u32, Duration),
    done: u32,
    total: u32,
}

/// A node that tells its steps.
#[derive(Clone, Copy, Debug)]
struct Stepping {
    first: (u32, Instant),
    last: (u32, Instant),
    max: u32,
}

impl Pace {
    pub(super) fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    pub(super) fn note(
        &mut self,
        now: Instant,
        node: &str,
        (step, max): (u32, u32),
        (done, total): (u32, u32),
    ) {
        self.start(now);
        if self.node != node {
            let took = self.node_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if self.stepping.take().is_some() {
                self.stepped = (self.stepped.0 + 1, self.stepped.1 + took);
            }
            node.clone_into(&mut self.node);
            self.node_since = Some(now);
        }
        (self.done, self.total) = (done, total);
        if step == 0 || max < 2 {
            return;
        }
        match &mut self.stepping {
            Some(known) if known.max == max && known.last.0 <= step => known.last = (step, now),
            // The first, or a second round of the same node.
            known => *known = Some(Stepping { first: (step, now), last: (step, now), max }),
        }
    }

    /// What is left, where something is known.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let started = self.started?;
        let others = self.total.saturating_sub(self.done);
        match self.stepping {
            Some(Stepping { first, last, max }) => {
                let steps = last.0.saturating_sub(first.0);
                let per_step = last.1.saturating_duration_since(first.1).checked_div(steps)?;
                let of_node = per_step.saturating_mul(max.saturating_sub(last.0));
                let of_node = of_node.saturating_sub(now.saturating_duration_since(last.1));
                let light = first.1.saturating_duration_since(started).saturating_sub(self.stepped.1);
                Some(of_node + self.per_node(light).saturating_mul(others.saturating_sub(1)))
            }
            None if self.stepped.0 > 0 => {
                let until = self.node_since.unwrap_or(now);
                let light = until.saturating_duration_since(started).saturating_sub(self.stepped.1);
                let all = self.per_node(light).saturating_mul(others);
                Some(all.saturating_sub(now.saturating_duration_since(until)))
            }
            None => None,
        }
    }

    /// Mean time of the nodes that went without steps.
    fn per_node(&self, light: Duration) -> Duration {
        light / self.done.saturating_sub(self.stepped.0).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock {
        origin: Instant,
        pace: Pace,
    }

    impl Clock {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test's time")]
        fn new() -> Self {
            let mut clock = Self { origin: Instant::now(), pace: Pace::default() };
            clock.pace.start(clock.at(0));
            clock
        }

        fn at(&self, seconds: u64) -> Instant {
            self.origin + Duration::from_secs(seconds)
        }

        fn note(&mut self, seconds: u64, node: &str, steps: (u32, u32), nodes: (u32, u32)) {
            self.pace.note(self.at(seconds), node, steps, nodes);
        }

        fn left(&self, seconds: u64) -> Option<u64> {
            self.pace.left(self.at(seconds)).map(|left| left.as_secs())
        }
    }

    #[test]
    fn before_the_second_step_nothing_is_known() {
        let mut clock = Clock::new();
        assert_eq!(clock.left(1), None);
        clock.note(1, "loader", (0, 0), (0, 7));
        clock.note(9, "text", (0, 0), (1, 7));
        assert_eq!(clock.left(9), None, "a loaded model says nothing of the sampler");
        clock.note(10, "sampler", (0, 0), (4, 7));
        clock.note(12, "sampler", (1, 20), (4, 7));
        assert_eq!(clock.left(12), None, "the first step warms up");
        clock.note(14, "sampler", (2, 20), (4, 7));
        // 18 steps of 2 s, and two nodes as the four before, which took 12 s.
        assert_eq!(clock.left(14), Some(36 + 2 * 3));
        assert_eq!(clock.left(24), Some(26 + 2 * 3), "time passes between reports");
    }

    #[test]
    fn a_decode_after_long_sampling_is_short() {
        let mut clock = Clock::new();
        clock.note(8, "sampler", (0, 0), (4, 7));
        clock.note(10, "sampler", (1, 20), (4, 7));
        clock.note(600, "sampler", (20, 20), (4, 7));
        clock.note(608, "decode", (0, 0), (5, 7));
        assert_eq!(clock.left(608), Some(4), "two nodes, as long as those without steps took");
        assert_eq!(clock.left(900), Some(0));
    }

    #[test]
    fn a_second_round_of_steps_begins_anew() {
        let mut clock = Clock::new();
        clock.note(0, "tiles", (1, 10), (0, 1));
        clock.note(9, "tiles", (10, 10), (0, 1));
        clock.note(10, "tiles", (1, 10), (0, 1));
        assert_eq!(clock.left(10), None);
        clock.note(12, "tiles", (2, 10), (0, 1));
        assert_eq!(clock.left(12), Some(16));
    }
}
