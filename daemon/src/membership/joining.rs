//! PURE: getting in. Founding a pool, asking to join one, being admitted, leaving.

use scenemesh_protocol::ids::PoolId;
use scenemesh_protocol::invite::{Invite, JoinNeeds, JoinRefusal, JoinReply, JoinRequest};
use scenemesh_protocol::keys::{PublicKey, SecretKey};
use scenemesh_protocol::messages::RosterDiff;
use scenemesh_protocol::roster::{
    BadSettings, Settings, SettingsChain, SignedRecord, SignedSettings, Studio, is_name,
};

use super::admission::pool_words;
use super::roster::{Circle, SKEW_MS};
use super::state::{Asked, Entered, Fact, Place, State, Step, Wait};

/// Why a pool was not founded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotFound {
    #[error("this node is in the pool {0} already; run leave first")]
    InPool(String),
    #[error("this node waits to join a pool; run leave to give that up first")]
    Joining,
    #[error(
        "{name:?} cannot be the name of a {of}: it is empty, over 64 bytes or has control characters; choose another"
    )]
    BadName { of: &'static str, name: String },
}

/// Why a join was not even tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotJoin {
    #[error("this node is a member of {0} already; scenemesh peers lists the others")]
    AlreadyMember(String),
    #[error("the invite is for the pool {invited}, and this node is in {mine}; run leave first")]
    OtherPool { invited: String, mine: String },
    #[error("this node made that invite itself; use it on another machine")]
    OwnInvite,
    #[error(
        "this node is solo, in the pool {0} that nobody else can join; scenemesh leave ends that, then join again"
    )]
    Solo(String),
    #[error(
        "{0:?} cannot be a node's name: it is empty, over 64 bytes or has control characters; choose another"
    )]
    BadName(String),
}

/// An admission that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAdmission {
    #[error("no join is pending")]
    NotAsked,
    #[error("the settings do not verify: {0}")]
    Settings(#[from] BadSettings),
    #[error("the settings are those of the pool {}, the invite is for {}", pool_words(.got), pool_words(.invited))]
    OtherPool { got: PoolId, invited: PoolId },
    #[error("the settings do not have this node's studio")]
    NoStudio,
    #[error("no record in it makes this node a member")]
    NoRecord,
}

/// What came of asking to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    Joined(Joined),
    /// The node keeps asking by itself.
    Pending {
        needs: JoinNeeds,
        words: String,
    },
}

/// This node is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub pool: PoolId,
    pub pool_name: String,
    pub studio: String,
    pub name: String,
    pub epoch: u64,
    /// What the operator should know, for example that a clock is wrong.
    pub notes: Vec<String>,
}

impl State {
    fn no_pool(&self) -> Result<(), CannotFound> {
        match self.roster() {
            Some(roster) => Err(CannotFound::InPool(roster.settings().pool_name.clone())),
            None if self.asked.is_some() => Err(CannotFound::Joining),
            None => Ok(()),
        }
    }

