//! Projects of this node's studio.

use axum::Json;
use axum::extract::State;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::api::{
    ErrorCode, ProjectRequest, ProjectSetRequest, ProjectView, ProjectsReply, ReachWords,
};
use scenemesh_protocol::ids::{NodeId, ProjectId};
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::studio::Project;
use scenemesh_protocol::task::Reach;
use zeroize::Zeroizing;

use super::body::Asked;
use super::trouble::Trouble;
use super::{Node, korean, pool, submit, views};
use crate::clock;
use crate::membership::{
    CannotProject, NoSuchProject, OwnProject, ProjectChange, ProjectError, ProjectRules, ProjectWish,
};
use crate::messages::Message;

pub(super) async fn list(State(node): State<Node>) -> Json<ProjectsReply> {
    let own = node.ports.membership.studio().borrow().clone();
    let mut projects: Vec<_> = own.projects.values().map(|project| view(&node, project)).collect();
    projects.sort_by(|a, b| (&a.name, a.project).cmp(&(&b.name, b.project)));
    Json(ProjectsReply { projects })
}

pub(super) async fn add(
    State(node): State<Node>,
    Asked(asked): Asked<ProjectRequest>,
) -> Result<Json<ProjectView>, Trouble> {
    let roster = roster(&node)?;
    let rules = ProjectRules {
        max_reach: submit::reach(&asked.max_reach, Some(&roster))?,
        nodes: nodes(&node, &roster, &asked.nodes)?,
        hygiene: hygiene(asked.full_hygiene),
        retention_s: asked.retention_s.filter(|seconds| *seconds > 0),
    };
    let passphrase = asked.passphrase.as_ref().map(|text| Zeroizing::new(text.as_str().to_owned()));
    wish(&node, ProjectWish::Add { name: asked.name.clone(), rules }, passphrase).await
}

pub(super) async fn set(
    State(node): State<Node>,
    Asked(asked): Asked<ProjectSetRequest>,
) -> Result<Json<ProjectView>, Trouble> {
    let roster = roster(&node)?;
    let reach = |words: &ReachWords| submit::reach(words, Some(&roster));
    let change = ProjectChange {
        max_reach: asked.max_reach.as_ref().map(reach).transpose()?,
        nodes: asked.nodes.as_ref().map(|names| nodes(&node, &roster, names)).transpose()?,
        hygiene: asked.full_hygiene.map(hygiene),
        retention_s: asked.retention_s.map(|seconds| Some(seconds).filter(|seconds| *seconds > 0)),
        closed: asked.closed,
    };
    let passphrase = asked.passphrase.as_ref().map(|text| Zeroizing::new(text.as_str().to_owned()));
    wish(&node, ProjectWish::Set { which: asked.project.clone(), change }, passphrase).await
}

async fn wish(
    node: &Node,
    wish: ProjectWish,
    passphrase: Option<Zeroizing<String>>,
) -> Result<Json<ProjectView>, Trouble> {
    let id = node.ports.membership.project(wish, passphrase).await.map_err(|error| trouble(&error))?;
    let own = node.ports.membership.studio().borrow().clone();
    own.projects.get(&id).map(|project| Json(view(node, project))).ok_or_else(Trouble::stopping)
}

/// A project that a submitter names, which takes new jobs.
pub(super) fn open_project(node: &Node, which: &str) -> Result<(ProjectId, OwnProject), Trouble> {
    let own = node.ports.membership.studio().borrow().clone();
    if own.home.is_none() {
        return Err(pool::no_pool());
    }
    let (id, project) = own.project(which).map_err(|error| unknown(&error))?;
    if project.rules.closed {
        let message = Message::ProjectClosed { name: project.name.name.clone() };
        return Err(Trouble::new(ErrorCode::Conflict, &message).hint(&Message::HintProjectOpen));
    }
    Ok((id, project.clone()))
}

