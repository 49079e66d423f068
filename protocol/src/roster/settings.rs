//! The settings chain: each epoch is signed by admins of more than half of the studios of the epoch before.

use std::collections::BTreeSet;

use crate::codec::{self, Decode, DecodeError, Encode, Message};
use crate::ids::{ContentHash, PoolId, StudioId, first16, random_bytes};
use crate::keys::{Domain, ForgedSignature, PublicKey, SecretKey, Signature};

/// Longest name of a pool, studio, node or project, in bytes.
pub const NAME_LIMIT: usize = 64;
/// Most studios of one pool.
pub const STUDIO_LIMIT: usize = 64;
/// Most admin keys of one studio.
pub const ADMIN_LIMIT: usize = 8;

/// A studio as the settings have it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Studio {
    pub id: StudioId,
    pub name: String,
    /// Its part in fair share, relative to the others.
    pub weight: u32,
    pub admins: Vec<PublicKey>,
}

impl Studio {
    /// A new studio with its first admin. The id is the first 16 bytes of BLAKE3 over
    /// `"scenemesh/v1/studio" ‖ 0x00 ‖ admin key ‖ name`.
    pub fn found(name: &str, admin: PublicKey) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"scenemesh/v1/studio\0").update(admin.as_bytes()).update(name.as_bytes());
        Self {
            id: StudioId::from_bytes(first16(&hasher.finalize())),
            name: name.to_owned(),
            weight: 1,
            admins: vec![admin],
        }
    }
}

/// Numbers that every node of a pool must agree on. Integers only; what they mean is in the design of the books.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PoolParams {
    pub version: u32,
    /// phi, in thousandths: the share of capacity that goes by weight alone, and the guard lane's share of slots.
    pub phi_milli: u32,
    /// Half-life of past usage, in seconds.
    pub half_life_s: u32,
    /// Weight of a task that declares up to 24 GB, up to 48 GB, and more, in thousandths.
    pub w_vram_milli: [u32; 3],
    /// Weight of batch, normal and urgent tasks, in thousandths.
    pub w_class_milli: [u32; 3],
    /// A studio unserved for this long goes to the guard lane: urgent, normal, batch, in seconds.
    pub guard_after_s: [u32; 3],
    /// Debt beyond which a studio gets idle slots only, in milli-RGS.
    pub debt_floor_mrgs: u64,
}

impl Default for PoolParams {
    fn default() -> Self {
        Self {
            version: 1,
            phi_milli: 200,
            half_life_s: 7 * 86_400,
            w_vram_milli: [1000, 1500, 2500],
            w_class_milli: [700, 1000, 2000],
            guard_after_s: [30 * 60, 2 * 3600, 4 * 3600],
            debt_floor_mrgs: 8 * 3600 * 1000,
        }
    }
}

/// One epoch of a pool's settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    pub pool_name: String,
    /// Random in the genesis and kept since: two pools of one name differ.
    pub nonce: [u8; 16],
    pub epoch: u64,
    /// Hash of the epoch before; zero in the genesis.
    pub prev: ContentHash,
    pub created_ms: u64,
    pub studios: Vec<Studio>,
    pub params: PoolParams,
    /// Lowest wire version that the pool still accepts.
    pub min_protocol: u8,
}

impl Message for Settings {
    const TYPE: u16 = 0x0001;
    const LIMIT: usize = 64 << 10;
}

impl Settings {
    /// Settings of a new pool with one studio.
    pub fn genesis(pool_name: &str, founder: Studio, created_ms: u64) -> Self {
        Self {
            pool_name: pool_name.to_owned(),
            nonce: random_bytes(),
            epoch: 0,
            prev: ContentHash::from_bytes([0; 32]),
            created_ms,
            studios: vec![founder],
            params: PoolParams::default(),
            min_protocol: codec::VERSION,
        }
    }

