//! PURE: letting others in. Invites and their redemption, and agreement to new studios.

use std::time::Duration;

use scenemesh_protocol::ids::{NodeId, PoolId, StudioId};
use scenemesh_protocol::invite::{
    Invite, InviteSecret, JoinNeeds, JoinRefusal, JoinReply, JoinRequest, Joining,
};
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::messages::{Decline, PorchResponse};
use scenemesh_protocol::roster::{Consent, Member, Roles, Roster, Settings, SignedRecord, Studio, is_name};
use scenemesh_protocol::signed::Signed;
use tokio::time::Instant;

use super::invites::{Claimable, Invited, NoInvite, Redeemed, Refusal};
use super::roster::{Agreement, Circle, Proposal, conflict};
use super::state::{Fact, State, Step, declined};
use super::view::{ProposalView, proposal_view};

/// What to invite for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteTerms {
    /// Roles of a machine of this node's own studio; a new studio's first machine has all.
    pub roles: Roles,
    /// The studio that the joiner founds, instead of joining this node's own.
    pub new_studio: Option<String>,
    pub expires: Duration,
}

/// Why there is no invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotInvite {
    #[error("this node is in no pool; run init or join first")]
    NoPool,
    #[error("this node is no member of its pool now; see scenemesh pool")]
    NotMember,
    #[error(
        "this pool is solo and opens no port that anybody could knock at; scenemesh leave, then init without --solo, makes one that others can join"
    )]
    Solo,
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("this node does not hold an admin key of {studio}; invite from the machine that does")]
    NoAdminKey { studio: String },
    #[error(
        "{0:?} cannot be a studio's name: it is empty, too long or has control characters; choose another"
    )]
    BadName(String),
    #[error("the pool has a studio named {0} already; choose another name with --new-studio")]
    StudioExists(String),
    #[error("a member needs at least one role; give --role with submit, render or keep")]
    NoRole,
    #[error(
        "the porch is closed, so that nobody could knock; check `porch` in the configuration and the log"
    )]
    NoPorch,
    #[error(transparent)]
    Refused(#[from] NoInvite),
}

/// Why a proposal was not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotApprove {
    #[error("this node is in no pool; run init or join first")]
    NoPool,
    #[error("nothing waits for approval; scenemesh pool shows the changes that do")]
    Nothing,
    #[error("no proposal matches {given:?}; pending: {pending}")]
    Unknown { given: String, pending: String },
    #[error("more than one proposal matches; say which: {pending}")]
    Ambiguous { pending: String },
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("this node does not hold an admin key of {studio}; approve on the machine that does")]
    NoAdminKey { studio: String },
}

/// What came of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The proposal as it stood when the last signature came.
    pub proposal: ProposalView,
    /// The settings have it now.
    pub decided: bool,
}

impl State {
    /// Name of this node's own studio.
    pub(super) fn own_studio(&self) -> String {
        match (self.roster(), &self.place) {
            (Some(roster), Some(place)) => super::rights::studio_name(roster, &place.studio),
            _ => "its studio".into(),
        }
    }

    /// Whether the settings name `key` as an admin of this node's studio, and nobody revoked it.
    pub(super) fn is_own_admin(&self, key: &PublicKey) -> bool {
        let own = self.place.as_ref().map(|place| place.studio);
        self.roster()
            .filter(|roster| roster.revocation(key).is_none())
            .and_then(|roster| roster.settings().studio_of_admin(key))
            .is_some_and(|studio| Some(studio.id) == own)
    }

