//! Founding, inviting, joining, approving, leaving.

use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use scenemesh_protocol::api::{
    ApproveReply, ApproveRequest, ErrorCode, InitReply, InitRequest, InviteReply, InviteRequest, InviteState,
    InviteView, JoinPreview, JoinPreviewRequest, JoinReply, JoinRequest, JoinState, LeaveReply, MemberView,
    Passphrase, PoolReply, ProposalView, StudioView,
};
use scenemesh_protocol::invite::{Invite, JoinNeeds, JoinRefusal};
use scenemesh_protocol::roster::Roles;
use zeroize::Zeroizing;

use super::body::Asked;
use super::trouble::Trouble;
use super::{Node, comfyui, korean};
use crate::membership::{
    self, ApproveError, CannotApprove, CannotInvite, CannotJoin, DEFAULT_EXPIRY, Founding, InitError,
    InviteError, InviteTerms, JoinError, JoinOutcome, Joining, KeysError, LeaveError, NoInvite, Protection,
    Standing,
};
use crate::messages::{Lang, Message, phrase};
use crate::network::{Link, PorchError, StartError};

/// How long the answer to a join waits for the first link.
const FIRST_PEER: Duration = Duration::from_secs(2);

pub(super) async fn init(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<InitRequest>,
) -> Result<Json<InitReply>, Trouble> {
    if asked.solo {
        return Err(Trouble::new(ErrorCode::Refused, &Message::SoloNotBuilt).hint(&Message::HintWithoutSolo));
    }
    let sealed = asked.passphrase.is_some();
    let founding = Founding {
        pool: asked.pool.clone(),
        studio: asked.studio.clone(),
        name: asked.name.clone(),
        protection: protection(asked.passphrase.as_ref()),
    };
    let founded = node.ports.membership.init(founding).await.map_err(|error| init_trouble(&error))?;
    Ok(Json(InitReply {
        pool: founded.pool,
        pool_name: asked.pool,
        studio: founded.studio,
        studio_name: asked.studio,
        node: founded.node,
        name: asked.name,
        admin_key: founded.admin_key.display().to_string(),
        sealed,
        recovery_code: Some(founded.recovery_code.to_string()),
        comfyui: comfyui::around(&node, lang).await,
    }))
}

pub(super) async fn invite(
    State(node): State<Node>,
    Asked(asked): Asked<InviteRequest>,
) -> Result<Json<InviteReply>, Trouble> {
    let membership = &node.ports.membership;
    let passphrase = asked.passphrase.as_ref().map(secret);
    if asked.unlock {
        let pending = membership.unlock(passphrase).await.map_err(|error| invite_trouble(&error))?;
        return Ok(Json(InviteReply {
            code: None,
            check: None,
            expires_ms: None,
            new_studio: None,
            pending: count(pending),
        }));
    }
    let terms = InviteTerms {
        roles: roles(&asked.roles),
        new_studio: asked.new_studio.clone(),
        expires: asked.expires_s.map_or(DEFAULT_EXPIRY, Duration::from_secs),
    };
    let issued = membership.invite(terms, passphrase).await.map_err(|error| invite_trouble(&error))?;
    Ok(Json(InviteReply {
        code: Some(issued.code.to_string()),
        check: Some(issued.check.to_string()),
        expires_ms: Some(issued.expires_ms),
        new_studio: asked.new_studio,
        pending: count(issued.usable),
    }))
}

pub(super) async fn preview(Asked(asked): Asked<JoinPreviewRequest>) -> Result<Json<JoinPreview>, Trouble> {
    let invite = Invite::from_code(&asked.code).map_err(|error| code_trouble(&error))?;
    Ok(Json(JoinPreview {
        pool: invite.pool,
        inviter: invite.inviter,
        check: invite.check_words().to_string(),
        addresses: invite.addresses().to_vec(),
    }))
}

