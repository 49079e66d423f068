//! What a task of another node is judged by, taken along by the work that opens it.

use std::sync::Arc;

use scenemesh_protocol::advert::{Hygiene, Inventory};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::{Failure, FailureClass, TaskSpec};

use super::Actor;
use crate::clock;
use crate::executor::SlotId;
use crate::executor::graph::Graph;
use crate::scheduler::bounds;

/// The roster and the slot as they are when the work begins.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    me: NodeId,
    roster: Option<Arc<Roster>>,
    hygiene: Hygiene,
    /// Models that other studios may use here.
    shared: Arc<Inventory>,
}

impl Bench {
    /// Whether a task may run here by its reach and its project; one's own may, its placement asked before.
    ///
    /// # Errors
    /// A failure of class `Policy`.
    pub(super) fn judge(&self, from: NodeId, spec: &TaskSpec) -> Result<(), Failure> {
        if from == self.me {
            return Ok(());
        }
        let alone = || Failure::new(FailureClass::Policy, "this node is in no pool");
        let roster = self.roster.as_deref().ok_or_else(alone)?;
        let now_ms = clock::wall_ms();
        bounds::may_run(roster, from, self.me, self.hygiene, spec, now_ms)?;
        let studio = |node| roster.member(node, now_ms).map(|member| member.studio);
        if studio(&from) == studio(&self.me) {
            return Ok(());
        }
        let graph = Graph::parse(&spec.graph)
            .map_err(|error| Failure::new(FailureClass::InvalidGraph, error.to_string()))?;
        // Whatever the offer said: nobody finds out by a grant which other models lie here.
        let hidden =
            graph.models().into_iter().any(|model| self.shared.models.binary_search(&model).is_err());
        let words = "a model or a node class of the task is not shared there";
        if hidden { Err(Failure::new(FailureClass::MissingModelOrClass, words)) } else { Ok(()) }
    }
}

impl Actor {
    pub(super) fn bench(&self, slot: SlotId) -> Bench {
        let view = self.picture.slots.iter().find(|view| view.slot == slot);
        let hygiene = view.map_or(Hygiene::Partial, |view| view.hygiene);
        let shared = self.picture.shared();
        Bench { me: self.id, roster: self.picture.roster.clone(), hygiene, shared }
    }
}
