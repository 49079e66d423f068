//! From what the modules below know to what the two machines want to know, and to this node's advert.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::{Availability, GpuAdvert, Hygiene, Inventory};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::roster::{Member, Roles, Roster};
use scenemesh_protocol::task::ModelName;

use crate::executor::policy::Policy;
use crate::executor::{self, SlotState as Doing, SlotView};
use crate::gpu::GpuReading;
use crate::network::{self, PeerTable, PeerView, Publication};
use crate::platform;
use crate::scheduler::conversation::Barred;
use crate::scheduler::lend::{Lend, Lending, Owner};
use crate::scheduler::placement::{Card, Link, Node, Nodes};
use crate::scheduler::renderer::{Facts, MemberFacts, Slot, SlotState};

/// All that was last heard from below.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    me: NodeId,
    pub(super) roster: Option<Arc<Roster>>,
    peers: Arc<PeerTable>,
    pub(super) slots: Arc<Vec<SlotView>>,
    gpus: Arc<Vec<GpuReading>>,
    barred: Arc<Barred>,
    policy: Arc<Policy>,
    lend: Lend,
    pub(super) lending: Lending,
    /// Others' work goes back whatever was said: the time for it is over.
    pub(super) late: bool,
    lists: Lists,
}

/// Inventories in the form that travels. They are long and change rarely, so they are made once per change.
#[derive(Clone, Debug, Default)]
struct Lists {
    /// What they were made of: one entry per slot, and whether it was ready.
    made_of: Vec<(Arc<executor::Inventory>, bool)>,
    per_slot: Vec<Arc<Inventory>>,
    /// Of all ready slots together.
    whole: Arc<Inventory>,
    shared: Arc<Inventory>,
    /// Folders whose models other studios may see.
    shared_folders: BTreeSet<String>,
}

impl Lists {
    fn update(&mut self, slots: &[SlotView]) {
        let same =
            self.made_of.len() == slots.len()
                && self.made_of.iter().zip(slots).all(|((list, ready), view)| {
                    Arc::ptr_eq(list, &view.inventory) && *ready == is_ready(view)
                });
        if same {
            return;
        }
        self.made_of = slots.iter().map(|view| (view.inventory.clone(), is_ready(view))).collect();
        let per_slot = slots.iter().map(|view| {
            let (classes, models) = (view.inventory.classes.clone(), view.inventory.models.clone());
            Arc::new(Inventory { classes, models })
        });
        self.per_slot = per_slot.collect();
        let ready = || slots.iter().filter(|view| is_ready(view));
        let classes: BTreeSet<&String> = ready().flat_map(|view| &view.inventory.classes).collect();
        let models: BTreeSet<&ModelName> = ready().flat_map(|view| &view.inventory.models).collect();
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        let models: Vec<ModelName> = models.into_iter().cloned().collect();
        let shared =
            models.iter().filter(|model| self.shared_folders.contains(&model.folder)).cloned().collect();
        self.shared = Arc::new(Inventory { classes: classes.clone(), models: shared });
        self.whole = Arc::new(Inventory { classes, models });
    }
}

fn is_ready(view: &SlotView) -> bool {
    matches!(view.state, Doing::Ready | Doing::Busy { .. })
}

impl Picture {
    pub(super) fn new(me: NodeId, shared_folders: BTreeSet<String>, lend: Lend) -> Self {
        Self {
            me,
            roster: None,
            peers: Arc::default(),
            slots: Arc::default(),
            gpus: Arc::default(),
            barred: Arc::default(),
            policy: Arc::default(),
            lend,
            lending: Lending::default(),
            late: false,
            lists: Lists { shared_folders, ..Lists::default() },
        }
    }

    pub(super) fn update(
        &mut self,
        roster: Option<Arc<Roster>>,
        peers: Arc<PeerTable>,
        slots: Arc<Vec<SlotView>>,
        gpus: Arc<Vec<GpuReading>>,
        barred: Arc<Barred>,
        policy: Arc<Policy>,
    ) {
        self.lists.update(&slots);
        (self.roster, self.peers, self.slots, self.gpus) = (roster, peers, slots, gpus);
        (self.barred, self.policy) = (barred, policy);
    }

    /// A member that is not shut out.
    pub(super) fn member(&self, node: &NodeId, now_ms: u64) -> Option<&Member> {
        let member = self.roster.as_ref()?.member(node, now_ms)?;
        (!self.barred.contains_key(node)).then_some(member)
    }

