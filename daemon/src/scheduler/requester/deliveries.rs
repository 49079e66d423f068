//! Results that are here and that another node of this studio is to have as well: a deputy, or the origin of a kept job.
//! They travel as a renderer's do: `Finished`, its blobs, `Ack`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use scenemesh_protocol::ids::{JobId, NodeId, TaskId};
use scenemesh_protocol::lease::{Ack, FinishedReply};

use super::jobs::{AttemptState, Over};
use super::{Action, Requester};
use crate::scheduler::conversation::{Answer, Now, Ticket};

/// Results that are under way to one node at once.
const AT_ONCE: usize = 4;
/// Whoever noted a result and acknowledges it no sooner is told of it again.
const NOTED: Duration = Duration::from_secs(30);
/// First wait after no answer, doubled each time, and the longest.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_LAST: Duration = Duration::from_mins(10);

type Name = (TaskId, u32);

#[derive(Debug, Default)]
pub(super) struct Deliveries {
    waiting: BTreeMap<NodeId, BTreeSet<Name>>,
    going: BTreeMap<NodeId, BTreeMap<Name, Going>>,
    /// Taken, or not wanted.
    over: BTreeSet<Name>,
}

/// One that its receiver was told of.
#[derive(Clone, Copy, Debug, Default)]
struct Going {
    /// When it is told again; `None` while it is asked.
    again: Option<Instant>,
    unanswered: u32,
}

impl Deliveries {
    pub(super) fn has(&self, node: &NodeId, name: Name) -> bool {
        self.going.get(node).is_some_and(|going| going.contains_key(&name))
    }

    pub(super) fn is_over(&self, name: Name) -> bool {
        self.over.contains(&name)
    }

    /// One that was thought to be over is wanted all the same.
    pub(super) fn want(&mut self, name: Name) {
        self.over.remove(&name);
    }

    /// Whether it is to be told again now: unless it is being told.
    fn hurry(&mut self, node: &NodeId, name: Name) -> bool {
        let going = self.going.get_mut(node).and_then(|going| going.get_mut(&name));
        going.is_some_and(|going| going.again.take().is_some())
    }

    fn add(&mut self, node: NodeId, name: Name) {
        if !self.over.contains(&name) && !self.has(&node, name) {
            self.waiting.entry(node).or_default().insert(name);
        }
    }

    /// Begins what there is room for; gives what is to be told now.
    fn begin(&mut self, node: NodeId) -> Vec<Name> {
        let going = self.going.entry(node).or_default();
        let mut begun = Vec::new();
        if let Some(waiting) = self.waiting.get_mut(&node) {
            while going.len() < AT_ONCE
                && let Some(name) = waiting.pop_first()
            {
                going.insert(name, Going::default());
                begun.push(name);
            }
            if waiting.is_empty() {
                self.waiting.remove(&node);
            }
        }
        if going.is_empty() {
            self.going.remove(&node);
        }
        begun
    }

    /// Those that are due, as asked from now on.
    fn due(&mut self, is_due: impl Fn(&NodeId, Instant) -> bool) -> Vec<(NodeId, Name)> {
        let all = self.going.iter_mut().flat_map(|(node, going)| going.iter_mut().map(move |at| (*node, at)));
        let due = all.filter_map(|(node, (name, going))| {
            going.again.take_if(|again| is_due(&node, *again)).map(|_| (node, *name))
        });
        due.collect()
    }

    fn end(&mut self, node: &NodeId, name: Name) -> bool {
        let Some(going) = self.going.get_mut(node) else { return false };
        let ended = going.remove(&name).is_some();
        if going.is_empty() {
            self.going.remove(node);
        }
        ended
    }

