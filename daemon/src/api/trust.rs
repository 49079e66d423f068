//! Revoking, blocking, rotating, and a studio's admin keys.

use axum::extract::State;
use axum::{Extension, Json};
use scenemesh_protocol::api::{
    AdminKeyView, AdminsReply, BlockReply, BlockRequest, ChangeAdminsReply, ChangeAdminsRequest, ErrorCode,
    InstalledReply, NewAdminRequest, NodeRef, RecoverRequest, RevokeReply, RevokeRequest, RotateReply,
    RotateRequest, RotateState,
};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::keys::PublicKey;

use super::body::Asked;
use super::pool::{count, keys_trouble, proposal, protection, secret};
use super::trouble::Trouble;
use super::{Node, korean, views};
use crate::membership::{
    AdminChange, BlockTerms, CannotBlock, CannotChangeAdmins, CannotInstall, CannotRevoke, CannotRotate,
    Installed, NoSuchMember, RevokeTerms, RotateOutcome, Target, TrustError,
};
use crate::messages::Lang;

pub(super) async fn revoke(
    State(node): State<Node>,
    Asked(asked): Asked<RevokeRequest>,
) -> Result<Json<RevokeReply>, Trouble> {
    let target = match (&asked.node, &asked.admin) {
        (_, Some(key)) => Target::Admin(key.clone()),
        (given, None) => Target::Node(given.clone().unwrap_or_default()),
    };
    let reason = asked.reason.trim().to_owned();
    let terms = RevokeTerms { target, reason: reason.clone(), void: asked.void };
    // Counted before: afterwards it has none.
    let meant = meant(&node, asked.node.as_deref());
    let (there, here) = match meant {
        Some(meant) => node.ports.scheduler.held_with(Some(meant)).await,
        None => (0, 0),
    };
    let passphrase = asked.passphrase.as_ref().map(secret);
    let made = node.ports.membership.revoke(terms, passphrase).await.map_err(|error| trouble(&error))?;
    let named =
        |nodes: &[NodeId]| nodes.iter().map(|id| views::node_ref(&node, *id)).collect::<Vec<NodeRef>>();
    let (attempts_there, attempts_here) =
        if made.revoked.node.is_some() { (count(there), count(here)) } else { (0, 0) };
    Ok(Json(RevokeReply {
        node: made.revoked.node,
        key: made.revoked.key.to_string(),
        name: made.revoked.name.clone(),
        studio: made.revoked.studio.clone(),
        reason,
        confirmed: named(&made.confirmed),
        later: named(&made.later),
        attempts_there,
        attempts_here,
        resigned: count(made.revoked.resigned),
        fallen: made.revoked.fallen,
    }))
}

/// The member of that name or id, as far as the table of peers knows it.
fn meant(node: &Node, given: Option<&str>) -> Option<NodeId> {
    let given = given?;
    let table = node.ports.network.peers().borrow().clone();
    table.peers.keys().copied().find(|id| {
        let text = id.to_string();
        views::node_ref(node, *id).name == given || (given.len() >= 6 && text.ends_with(given))
    })
}

pub(super) async fn block(
    State(node): State<Node>,
    Asked(asked): Asked<BlockRequest>,
) -> Result<Json<BlockReply>, Trouble> {
    let terms = BlockTerms { node: asked.node, reason: asked.reason.trim().to_owned(), lift: asked.lift };
    let blocked = node.ports.membership.block(terms).await.map_err(|error| trouble(&error))?;
    Ok(Json(BlockReply {
        node: blocked.node,
        name: blocked.name,
        studio: blocked.studio,
        until_ms: blocked.until_ms,
    }))
}

pub(super) async fn rotate(
    State(node): State<Node>,
    Asked(asked): Asked<RotateRequest>,
) -> Result<Json<RotateReply>, Trouble> {
    let (membership, passphrase) = (&node.ports.membership, asked.passphrase.as_ref().map(secret));
    if let Some(code) = asked.countersign {
        let done = membership.countersign(code, passphrase).await.map_err(|error| trouble(&error))?;
        return Ok(Json(RotateReply {
            state: RotateState::Countersigned,
            code: None,
            name: Some(done.name),
            old: done.old,
            new: done.new,
        }));
    }
    let (out, here) = node.ports.scheduler.held_with(None).await;
    if out + here > 0 {
        return Err(trouble(&CannotRotate::Busy { out, here }.into()));
    }
    let (old, name) = (node.ports.me, Some(views::node_ref(&node, node.ports.me).name));
    let outcome = membership.rotate(passphrase).await.map_err(|error| trouble(&error))?;
    Ok(Json(match outcome {
        RotateOutcome::Requested { code, new } => {
            RotateReply { state: RotateState::Requested, code: Some(code), name, old, new }
        }
        RotateOutcome::Switching { new } => {
            RotateReply { state: RotateState::Switching, code: None, name, old, new }
        }
    }))
}

pub(super) async fn admins(State(node): State<Node>) -> Result<Json<AdminsReply>, Trouble> {
    let admins = node.ports.membership.admins().await.map_err(|error| trouble(&error))?;
    let in_pool = node.ports.membership.roster().borrow().is_some();
    let keys = admins.keys.iter().map(|admin| AdminKeyView {
        key: admin.key.to_string(),
        here: admin.here,
        recovery: admin.recovery,
        revoked: admin.revoked.clone(),
    });
    Ok(Json(AdminsReply {
        studio: if in_pool { admins.studio } else { String::new() },
        keys: keys.collect(),
        file: admins.path.display().to_string(),
        on_file: admins.on_file.map(|(key, _)| key.to_string()),
        sealed: admins.on_file.map(|(_, sealed)| sealed),
    }))
}