pub(super) async fn join(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<JoinRequest>,
) -> Result<Json<JoinReply>, Trouble> {
    let pool = Invite::from_code(&asked.code).map_err(|error| code_trouble(&error))?.pool;
    let name = asked.name.clone().unwrap_or_else(|| machine_name(&node));
    let joining =
        |protection| Joining { code: Zeroizing::new(asked.code.clone()), name: name.clone(), protection };
    // The code does not say whether it founds a studio; the inviter does.
    let membership = &node.ports.membership;
    let outcome = match membership.join(joining(None)).await {
        Err(JoinError::Refused(refused)) if refused.reason == Some(JoinRefusal::AdminKey) => {
            if asked.passphrase.is_none() && !asked.no_passphrase {
                return Err(Trouble::new(ErrorCode::PassphraseNeeded, &Message::NewStudioNeedsKey)
                    .hint(&Message::HintPassphrase));
            }
            membership.join(joining(Some(protection(asked.passphrase.as_ref())))).await
        }
        outcome => outcome,
    };
    let outcome = outcome.map_err(|error| join_trouble(&error))?;
    if matches!(outcome, JoinOutcome::Joined(_)) {
        first_peer(&node).await;
    }
    let mut reply = JoinReply {
        state: JoinState::Joined,
        pool,
        pool_name: None,
        studio_name: None,
        node: node.ports.me,
        name,
        signatures_missing: 0,
        peers_up: super::status::peers_up(&node),
        notes: Vec::new(),
        comfyui: comfyui::around(&node, lang).await,
    };
    match outcome {
        JoinOutcome::Joined(joined) => {
            reply.pool_name = Some(joined.pool_name);
            reply.studio_name = Some(joined.studio);
            reply.name = joined.name;
            reply.notes = joined.notes.iter().map(|words| phrase(lang, words)).collect();
        }
        JoinOutcome::Pending { needs, .. } => match needs {
            JoinNeeds::Unlock => reply.state = JoinState::AwaitingUnlock,
            JoinNeeds::Approvals { have, need } => {
                reply.state = JoinState::AwaitingApproval;
                reply.signatures_missing = need.saturating_sub(have).into();
            }
        },
    }
    Ok(Json(reply))
}

/// Links come up by themselves; a moment's patience lets the answer say so.
async fn first_peer(node: &Node) {
    let mut peers = node.ports.network.peers();
    let up = peers.wait_for(|table| table.peers.values().any(|peer| peer.link == Link::Up));
    // Nobody may be there, which is no error.
    drop(tokio::time::timeout(FIRST_PEER, up).await);
}

pub(super) async fn show(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
) -> Result<Json<PoolReply>, Trouble> {
    let pool = node.ports.membership.pool().await.ok_or_else(no_pool)?;
    let studios = pool.studios.iter().map(|studio| StudioView {
        id: studio.id,
        name: studio.name.clone(),
        weight: studio.weight,
        admins: count(studio.admins),
        mine: studio.mine,
    });
    let members = pool.members.iter().map(|member| MemberView {
        node: member.node,
        name: member.name.clone(),
        studio: member.studio_name.clone(),
        roles: role_names(member.roles),
        me: member.me,
    });
    let invites = pool.invites.iter().map(|invite| InviteView {
        state: match invite.state {
            membership::InviteState::Open => InviteState::Open,
            membership::InviteState::Locked => InviteState::Locked,
            membership::InviteState::Expired => InviteState::Expired,
            membership::InviteState::Used(_) => InviteState::Used,
        },
        new_studio: invite.new_studio.clone(),
        roles: role_names(invite.roles),
        expires_ms: invite.expires_ms,
        used_by: match invite.state {
            membership::InviteState::Used(by) => Some(by),
            _ => None,
        },
    });
    Ok(Json(PoolReply {
        pool: pool.pool,
        name: pool.name.clone(),
        epoch: pool.epoch,
        studios: studios.collect(),
        members: members.collect(),
        proposals: pool.proposals.iter().map(|known| proposal(known, lang)).collect(),
        invites: invites.collect(),
        unlocked: pool.unlocked,
        warnings: pool.warnings.iter().map(|words| phrase(lang, words)).collect(),
    }))
}

pub(super) async fn approve(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<ApproveRequest>,
) -> Result<Json<ApproveReply>, Trouble> {
    let passphrase = asked.passphrase.as_ref().map(secret);
    let approved = node.ports.membership.approve(asked.proposal, passphrase).await;
    let approved = approved.map_err(|error| approve_trouble(&error))?;
    Ok(Json(ApproveReply { proposal: proposal(&approved.proposal, lang), in_force: approved.decided }))
}

