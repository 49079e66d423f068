//! Our jobs in line at each node. A line is bounded, so that a long queue here does not become a long queue
//! everywhere; who finds it full waits for a place in it, and no line keeps anybody out for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{JobId, NodeId};
use scenemesh_protocol::task::Class;

/// So many of our jobs are in line at a node.
pub(super) const JOBS_IN_LINE: usize = 64;
/// A full line that no claim has moved for this long gives one of its places to somebody who waits.
const TURN: Duration = Duration::from_mins(1);

/// The order of service: more urgent first, then older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    class: Reverse<Class>,
    created_ms: u64,
    pub(super) job: JobId,
}

impl Place {
    pub(super) fn of(class: Class, created_ms: u64, job: JobId) -> Self {
        Self { class: Reverse(class), created_ms, job }
    }
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    at: BTreeMap<NodeId, Line>,
}

#[derive(Debug)]
struct Line {
    inside: BTreeSet<Place>,
    /// Of each that is inside, and since when.
    since: BTreeMap<JobId, (Instant, Place)>,
    /// Who waits, by round: who had to leave comes a round later than who was not in yet.
    outside: BTreeSet<(u64, Place)>,
    rounds: BTreeMap<JobId, (u64, Place)>,
    round: u64,
    /// When a claim last moved it, or it became full.
    moved: Instant,
}

impl Line {
    fn new(now: Instant) -> Self {
        Self {
            inside: BTreeSet::new(),
            since: BTreeMap::new(),
            outside: BTreeSet::new(),
            rounds: BTreeMap::new(),
            round: 0,
            moved: now,
        }
    }

    fn is_full(&self) -> bool {
        self.inside.len() >= JOBS_IN_LINE
    }

    fn turn_ends(&self) -> Option<Instant> {
        (self.is_full() && !self.outside.is_empty()).then(|| self.moved + TURN)
    }

    fn wait(&mut self, round: u64, place: Place) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.rounds.entry(place.job) {
            vacant.insert((round, place));
            self.outside.insert((round, place));
        }
    }

    fn wait_no_more(&mut self, job: JobId) {
        if let Some(waiting) = self.rounds.remove(&job) {
            self.outside.remove(&waiting);
        }
    }
}

impl Lines {
    /// Whether a job may enter: there is room, or somebody less urgent to overtake.
    pub(super) fn takes(&self, node: NodeId, place: &Place) -> bool {
        let overtakes = |line: &Line| line.inside.last().is_some_and(|last| last.class > place.class);
        self.at.get(&node).is_none_or(|line| !line.is_full() || overtakes(line))
    }

    /// Who has to leave before somebody more urgent enters.
    pub(super) fn overtaken(&self, node: NodeId) -> Option<Place> {
        self.at.get(&node).filter(|line| line.is_full())?.inside.last().copied()
    }

    pub(super) fn enter(&mut self, now: Instant, node: NodeId, place: Place) {
        let line = self.at.entry(node).or_insert_with(|| Line::new(now));
        line.wait_no_more(place.job);
        line.inside.insert(place);
        line.since.insert(place.job, (now, place));
        if line.is_full() {
            line.moved = now;
        }
    }

    pub(super) fn leave(&mut self, node: NodeId, job: JobId) {
        let Some(line) = self.at.get_mut(&node) else { return };
        if let Some((_, place)) = line.since.remove(&job) {
            line.inside.remove(&place);
        }
        if line.inside.is_empty() && line.outside.is_empty() {
            self.at.remove(&node);
        }
    }

    /// A job of this line was claimed.
    pub(super) fn moved(&mut self, now: Instant, node: NodeId) {
        if let Some(line) = self.at.get_mut(&node) {
            line.moved = now;
        }
    }

    /// A job waits for a place in a line that is full.
    pub(super) fn wait(&mut self, node: NodeId, place: Place) {
        if let Some(line) = self.at.get_mut(&node) {
            line.wait(line.round, place);
        }
    }

    /// A job that wants no place anywhere.
    pub(super) fn wait_no_more(&mut self, job: JobId) {
        self.at.values_mut().for_each(|line| line.wait_no_more(job));
    }

    /// The first that waits for a place in a line that has one; it has to be looked at, since it may want none.
    pub(super) fn next_in(&mut self) -> Option<JobId> {
        let line = self.at.values_mut().find(|line| !line.is_full() && !line.outside.is_empty())?;
        let (round, place) = *line.outside.first()?;
        line.round = line.round.max(round);
        line.wait_no_more(place.job);
        Some(place.job)
    }

    /// The node's line ended with its run, or with ours.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.at.remove(&node);
    }

    /// When [`Lines::stuck`] has something to say, as far as these nodes are concerned.
    pub(super) fn deadline(&self, is_up: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        let lines = self.at.iter().filter(|(node, _)| is_up(node));
        lines.filter_map(|(_, line)| line.turn_ends()).min()
    }

    /// Of every full line that did not move for a turn while somebody waits: who was in it for longest. It waits
    /// again from now on, a round later.
    pub(super) fn stuck(&mut self, now: Instant, is_up: impl Fn(&NodeId) -> bool) -> Vec<(NodeId, JobId)> {
        let mut out = Vec::new();
        for (node, line) in self.at.iter_mut().filter(|(node, _)| is_up(node)) {
            if line.turn_ends().is_none_or(|at| at > now) {
                continue;
            }
            line.moved = now;
            if let Some((_, place)) = line.since.values().min().copied() {
                line.wait(line.round + 1, place);
                out.push((*node, place.job));
            }
        }
        out
    }
}