pub(super) async fn new_admin(
    State(node): State<Node>,
    Asked(asked): Asked<NewAdminRequest>,
) -> Result<Json<InstalledReply>, Trouble> {
    let made = node.ports.membership.new_admin(protection(asked.passphrase.as_ref())).await;
    let made = made.map_err(|error| trouble(&error))?;
    Ok(Json(installed(made, asked.passphrase.is_some())))
}

pub(super) async fn recover(
    State(node): State<Node>,
    Asked(asked): Asked<RecoverRequest>,
) -> Result<Json<InstalledReply>, Trouble> {
    let protection = protection(asked.passphrase.as_ref());
    let made = node.ports.membership.recover_admin(secret(&asked.code), protection).await;
    let made = made.map_err(|error| trouble(&error))?;
    Ok(Json(installed(made, asked.passphrase.is_some())))
}

fn installed(made: Installed, sealed: bool) -> InstalledReply {
    InstalledReply {
        key: made.key.to_string(),
        file: made.path.display().to_string(),
        aside: made.aside.map(|path| path.display().to_string()),
        sealed,
    }
}

pub(super) async fn change_admins(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<ChangeAdminsRequest>,
) -> Result<Json<ChangeAdminsReply>, Trouble> {
    let change = if asked.remove {
        AdminChange::Remove(asked.key)
    } else {
        let weak = || trouble(&CannotChangeAdmins::WeakKey.into());
        AdminChange::Add(asked.key.trim().parse::<PublicKey>().map_err(|_| weak())?)
    };
    let passphrase = asked.passphrase.as_ref().map(secret);
    let changed = node.ports.membership.change_admins(change, passphrase).await;
    let changed = changed.map_err(|error| trouble(&error))?;
    Ok(Json(ChangeAdminsReply {
        key: changed.key.to_string(),
        proposal: proposal(&changed.proposal, lang),
        in_force: changed.decided,
        resigned: count(changed.resigned),
    }))
}

fn trouble(error: &TrustError) -> Trouble {
    use ErrorCode as Code;
    let code = match error {
        TrustError::Keys(error) => return keys_trouble(error),
        TrustError::Keep(error) => return Trouble::broke(error),
        TrustError::Stopping => return Trouble::stopping(),
        TrustError::Revoke(cannot) => match cannot {
            CannotRevoke::NoPool | CannotRevoke::ThisNode | CannotRevoke::Already { .. } => Code::Conflict,
            CannotRevoke::NoSuch(no_such) => no_such_code(no_such),
            CannotRevoke::NoSuchAdmin { .. } => Code::NotFound,
            CannotRevoke::OtherStudio { .. } | CannotRevoke::NoAdminKey { .. } => Code::NotAllowed,
            CannotRevoke::OnlyAdmin { .. } | CannotRevoke::ItsOwnSigner | CannotRevoke::Full => Code::Refused,
            CannotRevoke::BadReason => Code::Usage,
            CannotRevoke::Locked => Code::PassphraseNeeded,
        },
        TrustError::Block(cannot) => match cannot {
            CannotBlock::NoPool | CannotBlock::ThisNode | CannotBlock::NotBlocked(_) => Code::Conflict,
            CannotBlock::NotMember => Code::NotAllowed,
            CannotBlock::NoSuch(no_such) => no_such_code(no_such),
            CannotBlock::BadReason => Code::Usage,
            CannotBlock::Refused(_) => Code::Refused,
        },
        TrustError::Rotate(cannot) => match cannot {
            CannotRotate::NoPool | CannotRotate::NotMemberThere { .. } => Code::Conflict,
            CannotRotate::NotMember | CannotRotate::OtherStudio | CannotRotate::NoAdminKey { .. } => {
                Code::NotAllowed
            }
            CannotRotate::Busy { .. } => Code::Busy,
            CannotRotate::Code(_) => Code::Usage,
            CannotRotate::OtherPool | CannotRotate::BadKey | CannotRotate::Full => Code::Refused,
            CannotRotate::Locked => Code::PassphraseNeeded,
        },
        TrustError::Admins(cannot) => match cannot {
            CannotChangeAdmins::NoPool | CannotChangeAdmins::Known { .. } => Code::Conflict,
            CannotChangeAdmins::WeakKey => Code::Usage,
            CannotChangeAdmins::NoSuchAdmin { .. } => Code::NotFound,
            CannotChangeAdmins::Locked => Code::PassphraseNeeded,
            CannotChangeAdmins::NoAdminKey { .. } => Code::NotAllowed,
            CannotChangeAdmins::Revoked
            | CannotChangeAdmins::Taken { .. }
            | CannotChangeAdmins::TooMany
            | CannotChangeAdmins::OnlyAdmin { .. }
            | CannotChangeAdmins::ItsOwnSigner
            | CannotChangeAdmins::Settings(_) => Code::Refused,
        },
        TrustError::Install(cannot) => match cannot {
            CannotInstall::Code(_) => Code::Usage,
            CannotInstall::NoPool | CannotInstall::Exists { .. } => Code::Conflict,
            CannotInstall::NotAnAdmin { .. } => Code::Refused,
        },
    };
    Trouble::of(code, error, Some(korean::trust(error)))
}

const fn no_such_code(no_such: &NoSuchMember) -> ErrorCode {
    match no_such {
        NoSuchMember::None { .. } => ErrorCode::NotFound,
        NoSuchMember::Ambiguous { .. } => ErrorCode::Ambiguous,
    }
}
