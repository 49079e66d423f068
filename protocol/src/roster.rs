//! Who belongs: the settings chain, the signed records, and how two rosters merge.
//!
//! Settings change by a chain in which each epoch is signed by admins of more than half of the studios of the
//! epoch before. Records are grow-only and signed one by one by an admin of the studio they speak about; they
//! merge by union. Nobody but a studio's own admins can put a machine into it.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{Decode, Encode};
use crate::ids::{ContentHash, NodeId, PoolId, StudioId};
use crate::keys::{ForgedSignature, PublicKey};
use crate::signed::{Unverified, Verified};

mod records;
mod rotation;
mod settings;

pub use records::{Consent, Member, Revoked, Roles, Rotated, Rotation, SignedRecord};
pub use rotation::{BadRotationCode, RotationRequest};
pub use settings::{
    ADMIN_LIMIT, AdminSignature, BadSettings, ChainMerge, NAME_LIMIT, PoolParams, STUDIO_LIMIT, Settings,
    SettingsChain, SignedSettings, Studio, is_name,
};

/// A record that a roster does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRecord {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error("the record is of another pool")]
    OtherPool,
    #[error("its studio {0} is not in the pool")]
    UnknownStudio(StudioId),
    #[error("its signer is no admin of that studio")]
    NotItsAdmin,
    #[error("the node did not choose this studio: {0}")]
    NoConsent(ForgedSignature),
    #[error("the old key or the new key did not sign the rotation: {0}")]
    NotItsKeys(ForgedSignature),
    #[error("the node key or the KEM key is weak")]
    WeakKey,
    #[error("its name is empty, too long or has control characters")]
    BadName,
}

/// What adding a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// Known already, or beaten by one that is.
    Known,
}

/// Everything a node knows of who belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    chain: SettingsChain,
    members: BTreeMap<NodeId, Verified<Member>>,
    /// By the studio that speaks, the key it speaks of and the admin that signed: it counts only for a key of that studio,
    /// which may be learnt later.
    revoked: BTreeMap<(StudioId, PublicKey, PublicKey), Verified<Revoked>>,
    /// By studio and old key; the old key is refused as if it were revoked.
    rotated: BTreeMap<(StudioId, PublicKey), Verified<Rotated>>,
}

/// A short form of a roster, for telling quickly whether two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RosterDigest {
    pub epoch: u64,
    pub head: ContentHash,
    pub records: ContentHash,
}

impl Roster {
    pub fn new(chain: SettingsChain) -> Self {
        Self { chain, members: BTreeMap::new(), revoked: BTreeMap::new(), rotated: BTreeMap::new() }
    }

    pub fn pool(&self) -> PoolId {
        self.chain.pool()
    }

    pub fn settings(&self) -> &Settings {
        self.chain.current()
    }

    pub fn chain(&self) -> &SettingsChain {
        &self.chain
    }

    pub fn chain_mut(&mut self) -> &mut SettingsChain {
        &mut self.chain
    }

    pub fn digest(&self) -> RosterDigest {
        let mut hasher = blake3::Hasher::new();
        for hash in self.record_hashes() {
            hasher.update(hash.as_bytes());
        }
        let records = ContentHash::from_bytes(*hasher.finalize().as_bytes());
        RosterDigest { epoch: self.settings().epoch, head: self.chain.head(), records }
    }

    /// Hashes of the records that hold, sorted.
    pub fn record_hashes(&self) -> BTreeSet<ContentHash> {
        let members = self.members.values().filter(|record| self.admits(record)).map(Verified::hash);
        let gone = self.revocations().map(Verified::hash).chain(self.rotations().map(Verified::hash));
        members.chain(gone).collect()
    }

    /// Every record that holds.
    pub fn records(&self) -> impl Iterator<Item = SignedRecord> {
        let members = self.members.values().filter(|record| self.admits(record));
        let members = members.map(|record| SignedRecord::Member(record.signed().clone()));
        let revoked = self.revocations().map(|record| SignedRecord::Revoked(record.signed().clone()));
        let rotated = self.rotations().map(|record| SignedRecord::Rotated(record.signed().clone()));
        members.chain(revoked).chain(rotated)
    }

    /// The last member record of a node, whether it may act or not.
    pub fn record_of(&self, node: &NodeId) -> Option<&Verified<Member>> {
        self.members.get(node)
    }

    /// Member records that hold, whether the node was revoked since or not.
    pub fn member_records(&self) -> impl Iterator<Item = &Verified<Member>> {
        self.members.values().filter(|record| self.admits(record))
    }

