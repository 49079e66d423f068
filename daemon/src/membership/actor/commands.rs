//! What local callers ask for.

use scenemesh_protocol::ids::ProjectId;
use scenemesh_protocol::invite::{Invite, InviteSecret};
use scenemesh_protocol::keyfile;
use scenemesh_protocol::keys::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::super::admission::{Approved, CannotApprove, CannotInvite, InviteTerms};
use super::super::keys::KeysError;
use super::super::{
    ApproveError, CannotProject, Founded, Founding, InitError, InviteError, Issued, Joining, LeaveError,
    LeftPool, ProjectError, ProjectWish,
};
use super::*;

impl Actor {
    pub(super) async fn on_command(&mut self, command: Command) {
        // Callers may have gone meanwhile; what they asked for is done all the same.
        match command {
            Command::Init(founding, answer) => drop(answer.send(self.init(founding).await)),
            Command::Invite(terms, passphrase, answer) => {
                drop(answer.send(self.invite(terms, passphrase).await));
            }
            Command::Unlock(passphrase, answer) => drop(answer.send(self.unlock(passphrase).await)),
            Command::Join(joining, answer) => self.join(joining, answer),
            Command::Approve(which, passphrase, answer) => {
                drop(answer.send(self.approve(which, passphrase).await));
            }
            Command::Project(wish, passphrase, answer) => {
                drop(answer.send(self.project(wish, passphrase).await));
            }
            Command::Leave(answer) => drop(answer.send(self.leave().await)),
            Command::Trust(command) => self.on_trust(command).await,
            Command::Pool(answer) => drop(answer.send(self.state.view(wall_ms()))),
        }
    }

    async fn init(&mut self, founding: Founding) -> Result<Founded, InitError> {
        let Founding { pool, studio, name, protection, solo } = founding;
        self.state.check_found(&pool, &studio, &name)?;
        let file = self.admin_file.clone();
        let admin = self.tasks.blocking(move || file.unlock_or_create(&protection)).await;
        let admin = admin.map_err(|_| InitError::Stopping)??;
        self.sealed = self.is_sealed().await;
        let recovery = SecretKey::generate();
        let now_ms = wall_ms();
        let settings = State::genesis(&pool, &studio, admin.public(), Some(recovery.public()), now_ms);
        let mut next = self.state.clone();
        let mut step = next.found(&settings, &name, &admin, now_ms)?;
        if solo {
            next.solo = true;
            step.facts.push(Fact::Solo);
        }
        let pool = next.roster().map(|roster| roster.pool()).ok_or(InitError::Stopping)?;
        // Bound before anything is founded: a taken port leaves nothing behind.
        if !solo {
            self.network.start(pool).await?;
        }
        if let Err(error) = self.keep(next, step).await {
            self.network.stop().await;
            return Err(error.into());
        }
        self.open = (!solo).then_some(pool);
        tracing::info!(%pool, solo, "founded a pool");
        Ok(Founded {
            pool,
            studio: settings.studios[0].id,
            node: self.state.me.id(),
            admin_key: self.admin_file.path().to_owned(),
            recovery_code: keyfile::recovery_code(&recovery),
        })
    }

    /// Whether the admin key on disk needs a passphrase.
    pub(super) async fn is_sealed(&self) -> bool {
        let file = self.admin_file.clone();
        let unsealed = self.tasks.blocking(move || file.unsealed()).await;
        // In doubt it is treated as sealed, and forgotten when it has no more work.
        unsealed.is_ok_and(|read| read.is_ok_and(|(sealed, _)| sealed)) || self.sealed
    }

