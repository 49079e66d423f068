//! Attempts that are given up here: stopped where they run, and their requesters told afterwards what was removed.

use std::time::Duration;

use scenemesh_protocol::ids::{ContentHash, NodeId, TaskId};
use scenemesh_protocol::lease::Finished;
use scenemesh_protocol::task::{Failure, FailureClass};

use super::attempts::Stage;
use super::holdings::Held;
use super::{Action, Occupant, Renderer, RunOutcome};
use crate::executor::Wipe;
use crate::scheduler::conversation::{AttemptKey, Now};
use crate::scheduler::record::{RendererRecord, Withdrawn};

/// What is still owed for an attempt that was given up while it ran.
#[derive(Debug)]
pub(super) enum Farewell {
    /// Its run has not ended; the hash of its grant's terms.
    Leaving(ContentHash),
    /// Signed; told until it is answered, or until this node stops.
    Told(Box<Finished>),
}

/// Farewells kept for requesters that are away.
const FAREWELLS: usize = 64;

impl Renderer {
    /// A run that was cancelled has let its slot go.
    pub(super) fn ended_unwanted(
        &mut self,
        task: TaskId,
        attempt: u32,
        outcome: RunOutcome,
        wipe: Option<Wipe>,
    ) {
        let leaving = self.taken.values().find_map(|occupant| match occupant {
            Occupant::Leaving(key) if (key.task, key.attempt) == (task, attempt) => Some(*key),
            _ => None,
        });
        let Some(key) = leaving else { return };
        self.let_go(key);
        if let RunOutcome::Done { outputs, .. } = outcome {
            let roots = outputs.iter().map(|output| output.root).collect();
            self.out.push(Action::DropResults { key, roots });
        }
        let owed = self.farewells.remove(&key);
        if let (Some(Farewell::Leaving(grant)), Some(_)) = (owed, &wipe) {
            self.farewells.insert(key, Farewell::Leaving(grant));
            // Where it was given back, this may be what its requester hears first.
            let class = if self.work.contains_key(&key) {
                FailureClass::OwnerReturned
            } else {
                FailureClass::Cancelled
            };
            let outcome = RunOutcome::Failed(Failure::new(class, "cancelled while it ran"));
            self.out.push(Action::SealResult { key, grant, outcome, wipe });
        }
    }

    /// What was removed after an attempt that its requester does not want any more.
    pub(super) fn farewell(&mut self, key: AttemptKey, finished: Box<Finished>) {
        if self.up.contains_key(&key.from) {
            self.out.push(Action::Finished { key, finished: finished.clone() });
        }
        self.farewells.insert(key, Farewell::Told(finished));
    }

    /// Again for those who were away.
    pub(super) fn say_farewell_to(&mut self, node: NodeId) {
        for (key, farewell) in &self.farewells {
            if let (true, Farewell::Told(finished)) = (key.from == node, farewell) {
                self.out.push(Action::Finished { key: *key, finished: finished.clone() });
            }
        }
    }

    pub(super) fn let_go(&mut self, key: AttemptKey) {
        self.taken.retain(
            |_, occupant| !matches!(occupant, Occupant::Attempt(at) | Occupant::Leaving(at) if *at == key),
        );
    }

    /// Its run was told to stop: the slot is not free before it has ended, and what is removed then is owed.
    pub(super) fn expect_to_leave(&mut self, key: AttemptKey) {
        if let Some(held) = self.holdings.held(&key).cloned() {
            self.expect_to_leave_with(key, &held);
        }
    }

    fn expect_to_leave_with(&mut self, key: AttemptKey, held: &Held) {
        self.taken.insert(held.acceptance.slot.clone(), Occupant::Leaving(key));
        if self.farewells.len() >= FAREWELLS {
            self.farewells.pop_first();
        }
        self.farewells.insert(key, Farewell::Leaving(held.acceptance.grant.terms.hash()));
    }

    pub(super) fn is_leaving(&self, key: &AttemptKey) -> bool {
        self.taken.values().any(|occupant| *occupant == Occupant::Leaving(*key))
    }

    /// Its slot is free, unless its run has not let go yet.
    pub(super) fn vacate(&mut self, key: AttemptKey) {
        self.taken.retain(|_, occupant| *occupant != Occupant::Attempt(key));
    }

    /// Its requester is shut out: stop it and keep nothing of it but the record that it was asked for.
    pub(super) fn withdraw(&mut self, now: Now, key: AttemptKey) {
        let Some(held) = self.holdings.held(&key) else { return };
        let began = self.work.get(&key).and_then(|work| work.began);
        let ran = began.map_or(Duration::ZERO, |began| now.at.saturating_duration_since(began));
        let withdrawn = Withdrawn {
            from: key.from,
            task: key.task,
            attempt: key.attempt,
            grant: held.acceptance.grant.terms.hash(),
            ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
            at_ms: now.wall_ms,
        };
        self.end(key, RendererRecord::Withdrawn(withdrawn));
    }

    pub(super) fn end(&mut self, key: AttemptKey, record: RendererRecord) {
        let Some(held) = self.holdings.held(&key).cloned() else { return };
        let AttemptKey { task, attempt, .. } = key;
        self.commit(record);
        match self.work.remove(&key).map(|work| work.stage) {
            Some(Stage::Running) => {
                self.expect_to_leave_with(key, &held);
                self.out.push(Action::CancelRun { task, attempt });
            }
            Some(Stage::Fetching { .. } | Stage::Waiting { .. }) => {
                self.let_go(key);
                // Its prompt may be in ComfyUI since before a restart.
                self.out.push(Action::CancelRun { task, attempt });
            }
            // One that was given back may still be leaving.
            _ => self.vacate(key),
        }
        if let Some(sealed) = held.sealed {
            self.out.push(Action::Unserve { key });
            self.out.push(Action::DropResults { key, roots: sealed.roots });
        }
        let inputs = held.acceptance.roots.iter().map(|blob| blob.root).collect();
        self.drop_unnamed(key, inputs);
    }
}
