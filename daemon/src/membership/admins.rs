//! PURE: the admin keys of this node's own studio: which there are, adding one, taking one off the settings.

use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::roster::{ADMIN_LIMIT, BadSettings, SignedSettings};

use super::state::{State, Step};
use super::view::{ProposalView, proposal_view};

/// An admin key of the own studio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminView {
    pub key: PublicKey,
    /// It is the one in this machine's key file, or in memory.
    pub here: bool,
    /// The recovery code that `init` printed.
    pub recovery: bool,
    /// Why it was revoked, if it was.
    pub revoked: Option<String>,
}

/// A change to the own studio's admin keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminChange {
    Add(PublicKey),
    /// A key as `admin show` has it, or its beginning.
    Remove(String),
}

/// Why the admin keys stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotChangeAdmins {
    #[error("this node is in no pool; run init or join first")]
    NoPool,
    #[error("that is no usable key; copy the whole line that scenemesh admin new printed")]
    WeakKey,
    #[error("{studio} has that admin key already; scenemesh admin show lists them")]
    Known { studio: String },
    #[error("that key was revoked, which is for ever; make a new one with scenemesh admin new")]
    Revoked,
    #[error("that key is an admin of {studio}; a key belongs to one studio only")]
    Taken { studio: String },
    #[error("a studio has {ADMIN_LIMIT} admin keys at most; take one off first: scenemesh admin remove KEY")]
    TooMany,
    #[error("{studio} has no admin key {given:?}; scenemesh admin show lists them")]
    NoSuchAdmin { given: String, studio: String },
    #[error(
        "that is the only admin key of {studio}: without it nobody could sign for the studio again; add a second one first: scenemesh admin add KEY"
    )]
    OnlyAdmin { studio: String },
    #[error("an admin key does not take itself off; use another one, on its own machine")]
    ItsOwnSigner,
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("this node does not hold an admin key of {studio}; do this on the machine that does")]
    NoAdminKey { studio: String },
    #[error("the settings do not take the change: {0}; look at scenemesh pool")]
    Settings(#[from] BadSettings),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminsChanged {
    pub key: PublicKey,
    pub proposal: ProposalView,
    /// The settings have it now; else other studios have to approve.
    pub decided: bool,
    /// Records that were signed again, because the key that goes had signed them.
    pub resigned: usize,
}

impl State {
    /// The recovery code's key, where the own studio founded the pool: the second key of the first settings.
    fn recovery_key(&self) -> Option<PublicKey> {
        let (roster, place) = (self.roster()?, self.place.as_ref()?);
        let genesis = roster.chain().links().next()?.settings().ok()?;
        genesis.studio(&place.studio)?.admins.get(1).copied()
    }

    /// The own studio's admin keys, in the order of the settings. `on_file` is the one in the key file.
    pub(super) fn admin_views(&self, on_file: Option<PublicKey>) -> Vec<AdminView> {
        let (Some(roster), Some(place)) = (self.roster(), &self.place) else { return Vec::new() };
        let recovery = self.recovery_key();
        let here = |key: &PublicKey| {
            on_file == Some(*key) || self.admin.as_ref().is_some_and(|admin| admin.public() == *key)
        };
        let view = |key: &PublicKey| AdminView {
            key: *key,
            here: here(key),
            recovery: recovery == Some(*key),
            revoked: roster.revocation(key).map(|gone| gone.reason.clone()),
        };
        let studio = roster.settings().studio(&place.studio);
        studio.map(|studio| studio.admins.iter().map(view).collect()).unwrap_or_default()
    }

    /// Changes the settings, or proposes to, with the admin key that is unlocked here.
    pub(super) fn change_admins(
        &mut self,
        change: &AdminChange,
        now_ms: u64,
    ) -> Result<(Step, AdminsChanged), CannotChangeAdmins> {
        let roster = self.roster().ok_or(CannotChangeAdmins::NoPool)?.clone();
        let own = self.place.as_ref().ok_or(CannotChangeAdmins::NoPool)?.studio;
        let studio = self.own_studio();
        let mut settings = roster.settings().next(now_ms);
        let no_pool = || CannotChangeAdmins::NoPool;
        let admins = settings.studios.iter_mut().find(|of| of.id == own).map(|of| &mut of.admins);
        let admins = admins.ok_or_else(no_pool)?;
        let key = match change {
            AdminChange::Add(key) => {
                if !key.is_sound() {
                    return Err(CannotChangeAdmins::WeakKey);
                }
                if roster.revocation(key).is_some() {
                    return Err(CannotChangeAdmins::Revoked);
                }
                match roster.settings().studio_of_admin(key) {
                    Some(of) if of.id == own => return Err(CannotChangeAdmins::Known { studio }),
                    Some(of) => return Err(CannotChangeAdmins::Taken { studio: of.name.clone() }),
                    None if admins.len() >= ADMIN_LIMIT => return Err(CannotChangeAdmins::TooMany),
                    None => admins.push(*key),
                }
                *key
            }
            AdminChange::Remove(given) => {
                let found = self.find_admin(given);
                let given = given.chars().take(80).collect();
                let key = found.ok_or(CannotChangeAdmins::NoSuchAdmin { given, studio: studio.clone() })?;
                if self.own_admins().iter().all(|admin| *admin == key) {
                    return Err(CannotChangeAdmins::OnlyAdmin { studio });
                }
                admins.retain(|admin| *admin != key);
                key
            }
        };
        let Some(admin) = self.admin_of().map(|(admin, _)| admin.clone()) else {
            return Err(CannotChangeAdmins::Locked);
        };
        if matches!(change, AdminChange::Remove(_)) && admin.public() == key {
            return Err(CannotChangeAdmins::ItsOwnSigner);
        }
        let mut step = Step::default();
        let resigned = match change {
            AdminChange::Add(_) => 0,
            AdminChange::Remove(_) => self.sign_again(&key, &admin, now_ms, &mut step),
        };
        let Some(circle) = &mut self.circle else { return Err(CannotChangeAdmins::NoPool) };
        let signed = SignedSettings::new(&settings, &admin);
        let (learnt, proposal) = circle.propose(signed)?;
        let proposal = proposal_view(circle, &proposal, &own);
        step.learnt(learnt);
        let decided = circle.decide();
        let in_force =
            decided.changes.iter().any(|change| matches!(change, super::roster::Change::Settings(_)));
        step.learnt(decided);
        Ok((step, AdminsChanged { key, proposal, decided: in_force, resigned }))
    }
}