    /// Brings this studio's admin key into memory, unless it is there.
    pub(super) async fn open_admin(
        &mut self,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Opened, KeysError> {
        if self.state.admin_of().is_some() {
            return Ok(Opened::Ready);
        }
        let file = self.admin_file.clone();
        let read = self
            .tasks
            .blocking(move || {
                let public = file.public()?;
                Ok((public, file.unlock(passphrase.as_ref().map(|text| text.as_str()))))
            })
            .await;
        let (public, unlocked): (Option<PublicKey>, Result<SecretKey, KeysError>) = match read {
            Ok(read) => read?,
            Err(_) => return Ok(Opened::Foreign),
        };
        let mine = |key: &PublicKey| {
            self.state.is_own_admin(key)
                || self.state.asked.as_ref().is_some_and(|asked| asked.admin == Some(*key))
        };
        // A key of another studio is not even asked for its passphrase.
        if public.is_some_and(|key| !mine(&key)) {
            return Ok(Opened::Foreign);
        }
        self.state.admin = Some(unlocked?);
        self.sealed = self.is_sealed().await;
        Ok(Opened::Ready)
    }

    async fn invite(
        &mut self,
        terms: InviteTerms,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Issued, InviteError> {
        if self.state.circle.is_none() {
            return Err(CannotInvite::NoPool.into());
        }
        if let Opened::Foreign = self.open_admin(passphrase).await? {
            return Err(CannotInvite::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let now_ms = wall_ms();
        let porch = self.network.listening().borrow().told_porch.clone();
        let mut next = self.state.clone();
        let (step, invite, expires_ms) = next.invite(terms, InviteSecret::generate(), &porch, now_ms)?;
        self.keep(next, step).await?;
        Ok(Issued {
            code: invite.to_code(),
            check: invite.check_words(),
            addresses: invite.addresses().to_vec(),
            expires_ms,
            usable: self.state.usable_invites(now_ms),
        })
    }

    async fn unlock(&mut self, passphrase: Option<Zeroizing<String>>) -> Result<usize, InviteError> {
        if self.state.circle.is_none() && self.state.asked.is_none() {
            return Err(CannotInvite::NoPool.into());
        }
        if let Opened::Foreign = self.open_admin(passphrase).await? {
            return Err(CannotInvite::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let step = next.on_tick(wall_ms());
        self.keep(next, step).await?;
        Ok(self.state.usable_invites(wall_ms()))
    }

    fn join(&mut self, joining: Joining, answer: Answer<JoinOutcome, JoinError>) {
        let checked = Invite::from_code(&joining.code).map_err(JoinError::from).and_then(|invite| {
            self.state.check_join(&invite, &joining.name, wall_ms())?;
            Ok(invite)
        });
        match checked {
            Ok(invite) => self.knock(invite, joining.name, joining.protection, answer),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    async fn approve(
        &mut self,
        which: Option<String>,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Approved, ApproveError> {
        // First whether there is anything to approve: nobody types a passphrase for nothing.
        match self.state.clone().approve(which.as_deref(), wall_ms()) {
            Ok(_) | Err(CannotApprove::Locked) => {}
            Err(cannot) => return Err(cannot.into()),
        }
        if let Opened::Foreign = self.open_admin(passphrase).await? {
            return Err(CannotApprove::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let (step, approved) = next.approve(which.as_deref(), wall_ms())?;
        self.keep(next, step).await?;
        Ok(approved)
    }

    async fn project(
        &mut self,
        wish: ProjectWish,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<ProjectId, ProjectError> {
        self.state.check_project(&wish, wall_ms())?;
        if let Opened::Foreign = self.open_admin(passphrase).await? {
            return Err(CannotProject::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let (step, id) = next.wish_project(&wish, wall_ms())?;
        self.keep(next, step).await?;
        Ok(id)
    }

    async fn leave(&mut self) -> Result<LeftPool, LeaveError> {
        let mut next = self.state.clone();
        let pool_name = self.state.roster().map(|roster| roster.settings().pool_name.clone());
        let step = next.leave().ok_or(LeaveError::NoPool)?;
        let solo = self.state.solo;
        let peers = self.network.peers().borrow().clone();
        let told = peers.peers.values().filter(|peer| peer.link == Link::Up).count();
        self.keep(next, step).await?;
        self.leaves += 1;
        self.forget_secrets().await;
        // The network says goodbye before it closes.
        self.network.stop().await;
        self.open = None;
        Ok(LeftPool { pool_name, told, solo })
    }
}

/// What became of the admin key.
pub(super) enum Opened {
    Ready,
    /// The key on this machine is not of this node's studio.
    Foreign,
}
