//! Revocations, blocks, rotations and admin keys, as local callers ask for them.

use futures::future::join_all;
use scenemesh_protocol::keyfile;
use scenemesh_protocol::roster::RotationRequest;
use zeroize::Zeroizing;

use super::super::admins::{AdminChange, AdminsChanged, CannotChangeAdmins};
use super::super::blocks::{BlockTerms, Blocked};
use super::super::keys::{self, KeysError, Protection};
use super::super::revoking::{CannotRevoke, RevokeTerms};
use super::super::rotating::{CannotRotate, Countersigned};
use super::super::trust::{
    AdminKeys, Answer, CannotInstall, Command, Installed, Revocation, RotateOutcome, TrustError,
};
use super::commands::Opened;
use super::*;

/// Who has not confirmed a revocation by then learns it later.
const CONFIRM: Duration = Duration::from_secs(2);
/// News of a rotation that was not delivered by then is told by the new key itself.
const LAST_WORDS: Duration = Duration::from_secs(3);

impl Actor {
    pub(super) async fn on_trust(&mut self, command: Command) {
        // Callers may have gone meanwhile; what they asked for is done all the same.
        match command {
            Command::Revoke(terms, passphrase, answer) => self.revoke(terms, passphrase, answer).await,
            Command::Block(terms, answer) => drop(answer.send(self.block(&terms).await)),
            Command::Rotate(passphrase, answer) => drop(answer.send(self.rotate(passphrase).await)),
            Command::Countersign(code, passphrase, answer) => {
                drop(answer.send(self.countersign(&code, passphrase).await));
            }
            Command::Admins(answer) => drop(answer.send(self.admins().await)),
            Command::NewAdmin(protection, answer) => drop(answer.send(self.new_admin(protection).await)),
            Command::Recover(code, protection, answer) => {
                drop(answer.send(self.recover(code, protection).await));
            }
            Command::ChangeAdmins(change, passphrase, answer) => {
                drop(answer.send(self.change_admins(&change, passphrase).await));
            }
        }
    }