/// The reach of a project's job: as far as was asked, where the project allows it; its default where nobody asked.
pub(super) fn reach_within(
    node: &Node,
    asked: Option<&ReachWords>,
    project: &OwnProject,
    roster: Option<&Roster>,
) -> Result<Reach, Trouble> {
    let rules: &Project = &project.rules;
    let Some(words) = asked else { return Ok(Reach::default_within(&rules.max_reach, &rules.studio)) };
    let reach = submit::reach(words, roster)?;
    if reach.is_within(&rules.max_reach, &rules.studio) {
        return Ok(reach);
    }
    let message = Message::BeyondProject {
        reach: words.to_string(),
        project: project.name.name.clone(),
        limit: views::reach_words(node, &rules.max_reach).to_string(),
    };
    Err(Trouble::new(ErrorCode::Refused, &message).hint(&Message::HintBeyondProject))
}

fn roster(node: &Node) -> Result<std::sync::Arc<Roster>, Trouble> {
    node.ports.membership.roster().borrow().clone().ok_or_else(pool::no_pool)
}

const fn hygiene(full: bool) -> Hygiene {
    if full { Hygiene::Full } else { Hygiene::Partial }
}

/// Nodes by name or id; none at all binds to none.
fn nodes(node: &Node, roster: &Roster, given: &[String]) -> Result<Option<Vec<NodeId>>, Trouble> {
    let found = given.iter().map(|given| member(node, roster, given)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(found).filter(|found| !found.is_empty()))
}

/// A node by name or id.
pub(super) fn member(node: &Node, roster: &Roster, given: &str) -> Result<NodeId, Trouble> {
    let now = clock::wall_ms();
    let own = node.ports.membership.studio().borrow().home.map(|(_, studio)| studio);
    let mut named: Vec<_> = roster.members(now).filter(|member| member.name == given).collect();
    // A name may be used by every studio once; one's own is meant first.
    if named.len() > 1 {
        named.retain(|member| Some(member.studio) == own);
    }
    let by_id = || roster.members(now).find(|member| member.node.node().to_string() == given);
    let found = named.first().copied().or_else(by_id).map(|member| member.node.node());
    found.ok_or_else(|| {
        let given = given.chars().take(80).collect();
        Trouble::new(ErrorCode::NotFound, &Message::NoSuchPeer { given }).hint(&Message::HintPeers)
    })
}

fn view(node: &Node, project: &OwnProject) -> ProjectView {
    let rules: &Project = &project.rules;
    let named = |nodes: &Vec<NodeId>| nodes.iter().map(|id| views::node_ref(node, *id)).collect();
    ProjectView {
        project: rules.project,
        short: rules.project.short(),
        name: project.name.name.clone(),
        version: rules.version,
        issued_ms: rules.issued_ms,
        max_reach: views::reach_words(node, &rules.max_reach),
        nodes: rules.nodes.as_ref().map(named),
        hygiene: rules.hygiene,
        retention_s: rules.retention_s,
        closed: rules.closed,
    }
}

fn unknown(error: &NoSuchProject) -> Trouble {
    let code = match error {
        NoSuchProject::Unknown(_) => ErrorCode::NotFound,
        NoSuchProject::Ambiguous(_) => ErrorCode::Ambiguous,
    };
    Trouble::of(code, error, Some(korean::no_project(error)))
}

fn trouble(error: &ProjectError) -> Trouble {
    match error {
        ProjectError::Cannot(CannotProject::Unknown(error)) => unknown(error),
        ProjectError::Cannot(cannot) => {
            let code = match cannot {
                CannotProject::BadName(_) | CannotProject::Refused(_) => ErrorCode::Usage,
                CannotProject::NoAdminKey { .. } => ErrorCode::NotAllowed,
                CannotProject::Locked => ErrorCode::PassphraseNeeded,
                _ => ErrorCode::Conflict,
            };
            Trouble::of(code, cannot, Some(korean::project(cannot)))
        }
        ProjectError::Keys(error) => pool::keys_trouble(error),
        ProjectError::Keep(error) => Trouble::broke(error),
        ProjectError::Stopping => Trouble::stopping(),
    }
}
