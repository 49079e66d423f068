//! PURE: this node's standing in its pool, and what follows from what is heard.
//!
//! A [`State`] is replayed from [`Fact`]s. Its methods change it and give a [`Step`]: facts to make durable first,
//! then what to tell whom. The actor works on a copy and keeps it only when the facts are durable, so that a failed
//! commit has no consequences: an invite, for example, is then not used up.

use std::collections::VecDeque;
use std::sync::Arc;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::ids::{NodeId, PoolId, StudioId};
use scenemesh_protocol::invite::{JoinNeeds, JoinRequest};
use scenemesh_protocol::keys::{KemPublic, PublicKey, SecretKey};
use scenemesh_protocol::messages::{
    self, Decline, Declined, Done, PorchRequest, PorchResponse, Request, Response, RosterDiff, StandingGet,
};
use scenemesh_protocol::roster::{
    Consent, Member, Roles, Roster, RosterDigest, SettingsChain, SignedRecord, SignedSettings,
};
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{StudioDiff, StudioRecord, StudioSecret};
use tokio::time::Instant;

use super::invites::{Invited, Invites, Tries};
use super::roster::{Change, Circle, Learnt};
use super::studio::Shelf;

/// Warnings kept for the operator; older ones are in the log.
const WARNINGS: usize = 16;
/// Records of a stranger that are looked at before it has shown that it is a member.
const STRANGERS_RECORDS: usize = 16;

/// Something that happened here for good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Fact {
    /// This node is in a pool from now on.
    Entered(Entered),
    Circle(Change),
    Invited(Invited),
    /// A join waits for somebody.
    Asked(Asked),
    /// The join came to nothing.
    AskedInVain,
    Left,
    /// A record of the own studio.
    Shelved(StudioRecord),
    /// The pool that this node is in opens no socket.
    Solo,
}

/// Where this node belongs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Entered {
    pub studio: StudioId,
    pub name: String,
    /// This node founded its studio, and admits itself.
    pub founder: bool,
    /// The chain as it was then, from the genesis.
    pub settings: Vec<SignedSettings>,
}

/// A join as it was asked for; asked again until it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Asked {
    pub request: JoinRequest,
    pub pool: PoolId,
    pub inviter: NodeId,
    /// The inviter's porch.
    pub addresses: Vec<String>,
    pub name: String,
    /// The key that becomes the new studio's first admin, if the invite founds one.
    pub admin: Option<PublicKey>,
}

/// What a pending join was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// None before the first answer.
    pub needs: Option<JoinNeeds>,
    pub words: String,
}

/// What follows from an input.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    /// To be made durable before anything else.
    pub facts: Vec<Fact>,
    /// To be told to every connected member.
    pub news: RosterDiff,
    /// Members to be asked for what is missing here.
    pub ask: Vec<NodeId>,
    /// Nodes at whose porch to show this node's card: they do not know it yet.
    pub show: Vec<NodeId>,
    /// To be told to every connected machine of the own studio, and to nobody else.
    pub studio: StudioDiff,
    /// Secrets of studio keys, to be on disk before the facts are.
    pub secrets: Vec<(u32, StudioSecret)>,
    /// Machines of the own studio to be asked for records that are missing here.
    pub ask_studio: Vec<NodeId>,
    pub warnings: Vec<String>,
}

impl Step {
    pub(super) fn learnt(&mut self, learnt: Learnt) {
        self.facts.extend(learnt.changes.into_iter().map(Fact::Circle));
        self.news.settings.extend(learnt.news.settings);
        self.news.records.extend(learnt.news.records);
        self.news.proposals.extend(learnt.news.proposals);
        self.warnings.extend(learnt.warnings);
    }
}

/// The public half of this node's keys, and the signing one.
#[derive(Clone, Debug)]
pub(super) struct Me {
    pub node: SecretKey,
    pub kem: KemPublic,
}

impl Me {
    pub(super) fn id(&self) -> NodeId {
        self.node.public().node()
    }
}

/// This node's place in its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub studio: StudioId,
    pub name: String,
    pub founder: bool,
}

/// Everything that membership knows.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) me: Arc<Me>,
    pub(super) circle: Option<Circle>,
    pub(super) place: Option<Place>,
    /// The pool opens no socket.
    pub(super) solo: bool,
    pub(super) invites: Invites,
    pub(super) asked: Option<Asked>,
    pub(super) wait: Option<Wait>,
    pub(super) tries: Tries,
    /// The studio admin's key while it is unlocked.
    pub(super) admin: Option<SecretKey>,
    /// What only the own studio knows.
    pub(super) shelf: Arc<Shelf>,
    pub(super) warnings: VecDeque<String>,
}

