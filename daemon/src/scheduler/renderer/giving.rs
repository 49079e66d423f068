//! The GPU goes back to whoever sits at it: which of others' work may finish, what is stopped, when memory is let go.
//!
//! Own tasks go on: they are its owner's. Of others' work only what is known to be nearly done goes on, and no longer
//! than was said; the rest is failed as *owner returned* at once, so that it goes elsewhere without waiting for a
//! ComfyUI that does not react. A slot stays taken until that has let go; then its memory is asked back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::task::{Failure, FailureClass};

use super::attempts::Stage;
use super::{Action, Occupant, Renderer, RunOutcome};
use crate::executor::Verdict;
use crate::scheduler::conversation::{AttemptKey, Now};
use crate::scheduler::giving::{GivenBack, GivingView, LentRun, Report, SlotBack};
use crate::scheduler::lend::Owner;

/// Between two questions whether a stopped prompt has gone.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// From the moment that the GPU is wanted until it is lent again.
#[derive(Debug)]
pub(super) struct Giving {
    owner: Owner,
    since: Now,
    /// What may finish must be done by then.
    finish_by: Instant,
    finishing: BTreeSet<AttemptKey>,
    slots: BTreeMap<String, Part>,
    over: bool,
}

/// One slot of it.
#[derive(Debug)]
enum Part {
    /// Others' work has it; told to stop then.
    Occupied {
        stopping: Option<Instant>,
    },
    Freeing,
    Stuck {
        why: String,
        again: Instant,
    },
    OwnWork,
    Done(Report),
}

impl Giving {
    fn new(owner: Owner, finish: Duration, now: Now) -> Self {
        Self {
            owner,
            since: now,
            finish_by: now.at + finish,
            finishing: BTreeSet::new(),
            slots: BTreeMap::new(),
            over: false,
        }
    }

    /// When something of it is due by the clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let finish = (!self.finishing.is_empty()).then_some(self.finish_by);
        let again = self.slots.values().filter_map(|part| match part {
            Part::Stuck { again, .. } => Some(*again),
            _ => None,
        });
        finish.into_iter().chain(again).min()
    }

    fn shown(&self, at: Instant) -> Vec<(String, SlotBack)> {
        let shown = |part: &Part| match part {
            Part::Occupied { stopping: None } => {
                SlotBack::Finishing { at_most: self.finish_by.saturating_duration_since(at) }
            }
            Part::Occupied { stopping: Some(since) } => {
                SlotBack::Stopping { since: at.saturating_duration_since(*since) }
            }
            Part::Freeing => SlotBack::Freeing,
            Part::Stuck { why, .. } => SlotBack::Stuck { why: why.clone() },
            Part::OwnWork => SlotBack::OwnWork,
            Part::Done(report) => SlotBack::Done(report.clone()),
        };
        self.slots.iter().map(|(name, part)| (name.clone(), shown(part))).collect()
    }
}

impl Renderer {
    /// Does what the owner's being there asks for; nothing while the machine is lent.
    pub(super) fn mind_the_owner(&mut self, now: Now) {
        let owner = self.facts.owner;
        let Owner::Back { finish, .. } = owner else {
            self.giving = None;
            return;
        };
        let giving = match self.giving.take() {
            Some(giving) if giving.owner == owner => giving,
            // Wanted back, or said again: it is done anew.
            _ => Giving::new(owner, finish, now),
        };
        let giving = self.give_work_back(now, finish, giving);
        self.release_others_claims();
        self.giving = Some(self.free_slots(now, giving));
    }

    fn give_work_back(&mut self, now: Now, finish: Duration, mut giving: Giving) -> Giving {
        let me = self.facts.me;
        let late = giving.finish_by <= now.at;
        let others: Vec<AttemptKey> = self.work.keys().filter(|key| !key.is_own(me)).copied().collect();
        giving.finishing.retain(|key| self.work.contains_key(key));
        for key in others {
            let Some(work) = self.work.get(&key) else { continue };
            let begun = match work.stage {
                Stage::Fetching { .. } | Stage::Waiting { .. } => false,
                Stage::Running => true,
                Stage::Sealing | Stage::Sealed { .. } => {
                    giving.finishing.remove(&key);
                    continue;
                }
            };
            let may_finish = begun
                && !late
                && (giving.finishing.contains(&key)
                    || work.pace.left(now.at).is_some_and(|left| left <= finish));
            if may_finish {
                giving.finishing.insert(key);
            } else {
                giving.finishing.remove(&key);
                self.give_back(key, begun);
            }
        }
        giving
    }

