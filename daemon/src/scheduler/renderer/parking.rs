//! A slot where one task after the other fails, whoever sent it, takes nothing of others' any more, until a small render
//! of this node's own comes out right there or five hours are over.
//!
//! Its owner's tasks go on: they may be what shows that it is well again. Nothing of this is written down: after a
//! start, what is broken is soon found to be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use scenemesh_protocol::lease::{Refusal, RefusalReason};
use scenemesh_protocol::task::{Failure, FailureClass, OutputFile};

use super::{Action, Occupant, Renderer, RunEvent, RunOutcome, Slot, SlotState};
use crate::scheduler::conversation::{AttemptKey, Now};
use crate::scheduler::lend::Owner;

/// So many requesters' tasks that fail without one between them that does not: then it is the machine.
const OWNERS: usize = 3;
/// As for a node that fails much of one job.
const FORGIVEN_AFTER: Duration = Duration::from_hours(5);
/// Before the first smoke render; doubled each time.
const FIRST_TRY: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(30);
/// A slot that has no room for it now is looked at again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// What smoke renders are numbered with: each is a task of its own.
pub const SMOKE_ATTEMPT: u32 = 1;

/// How every slot fares, by name.
#[derive(Debug, Default)]
pub(super) struct Parking {
    slots: BTreeMap<String, Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Whose tasks failed since the last that did not.
    owners: BTreeSet<NodeId>,
    parked: Option<Parked>,
    /// Pauses since then. Where smoke renders come out right and tasks fail all the same, the pauses grow too.
    pauses: u32,
}

#[derive(Debug)]
struct Parked {
    owners: usize,
    last: FailureClass,
    until: Instant,
    smoke: Smoke,
    /// What was wrong with the last smoke render.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Smoke {
    Due(Instant),
    Runs(TaskId),
    /// It ended, and is being looked at.
    Seen(TaskId, Vec<ContentHash>),
}

/// A slot that takes nothing of others', for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedSlot {
    pub slot: String,
    /// Nodes whose tasks failed there one after the other.
    pub owners: usize,
    /// What the last of them failed with.
    pub last: FailureClass,
    /// What was wrong with the last smoke render, if there was one.
    pub trouble: Option<String>,
    /// When others' work is taken again whatever comes.
    pub left: Duration,
}

impl Health {
    fn pause(&mut self) -> Duration {
        let pause = FIRST_TRY.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        pause
    }
}

impl Parking {
    /// When something of it is due by the clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parked = self.slots.values().filter_map(|health| health.parked.as_ref());
        let due = parked.map(|parked| match parked.smoke {
            Smoke::Due(at) => at.min(parked.until),
            Smoke::Runs(_) | Smoke::Seen(..) => parked.until,
        });
        due.min()
    }

    pub(super) fn holds(&self, slot: &str) -> bool {
        self.slots.get(slot).is_some_and(|health| health.parked.is_some())
    }

    /// The slot where this smoke render is.
    fn of(&mut self, task: TaskId) -> Option<(&String, &mut Health)> {
        self.slots.iter_mut().find(|(_, health)| {
            let smoke = health.parked.as_ref().map(|parked| &parked.smoke);
            matches!(smoke, Some(Smoke::Runs(known) | Smoke::Seen(known, _)) if *known == task)
        })
    }
}

impl Renderer {
    /// A run has ended: what does that tell of its slot?
    pub(super) fn note_health(&mut self, now: Now, key: AttemptKey, outcome: &RunOutcome) {
        let Some(held) = self.holdings.held(&key) else { return };
        let slot = held.acceptance.slot.clone();
        match outcome {
            RunOutcome::Done { .. } => self.unpark(&slot, "a task was rendered there"),
            RunOutcome::Failed(failure) if failure.class.may_be_the_machines() => {
                self.note_failure(now, slot, key.from, failure);
            }
            RunOutcome::Failed(_) => {}
        }
    }

    fn note_failure(&mut self, now: Now, slot: String, from: NodeId, failure: &Failure) {
        let health = self.parking.slots.entry(slot.clone()).or_default();
        health.owners.insert(from);
        let owners = health.owners.len();
        if owners < OWNERS || health.parked.is_some() {
            return;
        }
        let smoke = Smoke::Due(now.at + health.pause());
        let (last, until) = (failure.class, now.at + FORGIVEN_AFTER);
        health.parked = Some(Parked { owners, last, until, smoke, trouble: None });
        tracing::warn!(%slot, owners, last = last.words(), "tasks fail there one after the other: it takes nothing of others'");
    }

    /// Forgets everything against a slot but that it was parked before; a task that was rendered clears that too.
    fn release(&mut self, slot: &str, why: &str) {
        let Some(health) = self.parking.slots.get_mut(slot) else { return };
        health.owners.clear();
        let Some(parked) = health.parked.take() else { return };
        tracing::info!(slot, why, "it takes others' work again");
        match parked.smoke {
            Smoke::Due(_) => {}
            Smoke::Runs(task) => self.stop_smoke(task),
            Smoke::Seen(_, roots) => self.out.push(Action::DropSmoke { roots }),
        }
    }

    fn unpark(&mut self, slot: &str, why: &str) {
        self.release(slot, why);
        self.parking.slots.remove(slot);
    }

    fn stop_smoke(&mut self, task: TaskId) {
        self.out.push(Action::CancelRun { task, attempt: SMOKE_ATTEMPT });
    }

    /// Whether a slot takes work of this node, as far as its health goes.
    pub(super) fn is_well_for(&self, from: NodeId, slot: &Slot) -> bool {
        from == self.facts.me || !self.parking.holds(&slot.name)
    }