    /// The epoch after this one, unchanged but for its place in the chain.
    #[must_use]
    pub fn next(&self, created_ms: u64) -> Self {
        let prev = ContentHash::of(&codec::encode_body(self));
        Self { epoch: self.epoch + 1, prev, created_ms, ..self.clone() }
    }

    pub fn studio(&self, id: &StudioId) -> Option<&Studio> {
        self.studios.iter().find(|studio| studio.id == *id)
    }

    /// The studio that a key is an admin of.
    pub fn studio_of_admin(&self, key: &PublicKey) -> Option<&Studio> {
        self.studios.iter().find(|studio| studio.admins.contains(key))
    }

    /// How many studios must sign the epoch after this one: more than half.
    pub fn quorum(&self) -> usize {
        self.studios.len() / 2 + 1
    }

    fn check_form(&self) -> Result<(), BadSettings> {
        let names_ok = std::iter::once(&self.pool_name)
            .chain(self.studios.iter().map(|studio| &studio.name))
            .all(|name| is_name(name));
        let ids: BTreeSet<_> = self.studios.iter().map(|studio| studio.id).collect();
        let names: BTreeSet<_> = self.studios.iter().map(|studio| &studio.name).collect();
        let keys: Vec<_> = self.studios.iter().flat_map(|studio| &studio.admins).collect();
        let distinct: BTreeSet<_> = keys.iter().collect();
        let counts_ok = !self.studios.is_empty()
            && self.studios.len() <= STUDIO_LIMIT
            && self.studios.iter().all(|s| (1..=ADMIN_LIMIT).contains(&s.admins.len()) && s.weight > 0);
        let sound = keys.iter().all(|key| key.is_sound());
        if !names_ok {
            Err(BadSettings::Form("a name is empty, too long or has control characters"))
        } else if ids.len() != self.studios.len() || names.len() != self.studios.len() {
            Err(BadSettings::Form("two studios share an id or a name"))
        } else if distinct.len() != keys.len() || !sound {
            Err(BadSettings::Form("an admin key is weak or stands twice"))
        } else if !counts_ok {
            Err(BadSettings::Form("studios, admins or weights are out of bounds"))
        } else {
            Ok(())
        }
    }
}

/// Whether this can be the name of a pool, studio, node or project.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LIMIT && name.trim() == name && !name.chars().any(char::is_control)
}

/// One admin's signature under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdminSignature {
    pub key: PublicKey,
    pub signature: Signature,
}

const SETTINGS_DOMAIN: Domain = Domain::new("scenemesh/v1/settings");

/// An epoch as it travels: the signed bytes and who signed. Also a *proposal*, while signatures are missing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedSettings {
    body: Vec<u8>,
    pub signatures: Vec<AdminSignature>,
}

impl Message for SignedSettings {
    const TYPE: u16 = 0x0002;
    const LIMIT: usize = Settings::LIMIT + (STUDIO_LIMIT * ADMIN_LIMIT * 96) + 64;
}

impl SignedSettings {
    pub fn new(settings: &Settings, key: &SecretKey) -> Self {
        let mut signed = Self { body: codec::encode_body(settings), signatures: Vec::new() };
        signed.sign(key);
        signed
    }

    /// Adds a signature; signing twice changes nothing.
    pub fn sign(&mut self, key: &SecretKey) {
        let public = key.public();
        if self.signatures.iter().all(|have| have.key != public) {
            let signature = key.sign(SETTINGS_DOMAIN, &self.body);
            self.signatures.push(AdminSignature { key: public, signature });
        }
    }

