//! From queue to grant: whom a job is offered to, and which of its tasks a claim gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{ClaimId, JobId, NodeId, ReservationId, TaskId};
use scenemesh_protocol::lease::{self, Claim, ClaimReply, Offer, OfferReply, RefusalReason};
use scenemesh_protocol::task::Shape;

use super::jobs::{AttemptState, Task, TaskState};
use super::lines::Place;
use super::{Action, Promise, Requester, SealedGrant};
use crate::executor::policy::Denied;
use crate::scheduler::conversation::{Answer, NoAnswer, Now, Ticket};
use crate::scheduler::placement::{self, Nodes, WhyNot};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::story::{self, Line, No, cut};

/// A node that did not answer an offer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Offers are repeated at this pace while a reservation stands: one that was lost or overtaken heals, and the
/// place in line is told anew.
const REFRESH: Duration = Duration::from_secs(30);

/// A job's place in a node's queue.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    id: ReservationId,
    state: story::Place,
    asked: Instant,
    /// Ready tasks that the node still believes in: as offered, less its claims.
    told: u32,
}

impl Reservation {
    pub(super) fn place(&self) -> story::Place {
        self.state
    }

    /// When the offer is repeated.
    pub(super) fn refresh_at(&self) -> Instant {
        self.asked + REFRESH
    }
}

/// A node's no, and how long it is taken for an answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) no: No,
    pub(super) until: Instant,
}

impl Requester {
    pub(super) fn see_nodes(&mut self, now: Now, nodes: Arc<Nodes>) {
        let before = std::mem::replace(&mut self.nodes, nodes);
        self.sees_nodes = true;
        let alike = |id: &NodeId| {
            let (old, new) = (before.nodes.get(id), self.nodes.nodes.get(id));
            let (Some(old), Some(new)) = (old, new) else { return old == new };
            let cards = match (&old.card, &new.card) {
                (Some(old), Some(new)) => old.same_abilities(new),
                (old, new) => old.is_none() && new.is_none(),
            };
            cards && (&old.link, old.roles, old.studio) == (&new.link, new.roles, new.studio)
        };
        let ids = before.nodes.keys().chain(self.nodes.nodes.keys());
        let changed: Vec<NodeId> = ids.filter(|id| !alike(id)).copied().collect();
        if changed.is_empty() && before.my_studio == self.nodes.my_studio {
            return;
        }
        self.refusals.retain(|(_, node), _| !changed.contains(node));
        self.review_deputies(now);
        self.dirty.extend(self.jobs.open_jobs());
    }

    pub(super) fn forget_reservations_at(&mut self, node: NodeId) {
        for reservations in self.reservations.values_mut() {
            reservations.remove(&node);
        }
        self.lines.forget(node);
        self.reservations.retain(|_, reservations| !reservations.is_empty());
        self.refusals.retain(|(_, at), _| *at != node);
    }

    /// Tasks of a job that wait and are not promised to a claim.
    pub(super) fn ready_of(&self, job: JobId) -> usize {
        if !self.may_grant(job) {
            return 0;
        }
        let promised = self.promised.values().filter(|promise| promise.job == job).count();
        self.jobs.job(&job).map_or(0, |known| known.ready.count().saturating_sub(promised))
    }

    pub(super) fn place_waiting_jobs(&mut self, now: Now) {
        loop {
            let dirty = std::mem::take(&mut self.dirty);
            let in_order = dirty.iter().filter_map(|job| Some((self.place_of(*job)?, *job)));
            let dirty: BTreeSet<_> = in_order.collect();
            for (_, job) in dirty {
                self.give_up(now, job);
                if self.ready_of(job) == 0 {
                    self.withdraw(job);
                    self.lines.wait_no_more(job);
                } else {
                    self.place(now, job);
                }
            }
            // A place in a line is free for whoever waits there.
            let Some(next) = self.lines.next_in() else { return };
            self.dirty.insert(next);
        }
    }

    fn place_of(&self, job: JobId) -> Option<Place> {
        let submission = &self.jobs.job(&job)?.submission;
        Some(Place::of(submission.class, submission.created_ms, job))
    }

    /// Where a line is full and does not move, whoever is in it for longest makes room for whoever waits.
    pub(super) fn move_lines_on(&mut self, now: Now) {
        for (node, job) in self.lines.stuck(now.at, |node| self.up.contains_key(node)) {
            self.withdraw_at(job, node);
        }
    }