    /// Whether no slot that is ready takes anything of others'.
    pub fn is_parked(&self) -> bool {
        let ready = |slot: &&Slot| !matches!(slot.state, SlotState::NotReady { .. });
        let mut ready = self.facts.slots.iter().filter(ready).peekable();
        ready.peek().is_some() && ready.all(|slot| self.parking.holds(&slot.name))
    }

    pub(super) fn check_health(&self, from: NodeId) -> Result<(), Refusal> {
        if from == self.facts.me || !self.is_parked() {
            return Ok(());
        }
        let parked = self.parking.slots.values().filter_map(|health| health.parked.as_ref());
        let owners = parked.map(|parked| parked.owners).max().unwrap_or(OWNERS);
        let detail = format!(
            "it parked itself: tasks of {owners} nodes failed there one after the other; \
             it takes others' work again when a small render of its own comes out right"
        );
        Err(Refusal { reason: RefusalReason::NotReady, detail })
    }

    /// What takes nothing of others' now.
    pub fn parked(&self, now: Now) -> Vec<ParkedSlot> {
        let parked = self.parking.slots.iter().filter_map(|(slot, health)| {
            let parked = health.parked.as_ref()?;
            Some(ParkedSlot {
                slot: slot.clone(),
                owners: parked.owners,
                last: parked.last,
                trouble: parked.trouble.clone(),
                left: parked.until.saturating_duration_since(now.at),
            })
        });
        parked.collect()
    }

    /// Does what is due by the clock: smoke renders, and the end of five hours.
    pub(super) fn mind_the_parked(&mut self, now: Now) {
        let over = self
            .parking
            .slots
            .iter()
            .filter(|(_, health)| health.parked.as_ref().is_some_and(|parked| parked.until <= now.at));
        for slot in over.map(|(slot, _)| slot.clone()).collect::<Vec<_>>() {
            self.release(&slot, "five hours are over");
        }
        let due = self.parking.slots.iter().filter(|(_, health)| {
            let smoke = health.parked.as_ref().map(|parked| &parked.smoke);
            matches!(smoke, Some(Smoke::Due(at)) if *at <= now.at)
        });
        for slot in due.map(|(slot, _)| slot.clone()).collect::<Vec<_>>() {
            let has_room = self.facts.slots.iter().any(|known| known.name == slot && self.is_free(known));
            let may = has_room && !self.draining && self.facts.owner == Owner::Away;
            let smoke = if may {
                let task = self.ids.task();
                self.taken.insert(slot.clone(), Occupant::Smoke(task));
                self.out.push(Action::Smoke { task, slot: slot.clone() });
                Smoke::Runs(task)
            } else {
                Smoke::Due(now.at + AGAIN)
            };
            if let Some(parked) = self.parking.slots.get_mut(&slot).and_then(|health| health.parked.as_mut())
            {
                parked.smoke = smoke;
            }
        }
    }

    /// The GPU is wanted: what this node tries there stops. Its end frees the slot.
    pub(super) fn stop_smoke_on(&mut self, slot: &str) {
        if let Some(Occupant::Smoke(task)) = self.taken.get(slot) {
            self.stop_smoke(*task);
        }
    }

    /// Takes the executor's report if it is on a smoke render.
    pub(super) fn smoke_ran(&mut self, now: Now, task: TaskId, event: &RunEvent) -> bool {
        let smoke = Occupant::Smoke(task);
        if !self.taken.values().any(|occupant| *occupant == smoke) {
            return false;
        }
        let RunEvent::Ended { outcome, .. } = event else { return true };
        self.taken.retain(|_, occupant| *occupant != smoke);
        match outcome {
            RunOutcome::Done { outputs, .. } => self.see_smoke(task, outputs),
            RunOutcome::Failed(failure) if failure.class.may_be_the_machines() => {
                self.smoked(now, task, Err(failure.to_string()));
            }
            // Somebody stopped it: it says nothing.
            RunOutcome::Failed(_) => {
                if let Some((_, Health { parked: Some(parked), .. })) = self.parking.of(task) {
                    parked.smoke = Smoke::Due(now.at + AGAIN);
                }
            }
        }
        true
    }

    fn see_smoke(&mut self, task: TaskId, outputs: &[OutputFile]) {
        let roots: Vec<ContentHash> = outputs.iter().map(|output| output.root).collect();
        match self.parking.of(task) {
            Some((_, Health { parked: Some(parked), .. })) => {
                parked.smoke = Smoke::Seen(task, roots);
                self.out.push(Action::LookAtSmoke { task, outputs: outputs.to_vec() });
            }
            // Not parked any more.
            _ => self.out.push(Action::DropSmoke { roots }),
        }
    }

    /// The answer to [`Action::Smoke`] and [`Action::LookAtSmoke`].
    pub(super) fn smoked(&mut self, now: Now, task: TaskId, result: Result<(), String>) {
        // One that did not begin has no end.
        self.taken.retain(|_, occupant| *occupant != Occupant::Smoke(task));
        let Some((slot, health)) = self.parking.of(task) else { return };
        let slot = slot.clone();
        let Err(why) = result else { return self.release(&slot, "a smoke render came out right") };
        let pause = health.pause();
        let Some(parked) = health.parked.as_mut() else { return };
        tracing::warn!(%slot, %why, again_s = pause.as_secs(), "a smoke render did not come out right");
        parked.trouble = Some(why);
        let before = std::mem::replace(&mut parked.smoke, Smoke::Due(now.at + pause));
        if let Smoke::Seen(_, roots) = before {
            self.out.push(Action::DropSmoke { roots });
        }
    }
}
