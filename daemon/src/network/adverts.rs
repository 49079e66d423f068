//! PURE: which adverts hold, which are old news, and what to tell others.
//!
//! An advert counts from its own node at once; from others only if it is newer than what is known, and, while the node
//! is linked, only if it comes from the run of the daemon that Hello named: direct contact beats hearsay. What ran out is
//! remembered by its number, so that nobody can bring it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::{Advert, Inventory};
use scenemesh_protocol::codec;
use scenemesh_protocol::ids::{BootId, ContentHash, NodeId, PoolId};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::messages::{DEFINITIONS_PART, DefinitionsGet, DefinitionsPart};
use scenemesh_protocol::signed::Signed;
use tokio::time::Instant;

use super::{Offered, Publication, Told};

/// Most addresses in an advert.
const ADDRESSES: usize = 4;
/// Seconds an advert of ours says something: three heartbeats.
const TTL_S: u16 = 90;
/// Longest a stranger's advert is believed, whatever it says.
const LONGEST_TTL: Duration = Duration::from_secs(5 * 60);
/// Clocks may be this far apart; see Hello.
const SKEW_MS: u64 = 5 * 60 * 1000;
/// An unchanged advert is repeated this often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// Changes are bundled: no two adverts of ours follow each other faster.
pub(super) const SPACING: Duration = Duration::from_secs(1);
/// Most adverts in one batch: it fits the smaller of the two limits, and verifying it takes a few milliseconds.
pub(super) const BATCH: usize = 40;
/// Most nodes named in one sync.
const SYNCED: usize = 1000;

fn first(addresses: &[String]) -> Vec<String> {
    addresses.iter().take(ADDRESSES).cloned().collect()
}

/// A node's newest advert.
#[derive(Debug)]
struct Held {
    boot: BootId,
    seq: u64,
    created_ms: u64,
    /// None when it ran out or its node left.
    alive: Option<Alive>,
}

#[derive(Debug)]
struct Alive {
    advert: Arc<Advert>,
    signed: Signed<Advert>,
    until: Instant,
}

/// How an advert got here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// From its own node, over a link where Hello named its boot.
    Directly,
    /// From somebody else; `linked` is the boot that its node's own Hello named, if it is linked here.
    FromOthers { linked: Option<BootId> },
}

/// Other nodes' adverts.
#[derive(Debug, Default)]
pub(super) struct AdvertBook {
    held: BTreeMap<NodeId, Held>,
}

impl AdvertBook {
    /// Takes an advert in when it is news; gives it back when it is.
    pub(super) fn absorb(
        &mut self,
        now: Instant,
        wall_ms: u64,
        pool: &PoolId,
        signed: &Signed<Advert>,
        heard: impl FnOnce(NodeId) -> Option<Heard>,
    ) -> Option<Arc<Advert>> {
        let node = signed.claimed_signer().node();
        let heard = heard(node)?;
        let held = self.held.get(&node);
        if held.and_then(|held| held.alive.as_ref()).is_some_and(|alive| alive.signed == *signed) {
            return None;
        }
        let advert = signed.verify().ok()?.into_value();
        let ttl = Duration::from_secs(advert.ttl_s.into()).min(LONGEST_TTL);
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let ran_out = advert.created_ms.saturating_add(ttl_ms).saturating_add(SKEW_MS) < wall_ms;
        let from_the_future = advert.created_ms > wall_ms.saturating_add(SKEW_MS);
        if advert.node != node || advert.pool != *pool || ran_out || from_the_future {
            return None;
        }
        if let Some(held) = held
            && !is_news(held, &advert, heard)
        {
            return None;
        }
        if let Heard::FromOthers { linked: Some(boot) } = heard
            && boot != advert.boot
        {
            return None;
        }
        let advert = Arc::new(advert);
        let alive = Alive { advert: advert.clone(), signed: signed.clone(), until: now + ttl };
        self.held.insert(
            node,
            Held { boot: advert.boot, seq: advert.seq, created_ms: advert.created_ms, alive: Some(alive) },
        );
        Some(advert)
    }

