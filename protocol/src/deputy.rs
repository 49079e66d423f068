//! The deputy: a node of the submitter's own studio that may grant the tasks of one job while the submitter is away.

use std::fmt;

use crate::codec::{Decode, Encode, Message};
use crate::envelope::MAX_SKEW_MS;
use crate::ids::{JobId, NodeId, PoolId, StudioId};
use crate::keys::{Domain, PublicKey};
use crate::roster::Member;
use crate::signed::{Signable, Signed, Unverified, Verified};

/// Longest that a right holds, as long as a job is kept; whoever still needs it is given a new one.
pub const RIGHT_LIFETIME_MS: u64 = 30 * 24 * 3600 * 1000;

/// What an origin signs for its deputy: you may grant the tasks of this job in your own name. Shown to every renderer
/// with the deputy's offers and grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GrantRight {
    pub pool: PoolId,
    /// The studio of both.
    pub studio: StudioId,
    /// Who submitted the job, and signs this.
    pub origin: NodeId,
    pub deputy: NodeId,
    pub job: JobId,
    /// Milliseconds since the Unix epoch on the origin's clock.
    pub issued_ms: u64,
    /// At most [`RIGHT_LIFETIME_MS`] after `issued_ms`.
    pub not_after_ms: u64,
}

impl Message for GrantRight {
    const TYPE: u16 = 0x0306;
    const LIMIT: usize = 512;
}

impl Signable for GrantRight {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/grant-right");
}

/// What a right is shown for, and what its reader knows of the pool.
pub struct Shown<'a> {
    pub pool: PoolId,
    /// Who showed it; the link says so.
    pub by: NodeId,
    pub job: JobId,
    pub now_ms: u64,
    /// A node that may act now: neither revoked nor shut out.
    pub member: &'a dyn Fn(&NodeId) -> Option<&'a Member>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("by", &self.by).field("job", &self.job).finish_non_exhaustive()
    }
}

/// Why a right gives none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRight {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error("the right is of another pool")]
    OtherPool,
    #[error("the right is for another job")]
    OtherJob,
    #[error("the right was given to another node")]
    OtherDeputy,
    #[error("the right names its own signer as deputy, or a signer that is not its origin")]
    NotItsOrigin,
    #[error("the right is not valid yet: one of the two clocks is wrong")]
    NotYet,
    #[error("the right holds longer than 30 days, or ends before it begins")]
    Lifetime,
    #[error("the right has expired: its origin has to give a new one")]
    Expired,
    #[error("its origin is no node of studio {0} that may submit")]
    OriginMayNot(StudioId),
    #[error("the deputy is no node of studio {0} with the role keep")]
    DeputyMayNot(StudioId),
}

