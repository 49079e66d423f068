//! PURE: a studio's own records as the rest of the daemon sees them.

use std::collections::BTreeMap;

use scenemesh_protocol::ids::{PoolId, ProjectId, StudioId};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::signed::Verified;
use scenemesh_protocol::studio::{
    BadMemo, Block, Memo, MemoPlace, Project, ProjectName, SealedMemo, StudioKey, StudioRules, StudioSecret,
};

/// A project of this node's studio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnProject {
    /// Never leaves the studio.
    pub name: ProjectName,
    /// As its admin signed them; they travel with the project's tasks.
    pub rules: Verified<Project>,
}

/// What this node's studio knows for itself, as far as it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnStudio {
    /// None while this node is in no pool.
    pub home: Option<(PoolId, StudioId)>,
    pub projects: BTreeMap<ProjectId, OwnProject>,
    /// Keys that a machine of the studio blocked; what that means is for others to enforce.
    pub blocks: BTreeMap<PublicKey, Block>,
    /// The key that memos are sealed to.
    pub key: Option<StudioKey>,
    /// Secrets by the version of their key.
    pub secrets: BTreeMap<u32, StudioSecret>,
}

/// Why there is no such project.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchProject {
    #[error("the studio has no project {0:?}; `scenemesh project ls` lists them")]
    Unknown(String),
    #[error("{0:?} names more than one project; give the id that `scenemesh project ls` shows")]
    Ambiguous(String),
}

impl OwnStudio {
    /// Without names and secrets.
    pub(in crate::membership) fn rules(&self) -> StudioRules {
        let projects = self.projects.iter().map(|(id, project)| (*id, project.rules.clone()));
        StudioRules { home: self.home, projects: projects.collect(), key: self.key }
    }

    /// A project by its name, its id, or the beginning of its id (four characters at least).
    ///
    /// # Errors
    /// When none or more than one is meant.
    pub fn project(&self, which: &str) -> Result<(ProjectId, &OwnProject), NoSuchProject> {
        let named: Vec<_> = self.projects.iter().filter(|(_, project)| project.name.name == which).collect();
        let found = if named.is_empty() && which.len() >= 4 {
            let begins = |id: &ProjectId| id.to_string().starts_with(&which.to_ascii_lowercase());
            self.projects.iter().filter(|(id, _)| begins(id)).collect()
        } else {
            named
        };
        match found.as_slice() {
            [(id, project)] => Ok((**id, project)),
            [] => Err(NoSuchProject::Unknown(which.to_owned())),
            _ => Err(NoSuchProject::Ambiguous(which.to_owned())),
        }
    }

    /// Opens a memo that a machine of this studio sealed; the studio's books are read with it.
    ///
    /// # Errors
    /// When it is of another studio or another attempt, or its key's secret is not here.
    pub fn open_memo(&self, memo: &SealedMemo, place: &MemoPlace) -> Result<Memo, BadMemo> {
        if self.home != Some((place.pool, place.studio)) {
            return Err(BadMemo::NotForThisKey);
        }
        let secret = self.secrets.get(&memo.key).ok_or(BadMemo::NotForThisKey)?;
        memo.open(secret, place)
    }
}
