//! PURE: whether a task that somebody granted may run here, by its own reach and its project's rules.
//!
//! The requester asked the same before it granted; a renderer believes nobody's word for it.

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{NodeId, StudioId};
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::{Failure, FailureClass, Reach, TaskSpec};

/// Why a task may not run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutOfBounds {
    #[error("its requester is no member that submits")]
    NoRequester,
    #[error("this node is no member that renders")]
    NoRenderer,
    #[error("the task stays on its own machine")]
    Machine,
    #[error("the task stays in its own studio")]
    Studio,
    #[error("the task goes to chosen studios only")]
    NotChosen,
    #[error("the project's record is not signed by an admin of the requester's studio")]
    NotTheirProject,
    #[error("the project is bound to other nodes")]
    OtherNodes,
    #[error("the task or its project asks for full hygiene, and this node cannot give it")]
    PartialHygiene,
}

impl From<OutOfBounds> for Failure {
    fn from(why: OutOfBounds) -> Self {
        Self::new(FailureClass::Policy, why.to_string())
    }
}

/// Judges an opened task of another node.
///
/// # Errors
/// The first reason why it may not run here.
pub(super) fn may_run(
    roster: &Roster,
    from: NodeId,
    me: NodeId,
    hygiene: Hygiene,
    spec: &TaskSpec,
    now_ms: u64,
) -> Result<(), OutOfBounds> {
    let theirs = roster.member(&from, now_ms).filter(|member| member.roles.submit);
    let theirs = theirs.ok_or(OutOfBounds::NoRequester)?.studio;
    let mine = roster.member(&me, now_ms).filter(|member| member.roles.render);
    let mine = mine.ok_or(OutOfBounds::NoRenderer)?.studio;
    within(&spec.reach, &theirs, &mine)?;
    let mut full = spec.full_hygiene;
    if let Some(signed) = &spec.project {
        let project = signed.verify().map_err(|_| OutOfBounds::NotTheirProject)?;
        let admin_of = roster.settings().studio_of_admin(&project.signer()).map(|studio| studio.id);
        let signed_by_them = admin_of == Some(theirs) && !roster.revoked_keys().contains(&project.signer());
        if !signed_by_them || (project.pool, project.studio) != (roster.pool(), theirs) {
            return Err(OutOfBounds::NotTheirProject);
        }
        within(&project.max_reach, &theirs, &mine)?;
        if project.nodes.as_ref().is_some_and(|nodes| !nodes.contains(&me)) {
            return Err(OutOfBounds::OtherNodes);
        }
        full |= project.hygiene == Hygiene::Full;
    }
    if full && hygiene != Hygiene::Full { Err(OutOfBounds::PartialHygiene) } else { Ok(()) }
}

/// The renderer is another machine than the requester: `Machine` never travels.
fn within(reach: &Reach, theirs: &StudioId, mine: &StudioId) -> Result<(), OutOfBounds> {
    match reach {
        Reach::Machine => Err(OutOfBounds::Machine),
        Reach::Studio if mine != theirs => Err(OutOfBounds::Studio),
        Reach::Studios(chosen) if !chosen.contains(mine) => Err(OutOfBounds::NotChosen),
        Reach::Studio | Reach::Studios(_) | Reach::Pool => Ok(()),
    }
}

#[cfg(test)]
mod tests;
