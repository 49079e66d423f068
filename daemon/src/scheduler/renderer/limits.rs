//! What one requester may take of this node: disk, journal, a slot that it does not use.
//!
//! Nobody else is slower for it: whoever is over a limit is refused in words, or passed over for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::lease::{BlobRef, Finished, Outcome, Refusal, RefusalReason};

use super::Renderer;
use crate::scheduler::conversation::Now;
use crate::scheduler::record::Acceptance;

/// Most sealed inputs that a task may name.
pub const INPUTS_LIMIT: usize = 1024;
/// Attempts of one requester that are held at once, results that it has not taken included.
const HELD_PER_NODE: usize = 1024;
/// The first pause after a slot was held in vain; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// What a line of the journal takes besides the bytes that are counted.
const LINE: u64 = 1024;
const HOUR: f64 = 3600.0;
/// Inputs must come at this rate at least, in bytes a second, after [`FETCH_GRACE`].
const FETCH_RATE: u64 = 512 << 10;
const FETCH_GRACE: Duration = Duration::from_mins(2);

/// Limits that an operator may set; each is for one requester, which is one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of sealed inputs and results kept here for it.
    pub disk_per_node: u64,
    /// Bytes of grants and results that are written into the journal for it in an hour.
    pub journal_per_hour: u64,
    /// How long a slot may wait for the inputs of its task, however many they are.
    pub fetch_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { disk_per_node: 50 << 30, journal_per_hour: 128 << 20, fetch_time: Duration::from_hours(1) }
    }
}

/// What one requester took, and how it behaved.
#[derive(Debug)]
struct Tally {
    /// Bytes of journal it has left; below nothing after a large result.
    journal: f64,
    filled: Instant,
    /// Slots held for it in vain since its last task that ran.
    strikes: u32,
    /// No slot is held for it before.
    passed_over: Option<Instant>,
}

/// All requesters' tallies.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    pub(super) limits: Limits,
    of: BTreeMap<NodeId, Tally>,
}

impl Tallies {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, of: BTreeMap::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "a limit, not an account")]
    fn of(&mut self, now: Now, node: NodeId) -> &mut Tally {
        let whole = self.limits.journal_per_hour as f64;
        let fresh = || Tally { journal: whole, filled: now.at, strikes: 0, passed_over: None };
        let tally = self.of.entry(node).or_insert_with(fresh);
        let passed = now.at.saturating_duration_since(tally.filled).as_secs_f64();
        tally.journal = (tally.journal + passed * whole / HOUR).min(whole);
        tally.filled = now.at;
        tally
    }

    /// Who has used its part of the journal up gets no slot until a minute's worth of it is back.
    #[expect(clippy::cast_precision_loss, reason = "a limit, not an account")]
    fn charge(&mut self, now: Now, node: NodeId, bytes: u64) {
        let whole = self.limits.journal_per_hour.max(1) as f64;
        let tally = self.of(now, node);
        tally.journal -= bytes as f64;
        if tally.journal <= 0.0 {
            let pause = Duration::from_secs_f64((whole / 60.0 - tally.journal) * HOUR / whole);
            tally.passed_over = tally.passed_over.max(Some(now.at + pause));
        }
    }

    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.of.retain(|node, _| is_member(node));
    }

    /// Forgets pauses that are over.
    pub(super) fn tick(&mut self, now: Now) {
        for tally in self.of.values_mut() {
            tally.passed_over = tally.passed_over.filter(|at| *at > now.at);
        }
    }

    fn is_passed_over(&self, now: Now, node: &NodeId) -> bool {
        self.passed_until(node).is_some_and(|at| now.at < at)
    }

    /// Until when this one gets no slot.
    pub(super) fn passed_until(&self, node: &NodeId) -> Option<Instant> {
        self.of.get(node)?.passed_over
    }
}

/// A number of bytes for people.
pub(super) fn told(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "bytes")];
    let (shift, unit) = units.into_iter().find(|(shift, _)| bytes >> shift > 0).unwrap_or((0, "bytes"));
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths % 10 == 0 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

fn refused(reason: RefusalReason, detail: String) -> Refusal {
    Refusal { reason, detail }
}

