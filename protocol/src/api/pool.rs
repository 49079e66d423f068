//! Membership: founding, inviting, joining, approving, leaving.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use crate::ids::{ContentHash, NodeId, PoolId, StudioId};

use super::status::ComfyuiView;

/// Opens a studio's admin key. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Passphrase(String);

impl Passphrase {
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Founds a pool with one studio and this node as its first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    pub pool: String,
    pub studio: String,
    pub name: String,
    /// `None` leaves the admin key unsealed on disk.
    pub passphrase: Option<Passphrase>,
    /// A pool of one that opens no socket but loopback.
    #[serde(default)]
    pub solo: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReply {
    pub pool: PoolId,
    pub pool_name: String,
    pub studio: StudioId,
    pub studio_name: String,
    pub node: NodeId,
    pub name: String,
    /// File of the admin key.
    pub admin_key: String,
    pub sealed: bool,
    /// A second admin key, shown this once, where the studio has one.
    pub recovery_code: Option<String>,
    /// Every ComfyUI that was found beside this node, configured or not.
    pub comfyui: Vec<ComfyuiView>,
}

/// Makes a one-use invite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// `submit`, `render`, `keep`; empty means submit and render.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The joiner becomes the first admin of a new studio of this name.
    pub new_studio: Option<String>,
    /// `None`: 24 hours.
    pub expires_s: Option<u64>,
    pub passphrase: Option<Passphrase>,
    /// Makes nothing: unlocks the invites that a restart has locked.
    #[serde(default)]
    pub unlock: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteReply {
    /// `smesh1…`; `None` when invites were unlocked.
    pub code: Option<String>,
    /// Four words to read aloud.
    pub check: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    pub new_studio: Option<String>,
    /// Invites that can be used now.
    pub pending: u32,
}

impl fmt::Debug for InviteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteReply").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// Asks what an invite says before it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPreviewRequest {
    pub code: String,
}

impl fmt::Debug for JoinPreviewRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinPreviewRequest(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPreview {
    pub pool: PoolId,
    pub inviter: NodeId,
    /// Four words that must be those the inviter reads out.
    pub check: String,
    /// Where the inviter is tried.
    pub addresses: Vec<String>,
}

/// Uses an invite.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    pub code: String,
    /// This node's name in the roster; `None` lets the daemon take the machine's.
    pub name: Option<String>,
    /// Seals the admin key that a new studio's first node makes.
    pub passphrase: Option<Passphrase>,
    /// Leave that admin key unsealed.
    #[serde(default)]
    pub no_passphrase: bool,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinState {
    Joined,
    /// The new studio still lacks signatures. The node keeps asking.
    AwaitingApproval,
    /// The inviter restarted and its admin key is locked. The node keeps asking.
    AwaitingUnlock,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    pub state: JoinState,
    pub pool: PoolId,
    pub pool_name: Option<String>,
    pub studio_name: Option<String>,
    pub node: NodeId,
    pub name: String,
    /// Signatures that the new studio still lacks.
    pub signatures_missing: u32,
    /// Members that are up now, this node not counted.
    pub peers_up: u32,
    /// What the operator should know, for example that a clock is wrong.
    pub notes: Vec<String>,
    pub comfyui: Vec<ComfyuiView>,
}

/// The pool as this node's roster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReply {
    pub pool: PoolId,
    pub name: String,
    pub epoch: u64,
    pub studios: Vec<StudioView>,
    pub members: Vec<MemberView>,
    pub proposals: Vec<ProposalView>,
    /// Invites that this node made.
    pub invites: Vec<InviteView>,
    /// Whether this node can sign as an admin right now.
    pub unlocked: bool,
    /// What the operator should know, newest last.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    Open,
    /// `invite --unlock` opens it again.
    Locked,
    Expired,
    Used,
}

/// An invite that this node made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    pub state: InviteState,
    pub new_studio: Option<String>,
    pub roles: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Who used it.
    pub used_by: Option<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudioView {
    pub id: StudioId,
    pub name: String,
    pub weight: u32,
    /// Number of admin keys.
    pub admins: u32,
    pub mine: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    pub roles: Vec<String>,
    pub me: bool,
}

/// A next epoch that still lacks signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalView {
    pub id: ContentHash,
    pub short: String,
    pub epoch: u64,
    /// What it changes, in one sentence.
    pub change: String,
    pub signed_by: Vec<String>,
    pub signatures_missing: u32,
    /// Whether my studio has signed.
    pub mine: bool,
}

/// Signs a proposal with my studio's admin key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// Any unambiguous prefix of its id; `None` when there is only one.
    pub proposal: Option<String>,
    pub passphrase: Option<Passphrase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveReply {
    pub proposal: ProposalView,
    /// Whether it holds now.
    pub in_force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveReply {
    /// `None` when only a pending join was given up.
    pub pool_name: Option<String>,
    /// Members that heard it.
    pub told: u32,
    /// The pool was solo: there is nobody who could keep a record of this node.
    #[serde(default)]
    pub solo: bool,
}