    /// Makes an invite. `porch` is where this node's porch listens, best first.
    pub(super) fn invite(
        &mut self,
        terms: InviteTerms,
        secret: InviteSecret,
        porch: &[String],
        now_ms: u64,
    ) -> Result<(Step, Invite, u64), CannotInvite> {
        let roster = self.roster().ok_or(CannotInvite::NoPool)?.clone();
        if self.solo {
            return Err(CannotInvite::Solo);
        }
        if !self.is_member(now_ms) {
            return Err(CannotInvite::NotMember);
        }
        let Some((_, studio)) = self.admin_of() else { return Err(CannotInvite::Locked) };
        if terms.roles == (Roles { submit: false, render: false, keep: false }) {
            return Err(CannotInvite::NoRole);
        }
        if let Some(name) = &terms.new_studio {
            if !is_name(name) {
                return Err(CannotInvite::BadName(name.clone()));
            }
            if roster.settings().studios.iter().any(|studio| studio.name == *name) {
                return Err(CannotInvite::StudioExists(name.clone()));
            }
        }
        self.invites.check_new(terms.expires, now_ms)?;
        let invite = Invite::new(roster.pool(), self.me.id(), studio, secret, porch);
        if invite.addresses().is_empty() {
            return Err(CannotInvite::NoPorch);
        }
        let expires_ms = now_ms + u64::try_from(terms.expires.as_millis()).unwrap_or(u64::MAX / 2);
        let invited = Invited {
            key: invite.key().public(),
            roles: terms.roles,
            new_studio: terms.new_studio,
            created_ms: now_ms,
            expires_ms,
            redeemed: None,
        };
        self.invites.put(invited.clone());
        Ok((Step { facts: vec![Fact::Invited(invited)], ..Step::default() }, invite, expires_ms))
    }

    /// Somebody wants in.
    pub(super) fn on_join(
        &mut self,
        from: NodeId,
        address: &str,
        request: &JoinRequest,
        now: Instant,
        now_ms: u64,
    ) -> (Step, PorchResponse) {
        if let Some(wait) = self.tries.wait(address, now) {
            let minutes = wait.as_secs().div_ceil(60);
            let words = format!("too many failed tries from this address; try again in {minutes} min");
            return (Step::default(), declined(Decline::Busy, words).into());
        }
        let mut step = Step::default();
        let reply = match self.redeem(from, request, now_ms, &mut step) {
            Ok(reply) => reply,
            Err(refusal) => {
                // Whoever proved that it holds the code is not guessing, even when the code is of no use any more.
                if matches!(refusal.reason, JoinRefusal::UnknownInvite | JoinRefusal::BadRequest) {
                    self.tries.failed(address, now);
                }
                refused(refusal)
            }
        };
        (step, reply.into())
    }

    fn redeem(
        &mut self,
        from: NodeId,
        request: &JoinRequest,
        now_ms: u64,
        step: &mut Step,
    ) -> Result<JoinReply, Refusal> {
        let roster = self.roster().cloned().ok_or_else(Refusal::unknown)?;
        let key = request.claimed_invite();
        let invited = self.invites.get(&key).ok_or_else(Refusal::unknown)?;
        let joining = request
            .verify(&invited.key, roster.pool(), self.me.id())
            .map_err(|bad| Refusal::new(JoinRefusal::BadRequest, bad.to_string()))?;
        if joining.node.node() != from {
            return Err(Refusal::new(JoinRefusal::BadRequest, "the request is another node's"));
        }
        if std::iter::once(&joining.node).chain(&joining.admin).any(|key| roster.revocation(key).is_some()) {
            let words = "this key was revoked in the pool; join with a new one from an empty data directory";
            return Err(Refusal::new(JoinRefusal::RevokedKey, words));
        }
        let invited = match self.invites.claim(&key, &from, now_ms)? {
            Claimable::Again(invited, by) => return self.answer_again(&invited, &by, &joining, now_ms),
            Claimable::Fresh(invited) => invited,
        };
        match (&invited.new_studio, joining.admin) {
            (Some(name), Some(admin)) => {
                let name = name.clone();
                self.found_for(invited, &joining, Studio::found(&name, admin), now_ms, step)
            }
            (None, None) => self.admit(invited, &joining, now_ms, step),
            (Some(name), None) => Err(Refusal::new(
                JoinRefusal::AdminKey,
                format!(
                    "this invite founds the studio {name}: its admin key is made on the joining machine; give \
                     --passphrase-file or --no-passphrase"
                ),
            )),
            (None, Some(_)) => Err(Refusal::new(
                JoinRefusal::AdminKey,
                "this invite is for a machine of an existing studio and takes no admin key",
            )),
        }
    }

