//! Chance that can be had again: everything follows from one number.

use std::time::Duration;

use anyhow::{Context, Result};

/// `SplitMix64` (Steele, Lea, Flood 2014): short, and good enough to choose whom to kill.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

/// A number that nobody has chosen.
pub(super) fn fresh() -> Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).ok().context("asking the operating system for a random number")?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

impl Chance {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// One time in so many.
    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap_or_default())
    }

    pub(super) fn span(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.below(to_ms - from_ms))
    }
}
