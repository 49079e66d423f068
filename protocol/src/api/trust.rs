//! Keys: revoking, blocking, rotating, and a studio's admin keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::jobs::NodeRef;
use super::pool::{Passphrase, ProposalView};
use crate::ids::NodeId;

/// Takes a node or an admin key out of my studio, for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Name, id or the end of it; this or `admin`.
    pub node: Option<String>,
    /// An admin key of my studio, or its beginning.
    pub admin: Option<String>,
    #[serde(default)]
    pub reason: String,
    /// Lets fall what that admin key signed, instead of signing it again.
    #[serde(default)]
    pub void: bool,
    pub passphrase: Option<Passphrase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeReply {
    /// `None` for an admin key.
    pub node: Option<NodeId>,
    /// The key, in hexadecimal digits.
    pub key: String,
    pub name: String,
    pub studio: String,
    pub reason: String,
    /// Members that hold the revocation.
    pub confirmed: Vec<NodeRef>,
    /// Members that learn it at their next contact with anybody.
    pub later: Vec<NodeRef>,
    /// My attempts that it had: they go elsewhere.
    pub attempts_there: u32,
    /// Its attempts that ran here: stopped and wiped.
    pub attempts_here: u32,
    /// Records that another admin key signed again.
    pub resigned: u32,
    /// Members that fell with the admin key.
    pub fallen: Vec<String>,
}

/// My studio's machines refuse a member for 72 hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// Name, id or the end of it.
    pub node: String,
    #[serde(default)]
    pub reason: String,
    /// Ends the block instead.
    #[serde(default)]
    pub lift: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReply {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    /// Milliseconds since the Unix epoch; `None` when the block was lifted.
    pub until_ms: Option<u64>,
}

/// Exchanges this node's keys, or countersigns another's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The code that `rotate` printed on another machine of my studio.
    pub countersign: Option<String>,
    pub passphrase: Option<Passphrase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotateState {
    /// An admin has to countersign `code` on another machine.
    Requested,
    /// The daemon restarts in place, as `new`.
    Switching,
    /// Another node goes on as `new`.
    Countersigned,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateReply {
    pub state: RotateState,
    pub code: Option<String>,
    /// Name of the node whose keys are exchanged.
    pub name: Option<String>,
    pub old: NodeId,
    pub new: NodeId,
}

/// An admin key of my studio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminKeyView {
    /// In hexadecimal digits.
    pub key: String,
    /// It is on this machine.
    pub here: bool,
    /// It is the one that `init` printed as a recovery code.
    pub recovery: bool,
    /// Why it was revoked.
    pub revoked: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminsReply {
    pub studio: String,
    pub keys: Vec<AdminKeyView>,
    /// The key file of this machine.
    pub file: String,
    /// The key in it, in hexadecimal digits, if there is one.
    pub on_file: Option<String>,
    /// Whether that takes a passphrase.
    pub sealed: Option<bool>,
}

/// Makes an admin key on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAdminRequest {
    /// `None` leaves it unsealed on disk.
    pub passphrase: Option<Passphrase>,
}

/// Brings an admin key from paper onto this machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// `smeshkey1…`
    pub code: Passphrase,
    /// `None` leaves it unsealed on disk.
    pub passphrase: Option<Passphrase>,
}

impl fmt::Debug for RecoverRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoverRequest(…)")
    }
}

/// An admin key that is on this machine now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledReply {
    /// In hexadecimal digits.
    pub key: String,
    pub file: String,
    /// Where the key went that was there before.
    pub aside: Option<String>,
    pub sealed: bool,
}

/// Adds an admin key to my studio, or takes one off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeAdminsRequest {
    pub key: String,
    #[serde(default)]
    pub remove: bool,
    pub passphrase: Option<Passphrase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeAdminsReply {
    pub key: String,
    pub proposal: ProposalView,
    /// Whether it holds now; else other studios have to approve.
    pub in_force: bool,
    /// Records that another admin key signed again.
    pub resigned: u32,
}
