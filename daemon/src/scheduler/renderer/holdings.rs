//! What the renderer's journal holds: accepted attempts, given-up ones, and the ids of envelopes seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scenemesh_protocol::ids::{ContentHash, MsgId, NodeId, TaskId};
use scenemesh_protocol::lease::Finished;

use crate::scheduler::conversation::{AttemptKey, RESULT_KEPT_MS};
use crate::scheduler::record::{Acceptance, RendererRecord, Withdrawn};

/// Changed by [`Holdings::apply`] only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    held: BTreeMap<AttemptKey, Held>,
    /// Attempts given up, and when: a grant for one is refused.
    tombstones: BTreeMap<AttemptKey, u64>,
    /// Envelopes that were accepted, with their expiry and for which attempt.
    seen: BTreeMap<(NodeId, MsgId), (u64, AttemptKey)>,
    purged_ms: u64,
    /// Work that nobody will confirm, the newest of it.
    withdrawn: BTreeMap<AttemptKey, Withdrawn>,
}

/// Attempts remembered as withdrawn; the lowest keys make room.
const WITHDRAWN_KEPT: usize = 4096;

/// An attempt that is ours to bring to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub acceptance: Arc<Acceptance>,
    pub sealed: Option<Sealed>,
}

/// A result that waits to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub finished: Box<Finished>,
    pub roots: Vec<ContentHash>,
    pub at_ms: u64,
    /// Kept so long at most, in milliseconds.
    pub keep_ms: u64,
}

impl Holdings {
    pub fn held(&self, key: &AttemptKey) -> Option<&Held> {
        self.held.get(key)
    }

    pub fn all(&self) -> impl Iterator<Item = (&AttemptKey, &Held)> {
        self.held.iter()
    }

    pub fn is_given_up(&self, key: &AttemptKey) -> bool {
        self.tombstones.contains_key(key)
    }

    /// How many attempts of one requester are given up.
    pub fn given_up_by(&self, from: &NodeId) -> usize {
        let first = AttemptKey { from: *from, task: TaskId::from_bytes([0; 16]), attempt: 0 };
        self.tombstones.range(first..).take_while(|(key, _)| key.from == *from).count()
    }

    /// Attempts given up before this wall time: their tombstones have done their duty.
    pub fn forget_tombstones(&mut self, before_ms: u64) {
        self.tombstones.retain(|_, at_ms| *at_ms >= before_ms);
    }

    /// Whether an envelope was accepted before.
    pub fn has_seen(&self, from: &NodeId, msg_id: &MsgId) -> bool {
        self.seen.contains_key(&(*from, *msg_id))
    }

    /// Envelopes that expired up to here are refused.
    pub fn purged_ms(&self) -> u64 {
        self.purged_ms
    }

    /// The highest expiry that lies before the given one, if any envelope has such.
    pub fn purgeable(&self, before_ms: u64) -> Option<u64> {
        self.seen.values().map(|(expires, _)| *expires).filter(|expires| *expires < before_ms).max()
    }

    /// Attempts whose acceptance is still of use: held ones, and those whose envelope could come again.
    pub fn of_use(&self) -> BTreeSet<AttemptKey> {
        self.held.keys().copied().chain(self.seen.values().map(|(_, key)| *key)).collect()
    }

    /// Attempts that are given up.
    pub fn given_up(&self) -> impl Iterator<Item = &AttemptKey> {
        self.tombstones.keys()
    }

    /// Every blob that is still needed: inputs of attempts that have not ended, results of those that have.
    pub fn roots(&self) -> BTreeSet<ContentHash> {
        let going_on = self.held.values().filter(|held| held.sealed.is_none());
        let inputs = going_on.flat_map(|held| held.acceptance.roots.iter().map(|blob| blob.root));
        let results = self.held.values().filter_map(|held| held.sealed.as_ref());
        inputs.chain(results.flat_map(|sealed| sealed.roots.iter().copied())).collect()
    }

    /// Work for requesters that were shut out before they took the result.
    pub fn withdrawn(&self) -> impl Iterator<Item = &Withdrawn> {
        self.withdrawn.values()
    }

    /// Changes the state as a record says. Total, like the requester's.
    pub fn apply(&mut self, record: &RendererRecord) {
        match record {
            RendererRecord::Accepted(acceptance) => {
                let seen = (acceptance.expires_ms, acceptance.key());
                self.seen.insert((acceptance.from, acceptance.msg_id), seen);
                let held = Held { acceptance: Arc::new((**acceptance).clone()), sealed: None };
                self.held.insert(acceptance.key(), held);
            }
            RendererRecord::Sealed { from, task, attempt, finished, roots, at_ms } => {
                let key = AttemptKey { from: *from, task: *task, attempt: *attempt };
                if let Some(held) = self.held.get_mut(&key) {
                    let (finished, roots, at_ms) = (finished.clone(), roots.clone(), *at_ms);
                    held.sealed = Some(Sealed { finished, roots, at_ms, keep_ms: RESULT_KEPT_MS });
                }
            }
            RendererRecord::Dropped { from, task, attempt, at_ms } => {
                let key = AttemptKey { from: *from, task: *task, attempt: *attempt };
                self.held.remove(&key);
                self.tombstones.insert(key, *at_ms);
            }
            RendererRecord::Keeping { from, task, attempt, keep_ms } => {
                let key = AttemptKey { from: *from, task: *task, attempt: *attempt };
                if let Some(sealed) = self.held.get_mut(&key).and_then(|held| held.sealed.as_mut()) {
                    sealed.keep_ms = *keep_ms;
                }
            }
            RendererRecord::Withdrawn(withdrawn) => {
                let key = withdrawn.key();
                self.held.remove(&key);
                self.tombstones.insert(key, withdrawn.at_ms);
                self.withdrawn.insert(key, *withdrawn);
                if self.withdrawn.len() > WITHDRAWN_KEPT {
                    self.withdrawn.pop_first();
                }
            }
            RendererRecord::Purged { expires_ms } => {
                self.purged_ms = self.purged_ms.max(*expires_ms);
                self.seen.retain(|_, (expires, _)| *expires > *expires_ms);
            }
        }
    }
}
