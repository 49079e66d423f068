//! Leaving in good order: no new work from anybody, what runs is finished, results are taken.

use std::time::{Duration, Instant};

/// After its time what is left is given back; this long that may take before the node ends all the same.
const LAST_CALL: Duration = Duration::from_secs(15);

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainWish {
    /// Or take work again.
    pub draining: bool,
    /// End when nothing is left here that somebody waits for.
    pub exit: bool,
    /// After so long what still runs for others is given back, and results wait no longer.
    pub within: Option<Duration>,
}

/// A wish that is being granted. Pure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Draining {
    wish: DrainWish,
    by: Option<Instant>,
}

impl Draining {
    pub(super) fn new(wish: DrainWish, now: Instant) -> Self {
        Self { wish, by: wish.within.filter(|_| wish.draining).map(|within| now + within) }
    }

    pub(super) fn wish(&self) -> DrainWish {
        self.wish
    }

    /// What is left of its time.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.by.map(|by| by.saturating_duration_since(now))
    }

    /// Whether its time is over: others' work goes back.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.by.is_some_and(|by| by <= now)
    }

    /// When something is due by the clock after this moment.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let last = self.by.map(|by| by + LAST_CALL);
        self.by.into_iter().chain(last).filter(|at| *at > now).min()
    }

    /// Whether the node ends now, with so many attempts held here.
    pub(super) fn is_over(&self, now: Instant, held: usize, idle: bool) -> bool {
        let given_up = self.by.is_some_and(|by| by + LAST_CALL <= now);
        self.wish.draining && self.wish.exit && ((held == 0 && idle) || given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test's time")]
    fn it_ends_when_nothing_is_left_or_its_time_is_over() {
        let now = Instant::now();
        let wish = DrainWish { draining: true, exit: true, within: None };
        let draining = Draining::new(wish, now);
        assert!(!draining.is_over(now, 1, true) && !draining.is_over(now, 0, false));
        assert!(draining.is_over(now, 0, true));
        assert!(
            !draining.is_over(now + Duration::from_hours(99), 1, true),
            "results wait as long as it takes"
        );
        assert_eq!(draining.deadline(now), None);

        let stays = Draining::new(DrainWish { exit: false, ..wish }, now);
        assert!(!stays.is_over(now, 0, true));

        let hurried = Draining::new(DrainWish { within: Some(Duration::from_secs(60)), ..wish }, now);
        let minute = now + Duration::from_secs(60);
        assert!(!hurried.is_late(now) && hurried.is_late(minute));
        assert_eq!(
            (hurried.deadline(now), hurried.deadline(minute)),
            (Some(minute), Some(minute + LAST_CALL))
        );
        assert!(!hurried.is_over(minute, 1, false) && hurried.is_over(minute + LAST_CALL, 1, false));
    }
}
