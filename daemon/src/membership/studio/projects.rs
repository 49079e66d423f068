//! PURE: making and changing projects, with the studio admin's key.

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{NodeId, ProjectId};
use scenemesh_protocol::roster::is_name;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{PROJECT_NAME_LIMIT, Project, ProjectName, StudioRecord};
use scenemesh_protocol::task::Reach;

use super::super::state::{State, Step};
use super::{NoSuchProject, RefusedStudioRecord};

/// What somebody wants of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectWish {
    Add { name: String, rules: ProjectRules },
    Set { which: String, change: ProjectChange },
}

/// What holds for a project's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRules {
    pub max_reach: Reach,
    /// `None`: every node within reach.
    pub nodes: Option<Vec<NodeId>>,
    pub hygiene: Hygiene,
    /// Seconds that anything is kept after the end of a job; `None`: as long as the disk lasts.
    pub retention_s: Option<u32>,
}

/// What becomes different; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectChange {
    pub max_reach: Option<Reach>,
    pub nodes: Option<Option<Vec<NodeId>>>,
    pub hygiene: Option<Hygiene>,
    pub retention_s: Option<Option<u32>>,
    /// Takes no new jobs, or takes them again.
    pub closed: Option<bool>,
}

/// Why there is no such project now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotProject {
    #[error("this node is in no pool; found one with init, or join one")]
    NoPool,
    #[error(
        "there is no admin key of {studio} on this machine; run this on the machine where the studio was founded"
    )]
    NoAdminKey { studio: String },
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("{0:?} is no name for a project; take 1 to 64 bytes without control characters")]
    BadName(String),
    #[error("the studio has a project {0:?} already; take another name, or change it with project set")]
    NameTaken(String),
    #[error(transparent)]
    Unknown(#[from] NoSuchProject),
    #[error("the project's record would not hold: {0}; look at the reach and the nodes that were given")]
    Refused(#[from] RefusedStudioRecord),
}

impl State {
    /// Whether a wish makes sense, before anybody is asked for a passphrase.
    pub(in crate::membership) fn check_project(
        &self,
        wish: &ProjectWish,
        now_ms: u64,
    ) -> Result<(), CannotProject> {
        if self.circle.is_none() {
            return Err(CannotProject::NoPool);
        }
        let own = self.own_studio_records(now_ms);
        match wish {
            ProjectWish::Add { name, .. } if name.len() > PROJECT_NAME_LIMIT || !is_name(name) => {
                Err(CannotProject::BadName(name.clone()))
            }
            ProjectWish::Add { name, .. } if own.projects.values().any(|known| known.name.name == *name) => {
                Err(CannotProject::NameTaken(name.clone()))
            }
            ProjectWish::Add { .. } => Ok(()),
            ProjectWish::Set { which, .. } => Ok(own.project(which).map(drop)?),
        }
    }

    /// Signs what somebody wants.
    pub(in crate::membership) fn wish_project(
        &mut self,
        wish: &ProjectWish,
        now_ms: u64,
    ) -> Result<(Step, ProjectId), CannotProject> {
        self.check_project(wish, now_ms)?;
        let (admin, studio) = self.admin_of().ok_or(CannotProject::Locked)?;
        let (admin, pool) = (admin.clone(), self.roster().ok_or(CannotProject::NoPool)?.pool());
        let (name, mut project) = match wish {
            ProjectWish::Add { name, rules } => {
                let name = ProjectName::new(name.clone());
                let ProjectRules { max_reach, nodes, hygiene, retention_s } = rules.clone();
                let project = Project {
                    pool,
                    studio,
                    project: ProjectId::random(),
                    name: name.commitment(),
                    version: 1,
                    issued_ms: now_ms,
                    max_reach,
                    nodes,
                    hygiene,
                    retention_s,
                    closed: false,
                };
                (name, project)
            }
            ProjectWish::Set { which, change } => {
                let own = self.own_studio_records(now_ms);
                let (_, known) = own.project(which)?;
                let old = (*known.rules).clone();
                let change = change.clone();
                let project = Project {
                    version: old.version.saturating_add(1),
                    issued_ms: now_ms,
                    max_reach: change.max_reach.unwrap_or(old.max_reach),
                    nodes: change.nodes.unwrap_or(old.nodes),
                    hygiene: change.hygiene.unwrap_or(old.hygiene),
                    retention_s: change.retention_s.unwrap_or(old.retention_s),
                    closed: change.closed.unwrap_or(old.closed),
                    ..old
                };
                (known.name.clone(), project)
            }
        };
        if let Some(nodes) = &mut project.nodes {
            nodes.sort_unstable();
            nodes.dedup();
        }
        let id = project.project;
        let record = StudioRecord::Project { record: Signed::new(&project, &admin), name };
        Ok((self.publish(&record, now_ms)?, id))
    }
}