    fn forget(&mut self, is_of_it: impl Fn(&TaskId) -> bool) -> Vec<(NodeId, Name)> {
        for waiting in self.waiting.values_mut() {
            waiting.retain(|(task, _)| !is_of_it(task));
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        self.over.retain(|(task, _)| !is_of_it(task));
        let going = self.going.iter().flat_map(|(node, going)| going.keys().map(|name| (*node, *name)));
        let ended: Vec<_> = going.filter(|(_, (task, _))| is_of_it(task)).collect();
        for (node, name) in &ended {
            self.end(node, *name);
        }
        ended
    }

    pub(super) fn deadline(&self, up: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        let there = self.going.iter().filter(|(node, _)| up(node));
        there.flat_map(|(_, going)| going.values().filter_map(|going| going.again)).min()
    }
}

impl Requester {
    /// A result that is here is for this node too.
    pub(super) fn deliver(&mut self, node: NodeId, task: TaskId, attempt: u32) {
        self.deliveries.add(node, (task, attempt));
        self.deliver_next(node);
    }

    pub(super) fn deliver_next(&mut self, node: NodeId) {
        if !self.up.contains_key(&node) {
            return;
        }
        for (task, attempt) in self.deliveries.begin(node) {
            self.out.push(Action::Deliver { node, task, attempt });
        }
    }

    /// A node is there again: whatever it may have missed is told again.
    pub(super) fn deliver_again(&mut self, node: NodeId) {
        for (node, (task, attempt)) in self.deliveries.due(|at, _| *at == node) {
            self.out.push(Action::Deliver { node, task, attempt });
        }
        self.deliver_next(node);
    }

    /// Its receiver asks for it.
    pub(super) fn deliver_now(&mut self, node: NodeId, task: TaskId, attempt: u32) {
        if self.deliveries.hurry(&node, (task, attempt)) {
            self.out.push(Action::Deliver { node, task, attempt });
        }
    }

    pub(super) fn deliver_due(&mut self, now: Now) {
        let up = &self.up;
        for (node, (task, attempt)) in self.deliveries.due(|at, due| due <= now.at && up.contains_key(at)) {
            self.out.push(Action::Deliver { node, task, attempt });
        }
    }

    pub(super) fn delivery_answered(
        &mut self,
        now: Now,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        answer: &Answer<FinishedReply>,
    ) {
        let going = self.deliveries.going.get_mut(&node).and_then(|going| going.get_mut(&(task, attempt)));
        let Some(going) = going else { return };
        match answer {
            Ok(FinishedReply::Discard) => self.delivered(node, task, attempt),
            Ok(FinishedReply::Noted) => *going = Going { again: Some(now.at + NOTED), unanswered: 0 },
            Err(_) => {
                let wait = AGAIN.saturating_mul(1 << going.unanswered.min(8)).min(AGAIN_AT_LAST);
                let unanswered = going.unanswered.saturating_add(1);
                *going = Going { again: Some(now.at + wait), unanswered };
            }
        }
    }

    /// Its receiver has it, or does not want it.
    fn delivered(&mut self, node: NodeId, task: TaskId, attempt: u32) {
        if self.deliveries.end(&node, (task, attempt)) {
            self.deliveries.over.insert((task, attempt));
            self.out.push(Action::Undeliver { node, task, attempt });
        }
        self.deliver_next(node);
    }

    pub(super) fn acked(&mut self, node: NodeId, ack: Ack, ticket: Ticket) {
        self.delivered(node, ack.task, ack.attempt);
        self.done(ticket);
    }

    /// Whoever was to have it does not want it any more.
    pub(super) fn recall(&mut self, node: NodeId, task: TaskId, attempt: u32) {
        if let Some(waiting) = self.deliveries.waiting.get_mut(&node) {
            waiting.remove(&(task, attempt));
        }
        self.delivered(node, task, attempt);
        self.deliveries.over.insert((task, attempt));
    }

    /// Nothing more of these tasks is delivered.
    pub(super) fn end_deliveries_of(&mut self, job: JobId) {
        let jobs = &self.jobs;
        let of_it = |task: &TaskId| jobs.task(task).is_none_or(|known| known.job == job);
        for (node, (task, attempt)) in self.deliveries.forget(of_it) {
            self.out.push(Action::Undeliver { node, task, attempt });
        }
    }

    /// The attempt whose result a task has.
    pub(super) fn attempt_stored(&self, task: &TaskId) -> Option<u32> {
        let mut attempts = self.jobs.task(task)?.attempts.iter();
        attempts
            .find(|(_, attempt)| attempt.state == AttemptState::Over(Over::Stored))
            .map(|(number, _)| number)
    }
}
