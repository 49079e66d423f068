//! Who waits for a slot here, who is next, and the claims that hold a slot for two seconds.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::deputy::{GrantRight, Shown};
use scenemesh_protocol::ids::{ClaimId, JobId, NodeId, ReservationId};
use scenemesh_protocol::lease::{Claim, ClaimReply, Offer, OfferReply, Refusal, RefusalReason};
use scenemesh_protocol::signed::{Signed, Verified};
use scenemesh_protocol::task::{Class, ModelName, Shape};

use super::grants::Exam;
use super::{Action, Facts, Occupant, Renderer, Slot, SlotState};
use crate::executor::policy::Whose;
use crate::scheduler::SHAPE_LIMIT;
use crate::scheduler::conversation::{Answer, AttemptKey, Barred, CLAIM_HOLD, NoAnswer, Now, Ticket};
use crate::scheduler::lend::Owner;
use crate::scheduler::placement::{self, WhyNot};

/// Most offers that wait here, and most of them from one node; never more than there is room left for others.
const QUEUE_LIMIT: usize = 4096;
const QUEUE_LIMIT_PER_NODE: usize = 256;
/// A reservation whose requester did not answer a claim is passed over for this long.
const CLAIM_AGAIN: Duration = Duration::from_secs(2);

/// An offer in line.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) from: NodeId,
    pub(super) id: ReservationId,
    job: JobId,
    /// What a deputy showed.
    right: Option<Arc<Verified<GrantRight>>>,
    shape: Shape,
    class: Class,
    /// Tasks that wait over there, less our claims.
    left: u32,
    /// Orders what one requester asks for: first come, first served.
    arrived: u64,
    pub(super) not_before: Option<Instant>,
}

/// A slot promised to a requester that has not sent its grant yet.
#[derive(Debug)]
pub(super) struct HeldClaim {
    pub(super) from: NodeId,
    pub(super) reservation: ReservationId,
    pub(super) slot: String,
    /// What its requester showed with its offer, when it is a deputy.
    pub(super) right: Option<Arc<Verified<GrantRight>>>,
    until: Instant,
    /// The grant is here and being looked at: the hold does not run out meanwhile.
    pub(super) exam: Option<Exam>,
}

impl Queued {
    fn is_own(&self, me: NodeId) -> bool {
        self.from == me && self.right.is_none()
    }
}

impl HeldClaim {
    pub(super) fn is_own(&self, me: NodeId) -> bool {
        self.from == me && self.right.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exam.is_none().then_some(self.until)
    }
}

impl Renderer {
    pub(super) fn see_facts(&mut self, now: Now, facts: Arc<Facts>) {
        self.facts = facts;
        let facts = &self.facts;
        self.queue.retain(|queued| {
            may_submit(facts, now, queued.from, queued.right.as_deref()).is_ok()
                && may_lend(facts, queued.from, queued.is_own(facts.me), queued.class, queued.shape.vram_mib)
                    .is_ok()
                && may_run(facts, queued.is_own(facts.me), &queued.shape.classes).is_ok()
        });
        self.tallies.retain(|node| facts.members.contains_key(node));
        // Before anything of others' is run that is to go back.
        self.mind_the_owner(now);
        self.run_what_waits(now);
    }

    /// These nodes are shut out: nothing of theirs waits, is promised a slot, or runs here any more.
    pub(super) fn shut_out(&mut self, now: Now, barred: Arc<Barred>) {
        self.barred = barred;
        let is_out = |node: &NodeId| *node != self.facts.me && self.barred.contains_key(node);
        self.queue.retain(|queued| !is_out(&queued.from));
        let claims = self.claims.iter().filter(|(_, claim)| is_out(&claim.from) && claim.exam.is_none());
        let claims: Vec<ClaimId> = claims.map(|(id, _)| *id).collect();
        let held = self.holdings.all().map(|(key, _)| *key).filter(|key| is_out(&key.from));
        let held: Vec<AttemptKey> = held.collect();
        claims.into_iter().for_each(|claim| self.release_claim(claim));
        held.into_iter().for_each(|key| self.withdraw(now, key));
    }

