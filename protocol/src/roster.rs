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
mod settings;

pub use records::{Consent, Member, Revoked, Roles, Rotated, Rotation, SignedRecord};
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
    /// By the studio that speaks and the key it speaks of: it counts only for a key of that studio, which may be
    /// learnt later.
    revoked: BTreeMap<(StudioId, PublicKey), Verified<Revoked>>,
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
        let members = self.members.values().map(Verified::hash);
        let gone = self.revoked.values().map(Verified::hash).chain(self.rotated.values().map(Verified::hash));
        members.chain(gone).collect()
    }

    pub fn records(&self) -> impl Iterator<Item = SignedRecord> {
        let members = self.members.values().map(|record| SignedRecord::Member(record.signed().clone()));
        let revoked = self.revoked.values().map(|record| SignedRecord::Revoked(record.signed().clone()));
        let rotated = self.rotated.values().map(|record| SignedRecord::Rotated(record.signed().clone()));
        members.chain(revoked).chain(rotated)
    }

    /// Keys refused for ever: of nodes and of admins, each revoked or rotated away by its own studio.
    pub fn revoked_keys(&self) -> BTreeSet<PublicKey> {
        let gone = self.revoked.keys().chain(self.rotated.keys());
        gone.filter(|(studio, key)| self.is_of(key, studio)).map(|(_, key)| *key).collect()
    }

    /// The key under which a node goes on that was known by `old`, if its own studio countersigned that.
    pub fn successor(&self, old: &PublicKey) -> Option<PublicKey> {
        let studio = self.members.get(&old.node())?.studio;
        Some(self.rotated.get(&(studio, *old))?.rotation.new)
    }

    /// Why a key was revoked, if its own studio revoked it.
    pub fn revocation(&self, key: &PublicKey) -> Option<&Revoked> {
        let of_key = |studio: &StudioId| self.revoked.get(&(*studio, *key)).map(|record| &**record);
        let node_studio = self.members.get(&key.node()).map(|member| member.studio);
        let admin_studio = self.settings().studio_of_admin(key).map(|studio| studio.id);
        node_studio.iter().chain(&admin_studio).find_map(of_key)
    }

    fn is_of(&self, key: &PublicKey, studio: &StudioId) -> bool {
        self.members.get(&key.node()).is_some_and(|member| member.studio == *studio)
            || self.settings().studio_of_admin(key).is_some_and(|of| of.id == *studio)
    }

    /// The member record of a node that may act now: signed by an admin that still is one, not revoked, not expired.
    pub fn member(&self, node: &NodeId, now_ms: u64) -> Option<&Member> {
        let record = self.members.get(node)?;
        let expired = record.not_after_ms.is_some_and(|until| now_ms > until);
        let admitted = self.may_speak_for(&record.signer(), &record.studio).is_ok();
        let key = (record.studio, record.node);
        let gone = self.revoked.contains_key(&key) || self.rotated.contains_key(&key);
        (admitted && !expired && !gone).then_some(&**record)
    }

    /// Every node that may act now.
    pub fn members(&self, now_ms: u64) -> impl Iterator<Item = &Member> {
        self.members.keys().filter_map(move |node| self.member(node, now_ms))
    }

    fn may_speak_for(&self, signer: &PublicKey, studio: &StudioId) -> Result<(), RefusedRecord> {
        let known = self.settings().studio(studio).ok_or(RefusedRecord::UnknownStudio(*studio))?;
        if known.admins.contains(signer) && !self.revoked.contains_key(&(*studio, *signer)) {
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
        let beaten = self
            .members
            .get(&node)
            .is_some_and(|have| (have.version, record.hash()) >= (record.version, have.hash()));
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
        self.may_speak_for(&record.signer(), &record.studio)?;
        let beaten =
            self.revoked.get(&(record.studio, record.key)).is_some_and(|have| have.hash() <= record.hash());
        if beaten {
            return Ok(Added::Known);
        }
        self.revoked.insert((record.studio, record.key), record);
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
        if self.rotated.get(&key).is_some_and(|have| have.hash() <= record.hash()) {
            return Ok(Added::Known);
        }
        self.rotated.insert(key, record);
        Ok(Added::New)
    }
}

#[cfg(test)]
mod tests;