    /// Repeats offers that are due.
    pub(super) fn refresh_offers(&mut self, now: Now) {
        let due = self.reservations.iter().flat_map(|(job, at)| {
            let due = at.iter().filter(|(node, reservation)| {
                reservation.refresh_at() <= now.at && self.up.contains_key(*node)
            });
            due.map(|(node, _)| (*job, *node))
        });
        for (job, node) in due.collect::<Vec<_>>() {
            // A node that fits no more is dealt with where the job is placed.
            let fit = self.fit(job, node).ok().map(|(_, shape)| shape);
            if let Some(shape) = fit.or_else(|| self.shapes_of(job).next().map(|(_, shape)| shape)) {
                let ready = self.ready_of(job);
                self.offer(now, job, node, &shape, ready);
            }
        }
    }

    fn place(&mut self, now: Now, job: JobId) {
        let ready = self.ready_of(job);
        let limit = placement::offers_for(ready);
        let nodes: Vec<NodeId> = self.nodes.nodes.keys().copied().collect();
        let mut fresh = Vec::new();
        let mut fits = BTreeMap::new();
        let mut on_offer = 0;
        for node in nodes {
            let fit = self.fit(job, node);
            let reserved = self.reservations.get(&job).and_then(|at| at.get(&node));
            match (fit, reserved.map(|reservation| reservation.told)) {
                (Ok((_, shape)), None) => {
                    fresh.push(node);
                    fits.insert(node, shape);
                }
                (Ok((_, shape)), Some(told)) => {
                    on_offer += 1;
                    if told == 0 {
                        self.offer(now, job, node, &shape, ready);
                    }
                }
                // It stays in line there and counts again when the node is back.
                (Err(WhyNot::NotConnected), _) | (Err(_), None) => {}
                (Err(_), Some(_)) => self.withdraw_at(job, node),
            }
        }
        let mut room = limit.saturating_sub(on_offer);
        let Some(place) = self.place_of(job) else { return };
        let (open, full): (Vec<_>, Vec<_>) =
            fresh.into_iter().partition(|node| self.lines.takes(*node, &place));
        let Some(shape) = self.shapes_of(job).next().map(|(_, shape)| shape) else { return };
        for node in placement::choose(&self.nodes, job, &shape, open, room) {
            let Some(shape) = fits.remove(&node) else { continue };
            if let Some(last) = self.lines.overtaken(node) {
                self.withdraw_at(last.job, node);
                self.lines.wait(node, last);
            }
            self.offer(now, job, node, &shape, ready);
            room -= 1;
        }
        if room > 0 {
            for node in full {
                self.lines.wait(node, place);
            }
        }
    }

    /// What the waiting tasks of a job need, those that come first in it first; tasks of one recipe need the same.
    pub(super) fn shapes_of(&self, job: JobId) -> impl Iterator<Item = (u16, Shape)> {
        let known = self.jobs.job(&job);
        let full = self.wants_full_hygiene(&job);
        let recipes =
            known.into_iter().flat_map(|known| known.ready.recipes().map(move |recipe| (known, recipe)));
        recipes.filter_map(move |(known, recipe)| {
            let plans = known.ready.of(recipe).filter_map(|index| known.submission.tasks.get(index as usize));
            plans.into_iter().find(|plan| !self.promised.contains_key(&plan.task))?;
            let mut shape = known.submission.recipes.get(usize::from(recipe))?.shape.clone();
            shape.full_hygiene |= full;
            Some((recipe, shape))
        })
    }