    /// Admits a machine to this node's own studio.
    fn admit(
        &mut self,
        mut invited: Invited,
        joining: &Joining,
        now_ms: u64,
        step: &mut Step,
    ) -> Result<JoinReply, Refusal> {
        let Some((admin, studio)) = self.admin_of().map(|(key, studio)| (key.clone(), studio)) else {
            return Ok(self.locked());
        };
        let Some(circle) = &mut self.circle else { return Err(Refusal::unknown()) };
        let node = joining.node.node();
        check_name(circle.roster(), &studio, &node, &joining.name, now_ms)?;
        let before = circle.record_of(&node).and_then(|record| match record {
            SignedRecord::Member(signed) => signed.verify().ok(),
            SignedRecord::Revoked(_) | SignedRecord::Rotated(_) => None,
        });
        if let Some(other) = before.as_ref().filter(|member| member.studio != studio) {
            let name = super::rights::studio_name(circle.roster(), &other.studio);
            let words = format!("this node's key belongs to {name} already; join with a new data directory");
            return Err(Refusal::new(JoinRefusal::RevokedKey, words));
        }
        let pool = circle.roster().pool();
        let chosen = Consent { pool, studio, kem: joining.kem };
        let consent = joining.consent.filter(|consent| chosen.verify(&joining.node, consent).is_ok());
        let Some(consent) = consent else {
            let words = "the node does not say that it chose this studio; make a new invite";
            return Err(Refusal::new(JoinRefusal::BadRequest, words));
        };
        let member = Member {
            pool,
            studio,
            consent,
            node: joining.node,
            kem: joining.kem,
            name: joining.name.clone(),
            roles: invited.roles,
            version: before.map_or(1, |member| member.version + 1),
            issued_ms: now_ms,
            not_after_ms: None,
        };
        let learnt = circle.publish(&SignedRecord::Member(Signed::new(&member, &admin)));
        if circle.roster().member(&node, now_ms).is_none() {
            return Err(Refusal::new(JoinRefusal::BadRequest, "the roster is full"));
        }
        step.learnt(learnt);
        invited.redeemed = Some(Redeemed { node, founds: None, at_ms: now_ms });
        self.invites.put(invited.clone());
        step.facts.push(Fact::Invited(invited));
        Ok(self.admitted(&node))
    }

    /// Proposes the studio that a joiner founds.
    fn found_for(
        &mut self,
        mut invited: Invited,
        joining: &Joining,
        studio: Studio,
        now_ms: u64,
        step: &mut Step,
    ) -> Result<JoinReply, Refusal> {
        let Some(key) = self.admin_of().map(|(key, _)| key.clone()) else { return Ok(self.locked()) };
        let Some(circle) = &mut self.circle else { return Err(Refusal::unknown()) };
        if let Some(why) = conflict(circle.roster().settings(), &studio) {
            return Err(Refusal::new(JoinRefusal::NameTaken, why));
        }
        invited.redeemed =
            Some(Redeemed { node: joining.node.node(), founds: Some(studio.id), at_ms: now_ms });
        step.facts.push(Fact::Invited(invited.clone()));
        self.invites.put(invited);
        let id = studio.id;
        step.learnt(circle.agree(Agreement { studio, created_ms: now_ms, agreed_ms: now_ms }));
        step.learnt(circle.pursue(&key, now_ms));
        self.founding(id, &joining.node.node(), now_ms)
    }

    fn answer_again(
        &self,
        invited: &Invited,
        by: &Redeemed,
        joining: &Joining,
        now_ms: u64,
    ) -> Result<JoinReply, Refusal> {
        match (by.founds, &invited.new_studio, joining.admin) {
            (Some(id), Some(name), Some(admin)) if Studio::found(name, admin).id == id => {
                self.founding(id, &by.node, now_ms)
            }
            (None, None, None) => Ok(self.admitted(&by.node)),
            (Some(_), ..) => Err(Refusal::new(
                JoinRefusal::AdminKey,
                "this invite was used with another admin key; use that data directory, or ask for a new invite",
            )),
            _ => Err(Refusal::new(JoinRefusal::AdminKey, "this invite takes no admin key")),
        }
    }