pub(super) async fn leave(State(node): State<Node>) -> Result<Json<LeaveReply>, Trouble> {
    let left = node.ports.membership.leave().await.map_err(|error| match error {
        LeaveError::NoPool => no_pool(),
        LeaveError::Journal(error) => Trouble::broke(&error),
        LeaveError::Stopping => Trouble::stopping(),
    })?;
    Ok(Json(LeaveReply { pool_name: left.pool_name, told: count(left.told) }))
}

fn proposal(proposal: &membership::ProposalView, lang: Lang) -> ProposalView {
    ProposalView {
        id: proposal.id,
        short: proposal.id.short(),
        epoch: proposal.epoch,
        change: phrase(lang, &proposal.change),
        signed_by: proposal.signed_by.clone(),
        signatures_missing: count(proposal.need.saturating_sub(proposal.signed_by.len())),
        mine: proposal.mine,
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn secret(passphrase: &Passphrase) -> Zeroizing<String> {
    Zeroizing::new(passphrase.as_str().to_owned())
}

fn protection(passphrase: Option<&Passphrase>) -> Protection {
    passphrase.map_or(Protection::None, |passphrase| Protection::Passphrase(secret(passphrase)))
}

fn roles(names: &[String]) -> Roles {
    let has = |name: &str| names.iter().any(|given| given == name);
    if names.is_empty() {
        return Roles { submit: true, render: true, keep: false };
    }
    Roles { submit: has("submit"), render: has("render"), keep: has("keep") }
}

fn role_names(roles: Roles) -> Vec<String> {
    let all = [("submit", roles.submit), ("render", roles.render), ("keep", roles.keep)];
    all.iter().filter(|(_, held)| *held).map(|(name, _)| (*name).to_owned()).collect()
}

/// The machine's own name, else one made of the node's id.
fn machine_name(node: &Node) -> String {
    let file = std::fs::read_to_string("/etc/hostname").ok();
    let variable = ["COMPUTERNAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
    let name = file.or(variable).unwrap_or_default();
    let name = name.trim().split('.').next().unwrap_or_default();
    if scenemesh_protocol::roster::is_name(name) {
        return name.to_owned();
    }
    format!("node-{}", node.ports.me.short())
}

pub(super) fn no_pool() -> Trouble {
    Trouble::new(ErrorCode::Conflict, &Message::NoPool).hint(&Message::HintInitOrJoin)
}

/// Name of the pool and of the own studio, while this node is a member.
pub(super) fn own_names(node: &Node) -> Option<(String, String)> {
    match &**node.ports.membership.standing().borrow() {
        Standing::Member { roster, studio, .. } => {
            Some((roster.settings().pool_name.clone(), membership::studio_name(roster, studio)))
        }
        _ => None,
    }
}

fn init_trouble(error: &InitError) -> Trouble {
    match error {
        InitError::Cannot(cannot) => {
            let code = match cannot {
                membership::CannotFound::BadName { .. } => ErrorCode::Usage,
                _ => ErrorCode::Conflict,
            };
            Trouble::of(code, cannot, Some(korean::found(cannot)))
        }
        InitError::Keys(error) => keys_trouble(error),
        InitError::Network(StartError::Listen { .. }) => Trouble::of(ErrorCode::Refused, error, None),
        InitError::Network(StartError::Stopping) | InitError::Stopping => Trouble::stopping(),
        InitError::Settings(_) | InitError::Network(_) | InitError::Journal(_) => Trouble::broke(error),
    }
}

fn keys_trouble(error: &KeysError) -> Trouble {
    let code = match error {
        KeysError::NeedsPassphrase { .. } => ErrorCode::PassphraseNeeded,
        KeysError::DoesNotOpen { .. } => ErrorCode::WrongPassphrase,
        KeysError::EmptyPassphrase => ErrorCode::Usage,
        KeysError::NoAdminKey { .. } => ErrorCode::NotAllowed,
        _ => ErrorCode::Refused,
    };
    Trouble::of(code, error, Some(korean::keys(error)))
}

fn invite_trouble(error: &InviteError) -> Trouble {
    match error {
        InviteError::Cannot(cannot) => {
            let code = match cannot {
                CannotInvite::NoPool | CannotInvite::StudioExists(_) => ErrorCode::Conflict,
                CannotInvite::NotMember | CannotInvite::NoAdminKey { .. } => ErrorCode::NotAllowed,
                CannotInvite::Locked => ErrorCode::PassphraseNeeded,
                CannotInvite::BadName(_) | CannotInvite::NoRole | CannotInvite::Refused(NoInvite::Expiry) => {
                    ErrorCode::Usage
                }
                CannotInvite::NoPorch => ErrorCode::Refused,
                CannotInvite::Refused(NoInvite::TooMany) => ErrorCode::Busy,
            };
            Trouble::of(code, cannot, Some(korean::invite(cannot)))
        }
        InviteError::Keys(error) => keys_trouble(error),
        InviteError::Journal(error) => Trouble::broke(error),
        InviteError::Stopping => Trouble::stopping(),
    }
}

fn code_trouble(error: &scenemesh_protocol::invite::BadInvite) -> Trouble {
    let code = match error {
        scenemesh_protocol::invite::BadInvite::Version { .. } => ErrorCode::VersionMismatch,
        _ => ErrorCode::BadInvite,
    };
    Trouble::of(code, error, Some(korean::code(error)))
}

fn join_trouble(error: &JoinError) -> Trouble {
    match error {
        JoinError::Code(bad) => code_trouble(bad),
        JoinError::Cannot(cannot) => {
            let code = match cannot {
                CannotJoin::OtherPool { .. } => ErrorCode::InviteForeign,
                CannotJoin::BadName(_) => ErrorCode::Usage,
                CannotJoin::AlreadyMember(_) | CannotJoin::OwnInvite => ErrorCode::Conflict,
            };
            Trouble::of(code, cannot, Some(korean::join(cannot)))
        }
        JoinError::Porch(porch) => {
            let code = match porch {
                PorchError::WrongNode { .. } => ErrorCode::InviteForeign,
                PorchError::Garbled { .. } => ErrorCode::VersionMismatch,
                PorchError::Setup(_) => ErrorCode::Internal,
                _ => ErrorCode::PeerUnreachable,
            };
            Trouble::of(code, error, Some(korean::porch(porch)))
        }
        JoinError::Declined(_) => Trouble::of(ErrorCode::Refused, error, None),
        JoinError::Refused(refused) => {
            let code = match refused.reason {
                Some(JoinRefusal::UnknownInvite) => ErrorCode::InviteForeign,
                Some(JoinRefusal::Expired) => ErrorCode::InviteExpired,
                Some(JoinRefusal::Used) => ErrorCode::InviteUsed,
                Some(JoinRefusal::NameTaken) => ErrorCode::Conflict,
                Some(JoinRefusal::Version) => ErrorCode::VersionMismatch,
                _ => ErrorCode::Refused,
            };
            Trouble::of(code, refused, refused.reason.map(korean::refusal))
        }
        JoinError::Keys(error) => keys_trouble(error),
        JoinError::Journal(error) => Trouble::broke(error),
        JoinError::Stopping => Trouble::stopping(),
    }
}

fn approve_trouble(error: &ApproveError) -> Trouble {
    match error {
        ApproveError::Cannot(cannot) => {
            let code = match cannot {
                CannotApprove::NoPool | CannotApprove::Nothing => ErrorCode::Conflict,
                CannotApprove::Unknown { .. } => ErrorCode::NotFound,
                CannotApprove::Ambiguous { .. } => ErrorCode::Ambiguous,
                CannotApprove::Locked => ErrorCode::PassphraseNeeded,
                CannotApprove::NoAdminKey { .. } => ErrorCode::NotAllowed,
            };
            Trouble::of(code, cannot, Some(korean::approve(cannot)))
        }
        ApproveError::Keys(error) => keys_trouble(error),
        ApproveError::Journal(error) => Trouble::broke(error),
        ApproveError::Stopping => Trouble::stopping(),
    }
}
