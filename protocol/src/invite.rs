//! Invites: how a stranger becomes a member.
//!
//! An invite code carries where to knock and a one-use secret. The secret is the seed of an Ed25519 key whose
//! public half is all that the inviter stores; the joiner proves that it holds the code, and its own node key, by
//! signing one [`Joining`] with both.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::{self, Decode, DecodeError, Encode};
use crate::ids::{NodeId, PoolId, StudioId, random_bytes};
use crate::keys::{Domain, ForgedSignature, KemPublic, PublicKey, SecretKey, Signature};
use crate::roster::{Consent, SignedRecord, SignedSettings, is_name};
use crate::text_code::{self, BadText};

mod address;

/// Most addresses in one code.
pub const ADDRESS_LIMIT: usize = 3;
/// Longest address in a code, in bytes of its text.
pub const ADDRESS_LEN_LIMIT: usize = 128;

const WORD: &str = "smesh";
const VERSION: char = '1';

/// The secret of one invite: 128 random bits. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    #[must_use]
    pub fn generate() -> Self {
        Self(random_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// An invite as its code carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    pub pool: PoolId,
    /// The only node that can redeem it.
    pub inviter: NodeId,
    /// The inviter's studio, which the joiner consents to unless it founds its own.
    pub studio: StudioId,
    secret: InviteSecret,
    /// Where the inviter's porch listens, as multiaddr text, best first.
    addresses: Vec<String>,
}

/// Why a text is not an invite that this node can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInvite {
    #[error(
        "this is not an invite code: those begin with {WORD}{VERSION}; copy the whole line from the inviter"
    )]
    NotAnInvite,
    #[error("the invite code is damaged: a character is wrong or missing; copy the whole code again")]
    Damaged,
    #[error(
        "the invite code has version {theirs}, this release reads version {VERSION}; upgrade the older side"
    )]
    Version { theirs: char },
}

impl Invite {
    /// A new invite. Of `addresses` the first [`ADDRESS_LIMIT`] that are multiaddr text of at most
    /// [`ADDRESS_LEN_LIMIT`] bytes are kept.
    pub fn new<A: AsRef<str>>(
        pool: PoolId,
        inviter: NodeId,
        studio: StudioId,
        secret: InviteSecret,
        addresses: impl IntoIterator<Item = A>,
    ) -> Self {
        let addresses = addresses
            .into_iter()
            .map(|address| address.as_ref().to_owned())
            .filter(|address| address::is_address(address))
            .take(ADDRESS_LIMIT)
            .collect();
        Self { pool, inviter, studio, secret, addresses }
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The key that proves possession of the code; the inviter stores its public half.
    ///
    /// Its seed is BLAKE3's `derive_key("scenemesh v1 invite key", pool ‖ inviter ‖ secret)`.
    pub fn key(&self) -> SecretKey {
        let material =
            Zeroizing::new([&self.pool.as_bytes()[..], self.inviter.as_bytes(), &self.secret.0].concat());
        SecretKey::from_seed(&Zeroizing::new(blake3::derive_key("scenemesh v1 invite key", &material)))
    }

    /// pool (16) ‖ inviter (32) ‖ studio (16) ‖ secret (16) ‖ number of addresses (1) ‖ addresses.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let addresses: Vec<u8> =
            self.addresses.iter().flat_map(|address| address::to_compact(address)).collect();
        let count = u8::try_from(self.addresses.len()).expect("an invite has at most three addresses");
        Zeroizing::new(
            [
                &self.pool.as_bytes()[..],
                self.inviter.as_bytes(),
                self.studio.as_bytes(),
                &self.secret.0,
                &[count],
                &addresses,
            ]
            .concat(),
        )
    }

    /// The code that the joiner is given. It is a secret until it is used.
    pub fn to_code(&self) -> Zeroizing<String> {
        text_code::write(WORD, VERSION, &self.to_bytes())
    }

