//! PURE: what this node knows of its pool, what another lacks, and how proposals become settings.
//!
//! A [`Circle`] is one node's knowledge of its pool: the roster that holds, the settings that still lack signatures,
//! and the studios that this node's admin agreed to. Agreement is to a *studio*, not to bytes: when another change was
//! decided first, the proposal is built anew on top of it, from the same inputs on every node, so that signatures
//! made apart still meet under one body.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scenemesh_protocol::codec::{self, Decode, Encode};
use scenemesh_protocol::ids::{ContentHash, NodeId, StudioId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::messages::{RosterDiff, RosterSync};
use scenemesh_protocol::roster::{
    Added, BadSettings, ChainMerge, Roster, RosterDigest, Settings, SettingsChain, SignedRecord,
    SignedSettings, Studio,
};

use self::intake::Intake;
use super::rights::studio_name;

mod intake;

/// An agreement or a proposal that found no quorum in this time is forgotten, in milliseconds.
pub(super) const LAPSE_MS: u64 = 7 * 86_400_000;
/// Proposals known at once, and of those, such as one studio alone brought up: nobody shuts the others out.
const PROPOSAL_LIMIT: usize = 128;
const PROPOSALS_PER_STUDIO: usize = 16;
/// Records set aside because a fork took their studio away; they count again when it comes back.
const PARKED_LIMIT: usize = 256;
/// Records that a pool may have: what a [`RosterSync`] can name within its limit. Members end earlier, so that there
/// is always room for revocations.
const RECORD_LIMIT: usize = 1800;
const MEMBER_LIMIT: usize = 1500;
/// Most bytes of one diff: below the limits of control and porch frames, with room for the frame itself.
const DIFF_BYTES: usize = 900 << 10;
/// A date this far in the future is told in words, in milliseconds.
pub(super) const SKEW_MS: u64 = 5 * 60_000;

/// A studio that this node's admin wants in the pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Agreement {
    pub studio: Studio,
    /// Date of the settings that admit it: the same on every node, so that their bodies are the same.
    pub created_ms: u64,
    /// When this admin agreed.
    pub agreed_ms: u64,
}

/// What changed in a circle: to be journaled, and replayed in this order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Change {
    /// Settings from this epoch on; what stood there before is gone.
    Settings(Vec<SignedSettings>),
    Record(SignedRecord),
    Proposal(SignedSettings),
    Agreed(Agreement),
}

/// What came of some news.
#[derive(Clone, Debug, Default)]
pub(super) struct Learnt {
    pub changes: Vec<Change>,
    /// The part that was new here, to be passed on.
    pub news: RosterDiff,
    /// The news builds on something that is not known here: ask the sender for what lies between.
    pub gap: bool,
    /// Sentences for the operator.
    pub warnings: Vec<String>,
}

impl Learnt {
    fn settings(&mut self, links: Vec<SignedSettings>) {
        self.news.settings.extend(links.iter().cloned());
        self.changes.push(Change::Settings(links));
    }

    fn record(&mut self, record: &SignedRecord) {
        self.news.records.push(record.clone());
        self.changes.push(Change::Record(record.clone()));
    }

    fn proposal(&mut self, proposal: &SignedSettings) {
        self.news.proposals.retain(|have| have.hash() != proposal.hash());
        self.news.proposals.push(proposal.clone());
        self.changes.push(Change::Proposal(proposal.clone()));
    }

    /// Adds what came of more news.
    pub(super) fn and(&mut self, more: Self) {
        self.changes.extend(more.changes);
        self.news.settings.extend(more.news.settings);
        self.news.records.extend(more.news.records);
        self.news.proposals.extend(more.news.proposals);
        self.gap |= more.gap;
        self.warnings.extend(more.warnings);
    }
}

/// Settings that lack signatures.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub settings: Settings,
    pub signed: SignedSettings,
    /// The studios that had signed when it came here.
    by: BTreeSet<StudioId>,
}

impl Proposal {
    /// The studios it adds, when that is all it does.
    pub(super) fn additions(&self, before: &Settings) -> Option<&[Studio]> {
        let next = &self.settings;
        let (old, new) = next.studios.split_at_checked(before.studios.len())?;
        let same = Settings { studios: old.to_vec(), ..next.clone() } == before.next(next.created_ms);
        let founded = new.iter().all(|studio| Studio::found(&studio.name, studio.admins[0]).id == studio.id);
        (same && founded && !new.is_empty()).then_some(new)
    }
}