    /// The node said which run it is in: what an earlier run offered does not count.
    pub(super) fn restarted(&mut self, node: &NodeId, boot: BootId) {
        if let Some(held) = self.held.get_mut(node)
            && held.boot != boot
        {
            held.alive = None;
        }
    }

    /// The node left on purpose.
    pub(super) fn left(&mut self, node: &NodeId) {
        if let Some(held) = self.held.get_mut(node) {
            held.alive = None;
        }
    }

    /// Keeps only nodes that are still members.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.held.retain(|node, _| is_member(node));
    }

    /// Lets go of what ran out; the nodes whose adverts did.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        let mut expired = Vec::new();
        for (node, held) in &mut self.held {
            if held.alive.as_ref().is_some_and(|alive| alive.until <= now) {
                held.alive = None;
                expired.push(*node);
            }
        }
        expired
    }

    /// A node's advert, while it holds.
    pub(super) fn get(&self, node: &NodeId) -> Option<Arc<Advert>> {
        Some(self.held.get(node)?.alive.as_ref()?.advert.clone())
    }

    /// What to name in a sync, so that nobody sends it again.
    pub(super) fn have(&self) -> Vec<(NodeId, BootId, u64)> {
        self.held.iter().take(SYNCED).map(|(node, held)| (*node, held.boot, held.seq)).collect()
    }

    /// What somebody lacks who has only these, leaving room for one more in the batch. `start` is a random number: what
    /// the other does not want must not hide the rest for ever.
    pub(super) fn lacking(&self, have: &[(NodeId, BootId, u64)], start: u64) -> Vec<Signed<Advert>> {
        let theirs: BTreeMap<_, _> = have.iter().map(|(node, boot, seq)| (*node, (*boot, *seq))).collect();
        let lacks = |node: &NodeId, held: &Held| match theirs.get(node) {
            Some((boot, seq)) => *boot != held.boot || *seq < held.seq,
            None => true,
        };
        let start = usize::try_from(start).unwrap_or(0) % self.held.len().max(1);
        self.held
            .iter()
            .cycle()
            .skip(start)
            .take(self.held.len())
            .filter(|(node, held)| lacks(node, held))
            .filter_map(|(_, held)| Some(held.alive.as_ref()?.signed.clone()))
            .take(BATCH - 1)
            .collect()
    }
}

fn is_news(held: &Held, advert: &Advert, heard: Heard) -> bool {
    if held.boot == advert.boot {
        return advert.seq > held.seq;
    }
    match heard {
        Heard::Directly => true,
        Heard::FromOthers { linked: Some(boot) } => boot == advert.boot,
        // Boots have no order of their own; the node's clock has to do.
        Heard::FromOthers { linked: None } => advert.created_ms > held.created_ms,
    }
}

/// Our own advert: when to sign a new one.
#[derive(Debug)]
pub(super) struct OwnAdvert {
    me: NodeId,
    boot: BootId,
    /// Of the main swarm and of the porch: multiaddr text, best first. None until it is known where we listen: an
    /// advert that does not say how to find us is of little use to whom it reaches second-hand.
    addresses: Option<(Vec<String>, Vec<String>)>,
    /// Hides from other studios what the full inventory consists of, while its change still shows.
    salt: [u8; 32],
    offered: Offered,
    seq: u64,
    changed: bool,
    sent_at: Option<Instant>,
    signed: Option<Signed<Advert>>,
}

impl OwnAdvert {
    pub(super) fn new(me: NodeId, boot: BootId, salt: [u8; 32]) -> Self {
        Self {
            me,
            boot,
            addresses: None,
            salt,
            offered: Offered::default(),
            seq: 0,
            changed: false,
            sent_at: None,
            signed: None,
        }
    }

    /// Notes what is offered now; the same as before is no change.
    pub(super) fn set(&mut self, offered: Offered) {
        if self.offered != offered {
            self.offered = offered;
            self.changed = true;
        }
    }