    /// Fails it here, at once; what runs is stopped, and its slot is not free before it has let go.
    fn give_back(&mut self, key: AttemptKey, begun: bool) {
        let AttemptKey { task, attempt, .. } = key;
        if begun {
            self.expect_to_leave(key);
        }
        // Its prompt may be in ComfyUI since before a restart, begun or not.
        self.out.push(Action::CancelRun { task, attempt });
        let words = if begun { "it was interrupted there" } else { "it was given back unfinished" };
        self.seal(key, RunOutcome::Failed(Failure::new(FailureClass::OwnerReturned, words)), None);
    }

    fn release_others_claims(&mut self) {
        let me = self.facts.me;
        let held = self.claims.iter().filter(|(_, claim)| !claim.is_own(me) && claim.exam.is_none());
        for claim in held.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.release_claim(claim);
        }
    }

    fn free_slots(&mut self, now: Now, mut giving: Giving) -> Giving {
        let facts = self.facts.clone();
        for slot in &facts.slots {
            let name = &slot.name;
            let part = giving.slots.entry(name.clone()).or_insert(Part::Occupied { stopping: None });
            let others = match self.taken.get(name) {
                Some(Occupant::Attempt(key) | Occupant::Leaving(key)) => Some(!key.is_own(facts.me)),
                Some(Occupant::Claim(claim)) => {
                    Some(self.claims.get(claim).is_some_and(|claim| !claim.is_own(facts.me)))
                }
                Some(Occupant::Smoke(_)) => Some(true),
                None => None,
            };
            let due = match part {
                Part::Occupied { .. } => true,
                Part::Stuck { again, .. } => *again <= now.at,
                Part::Freeing | Part::OwnWork | Part::Done(_) => false,
            };
            match (others, &mut *part) {
                (Some(true), Part::Occupied { stopping: stopping @ None })
                    if matches!(self.taken.get(name), Some(Occupant::Leaving(_) | Occupant::Smoke(_))) =>
                {
                    *stopping = Some(now.at);
                    self.stop_smoke_on(name);
                }
                (Some(false), part) if due => *part = Part::OwnWork,
                (None, part) if due => {
                    *part = Part::Freeing;
                    self.out.push(Action::FreeMemory { slot: name.clone() });
                }
                _ => {}
            }
        }
        self.note_the_end(now, giving)
    }

    fn note_the_end(&mut self, now: Now, mut giving: Giving) -> Giving {
        let over = giving.slots.values().all(|part| matches!(part, Part::OwnWork | Part::Done(_)));
        if over && !giving.over {
            giving.over = true;
            self.given_back = Some(GivenBack {
                took: now.at.saturating_duration_since(giving.since.at),
                at_ms: giving.since.wall_ms,
                slots: giving.shown(now.at),
            });
        }
        giving
    }

    /// The answer to [`Action::FreeMemory`].
    pub(super) fn freed(&mut self, now: Now, slot: &str, report: Report) {
        let Some(giving) = &mut self.giving else { return };
        let Some(part @ Part::Freeing) = giving.slots.get_mut(slot) else { return };
        *part = match report.freed.verdict {
            Verdict::Stuck { why } => Part::Stuck { why, again: now.at + ASK_AGAIN },
            _ => Part::Done(report),
        };
    }

    /// Whether the GPU is wanted by whoever sits here.
    pub fn is_wanted_back(&self) -> bool {
        self.facts.owner != Owner::Away
    }

    /// What others have of this machine, and how giving it back goes.
    pub fn giving_view(&self, now: Now) -> GivingView {
        let studio = |key: &AttemptKey| self.facts.members.get(&key.from).map(|member| member.studio);
        let on_slots = self.taken.iter().filter_map(|(slot, occupant)| match occupant {
            Occupant::Attempt(key) => Some((slot, key, false)),
            Occupant::Leaving(key) => Some((slot, key, true)),
            Occupant::Claim(_) | Occupant::Smoke(_) => None,
        });
        let running =
            on_slots.filter(|(_, key, _)| !key.is_own(self.facts.me)).map(|(slot, key, stopping)| {
                let work = self.work.get(key).filter(|_| !stopping);
                LentRun {
                    studio: studio(key),
                    slot: slot.clone(),
                    steps: work.filter(|work| work.max > 0).map(|work| (work.step, work.max)),
                    left: work.and_then(|work| work.pace.left(now.at)),
                    stopping,
                }
            });
        GivingView {
            owner: self.facts.owner,
            running: running.collect(),
            slots: self.giving.as_ref().map(|giving| giving.shown(now.at)).unwrap_or_default(),
            last: self.given_back.clone(),
        }
    }
}