    /// Revocations that hold: those of admin keys, whoever of the studio's admins signed, and those of other keys by an
    /// admin that is not revoked.
    pub fn revocations(&self) -> impl Iterator<Item = &Verified<Revoked>> {
        self.revoked.values().filter(|record| self.speaks(record))
    }

    /// Rotations that hold.
    pub fn rotations(&self) -> impl Iterator<Item = &Verified<Rotated>> {
        let holds = |record: &&Verified<Rotated>| {
            self.may_speak_for(&record.signer(), &record.rotation.studio).is_ok()
        };
        self.rotated.values().filter(holds)
    }

    /// Keys refused for ever: of nodes and of admins, each revoked or rotated away by its own studio.
    pub fn revoked_keys(&self) -> BTreeSet<PublicKey> {
        let revoked = self.revocations().map(|record| (record.studio, record.key));
        let rotated = self.rotations().map(|record| (record.rotation.studio, record.rotation.old));
        let gone = revoked.chain(rotated).filter(|(studio, key)| self.is_of(key, studio));
        gone.map(|(_, key)| key).filter(|key| !self.outranks_its_revokers(key)).collect()
    }

    /// The key under which a node goes on that was known by `old`, if its own studio countersigned that.
    pub fn successor(&self, old: &PublicKey) -> Option<PublicKey> {
        Some(self.rotation_of(old)?.rotation.new)
    }

    /// The countersigned rotation away from `old`, by its own studio.
    pub fn rotation_of(&self, old: &PublicKey) -> Option<&Verified<Rotated>> {
        let studio = self.members.get(&old.node())?.studio;
        let record = self.rotated.get(&(studio, *old))?;
        self.may_speak_for(&record.signer(), &studio).is_ok().then_some(record)
    }

    /// Why a key was revoked, if its own studio revoked it.
    pub fn revocation(&self, key: &PublicKey) -> Option<&Verified<Revoked>> {
        let node_studio = self.members.get(&key.node()).map(|member| member.studio);
        let admin_studio = self.settings().studio_of_admin(key).map(|studio| studio.id);
        let of = |studio: &StudioId| self.revocations_of(studio, key).find(|record| self.speaks(record));
        let found = node_studio.iter().chain(&admin_studio).find_map(of)?;
        (!self.outranks_its_revokers(key)).then_some(found)
    }

    fn revocations_of(&self, studio: &StudioId, key: &PublicKey) -> impl Iterator<Item = &Verified<Revoked>> {
        let (studio, key) = (*studio, *key);
        let first = PublicKey::from_bytes([0; 32]);
        let all = self.revoked.range((studio, key, first)..);
        all.take_while(move |((of, about, _), _)| (*of, *about) == (studio, key)).map(|(_, record)| record)
    }

    /// A revocation that counts: of two admins that revoke each other both records hold, so that every node has the same.
    fn speaks(&self, record: &Verified<Revoked>) -> bool {
        let Some(studio) = self.settings().studio(&record.studio) else { return false };
        studio.admins.contains(&record.signer())
            && (studio.admins.contains(&record.key) || !self.is_revoked_admin(studio, &record.signer()))
    }

    /// Whether this admin key was revoked by an admin of its studio. Of two that revoke each other the one that stands
    /// later in the settings stays: at first that is the recovery code, which is on paper.
    fn is_revoked_admin(&self, studio: &Studio, key: &PublicKey) -> bool {
        let place = |key: &PublicKey| studio.admins.iter().position(|admin| admin == key);
        let Some(mine) = place(key) else { return false };
        self.revocations_of(&studio.id, key).any(|record| {
            let signer = record.signer();
            let answered = self.revoked.contains_key(&(studio.id, signer, *key));
            place(&signer).is_some_and(|theirs| !(answered && mine > theirs))
        })
    }

    /// An admin key that was revoked, but only by admins that it outranks.
    fn outranks_its_revokers(&self, key: &PublicKey) -> bool {
        let is_node = self.members.contains_key(&key.node());
        let studio = self.settings().studio_of_admin(key);
        !is_node && studio.is_some_and(|studio| !self.is_revoked_admin(studio, key))
    }

    fn is_of(&self, key: &PublicKey, studio: &StudioId) -> bool {
        self.members.get(&key.node()).is_some_and(|member| member.studio == *studio)
            || self.settings().studio_of_admin(key).is_some_and(|of| of.id == *studio)
    }

    fn admits(&self, record: &Verified<Member>) -> bool {
        self.may_speak_for(&record.signer(), &record.studio).is_ok()
    }

