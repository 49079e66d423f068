//! PURE. What is kept, and for how long: when ended jobs are forgotten, when the journal is compacted, and which of its
//! records are still of use.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use scenemesh_protocol::ids::TaskId;
use tokio::time::Instant;

use crate::scheduler::conversation::AttemptKey;
use crate::scheduler::record::{RendererRecord, RequesterRecord, Withdrawn};
use crate::scheduler::renderer::holdings::Holdings;
use crate::scheduler::requester::jobs::Jobs;
use crate::store::{Judge, Verdict};

/// A wall clock that jumped is not believed for this long: a machine with an empty battery wakes up in another year,
/// and results must not die of it.
const STEADY: Duration = Duration::from_mins(50);
/// More than this between the two clocks' ideas of what passed is a jump.
const JUMP_MS: u64 = 120_000;
/// Records after which a compaction is worth it.
const WORTH_IT: usize = 5_000;
/// Between two compactions, however much is written or forgotten, and at most, however little is.
const COMPACT_GAP: Duration = Duration::from_mins(10);
const COMPACT_EVERY: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(in crate::scheduler) struct Retention {
    keep: Option<Duration>,
    /// Since when the wall clock goes as fast as the monotonic one, and what it said then.
    steady_since: Instant,
    steady_wall_ms: u64,
    /// Records since the last compaction.
    records: usize,
    /// Jobs were forgotten since, and the journal still holds what they said.
    forgot: bool,
    started_at: Instant,
    /// When this run of the daemon last began to compact.
    compacted_at: Option<Instant>,
}

impl Retention {
    pub(in crate::scheduler) fn new(keep: Option<Duration>, now: Instant, wall_ms: u64) -> Self {
        Self {
            keep,
            steady_since: now,
            steady_wall_ms: wall_ms,
            records: 0,
            forgot: false,
            started_at: now,
            compacted_at: None,
        }
    }

    /// Looks at both clocks; the more often the better.
    pub(in crate::scheduler) fn observe(&mut self, now: Instant, wall_ms: u64) {
        let passed = u64::try_from(now.duration_since(self.steady_since).as_millis()).unwrap_or(u64::MAX);
        if (self.steady_wall_ms.saturating_add(passed)).abs_diff(wall_ms) > JUMP_MS {
            (self.steady_since, self.steady_wall_ms) = (now, wall_ms);
        }
    }

    /// Jobs that ended before this wall time need not be kept; `None` while that cannot be told, or all are kept.
    pub(in crate::scheduler) fn forget_before(&mut self, now: Instant, wall_ms: u64) -> Option<u64> {
        self.observe(now, wall_ms);
        let keep = self.keep.filter(|_| now.duration_since(self.steady_since) >= STEADY)?;
        wall_ms.checked_sub(u64::try_from(keep.as_millis()).ok()?)
    }

    pub(in crate::scheduler) fn recorded(&mut self, records: usize) {
        self.records += records;
    }

    /// The journal holds jobs that are to be gone from it: a compaction is owed soon.
    pub(in crate::scheduler) fn forgot(&mut self) {
        self.forgot = true;
    }

    /// What was forgotten goes at once in a fresh run, and else as soon as the last compaction is long enough ago. A
    /// run that is never long enough for anything else has one after a while.
    pub(in crate::scheduler) fn compaction_is_due(&self, now: Instant) -> bool {
        let Some(last) = self.compacted_at else {
            return self.forgot || (self.records > 0 && now.duration_since(self.started_at) >= COMPACT_GAP);
        };
        let since = now.duration_since(last);
        let much = self.forgot || self.records >= WORTH_IT;
        (much && since >= COMPACT_GAP) || (self.records > 0 && since >= COMPACT_EVERY)
    }

    pub(in crate::scheduler) fn compaction_begins(&mut self, now: Instant) {
        (self.records, self.forgot, self.compacted_at) = (0, false, Some(now));
    }

    /// What it would have removed is still there.
    pub(in crate::scheduler) fn compaction_failed(&mut self) {
        self.forgot = true;
    }
}

