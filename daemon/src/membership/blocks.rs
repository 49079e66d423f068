//! PURE: who is shut out, and what that means: for the links, for the tasks, in words.
//!
//! Three ways lead out. An admin of its studio revokes a node, for ever. A node goes on under another key, and the old
//! one is refused from then on. Any machine of this node's studio blocks a key, for 72 hours at most, here and at its
//! sister machines. A node that was revoked itself has everybody shut out: nobody would hear it.

use std::collections::BTreeMap;

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::messages::RosterDiff;
use scenemesh_protocol::roster::{Roster, SignedRecord, is_name};
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{Block, StudioRecord};

use super::revoking::{NoSuchMember, find_member};
use super::rights::studio_name;
use super::state::{State, Step};
use super::studio::RefusedStudioRecord;
use crate::network::{Parting, RosterView};

/// Longest reason of a revocation or a block, in bytes.
pub(super) const REASON_LIMIT: usize = 256;

/// How a node is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    Revoked,
    /// It goes on under a new key.
    Rotated,
    Blocked {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
    },
}

/// A node that is shut out here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shut {
    pub barrier: Barrier,
    pub name: String,
    pub studio: String,
    /// The reason that was given.
    pub reason: String,
    /// One sentence.
    pub words: String,
}

/// What to block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTerms {
    /// A member by name, or by the end of its id.
    pub node: String,
    pub reason: String,
    /// End a block instead.
    pub lift: bool,
}

/// Why nobody was blocked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotBlock {
    #[error("this node is in no pool; run init or join first")]
    NoPool,
    #[error("this node is no member of its pool now, and nobody would heed it; see scenemesh pool")]
    NotMember,
    #[error(transparent)]
    NoSuch(#[from] NoSuchMember),
    #[error("a node does not block itself; scenemesh leave takes it out of the pool")]
    ThisNode,
    #[error("{0} is not blocked; scenemesh peers shows who is")]
    NotBlocked(String),
    #[error("the reason is over {REASON_LIMIT} bytes or has control characters; write a shorter one")]
    BadReason,
    #[error("the studio does not take the block: {0}; wait for older ones to end")]
    Refused(#[from] RefusedStudioRecord),
}

/// A block as it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    /// None when it was lifted.
    pub until_ms: Option<u64>,
}

pub(super) fn is_reason(reason: &str) -> bool {
    reason.len() <= REASON_LIMIT && !reason.chars().any(char::is_control)
}

impl State {
    /// Everybody who is shut out, this node included when it is the one.
    pub(super) fn shut_out(&self, now_ms: u64) -> BTreeMap<NodeId, Shut> {
        let Some(roster) = self.roster() else { return BTreeMap::new() };
        let mut shut: BTreeMap<NodeId, Shut> = BTreeMap::new();
        for (key, block) in self.own_studio_records(now_ms).blocks {
            if key != self.me.node.public() {
                let barrier = Barrier::Blocked { until_ms: block.until_ms };
                let by = format!("is blocked by {}", self.own_studio());
                shut.insert(key.node(), describe(roster, &key, barrier, &by, &block.reason));
            }
        }
        for rotated in roster.rotations() {
            let old = rotated.rotation.old;
            if roster.rotation_of(&old).is_some() {
                shut.insert(
                    old.node(),
                    describe(roster, &old, Barrier::Rotated, "goes on under a new key", ""),
                );
            }
        }
        for gone in roster.revocations() {
            if let (Some(holds), true) = (roster.revocation(&gone.key), is_node(roster, &gone.key)) {
                let by = format!("was revoked by {}", studio_name(roster, &holds.studio));
                shut.insert(
                    gone.key.node(),
                    describe(roster, &gone.key, Barrier::Revoked, &by, &holds.reason),
                );
            }
        }
        shut
    }

    /// Why this node itself is out, if it was revoked.
    pub(super) fn own_revocation(&self) -> Option<String> {
        let roster = self.roster()?;
        let gone = roster.revocation(&self.me.node.public())?;
        let by = studio_name(roster, &gone.studio);
        Some(format!("this node was revoked by {by}{}", because(&gone.reason)))
    }

    /// Who is shut out, as the scheduler is told: everybody, where this node was revoked.
    pub(super) fn barred(&self, now_ms: u64) -> BTreeMap<NodeId, String> {
        let mut barred: BTreeMap<NodeId, String> =
            self.shut_out(now_ms).into_iter().map(|(node, shut)| (node, shut.words)).collect();
        if let (Some(words), Some(roster)) = (self.own_revocation(), self.roster()) {
            barred.extend(roster.members(now_ms).map(|member| (member.node.node(), words.clone())));
            barred.insert(self.me.id(), words);
        }
        barred
    }

