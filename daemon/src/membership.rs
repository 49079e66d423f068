//! Who belongs: founding a pool, inviting, joining, approving studios, leaving; and spreading what was decided.
//!
//! An actor owns a [`state::State`] of pure decisions. It works on a copy, journals the facts, keeps the copy, and only
//! then tells anybody. What others have to say arrives as [`RosterEvent`]s; whoever misses a push is told at the next
//! Hello, or by the periodic question. Nobody but a studio's own admins can put a machine into it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::ids::{NodeId, PoolId, ProjectId, StudioId};
use scenemesh_protocol::invite::{BadInvite, CheckWords};
use scenemesh_protocol::roster::{BadSettings, Roster};
use scenemesh_protocol::studio::StudioRules;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::network::{Network, PorchError, RosterEvent, StartError};
use crate::store::{JournalError, Replay, ReplayError, Store};
use crate::supervisor::Tasks;

mod actor;
mod addresses;
mod admins;
mod admission;
mod blocks;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod invites;
mod joining;
pub mod keys;
mod revoking;
mod rights;
mod roster;
mod rotating;
mod state;
mod studio;
mod trust;
mod view;

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;

pub use admins::{AdminChange, AdminView, AdminsChanged, CannotChangeAdmins};
pub use admission::{Approved, CannotApprove, CannotInvite, InviteTerms};
pub use blocks::{Barrier, BlockTerms, Blocked, CannotBlock, Shut};
pub use invites::{DEFAULT_EXPIRY, LONGEST_EXPIRY, NoInvite};
pub use joining::{CannotFound, CannotJoin, JoinOutcome, JoinRefused, Joined};
pub use keys::{KeysError, NodeKeys, Protection};
pub use revoking::{CannotRevoke, NoSuchMember, RevokeTerms, RevokedHere, Target};
pub use rights::{NoSuchStudio, NotAllowed, Role, may, may_render, reach_of, studio_name};
pub use rotating::{CannotRotate, Countersigned};
pub use state::Standing;
pub use studio::{
    CannotProject, NoSuchProject, OwnProject, OwnStudio, ProjectChange, ProjectRules, ProjectWish,
    RefusedStudioRecord,
};
pub use trust::{AdminKeys, CannotInstall, Installed, Revocation, RotateOutcome, TrustError};
pub use view::{InviteState, InviteView, MemberView, PoolView, ProposalView, StudioView};

/// Callers that wait at once; they are local, so the next one waits for a place.
const COMMANDS_WAITING: usize = 16;

/// Where the keys are and how often to ask.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub dir: PathBuf,
    /// How often a pending join asks again.
    pub ask_every: Duration,
    /// Cancelled when the node has to be started again, in place: its keys are others.
    pub restart: CancellationToken,
    /// How often one connected member is asked for what is missing here, in case a push was lost.
    pub sync_every: Duration,
}

impl Config {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            restart: CancellationToken::new(),
            ask_every: Duration::from_secs(3),
            sync_every: Duration::from_secs(30),
        }
    }
}

/// What to found a pool with.
#[derive(Clone, Debug)]
pub struct Founding {
    pub pool: String,
    pub studio: String,
    /// This node's name in the roster.
    pub name: String,
    pub protection: Protection,
    /// The pool opens no socket.
    pub solo: bool,
}

/// A pool that was founded here.
#[derive(Clone, Debug)]
pub struct Founded {
    pub pool: PoolId,
    pub studio: StudioId,
    pub node: NodeId,
    pub admin_key: PathBuf,
    /// A second admin key on paper. Shown this once, kept nowhere.
    pub recovery_code: Zeroizing<String>,
}

/// An invite that was made here.
#[derive(Clone, Debug)]
pub struct Issued {
    pub code: Zeroizing<String>,
    pub check: CheckWords,
    /// Where the joiner will knock.
    pub addresses: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Invites that can be used now, this one among them.
    pub usable: usize,
}