    /// Takes over the other's signatures of the same body.
    pub fn absorb(&mut self, other: &Self) {
        for signature in &other.signatures {
            if self.body == other.body && self.signatures.iter().all(|have| have.key != signature.key) {
                self.signatures.push(signature.clone());
            }
        }
    }

    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.body)
    }

    /// What the body says, its form checked, its signatures not.
    ///
    /// # Errors
    /// When the body is malformed.
    pub fn settings(&self) -> Result<Settings, BadSettings> {
        let settings: Settings = codec::decode_body(&self.body, Settings::LIMIT)?;
        settings.check_form()?;
        Ok(settings)
    }

    /// The studios of `before` with at least one valid signature here. `without` do not count.
    ///
    /// # Errors
    /// When a signature is forged: then nothing about it can be trusted.
    pub fn signing_studios(
        &self,
        before: &Settings,
        without: &BTreeSet<PublicKey>,
    ) -> Result<BTreeSet<StudioId>, BadSettings> {
        let mut studios = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for AdminSignature { key, signature } in &self.signatures {
            if !seen.insert(*key) {
                return Err(BadSettings::Form("a key signs twice"));
            }
            let Some(studio) = before.studio_of_admin(key) else { continue };
            key.verify(SETTINGS_DOMAIN, &self.body, signature)?;
            if !without.contains(key) {
                studios.insert(studio.id);
            }
        }
        Ok(studios)
    }
}