/// Says of every record of both machines whether a replay still needs it, as the machines stand now.
pub(in crate::scheduler) fn judge(jobs: &Jobs, holdings: &Holdings) -> Judge {
    let known: HashSet<_> = jobs.jobs().map(|job| job.submission.job).collect();
    let open: HashMap<TaskId, bool> = jobs.all_tasks().collect();
    let accepted: HashSet<AttemptKey> = holdings.of_use().into_iter().collect();
    let held: HashSet<AttemptKey> = holdings.all().map(|(key, _)| *key).collect();
    let given_up: HashSet<AttemptKey> = holdings.given_up().copied().collect();
    let withdrawn: HashSet<AttemptKey> = holdings.withdrawn().map(Withdrawn::key).collect();
    let purged_ms = holdings.purged_ms();
    Judge::default()
        .on::<RequesterRecord>(move |record| match record {
            RequesterRecord::Submitted(submission) if known.contains(&submission.job) => Verdict::Keep,
            RequesterRecord::SubmittedBatch(batch) if known.contains(&batch.submission.job) => Verdict::Keep,
            RequesterRecord::Submitted(_)
            | RequesterRecord::SubmittedBatch(_)
            | RequesterRecord::Forgotten { .. } => Verdict::Drop,
            RequesterRecord::KeptWith { job, .. }
            | RequesterRecord::KeptNoMore { job }
            | RequesterRecord::TakenUp { job, .. }
            | RequesterRecord::GivenBack { job, .. }
                if known.contains(job) =>
            {
                Verdict::Keep
            }
            RequesterRecord::Granted { task, attempt, node, claim, grant, .. } => match open.get(task) {
                Some(true) => Verdict::Keep,
                Some(false) => Verdict::Shorten(RequesterRecord::Tried {
                    task: *task,
                    attempt: *attempt,
                    node: *node,
                    claim: *claim,
                    grant: grant.terms.hash(),
                }),
                None => Verdict::Drop,
            },
            RequesterRecord::Accepted { task, .. } if open.get(task) == Some(&false) => Verdict::Drop,
            record if record.tasks().iter().any(|task| open.contains_key(task)) => Verdict::Keep,
            _ => Verdict::Drop,
        })
        .on::<RendererRecord>(move |record| {
            let needed = match record {
                RendererRecord::Accepted(acceptance) => accepted.contains(&acceptance.key()),
                RendererRecord::Sealed { from, task, attempt, .. }
                | RendererRecord::Keeping { from, task, attempt, .. } => {
                    held.contains(&AttemptKey { from: *from, task: *task, attempt: *attempt })
                }
                RendererRecord::Dropped { from, task, attempt, .. } => {
                    let key = AttemptKey { from: *from, task: *task, attempt: *attempt };
                    // An acceptance that stays must stay given up.
                    given_up.contains(&key) || accepted.contains(&key)
                }
                RendererRecord::Withdrawn(work) => {
                    let key = work.key();
                    // It is a proof of work, and gives the attempt up as a drop does.
                    withdrawn.contains(&key) || given_up.contains(&key) || accepted.contains(&key)
                }
                RendererRecord::Purged { expires_ms } => *expires_ms >= purged_ms,
            };
            if needed { Verdict::Keep } else { Verdict::Drop }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const MONTH_MS: u64 = 30 * 24 * 3_600_000;

    #[test]
    fn a_clock_that_jumped_makes_nothing_old() {
        let (start, wall) = (Instant::now(), 1_700_000_000_000);
        let mut retention = Retention::new(Some(30 * 24 * HOUR), start, wall);
        assert_eq!(retention.forget_before(start, wall), None, "just started");
        let later = |hours: u32, jump: i64| {
            (start + hours * HOUR, wall.saturating_add_signed(i64::from(hours) * 3_600_000 + jump))
        };
        let (now, ms) = later(1, 0);
        assert_eq!(retention.forget_before(now, ms), Some(ms - MONTH_MS));
        let years = 20 * 365 * 24 * 3_600_000;
        for jump in [years, -years, 0] {
            let (now, ms) = later(2, jump);
            assert_eq!(retention.forget_before(now, ms), None, "a jump of {jump} ms");
        }
        let (now, ms) = later(3, 0);
        assert_eq!(retention.forget_before(now, ms), Some(ms - MONTH_MS));
        assert_eq!(Retention::new(None, start, wall).forget_before(now, ms), None);
        let mut early = Retention::new(Some(30 * 24 * HOUR), start, 5);
        assert_eq!(early.forget_before(start + HOUR, 5 + 3_600_000), None, "1970 is not a month old");
    }

    #[test]
    fn compactions_wait_until_they_are_worth_it() {
        let start = Instant::now();
        let mut retention = Retention::new(None, start, 0);
        assert!(!retention.compaction_is_due(start + 30 * HOUR), "nothing was written");
        retention.recorded(1);
        assert!(!retention.compaction_is_due(start + Duration::from_mins(1)));
        assert!(retention.compaction_is_due(start + COMPACT_GAP), "a node may never run for a day");
        retention.compaction_begins(start + COMPACT_GAP);
        assert!(!retention.compaction_is_due(start + 40 * HOUR), "nothing was written since");
        let start = start + COMPACT_GAP;
        retention.recorded(1);
        assert!(!retention.compaction_is_due(start + 23 * HOUR));
        assert!(retention.compaction_is_due(start + 24 * HOUR));
        retention.recorded(WORTH_IT);
        assert!(!retention.compaction_is_due(start + Duration::from_mins(1)));
        assert!(retention.compaction_is_due(start + COMPACT_GAP));
    }

    #[test]
    fn what_was_forgotten_leaves_the_journal_soon_and_not_once_for_each_job() {
        let start = Instant::now();
        let mut retention = Retention::new(None, start, 0);
        retention.forgot();
        assert!(retention.compaction_is_due(start), "as at the next start");
        retention.compaction_begins(start);
        assert!(!retention.compaction_is_due(start + 2 * COMPACT_GAP));
        retention.forgot();
        assert!(!retention.compaction_is_due(start + COMPACT_GAP / 2));
        assert!(retention.compaction_is_due(start + COMPACT_GAP));
        retention.compaction_begins(start + COMPACT_GAP);
        retention.compaction_failed();
        assert!(!retention.compaction_is_due(start + COMPACT_GAP), "a full disk is not asked without end");
        assert!(retention.compaction_is_due(start + 2 * COMPACT_GAP));
    }
}
