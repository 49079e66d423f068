//! PURE: going on under new keys. The node asks with both of its keys, an admin of its studio countersigns, and the
//! old key is refused everywhere from then on.

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::keys::{KemPublic, PublicKey, SecretKey};
use scenemesh_protocol::roster::{
    BadRotationCode, Consent, Member, Rotated, Rotation, RotationRequest, SignedRecord,
};
use scenemesh_protocol::signed::Signed;

use super::state::{State, Step};

/// Why no keys were exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRotate {
    #[error(
        "this node is in no pool: its key is nobody's business; for a new one start with an empty data directory"
    )]
    NoPool,
    #[error(
        "this node is no member of its pool now, so that nobody would follow it to a new key; see scenemesh status"
    )]
    NotMember,
    #[error(
        "this node has work of others or its own at others ({out} out there, {here} here), which is bound to its key; wait until scenemesh status shows no running tasks, or cancel them"
    )]
    Busy { out: usize, here: usize },
    #[error(transparent)]
    Code(#[from] BadRotationCode),
    #[error("the code is of a node in another pool; countersign it there")]
    OtherPool,
    #[error("the code is of a node of another studio, whose admins countersign it")]
    OtherStudio,
    #[error(
        "the key in the code is no member of {studio} now; it may have been exchanged or revoked already"
    )]
    NotMemberThere { studio: String },
    #[error("the new key in the code is weak or known already; run scenemesh rotate again on that machine")]
    BadKey,
    #[error("the admin key is locked; give its passphrase with --passphrase-file")]
    Locked,
    #[error("this node does not hold an admin key of {studio}; countersign on the machine that does")]
    NoAdminKey { studio: String },
    #[error("the roster is full and does not take the new key; ask for an invite with a new data directory")]
    Full,
}

/// A rotation that was countersigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countersigned {
    pub name: String,
    pub old: NodeId,
    pub new: NodeId,
}

impl State {
    /// The request for an admin's signature under this node's new keys.
    pub(super) fn ask_rotation(
        &self,
        new: &SecretKey,
        kem: KemPublic,
        now_ms: u64,
    ) -> Result<RotationRequest, CannotRotate> {
        let (Some(roster), Some(place)) = (self.roster(), &self.place) else {
            return Err(CannotRotate::NoPool);
        };
        if !self.is_member(now_ms) {
            return Err(CannotRotate::NotMember);
        }
        let (pool, studio) = (roster.pool(), place.studio);
        let rotation =
            Rotation { pool, studio, old: self.me.node.public(), new: new.public(), kem, issued_ms: now_ms };
        let (old_signature, new_signature) = (rotation.sign(&self.me.node), rotation.sign(new));
        let rotated = Rotated { rotation, old_signature, new_signature };
        Ok(RotationRequest { rotated, consent: Consent { pool, studio, kem }.sign(new) })
    }

    /// Signs a node of the own studio over to its new key, with the admin key that is unlocked here.
    pub(super) fn countersign(
        &mut self,
        request: &RotationRequest,
        now_ms: u64,
    ) -> Result<(Step, Countersigned), CannotRotate> {
        let roster = self.roster().ok_or(CannotRotate::NoPool)?.clone();
        let own = self.place.as_ref().ok_or(CannotRotate::NoPool)?.studio;
        let rotation = request.rotated.rotation;
        if rotation.pool != roster.pool() {
            return Err(CannotRotate::OtherPool);
        }
        if rotation.studio != own {
            return Err(CannotRotate::OtherStudio);
        }
        let old = rotation.old.node();
        let known = roster.successor(&rotation.old) == Some(rotation.new);
        let before = roster.record_of(&old).filter(|member| member.studio == own);
        let Some(before) = before.filter(|_| known || roster.member(&old, now_ms).is_some()) else {
            return Err(CannotRotate::NotMemberThere { studio: self.own_studio() });
        };
        let done = Countersigned { name: before.name.clone(), old, new: rotation.new.node() };
        if known {
            // Said once more, for whoever missed it.
            let records = self.records_of_rotation(&rotation.old);
            let mut step = Step::default();
            step.news.records = records;
            return Ok((step, done));
        }
        let fresh = rotation.new.is_sound() && rotation.kem.is_sound() && rotation.new != rotation.old;
        if !fresh || roster.record_of(&rotation.new.node()).is_some() {
            return Err(CannotRotate::BadKey);
        }
        let Some(admin) = self.admin_of().map(|(admin, _)| admin.clone()) else {
            return Err(CannotRotate::Locked);
        };
        let member = Member {
            node: rotation.new,
            kem: rotation.kem,
            version: 1,
            issued_ms: now_ms,
            consent: request.consent,
            ..(**before).clone()
        };
        let Some(circle) = &mut self.circle else { return Err(CannotRotate::NoPool) };
        let mut step = Step::default();
        // The new key first: whoever hears only half of it does not lose the node.
        step.learnt(circle.publish(&SignedRecord::Member(Signed::new(&member, &admin))));
        step.learnt(circle.publish(&SignedRecord::Rotated(Signed::new(&request.rotated, &admin))));
        if circle.roster().successor(&rotation.old) != Some(rotation.new)
            || circle.roster().member(&done.new, now_ms).is_none()
        {
            return Err(CannotRotate::Full);
        }
        Ok((step, done))
    }

    fn records_of_rotation(&self, old: &PublicKey) -> Vec<SignedRecord> {
        let Some(roster) = self.roster() else { return Vec::new() };
        let rotated = roster.rotation_of(old);
        let next = rotated.and_then(|rotated| roster.record_of(&rotated.rotation.new.node()));
        let next = next.map(|member| SignedRecord::Member(member.signed().clone()));
        next.into_iter()
            .chain(rotated.map(|rotated| SignedRecord::Rotated(rotated.signed().clone())))
            .collect()
    }

    /// The key under which this node has to go on, once an admin has countersigned.
    pub(super) fn own_successor(&self) -> Option<PublicKey> {
        let roster = self.roster()?;
        let next = roster.successor(&self.me.node.public())?;
        roster.record_of(&next.node()).is_some().then_some(next)
    }
}