    /// The roster as links need it.
    pub(super) fn roster_view(&self, now_ms: u64) -> Option<RosterView> {
        let roster = self.roster()?;
        let shut = self.shut_out(now_ms);
        let member = |member: &scenemesh_protocol::roster::Member| (member.node.node(), member.studio);
        let members = match self.own_revocation() {
            // Nobody would hear this node: it dials nobody either.
            Some(_) => BTreeMap::new(),
            None => roster.members(now_ms).map(member).filter(|(node, _)| !shut.contains_key(node)).collect(),
        };
        let told = |(node, shut): (NodeId, Shut)| (node, parting(roster, &node, &shut));
        let parting = shut.into_iter().filter(|(node, _)| *node != self.me.id()).map(told).collect();
        Some(RosterView { digest: roster.digest(), members, parting: std::sync::Arc::new(parting) })
    }

    /// Blocks a member for this studio's machines, or lifts the block.
    pub(super) fn block(&mut self, terms: &BlockTerms, now_ms: u64) -> Result<(Step, Blocked), CannotBlock> {
        let roster = self.roster().ok_or(CannotBlock::NoPool)?.clone();
        let studio = self.place.as_ref().ok_or(CannotBlock::NoPool)?.studio;
        if !self.is_member(now_ms) {
            return Err(CannotBlock::NotMember);
        }
        if !is_reason(&terms.reason) {
            return Err(CannotBlock::BadReason);
        }
        let member = find_member(&roster, &terms.node, &studio)?;
        if member.node == self.me.node.public() {
            return Err(CannotBlock::ThisNode);
        }
        let held = self.own_studio_records(now_ms).blocks.get(&member.node).cloned();
        if terms.lift && held.is_none() {
            return Err(CannotBlock::NotBlocked(member.name.clone()));
        }
        // Later than the one before, whatever the clocks of two machines say.
        let issued_ms = held.map_or(now_ms, |held| now_ms.max(held.issued_ms.saturating_add(1)));
        let until_ms = if terms.lift { issued_ms } else { issued_ms.saturating_add(Block::LONGEST_MS) };
        let block = Block {
            pool: roster.pool(),
            studio,
            key: member.node,
            reason: terms.reason.clone(),
            issued_ms,
            until_ms,
        };
        let record = StudioRecord::Block(Signed::new(&block, &self.me.node));
        let step = self.publish(&record, now_ms)?;
        let blocked = Blocked {
            node: member.node.node(),
            name: member.name.clone(),
            studio: studio_name(&roster, &member.studio),
            until_ms: (!terms.lift).then_some(until_ms),
        };
        Ok((step, blocked))
    }
}

fn is_node(roster: &Roster, key: &PublicKey) -> bool {
    roster.record_of(&key.node()).is_some()
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn describe(roster: &Roster, key: &PublicKey, barrier: Barrier, by: &str, reason: &str) -> Shut {
    let record = roster.record_of(&key.node());
    let name = record.map(|record| record.name.clone()).filter(|name| is_name(name));
    let name = name.unwrap_or_else(|| key.node().short());
    let studio = record.map_or_else(String::new, |record| studio_name(roster, &record.studio));
    let words = format!("{name} {by}{}", because(reason));
    Shut { barrier, name, studio, reason: reason.to_owned(), words }
}

/// What a node that is shut out is told. Of a block it learns nothing but that it is not wanted now.
fn parting(roster: &Roster, node: &NodeId, shut: &Shut) -> Parting {
    let key = PublicKey::from(*node);
    let mut records = Vec::new();
    let words = match shut.barrier {
        Barrier::Blocked { .. } => "this node takes no part with you for now".to_owned(),
        Barrier::Revoked => {
            records.extend(roster.revocation(&key).map(|gone| SignedRecord::Revoked(gone.signed().clone())));
            format!("your key was revoked{}", because(&shut.reason))
        }
        Barrier::Rotated => {
            records.extend(roster.rotation_of(&key).map(|gone| SignedRecord::Rotated(gone.signed().clone())));
            let next = roster.successor(&key).and_then(|next| roster.record_of(&next.node()));
            records.extend(next.map(|next| SignedRecord::Member(next.signed().clone())));
            "your key was exchanged for a new one".to_owned()
        }
    };
    Parting { words, proof: RosterDiff { records, ..RosterDiff::default() } }
}
