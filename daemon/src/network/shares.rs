//! PURE: a room that many share. Nobody fills it alone: whoever comes anew finds a place.

use std::collections::HashMap;
use std::hash::Hash;

/// Places in a room, by who holds them.
///
/// Nobody may hold more than is left free: one alone gets half of the room, two a third each, and whoever comes anew
/// finds as much as each of them has. Parts shrink as others come; what is held then already stays until it is given up.
#[derive(Debug)]
pub(super) struct Shares<K> {
    room: usize,
    /// Most places of one, however empty the room.
    most: usize,
    held: HashMap<K, usize>,
}

impl<K: Eq + Hash> Shares<K> {
    pub(super) fn new(room: usize, most: usize) -> Self {
        Self { room, most, held: HashMap::new() }
    }

    /// Takes a place, if one is left for this one.
    pub(super) fn admit(&mut self, who: K) -> bool {
        let free = self.room - self.held.values().sum::<usize>();
        let held = self.held.get(&who).copied().unwrap_or(0);
        if held >= free.min(self.most) {
            return false;
        }
        self.held.insert(who, held + 1);
        true
    }

    /// Gives a place up.
    pub(super) fn leave(&mut self, who: &K) {
        if let Some(held) = self.held.get_mut(who) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(who);
            }
        }
    }

    /// Everybody has left.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &mut Shares<u8>, who: u8) -> usize {
        (0..1000).take_while(|_| shares.admit(who)).count()
    }

    #[test]
    fn one_alone_leaves_half_the_room() {
        let mut shares = Shares::new(64, 64);
        assert_eq!(fill(&mut shares, 1), 32);
        assert_eq!(fill(&mut shares, 2), 16);
        shares.leave(&1);
        assert!(!shares.admit(1), "its part is smaller since another came");
    }

    #[test]
    fn the_most_of_one_holds_in_an_empty_room() {
        assert_eq!(fill(&mut Shares::new(64, 24), 1), 24);
    }

    #[test]
    fn a_newcomer_finds_a_place_however_many_take_all_they_can() {
        let mut shares = Shares::new(1024, 64);
        for hostile in 0..20 {
            fill(&mut shares, hostile);
            assert!(shares.admit(200), "{hostile} nodes took all they could");
            shares.leave(&200);
        }
    }

    #[test]
    fn who_left_is_forgotten() {
        let mut shares = Shares::new(4, 4);
        for who in 0..100 {
            assert!(shares.admit(who));
            shares.leave(&who);
        }
        assert!(shares.held.is_empty());
    }
}