    /// How far the founding of a studio is.
    fn founding(&self, id: StudioId, node: &NodeId, now_ms: u64) -> Result<JoinReply, Refusal> {
        let Some(circle) = &self.circle else { return Err(Refusal::unknown()) };
        let settings = circle.roster().settings();
        if settings.studio(&id).is_some() {
            return Ok(self.admitted(node));
        }
        let Some(agreement) = circle.open_agreements(now_ms).find(|open| open.studio.id == id) else {
            return Err(Refusal::new(
                JoinRefusal::NameTaken,
                "the studio did not get in: another has its name, or nobody approved it in time; ask for a new invite",
            ));
        };
        let proposal = circle
            .proposals()
            .find(|proposal| proposal.additions(settings) == Some(std::slice::from_ref(&agreement.studio)));
        let Some(proposal) = proposal else {
            return Ok(if self.admin_of().is_some() {
                crowded(settings, &agreement.studio.name)
            } else {
                self.locked()
            });
        };
        let signers = circle.signers(proposal);
        let missing: Vec<_> = settings
            .studios
            .iter()
            .filter(|studio| !signers.contains(&studio.id))
            .map(|studio| studio.name.as_str())
            .collect();
        let (have, need) = (count(signers.len()), count(settings.quorum()));
        let words = format!(
            "{} is proposed; {have} of {need} studios signed; an admin of {} has to run: scenemesh pool approve {}",
            agreement.studio.name,
            missing.join(" or "),
            agreement.studio.name,
        );
        Ok(JoinReply::Pending { needs: JoinNeeds::Approvals { have, need }, words })
    }

    fn locked(&self) -> JoinReply {
        let words = format!(
            "the invite is locked: the inviting node was restarted and needs the admin key of {}; there, run: \
             scenemesh invite --unlock",
            self.own_studio()
        );
        JoinReply::Pending { needs: JoinNeeds::Unlock, words }
    }

    fn admitted(&self, node: &NodeId) -> JoinReply {
        let Some(circle) = &self.circle else { return refused(Refusal::unknown()) };
        let everything = circle.everything();
        let first: Vec<_> = [*node, self.me.id()].iter().filter_map(|node| circle.record_of(node)).collect();
        let rest = everything.records.into_iter().filter(|record| !first.contains(record));
        let records = first.iter().cloned().chain(rest).collect();
        // Where this node listens is the actor's to add.
        JoinReply::Admitted { settings: everything.settings, records, addresses: Vec::new() }
    }

    /// This node's admin approves a proposal: by studio name, or by the beginning of a studio's id or a proposal's hash.
    pub(super) fn approve(
        &mut self,
        which: Option<&str>,
        now_ms: u64,
    ) -> Result<(Step, Approved), CannotApprove> {
        let circle = self.circle.as_ref().ok_or(CannotApprove::NoPool)?;
        let chosen = choose(circle, which)?.clone();
        let (key, own) = self.admin_of().map(|(key, own)| (key.clone(), own)).ok_or(CannotApprove::Locked)?;
        let Some(circle) = &mut self.circle else { return Err(CannotApprove::NoPool) };
        let mut proposal = proposal_view(circle, &chosen, &own);
        let settings = circle.roster().settings().clone();
        let mut step = Step::default();
        step.learnt(match chosen.additions(&settings) {
            Some([studio]) => {
                let created_ms = chosen.settings.created_ms;
                let agreement = Agreement { studio: studio.clone(), created_ms, agreed_ms: now_ms };
                let mut learnt = circle.agree(agreement);
                learnt.and(circle.pursue(&key, now_ms));
                learnt
            }
            _ => circle.sign(&proposal.id, &key),
        });
        let decided = circle.roster().settings().epoch > settings.epoch;
        if !proposal.mine {
            proposal.mine = true;
            proposal.signed_by.push(super::rights::studio_name(circle.roster(), &own));
        }
        Ok((step, Approved { proposal, decided }))
    }
}