    /// The waiting tasks of a job that this node is asked for now: the first that it may have.
    pub(super) fn fit(&self, job: JobId, node: NodeId) -> Result<(u16, Shape), WhyNot> {
        let mut why = None;
        for (recipe, shape) in self.shapes_of(job) {
            match self.may_take(job, recipe, &shape, node) {
                Ok(()) => return Ok((recipe, shape)),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or(WhyNot::NoneLeft))
    }

    /// Whether this node is asked for tasks like this one now.
    pub(super) fn fit_of(&self, task: &Task, node: NodeId) -> Result<(), WhyNot> {
        let known = self.jobs.job(&task.job).ok_or(WhyNot::NotConnected)?;
        let recipe = known.submission.tasks.get(task.index as usize).map_or(0, |plan| plan.recipe);
        match self.shapes_of(task.job).find(|(of, _)| *of == recipe) {
            Some((_, shape)) => self.may_take(task.job, recipe, &shape, node),
            None => self.fit(task.job, node).map(drop),
        }
    }

    /// Whether this node is asked for tasks of this recipe now.
    fn may_take(&self, job: JobId, recipe: u16, shape: &Shape, node: NodeId) -> Result<(), WhyNot> {
        self.may_be_asked(job, shape, node)?;
        self.pick(job, recipe, node).map(|_| ())
    }

    /// Whether anything stands between this node and tasks of this shape, whichever they are.
    pub(super) fn may_be_asked(&self, job: JobId, shape: &Shape, node: NodeId) -> Result<(), WhyNot> {
        let known = self.jobs.job(&job).ok_or(WhyNot::NotConnected)?;
        placement::check(&self.nodes, node, shape, self.bounds(known))?;
        if !self.up.contains_key(&node) {
            return Err(WhyNot::NotConnected);
        }
        if self.resting.get(&node).is_some_and(|rest| rest.until.is_some()) {
            return Err(WhyNot::SaidNo(No::Balks));
        }
        if let Some(refusal) = self.refusals.get(&(job, node)) {
            return Err(match &refusal.no {
                No::Refused { reason: RefusalReason::NotNow, .. } => WhyNot::NotNow,
                no => WhyNot::SaidNo(no.clone()),
            });
        }
        Ok(())
    }

    /// The first waiting task of a recipe that this node may have.
    fn pick(&self, job: JobId, recipe: u16, node: NodeId) -> Result<TaskId, WhyNot> {
        let mut why = WhyNot::NoneLeft;
        let Some(known) = self.jobs.job(&job) else { return Err(why) };
        for index in known.ready.of(recipe) {
            let Some(plan) = known.submission.tasks.get(index as usize) else { continue };
            if self.promised.contains_key(&plan.task) {
                continue;
            }
            let Some(task) = self.jobs.task(&plan.task) else { continue };
            match self.may_have(plan.task, task, node) {
                Ok(()) => return Ok(plan.task),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    pub(super) fn may_have(&self, id: TaskId, task: &Task, node: NodeId) -> Result<(), WhyNot> {
        let last = || {
            let last = task.failures.iter().rev().find(|(at, _)| *at == node);
            last.map(|(_, failure)| failure.clone())
        };
        if task.barred.contains(&node) {
            return Err(WhyNot::FailedThere { failure: last(), returns: false });
        }
        if self.returns.contains_key(&(id, node)) {
            return Err(WhyNot::FailedThere { failure: last(), returns: true });
        }
        let Some(floor) = task.more_vram_than_mib else { return Ok(()) };
        let card = self.nodes.nodes.get(&node).and_then(|node| node.card.as_ref());
        match card.and_then(|card| card.vram_mib) {
            Some(has_mib) if has_mib > floor => Ok(()),
            Some(has_mib) => Err(WhyNot::TooLittleVram { need_mib: floor.saturating_add(1), has_mib }),
            None => Err(WhyNot::VramUnknown { need_mib: floor.saturating_add(1) }),
        }
    }

    /// Offers, or says again how many tasks wait. A reservation that ended is never taken up again: what was
    /// said of it may still be under way.
    fn offer(&mut self, now: Now, job: JobId, node: NodeId, shape: &Shape, ready: usize) {
        let Some(known) = self.jobs.job(&job) else { return };
        let class = known.submission.class;
        let told = u32::try_from(ready).unwrap_or(u32::MAX);
        let reservations = self.reservations.entry(job).or_default();
        let first = !reservations.contains_key(&node);
        let reservation = reservations.entry(node).or_insert_with(|| Reservation {
            id: self.ids.reservation(),
            state: story::Place::Asked,
            asked: now.at,
            told,
        });
        (reservation.told, reservation.asked) = (told, now.at);
        if first {
            let place = Place::of(class, known.submission.created_ms, job);
            self.lines.enter(now.at, node, place);
        }
        let id = reservation.id;
        let right = known.kept.as_ref().map(|kept| kept.right.clone());
        let offer = Offer { reservation: id, job, shape: shape.clone(), class, ready: told, right };
        self.out.push(Action::Offer { node, offer });
        if first {
            self.log_waiting(job, &Line::Offered { node: self.name(node) });
        }
    }

    fn withdraw(&mut self, job: JobId) {
        let nodes = self.reservations.get(&job).map(|at| at.keys().copied().collect::<Vec<_>>());
        for node in nodes.unwrap_or_default() {
            self.withdraw_at(job, node);
        }
    }

    fn withdraw_at(&mut self, job: JobId, node: NodeId) {
        let Some(reservation) = self.end_reservation(job, node) else { return };
        let Some(known) = self.jobs.job(&job) else { return };
        // A node that is away hears of it when it claims.
        if self.up.contains_key(&node) {
            let class = known.submission.class;
            let offer = Offer {
                reservation: reservation.id,
                job,
                shape: Shape::default(),
                class,
                ready: 0,
                right: None,
            };
            self.out.push(Action::Offer { node, offer });
        }
    }

    fn end_reservation(&mut self, job: JobId, node: NodeId) -> Option<Reservation> {
        let at = self.reservations.get_mut(&job)?;
        let reservation = at.remove(&node);
        if at.is_empty() {
            self.reservations.remove(&job);
        }
        self.lines.leave(node, job);
        reservation
    }

    fn reserved(&self, node: NodeId, id: ReservationId) -> Option<JobId> {
        let mut jobs = self.reservations.iter();
        jobs.find(|(_, at)| at.get(&node).is_some_and(|reservation| reservation.id == id))
            .map(|(job, _)| *job)
    }

    pub(super) fn offer_answered(
        &mut self,
        now: Now,
        node: NodeId,
        id: ReservationId,
        answer: Answer<OfferReply>,
    ) {
        let Some(job) = self.reserved(node, id) else { return };
        match answer {
            Ok(OfferReply::Claim(claim)) => {
                self.claimed(now, node, &Claim { reservation: id, claim }, None);
            }
            Ok(OfferReply::Waiting { position, eta_ms }) => {
                let reservation = self.reservations.get_mut(&job).and_then(|at| at.get_mut(&node));
                let Some(reservation) = reservation else { return };
                let before =
                    std::mem::replace(&mut reservation.state, story::Place::Waiting { position, eta_ms });
                if matches!(before, story::Place::Asked) {
                    self.log_waiting(job, &Line::InLine { node: self.name(node), position });
                }
            }
            Ok(OfferReply::Refused(refusal)) => {
                self.end_reservation(job, node);
                let wait = patience(refusal.reason);
                let no = no_of(refusal);
                self.log_waiting(job, &Line::SaidNo { node: self.name(node), no: no.clone() });
                self.refuse(now, job, node, no, wait);
            }
            Err(NoAnswer(why)) => {
                self.end_reservation(job, node);
                self.refuse(now, job, node, No::NoAnswer { why }, ASK_AGAIN);
            }
        }
    }

    /// Takes a node's no for an answer for a while.
    pub(super) fn refuse(&mut self, now: Now, job: JobId, node: NodeId, no: No, wait: Duration) {
        self.refusals.insert((job, node), Refusal { no, until: now.at + wait });
        self.dirty.insert(job);
    }

    /// A slot is free for one of our reservations: promise it the best fitting task, or say that there is none.
    pub(super) fn claimed(&mut self, now: Now, node: NodeId, claim: &Claim, ticket: Option<Ticket>) {
        let answer = self.answer_claim(now, node, claim);
        if let Some(ticket) = ticket {
            self.reply(ticket, answer);
        }
    }

    fn answer_claim(&mut self, now: Now, node: NodeId, claim: &Claim) -> ClaimReply {
        if self.promised.values().any(|promise| (promise.node, promise.claim) == (node, claim.claim)) {
            return ClaimReply::Coming;
        }
        if let Some((task, attempt)) = self.attempt_of(node, claim.claim) {
            // The same claim gets the same grant; once it was taken there is nothing more to get.
            return match self.jobs.attempt(&task, attempt).map(|attempt| &attempt.state) {
                Some(AttemptState::Granted(_)) => {
                    self.send_grant(task, attempt);
                    ClaimReply::Coming
                }
                _ => ClaimReply::Gone,
            };
        }
        let Some(job) = self.reserved(node, claim.reservation) else { return ClaimReply::Gone };
        let Ok((recipe, _)) = self.fit(job, node) else { return self.gone(job, node) };
        let Ok(task) = self.pick(job, recipe, node) else { return self.gone(job, node) };
        if let Some(reservation) = self.reservations.get_mut(&job).and_then(|at| at.get_mut(&node)) {
            reservation.told = reservation.told.saturating_sub(1);
        }
        self.promised.insert(task, Promise { node, claim: claim.claim, job });
        self.lines.moved(now.at, node);
        let attempt = self.jobs.next_attempt(&task);
        let class = self.jobs.job(&job).map(|known| known.submission.class).unwrap_or_default();
        self.log(task, Line::Claimed { node: self.name(node) });
        self.out.push(Action::SealGrant { node, task, attempt, claim: claim.claim, class });
        self.dirty.insert(job);
        ClaimReply::Coming
    }

    /// The renderer forgets a reservation that got `Gone`, and so do we.
    fn gone(&mut self, job: JobId, node: NodeId) -> ClaimReply {
        self.end_reservation(job, node);
        self.dirty.insert(job);
        ClaimReply::Gone
    }

    fn attempt_of(&self, node: NodeId, claim: ClaimId) -> Option<(TaskId, u32)> {
        self.contacts.keys().copied().find(|(task, attempt)| {
            let known = self.jobs.attempt(task, *attempt);
            known.is_some_and(|known| (known.node, known.claim) == (node, claim))
        })
    }

    pub(super) fn grant_sealed(
        &mut self,
        now: Now,
        task: TaskId,
        node: NodeId,
        claim: ClaimId,
        sealed: Result<SealedGrant, String>,
    ) {
        let kept = self.promised.get(&task).is_some_and(|promise| promise.claim == claim);
        if !kept {
            self.unwanted(sealed);
            return;
        }
        let Some(promise) = self.promised.remove(&task) else { return };
        self.dirty.insert(promise.job);
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(why) => {
                self.log(task, Line::NotSealed { node: self.name(node), why: why.clone() });
                self.refuse(now, promise.job, node, No::NotSealed { why }, Duration::from_mins(1));
                return;
            }
        };
        // Ended while it was being sealed, or the node may not have it any more: the slot's hold runs out by itself.
        let known = self.jobs.task(&task).filter(|known| known.state == TaskState::Ready);
        if known.is_none() || !self.within_reach(promise.job, node) || !self.may_grant(promise.job) {
            self.unwanted(Ok(sealed));
            return;
        }
        let attempt = self.jobs.next_attempt(&task);
        let SealedGrant { grant, roots } = sealed;
        let grant = Box::new(grant);
        let at_ms = now.wall_ms;
        self.commit(now, RequesterRecord::Granted { task, attempt, node, claim, grant, roots, at_ms });
        self.log(task, Line::Granted { node: self.name(node), attempt });
        self.send_grant(task, attempt);
    }

    /// A grant that will not be sent: a task that was too large for its envelope lies in a blob of its own.
    fn unwanted(&mut self, sealed: Result<SealedGrant, String>) {
        if let Ok(sealed) = sealed {
            self.out.push(Action::DropBlobs(sealed.roots.iter().map(|blob| blob.root).collect()));
        }
    }

    /// A line in the log of every task of a job that waits; bounded, because a job can have thousands.
    fn log_waiting(&mut self, job: JobId, line: &Line) {
        let Some(known) = self.jobs.job(&job) else { return };
        let plans = known.ready.all().filter_map(|index| known.submission.tasks.get(index as usize));
        let tasks: Vec<TaskId> = plans.map(|plan| plan.task).take(super::TASKS_TOLD).collect();
        for task in tasks {
            self.log(task, line.clone());
        }
    }
}

/// A peer's refusal, its words within bounds. A class is kept as such: people are told in their own language.
pub(super) fn no_of(refusal: lease::Refusal) -> No {
    let denied = (refusal.reason == RefusalReason::NotAllowed).then(|| Denied::of_sentence(&refusal.detail));
    match denied.flatten() {
        Some(Denied { class, why }) => No::Class { class: cut(class), why },
        None => No::Refused { reason: refusal.reason, detail: cut(refusal.detail) },
    }
}

/// How long a refusal is taken for an answer. A change in the node's advert ends it sooner.
pub(super) fn patience(reason: RefusalReason) -> Duration {
    Duration::from_secs(match reason {
        RefusalReason::Busy => 2,
        RefusalReason::NotReady => 10,
        RefusalReason::Stopping => 30,
        _ => 60,
    })
}
