//! PURE: who may what in a roster, and how far a task may travel.

use scenemesh_protocol::api::ReachWords;
use scenemesh_protocol::ids::{NodeId, StudioId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::roster::Roster;
use scenemesh_protocol::task::Reach;

/// What a node may do, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Submit,
    Render,
    Keep,
}

/// Why a node may not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("{} is no member of the pool", .0.short())]
    NoMember(NodeId),
    #[error("{name} was revoked: {reason}")]
    Revoked { name: String, reason: String },
    #[error("{name} has no {} role", .role.word())]
    Role { name: String, role: Role },
    #[error("the task stays on its own machine")]
    OtherMachine,
    #[error("the task stays in its studio, and {name} is of {studio}")]
    OtherStudio { name: String, studio: String },
    #[error("the task goes to chosen studios only, and {name} is of {studio}")]
    NotChosen { name: String, studio: String },
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Render => "render",
            Self::Keep => "keep",
        }
    }
}

/// The name of a studio, or its id when the settings do not have it.
pub fn studio_name(roster: &Roster, id: &StudioId) -> String {
    roster.settings().studio(id).map_or_else(|| id.short(), |studio| studio.name.clone())
}

/// A name or id that is no studio's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool has no studio {0:?}")]
pub struct NoSuchStudio(pub String);

/// What people write of a job's reach, with studios by name or id.
///
/// # Errors
/// When a studio that is named is none of the pool's.
pub fn reach_of(words: &ReachWords, roster: &Roster) -> Result<Reach, NoSuchStudio> {
    let studio = |given: &String| {
        let mut studios = roster.settings().studios.iter();
        let named = studios.find(|studio| studio.name == *given || studio.id.to_string() == *given);
        named.map(|studio| studio.id).ok_or_else(|| NoSuchStudio(given.clone()))
    };
    Ok(match words {
        ReachWords::Machine => Reach::Machine,
        ReachWords::Studio => Reach::Studio,
        ReachWords::Pool => Reach::Pool,
        ReachWords::Studios(names) => Reach::Studios(names.iter().map(studio).collect::<Result<_, _>>()?),
    })
}

/// Checks that a node is a member now and has a role; gives its studio.
///
/// # Errors
/// Why it may not.
pub fn may(roster: &Roster, node: &NodeId, role: Role, now_ms: u64) -> Result<StudioId, NotAllowed> {
    let Some(member) = roster.member(node, now_ms) else {
        return Err(match roster.revocation(&PublicKey::from(*node)) {
            Some(gone) => NotAllowed::Revoked { name: node.short(), reason: gone.reason.clone() },
            None => NotAllowed::NoMember(*node),
        });
    };
    let has = match role {
        Role::Submit => member.roles.submit,
        Role::Render => member.roles.render,
        Role::Keep => member.roles.keep,
    };
    if has { Ok(member.studio) } else { Err(NotAllowed::Role { name: member.name.clone(), role }) }
}

/// Checks that `renderer` may run a task of `requester` with this reach. Both ends ask.
///
/// # Errors
/// Why it may not.
pub fn may_render(
    roster: &Roster,
    reach: &Reach,
    requester: &NodeId,
    renderer: &NodeId,
    now_ms: u64,
) -> Result<(), NotAllowed> {
    let home = may(roster, requester, Role::Submit, now_ms)?;
    let studio = may(roster, renderer, Role::Render, now_ms)?;
    let name = || roster.member(renderer, now_ms).map_or_else(String::new, |member| member.name.clone());
    match reach {
        Reach::Machine if renderer != requester => Err(NotAllowed::OtherMachine),
        Reach::Studio if studio != home => {
            Err(NotAllowed::OtherStudio { name: name(), studio: studio_name(roster, &studio) })
        }
        Reach::Studios(chosen) if !chosen.contains(&studio) => {
            Err(NotAllowed::NotChosen { name: name(), studio: studio_name(roster, &studio) })
        }
        Reach::Machine | Reach::Studio | Reach::Studios(_) | Reach::Pool => Ok(()),
    }
}