    fn members(&self, now_ms: u64) -> impl Iterator<Item = &Member> {
        let members = self.roster.iter().flat_map(move |roster| roster.members(now_ms));
        members.filter(|member| !self.barred.contains_key(&member.node.node()))
    }

    /// The pool as placement sees it.
    pub(super) fn nodes(&self, now_ms: u64, slots_free: usize) -> Nodes {
        let mut nodes = BTreeMap::new();
        for member in self.members(now_ms) {
            let id = member.node.node();
            let peer = self.peers.peers.get(&id);
            let (link, card) = if id == self.me {
                (Link::Up, Some(self.card(slots_free)))
            } else {
                (peer.map_or(Link::Down, link_of), peer.and_then(card_of))
            };
            let node = Node {
                name: member.name.clone(),
                studio: Some(member.studio),
                link,
                roles: member.roles,
                card,
            };
            nodes.insert(id, node);
        }
        let my_studio = nodes.get(&self.me).and_then(|node| node.studio);
        if my_studio.is_none() {
            let card = Some(self.card(slots_free));
            let name = "this machine".to_owned();
            nodes.insert(self.me, Node { name, studio: None, link: Link::Up, roles: Roles::ALL, card });
        }
        let pool = self.roster.as_ref().map(|roster| roster.pool());
        Nodes { me: self.me, pool, my_studio, nodes }
    }

    /// Whether a node is of another studio, or of none.
    pub(super) fn is_foreign(&self, node: &NodeId, now_ms: u64) -> bool {
        let studio = |node| self.roster.as_ref()?.member(node, now_ms).map(|member| member.studio);
        *node != self.me && (studio(node).is_none() || studio(node) != studio(&self.me))
    }

    /// Models that other studios may use here.
    pub(super) fn shared(&self) -> Arc<Inventory> {
        self.lists.shared.clone()
    }

    /// This machine as its renderer sees it.
    pub(super) fn renderer(&self, now_ms: u64) -> Facts {
        let roster = self.roster.as_ref();
        let me = self.member(&self.me, now_ms);
        let members = self.members(now_ms).map(|member| {
            let facts = MemberFacts { studio: member.studio, roles: member.roles };
            (member.node.node(), facts)
        });
        Facts {
            me: self.me,
            pool: roster.map(|roster| roster.pool()),
            my_studio: me.map(|member| member.studio),
            renders: me.is_some_and(|member| member.roles.render),
            members: members.collect(),
            slots: self
                .slots
                .iter()
                .zip(&self.lists.per_slot)
                .map(|(view, list)| self.slot(view, list))
                .collect(),
            policy: self.policy.clone(),
            lend: self.lend.facts(self.roster.as_deref(), now_ms, platform::utc_offset_s),
            owner: self.owner(),
        }
    }

    /// Whose the GPU is now.
    pub(super) fn owner(&self) -> Owner {
        if self.late {
            return Owner::Back { finish: Duration::ZERO, said_ms: 0 };
        }
        self.lending.owner(self.lend.finish())
    }

    /// What this node offers, for the advert.
    pub(super) fn publication(
        &self,
        now_ms: u64,
        slots_free: usize,
        queue: usize,
        closed: bool,
    ) -> Publication {
        let renders = self.member(&self.me, now_ms).is_some_and(|member| member.roles.render);
        let card = self.card(slots_free);
        let open = self.lend.facts(self.roster.as_deref(), now_ms, platform::utc_offset_s).open;
        let lent = open && self.owner() == Owner::Away;
        let availability =
            if renders && !closed && lent { Availability::Available } else { Availability::NotNow };
        Publication {
            availability,
            hygiene: card.hygiene,
            slots_total: card.slots_total,
            slots_free: card.slots_free,
            queue: u16::try_from(queue).unwrap_or(u16::MAX),
            gpus: self.gpus(),
            warm: card
                .warm
                .into_iter()
                .filter(|model| self.lists.shared_folders.contains(&model.folder))
                .collect(),
            comfyui: self.slots.first().map(|view| view.comfyui_version.clone()).unwrap_or_default(),
            inventory_studio: self.lists.whole.clone(),
            inventory_shared: self.lists.shared.clone(),
            rules: self.policy.fingerprint(),
        }
    }

    fn ready(&self) -> impl Iterator<Item = &SlotView> {
        self.slots.iter().filter(|view| is_ready(view))
    }