    pub(super) fn forget_reservations_of(&mut self, node: NodeId) {
        self.queue.retain(|queued| queued.from != node);
        let held = self.claims.iter().filter(|(_, claim)| claim.from == node && claim.exam.is_none());
        for claim in held.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.release_claim(claim);
        }
    }

    pub(super) fn drain(&mut self, draining: bool) {
        self.draining = draining;
        if !draining {
            return;
        }
        self.queue.clear();
        let held = self.claims.iter().filter(|(_, claim)| claim.exam.is_none());
        for claim in held.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.release_claim(claim);
        }
    }

    pub(super) fn offered(&mut self, now: Now, from: NodeId, offer: Offer, ticket: Ticket) {
        if offer.ready == 0 {
            self.queue.retain(|queued| (queued.from, queued.id) != (from, offer.reservation));
            self.reply(ticket, OfferReply::Waiting { position: 0, eta_ms: None });
            return;
        }
        let right = match self.right_of(now, from, &offer) {
            Ok(right) => right,
            Err(refusal) => {
                self.queue.retain(|queued| (queued.from, queued.job) != (from, offer.job));
                self.reply(ticket, OfferReply::Refused(refusal));
                return;
            }
        };
        let known =
            self.queue.iter_mut().find(|queued| (queued.from, queued.id) == (from, offer.reservation));
        if let Some(known) = known {
            (known.left, known.class, known.shape) = (offer.ready, offer.class, offer.shape);
            known.right = right;
            known.not_before = None;
        } else {
            // One per job and node: a newer offer of the same job takes the older one's place.
            self.queue.retain(|queued| (queued.from, queued.job) != (from, offer.job));
            self.arrivals += 1;
            self.queue.push(Queued {
                from,
                id: offer.reservation,
                job: offer.job,
                right,
                shape: offer.shape,
                class: offer.class,
                left: offer.ready,
                arrived: self.arrivals,
                not_before: None,
            });
        }
        self.asking = Some((from, offer.reservation, ticket));
    }

    /// The right that a deputy's offer rests on, when the offer may wait here at all.
    fn right_of(
        &mut self,
        now: Now,
        from: NodeId,
        offer: &Offer,
    ) -> Result<Option<Arc<Verified<GrantRight>>>, Refusal> {
        let right = offer.right.as_ref().map(|right| judge(&self.facts, now, from, offer.job, right));
        let right = right.transpose()?.map(Arc::new);
        self.consider(now, from, offer, right.as_deref()).map(|()| right)
    }

    /// Whether a grant for this claim is a deputy's, with a right that was judged and holds.
    pub fn shows_right(&self, now: Now, from: NodeId, claim: ClaimId) -> bool {
        let right =
            self.claims.get(&claim).filter(|held| held.from == from).and_then(|held| held.right.as_ref());
        right.is_some_and(|right| may_submit(&self.facts, now, from, Some(right)).is_ok())
    }

    fn consider(
        &mut self,
        now: Now,
        from: NodeId,
        offer: &Offer,
        right: Option<&Verified<GrantRight>>,
    ) -> Result<(), Refusal> {
        let refuse = |reason, detail: &str| Err(Refusal { reason, detail: detail.to_owned() });
        if self.draining {
            return refuse(RefusalReason::Stopping, "it takes no new work: it is being drained");
        }
        may_submit(&self.facts, now, from, right)?;
        let own = from == self.facts.me && right.is_none();
        may_lend(&self.facts, from, own, offer.class, offer.shape.vram_mib)?;
        may_run(&self.facts, own, &offer.shape.classes)?;
        self.check_journal(now, from)?;
        if offer.shape.classes.len().max(offer.shape.models.len()) > SHAPE_LIMIT {
            let words = format!("a task may need {SHAPE_LIMIT} node classes and as many models at most");
            return Err(Refusal { reason: RefusalReason::BadGrant, detail: words });
        }
        let ready = |slot: &&Slot| !matches!(slot.state, SlotState::NotReady { .. });
        let mut slots = self.facts.slots.iter().filter(ready).peekable();
        if slots.peek().is_none() {
            return refuse(RefusalReason::NotReady, "its ComfyUI is not ready");
        }
        self.check_health(from)?;
        let mut why = None;
        for slot in slots.filter(|slot| self.is_well_for(from, slot)) {
            match self.fits(from, slot, &offer.shape) {
                Ok(()) => {
                    why = None;
                    break;
                }
                Err(error) => why = Some(error),
            }
        }
        if let Some(why) = why {
            return Err(Refusal { reason: reason_of(&why), detail: format!("it {why}") });
        }
        let mine = self.queue.iter().filter(|queued| queued.from == from).count();
        let known = self.queue.iter().any(|queued| (queued.from, queued.job) == (from, offer.job));
        if !known && mine >= QUEUE_LIMIT.saturating_sub(self.queue.len()).min(QUEUE_LIMIT_PER_NODE) {
            let words =
                format!("{mine} of your offers wait there, which is your part of its queue: ask again later");
            return Err(Refusal { reason: RefusalReason::Busy, detail: words });
        }
        Ok(())
    }

    /// Another studio uses the models that are shared with it, and learns of no others by asking.
    fn fits(&self, from: NodeId, slot: &Slot, shape: &Shape) -> Result<(), WhyNot> {
        let studio = self.facts.members.get(&from).map(|member| member.studio);
        let mine = from == self.facts.me || (studio.is_some() && studio == self.facts.my_studio);
        let shared = |model: &ModelName| slot.shared.models.binary_search(model).is_ok();
        let mut hidden = shape.models.iter().filter(|model| !mine && !shared(model));
        if let Some(first) = hidden.next() {
            return Err(WhyNot::LacksModels { first: first.clone(), more: hidden.count() });
        }
        placement::fits(Some(&slot.inventory), slot.vram_mib, slot.cc, slot.hygiene, shape)
    }

    /// Who is served before whom: own machine, own studio, others; then class; then requesters by turns.
    fn order(&self, queued: &Queued) -> impl Ord + use<> {
        let studio = self.facts.members.get(&queued.from).map(|member| member.studio);
        let whose = match studio {
            _ if queued.is_own(self.facts.me) => 0,
            Some(studio) if Some(studio) == self.facts.my_studio => 1,
            _ => 2,
        };
        (whose, Reverse(queued.class), self.round_of(queued.from), queued.arrived)
    }

    /// Start-time fair queueing among requesters: each claim puts its requester one round on, and nobody who was
    /// away meanwhile comes back with rounds to catch up.
    fn round_of(&self, from: NodeId) -> u64 {
        self.rounds.get(&from).copied().unwrap_or(0).max(self.round)
    }

    pub(super) fn is_free(&self, slot: &Slot) -> bool {
        slot.state == SlotState::Ready && !self.taken.contains_key(&slot.name)
    }

    pub(super) fn claim_free_slots(&mut self, now: Now) {
        if self.draining || self.queue.is_empty() {
            return;
        }
        let facts = self.facts.clone();
        for slot in &facts.slots {
            if !self.is_free(slot) {
                continue;
            }
            let next = self
                .queue
                .iter()
                .filter(|queued| queued.left > 0 && queued.not_before.is_none())
                .filter(|queued| self.up.contains_key(&queued.from))
                .filter(|queued| !self.is_passed_over(now, &queued.from))
                .filter(|queued| self.is_well_for(queued.from, slot))
                .filter(|queued| self.fits(queued.from, slot, &queued.shape).is_ok())
                .min_by_key(|queued| self.order(queued))
                .map(|queued| (queued.from, queued.id));
            if let Some((from, reservation)) = next {
                self.claim(now, from, reservation, &slot.name);
            }
        }
    }

    fn claim(&mut self, now: Now, from: NodeId, reservation: ReservationId, slot: &str) {
        let claim = self.ids.claim();
        let mut right = None;
        if let Some(queued) = self.queued(from, reservation) {
            queued.left = queued.left.saturating_sub(1);
            right.clone_from(&queued.right);
        }
        self.round = self.round_of(from);
        self.rounds.insert(from, self.round + 1);
        self.taken.insert(slot.to_owned(), Occupant::Claim(claim));
        let held = HeldClaim {
            from,
            reservation,
            slot: slot.to_owned(),
            right,
            until: now.at + CLAIM_HOLD,
            exam: None,
        };
        self.claims.insert(claim, held);
        if let Some((.., ticket)) = self.asking.take_if(|asking| (asking.0, asking.1) == (from, reservation))
        {
            self.reply(ticket, OfferReply::Claim(claim));
        } else {
            self.out.push(Action::Claim { node: from, claim: Claim { reservation, claim } });
        }
    }

    fn queued(&mut self, from: NodeId, id: ReservationId) -> Option<&mut Queued> {
        self.queue.iter_mut().find(|queued| (queued.from, queued.id) == (from, id))
    }

    /// An offer that got no slot at once is told its place in line.
    pub(super) fn answer_waiting(&mut self) {
        let Some((from, reservation, ticket)) = self.asking.take() else { return };
        let asked = self.queue.iter().find(|queued| (queued.from, queued.id) == (from, reservation));
        let position = asked.map_or(0, |asked| {
            let mine = self.order(asked);
            self.queue.iter().filter(|other| other.left > 0 && self.order(other) < mine).count()
        });
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        self.reply(ticket, OfferReply::Waiting { position, eta_ms: None });
    }

    pub(super) fn claim_answered(&mut self, now: Now, id: ClaimId, answer: Answer<ClaimReply>) {
        let Some(claim) = self.claims.get(&id).filter(|claim| claim.exam.is_none()) else { return };
        let (from, reservation) = (claim.from, claim.reservation);
        match answer {
            Ok(ClaimReply::Coming) => {}
            Ok(ClaimReply::Gone) => {
                self.queue.retain(|queued| (queued.from, queued.id) != (from, reservation));
                self.release_claim(id);
            }
            Err(NoAnswer(_)) => {
                self.release_claim(id);
                if let Some(queued) = self.queued(from, reservation) {
                    queued.not_before = Some(now.at + CLAIM_AGAIN);
                }
            }
        }
    }

    /// The slot is free again; the task it was meant for still waits over there.
    pub(super) fn release_claim(&mut self, id: ClaimId) {
        let Some(claim) = self.claims.remove(&id) else { return };
        if self.taken.get(&claim.slot) == Some(&Occupant::Claim(id)) {
            self.taken.remove(&claim.slot);
        }
        if let Some(queued) = self.queued(claim.from, claim.reservation) {
            queued.left = queued.left.saturating_add(1);
        }
    }

    pub(super) fn release_expired_claims(&mut self, now: Now) {
        let expired = self.claims.iter().filter(|(_, claim)| claim.deadline().is_some_and(|at| at <= now.at));
        for (claim, from) in expired.map(|(id, claim)| (*id, claim.from)).collect::<Vec<_>>() {
            self.held_in_vain(now, from);
            self.release_claim(claim);
        }
    }
}

