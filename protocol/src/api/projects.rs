//! Projects of a studio: what its machines hold their tasks to.

use serde::{Deserialize, Serialize};

use super::{NodeRef, Passphrase, ReachWords};
use crate::advert::Hygiene;
use crate::ids::ProjectId;

/// Makes a project, signed by the studio's admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectRequest {
    pub name: String,
    #[serde(default)]
    pub max_reach: ReachWords,
    /// Names or ids of the only nodes that may render it; empty: every node within reach.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Only nodes that can remove everything render it.
    #[serde(default)]
    pub full_hygiene: bool,
    /// Seconds after the end of a job until everything of it is removed; `None`: never.
    pub retention_s: Option<u32>,
    pub passphrase: Option<Passphrase>,
}

/// Changes a project. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSetRequest {
    /// Its name, its id, or the beginning of its id.
    pub project: String,
    pub max_reach: Option<ReachWords>,
    /// An empty list binds it to none in particular.
    pub nodes: Option<Vec<String>>,
    pub full_hygiene: Option<bool>,
    /// Zero: no limit of its own.
    pub retention_s: Option<u32>,
    pub closed: Option<bool>,
    pub passphrase: Option<Passphrase>,
}

/// One project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectView {
    pub project: ProjectId,
    /// The first eight characters of its id.
    pub short: String,
    pub name: String,
    pub version: u32,
    /// Milliseconds since the Unix epoch: when this version was signed.
    pub issued_ms: u64,
    pub max_reach: ReachWords,
    /// Where it is bound to some: only these nodes render it.
    pub nodes: Option<Vec<NodeRef>>,
    pub hygiene: Hygiene,
    pub retention_s: Option<u32>,
    /// Takes no new jobs.
    pub closed: bool,
}

/// All projects of this node's studio, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectsReply {
    pub projects: Vec<ProjectView>,
}