    /// The member record of a node that may act now: signed by an admin that still is one, not revoked, not expired.
    pub fn member(&self, node: &NodeId, now_ms: u64) -> Option<&Member> {
        let record = self.members.get(node)?;
        let expired = record.not_after_ms.is_some_and(|until| now_ms > until);
        let revoked = self.revocations_of(&record.studio, &record.node).any(|record| self.speaks(record));
        let gone = revoked || self.rotation_of(&record.node).is_some();
        (self.admits(record) && !expired && !gone).then_some(&**record)
    }

    /// Every node that may act now.
    pub fn members(&self, now_ms: u64) -> impl Iterator<Item = &Member> {
        self.members.keys().filter_map(move |node| self.member(node, now_ms))
    }

    fn may_speak_for(&self, signer: &PublicKey, studio: &StudioId) -> Result<(), RefusedRecord> {
        let known = self.settings().studio(studio).ok_or(RefusedRecord::UnknownStudio(*studio))?;
        if known.admins.contains(signer) && !self.is_revoked_admin(known, signer) {
            Ok(())
        } else {
            Err(RefusedRecord::NotItsAdmin)
        }
    }

    /// Adds a record: union, the higher version holds, then the lower hash; a revocation beats everything.
    ///
    /// # Errors
    /// When it is forged, foreign, or its signer may not say this.
    pub fn add(&mut self, record: &SignedRecord) -> Result<Added, RefusedRecord> {
        match record {
            SignedRecord::Member(signed) => self.add_member(signed.verify()?),
            SignedRecord::Revoked(signed) => self.add_revoked(signed.verify()?),
            SignedRecord::Rotated(signed) => self.add_rotated(signed.verify()?),
        }
    }

    fn add_member(&mut self, record: Verified<Member>) -> Result<Added, RefusedRecord> {
        if record.pool != self.pool() {
            return Err(RefusedRecord::OtherPool);
        }
        if !record.node.is_sound() || !record.kem.is_sound() {
            return Err(RefusedRecord::WeakKey);
        }
        if !is_name(&record.name) {
            return Err(RefusedRecord::BadName);
        }
        let consent = Consent { pool: record.pool, studio: record.studio, kem: record.kem };
        consent.verify(&record.node, &record.consent).map_err(RefusedRecord::NoConsent)?;
        self.may_speak_for(&record.signer(), &record.studio)?;
        let node = record.node.node();
        let beaten = self.members.get(&node).is_some_and(|have| {
            self.admits(have) && (have.version, record.hash()) >= (record.version, have.hash())
        });
        if beaten {
            return Ok(Added::Known);
        }
        self.members.insert(node, record);
        Ok(Added::New)
    }

    fn add_revoked(&mut self, record: Verified<Revoked>) -> Result<Added, RefusedRecord> {
        if record.pool != self.pool() {
            return Err(RefusedRecord::OtherPool);
        }
        let studio = self.settings().studio(&record.studio);
        if studio.is_none_or(|studio| !studio.admins.contains(&record.key)) {
            self.may_speak_for(&record.signer(), &record.studio)?;
        } else if studio.is_none_or(|studio| !studio.admins.contains(&record.signer())) {
            return Err(RefusedRecord::NotItsAdmin);
        }
        let key = (record.studio, record.key, record.signer());
        if self.revoked.get(&key).is_some_and(|have| have.hash() <= record.hash()) {
            return Ok(Added::Known);
        }
        self.revoked.insert(key, record);
        Ok(Added::New)
    }

    fn add_rotated(&mut self, record: Verified<Rotated>) -> Result<Added, RefusedRecord> {
        let rotation = record.rotation;
        if rotation.pool != self.pool() {
            return Err(RefusedRecord::OtherPool);
        }
        if !rotation.new.is_sound() || !rotation.kem.is_sound() || rotation.new == rotation.old {
            return Err(RefusedRecord::WeakKey);
        }
        self.may_speak_for(&record.signer(), &rotation.studio)?;
        rotation.verify(&rotation.old, &record.old_signature).map_err(RefusedRecord::NotItsKeys)?;
        rotation.verify(&rotation.new, &record.new_signature).map_err(RefusedRecord::NotItsKeys)?;
        let key = (rotation.studio, rotation.old);
        let beaten = self.rotated.get(&key).is_some_and(|have| {
            let holds = self.may_speak_for(&have.signer(), &rotation.studio).is_ok();
            holds && have.hash() <= record.hash()
        });
        if beaten {
            return Ok(Added::Known);
        }
        self.rotated.insert(key, record);
        Ok(Added::New)
    }
}

#[cfg(test)]
mod tests;