/// What a deputy shows, held against what is known of the two.
fn judge(
    facts: &Facts,
    now: Now,
    from: NodeId,
    job: JobId,
    right: &Signed<GrantRight>,
) -> Result<Verified<GrantRight>, Refusal> {
    let refused = |detail: String| Refusal { reason: RefusalReason::NotAllowed, detail };
    let pool = facts.pool.ok_or_else(|| refused("it is in no pool".into()))?;
    let member = |node: &NodeId| facts.members.get(node).map(|member| (member.studio, member.roles));
    let shown = Shown { pool, by: from, job, now_ms: now.wall_ms, member: &member };
    GrantRight::judge(right, &shown).map_err(|error| refused(error.to_string()))
}

/// Whether this node's tasks may run here at all: its own, or with a right those that it is a deputy for.
pub(super) fn may_submit(
    facts: &Facts,
    now: Now,
    from: NodeId,
    right: Option<&Verified<GrantRight>>,
) -> Result<(), Refusal> {
    let not_allowed =
        |detail: &str| Err(Refusal { reason: RefusalReason::NotAllowed, detail: detail.to_owned() });
    if from == facts.me && right.is_none() {
        return Ok(());
    }
    if !facts.renders {
        return not_allowed("it has no role `render`");
    }
    if let Some(right) = right {
        let member = |node: &NodeId| facts.members.get(node).map(|member| (member.studio, member.roles));
        let holds = right.still_holds(now.wall_ms, &member);
        return holds.or_else(|error| not_allowed(&error.to_string()));
    }
    match facts.members.get(&from) {
        None => not_allowed("it does not know you as a member of the pool"),
        Some(member) if !member.roles.submit => not_allowed("you have no role `submit`"),
        Some(_) => Ok(()),
    }
}

