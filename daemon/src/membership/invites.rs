//! PURE: invites that this node made, who may redeem them, and how often somebody may guess.
//!
//! Only the public half of an invite's key is kept. An invite is used up in the same journal commit that admits its
//! joiner: when that commit fails, neither has happened.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::ids::{NodeId, StudioId};
use scenemesh_protocol::invite::JoinRefusal;
use scenemesh_protocol::keys::PublicKey;
use scenemesh_protocol::roster::Roles;
use tokio::time::Instant;

/// How long an invite stands when nothing else is said.
pub const DEFAULT_EXPIRY: Duration = Duration::from_hours(24);
/// Longest expiry that can be asked for.
pub const LONGEST_EXPIRY: Duration = Duration::from_hours(24 * 30);
/// Invites that may be open at once.
const OPEN_LIMIT: usize = 64;
/// How long an expired or used invite is remembered, in milliseconds: its joiner may ask again for a lost answer.
const REMEMBERED_MS: u64 = 7 * 86_400_000;

/// An invite as it is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Invited {
    /// Public half of the invite's key; names the invite.
    pub key: PublicKey,
    pub roles: Roles,
    /// The studio that its joiner founds; none for a machine of this node's own studio.
    pub new_studio: Option<String>,
    pub created_ms: u64,
    pub expires_ms: u64,
    pub redeemed: Option<Redeemed>,
}

/// Who used an invite.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Redeemed {
    pub node: NodeId,
    /// The studio that was proposed for it.
    pub founds: Option<StudioId>,
    pub at_ms: u64,
}

/// What an invite says to somebody who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claimable {
    Fresh(Invited),
    /// By the same node before: answer as then.
    Again(Invited, Redeemed),
}

/// Why an invite is not honoured, with the sentence for the joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: JoinRefusal,
    pub words: String,
}

impl Refusal {
    pub(super) fn new(reason: JoinRefusal, words: impl Into<String>) -> Self {
        Self { reason, words: words.into() }
    }

    pub(super) fn unknown() -> Self {
        Self::new(
            JoinRefusal::UnknownInvite,
            "this node did not make that invite, or has forgotten it; only the node that made an invite can redeem \
             it: ask for a new one",
        )
    }
}

/// All invites of this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Invites(BTreeMap<PublicKey, Invited>);

/// An invite that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoInvite {
    #[error("{OPEN_LIMIT} invites are open already; wait until some are used or expire")]
    TooMany,
    #[error("an invite can stand for at most 30 days and at least one minute; give --expires as 24h or 7d")]
    Expiry,
}

impl Invites {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Invited> {
        self.0.values()
    }

    pub(super) fn get(&self, key: &PublicKey) -> Option<&Invited> {
        self.0.get(key)
    }

    /// Writes or rewrites an invite, as decided or as replayed.
    pub(super) fn put(&mut self, invited: Invited) {
        self.0.insert(invited.key, invited);
    }

    /// Whether an invite waits for its joiner: then the admin key stays in memory.
    pub(super) fn any_open(&self, now_ms: u64) -> bool {
        self.0.values().any(|invited| invited.is_open(now_ms))
    }

    /// Whether one more can be made.
    ///
    /// # Errors
    /// When too many are open or it would stand for too long or too short.
    pub(super) fn check_new(&self, expires: Duration, now_ms: u64) -> Result<(), NoInvite> {
        if !(Duration::from_mins(1)..=LONGEST_EXPIRY).contains(&expires) {
            return Err(NoInvite::Expiry);
        }
        let open = self.0.values().filter(|invited| invited.is_open(now_ms)).count();
        if open >= OPEN_LIMIT { Err(NoInvite::TooMany) } else { Ok(()) }
    }

    /// What `node`, which proved that it holds the invite, may do with it.
    ///
    /// # Errors
    /// When it is expired or another's.
    pub(super) fn claim(&self, key: &PublicKey, node: &NodeId, now_ms: u64) -> Result<Claimable, Refusal> {
        let invited = self.0.get(key).ok_or_else(Refusal::unknown)?;
        match &invited.redeemed {
            Some(by) if by.node == *node => Ok(Claimable::Again(invited.clone(), by.clone())),
            Some(_) => Err(Refusal::new(
                JoinRefusal::Used,
                "this invite was used by another machine; if that was not one of yours, tell the admin, and ask for \
                 a new invite",
            )),
            None if now_ms >= invited.expires_ms => {
                let minutes = (now_ms - invited.expires_ms) / 60_000;
                let ago =
                    if minutes < 120 { format!("{minutes} min") } else { format!("{} h", minutes / 60) };
                Err(Refusal::new(
                    JoinRefusal::Expired,
                    format!("this invite expired {ago} ago; ask for a new one"),
                ))
            }
            None => Ok(Claimable::Fresh(invited.clone())),
        }
    }

    /// Forgets what nobody can need any more.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.0.retain(|_, invited| {
            let end = invited.redeemed.as_ref().map_or(invited.expires_ms, |by| by.at_ms);
            now_ms < end.saturating_add(REMEMBERED_MS)
        });
    }
}

impl Invited {
    pub(super) fn is_open(&self, now_ms: u64) -> bool {
        self.redeemed.is_none() && now_ms < self.expires_ms
    }
}

/// Failed tries that one address has in [`TRY_WINDOW`].
const TRIES: usize = 5;
const TRY_WINDOW: Duration = Duration::from_mins(10);
/// Addresses remembered; beyond that everybody without a record waits, which costs a guesser more than us.
const ADDRESSES: usize = 4096;