    async fn revoke(
        &mut self,
        terms: RevokeTerms,
        passphrase: Option<Zeroizing<String>>,
        answer: Answer<Revocation>,
    ) {
        match self.sign_revocation(terms, passphrase).await {
            Ok((revoked, news)) if !self.has_errand_left() => {
                // It holds and spreads all the same; who took it is not known.
                self.tell(news);
                drop(answer.send(Ok(Revocation { revoked, confirmed: Vec::new(), later: Vec::new() })));
            }
            Ok((revoked, news)) => {
                let now_ms = wall_ms();
                let members = self.state.roster_view(now_ms).map(|view| view.members).unwrap_or_default();
                let me = self.state.me.id();
                let members: Vec<NodeId> = members.into_keys().filter(|node| *node != me).collect();
                let network = self.network.clone();
                let peers = network.peers().borrow().clone();
                self.send_out("revocation", async move {
                    let told = members.iter().filter(|node| peers.is_up(node)).map(|node| {
                        let (network, news) = (network.clone(), news.clone());
                        async move {
                            let told = network.request(*node, Request::Roster(news));
                            let told = tokio::time::timeout(CONFIRM, told).await;
                            matches!(told, Ok(Ok(Response::Done(_)))).then_some(*node)
                        }
                    });
                    let confirmed: Vec<NodeId> = join_all(told).await.into_iter().flatten().collect();
                    let later = members.into_iter().filter(|node| !confirmed.contains(node)).collect();
                    drop(answer.send(Ok(Revocation { revoked, confirmed, later })));
                    Returned::Nothing
                });
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    async fn sign_revocation(
        &mut self,
        terms: RevokeTerms,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<(super::super::revoking::RevokedHere, RosterDiff), TrustError> {
        // First whether there is anything to revoke: nobody types a passphrase for nothing.
        match self.state.clone().revoke(&terms, wall_ms()) {
            Ok(_) | Err(CannotRevoke::Locked) => {}
            Err(cannot) => return Err(cannot.into()),
        }
        if let Opened::Foreign = self.open_studio_admin(passphrase).await? {
            return Err(CannotRevoke::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let (mut step, revoked) = next.revoke(&terms, wall_ms())?;
        let news = std::mem::take(&mut step.news);
        self.keep(next, step).await?;
        tracing::info!(studio = %revoked.studio, node = ?revoked.node.map(|node| node.short()), "revoked");
        Ok((revoked, news))
    }

    async fn block(&mut self, terms: &BlockTerms) -> Result<Blocked, TrustError> {
        let mut next = self.state.clone();
        let (step, blocked) = next.block(terms, wall_ms())?;
        self.keep(next, step).await?;
        Ok(blocked)
    }

    /// A missing key file is not an error here: another machine has the key.
    async fn open_studio_admin(
        &mut self,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Opened, KeysError> {
        match self.open_admin(passphrase).await {
            Err(KeysError::NoAdminKey { .. }) => Ok(Opened::Foreign),
            opened => opened,
        }
    }

    async fn rotate(&mut self, passphrase: Option<Zeroizing<String>>) -> Result<RotateOutcome, TrustError> {
        let dir = self.config.dir.clone();
        if self.state.roster().is_none() {
            return Err(CannotRotate::NoPool.into());
        }
        let next_keys = self.tasks.blocking(move || keys::next_keys(&dir)).await;
        let next_keys = next_keys.map_err(|_| TrustError::Stopping)??;
        let request = self.state.ask_rotation(&next_keys.node, next_keys.kem.public(), wall_ms())?;
        let new = request.rotated.rotation.new.node();
        if let Opened::Foreign = self.open_studio_admin(passphrase).await? {
            return Ok(RotateOutcome::Requested { code: request.to_code(), new });
        }
        let mut next = self.state.clone();
        let (step, _) = next.countersign(&request, wall_ms())?;
        self.keep(next, step).await?;
        self.follow_rotation().await;
        Ok(RotateOutcome::Switching { new })
    }

    async fn countersign(
        &mut self,
        code: &str,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<Countersigned, TrustError> {
        let request = RotationRequest::from_code(code).map_err(CannotRotate::from)?;
        match self.state.clone().countersign(&request, wall_ms()) {
            Ok(_) | Err(CannotRotate::Locked) => {}
            Err(cannot) => return Err(cannot.into()),
        }
        if let Opened::Foreign = self.open_studio_admin(passphrase).await? {
            return Err(CannotRotate::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let (step, done) = next.countersign(&request, wall_ms())?;
        self.keep(next, step).await?;
        Ok(done)
    }

    /// Once an admin has countersigned this node's new key: decides for it on disk, and has the node restarted as soon
    /// as everybody was told.
    pub(super) async fn follow_rotation(&mut self) {
        let Some(next) = self.state.own_successor() else { return };
        let now = Instant::now();
        if self.switching.is_none() {
            let dir = self.config.dir.clone();
            match self.tasks.blocking(move || keys::commit_next(&dir, &next)).await {
                Ok(Ok(true)) => {
                    tracing::info!(node = %next.node(), "this node goes on under its new key, and restarts in place");
                    self.switching = Some(now);
                }
                Ok(Ok(false)) => self.state.warn(
                    "this node's key was exchanged for one that is not on this machine: another copy of its data \
                     directory asked for it",
                ),
                Ok(Err(error)) => tracing::error!(%error, "the new key cannot be put in place"),
                Err(_) => {}
            }
            return;
        }
        let waited = self.switching.map_or(Duration::ZERO, |since| now.duration_since(since));
        if self.errands == 0 || waited >= LAST_WORDS {
            self.config.restart.cancel();
        }
    }

    async fn admins(&self) -> Result<AdminKeys, TrustError> {
        let file = self.admin_file.clone();
        let read = self.tasks.blocking(move || file.read()).await.map_err(|_| TrustError::Stopping)??;
        let on_file = read.map(|file| (file.public(), matches!(file, keyfile::KeyFile::Sealed(_))));
        Ok(AdminKeys {
            studio: self.state.own_studio(),
            keys: self.state.admin_views(on_file.map(|(key, _)| key)),
            path: self.admin_file.path().to_owned(),
            on_file,
        })
    }

    async fn new_admin(&mut self, protection: Protection) -> Result<Installed, TrustError> {
        let path = self.admin_file.path().to_owned();
        let file = self.admin_file.clone();
        let made = self.tasks.blocking(move || match file.public()? {
            Some(key) => Ok(Err(key)),
            None => file.unlock_or_create(&protection).map(|key| Ok(key.public())),
        });
        let made: Result<_, KeysError> = made.await.map_err(|_| TrustError::Stopping)?;
        match made? {
            Ok(key) => {
                self.sealed = self.is_sealed().await;
                Ok(Installed { key, path, aside: None })
            }
            Err(key) => Err(CannotInstall::Exists { key, path }.into()),
        }
    }

    async fn recover(
        &mut self,
        code: Zeroizing<String>,
        protection: Protection,
    ) -> Result<Installed, TrustError> {
        let key = keyfile::from_recovery_code(&code).map_err(CannotInstall::from)?;
        if self.state.circle.is_none() {
            return Err(CannotInstall::NoPool.into());
        }
        if !self.state.is_own_admin(&key.public()) {
            return Err(CannotInstall::NotAnAdmin { studio: self.state.own_studio() }.into());
        }
        let (file, installed) = (self.admin_file.clone(), key.clone());
        let aside = self.tasks.blocking(move || file.install(&installed, &protection)).await;
        let aside = aside.map_err(|_| TrustError::Stopping)??;
        self.sealed = self.is_sealed().await;
        // An open key is in memory from the start, a sealed one while it has work.
        self.state.admin = (!self.sealed || self.state.needs_admin(wall_ms())).then(|| key.clone());
        Ok(Installed { key: key.public(), path: self.admin_file.path().to_owned(), aside })
    }

    async fn change_admins(
        &mut self,
        change: &AdminChange,
        passphrase: Option<Zeroizing<String>>,
    ) -> Result<AdminsChanged, TrustError> {
        match self.state.clone().change_admins(change, wall_ms()) {
            Ok(_) | Err(CannotChangeAdmins::Locked) => {}
            Err(cannot) => return Err(cannot.into()),
        }
        if let Opened::Foreign = self.open_studio_admin(passphrase).await? {
            return Err(CannotChangeAdmins::NoAdminKey { studio: self.state.own_studio() }.into());
        }
        let mut next = self.state.clone();
        let (step, changed) = next.change_admins(change, wall_ms())?;
        self.keep(next, step).await?;
        Ok(changed)
    }
}
