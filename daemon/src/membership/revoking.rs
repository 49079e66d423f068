//! PURE: taking a node or an admin key out of this node's own studio, for ever.

use scenemesh_protocol::ids::{NodeId, StudioId};
use scenemesh_protocol::keys::{PublicKey, SecretKey};
use scenemesh_protocol::roster::{Member, Revoked, Roster, SignedRecord};
use scenemesh_protocol::signed::{Signed, Verified};

use super::blocks::{REASON_LIMIT, is_reason};
use super::rights::studio_name;
use super::state::{State, Step};

/// Shortest end of an id that names a node or a key.
const SHORTEST: usize = 6;

/// No member is meant by this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchMember {
    #[error("the pool has no node {given:?}; scenemesh pool lists them")]
    None { given: String },
    #[error("more than one node is meant by {given:?}; give more of its id: {ids}")]
    Ambiguous { given: String, ids: String },
}

/// Whom to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A member by name, or by the end of its id.
    Node(String),
    /// An admin key of the own studio, or its beginning.
    Admin(String),
}

/// What to revoke, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeTerms {
    pub target: Target,
    pub reason: String,
    /// Of an admin key: let fall what it signed, instead of signing it again.
    pub void: bool,
}

/// Why nothing was revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRevoke {
    #[error("this node is in no pool; run init or join first")]
    NoPool,
    #[error(transparent)]
    NoSuch(#[from] NoSuchMember),
    #[error("{studio} has no admin key {given:?}; scenemesh admin show lists them")]
    NoSuchAdmin { given: String, studio: String },
    #[error(
        "{name} is of {studio}, and only its own admins can revoke it; keep it away from your machines with: scenemesh block {name}"
    )]
    OtherStudio { name: String, studio: String },
    #[error("that is this node; scenemesh leave takes it out of the pool")]
    ThisNode,
    #[error("{name} was revoked before: {reason}; a revocation is for ever")]
    Already { name: String, reason: String },
    #[error(
        "that is the only admin key of {studio}: without it nobody could sign for the studio again; add a second one first: scenemesh admin new on another machine, then scenemesh admin add KEY"
    )]
    OnlyAdmin { studio: String },
    #[error(
        "an admin key does not revoke itself; use another one: scenemesh admin recover brings the one on paper onto this machine"
    )]
    ItsOwnSigner,
    #[error("the reason is over {REASON_LIMIT} bytes or has control characters; write a shorter one")]
    BadReason,
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("this node does not hold an admin key of {studio}; revoke on the machine that does")]
    NoAdminKey { studio: String },
    #[error(
        "the roster is full and does not take the revocation; block the node meanwhile: scenemesh block NODE"
    )]
    Full,
}

/// What was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedHere {
    pub key: PublicKey,
    /// None for an admin key.
    pub node: Option<NodeId>,
    pub name: String,
    pub studio: String,
    /// Records that the remaining admin signed again.
    pub resigned: usize,
    /// Names of members that fell with the admin key that admitted them.
    pub fallen: Vec<String>,
}

/// The member that is meant: by its name, first among those of the own studio, else by its id or the end of it.
pub(super) fn find_member<'a>(
    roster: &'a Roster,
    given: &str,
    own: &StudioId,
) -> Result<&'a Verified<Member>, NoSuchMember> {
    let all: Vec<_> = roster.member_records().collect();
    let named = |own_only: bool| {
        let fits = |member: &&&Verified<Member>| member.name == given && (!own_only || member.studio == *own);
        let mut found: Vec<&Verified<Member>> = all.iter().filter(fits).copied().collect();
        // A name may have been given again after its machine was revoked.
        if found.len() > 1 {
            found.retain(|member| roster.revocation(&member.node).is_none());
        }
        found
    };
    let by_id = || {
        let fits = |member: &&&Verified<Member>| {
            let id = member.node.node().to_string();
            id == given || (given.len() >= SHORTEST && id.ends_with(given))
        };
        all.iter().filter(fits).copied().collect()
    };
    let found = [named(true), named(false), by_id()].into_iter().find(|found| !found.is_empty());
    match found.as_deref() {
        Some([only]) => Ok(only),
        Some(more) => {
            let ids: Vec<_> = more.iter().map(|member| member.node.node().to_string()).collect();
            Err(NoSuchMember::Ambiguous { given: shown(given), ids: ids.join(", ") })
        }
        None => Err(NoSuchMember::None { given: shown(given) }),
    }
}

/// What somebody typed, within bounds.
fn shown(given: &str) -> String {
    given.chars().take(80).collect()
}

impl State {
    /// The admin key of the own studio that is meant, whether it was revoked or not.
    pub(super) fn find_admin(&self, given: &str) -> Option<PublicKey> {
        let (roster, place) = (self.roster()?, self.place.as_ref()?);
        let given = given.to_ascii_lowercase();
        let admins = &roster.settings().studio(&place.studio)?.admins;
        let fits = |key: &&PublicKey| {
            let text = key.to_string();
            text == given || (given.len() >= SHORTEST && text.starts_with(&given))
        };
        let mut found = admins.iter().filter(fits);
        found.next().filter(|_| found.next().is_none()).copied()
    }