    fn card(&self, slots_free: usize) -> Card {
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let mut warm: Vec<ModelName> = Vec::new();
        for model in self.ready().flat_map(|view| &view.warm) {
            if !warm.contains(model) {
                warm.push(model.clone());
            }
        }
        let full = self.ready().all(|view| view.hygiene == Hygiene::Full);
        let readings: Vec<(Option<u32>, Option<u16>)> = self.ready().map(|view| self.device(view)).collect();
        Card {
            availability: Availability::Available,
            hygiene: if full { Hygiene::Full } else { Hygiene::Partial },
            slots_total: count(readings.len()),
            slots_free: count(slots_free),
            vram_mib: readings.iter().filter_map(|(vram, _)| *vram).max(),
            cc: readings.iter().filter_map(|(_, cc)| *cc).max(),
            warm,
            inventory: Some(self.lists.whole.clone()),
            revision: Some(self.policy.fingerprint()),
        }
    }

    fn slot(&self, view: &SlotView, inventory: &Arc<Inventory>) -> Slot {
        let (vram_mib, cc) = self.device(view);
        let state = match &view.state {
            Doing::Ready => SlotState::Ready,
            Doing::Busy { task, attempt } => SlotState::Busy { task: *task, attempt: *attempt },
            Doing::Starting => SlotState::NotReady { why: "it has not answered yet".into() },
            Doing::NotReady { why } => SlotState::NotReady { why: why.clone() },
        };
        Slot {
            name: view.url.clone(),
            state,
            inventory: inventory.clone(),
            shared: self.lists.shared.clone(),
            warm: view.warm.clone(),
            vram_mib,
            cc,
            hygiene: view.hygiene,
        }
    }

    /// Memory and compute capability behind a ComfyUI: memory as ComfyUI tells it, capability from the driver's
    /// GPU of that name, or from the only one.
    fn device(&self, view: &SlotView) -> (Option<u32>, Option<u16>) {
        let Some(device) = view.devices.first() else { return (None, None) };
        if device.kind == "cpu" {
            return (None, None);
        }
        let named = |gpu: &&GpuReading| {
            gpu.name.as_deref().is_some_and(|name| !name.is_empty() && device.name.contains(name))
        };
        let only = if self.gpus.len() == 1 { self.gpus.first() } else { None };
        let gpu = self.gpus.iter().find(named).or(only);
        (device.vram_mib.or(gpu.and_then(|gpu| gpu.vram_mib)), gpu.and_then(|gpu| gpu.cc))
    }

    /// Which of the driver's GPUs is behind a ComfyUI: the only one of its name, or the only one.
    pub(super) fn gpu_of(&self, view: &SlotView) -> Option<usize> {
        let device = view.devices.first()?;
        let named = |gpu: &GpuReading| {
            gpu.name.as_deref().is_some_and(|name| !name.is_empty() && device.name.contains(name))
        };
        let mut named = self.gpus.iter().enumerate().filter(|(_, gpu)| named(gpu)).map(|(at, _)| at);
        match (named.next(), named.next()) {
            (Some(at), None) => Some(at),
            (None, _) if self.gpus.len() == 1 && device.kind != "cpu" => Some(0),
            _ => None,
        }
    }

    fn gpus(&self) -> Vec<GpuAdvert> {
        if self.gpus.is_empty() {
            let devices = self.ready().flat_map(|view| &view.devices).filter(|device| device.kind != "cpu");
            return devices
                .map(|device| GpuAdvert {
                    name: device.name.clone(),
                    vram_mib: device.vram_mib,
                    vram_free_mib: device.vram_free_mib,
                    cc: None,
                })
                .collect();
        }
        let adverts = self.gpus.iter().map(|gpu| GpuAdvert {
            name: gpu.name.clone().unwrap_or_default(),
            vram_mib: gpu.vram_mib,
            vram_free_mib: gpu.vram_free_mib,
            cc: gpu.cc,
        });
        adverts.collect()
    }
}

fn link_of(peer: &PeerView) -> Link {
    match &peer.link {
        network::Link::Up => Link::Up,
        network::Link::Down => Link::Down,
        network::Link::Refused { words } => Link::Refused(words.clone()),
    }
}

fn card_of(peer: &PeerView) -> Option<Card> {
    let advert = peer.advert.as_ref()?;
    Some(Card {
        availability: advert.availability,
        hygiene: advert.hygiene,
        slots_total: advert.slots_total,
        slots_free: advert.slots_free,
        vram_mib: advert.gpus.iter().filter_map(|gpu| gpu.vram_mib).max(),
        cc: advert.gpus.iter().filter_map(|gpu| gpu.cc).max(),
        warm: advert.warm.clone(),
        inventory: peer.inventory.clone(),
        revision: Some(advert.inventory_root),
    })
}