    /// Notes where this node is to be found: members that never met learn it from each other's adverts.
    pub(super) fn set_addresses(&mut self, main: &[String], porch: &[String]) {
        let told = Some((first(main), first(porch)));
        if self.addresses != told {
            self.addresses = told;
            self.changed = true;
        }
    }

    /// What others may see: members of the own studio everything.
    pub(super) fn inventory(&self, own_studio: bool) -> Arc<Inventory> {
        match &self.offered.publication {
            Some(publication) if own_studio => publication.inventory_studio.clone(),
            Some(publication) => publication.inventory_shared.clone(),
            None => Arc::default(),
        }
    }

    /// The part of what our classes look like that was asked for.
    pub(super) fn definitions(&self, own_studio: bool, get: &DefinitionsGet) -> DefinitionsPart {
        let Told { studio, shared } = &*self.offered.told;
        let pack = if own_studio { studio } else { shared };
        let parts = pack.bytes.chunks(DEFINITIONS_PART);
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        let part = if get.have.contains(&pack.root) { None } else { parts.clone().nth(get.part.into()) };
        DefinitionsPart { root: pack.root, parts: count, bytes: part.unwrap_or_default().to_vec() }
    }

    /// When the next advert is due, if there is anything to tell.
    pub(super) fn next(&self) -> Option<Instant> {
        self.offered.publication.as_ref()?;
        self.addresses.as_ref()?;
        let pause = if self.changed { SPACING } else { HEARTBEAT };
        self.sent_at.map(|at| at + pause)
    }

    /// Signs a new advert when one is due.
    pub(super) fn due(
        &mut self,
        now: Instant,
        wall_ms: u64,
        pool: PoolId,
        key: &SecretKey,
    ) -> Option<Signed<Advert>> {
        let publication = self.offered.publication.clone()?;
        let (external, porch) = self.addresses.clone()?;
        if self.next().is_some_and(|at| at > now) {
            return None;
        }
        self.seq += 1;
        self.changed = false;
        self.sent_at = Some(now);
        let mut advert = Advert {
            pool,
            node: self.me,
            boot: self.boot,
            seq: self.seq,
            created_ms: wall_ms,
            ttl_s: TTL_S,
            availability: publication.availability,
            hygiene: publication.hygiene,
            slots_total: publication.slots_total,
            slots_free: publication.slots_free,
            queue: publication.queue,
            gpus: publication.gpus.clone(),
            warm: publication.warm.clone(),
            inventory_root: self.inventory_root(&publication),
            external,
            porch,
            comfyui: publication.comfyui.clone(),
        };
        advert.shrink_to_limit();
        let signed = Signed::new(&advert, key);
        self.signed = Some(signed.clone());
        Some(signed)
    }

    /// The newest signed one.
    pub(super) fn current(&self) -> Option<&Signed<Advert>> {
        self.signed.as_ref()
    }

    /// Forgets what was signed: it was for another pool.
    pub(super) fn reset(&mut self) {
        self.signed = None;
        self.sent_at = None;
    }

    fn inventory_root(&self, publication: &Publication) -> ContentHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
        for inventory in [&publication.inventory_shared, &publication.inventory_studio] {
            hasher.update(inventory.root().as_bytes());
        }
        for pack in [&self.offered.told.shared, &self.offered.told.studio] {
            hasher.update(pack.root.as_bytes());
        }
        hasher.update(publication.rules.as_bytes());
        ContentHash::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// Cuts an inventory to what one answer carries. Models go first: a missing class only costs an offer.
pub(super) fn fitting(inventory: &Inventory, limit: usize) -> Inventory {
    let mut inventory = inventory.clone();
    while codec::encode_body(&inventory).len() > limit {
        if inventory.models.is_empty() {
            inventory.classes.truncate(inventory.classes.len() * 9 / 10);
        } else {
            inventory.models.truncate(inventory.models.len() * 9 / 10);
        }
    }
    inventory
}

#[cfg(test)]
mod tests;
