//! PURE: how much the admins of one studio may make every node write down.
//!
//! Whoever brings a record is not who made it: news is passed on. So what is counted is the studio that signed. What
//! is over waits: it is taken when somebody brings it again. Revocations always pass; their number is bounded.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::ids::StudioId;
use scenemesh_protocol::roster::{SignedRecord, SignedSettings};

use super::{Circle, Learnt, studio_name};

/// Bytes of records and proposals that a studio has at once: as many as a roster can hold, and some.
const BURST: u64 = 4 << 20;
/// Bytes that it gets back in an hour.
const PER_HOUR: u64 = 256 << 10;
const HOUR_MS: u64 = 3_600_000;

/// What each studio has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Intake(BTreeMap<StudioId, Left>);

#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: u64,
    at_ms: u64,
}

impl Intake {
    /// Whether more of this studio's is taken now.
    pub(super) fn has_room(&self, studio: &StudioId, now_ms: u64) -> bool {
        self.left(studio, now_ms).bytes > 0
    }

    /// Counts what was taken.
    pub(super) fn took(&mut self, studio: StudioId, bytes: usize, now_ms: u64) {
        let mut left = self.left(&studio, now_ms);
        left.bytes = left.bytes.saturating_sub(bytes as u64);
        self.0.insert(studio, left);
    }

    fn left(&self, studio: &StudioId, now_ms: u64) -> Left {
        let Some(left) = self.0.get(studio) else { return Left { bytes: BURST, at_ms: now_ms } };
        // A clock that is set back gives nothing, one that is set ahead an hour's worth per hour.
        let back = now_ms.saturating_sub(left.at_ms).saturating_mul(PER_HOUR) / HOUR_MS;
        if back == 0 {
            return *left;
        }
        Left { bytes: left.bytes.saturating_add(back).min(BURST), at_ms: now_ms }
    }
}

impl Circle {
    /// The studio that says a record, unless it is a revocation.
    pub(super) fn admitting_studio(&self, record: &SignedRecord) -> Option<StudioId> {
        let signer = match record {
            SignedRecord::Member(signed) => signed.claimed_signer(),
            SignedRecord::Rotated(signed) => signed.claimed_signer(),
            SignedRecord::Revoked(_) => return None,
        };
        self.roster.settings().studio_of_admin(&signer).map(|studio| studio.id)
    }

    /// The studios whose keys stand under a proposal, whether they hold or not.
    pub(super) fn claimed_studios(&self, signed: &SignedSettings) -> BTreeSet<StudioId> {
        let settings = self.roster.settings();
        let keys = signed.signatures.iter().filter_map(|signature| settings.studio_of_admin(&signature.key));
        keys.map(|studio| studio.id).collect()
    }

    pub(super) fn warn_of_flood(&self, studio: Option<StudioId>, learnt: &mut Learnt) {
        let name = studio.map(|studio| studio_name(&self.roster, &studio)).unwrap_or_default();
        let words = format!(
            "the admins of {name} sign more records and proposals than this node writes down in an hour; the rest \
             waits: ask them, or block their nodes"
        );
        if !learnt.warnings.contains(&words) {
            learnt.warnings.push(words);
        }
    }

    /// Pending proposals that this studio signed when they came.
    pub(super) fn brought_by(&self, studio: &StudioId) -> usize {
        self.proposals.values().filter(|proposal| proposal.by.contains(studio)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_studio_has_its_fill_and_then_an_hourly_part_and_another_is_not_touched() {
        let mut intake = Intake::default();
        let [loud, other] = [1, 2].map(|id| StudioId::from_bytes([id; 16]));
        let mut taken = 0_u64;
        while intake.has_room(&loud, 1000) {
            intake.took(loud, 1024, 1000);
            taken += 1024;
        }
        assert_eq!(taken, BURST);
        assert!(intake.has_room(&other, 1000));
        assert!(!intake.has_room(&loud, 0), "a clock set back gives nothing");
        let later = 1000 + HOUR_MS;
        assert!(intake.has_room(&loud, later));
        let mut more = 0_u64;
        while intake.has_room(&loud, later) {
            intake.took(loud, 1024, later);
            more += 1024;
        }
        assert_eq!(more, PER_HOUR);
    }
}