/// How this node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no pool.
    Alone,
    /// Waits to be let in. `needs` is none until the inviter has answered.
    Joining {
        pool: PoolId,
        needs: Option<JoinNeeds>,
        words: String,
    },
    Member {
        roster: Arc<Roster>,
        name: String,
        studio: StudioId,
    },
    /// In a pool that does not count this node among its members now: revoked or expired.
    Outside {
        roster: Arc<Roster>,
        why: String,
    },
}

impl State {
    pub(super) fn new(me: Me) -> Self {
        Self {
            me: Arc::new(me),
            circle: None,
            place: None,
            solo: false,
            invites: Invites::default(),
            asked: None,
            wait: None,
            tries: Tries::default(),
            admin: None,
            shelf: Arc::default(),
            warnings: VecDeque::new(),
        }
    }

    /// Takes a journaled fact again.
    ///
    /// # Errors
    /// When the settings on disk do not verify: then nothing about the pool can be trusted.
    pub(super) fn replay(&mut self, fact: Fact) -> Result<(), scenemesh_protocol::roster::BadSettings> {
        match fact {
            Fact::Entered(entered) => {
                self.circle = Some(Circle::new(SettingsChain::verify(entered.settings)?));
                self.place =
                    Some(Place { studio: entered.studio, name: entered.name, founder: entered.founder });
                self.wait = None;
            }
            Fact::Circle(change) => {
                if let Some(circle) = &mut self.circle {
                    circle.replay(change);
                }
            }
            Fact::Invited(invited) => self.invites.put(invited),
            Fact::Asked(asked) => {
                self.asked = Some(asked);
                self.wait = Some(Wait { needs: None, words: "the inviter has not answered yet".into() });
            }
            Fact::Solo => self.solo = true,
            Fact::AskedInVain => (self.asked, self.wait) = (None, None),
            Fact::Shelved(record) => self.replay_shelved(&record),
            Fact::Left => {
                *self =
                    Self { me: self.me.clone(), admin: self.admin.take(), ..Self::new((*self.me).clone()) };
            }
        }
        Ok(())
    }

    pub(super) fn roster(&self) -> Option<&Arc<Roster>> {
        self.circle.as_ref().map(Circle::roster)
    }

    /// How this node stands now.
    pub(super) fn standing(&self, now_ms: u64) -> Standing {
        let (Some(roster), Some(place)) = (self.roster(), &self.place) else {
            return match (&self.asked, &self.wait) {
                (Some(asked), Some(wait)) => {
                    Standing::Joining { pool: asked.pool, needs: wait.needs, words: wait.words.clone() }
                }
                _ => Standing::Alone,
            };
        };
        if let Some(member) = roster.member(&self.me.id(), now_ms) {
            return Standing::Member {
                roster: roster.clone(),
                name: member.name.clone(),
                studio: member.studio,
            };
        }
        if let Some(words) = self.own_revocation() {
            return Standing::Outside { roster: roster.clone(), why: words };
        }
        if self.own_successor().is_some() {
            let why = "this node's key was exchanged for a new one".into();
            return Standing::Outside { roster: roster.clone(), why };
        }
        if roster.settings().studio(&place.studio).is_none() {
            let wait = self.wait.clone();
            let words = wait.as_ref().map_or_else(
                || "this node's studio is not in the settings any more; it is proposed again".to_owned(),
                |wait| wait.words.clone(),
            );
            return Standing::Joining { pool: roster.pool(), needs: wait.and_then(|wait| wait.needs), words };
        }
        if place.founder && self.admin.is_none() {
            return Standing::Joining {
                pool: roster.pool(),
                needs: Some(JoinNeeds::Unlock),
                words: "the studio is in the pool; unlock its admin key here to admit this node: \
                        scenemesh invite --unlock"
                    .into(),
            };
        }
        let why = "this node's member record has expired or does not hold; ask an admin for an invite".into();
        Standing::Outside { roster: roster.clone(), why }
    }