/// Whether this machine lends itself to this node now; `own`: for work of its own. Another studio learns no more than that it does not.
pub(super) fn may_lend(
    facts: &Facts,
    from: NodeId,
    own: bool,
    class: Class,
    vram_mib: Option<u32>,
) -> Result<(), Refusal> {
    let studio = facts.members.get(&from).map(|member| member.studio);
    if !own && facts.owner != Owner::Away {
        let detail = "its owner uses the GPU now".to_owned();
        return Err(Refusal { reason: RefusalReason::NotNow, detail });
    }
    if from == facts.me || (studio.is_some() && studio == facts.my_studio) {
        return Ok(());
    }
    if studio.is_some_and(|studio| facts.lend.takes(studio, class, vram_mib)) {
        return Ok(());
    }
    Err(Refusal { reason: RefusalReason::NotNow, detail: "not now".to_owned() })
}

/// Whether this machine's own tasks, or others', with these node classes may run here.
fn may_run(facts: &Facts, own: bool, classes: &[String]) -> Result<(), Refusal> {
    let whose = if own { Whose::OwnMachine } else { Whose::Others };
    let judged = facts.policy.classes(classes, whose);
    judged.map_err(|denied| Refusal { reason: RefusalReason::NotAllowed, detail: denied.to_string() })
}

fn reason_of(why: &WhyNot) -> RefusalReason {
    match why {
        WhyNot::LacksClasses { .. } => RefusalReason::MissingClass,
        WhyNot::LacksModels { .. } => RefusalReason::MissingModel,
        WhyNot::VramUnknown { .. }
        | WhyNot::TooLittleVram { .. }
        | WhyNot::CcUnknown { .. }
        | WhyNot::CcTooLow { .. } => RefusalReason::TooLittleVram,
        _ => RefusalReason::NotAllowed,
    }
}