impl Renderer {
    /// Sets the limits; those of [`Limits::default`] hold until then.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.tallies = Tallies::new(limits);
        self
    }

    /// Whether there is room in the journal for more of this requester's.
    pub(super) fn check_journal(&mut self, now: Now, from: NodeId) -> Result<(), Refusal> {
        let most = self.tallies.limits.journal_per_hour;
        if from == self.facts.me || self.tallies.of(now, from).journal > 0.0 {
            return Ok(());
        }
        let most = told(most);
        let words = format!(
            "its owner lets one node have {most} of grants and results written down in an hour \
             (limits.journal_per_hour there), and that is used up: ask again later"
        );
        Err(refused(RefusalReason::Busy, words))
    }

    /// Whether inputs like these still fit into what is kept for this requester.
    pub(super) fn check_room(&self, from: NodeId, roots: &[BlobRef]) -> Result<(), Refusal> {
        if from == self.facts.me {
            return Ok(());
        }
        if roots.len() > INPUTS_LIMIT {
            let words =
                format!("a task may name {INPUTS_LIMIT} inputs at most, this one names {}", roots.len());
            return Err(refused(RefusalReason::BadGrant, words));
        }
        let mine = self.holdings.all().filter(|(key, _)| key.from == from);
        let (mut count, mut kept) = (0, 0_u64);
        for (_, held) in mine {
            count += 1;
            let inputs = held.acceptance.roots.iter().map(|blob| blob.sealed_bytes);
            let results = held.sealed.as_ref().map_or(0, |sealed| result_bytes(&sealed.finished));
            kept = inputs.fold(kept.saturating_add(results), u64::saturating_add);
        }
        if count >= HELD_PER_NODE {
            let words = format!(
                "{count} of your attempts are held there, which is the most for one node: take their results"
            );
            return Err(refused(RefusalReason::Busy, words));
        }
        let more = roots.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.sealed_bytes));
        let most = self.tallies.limits.disk_per_node;
        if kept.saturating_add(more) > most {
            let words = format!(
                "inputs of {} beside the {} it keeps for you already are over the {} that its owner allows one node \
                 (limits.disk_per_node there): take your results, or send less",
                told(more),
                told(kept),
                told(most)
            );
            return Err(refused(RefusalReason::DiskFull, words));
        }
        Ok(())
    }

    /// An accepted grant takes its place in the journal.
    pub(super) fn charge_acceptance(&mut self, now: Now, acceptance: &Acceptance) {
        let roots = acceptance.roots.len() as u64 * 80;
        self.charge(now, acceptance.from, acceptance.grant.envelope.len() as u64 + roots);
    }

    /// And so does its result.
    pub(super) fn charge_result(&mut self, now: Now, from: NodeId, finished: &Finished, roots: usize) {
        self.charge(now, from, finished.keys.len() as u64 + roots as u64 * 80);
    }

    fn charge(&mut self, now: Now, from: NodeId, bytes: u64) {
        if from != self.facts.me {
            self.tallies.charge(now, from, bytes + LINE);
        }
    }

    /// A slot was held for nothing. Once is chance; again and again this requester is passed over for longer.
    pub(super) fn held_in_vain(&mut self, now: Now, from: NodeId) {
        if from == self.facts.me || !self.facts.members.contains_key(&from) {
            return;
        }
        let tally = self.tallies.of(now, from);
        let pause = PAUSE.saturating_mul(1 << tally.strikes.min(16)).min(LONGEST_PAUSE);
        tally.strikes = tally.strikes.saturating_add(1);
        tally.passed_over = tally.passed_over.max(Some(now.at + pause));
        if tally.strikes > 2 {
            tracing::info!(peer = %from.short(), pause_s = pause.as_secs(), "it lets slots be held in vain and is passed over");
        }
    }

    /// One of its tasks has all it needs: it means what it asks.
    pub(super) fn meant_it(&mut self, now: Now, from: NodeId) {
        self.tallies.of(now, from).strikes = 0;
    }

    pub(super) fn is_passed_over(&self, now: Now, from: &NodeId) -> bool {
        self.tallies.is_passed_over(now, from)
    }

    /// How long a slot waits for inputs of this size.
    pub(super) fn fetch_time(&self, roots: &[BlobRef]) -> Duration {
        let bytes = roots.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.sealed_bytes));
        (FETCH_GRACE + Duration::from_secs(bytes / FETCH_RATE)).min(self.tallies.limits.fetch_time)
    }
}

/// Bytes of a sealed result, by what we signed of it.
fn result_bytes(finished: &Finished) -> u64 {
    match finished.terms.verify().map(|terms| terms.outcome.clone()) {
        Ok(Outcome::Done { roots, .. }) => {
            roots.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.sealed_bytes))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::ids::ContentHash;

    use super::*;
    use crate::scheduler::conversation::IdSource;

    #[test]
    fn a_slot_waits_for_inputs_as_long_as_they_may_take_and_no_longer_than_its_owner_allows() {
        let blob = |sealed_bytes| BlobRef { root: ContentHash::of(b"input"), sealed_bytes };
        let renderer = Renderer::new(NodeId::from_bytes([1; 32]), IdSource::new([0; 32]));
        assert_eq!(renderer.fetch_time(&[blob(5)]), Duration::from_mins(2));
        assert_eq!(renderer.fetch_time(&[blob(512 << 20), blob(0)]), Duration::from_secs(120 + 1024));
        assert_eq!(renderer.fetch_time(&[blob(u64::MAX), blob(u64::MAX)]), Duration::from_hours(1));
    }

    #[test]
    fn bytes_are_told_as_people_say_them() {
        let said = [0, 5, 4096, 5 << 20, 3 << 29, u64::MAX].map(told);
        assert_eq!(said, ["0 bytes", "5 bytes", "4 KiB", "5 MiB", "1.5 GiB", "17179869183.9 GiB"]);
    }
}