    /// Whether the admin key has work to do, so that it stays in memory.
    pub(super) fn needs_admin(&self, now_ms: u64) -> bool {
        let agreed =
            self.circle.as_ref().is_some_and(|circle| circle.open_agreements(now_ms).next().is_some());
        let awaits =
            self.asked.as_ref().is_some_and(|asked| asked.admin.is_some()) && !self.is_member(now_ms);
        agreed || awaits || self.invites.any_open(now_ms)
    }

    pub(super) fn is_member(&self, now_ms: u64) -> bool {
        self.roster().is_some_and(|roster| roster.member(&self.me.id(), now_ms).is_some())
    }

    /// The studio whose admin key is unlocked here, when it is this node's own.
    pub(super) fn admin_of(&self) -> Option<(&SecretKey, StudioId)> {
        let key = self.admin.as_ref()?;
        let roster = self.roster().filter(|roster| roster.revocation(&key.public()).is_none())?;
        let studio = roster.settings().studio_of_admin(&key.public())?;
        (Some(studio.id) == self.place.as_ref().map(|place| place.studio)).then_some((key, studio.id))
    }

    /// Time has passed.
    pub(super) fn on_tick(&mut self, now_ms: u64) -> Step {
        self.invites.sweep(now_ms);
        if let Some(circle) = &mut self.circle {
            circle.lapse(now_ms);
        }
        if self.shelf.has_over(now_ms) {
            Arc::make_mut(&mut self.shelf).sweep(now_ms);
        }
        let mut step = Step::default();
        self.pursue(&mut step, now_ms);
        step
    }

    /// Does what the unlocked admin key can do now: sign what was agreed to, admit this node to its own studio.
    pub(super) fn pursue(&mut self, step: &mut Step, now_ms: u64) {
        let Some((key, studio)) = self.admin_of().map(|(key, studio)| (key.clone(), studio)) else { return };
        if let Some(circle) = &mut self.circle {
            step.learnt(circle.pursue(&key, now_ms));
        }
        self.admit_founder(&key, studio, step, now_ms);
        self.found_studio_key(step, now_ms);
    }

    fn admit_founder(&mut self, key: &SecretKey, studio: StudioId, step: &mut Step, now_ms: u64) {
        let Some(place) = self.place.clone().filter(|place| place.founder) else { return };
        let Some(circle) = &mut self.circle else { return };
        let id = self.me.id();
        let revoked = circle.roster().revocation(&self.me.node.public()).is_some();
        let held = circle.roster().member(&id, now_ms).is_some();
        if held || revoked || circle.record_of(&id).is_some() {
            return;
        }
        let pool = circle.roster().pool();
        let member = Member {
            pool,
            studio,
            consent: Consent { pool, studio, kem: self.me.kem }.sign(&self.me.node),
            node: self.me.node.public(),
            kem: self.me.kem,
            name: place.name,
            roles: Roles::ALL,
            version: 1,
            issued_ms: now_ms,
            not_after_ms: None,
        };
        step.learnt(circle.publish(&SignedRecord::Member(Signed::new(&member, key))));
        // Nobody lets a node in whose record only itself has.
        step.show.extend(self.asked.as_ref().map(|asked| asked.inviter));
    }

    /// Whether a peer that said Hello with this digest knows another roster.
    pub(super) fn differs(&self, digest: &RosterDigest) -> bool {
        self.roster().is_some_and(|roster| roster.digest() != *digest)
    }

    /// A member asks or tells something about the roster.
    pub(super) fn on_request(&mut self, from: NodeId, request: Request, now_ms: u64) -> (Step, Response) {
        if let Request::StudioSync(_) | Request::Studio(_) = request {
            return self.on_studio_request(from, request, now_ms);
        }
        let mut step = Step::default();
        let Some(circle) = &mut self.circle else {
            return (step, declined(Decline::NotAllowed, "this node is in no pool").into());
        };
        match request {
            Request::RosterSync(sync) => {
                if circle.lacks(&sync) {
                    step.ask.push(from);
                }
                let diff = circle.lacking(&sync);
                (step, diff.into())
            }
            Request::Roster(diff) => {
                self.on_news(from, diff, now_ms, &mut step);
                (step, Done.into())
            }
            other => {
                let detail = format!("{} is not about the roster", other.name());
                (step, declined(Decline::Unsupported, detail).into())
            }
        }
    }

    /// A member answered what is missing here.
    pub(super) fn on_synced(&mut self, from: NodeId, diff: RosterDiff, now_ms: u64) -> Step {
        let mut step = Step::default();
        self.on_news(from, diff, now_ms, &mut step);
        // The answer may have been cut at its limit: ask until nothing new comes.
        if !step.facts.is_empty() && !step.ask.contains(&from) {
            step.ask.push(from);
        }
        step
    }