impl GrantRight {
    /// Checks that whoever shows this right has it, for this job, now.
    ///
    /// # Errors
    /// When it does not; the first thing that is wrong.
    pub fn judge(right: &Signed<Self>, shown: &Shown<'_>) -> Result<Verified<Self>, NoRight> {
        let right = right.verify()?;
        if right.pool != shown.pool {
            return Err(NoRight::OtherPool);
        }
        if right.signer() != PublicKey::from(right.origin) || right.origin == right.deputy {
            return Err(NoRight::NotItsOrigin);
        }
        if right.deputy != shown.by {
            return Err(NoRight::OtherDeputy);
        }
        if right.job != shown.job {
            return Err(NoRight::OtherJob);
        }
        let lifetime_ms = right.not_after_ms.checked_sub(right.issued_ms);
        if lifetime_ms.is_none_or(|lifetime_ms| lifetime_ms > RIGHT_LIFETIME_MS) {
            return Err(NoRight::Lifetime);
        }
        if right.issued_ms > shown.now_ms.saturating_add(MAX_SKEW_MS) {
            return Err(NoRight::NotYet);
        }
        if shown.now_ms > right.not_after_ms {
            return Err(NoRight::Expired);
        }
        let of_studio = |node| (shown.member)(node).filter(|member| member.studio == right.studio);
        if !of_studio(&right.origin).is_some_and(|member| member.roles.submit) {
            return Err(NoRight::OriginMayNot(right.studio));
        }
        if !of_studio(&right.deputy).is_some_and(|member| member.roles.keep) {
            return Err(NoRight::DeputyMayNot(right.studio));
        }
        Ok(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KemSecret, SecretKey};
    use crate::lease::AcceptedTerms;
    use crate::roster::{Consent, Roles};

    const NOW: u64 = 1_800_000_000_000;
    const POOL: PoolId = PoolId::from_bytes([1; 16]);
    const HOME: StudioId = StudioId::from_bytes([2; 16]);
    const BIRCH: StudioId = StudioId::from_bytes([3; 16]);
    const JOB: JobId = JobId::from_bytes([4; 16]);

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn node(seed: u8) -> NodeId {
        key(seed).public().node()
    }

    fn member(seed: u8, studio: StudioId, roles: Roles) -> Member {
        let kem = KemSecret::from_bytes(&[seed; 32]).public();
        Member {
            pool: POOL,
            studio,
            node: key(seed).public(),
            kem,
            name: "amber-desk".into(),
            roles,
            version: 1,
            issued_ms: NOW,
            not_after_ms: None,
            consent: Consent { pool: POOL, studio, kem }.sign(&key(seed)),
        }
    }

    fn right() -> GrantRight {
        let (origin, deputy, not_after_ms) = (node(5), node(6), NOW + RIGHT_LIFETIME_MS);
        GrantRight { pool: POOL, studio: HOME, origin, deputy, job: JOB, issued_ms: NOW, not_after_ms }
    }

    /// Judged as the renderer does to whom the node 6 shows it.
    fn judge(right: &Signed<GrantRight>, members: &[Member], now_ms: u64) -> Result<(), NoRight> {
        let member = |node: &NodeId| members.iter().find(|member| member.node.node() == *node);
        let shown = Shown { pool: POOL, by: node(6), job: JOB, now_ms, member: &member };
        GrantRight::judge(right, &shown).map(drop)
    }

    fn studio() -> Vec<Member> {
        let keeper = Roles { submit: false, render: false, keep: true };
        vec![member(5, HOME, Roles::ALL), member(6, HOME, keeper)]
    }

    #[test]
    fn a_keeper_that_may_not_submit_has_the_right_until_it_ends() {
        let signed = Signed::new(&right(), &key(5));
        for now_ms in [NOW - MAX_SKEW_MS, NOW, NOW + RIGHT_LIFETIME_MS] {
            assert_eq!(judge(&signed, &studio(), now_ms), Ok(()), "{now_ms}");
        }
        assert_eq!(judge(&signed, &studio(), NOW - MAX_SKEW_MS - 1), Err(NoRight::NotYet));
        assert_eq!(judge(&signed, &studio(), NOW + RIGHT_LIFETIME_MS + 1), Err(NoRight::Expired));
    }

    #[test]
    fn every_part_of_a_right_is_held_against_what_it_is_shown_for() {
        type Change = fn(&mut GrantRight);
        let given = |change: Change| {
            let mut changed = right();
            change(&mut changed);
            judge(&Signed::new(&changed, &key(5)), &studio(), NOW)
        };
        let table: [(Change, NoRight); 8] = [
            (|right| right.pool = PoolId::from_bytes([9; 16]), NoRight::OtherPool),
            (|right| right.job = JobId::from_bytes([9; 16]), NoRight::OtherJob),
            (|right| right.deputy = node(7), NoRight::OtherDeputy),
            (|right| right.deputy = right.origin, NoRight::NotItsOrigin),
            (|right| right.origin = node(7), NoRight::NotItsOrigin),
            (|right| right.not_after_ms += 1, NoRight::Lifetime),
            (|right| right.not_after_ms = right.issued_ms - 1, NoRight::Lifetime),
            (|right| right.studio = BIRCH, NoRight::OriginMayNot(BIRCH)),
        ];
        for (change, refused) in table {
            assert_eq!(given(change), Err(refused));
        }
    }

    #[test]
    fn a_right_is_signed_by_its_origin_and_as_a_right() {
        let by_the_deputy = Signed::new(&right(), &key(6));
        assert_eq!(judge(&by_the_deputy, &studio(), NOW), Err(NoRight::NotItsOrigin));
        // The same bytes under the signature of another kind of statement.
        let body = crate::codec::encode_body(&right());
        let parts = (body.clone(), key(5).public(), key(5).sign(AcceptedTerms::DOMAIN, &body));
        let moved: Signed<GrantRight> =
            crate::codec::decode_body(&crate::codec::encode_body(&parts), 1 << 10).unwrap();
        assert!(matches!(judge(&moved, &studio(), NOW), Err(NoRight::Unverified(Unverified::Forged(_)))));
    }

    #[test]
    fn both_must_be_of_one_studio_and_have_their_roles() {
        let signed = Signed::new(&right(), &key(5));
        let only = |roles: Roles| vec![member(5, HOME, Roles::ALL), member(6, HOME, roles)];
        let without_keep = only(Roles { keep: false, ..Roles::ALL });
        let foreign = vec![member(5, HOME, Roles::ALL), member(6, BIRCH, Roles::ALL)];
        for members in [without_keep, foreign, studio()[..1].to_vec()] {
            assert_eq!(judge(&signed, &members, NOW), Err(NoRight::DeputyMayNot(HOME)));
        }
        let mut silent = studio();
        silent[0].roles.submit = false;
        let moved = vec![member(5, BIRCH, Roles::ALL), studio().remove(1)];
        for members in [silent, moved, studio()[1..].to_vec()] {
            assert_eq!(judge(&signed, &members, NOW), Err(NoRight::OriginMayNot(HOME)));
        }
    }
}