/// How to join.
#[derive(Clone)]
pub struct Joining {
    pub code: Zeroizing<String>,
    /// This node's name in the roster.
    pub name: String,
    /// For an invite that founds a studio: how its admin key shall lie on this machine.
    pub protection: Option<Protection>,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftPool {
    /// None when only a pending join was given up.
    pub pool_name: Option<String>,
    /// Members that were connected and heard it.
    pub told: usize,
    pub solo: bool,
}

/// Why what was decided was not made durable; then it did not happen.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why a pool was not founded.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Cannot(#[from] CannotFound),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error(transparent)]
    Network(#[from] StartError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why there is no invite, or why none was unlocked.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error(transparent)]
    Cannot(#[from] CannotInvite),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why this node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Code(#[from] BadInvite),
    #[error(transparent)]
    Cannot(#[from] CannotJoin),
    #[error("the inviter cannot be asked: {0}")]
    Porch(#[from] PorchError),
    /// The inviter has no time now, or is in no pool any more.
    #[error("the inviter does not answer the question: {0}")]
    Declined(String),
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why a proposal was not approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    #[error(transparent)]
    Cannot(#[from] CannotApprove),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why a project is not as somebody wants it.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(transparent)]
    Cannot(#[from] CannotProject),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why this node did not leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    #[error("this node is in no pool")]
    NoPool,
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why membership did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(
        "the pool's settings in the journal do not verify: {0}; restore the data directory from a backup"
    )]
    Settings(#[from] BadSettings),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Network(#[from] StartError),
}

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

enum Command {
    Init(Founding, Answer<Founded, InitError>),
    Invite(InviteTerms, Option<Zeroizing<String>>, Answer<Issued, InviteError>),
    Unlock(Option<Zeroizing<String>>, Answer<usize, InviteError>),
    Join(Joining, Answer<JoinOutcome, JoinError>),
    Approve(Option<String>, Option<Zeroizing<String>>, Answer<Approved, ApproveError>),
    Project(ProjectWish, Option<Zeroizing<String>>, Answer<ProjectId, ProjectError>),
    Leave(Answer<LeftPool, LeaveError>),
    Pool(oneshot::Sender<Option<PoolView>>),
    Trust(trust::Command),
}

/// Handle to the membership; cheap to clone.
#[derive(Clone, Debug)]
pub struct Membership {
    commands: mpsc::Sender<Command>,
    standing: watch::Receiver<Arc<Standing>>,
    roster: watch::Receiver<Option<Arc<Roster>>>,
    studio: watch::Receiver<Arc<OwnStudio>>,
    rules: watch::Receiver<Arc<StudioRules>>,
    barred: watch::Receiver<Arc<BTreeMap<NodeId, String>>>,
}

/// Restores what the journal knows, opens the network when this node is in a pool, and starts the actor.
///
/// # Errors
/// When the journal or a key file cannot be used, or the pool's addresses cannot be listened on.
pub async fn spawn(
    config: Config,
    keys: NodeKeys,
    store: Store,
    network: Network,
    events: mpsc::Receiver<RosterEvent>,
    replay: &Replay,
    tasks: &Tasks,
) -> Result<Membership, SpawnError> {
    let (commands, inbox) = mpsc::channel(COMMANDS_WAITING);
    let (standing_sender, standing) = watch::channel(Arc::new(Standing::Alone));
    let (roster_sender, roster) = watch::channel(None);
    let (studio_sender, studio) = watch::channel(Arc::default());
    let (rules_sender, rules) = watch::channel(Arc::default());
    let (barred_sender, barred) = watch::channel(Arc::default());
    let outlets = actor::Outlets {
        standing: standing_sender,
        roster: roster_sender,
        studio: studio_sender,
        rules: rules_sender,
        barred: barred_sender,
    };
    let actor =
        actor::Actor::restore(config, &keys, store.journal, network, outlets, replay, tasks.clone()).await?;
    tasks.spawn("membership", actor.run(inbox, events));
    Ok(Membership { commands, standing, roster, studio, rules, barred })
}

impl Membership {
    /// How this node stands towards its pool.
    pub fn standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.standing.clone()
    }

    /// The roster, while this node is in a pool.
    pub fn roster(&self) -> watch::Receiver<Option<Arc<Roster>>> {
        self.roster.clone()
    }

    /// What only this node's studio knows: projects, blocks, keys.
    pub fn studio(&self) -> watch::Receiver<Arc<OwnStudio>> {
        self.studio.clone()
    }

    /// The part of it that tasks are held to.
    pub fn rules(&self) -> watch::Receiver<Arc<StudioRules>> {
        self.rules.clone()
    }

    /// Who is shut out, by revocation or block, and why in words; with this node itself when it is the one outside.
    pub fn barred(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, String>>> {
        self.barred.clone()
    }

    /// Founds a pool with one studio, whose first machine and admin this node is, and opens the network.
    ///
    /// # Errors
    /// As [`InitError`] says; then nothing was founded.
    pub async fn init(&self, founding: Founding) -> Result<Founded, InitError> {
        self.ask(|answer| Command::Init(founding, answer)).await.unwrap_or(Err(InitError::Stopping))
    }

    /// Makes a one-use invite. The admin key stays in memory until it is used or expires.
    ///
    /// # Errors
    /// As [`InviteError`] says.
    pub async fn invite(
        &self,
        terms: InviteTerms,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Issued, InviteError> {
        let command = |answer| Command::Invite(terms, passphrase, answer);
        self.ask(command).await.unwrap_or(Err(InviteError::Stopping))
    }

    /// Opens the admin key after a restart, so that earlier invites can be used; gives how many.
    ///
    /// # Errors
    /// As [`InviteError`] says.
    pub async fn unlock(&self, passphrase: Option<Zeroizing<String>>) -> Result<usize, InviteError> {
        self.ask(|answer| Command::Unlock(passphrase, answer)).await.unwrap_or(Err(InviteError::Stopping))
    }

    /// Asks an inviter to be let in. A pending join goes on by itself, also after a restart; watch [`Self::standing`].
    ///
    /// # Errors
    /// As [`JoinError`] says.
    pub async fn join(&self, joining: Joining) -> Result<JoinOutcome, JoinError> {
        self.ask(|answer| Command::Join(joining, answer)).await.unwrap_or(Err(JoinError::Stopping))
    }

    /// Approves a proposal: by the name of the studio it adds or the beginning of its id; the only one when none is given.
    ///
    /// # Errors
    /// As [`ApproveError`] says.
    pub async fn approve(
        &self,
        which: Option<String>,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Approved, ApproveError> {
        let command = |answer| Command::Approve(which, passphrase, answer);
        self.ask(command).await.unwrap_or(Err(ApproveError::Stopping))
    }

    /// Makes or changes a project of this node's studio; every machine of it hears of that, and nobody else.
    ///
    /// # Errors
    /// As [`ProjectError`] says.
    pub async fn project(
        &self,
        wish: ProjectWish,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<ProjectId, ProjectError> {
        let command = |answer| Command::Project(wish, passphrase, answer);
        self.ask(command).await.unwrap_or(Err(ProjectError::Stopping))
    }

    /// Says goodbye, closes the network and forgets the pool, or gives up a pending join. Keys stay.
    ///
    /// # Errors
    /// As [`LeaveError`] says.
    pub async fn leave(&self) -> Result<LeftPool, LeaveError> {
        self.ask(Command::Leave).await.unwrap_or(Err(LeaveError::Stopping))
    }

    /// The pool as people are shown it; none while this node is in no pool.
    pub async fn pool(&self) -> Option<PoolView> {
        self.ask(Command::Pool).await.flatten()
    }

    /// None when the node stops.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}
