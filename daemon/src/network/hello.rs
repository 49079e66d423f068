//! PURE: whether two nodes get along, judged from a Hello; if not, why in words.

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::PoolId;
use scenemesh_protocol::messages::Hello;

/// Clocks further apart than this make envelopes expire on the way.
const SKEW_LIMIT_MS: u64 = 5 * 60 * 1000;

/// Wire versions this release speaks, lowest and highest.
pub(super) const VERSIONS: (u8, u8) = (codec::VERSION, codec::VERSION);

/// What a good Hello tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The peer's clock minus ours.
    pub(super) skew_ms: i64,
}

/// Judges a peer's Hello.
///
/// # Errors
/// A sentence for `peers`, when the two cannot work together.
pub(super) fn judge(pool: &PoolId, now_ms: u64, hello: &Hello) -> Result<Agreed, String> {
    if hello.pool != *pool {
        return Err(format!("it is in another pool ({}, ours is {})", hello.pool.pool8(), pool.pool8()));
    }
    let (lowest, highest) = hello.versions;
    if lowest > VERSIONS.1 {
        return Err(format!(
            "it speaks wire versions {lowest} to {highest}, this node {} to {}: update this node",
            VERSIONS.0, VERSIONS.1
        ));
    }
    if highest < VERSIONS.0 {
        return Err(format!(
            "it speaks wire versions {lowest} to {highest}, this node {} to {}: update that node",
            VERSIONS.0, VERSIONS.1
        ));
    }
    let skew_ms = skew(now_ms, hello.now_ms);
    if skew_ms.unsigned_abs() > SKEW_LIMIT_MS {
        let apart = span(skew_ms.unsigned_abs());
        return Err(if skew_ms > 0 {
            format!("its clock is {apart} ahead of ours: let both set their clocks from a time server")
        } else {
            format!("its clock is {apart} behind ours: let both set their clocks from a time server")
        });
    }
    Ok(Agreed { skew_ms })
}

/// Theirs minus ours, in milliseconds.
pub(super) fn skew(ours_ms: u64, theirs_ms: u64) -> i64 {
    let apart = i64::try_from(ours_ms.abs_diff(theirs_ms)).unwrap_or(i64::MAX);
    if theirs_ms >= ours_ms { apart } else { -apart }
}

fn span(ms: u64) -> String {
    let minutes = ms / 60_000;
    if minutes < 120 { format!("{minutes} minutes") } else { format!("{} hours", minutes / 60) }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::ids::{BootId, ContentHash};
    use scenemesh_protocol::roster::RosterDigest;

    use super::*;

    const POOL: PoolId = PoolId::from_bytes([7; 16]);
    const NOW: u64 = 1_800_000_000_000;

    fn hello() -> Hello {
        let nothing = ContentHash::of(b"");
        Hello {
            pool: POOL,
            boot: BootId::from_bytes([1; 16]),
            versions: VERSIONS,
            agent: "scenemeshd 0.1.0".into(),
            roster: RosterDigest { epoch: 0, head: nothing, records: nothing },
            feeds: Vec::new(),
            now_ms: NOW,
        }
    }

    #[test]
    fn members_of_one_pool_with_good_clocks_get_along() {
        let fast = Hello { now_ms: NOW + 60_000, ..hello() };
        assert_eq!(judge(&POOL, NOW, &fast), Ok(Agreed { skew_ms: 60_000 }));
    }

    #[test]
    fn what_stands_between_two_nodes_is_said_in_words() {
        let other = Hello { pool: PoolId::from_bytes([8; 16]), ..hello() };
        assert_eq!(
            judge(&POOL, NOW, &other).unwrap_err(),
            "it is in another pool (08080808, ours is 07070707)"
        );
        let newer = Hello { versions: (9, 10), ..hello() };
        assert!(judge(&POOL, NOW, &newer).unwrap_err().ends_with("update this node"));
        let older = Hello { versions: (0, 0), ..hello() };
        assert!(judge(&POOL, NOW, &older).unwrap_err().ends_with("update that node"));
        let late = Hello { now_ms: NOW - 20 * 60_000, ..hello() };
        let words = judge(&POOL, NOW, &late).unwrap_err();
        assert!(words.starts_with("its clock is 20 minutes behind ours"), "{words}");
        let wild = Hello { now_ms: u64::MAX, ..hello() };
        assert!(judge(&POOL, NOW, &wild).unwrap_err().contains("hours ahead of"));
    }
}
