//! The checks between reading an envelope's outside and opening it, in their order.

use std::fmt;

use super::{Header, MAX_LIFETIME_MS, MAX_SKEW_MS};
use crate::ids::{MsgId, NodeId, PoolId};

/// What the roster says of a sender: may it send this kind of envelope?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member with the role that this kind needs (submit for a grant, render for result keys).
    Admitted,
    /// A member without that role.
    LacksRole,
    Revoked,
    Unknown,
}

/// What the receiver knows when an envelope comes in.
pub struct Desk<'a> {
    pub pool: PoolId,
    pub me: NodeId,
    /// The settings epoch of this node's roster.
    pub epoch: u64,
    pub standing: &'a dyn Fn(&NodeId) -> Standing,
    /// Whether this sender's message id is in the replay memory.
    pub seen: &'a dyn Fn(&NodeId, &MsgId) -> bool,
    /// The replay memory was purged up to this expiry: what expires at or before it cannot be told from a
    /// replay, so it is refused whatever the clock says. Only ever grows.
    pub purged_ms: u64,
}

impl fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("pool", &self.pool)
            .field("me", &self.me)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The first check that an envelope did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the envelope is of pool {theirs}, this node is in {mine}")]
    OtherPool { theirs: PoolId, mine: PoolId },
    #[error("the envelope is addressed to {to}, not to this node")]
    NotForMe { to: NodeId },
    /// Fetch the roster from the sender, then judge again.
    #[error("the sender knows roster epoch {theirs}, this node only {mine}")]
    RosterBehind { theirs: u64, mine: u64 },
    #[error("the sender {from} is not a member of the pool")]
    UnknownSender { from: NodeId },
    #[error("the sender {from} was revoked")]
    RevokedSender { from: NodeId },
    #[error("the sender {from} has no role that allows this envelope")]
    SenderLacksRole { from: NodeId },
    #[error("the envelope may be accepted for {lifetime_ms} ms, at most {MAX_LIFETIME_MS} ms are allowed")]
    Lifetime { lifetime_ms: i128 },
    #[error(
        "the envelope expired {} ago by this node's clock; compare the clocks of both machines",
        duration_words(*.late_ms)
    )]
    Expired { late_ms: u64 },
    #[error(
        "the envelope was created {} in the future by this node's clock; compare the clocks of both machines",
        duration_words(*.early_ms)
    )]
    FromTheFuture { early_ms: u64 },
    #[error("the envelope is older than this node's replay memory; it has to be sealed again")]
    BelowPurgeMark,
    /// Answer with the state of its attempt if that is held here.
    #[error("the envelope {msg_id} was received before")]
    Seen { msg_id: MsgId },
}

/// A duration as people say it, rounded down to one unit.
fn duration_words(ms: u64) -> String {
    let seconds = ms / 1000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Judges what is written on the outside: pool, addressee, roster, time, replay. `now_ms` is this node's wall
/// clock, in milliseconds since the Unix epoch.
///
/// # Errors
/// The first check that fails.
pub fn judge_header(header: &Header, now_ms: u64, desk: &Desk<'_>) -> Result<(), Refused> {
    if header.pool != desk.pool {
        return Err(Refused::OtherPool { theirs: header.pool, mine: desk.pool });
    }
    if header.to != desk.me {
        return Err(Refused::NotForMe { to: header.to });
    }
    if header.epoch > desk.epoch {
        return Err(Refused::RosterBehind { theirs: header.epoch, mine: desk.epoch });
    }
    let from = header.from;
    match (desk.standing)(&from) {
        Standing::Admitted => {}
        Standing::LacksRole => return Err(Refused::SenderLacksRole { from }),
        Standing::Revoked => return Err(Refused::RevokedSender { from }),
        Standing::Unknown => return Err(Refused::UnknownSender { from }),
    }
    let lifetime_ms = i128::from(header.expires_ms) - i128::from(header.created_ms);
    if lifetime_ms <= 0 || lifetime_ms > i128::from(MAX_LIFETIME_MS) {
        return Err(Refused::Lifetime { lifetime_ms });
    }
    let late_ms = now_ms.saturating_sub(header.expires_ms);
    if late_ms > MAX_SKEW_MS {
        return Err(Refused::Expired { late_ms });
    }
    let early_ms = header.created_ms.saturating_sub(now_ms);
    if early_ms > MAX_SKEW_MS {
        return Err(Refused::FromTheFuture { early_ms });
    }
    if header.expires_ms <= desk.purged_ms {
        return Err(Refused::BelowPurgeMark);
    }
    if (desk.seen)(&from, &header.msg_id) {
        return Err(Refused::Seen { msg_id: header.msg_id });
    }
    Ok(())
}