/// The one proposal that is meant: by the name of the studio it adds, else by the beginning of an id.
fn choose<'a>(circle: &'a Circle, which: Option<&str>) -> Result<&'a Proposal, CannotApprove> {
    let settings = circle.roster().settings();
    let all: Vec<_> = circle.proposals().collect();
    if all.is_empty() {
        return Err(CannotApprove::Nothing);
    }
    let pending: Vec<_> = all
        .iter()
        .map(|proposal| format!("{} ({})", proposal.signed.hash().short(), describe(proposal, settings)))
        .collect();
    let pending = pending.join(", ");
    let added = |proposal: &&&Proposal, fits: &dyn Fn(&Studio) -> bool| {
        proposal.additions(settings).is_some_and(|studios| studios.iter().any(fits))
    };
    let mut found: Vec<&Proposal> = match which {
        None => all.clone(),
        Some(given) => {
            all.iter().filter(|proposal| added(proposal, &|studio| studio.name == given)).copied().collect()
        }
    };
    if let (Some(given), true) = (which, found.is_empty()) {
        let by_id = |proposal: &&&Proposal| {
            proposal.signed.hash().to_string().starts_with(given)
                || added(proposal, &|studio| studio.id.to_string().starts_with(given))
        };
        found = all.iter().filter(by_id).copied().collect();
    }
    match found[..] {
        [only] => Ok(only),
        [] => Err(CannotApprove::Unknown { given: which.unwrap_or_default().to_owned(), pending }),
        _ => Err(CannotApprove::Ambiguous { pending }),
    }
}

/// What a proposal would change, for people.
pub(super) fn describe(proposal: &Proposal, before: &scenemesh_protocol::roster::Settings) -> String {
    match proposal.additions(before) {
        Some([only]) => format!("adds the studio {}", only.name),
        Some(more) => {
            let names: Vec<_> = more.iter().map(|studio| studio.name.as_str()).collect();
            format!("adds the studios {}", names.join(", "))
        }
        None => describe_admins(proposal, before).unwrap_or_else(|| "changes settings or admins".into()),
    }
}

/// A change of one studio's admin keys and of nothing else, for people.
fn describe_admins(proposal: &Proposal, before: &scenemesh_protocol::roster::Settings) -> Option<String> {
    let next = &proposal.settings;
    if next.studios.len() != before.studios.len() {
        return None;
    }
    let mut changed = before.studios.iter().zip(&next.studios).filter(|(old, new)| old != new);
    let (old, new) = changed.next()?;
    let alone = changed.next().is_none() && Studio { admins: old.admins.clone(), ..new.clone() } == *old;
    let rest = scenemesh_protocol::roster::Settings { studios: before.studios.clone(), ..next.clone() };
    if !alone || rest != before.next(next.created_ms) {
        return None;
    }
    let added = new.admins.iter().filter(|key| !old.admins.contains(key)).map(|key| ("adds", key));
    let gone = old.admins.iter().filter(|key| !new.admins.contains(key)).map(|key| ("takes off", key));
    let words = added.chain(gone);
    let words = words.map(|(does, key)| format!("{does} the admin key {}", super::revoking::short_key(key)));
    Some(format!("{} of {}", words.collect::<Vec<_>>().join(" and "), new.name))
}

/// Names of nodes are unique in their studio.
fn check_name(
    roster: &Roster,
    studio: &StudioId,
    node: &NodeId,
    name: &str,
    now_ms: u64,
) -> Result<(), Refusal> {
    let taken = |name: &str| {
        roster
            .members(now_ms)
            .any(|member| member.studio == *studio && member.node.node() != *node && member.name == name)
    };
    if !taken(name) {
        return Ok(());
    }
    let free = (2..).map(|n: u32| format!("{name}-{n}")).find(|name| !taken(name)).unwrap_or_default();
    let studio = super::rights::studio_name(roster, studio);
    let words = format!("{studio} has a node named {name} already; join with --name {free}");
    Err(Refusal::new(JoinRefusal::NameTaken, words))
}

fn refused(refusal: Refusal) -> JoinReply {
    JoinReply::Refused { reason: refusal.reason, words: refusal.words }
}

/// The answer to a joiner whose studio could not be proposed yet, for the number of changes that wait.
fn crowded(settings: &Settings, studio: &str) -> JoinReply {
    let words = format!(
        "{studio} is not proposed yet: too many changes of the pool wait for approval; let the admins run: scenemesh pool approve"
    );
    JoinReply::Pending { needs: JoinNeeds::Approvals { have: 0, need: count(settings.quorum()) }, words }
}

fn count(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// The short form of a pool's id, in groups that can be read aloud.
pub(super) fn pool_words(pool: &PoolId) -> String {
    let text = pool.to_string();
    format!("{}-{}-{}-{}", &text[..4], &text[4..8], &text[8..12], &text[12..16])
}
