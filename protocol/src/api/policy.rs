//! What may run on this node, and to whom it is lent.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::task::Class;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReply {
    /// Of the list of node classes that this release carries.
    pub version: u32,
    /// The release of ComfyUI that the list was made for.
    pub comfyui: String,
    /// How many classes the list allows and denies.
    pub listed_allowed: u32,
    pub listed_denied: u32,
    /// By the owner's hand.
    pub allowed: Vec<String>,
    pub denied: Vec<String>,
    pub lend: LendView,
}

/// To whom this node is lent. What is `None` is not limited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendView {
    pub to: Option<Vec<String>>,
    pub classes: Option<Vec<Class>>,
    pub max_vram_mib: Option<u32>,
    /// As they are written in the configuration.
    pub hours: Option<Vec<String>>,
    /// Within the hours now.
    pub open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyClassRequest {
    pub class: String,
}

/// Where a verdict on a class comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyReason {
    /// The list allows it.
    Listed,
    /// The list denies it, for the family that is named beside.
    Family,
    Unlisted,
    AllowedByHand,
    DeniedByHand,
}

/// May nodes of a class run here?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyClassReply {
    pub class: String,
    /// For tasks of other machines.
    pub allowed: bool,
    /// For tasks of this machine itself.
    pub allowed_own: bool,
    pub reason: PolicyReason,
    /// `paths`, `code`, `partner`, `install`, `others`, `network`, `models` or `hang`, where the list denies it.
    pub family: Option<String>,
    /// The module or pack that the list knows it from.
    pub from: Option<String>,
    /// The verdict as a sentence.
    pub words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyChange {
    Allow,
    Deny,
    /// As the list has it.
    Reset,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChangeRequest {
    pub change: PolicyChange,
    pub classes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCheckRequest {
    /// ComfyUI's API format, as text.
    pub workflow: String,
}

/// What would be refused of a workflow if another machine sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCheckReply {
    /// This node would refuse it.
    pub refused: bool,
    pub findings: Vec<FindingView>,
    /// The other machines that render, as far as they told of themselves.
    pub elsewhere: Vec<ElsewhereView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    Class,
    Literal,
    Credential,
}

/// One node that would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    pub node: String,
    pub class: String,
    /// The input whose value it is about.
    pub input: Option<String>,
    pub kind: FindingKind,
    pub family: Option<String>,
    pub words: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElsewhereView {
    pub node: NodeId,
    pub name: String,
    pub studio: String,
    /// Nothing is known that speaks against it.
    pub takes: bool,
    pub words: String,
}
