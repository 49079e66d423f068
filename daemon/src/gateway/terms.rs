//! What a listener's prompts become: a job's class, reach and project.

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::api::ReachWords;
use scenemesh_protocol::ids::ProjectId;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::Reach;

use super::{ListenerConfig, Ports};
use crate::clock;
use crate::membership::{self, NoSuchProject, NoSuchStudio, Role};

/// How far a listener's jobs may travel, and whose rules hold for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) reach: Reach,
    pub(super) project: Option<ProjectId>,
    pub(super) full_hygiene: bool,
}

/// Why nothing can be queued by this listener now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTerms {
    #[error(
        "this node is in no pool, so its gateway cannot reach {reach}; `scenemesh init` or `join` first, or set gateway.reach to machine"
    )]
    NoPool { reach: String },
    #[error("this node may not submit to its pool; an admin of its studio can give it the role submit")]
    MayNotSubmit,
    #[error("{0}; look at gateway.reach in scenemesh.toml")]
    NoStudio(#[from] NoSuchStudio),
    #[error(transparent)]
    NoProject(#[from] NoSuchProject),
    #[error("the project {0} is closed; look at gateway.project in scenemesh.toml")]
    Closed(String),
    #[error("the project {0} does not allow this reach; look at gateway.reach in scenemesh.toml")]
    BeyondProject(String),
}

/// As things stand now: pools, studios and projects come and go while a listener stays.
pub(super) fn terms(ports: &Ports, listener: &ListenerConfig) -> Result<Terms, NoTerms> {
    let now = clock::wall_ms();
    let roster = ports.membership.roster().borrow().clone();
    // A node that was revoked goes on working for itself, as one in no pool does.
    let inside = |roster: &Roster| roster.member(&ports.me, now).is_some();
    let roster = roster.filter(|roster| listener.reach != Some(ReachWords::Machine) || inside(roster));
    let Some(roster) = roster else {
        return match &listener.reach {
            None | Some(ReachWords::Machine) if listener.project.is_none() => {
                Ok(Terms { reach: Reach::Machine, project: None, full_hygiene: false })
            }
            Some(words) => Err(NoTerms::NoPool { reach: words.to_string() }),
            None => Err(NoTerms::NoPool { reach: "a project".into() }),
        };
    };
    membership::may(&roster, &ports.me, Role::Submit, now).map_err(|_| NoTerms::MayNotSubmit)?;
    let asked = listener.reach.as_ref().map(|words| membership::reach_of(words, &roster)).transpose()?;
    let Some(which) = &listener.project else {
        return Ok(Terms { reach: asked.unwrap_or_default(), project: None, full_hygiene: false });
    };
    let own = ports.membership.studio().borrow().clone();
    let (id, project) = own.project(which)?;
    let rules = &*project.rules;
    let name = || project.name.name.clone();
    if rules.closed {
        return Err(NoTerms::Closed(name()));
    }
    let reach = asked.unwrap_or_else(|| Reach::default_within(&rules.max_reach, &rules.studio));
    if !reach.is_within(&rules.max_reach, &rules.studio) {
        return Err(NoTerms::BeyondProject(name()));
    }
    Ok(Terms { reach, project: Some(id), full_hygiene: rules.hygiene == Hygiene::Full })
}
