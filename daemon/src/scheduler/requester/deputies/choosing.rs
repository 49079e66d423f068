//! Which node holds a job as well as the one that submitted it, and whether it still may.

use scenemesh_protocol::deputy::Release;
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId};

use super::super::{Action, Requester};
use crate::scheduler::batch::Batch;
use crate::scheduler::conversation::Now;
use crate::scheduler::placement::{self, Link};
use crate::scheduler::record::{RequesterRecord, Submission};
use crate::scheduler::story::Line;

/// Which node is to hold a job as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepOn {
    /// Whichever node of the studio has the role `keep`.
    #[default]
    Anybody,
    Nobody,
    Node(NodeId),
}

/// Why a node cannot hold a job. Displayed after the node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDeputy {
    #[error("is this machine, which has the job anyway")]
    Me,
    #[error("is no node of this studio: only those hold its jobs")]
    NotOfStudio,
    #[error("has not the role `keep`, which `scenemesh invite --role keep` gives")]
    LacksRole,
    #[error("lies outside the reach of the job or of its project")]
    OutOfReach,
}

impl Requester {
    /// Which node is to hold this job as well; `None` where none may.
    ///
    /// # Errors
    /// When a node was named that may not.
    pub fn deputy_for(&self, batch: &Batch, keep_on: KeepOn) -> Result<Option<NodeId>, NoDeputy> {
        let submission = &batch.submission;
        match keep_on {
            KeepOn::Nobody => return Ok(None),
            KeepOn::Node(node) => return self.may_keep(submission, node).map(|()| Some(node)),
            KeepOn::Anybody => {}
        }
        // One that is there comes first; jobs spread over several by a hash of both names.
        let may = self.nodes.nodes.iter().filter(|(node, _)| self.may_keep(submission, **node).is_ok());
        let first = may.max_by_key(|(node, known)| {
            let both = [submission.job.as_bytes().as_slice(), node.as_bytes()].concat();
            (known.link == Link::Up, *ContentHash::of(&both).as_bytes())
        });
        Ok(first.map(|(node, _)| *node))
    }

    fn may_keep(&self, submission: &Submission, node: NodeId) -> Result<(), NoDeputy> {
        if node == self.nodes.me {
            return Err(NoDeputy::Me);
        }
        let of_studio =
            |known: &&placement::Node| known.studio.is_some() && known.studio == self.nodes.my_studio;
        let known = self.nodes.nodes.get(&node).filter(of_studio).ok_or(NoDeputy::NotOfStudio)?;
        if !known.roles.keep {
            return Err(NoDeputy::LacksRole);
        }
        if self.may_lie_on(submission, node) { Ok(()) } else { Err(NoDeputy::OutOfReach) }
    }

    /// Whether this node may hold this job now, as roster and projects are.
    pub(super) fn may_still_keep(&self, job: JobId, node: NodeId) -> Result<(), NoDeputy> {
        self.jobs.job(&job).map_or(Ok(()), |known| self.may_keep(&known.submission, node))
    }

    /// Roster or projects changed: what a node may not hold any longer, it is asked to remove.
    pub(in crate::scheduler::requester) fn review_deputies(&mut self, now: Now) {
        if !self.sees_nodes {
            return;
        }
        let talks = self.talks.iter().filter_map(|(job, talk)| {
            let why = self.may_still_keep(*job, talk.deputy).err()?;
            Some((*job, why))
        });
        for (job, why) in talks.collect::<Vec<_>>() {
            self.dismiss(now, job, why);
        }
    }

    pub(super) fn dismiss(&mut self, now: Now, job: JobId, why: NoDeputy) {
        let Some(node) = self.talks.get(&job).map(|talk| talk.deputy) else { return };
        if self.up.contains_key(&node) {
            self.out.push(Action::Release { node, ask: Release { job } });
        }
        // What it had in hand goes elsewhere.
        self.take_in_hand(now, job, node, &[]);
        self.end_talk(job);
        self.commit(now, RequesterRecord::KeptNoMore { job });
        self.log_job(job, &Line::NotKept { node: self.name(node), why: why.to_string() });
    }

    /// A job that had ended goes on: whoever held it before holds it again.
    pub(in crate::scheduler::requester) fn keep_again(&mut self, now: Now, job: JobId) {
        let Some(known) = self.jobs.job(&job) else { return };
        let free = known.deputy.is_none() && known.kept.is_none() && known.open > 0;
        let before = known.last_deputy.filter(|node| free && self.may_still_keep(job, *node).is_ok());
        if let Some(node) = before {
            self.keep_with(now, job, node);
        }
    }
}