    /// Reads a code as people copy it: case, spaces and line breaks do not matter.
    ///
    /// # Errors
    /// As [`BadInvite`] says.
    pub fn from_code(text: &str) -> Result<Self, BadInvite> {
        let bytes = text_code::read(WORD, VERSION, text).map_err(|bad| match bad {
            BadText::Other => BadInvite::NotAnInvite,
            BadText::Version(theirs) => BadInvite::Version { theirs },
            BadText::Damaged => BadInvite::Damaged,
        })?;
        Self::from_bytes(&bytes).ok_or(BadInvite::Damaged)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pool, bytes) = bytes.split_first_chunk()?;
        let (inviter, bytes) = bytes.split_first_chunk()?;
        let (studio, bytes) = bytes.split_first_chunk()?;
        let (secret, bytes) = bytes.split_first_chunk()?;
        let (&count, mut bytes) = bytes.split_first()?;
        if usize::from(count) > ADDRESS_LIMIT {
            return None;
        }
        let mut addresses = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (address, rest) = address::from_compact(bytes)?;
            addresses.push(address);
            bytes = rest;
        }
        bytes.is_empty().then(|| Self {
            pool: PoolId::from_bytes(*pool),
            inviter: NodeId::from_bytes(*inviter),
            studio: StudioId::from_bytes(*studio),
            secret: InviteSecret::from_bytes(*secret),
            addresses,
        })
    }

    /// Four words from a hash of the code, for comparing over the telephone: 32 bits.
    pub fn check_words(&self) -> CheckWords {
        let hash = blake3::derive_key("scenemesh v1 invite check words", &self.to_bytes());
        let list: Vec<&str> = WORDS.lines().collect();
        CheckWords([0, 1, 2, 3].map(|at: usize| list[usize::from(hash[at])]))
    }
}

/// 256 words that are short, easily spoken and distinct in their first three letters.
const WORDS: &str = include_str!("words.txt");

/// Four words that belong to one invite code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckWords(pub [&'static str; 4]);

impl fmt::Display for CheckWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// What a joiner says of itself. Signed with the invite's key and with its own node key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Joining {
    pub pool: PoolId,
    pub inviter: NodeId,
    /// Public half of [`Invite::key`].
    pub invite: PublicKey,
    pub node: PublicKey,
    pub kem: KemPublic,
    pub name: String,
    pub nonce: [u8; 16],
    /// For an invite that founds a studio: the key that becomes its first admin.
    pub admin: Option<PublicKey>,
    /// Otherwise: the node's word that it chose the inviter's studio, for its member record.
    pub consent: Option<Signature>,
}

const JOINING_LIMIT: usize = 1024;
const INVITE_DOMAIN: Domain = Domain::new("scenemesh/v1/join/invite");
const NODE_DOMAIN: Domain = Domain::new("scenemesh/v1/join/node");

/// A [`Joining`] as it travels. Repeating the same bytes is answered alike, so a lost answer costs nothing.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    invite: PublicKey,
    body: Vec<u8>,
    invite_signature: Signature,
    node_signature: Signature,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest(with invite {:?})", self.invite)
    }
}

/// A join request that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJoin {
    #[error("the request is for another invite")]
    OtherInvite,
    #[error("the request is for another pool or another inviter")]
    Misdirected,
    #[error("the joiner does not hold the invite code: {0}")]
    NotInvited(ForgedSignature),
    #[error("the joiner does not hold the node key it names: {0}")]
    NotItsKey(ForgedSignature),
    #[error("a key in the request is weak")]
    WeakKey,
    #[error("the name is empty, too long or has control characters")]
    BadName,
    #[error("join request: {0}")]
    Malformed(#[from] DecodeError),
}