    pub(super) fn on_news(&mut self, from: NodeId, diff: RosterDiff, now_ms: u64, step: &mut Step) {
        let Some(circle) = &mut self.circle else { return };
        let learnt = circle.learn(diff, now_ms);
        if learnt.gap {
            step.ask.push(from);
        }
        step.learnt(learnt);
        self.pursue(step, now_ms);
    }

    /// Somebody at the porch. `from` is proven, `address` is where it came from.
    pub(super) fn on_porch(
        &mut self,
        from: NodeId,
        address: &str,
        request: PorchRequest,
        now: Instant,
        now_ms: u64,
    ) -> (Step, PorchResponse) {
        match request {
            PorchRequest::Join(request) => self.on_join(from, address, &request, now, now_ms),
            PorchRequest::Roster(diff) => self.on_porch_roster(from, diff, now_ms),
            PorchRequest::RosterSync(sync) => {
                let known = self.roster().is_some_and(|roster| roster.member(&from, now_ms).is_some())
                    || self.invites.iter().any(|i| i.redeemed.as_ref().is_some_and(|by| by.node == from));
                match &self.circle {
                    Some(circle) if known => (Step::default(), circle.lacking(&sync).into()),
                    _ => (Step::default(), declined(Decline::NotAllowed, "only members may ask").into()),
                }
            }
            PorchRequest::Standing(StandingGet { key }) => {
                let standing = match self.roster() {
                    Some(roster) => match roster.revocation(&key) {
                        Some(gone) => messages::Standing::Revoked {
                            reason: gone.reason.clone(),
                            issued_ms: gone.issued_ms,
                        },
                        None if roster.member(&key.node(), now_ms).is_some() => messages::Standing::Member,
                        None => messages::Standing::Unknown,
                    },
                    None => messages::Standing::Unknown,
                };
                (Step::default(), standing.into())
            }
        }
    }

    /// A node shows what it has. A stranger first has to show that it is none.
    fn on_porch_roster(&mut self, from: NodeId, diff: RosterDiff, now_ms: u64) -> (Step, PorchResponse) {
        let mut step = Step::default();
        if self.circle.is_none() {
            if self.asked.is_none() {
                return (step, declined(Decline::NotAllowed, "this node is in no pool").into());
            }
            // Somebody brings what a pending join waits for.
            if let Err(bad) = self.on_admitted(diff.settings, &diff.records, now_ms, &mut step) {
                tracing::debug!(%bad, "what was brought does not end the wait");
            }
            return (step, RosterDiff::default().into());
        }
        let RosterDiff { settings, mut records, proposals } = diff;
        let rest = records.split_off(records.len().min(STRANGERS_RECORDS));
        self.on_news(from, RosterDiff { settings, records, proposals: Vec::new() }, now_ms, &mut step);
        let member = self.roster().is_some_and(|roster| roster.member(&from, now_ms).is_some());
        if member {
            let diff = RosterDiff { settings: Vec::new(), records: rest, proposals };
            self.on_news(from, diff, now_ms, &mut step);
        }
        step.ask.retain(|peer| *peer != from || member);
        // Whoever was revoked or exchanged is shown the proof: it may have been away when it was pushed.
        let view = self.roster_view(now_ms);
        let proof = view.and_then(|view| Some(view.parting.get(&from)?.proof.clone()));
        (step, proof.unwrap_or_default().into())
    }

    /// What to show at the porch of a member that shuts this node out: the own record first.
    pub(super) fn card(&self) -> Option<RosterDiff> {
        let circle = self.circle.as_ref()?;
        let mut diff = circle.everything();
        let mine = circle.record_of(&self.me.id());
        diff.records.retain(|record| mine.as_ref() != Some(record));
        diff.records.splice(0..0, mine);
        Some(diff)
    }

    /// Keeps a sentence for the operator.
    pub(super) fn warn(&mut self, words: &str) {
        if self.warnings.iter().any(|have| have == words) {
            return;
        }
        if self.warnings.len() >= WARNINGS {
            self.warnings.pop_front();
        }
        self.warnings.push_back(words.to_owned());
    }
}

pub(super) fn declined(why: Decline, detail: impl Into<String>) -> Declined {
    Declined { why, detail: detail.into() }
}