/// One node's knowledge of its pool.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    roster: Arc<Roster>,
    parked: Vec<SignedRecord>,
    proposals: BTreeMap<ContentHash, Proposal>,
    agreements: BTreeMap<StudioId, Agreement>,
    /// Heads of branches that lost here, so that each fork is told once.
    lost: BTreeSet<ContentHash>,
    intake: Intake,
}

impl Circle {
    pub(super) fn new(chain: SettingsChain) -> Self {
        Self {
            roster: Arc::new(Roster::new(chain)),
            parked: Vec::new(),
            proposals: BTreeMap::new(),
            agreements: BTreeMap::new(),
            lost: BTreeSet::new(),
            intake: Intake::default(),
        }
    }

    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    pub(super) fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        self.proposals.values()
    }

    /// The record of a node, whether it holds now or not.
    pub(super) fn record_of(&self, node: &NodeId) -> Option<SignedRecord> {
        let of = |record: &SignedRecord| match record {
            SignedRecord::Member(signed) => signed.verify().is_ok_and(|member| member.node.node() == *node),
            SignedRecord::Revoked(_) | SignedRecord::Rotated(_) => false,
        };
        self.roster.records().chain(self.parked.iter().cloned()).find(of)
    }

    /// Agreements that the settings do not carry yet.
    pub(super) fn open_agreements(&self, now_ms: u64) -> impl Iterator<Item = &Agreement> {
        let settings = self.roster.settings();
        self.agreements.values().filter(move |wanted| {
            settings.studio(&wanted.studio.id).is_none()
                && conflict(settings, &wanted.studio).is_none()
                && now_ms < wanted.agreed_ms.saturating_add(LAPSE_MS)
        })
    }

    /// Takes a journaled change again.
    pub(super) fn replay(&mut self, change: Change) {
        match change {
            Change::Settings(links) => {
                if self.replace_tail(links).is_ok() {
                    self.settle_records();
                }
            }
            Change::Record(record) => drop(self.add_record(&record)),
            Change::Proposal(signed) => drop(self.add_proposal(signed, &mut Learnt::default())),
            Change::Agreed(agreement) => drop(self.agreements.insert(agreement.studio.id, agreement)),
        }
    }

    /// Takes over what somebody said, as far as it holds.
    pub(super) fn learn(&mut self, diff: RosterDiff, now_ms: u64) -> Learnt {
        let mut learnt = Learnt::default();
        self.learn_settings(diff.settings, &mut learnt, now_ms);
        let known = self.roster.record_hashes();
        for record in diff.records.iter().filter(|record| !known.contains(&record.hash())) {
            if !has_room(known.len() + learnt.news.records.len(), record) {
                continue;
            }
            let signer = self.admitting_studio(record);
            if signer.is_some_and(|studio| !self.intake.has_room(&studio, now_ms)) {
                self.warn_of_flood(signer, &mut learnt);
                continue;
            }
            if self.add_record(record) {
                if let Some(studio) = signer {
                    self.intake.took(studio, codec::encode_body(record).len(), now_ms);
                }
                learnt.record(record);
                learnt.warnings.extend(self.future_date(record, now_ms));
            }
        }
        for signed in diff.proposals {
            let (signers, bytes) = (self.claimed_studios(&signed), codec::encode_body(&signed).len());
            if !signers.is_empty() && signers.iter().all(|studio| !self.intake.has_room(studio, now_ms)) {
                self.warn_of_flood(signers.first().copied(), &mut learnt);
                continue;
            }
            let before = learnt.changes.len();
            match self.add_proposal(signed, &mut learnt) {
                Ok(()) if learnt.changes.len() > before => {
                    signers.into_iter().for_each(|studio| self.intake.took(studio, bytes, now_ms));
                }
                Ok(()) => {}
                Err(BadSettings::Broken(_)) => learnt.gap = true,
                Err(bad) => tracing::debug!(%bad, "a proposal is not taken"),
            }
        }
        self.append_decided(&mut learnt);
        learnt
    }

    fn learn_settings(&mut self, links: Vec<SignedSettings>, learnt: &mut Learnt, now_ms: u64) {
        if links.is_empty() {
            return;
        }
        let theirs_head = links[links.len() - 1].hash();
        let revoked = self.roster.revoked_keys();
        let before = self.roster.settings().epoch;
        let merged = Arc::make_mut(&mut self.roster).chain_mut().merge(links, &revoked);
        let from = match merged {
            Ok(ChainMerge::Same) => return,
            Ok(ChainMerge::Extended) => before + 1,
            Ok(ChainMerge::ForkLost { at_epoch }) => {
                learnt.warnings.push(format!(
                    "the settings forked at epoch {at_epoch}: two changes were signed at once; this node gave up \
                     its branch for the other, and what it lacks is proposed again"
                ));
                at_epoch
            }
            Ok(ChainMerge::ForkWon { at_epoch }) => {
                // The other side has to hear of the better branch.
                learnt.gap = true;
                if self.lost.len() < PROPOSAL_LIMIT && self.lost.insert(theirs_head) {
                    learnt.warnings.push(format!(
                        "the settings forked at epoch {at_epoch}: two changes were signed at once; this node's \
                         branch holds, and what it lacks is proposed again"
                    ));
                }
                return;
            }
            Err(BadSettings::Broken(_)) => {
                learnt.gap = true;
                return;
            }
            Err(bad) => {
                tracing::debug!(%bad, "settings are not taken");
                return;
            }
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        learnt.settings(self.roster.chain().links().skip(from).cloned().collect());
        self.settle_records();
        let created = self.roster.settings().created_ms;
        if created > now_ms.saturating_add(SKEW_MS) {
            learnt.warnings.push(format!(
                "new settings are dated {} min in the future: this clock or the signer's is wrong",
                (created - now_ms) / 60_000
            ));
        }
    }

    fn future_date(&self, record: &SignedRecord, now_ms: u64) -> Option<String> {
        let SignedRecord::Member(signed) = record else { return None };
        let member = self.roster.member(&signed.verify().ok()?.node.node(), now_ms)?;
        let ahead = member.issued_ms.checked_sub(now_ms).filter(|ahead| *ahead > SKEW_MS)?;
        let (name, studio) = (&member.name, studio_name(&self.roster, &member.studio));
        Some(format!(
            "{name} was admitted {} min in the future: this clock or the one of {studio}'s admin is wrong",
            ahead / 60_000
        ))
    }

    /// Puts links in the place of all from their first epoch on, as they were journaled.
    fn replace_tail(&mut self, links: Vec<SignedSettings>) -> Result<(), BadSettings> {
        let Some(first) = links.first() else { return Ok(()) };
        let epoch = first.settings()?.epoch;
        if epoch == self.roster.settings().epoch + 1 {
            let chain = Arc::make_mut(&mut self.roster).chain_mut();
            return links.into_iter().try_for_each(|link| chain.append(link));
        }
        let kept = usize::try_from(epoch).unwrap_or(usize::MAX);
        let whole = self.roster.chain().links().take(kept).cloned().chain(links).collect();
        *Arc::make_mut(&mut self.roster).chain_mut() = SettingsChain::verify(whole)?;
        Ok(())
    }

    /// After the settings changed: which records hold, which proposals still fit.
    ///
    /// The roster is made anew from all records, revocations first, so that what holds depends on what is known and
    /// not on the order in which it came.
    fn settle_records(&mut self) {
        let mut records: Vec<_> = self.roster.records().chain(self.parked.drain(..)).collect();
        records.sort_by_key(|record| (matches!(record, SignedRecord::Member(_)), record.hash()));
        let mut roster = Roster::new(self.roster.chain().clone());
        for record in records {
            if roster.add(&record).is_err() && self.parked.len() < PARKED_LIMIT {
                self.parked.push(record);
            }
        }
        self.roster = Arc::new(roster);
        let (head, epoch) = (self.roster.chain().head(), self.roster.settings().epoch);
        self.proposals
            .retain(|_, proposal| proposal.settings.prev == head && proposal.settings.epoch == epoch + 1);
    }

    fn add_record(&mut self, record: &SignedRecord) -> bool {
        match Arc::make_mut(&mut self.roster).add(record) {
            Ok(added) => added == Added::New,
            Err(bad) => {
                tracing::debug!(%bad, "a record is not taken");
                false
            }
        }
    }

    /// Takes over a proposal's signatures. Those of keys that have no vote are left behind.
    fn add_proposal(&mut self, mut signed: SignedSettings, learnt: &mut Learnt) -> Result<(), BadSettings> {
        let settings = signed.settings()?;
        let current = self.roster.settings();
        if settings.epoch <= current.epoch {
            return Ok(());
        }
        if settings.prev != self.roster.chain().head() || settings.epoch != current.epoch + 1 {
            return Err(BadSettings::Broken("it builds on settings that are not known here"));
        }
        if settings.nonce != current.nonce {
            return Err(BadSettings::Form("it is of another pool"));
        }
        signed.signatures.retain(|signature| current.studio_of_admin(&signature.key).is_some());
        let signers = signed.signing_studios(current, &self.roster.revoked_keys())?;
        if signers.is_empty() {
            return Err(BadSettings::NoQuorum { have: 0, need: current.quorum() });
        }
        let hash = signed.hash();
        let proposal = match self.proposals.remove(&hash) {
            Some(mut have) => {
                let before = have.signed.signatures.len();
                have.signed.absorb(&signed);
                if have.signed.signatures.len() > before {
                    learnt.proposal(&have.signed);
                }
                have
            }
            None if self.proposals.len() >= PROPOSAL_LIMIT => {
                return Err(BadSettings::Form("too many proposals are pending"));
            }
            None if signers.iter().all(|studio| self.brought_by(studio) >= PROPOSALS_PER_STUDIO) => {
                return Err(BadSettings::Form("its studio has too many proposals pending"));
            }
            None => {
                learnt.proposal(&signed);
                Proposal { settings, signed, by: signers }
            }
        };
        self.proposals.insert(hash, proposal);
        Ok(())
    }

    /// Studios that signed a proposal so far.
    pub(super) fn signers(&self, proposal: &Proposal) -> BTreeSet<StudioId> {
        let without = self.roster.revoked_keys();
        proposal.signed.signing_studios(self.roster.settings(), &without).unwrap_or_default()
    }

    /// Appends the proposal that has its quorum, if one has; the others are then on the past.
    fn append_decided(&mut self, learnt: &mut Learnt) {
        let need = self.roster.settings().quorum();
        let decided = self.proposals.values().find(|proposal| self.signers(proposal).len() >= need);
        let Some(signed) = decided.map(|proposal| proposal.signed.clone()) else { return };
        match Arc::make_mut(&mut self.roster).chain_mut().append(signed.clone()) {
            Ok(()) => {
                learnt.settings(vec![signed]);
                self.settle_records();
            }
            Err(bad) => {
                tracing::warn!(%bad, "a proposal with its quorum does not fit");
                self.proposals.remove(&signed.hash());
            }
        }
    }

    /// Takes over settings that were signed here as a proposal.
    pub(super) fn propose(&mut self, signed: SignedSettings) -> Result<(Learnt, Proposal), BadSettings> {
        let (mut learnt, hash) = (Learnt::default(), signed.hash());
        self.add_proposal(signed, &mut learnt)?;
        let proposal = self.proposals.get(&hash).cloned();
        Ok((learnt, proposal.ok_or(BadSettings::Form("it is not the next epoch"))?))
    }

    /// Puts into force what has its quorum.
    pub(super) fn decide(&mut self) -> Learnt {
        let mut learnt = Learnt::default();
        self.append_decided(&mut learnt);
        learnt
    }

    /// Adds records that were signed here.
    pub(super) fn publish(&mut self, record: &SignedRecord) -> Learnt {
        let mut learnt = Learnt::default();
        if has_room(self.roster.record_hashes().len(), record) && self.add_record(record) {
            learnt.record(record);
        }
        learnt
    }

    /// This node's admin agrees to a studio.
    pub(super) fn agree(&mut self, agreement: Agreement) -> Learnt {
        let mut learnt = Learnt::default();
        learnt.changes.push(Change::Agreed(agreement.clone()));
        self.agreements.insert(agreement.studio.id, agreement);
        learnt
    }

    /// Puts an admin's signature under one proposal, whatever it says.
    pub(super) fn sign(&mut self, hash: &ContentHash, key: &SecretKey) -> Learnt {
        let mut learnt = Learnt::default();
        if let Some(proposal) = self.proposals.get_mut(hash) {
            proposal.signed.sign(key);
            learnt.proposal(&proposal.signed);
            self.append_decided(&mut learnt);
        }
        learnt
    }

    /// Signs and proposes until everything that this admin agreed to is either in the settings or waits for others.
    ///
    /// Each studio has its own proposal, so that disagreement about one holds up no other.
    pub(super) fn pursue(&mut self, key: &SecretKey, now_ms: u64) -> Learnt {
        let mut learnt = Learnt::default();
        // Each round decides an epoch or is the last.
        for _ in 0..=self.agreements.len() {
            let epoch = self.roster.settings().epoch;
            if self.roster.settings().studio_of_admin(&key.public()).is_none() {
                break;
            }
            let wanted: Vec<_> = self.open_agreements(now_ms).cloned().collect();
            for agreement in &wanted {
                self.sign_for(agreement, key, &mut learnt);
                self.append_decided(&mut learnt);
                if self.roster.settings().epoch != epoch {
                    break;
                }
            }
            if self.roster.settings().epoch == epoch {
                break;
            }
        }
        learnt
    }

    fn sign_for(&mut self, agreement: &Agreement, key: &SecretKey, learnt: &mut Learnt) {
        let before = self.roster.settings().clone();
        let only = std::slice::from_ref(&agreement.studio);
        let mut found = false;
        for proposal in self.proposals.values_mut() {
            if proposal.additions(&before) != Some(only) {
                continue;
            }
            found = true;
            let signatures = proposal.signed.signatures.len();
            proposal.signed.sign(key);
            if proposal.signed.signatures.len() > signatures {
                learnt.proposal(&proposal.signed);
            }
        }
        if !found {
            let mut settings = before.next(agreement.created_ms);
            settings.studios.push(agreement.studio.clone());
            if let Err(bad) = self.add_proposal(SignedSettings::new(&settings, key), learnt) {
                tracing::warn!(%bad, studio = %agreement.studio.name, "a studio cannot be proposed");
            }
        }
    }

    /// Forgets proposals that found no quorum in time.
    pub(super) fn lapse(&mut self, now_ms: u64) {
        self.proposals.retain(|_, proposal| now_ms < proposal.settings.created_ms.saturating_add(LAPSE_MS));
        self.agreements.retain(|_, agreement| now_ms < agreement.agreed_ms.saturating_add(LAPSE_MS));
    }

    /// What this node holds, to be told what it lacks.
    pub(super) fn sync(&self) -> RosterSync {
        let signatures =
            |proposal: &Proposal| u16::try_from(proposal.signed.signatures.len()).unwrap_or(u16::MAX);
        RosterSync {
            digest: self.roster.digest(),
            records: self.roster.record_hashes().into_iter().collect(),
            proposals: self.proposals.iter().map(|(hash, proposal)| (*hash, signatures(proposal))).collect(),
        }
    }

    /// What the sender of `theirs` lacks. Bounded: a part comes first, the rest after the next question.
    pub(super) fn lacking(&self, theirs: &RosterSync) -> RosterDiff {
        let mut room = DIFF_BYTES;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(0);
            left.is_some()
        };
        let mut settings = self.roster.chain().after(theirs.digest.epoch, &theirs.digest.head);
        let all = settings.len();
        settings.truncate(settings.iter().take_while(|link| fits(codec::encode_body(*link).len())).count());
        let mut diff = RosterDiff { settings, ..RosterDiff::default() };
        if diff.settings.len() < all {
            // Records rest on settings: these come first.
            return diff;
        }
        let held: BTreeSet<_> = theirs.records.iter().collect();
        diff.records = self.roster.records().filter(|record| !held.contains(&record.hash())).collect();
        diff.records.truncate(diff.records.iter().take_while(|r| fits(codec::encode_body(*r).len())).count());
        // Equal counts do not mean equal signers, and proposals are few: all go.
        let proposals = self.proposals.values().map(|proposal| proposal.signed.clone());
        diff.proposals = proposals.take_while(|signed| fits(codec::encode_body(signed).len())).collect();
        diff
    }

    /// What somebody lacks who has nothing.
    pub(super) fn everything(&self) -> RosterDiff {
        let none = ContentHash::from_bytes([0; 32]);
        let digest = RosterDigest { epoch: u64::MAX, head: none, records: none };
        self.lacking(&RosterSync { digest, records: Vec::new(), proposals: Vec::new() })
    }

    /// Whether the sender of `theirs` holds something that is not here.
    pub(super) fn lacks(&self, theirs: &RosterSync) -> bool {
        let records = self.roster.record_hashes();
        let ahead = theirs.digest.epoch > self.roster.settings().epoch;
        let forked = theirs.digest.epoch == self.roster.settings().epoch
            && theirs.digest.head != self.roster.chain().head();
        ahead
            || forked
            || theirs.records.iter().any(|hash| !records.contains(hash))
            || theirs.proposals.iter().any(|(hash, have)| {
                let mine = self.proposals.get(hash).map(|proposal| proposal.signed.signatures.len());
                mine.is_none_or(|mine| usize::from(*have) > mine)
            })
    }
}

fn has_room(records: usize, record: &SignedRecord) -> bool {
    let limit = if matches!(record, SignedRecord::Member(_)) { MEMBER_LIMIT } else { RECORD_LIMIT };
    if records >= limit {
        tracing::warn!(limit, "the roster is full; a record is not taken");
    }
    records < limit
}

/// Why a studio cannot be added to these settings, if so.
pub(super) fn conflict(settings: &Settings, studio: &Studio) -> Option<String> {
    let name = &studio.name;
    if settings.studios.iter().any(|have| have.id != studio.id && have.name == *name) {
        return Some(format!("the pool has a studio named {name} already"));
    }
    let taken = studio.admins.iter().find_map(|admin| settings.studio_of_admin(admin));
    taken.filter(|have| have.id != studio.id).map(|have| format!("its admin key is {}'s already", have.name))
}

#[cfg(test)]
mod tests;