impl JoinRequest {
    /// Asks to join with an invite, as the node of `node` and `kem`.
    pub fn new(
        invite: &Invite,
        node: &SecretKey,
        kem: KemPublic,
        name: &str,
        admin: Option<PublicKey>,
    ) -> Self {
        let key = invite.key();
        let joining = Joining {
            pool: invite.pool,
            inviter: invite.inviter,
            invite: key.public(),
            node: node.public(),
            kem,
            name: name.to_owned(),
            nonce: random_bytes(),
            admin,
            consent: admin
                .is_none()
                .then(|| Consent { pool: invite.pool, studio: invite.studio, kem }.sign(node)),
        };
        Self::sign(&joining, &key, node)
    }

    /// Signs what a joiner says with the invite's key and its own.
    pub fn sign(joining: &Joining, invite: &SecretKey, node: &SecretKey) -> Self {
        let body = codec::encode_body(joining);
        Self {
            invite: joining.invite,
            invite_signature: invite.sign(INVITE_DOMAIN, &body),
            node_signature: node.sign(NODE_DOMAIN, &body),
            body,
        }
    }

    /// The invite that this claims to redeem; look it up, then [`JoinRequest::verify`].
    pub fn claimed_invite(&self) -> PublicKey {
        self.invite
    }

    /// Checks both signatures against a pending invite of this node, then every field.
    ///
    /// # Errors
    /// As [`BadJoin`] says. Whoever lacks the code gets no further than the first signature.
    pub fn verify(&self, pending: &PublicKey, pool: PoolId, me: NodeId) -> Result<Joining, BadJoin> {
        if self.invite != *pending {
            return Err(BadJoin::OtherInvite);
        }
        pending.verify(INVITE_DOMAIN, &self.body, &self.invite_signature).map_err(BadJoin::NotInvited)?;
        let joining: Joining = codec::decode_body(&self.body, JOINING_LIMIT)?;
        joining.node.verify(NODE_DOMAIN, &self.body, &self.node_signature).map_err(BadJoin::NotItsKey)?;
        if joining.invite != *pending {
            return Err(BadJoin::OtherInvite);
        }
        if (joining.pool, joining.inviter) != (pool, me) {
            return Err(BadJoin::Misdirected);
        }
        if !joining.kem.is_sound() || joining.admin.is_some_and(|admin| !admin.is_sound()) {
            return Err(BadJoin::WeakKey);
        }
        if is_name(&joining.name) { Ok(joining) } else { Err(BadJoin::BadName) }
    }
}

/// Answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JoinReply {
    /// The joiner is a member.
    Admitted {
        /// The whole chain from the genesis, whose hash must be the invite's pool.
        settings: Vec<SignedSettings>,
        /// At least the joiner's own record and the inviter's; what is missing comes with the first roster sync.
        records: Vec<SignedRecord>,
        /// Where the inviter's main swarm listens, as multiaddr text, best first: the code names its porch only.
        addresses: Vec<String>,
    },
    /// The invite stands, and somebody has to act first: ask again later with the same request.
    Pending {
        needs: JoinNeeds,
        /// A sentence for people.
        words: String,
    },
    Refused {
        reason: JoinRefusal,
        /// A sentence for people.
        words: String,
    },
}

/// What an admission waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JoinNeeds {
    /// The inviter restarted and its admin key is locked: `scenemesh invite --unlock` there.
    Unlock,
    /// The new studio needs signatures of more studios: `scenemesh pool approve` there.
    Approvals { have: u16, need: u16 },
}

/// Why an inviter does not admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JoinRefusal {
    /// Never made here, withdrawn, or redeemed long ago. A stranger learns no more.
    UnknownInvite,
    Expired,
    /// Redeemed by another node.
    Used,
    /// The request does not verify.
    BadRequest,
    /// The node's or the proposed admin's key was revoked: join with a new one.
    RevokedKey,
    /// The pool has a node or a studio of that name.
    NameTaken,
    /// The invite founds a studio and the request has no admin key, or the reverse.
    AdminKey,
    /// The joiner's release is below the pool's lowest wire version.
    Version,
}

#[cfg(test)]
mod tests;
