//! A grant comes in: is it for a claim we hold, from whom it should be, and may it run here?

use std::time::Duration;

use scenemesh_protocol::ids::{ClaimId, ContentHash, NodeId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::lease::{Grant, GrantReply, Refusal, RefusalReason};
use scenemesh_protocol::task::Class;

use super::attempts::Work;
use super::queue::{may_lend, may_submit};
use super::{Action, Examination, Occupant, Rejection, Renderer};
use crate::scheduler::conversation::{AttemptKey, Now, Ticket};
use crate::scheduler::record::{Acceptance, RendererRecord};

/// How long after its expiry an envelope's id is remembered, in milliseconds; the protocol's replay memory.
const REPLAY_MEMORY_MS: u64 = 10 * 60 * 1000;

/// A grant that is being looked at, and everybody who waits for the verdict.
#[derive(Debug)]
pub(super) struct Exam {
    pub(super) key: AttemptKey,
    grant: Box<Grant>,
    class: Class,
    tickets: Vec<Ticket>,
}

fn refused(reason: RefusalReason, detail: &str) -> Rejection {
    Rejection { refusal: Refusal { reason, detail: detail.to_owned() }, failure: None }
}

impl Renderer {
    pub(super) fn granted(&mut self, now: Now, from: NodeId, grant: Box<Grant>, ticket: Ticket) {
        match self.look_at(now, from, grant, ticket) {
            Ok(Some(reply)) => self.reply(ticket, reply),
            Ok(None) => {}
            Err(Rejection { refusal, failure }) => {
                self.reply(ticket, GrantReply::Rejected { refusal, failure });
            }
        }
    }

    /// `None`: the grant is being examined, and answered then.
    fn look_at(
        &mut self,
        now: Now,
        from: NodeId,
        grant: Box<Grant>,
        ticket: Ticket,
    ) -> Result<Option<GrantReply>, Rejection> {
        let bad = |detail: &str| refused(RefusalReason::BadGrant, detail);
        let terms = grant.terms.verify().map_err(|error| bad(&format!("the grant's terms: {error}")))?;
        if terms.signer() != PublicKey::from(from) || terms.from != from {
            return Err(bad("the grant is signed by another node than the one that sent it"));
        }
        if terms.to != self.facts.me {
            return Err(bad("the grant is for another node"));
        }
        let key = AttemptKey { from, task: terms.task, attempt: terms.attempt };
        if let Some(held) = self.holdings.held(&key) {
            if held.acceptance.grant.terms.hash() != terms.hash() {
                return Err(bad("this attempt was granted with other terms before"));
            }
            return Ok(Some(GrantReply::Accepted(held.acceptance.accepted.clone())));
        }
        if self.holdings.is_given_up(&key) {
            return Err(refused(RefusalReason::Tombstone, "this attempt was given up here"));
        }
        let right = self.claims.get(&terms.claim).filter(|claim| claim.from == from);
        let right = right.and_then(|claim| claim.right.as_deref());
        may_submit(&self.facts, now, from, right)
            .and_then(|()| may_lend(&self.facts, from, key.is_own(self.facts.me), terms.class, None))
            .map_err(|refusal| Rejection { refusal, failure: None })?;
        if from != self.facts.me && Some(terms.pool) != self.facts.pool {
            return Err(bad("the grant is of another pool"));
        }
        if self.is_foreign(&key) {
            return Err(bad("another node's attempt has this name"));
        }
        let no_room = |refusal| Rejection { refusal, failure: None };
        self.check_room(from, &terms.roots).map_err(no_room)?;
        let busy = || refused(RefusalReason::Busy, "the slot was not held any longer");
        let claim = self.claims.get_mut(&terms.claim).filter(|claim| claim.from == from).ok_or_else(busy)?;
        if let Some(exam) = &mut claim.exam {
            if exam.grant.terms.hash() != terms.hash() {
                return Err(bad("this claim got another grant before"));
            }
            exam.tickets.push(ticket);
            return Ok(None);
        }
        if terms.memo.as_ref().is_some_and(|memo| !memo.is_well_formed()) {
            return Err(bad("its memo has not the size of one"));
        }
        if terms.envelope != ContentHash::of(&grant.envelope) {
            return Err(bad("the envelope is not the one that was signed"));
        }
        let exam = Exam { key, grant: grant.clone(), class: terms.class, tickets: vec![ticket] };
        claim.exam = Some(exam);
        let slot = claim.slot.clone();
        self.out.push(Action::Examine { claim: terms.claim, from, slot, grant });
        Ok(None)
    }

    /// Whether another requester's attempt here has the same task and number, by which the executor and ComfyUI know
    /// it: task ids are chosen by peers.
    fn is_foreign(&self, key: &AttemptKey) -> bool {
        let leaving = self.taken.values().filter_map(|occupant| match occupant {
            Occupant::Attempt(key) | Occupant::Leaving(key) => Some(key),
            Occupant::Claim(_) | Occupant::Smoke(_) => None,
        });
        let mut others = self.work.keys().chain(leaving);
        others.any(|other| (other.task, other.attempt) == (key.task, key.attempt))
    }

    pub(super) fn examined(&mut self, now: Now, id: ClaimId, result: Result<Examination, Rejection>) {
        let Some(claim) = self.claims.get_mut(&id) else { return };
        let Some(exam) = claim.exam.take() else { return };
        let (key, from, reservation) = (exam.key, claim.from, claim.reservation);
        // Given up while it was being looked at.
        let result = result.and_then(|examination| {
            if self.holdings.is_given_up(&key) {
                return Err(refused(RefusalReason::Tombstone, "this attempt was given up here"));
            }
            // Shut out, without its role, or the GPU is wanted back, since the grant came.
            let right = self.claims.get(&id).and_then(|claim| claim.right.as_deref());
            let may = may_submit(&self.facts, now, from, right);
            may.and_then(|()| may_lend(&self.facts, from, key.is_own(self.facts.me), exam.class, None))
                .map_err(|refusal| Rejection { refusal, failure: None })?;
            if from != self.facts.me && self.barred.contains_key(&from) {
                return Err(refused(RefusalReason::NotAllowed, "you are shut out here"));
            }
            // Two that were looked at side by side.
            if self.is_foreign(&key) {
                return Err(refused(RefusalReason::BadGrant, "another node's attempt has this name"));
            }
            Ok(examination)
        });
        let examination = match result {
            Ok(examination) => examination,
            Err(Rejection { refusal, failure }) => {
                self.release_claim(id);
                if refusal.reason == RefusalReason::BadGrant && failure.is_none() {
                    self.held_in_vain(now, from);
                }
                if refusal.reason != RefusalReason::Tombstone {
                    // It was this node that refused: the next one in line is served before it asks again.
                    self.queue.iter_mut().for_each(|queued| {
                        if (queued.from, queued.id) == (from, reservation) {
                            queued.not_before = Some(now.at + Duration::from_secs(1));
                        }
                    });
                }
                for ticket in exam.tickets {
                    let (refusal, failure) = (refusal.clone(), failure.clone());
                    self.reply(ticket, GrantReply::Rejected { refusal, failure });
                }
                return;
            }
        };
        let Some(claim) = self.claims.remove(&id) else { return };
        self.taken.insert(claim.slot.clone(), Occupant::Attempt(key));
        let acceptance = Acceptance {
            from: key.from,
            task: key.task,
            attempt: key.attempt,
            claim: id,
            slot: claim.slot,
            msg_id: examination.msg_id,
            expires_ms: examination.expires_ms,
            grant: *exam.grant,
            accepted: examination.accepted.clone(),
            roots: examination.roots,
            class: exam.class,
            at_ms: now.wall_ms,
        };
        if let Some(expires_ms) = self.holdings.purgeable(now.wall_ms.saturating_sub(REPLAY_MEMORY_MS)) {
            self.commit(RendererRecord::Purged { expires_ms });
        }
        self.charge_acceptance(now, &acceptance);
        self.commit(RendererRecord::Accepted(Box::new(acceptance)));
        for ticket in exam.tickets {
            self.reply(ticket, GrantReply::Accepted(examination.accepted.clone()));
        }
        self.work.insert(key, Work::new(now.at));
        self.fetch_inputs(now, key);
    }
}