/// Counts failed tries per address: a secret of 128 bits is not guessed, but nobody shall try.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries(BTreeMap<String, VecDeque<Instant>>);

impl Tries {
    /// How long this address has to wait before it may try again; none when it may now.
    pub(super) fn wait(&mut self, address: &str, now: Instant) -> Option<Duration> {
        self.0.retain(|_, tries| {
            tries.retain(|at| now.saturating_duration_since(*at) < TRY_WINDOW);
            !tries.is_empty()
        });
        match self.0.get(&host_of(address)) {
            Some(tries) if tries.len() >= TRIES => {
                tries.front().map(|first| TRY_WINDOW.saturating_sub(now.saturating_duration_since(*first)))
            }
            Some(_) => None,
            None => (self.0.len() >= ADDRESSES).then_some(TRY_WINDOW),
        }
    }

    pub(super) fn failed(&mut self, address: &str, now: Instant) {
        let tries = self.0.entry(host_of(address)).or_default();
        if tries.len() < TRIES {
            tries.push_back(now);
        }
    }
}

/// The host part of a multiaddr; of IPv6 the first 64 bits, which one customer has all of.
fn host_of(address: &str) -> String {
    let mut parts = address.split('/').skip(1);
    let (kind, host) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match (kind, host.parse::<std::net::Ipv6Addr>()) {
        ("ip6", Ok(ip)) => ip.segments()[..4].iter().map(|part| format!("{part:x}:")).collect(),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::keys::SecretKey;

    use super::*;

    fn invited(now_ms: u64) -> (Invites, PublicKey) {
        let key = SecretKey::generate().public();
        let mut invites = Invites::default();
        invites.put(Invited {
            key,
            roles: Roles::ALL,
            new_studio: None,
            created_ms: now_ms,
            expires_ms: now_ms + 1000,
            redeemed: None,
        });
        (invites, key)
    }

    fn node() -> NodeId {
        SecretKey::generate().public().node()
    }

    #[test]
    fn an_invite_is_for_one_node_which_may_ask_again() {
        let (mut invites, key) = invited(0);
        let (first, second) = (node(), node());
        let Ok(Claimable::Fresh(mut fresh)) = invites.claim(&key, &first, 1) else { panic!("not fresh") };
        assert!(invites.any_open(1));
        fresh.redeemed = Some(Redeemed { node: first, founds: None, at_ms: 1 });
        invites.put(fresh);
        assert!(!invites.any_open(1));
        assert!(
            matches!(invites.claim(&key, &first, 5000), Ok(Claimable::Again(..))),
            "even after its expiry"
        );
        assert_eq!(invites.claim(&key, &second, 2).unwrap_err().reason, JoinRefusal::Used);
    }

    #[test]
    fn each_refusal_has_its_own_words() {
        let (mut invites, key) = invited(0);
        let expired = invites.claim(&key, &node(), 180_000).unwrap_err();
        assert_eq!(expired.reason, JoinRefusal::Expired);
        assert!(expired.words.contains("2 min ago"), "{}", expired.words);
        let foreign = invites.claim(&SecretKey::generate().public(), &node(), 1).unwrap_err();
        assert_eq!(foreign.reason, JoinRefusal::UnknownInvite);
        invites.sweep(REMEMBERED_MS + 1000);
        assert_eq!(invites.claim(&key, &node(), 1).unwrap_err().reason, JoinRefusal::UnknownInvite);
    }

    #[test]
    fn invites_are_bounded_in_number_and_time() {
        let (mut invites, _) = invited(0);
        assert_eq!(invites.check_new(Duration::from_secs(5), 1), Err(NoInvite::Expiry));
        assert_eq!(invites.check_new(LONGEST_EXPIRY + Duration::from_secs(1), 1), Err(NoInvite::Expiry));
        for _ in 1..OPEN_LIMIT {
            assert_eq!(invites.check_new(DEFAULT_EXPIRY, 1), Ok(()));
            let (more, key) = invited(0);
            invites.put(more.get(&key).unwrap().clone());
        }
        assert_eq!(invites.check_new(DEFAULT_EXPIRY, 1), Err(NoInvite::TooMany));
        assert_eq!(invites.check_new(DEFAULT_EXPIRY, 1000), Ok(()), "expired ones do not count");
    }

    #[test]
    fn five_failed_tries_per_address_in_ten_minutes() {
        let start = Instant::now();
        let mut tries = Tries::default();
        for port in 0..TRIES {
            assert_eq!(tries.wait("/ip4/10.0.0.9/tcp/1", start), None);
            tries.failed(&format!("/ip4/10.0.0.9/tcp/{port}"), start);
        }
        let later = start + Duration::from_mins(4);
        assert_eq!(tries.wait("/ip4/10.0.0.9/tcp/77", later), Some(Duration::from_mins(6)));
        assert_eq!(tries.wait("/ip4/10.0.0.8/tcp/77", later), None);
        assert_eq!(tries.wait("/ip4/10.0.0.9/tcp/77", start + TRY_WINDOW), None);
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        assert_eq!(host_of("/ip6/2001:db8:1:2::3/tcp/1"), host_of("/ip6/2001:db8:1:2:ffff::4/tcp/9"));
        assert_ne!(host_of("/ip6/2001:db8:1:2::3/tcp/1"), host_of("/ip6/2001:db8:1:3::3/tcp/1"));
    }
}
