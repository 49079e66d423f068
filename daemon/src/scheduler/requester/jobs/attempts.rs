//! The attempts at one task, by their numbers.

use super::Attempt;

/// Sorted by number. A list and no map: most tasks have one attempt, and are remembered by the thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(Vec<(u32, Attempt)>);

impl Attempts {
    pub fn get(&self, number: u32) -> Option<&Attempt> {
        self.0.binary_search_by_key(&number, |(known, _)| *known).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.0.binary_search_by_key(&number, |(known, _)| *known).ok().map(|at| &mut self.0[at].1)
    }

    pub fn contains(&self, number: u32) -> bool {
        self.get(number).is_some()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one, in the place of another of its number.
    pub(super) fn insert(&mut self, number: u32, attempt: Attempt) {
        match self.0.binary_search_by_key(&number, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = attempt,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (number, attempt));
            }
        }
    }

    /// All of them, the earliest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &Attempt)> {
        self.0.iter().map(|(number, attempt)| (*number, attempt))
    }

    pub fn values(&self) -> impl Iterator<Item = &Attempt> {
        self.0.iter().map(|(_, attempt)| attempt)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.0.iter_mut().map(|(_, attempt)| attempt)
    }
}