    /// Checks what a pool would be founded with.
    pub(super) fn check_found(&self, pool: &str, studio: &str, name: &str) -> Result<(), CannotFound> {
        self.no_pool()?;
        match [("pool", pool), ("studio", studio), ("node", name)]
            .into_iter()
            .find(|(_, name)| !is_name(name))
        {
            Some((of, name)) => Err(CannotFound::BadName { of, name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Founds a pool with one studio, whose first machine this is. `recovery` becomes its second admin.
    pub(super) fn found(
        &mut self,
        settings: &Settings,
        name: &str,
        admin: &SecretKey,
        now_ms: u64,
    ) -> Result<Step, BadSettings> {
        let chain = SettingsChain::found(settings, admin)?;
        let mut step = Step::default();
        let studio = settings.studios[0].id;
        self.admin = Some(admin.clone());
        self.enter(chain, Place { studio, name: name.to_owned(), founder: true }, &mut step);
        self.pursue(&mut step, now_ms);
        Ok(step)
    }

    /// Settings of a new pool.
    pub(super) fn genesis(
        pool: &str,
        studio: &str,
        admin: PublicKey,
        recovery: Option<PublicKey>,
        now_ms: u64,
    ) -> Settings {
        let mut founder = Studio::found(studio, admin);
        founder.admins.extend(recovery);
        Settings::genesis(pool, founder, now_ms)
    }

    fn enter(&mut self, chain: SettingsChain, place: Place, step: &mut Step) {
        step.facts.push(Fact::Entered(Entered {
            studio: place.studio,
            name: place.name.clone(),
            founder: place.founder,
            settings: chain.links().cloned().collect(),
        }));
        self.circle = Some(Circle::new(chain));
        self.place = Some(place);
        self.wait = None;
    }

    /// Checks that an invite can be used here at all.
    pub(super) fn check_join(&self, invite: &Invite, name: &str, now_ms: u64) -> Result<(), CannotJoin> {
        if invite.inviter == self.me.id() {
            return Err(CannotJoin::OwnInvite);
        }
        if !is_name(name) {
            return Err(CannotJoin::BadName(name.to_owned()));
        }
        let Some(roster) = self.roster() else { return Ok(()) };
        let mine = roster.settings().pool_name.clone();
        if self.solo {
            return Err(CannotJoin::Solo(mine));
        }
        if roster.pool() == invite.pool {
            // Whoever was cut off may come back with a new invite.
            return if self.is_member(now_ms) { Err(CannotJoin::AlreadyMember(mine)) } else { Ok(()) };
        }
        let mine = format!("{mine} ({})", pool_words(&roster.pool()));
        Err(CannotJoin::OtherPool { invited: pool_words(&invite.pool), mine })
    }

    /// An inviter answered. `unlocked` is the new studio's admin key, if this join founds one.
    pub(super) fn on_join_reply(
        &mut self,
        asked: Asked,
        unlocked: Option<SecretKey>,
        reply: JoinReply,
        now_ms: u64,
    ) -> (Step, Result<JoinOutcome, JoinRefused>) {
        let mut step = Step::default();
        let answer = match reply {
            JoinReply::Admitted { settings, records, addresses: _ } => Ok((settings, records)),
            JoinReply::Pending { needs, words } => Err((needs, words)),
            JoinReply::Refused { reason, words } => {
                if self.circle.is_none() && self.asked.as_ref() == Some(&asked) {
                    (self.asked, self.wait) = (None, None);
                    step.facts.push(Fact::AskedInVain);
                }
                return (step, Err(JoinRefused { reason: Some(reason), words }));
            }
        };
        if let Some(roster) = self.roster().filter(|roster| roster.pool() != asked.pool) {
            // Another command was faster; the invite stays redeemed for this node's key.
            let words = format!("this node is in {} by now; run leave first", roster.settings().pool_name);
            return (step, Err(JoinRefused { reason: None, words }));
        }
        let before = self.clone();
        if self.asked.as_ref() != Some(&asked) {
            self.asked = Some(asked.clone());
            step.facts.push(Fact::Asked(asked));
        }
        if unlocked.is_some() {
            self.admin = unlocked;
        }
        match answer {
            Ok((settings, records)) => match self.on_admitted(settings, &records, now_ms, &mut step) {
                Ok(joined) => (step, Ok(JoinOutcome::Joined(joined))),
                Err(bad) => {
                    *self = before;
                    let words = format!("the inviter's answer does not hold: {bad}");
                    (Step::default(), Err(JoinRefused { reason: None, words }))
                }
            },
            Err((needs, words)) => {
                self.wait = Some(Wait { needs: Some(needs), words: words.clone() });
                (step, Ok(JoinOutcome::Pending { needs, words }))
            }
        }
    }

    /// What is pending turns out to be decided.
    pub(super) fn on_admitted(
        &mut self,
        settings: Vec<SignedSettings>,
        records: &[SignedRecord],
        now_ms: u64,
        step: &mut Step,
    ) -> Result<Joined, BadAdmission> {
        let asked = self.asked.clone().ok_or(BadAdmission::NotAsked)?;
        let chain = SettingsChain::verify(settings)?;
        if chain.pool() != asked.pool {
            return Err(BadAdmission::OtherPool { got: chain.pool(), invited: asked.pool });
        }
        if self.circle.is_some() {
            // Cut off by a fork, and back: what we hold stays, the rest is learnt.
            let diff = RosterDiff {
                settings: chain.links().cloned().collect(),
                records: records.to_vec(),
                proposals: Vec::new(),
            };
            self.on_news(asked.inviter, diff, now_ms, step);
            return self.joined(now_ms).ok_or(BadAdmission::NoRecord);
        }
        let mut circle = Circle::new(chain.clone());
        records.iter().for_each(|record| drop(circle.publish(record)));
        let (studio, missing) = match asked.admin {
            Some(admin) => {
                (chain.current().studio_of_admin(&admin).map(|studio| studio.id), BadAdmission::NoStudio)
            }
            None => {
                let mine = circle.roster().member(&self.me.id(), now_ms);
                (mine.filter(|mine| mine.kem == self.me.kem).map(|mine| mine.studio), BadAdmission::NoRecord)
            }
        };
        let place = Place {
            studio: studio.ok_or(missing)?,
            name: asked.name.clone(),
            founder: asked.admin.is_some(),
        };
        self.enter(chain, place, step);
        if let Some(circle) = &mut self.circle {
            let mut known = Step::default();
            records.iter().for_each(|record| known.learnt(circle.publish(record)));
            step.facts.extend(known.facts);
        }
        self.pursue(step, now_ms);
        self.joined(now_ms).ok_or(BadAdmission::NoRecord)
    }

    fn joined(&self, now_ms: u64) -> Option<Joined> {
        let (roster, place) = (self.roster()?, self.place.as_ref()?);
        let mut notes = Vec::new();
        match roster.member(&self.me.id(), now_ms) {
            None if place.founder && self.admin.is_none() => {
                notes.push("unlock the admin key to admit this node: scenemesh invite --unlock".to_owned());
            }
            None => return None,
            Some(member) => {
                let ahead = member.issued_ms.checked_sub(now_ms).filter(|ahead| *ahead > SKEW_MS);
                notes.extend(ahead.map(|ahead| {
                    format!(
                        "this machine's clock is {} min behind the inviter's; set one of them right, or tasks are \
                         refused",
                        ahead / 60_000
                    )
                }));
            }
        }
        Some(Joined {
            pool: roster.pool(),
            pool_name: roster.settings().pool_name.clone(),
            studio: self.own_studio(),
            name: place.name.clone(),
            epoch: roster.settings().epoch,
            notes,
        })
    }

    /// What to ask the inviter again, while this node is not in.
    pub(super) fn pending_question(&self, now_ms: u64) -> Option<&Asked> {
        let asked = self.asked.as_ref()?;
        let cut_off = match (self.roster(), &self.place) {
            (Some(roster), Some(place)) => roster.settings().studio(&place.studio).is_none(),
            _ => true,
        };
        (cut_off && !self.is_member(now_ms)).then_some(asked)
    }

    /// Forgets the pool, or gives up joining one. Keys stay.
    pub(super) fn leave(&mut self) -> Option<Step> {
        if self.circle.is_none() && self.asked.is_none() {
            return None;
        }
        *self = Self::new((*self.me).clone());
        Some(Step { facts: vec![Fact::Left], ..Step::default() })
    }
}

/// The inviter did not let this node in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct JoinRefused {
    /// None when the answer itself does not hold.
    pub reason: Option<JoinRefusal>,
    pub words: String,
}

/// The question as it will be asked until it is answered.
pub(super) fn question(
    me: &super::state::Me,
    invite: &Invite,
    name: &str,
    admin: Option<PublicKey>,
) -> Asked {
    Asked {
        request: JoinRequest::new(invite, &me.node, me.kem, name, admin),
        pool: invite.pool,
        inviter: invite.inviter,
        addresses: invite.addresses().to_vec(),
        name: name.to_owned(),
        admin,
    }
}
