//! The deputy: a node of the submitter's own studio that may grant the tasks of one job while the submitter is away.
//!
//! Four verbs, all of them the origin's, to a node of its own studio: [`Keep`] gives it a job, [`KeepNews`] says what has
//! become of its tasks, [`TakeBack`] asks what the deputy did meanwhile, [`Release`] ends it. Results travel in both
//! directions as those of a renderer do: `Finished`, blobs, `Ack`.

use std::fmt;

use crate::codec::{Decode, Encode, Message};
use crate::envelope::{MAX_SKEW_MS, Sealable};
use crate::ids::{ContentHash, JobId, NodeId, PoolId, StudioId, TaskId};
use crate::keys::{Domain, PublicKey};
use crate::lease::BlobRef;
use crate::roster::Roles;
use crate::sealed::BlobKey;
use crate::signed::{Signable, Signed, Unverified, Verified};

/// Attempts that are granted in the `term`-th handover of a job are counted from here; the origin's own from 1. So no two
/// granters give one name to two attempts, though they do not hear each other.
pub const fn first_attempt(term: u32) -> u32 {
    if term == 0 { 1 } else { term << TERM_BITS }
}

/// The term that an attempt's number is of.
pub const fn term_of(attempt: u32) -> u32 {
    attempt >> TERM_BITS
}

/// Handovers that a job can have; its deputy then grants no more.
pub const LAST_TERM: u32 = (1 << (32 - TERM_BITS)) - 1;

const TERM_BITS: u32 = 20;

/// Origin → deputy: hold this job, and go on with it while I am away. Whoever has it already changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Keep {
    pub right: Signed<GrantRight>,
    /// A [`KeptJob`], sealed to the deputy under the job's own name as task and attempt 0.
    pub envelope: Vec<u8>,
    /// The sealed job and its sealed inputs.
    pub roots: Vec<BlobRef>,
}

/// Where the job is: its encoding is the daemon's own, so that both ends must be of releases that understand it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeptJob {
    pub job: JobId,
    pub root: ContentHash,
    pub key: BlobKey,
    /// Plaintext bytes.
    pub bytes: u64,
}

impl Message for KeptJob {
    const TYPE: u16 = 0x0313;
    const LIMIT: usize = 256;
}

impl Sealable for KeptJob {
    const DOMAIN: Domain = Domain::new("scenemesh/v1/envelope/kept-job");

    fn names(&self) -> Option<(TaskId, u32)> {
        Some((shelf_of(self.job), 0))
    }
}

/// What a whole job is called where a task is named.
pub const fn shelf_of(job: JobId) -> TaskId {
    TaskId::from_bytes(*job.as_bytes())
}

/// Answer to a [`Keep`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KeepReply {
    /// Held, or being fetched: [`TakeBack`] tells which.
    Coming,
    /// Not here, and why, in words.
    Refused(String),
}

/// Origin → deputy: how tasks of a kept job stand by now, results aside.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeepNews {
    pub job: JobId,
    /// At most [`NEWS_LIMIT`] in one message.
    pub tasks: Vec<(TaskId, TaskNews)>,
}

/// Most tasks that one [`KeepNews`] tells of.
pub const NEWS_LIMIT: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TaskNews {
    /// It is to be rendered.
    Open,
    /// A person wants it not to begin.
    Paused,
    /// It ended without a result: nobody renders it.
    Over,
}

/// Origin → deputy: I am back. From the answer on the deputy grants nothing more of this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TakeBack {
    pub job: JobId,
}

/// Answer to a [`TakeBack`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TakeBackReply {
    /// It holds no such job of yours.
    Unknown,
    /// Being fetched, and not taken up.
    Coming,
    /// Held, and the origin's to grant. What the deputy has had rendered, or is having rendered, it brings as if it
    /// were the renderer.
    Yours {
        in_hand: Vec<InHand>,
        /// Tasks whose results it has: those need not be sent to it.
        done: Vec<TaskId>,
    },
}

/// An attempt that the deputy granted and whose result it has or awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InHand {
    pub task: TaskId,
    pub attempt: u32,
    /// Hash of the deputy's grant, which the result will name.
    pub grant: ContentHash,
}

/// Origin → deputy: nothing of this job need be kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Release {
    pub job: JobId,
}

/// Longest that a right holds: a job that is older is not gone on with.
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
    pub member: &'a dyn Fn(&NodeId) -> Option<(StudioId, Roles)>,
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
        right.still_holds(shown.now_ms, shown.member)?;
        Ok(right)
    }

    /// What can change after a right was judged: its end comes, or one of the two loses its place.
    ///
    /// # Errors
    /// When it has.
    pub fn still_holds(
        &self,
        now_ms: u64,
        member: &dyn Fn(&NodeId) -> Option<(StudioId, Roles)>,
    ) -> Result<(), NoRight> {
        if now_ms > self.not_after_ms {
            return Err(NoRight::Expired);
        }
        let roles_of =
            |node| member(node).filter(|(studio, _)| *studio == self.studio).map(|(_, roles)| roles);
        if !roles_of(&self.origin).is_some_and(|roles| roles.submit) {
            return Err(NoRight::OriginMayNot(self.studio));
        }
        if !roles_of(&self.deputy).is_some_and(|roles| roles.keep) {
            return Err(NoRight::DeputyMayNot(self.studio));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;
    use crate::lease::AcceptedTerms;

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

    type Seat = (NodeId, StudioId, Roles);

    fn member(seed: u8, studio: StudioId, roles: Roles) -> Seat {
        (node(seed), studio, roles)
    }

    fn right() -> GrantRight {
        let (origin, deputy, not_after_ms) = (node(5), node(6), NOW + RIGHT_LIFETIME_MS);
        GrantRight { pool: POOL, studio: HOME, origin, deputy, job: JOB, issued_ms: NOW, not_after_ms }
    }

    /// Judged as the renderer does to whom the node 6 shows it.
    fn judge(right: &Signed<GrantRight>, members: &[Seat], now_ms: u64) -> Result<(), NoRight> {
        let member = |node: &NodeId| {
            members.iter().find(|(of, ..)| of == node).map(|(_, studio, roles)| (*studio, *roles))
        };
        let shown = Shown { pool: POOL, by: node(6), job: JOB, now_ms, member: &member };
        GrantRight::judge(right, &shown).map(drop)
    }

    fn studio() -> Vec<Seat> {
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
        silent[0].2.submit = false;
        let moved = vec![member(5, BIRCH, Roles::ALL), studio().remove(1)];
        for members in [silent, moved, studio()[1..].to_vec()] {
            assert_eq!(judge(&signed, &members, NOW), Err(NoRight::OriginMayNot(HOME)));
        }
    }

    #[test]
    fn the_numbers_of_two_terms_never_meet() {
        assert_eq!((first_attempt(0), first_attempt(1), first_attempt(LAST_TERM)), (1, 1 << 20, 0xfff0_0000));
        for attempt in [1, first_attempt(1) - 1] {
            assert_eq!(term_of(attempt), 0);
        }
        assert_eq!(term_of(first_attempt(7)), 7);
        assert_eq!(term_of(u32::MAX), LAST_TERM);
    }
}