/// Settings that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    #[error("settings do not decode: {0}")]
    Malformed(#[from] DecodeError),
    #[error("settings are not well-formed: {0}")]
    Form(&'static str),
    #[error("a settings signature is forged: {0}")]
    Forged(#[from] ForgedSignature),
    #[error("settings do not continue the chain: {0}")]
    Broken(&'static str),
    #[error("settings are signed by {have} of {need} studios needed")]
    NoQuorum { have: usize, need: usize },
}

/// A chain of settings, verified from its genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsChain {
    links: Vec<(Settings, SignedSettings)>,
}

/// What merging another chain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainMerge {
    /// The other had nothing new.
    Same,
    /// The other continued mine.
    Extended,
    /// The chains fork, and the other's branch won: an alarm.
    ForkLost { at_epoch: u64 },
    /// The chains fork, and mine won: an alarm.
    ForkWon { at_epoch: u64 },
}

impl SettingsChain {
    /// Starts a pool.
    ///
    /// # Errors
    /// When the settings are malformed.
    pub fn found(settings: &Settings, key: &SecretKey) -> Result<Self, BadSettings> {
        Self::verify(vec![SignedSettings::new(settings, key)])
    }

    /// Verifies a whole chain.
    ///
    /// # Errors
    /// When any link is malformed, forged, out of place or lacks its quorum.
    pub fn verify(links: Vec<SignedSettings>) -> Result<Self, BadSettings> {
        let mut chain: Vec<(Settings, SignedSettings)> = Vec::with_capacity(links.len());
        for signed in links {
            let settings = signed.settings()?;
            Self::check_link(chain.last(), &settings, &signed)?;
            chain.push((settings, signed));
        }
        if chain.is_empty() {
            return Err(BadSettings::Broken("no genesis"));
        }
        Ok(Self { links: chain })
    }

    fn check_link(
        before: Option<&(Settings, SignedSettings)>,
        settings: &Settings,
        signed: &SignedSettings,
    ) -> Result<(), BadSettings> {
        let genesis = before.is_none();
        // The genesis is signed by its own, only studio.
        let (voters, prev, epoch) = match before {
            None => (settings, ContentHash::from_bytes([0; 32]), 0),
            Some((last, last_signed)) => (last, last_signed.hash(), last.epoch + 1),
        };
        if settings.prev != prev || settings.epoch != epoch {
            return Err(BadSettings::Broken("its predecessor is another"));
        }
        if !genesis && settings.nonce != voters.nonce {
            return Err(BadSettings::Broken("it is of another pool"));
        }
        let have = signed.signing_studios(voters, &BTreeSet::new())?.len();
        let need = voters.quorum();
        if have < need { Err(BadSettings::NoQuorum { have, need }) } else { Ok(()) }
    }

    pub fn pool(&self) -> PoolId {
        PoolId::from_bytes(first16(&blake3::hash(&self.links[0].1.body)))
    }

    pub fn current(&self) -> &Settings {
        &self.links[self.links.len() - 1].0
    }

    /// Hash of the newest epoch.
    pub fn head(&self) -> ContentHash {
        self.links[self.links.len() - 1].1.hash()
    }

    /// Appends one epoch.
    ///
    /// # Errors
    /// When it does not continue the chain or lacks its quorum.
    pub fn append(&mut self, signed: SignedSettings) -> Result<(), BadSettings> {
        let settings = signed.settings()?;
        Self::check_link(self.links.last(), &settings, &signed)?;
        self.links.push((settings, signed));
        Ok(())
    }

    /// What somebody lacks whose newest epoch is `head` at `epoch`: the links after it, or everything when
    /// their head is not in this chain.
    pub fn after(&self, epoch: u64, head: &ContentHash) -> Vec<SignedSettings> {
        let at = usize::try_from(epoch).unwrap_or(usize::MAX);
        let known = self.links.get(at).is_some_and(|(_, signed)| signed.hash() == *head);
        self.links.iter().skip(if known { at + 1 } else { 0 }).map(|(_, signed)| signed.clone()).collect()
    }

    pub fn links(&self) -> impl Iterator<Item = &SignedSettings> {
        self.links.iter().map(|(_, signed)| signed)
    }

    /// Merges links that another node sent: either they continue this chain, or they are a whole chain of this
    /// pool. On a fork the longer branch wins, then the lower hash of the first differing epoch; links whose
    /// quorum needs a key in `revoked` end their branch there.
    ///
    /// # Errors
    /// When the links are not a valid chain of this pool.
    pub fn merge(
        &mut self,
        links: Vec<SignedSettings>,
        revoked: &BTreeSet<PublicKey>,
    ) -> Result<ChainMerge, BadSettings> {
        let Some(first) = links.first() else { return Ok(ChainMerge::Same) };
        let first_epoch = first.settings()?.epoch;
        if first_epoch == 0 && first.hash() != self.links[0].1.hash() {
            return Err(BadSettings::Broken("it is of another pool"));
        }
        // What is here already was verified here: whoever repeats it, or sends another pool's, costs no signature check.
        let mut known = self.links.iter().skip(usize::try_from(first_epoch).unwrap_or(usize::MAX));
        let repeated = links
            .iter()
            .take_while(|link| known.next().is_some_and(|(_, signed)| signed.hash() == link.hash()))
            .count();
        let common = usize::try_from(first_epoch).unwrap_or(usize::MAX).saturating_add(repeated);
        let mut theirs = Self { links: self.links.iter().take(common).cloned().collect() };
        if theirs.links.is_empty() || theirs.links.len() < common {
            return Err(BadSettings::Broken("its predecessor is another"));
        }
        for signed in links.into_iter().skip(repeated) {
            theirs.append(signed)?;
        }
        if common == theirs.links.len() {
            return Ok(ChainMerge::Same);
        }
        if common == self.links.len() {
            *self = theirs;
            return Ok(ChainMerge::Extended);
        }
        let at_epoch = common as u64;
        let (mine_len, theirs_len) = (self.sound_len(common, revoked), theirs.sound_len(common, revoked));
        let mine_hash = self.links[common].1.hash();
        let theirs_hash = theirs.links[common].1.hash();
        let theirs_wins = (theirs_len, mine_hash) > (mine_len, theirs_hash);
        if theirs_wins {
            *self = theirs;
            Ok(ChainMerge::ForkLost { at_epoch })
        } else {
            Ok(ChainMerge::ForkWon { at_epoch })
        }
    }

    /// Links of this branch that hold without the revoked signers, counted up to the first that does not.
    fn sound_len(&self, fork: usize, revoked: &BTreeSet<PublicKey>) -> usize {
        let holds = |at: usize| {
            let voters = &self.links[at - 1].0;
            let signed = self.links[at].1.signing_studios(voters, revoked);
            signed.is_ok_and(|studios| studios.len() >= voters.quorum())
        };
        (fork..self.links.len()).take_while(|&at| at == 0 || holds(at)).count()
    }
}
