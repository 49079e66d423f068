//! What an operator asks about keys: revoke, block, rotate, admin keys.

use std::path::PathBuf;

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::keyfile::BadRecoveryCode;
use scenemesh_protocol::keys::PublicKey;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::admins::{AdminChange, AdminView, AdminsChanged, CannotChangeAdmins};
use super::blocks::{BlockTerms, Blocked, CannotBlock};
use super::keys::{KeysError, Protection};
use super::revoking::{CannotRevoke, RevokeTerms, RevokedHere};
use super::rotating::{CannotRotate, Countersigned};
use super::{KeepError, Membership};

type Passphrase = Option<Zeroizing<String>>;

/// A revocation, and who holds it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub revoked: RevokedHere,
    /// Members that took the record.
    pub confirmed: Vec<NodeId>,
    /// Members that are away, or did not answer within two seconds: they learn it at the next contact with anybody.
    pub later: Vec<NodeId>,
}

/// How a rotation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotateOutcome {
    /// An admin on another machine has to countersign.
    Requested { code: String, new: NodeId },
    /// Countersigned here: the node restarts in place under its new key.
    Switching { new: NodeId },
}

/// The admin keys of the own studio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminKeys {
    pub studio: String,
    pub keys: Vec<AdminView>,
    /// The key file of this machine, whatever is in it.
    pub path: PathBuf,
    /// The key in it, and whether it takes a passphrase.
    pub on_file: Option<(PublicKey, bool)>,
}

/// An admin key that is on this machine now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub key: PublicKey,
    pub path: PathBuf,
    /// Where the key went that was there before.
    pub aside: Option<PathBuf>,
}

/// Why no admin key was put onto this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotInstall {
    #[error(transparent)]
    Code(#[from] BadRecoveryCode),
    #[error("this node is in no pool, so that nobody knows which admins its studio has; join first")]
    NoPool,
    #[error(
        "the code's key is no admin of {studio}, or was revoked; compare the code with the printed one, and scenemesh admin show"
    )]
    NotAnAdmin { studio: String },
    #[error(
        "this machine has an admin key already, {key} in {path}; add it to a studio with scenemesh admin add, or move the file away"
    )]
    Exists { key: PublicKey, path: PathBuf },
}

/// Why nothing was done about keys.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Revoke(#[from] CannotRevoke),
    #[error(transparent)]
    Block(#[from] CannotBlock),
    #[error(transparent)]
    Rotate(#[from] CannotRotate),
    #[error(transparent)]
    Admins(#[from] CannotChangeAdmins),
    #[error(transparent)]
    Install(#[from] CannotInstall),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the node is stopping")]
    Stopping,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, TrustError>>;

pub(super) enum Command {
    Revoke(RevokeTerms, Passphrase, Answer<Revocation>),
    Block(BlockTerms, Answer<Blocked>),
    Rotate(Passphrase, Answer<RotateOutcome>),
    Countersign(String, Passphrase, Answer<Countersigned>),
    Admins(Answer<AdminKeys>),
    NewAdmin(Protection, Answer<Installed>),
    Recover(Zeroizing<String>, Protection, Answer<Installed>),
    ChangeAdmins(AdminChange, Passphrase, Answer<AdminsChanged>),
}

impl Membership {
    /// Revokes a node or an admin key of the own studio, cuts its links, tells everybody, and says within about two
    /// seconds who has it.
    ///
    /// # Errors
    /// As [`TrustError`] says; then nothing was revoked.
    pub async fn revoke(&self, terms: RevokeTerms, passphrase: Passphrase) -> Result<Revocation, TrustError> {
        self.trust(|answer| Command::Revoke(terms, passphrase, answer)).await
    }

    /// Blocks a member for this studio's machines for 72 hours, or lifts the block.
    ///
    /// # Errors
    /// As [`TrustError`] says.
    pub async fn block(&self, terms: BlockTerms) -> Result<Blocked, TrustError> {
        self.trust(|answer| Command::Block(terms, answer)).await
    }

    /// Asks for new keys, or takes them at once where the studio's admin key is here. The caller has seen to it that
    /// nothing runs that is bound to the old ones.
    ///
    /// # Errors
    /// As [`TrustError`] says.
    pub async fn rotate(&self, passphrase: Passphrase) -> Result<RotateOutcome, TrustError> {
        self.trust(|answer| Command::Rotate(passphrase, answer)).await
    }

    /// Signs a node of the own studio over to its new key.
    ///
    /// # Errors
    /// As [`TrustError`] says.
    pub async fn countersign(
        &self,
        code: String,
        passphrase: Passphrase,
    ) -> Result<Countersigned, TrustError> {
        self.trust(|answer| Command::Countersign(code, passphrase, answer)).await
    }

    /// The admin keys of the own studio, and the one on this machine.
    ///
    /// # Errors
    /// When the key file cannot be read.
    pub async fn admins(&self) -> Result<AdminKeys, TrustError> {
        self.trust(Command::Admins).await
    }

    /// Makes an admin key on this machine. It signs nothing before a studio has added it.
    ///
    /// # Errors
    /// When there is one, or the file cannot be written.
    pub async fn new_admin(&self, protection: Protection) -> Result<Installed, TrustError> {
        self.trust(|answer| Command::NewAdmin(protection, answer)).await
    }

    /// Brings the admin key of a recovery code onto this machine.
    ///
    /// # Errors
    /// When the code is none of the studio's, or the file cannot be written.
    pub async fn recover_admin(
        &self,
        code: Zeroizing<String>,
        protection: Protection,
    ) -> Result<Installed, TrustError> {
        self.trust(|answer| Command::Recover(code, protection, answer)).await
    }

    /// Adds an admin key to the own studio or takes one off; in a pool of several studios this is a proposal.
    ///
    /// # Errors
    /// As [`TrustError`] says.
    pub async fn change_admins(
        &self,
        change: AdminChange,
        passphrase: Passphrase,
    ) -> Result<AdminsChanged, TrustError> {
        self.trust(|answer| Command::ChangeAdmins(change, passphrase, answer)).await
    }

    async fn trust<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, TrustError> {
        let wrapped = |answer| super::Command::Trust(command(answer));
        self.ask(wrapped).await.unwrap_or(Err(TrustError::Stopping))
    }
}