    /// Admin keys of the own studio that hold.
    pub(super) fn own_admins(&self) -> Vec<PublicKey> {
        let (Some(roster), Some(place)) = (self.roster(), &self.place) else { return Vec::new() };
        let admins = roster.settings().studio(&place.studio).map(|studio| studio.admins.clone());
        let holds = |key: &PublicKey| roster.revocation(key).is_none();
        admins.unwrap_or_default().into_iter().filter(holds).collect()
    }

    /// Revokes, with the admin key that is unlocked here.
    pub(super) fn revoke(
        &mut self,
        terms: &RevokeTerms,
        now_ms: u64,
    ) -> Result<(Step, RevokedHere), CannotRevoke> {
        let roster = self.roster().ok_or(CannotRevoke::NoPool)?.clone();
        let own = self.place.as_ref().ok_or(CannotRevoke::NoPool)?.studio;
        if !is_reason(&terms.reason) {
            return Err(CannotRevoke::BadReason);
        }
        let studio = self.own_studio();
        let (key, name) = match &terms.target {
            Target::Node(given) => {
                let member = find_member(&roster, given, &own)?;
                if member.node == self.me.node.public() {
                    return Err(CannotRevoke::ThisNode);
                }
                if member.studio != own {
                    let (name, studio) = (member.name.clone(), studio_name(&roster, &member.studio));
                    return Err(CannotRevoke::OtherStudio { name, studio });
                }
                (member.node, member.name.clone())
            }
            Target::Admin(given) => {
                let no_such = || CannotRevoke::NoSuchAdmin { given: shown(given), studio: studio.clone() };
                let key = self.find_admin(given).ok_or_else(no_such)?;
                (key, short_key(&key))
            }
        };
        if let Some(gone) = roster.revocation(&key) {
            return Err(CannotRevoke::Already { name, reason: gone.reason.clone() });
        }
        let is_admin = matches!(terms.target, Target::Admin(_));
        if is_admin && self.own_admins() == [key] {
            return Err(CannotRevoke::OnlyAdmin { studio });
        }
        let Some(admin) = self.admin_of().map(|(admin, _)| admin.clone()) else {
            return Err(CannotRevoke::Locked);
        };
        if admin.public() == key {
            return Err(CannotRevoke::ItsOwnSigner);
        }
        let mut step = Step::default();
        let resigned =
            if is_admin && !terms.void { self.sign_again(&key, &admin, now_ms, &mut step) } else { 0 };
        let signed_by = |member: &&Verified<Member>| is_admin && member.signer() == key;
        let Some(circle) = &mut self.circle else { return Err(CannotRevoke::NoPool) };
        let fallen = circle.roster().member_records().filter(signed_by).map(|member| member.name.clone());
        let fallen = fallen.collect();
        let gone = Revoked {
            pool: roster.pool(),
            studio: own,
            key,
            reason: terms.reason.clone(),
            issued_ms: now_ms,
        };
        step.learnt(circle.publish(&SignedRecord::Revoked(Signed::new(&gone, &admin))));
        if circle.roster().revocation(&key).is_none() {
            return Err(CannotRevoke::Full);
        }
        // What is sealed for the studio from now on is not for whoever is out.
        self.make_studio_key(&mut step, now_ms);
        let node = (!is_admin).then(|| key.node());
        Ok((step, RevokedHere { key, node, name, studio, resigned, fallen }))
    }

    /// Signs again, with another admin key, what `key` signed for the own studio; gives how many records.
    pub(super) fn sign_again(
        &mut self,
        key: &PublicKey,
        admin: &SecretKey,
        now_ms: u64,
        step: &mut Step,
    ) -> usize {
        let Some(circle) = &mut self.circle else { return 0 };
        let roster = circle.roster().clone();
        let is_admin = |of: &PublicKey| roster.settings().studio_of_admin(of).is_some();
        let members = roster.member_records().filter(|member| member.signer() == *key).map(|member| {
            let again =
                Member { version: member.version.saturating_add(1), issued_ms: now_ms, ..(**member).clone() };
            SignedRecord::Member(Signed::new(&again, admin))
        });
        let revoked = roster.revocations().filter(|gone| gone.signer() == *key && !is_admin(&gone.key));
        let revoked = revoked.map(|gone| SignedRecord::Revoked(Signed::new(&**gone, admin)));
        let rotated = roster.rotations().filter(|rotated| rotated.signer() == *key);
        let rotated = rotated.map(|rotated| SignedRecord::Rotated(Signed::new(&**rotated, admin)));
        let records: Vec<SignedRecord> = members.chain(revoked).chain(rotated).collect();
        records.iter().for_each(|record| step.learnt(circle.publish(record)));
        records.len()
    }
}

/// A key for people: enough of it to tell it from the few others.
pub(super) fn short_key(key: &PublicKey) -> String {
    key.to_string()[..16].to_owned()
}
