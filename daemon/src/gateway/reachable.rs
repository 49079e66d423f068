//! PURE: the catalog of what can be reached now: the ComfyUIs beside us, and what linked nodes show of themselves.

use std::sync::Arc;

use scenemesh_protocol::advert::Inventory;
use scenemesh_protocol::ids::NodeId;

use super::catalog::{Catalog, Offering};
use super::gather::Gathered;
use crate::executor::definitions::Definitions;
use crate::executor::{self, SlotState, SlotView};
use crate::network::{Link, PeerTable, PeerView};

/// The catalog as of the last look. Definitions are long and change rarely, so it is made once per change.
#[derive(Debug, Default)]
pub struct Reachable {
    ours: Vec<(Arc<executor::Inventory>, Offering)>,
    theirs: Vec<Theirs>,
    incomplete: bool,
    catalog: Arc<Catalog>,
}

/// What another node shows.
#[derive(Debug)]
struct Theirs {
    id: NodeId,
    node: String,
    inventory: Arc<Inventory>,
    definitions: Option<Arc<Definitions>>,
}

/// Definitions are compared by where they are: they are long, and the same ones are here once.
impl PartialEq for Theirs {
    fn eq(&self, other: &Self) -> bool {
        let place = |theirs: &Self| theirs.definitions.as_ref().map(Arc::as_ptr);
        self.id == other.id
            && self.node == other.node
            && place(self) == place(other)
            && self.inventory == other.inventory
    }
}

impl Reachable {
    /// The catalog as it is now. Reading new definitions takes up to a second: not a thing for a task that must not
    /// wait. `us` and `name` say what nodes are called.
    pub fn look(
        &mut self,
        slots: &[SlotView],
        peers: &PeerTable,
        told: &Gathered,
        us: &str,
        name: impl Fn(&NodeId) -> String,
    ) -> Arc<Catalog> {
        let ready: Vec<&SlotView> = slots.iter().filter(|view| has_told(view)).collect();
        let theirs = theirs(peers, told, name);
        let incomplete = somebody_is_silent(slots, peers, told);
        let same = self.ours.len() == ready.len()
            && self.incomplete == incomplete
            && self.theirs == theirs
            && self.ours.iter().zip(&ready).all(|((inventory, offering), view)| {
                Arc::ptr_eq(inventory, &view.inventory) && offering.node == called(us, view, ready.len())
            });
        if !same {
            let known = std::mem::take(&mut self.ours);
            let ours = ready.iter().map(|view| {
                let node = called(us, view, ready.len());
                let before = known.iter().find(|(inventory, _)| Arc::ptr_eq(inventory, &view.inventory));
                let offering = match before {
                    Some((_, offering)) => Offering { node, ..offering.clone() },
                    None => offering(node, &view.inventory),
                };
                (view.inventory.clone(), offering)
            });
            self.ours = ours.collect();
            (self.theirs, self.incomplete) = (theirs, incomplete);
            let ours = self.ours.iter().map(|(_, offering)| offering.clone());
            let theirs = self.theirs.iter().map(|theirs| Offering {
                node: theirs.node.clone(),
                inventory: theirs.inventory.clone(),
                definitions: theirs.definitions.clone(),
            });
            let catalog = Catalog::of(ours.chain(theirs).collect());
            self.catalog = Arc::new(if incomplete { catalog.incomplete() } else { catalog });
        }
        self.catalog.clone()
    }
}

/// Whether its ComfyUI is up and has said what it has.
fn has_told(view: &SlotView) -> bool {
    let up = matches!(view.state, SlotState::Ready | SlotState::Busy { .. });
    up && !view.inventory.classes.is_empty()
}

/// Whether a ComfyUI beside us is about to be asked, or a linked node is about to tell.
fn somebody_is_silent(slots: &[SlotView], peers: &PeerTable, told: &Gathered) -> bool {
    let starting = slots.iter().any(|view| view.state == SlotState::Starting);
    let silent = |(node, peer): (&NodeId, &PeerView)| match &peer.inventory {
        Some(inventory) => !inventory.classes.is_empty() && !told.heard.contains(node),
        None => true,
    };
    starting || peers.peers.iter().filter(|(_, peer)| peer.link == Link::Up).any(silent)
}

/// A machine with several ComfyUIs says which.
fn called(us: &str, view: &SlotView, of: usize) -> String {
    if of > 1 { format!("{us} ({})", view.slot) } else { us.to_owned() }
}

fn offering(node: String, told: &executor::Inventory) -> Offering {
    let inventory = Arc::new(Inventory { classes: told.classes.clone(), models: told.models.clone() });
    let definitions = match Definitions::read(&told.definitions) {
        Ok(definitions) => Some(Arc::new(definitions)),
        Err(error) => {
            tracing::debug!(%error, "a ComfyUI beside this node is known by names only");
            None
        }
    };
    Offering { node, inventory, definitions }
}

/// Linked nodes that show a class, by name.
fn theirs(peers: &PeerTable, told: &Gathered, name: impl Fn(&NodeId) -> String) -> Vec<Theirs> {
    let linked = peers.peers.iter().filter(|(_, peer)| peer.link == Link::Up);
    let shown = linked.filter_map(|(node, peer)| {
        let inventory = peer.inventory.clone().filter(|inventory| !inventory.classes.is_empty())?;
        Some(Theirs {
            id: *node,
            node: name(node),
            inventory,
            definitions: told.definitions.get(node).cloned(),
        })
    });
    let mut theirs: Vec<_> = shown.collect();
    theirs.sort_by(|one, other| (&one.node, one.id).cmp(&(&other.node, other.id)));
    theirs
}

#[cfg(test)]
pub(super) mod tests {
    use scenemesh_protocol::advert::Hygiene;
    use scenemesh_protocol::ids::StudioId;
    use scenemesh_protocol::task::ModelName;

    use super::*;
    use crate::executor::SlotId;
    use crate::gateway::catalog::Verdict;
    use crate::messages::Lang;

    fn slot(number: u16, state: SlotState, inventory: &Arc<executor::Inventory>) -> SlotView {
        SlotView {
            slot: SlotId(number),
            url: String::new(),
            state,
            inventory: inventory.clone(),
            warm: Vec::new(),
            devices: Vec::new(),
            comfyui_version: String::new(),
            hygiene: Hygiene::Full,
            others_queued: 0,
        }
    }

    fn has(class: &str) -> Arc<executor::Inventory> {
        let mut inventory = executor::Inventory::of(vec![class.to_owned()], Vec::new());
        let info = format!(r#"{{"{class}": {{"input": {{}}, "output": [], "output_node": true}}}}"#);
        inventory.definitions = info.into();
        Arc::new(inventory)
    }

    pub(in super::super) fn peer(link: Link, models: &[&str]) -> PeerView {
        let models = models.iter().map(|name| ModelName::new("vae", name)).collect();
        PeerView {
            studio: StudioId::from_bytes([1; 16]),
            link,
            address: None,
            rtt: None,
            agent: None,
            versions: None,
            boot: None,
            skew_ms: None,
            advert: None,
            inventory: Some(Arc::new(Inventory { classes: vec!["Theirs".into()], models })),
            last_seen_ms: None,
            last_error: None,
        }
    }

    /// Everybody was asked, and told no more than names.
    fn heard() -> Gathered {
        Gathered { heard: [1, 2].map(|n| NodeId::from_bytes([n; 32])).into(), ..Gathered::default() }
    }

    fn classes(catalog: &Catalog) -> Vec<&str> {
        catalog.object_info().keys().map(String::as_str).collect()
    }

    #[test]
    fn what_is_up_counts_and_nothing_else() {
        let (here, asleep) = (has("Here"), has("Asleep"));
        let down = SlotState::NotReady { why: "it is off".into() };
        let slots = [slot(0, SlotState::Ready, &here), slot(1, down, &asleep)];
        let mut peers = PeerTable::default();
        peers.peers.insert(NodeId::from_bytes([1; 32]), peer(Link::Up, &["near.pt"]));
        peers.peers.insert(NodeId::from_bytes([2; 32]), peer(Link::Down, &["far.pt"]));
        let catalog = Reachable::default().look(&slots, &peers, &heard(), "amber", NodeId::short);
        assert_eq!(classes(&catalog), ["Here"]);
        assert_eq!(catalog.models("vae").unwrap(), ["near.pt"]);
    }

    #[test]
    fn it_is_made_anew_when_something_changed_and_only_then() {
        let here = has("Here");
        let mut peers = PeerTable::default();
        let mut reachable = Reachable::default();
        let mut look = |peers: &PeerTable, inventory: &Arc<executor::Inventory>| {
            let slots = [slot(0, SlotState::Ready, inventory)];
            reachable.look(&slots, peers, &heard(), "amber", NodeId::short)
        };
        let first = look(&peers, &here);
        assert!(Arc::ptr_eq(&first, &look(&peers, &here)));
        peers.peers.insert(NodeId::from_bytes([1; 32]), peer(Link::Up, &["near.pt"]));
        let second = look(&peers, &here);
        assert!(second.models("vae").is_some());
        assert!(Arc::ptr_eq(&second, &look(&peers.clone(), &here)));
        assert_eq!(classes(&look(&peers, &has("More"))), ["More"]);
    }

    #[test]
    fn nothing_is_refused_while_somebody_has_not_told_yet() {
        let here = has("Here");
        let graph = serde_json::json!({"1": {"class_type": "Theirs", "inputs": {}}});
        let judge = |slots: &[SlotView], peers: &PeerTable| {
            let catalog = Reachable::default().look(slots, peers, &heard(), "amber", NodeId::short);
            catalog.validate(graph.as_object().unwrap(), None, &|_| false)
        };
        let ready = [slot(0, SlotState::Ready, &here)];
        let starting = [slot(0, SlotState::Ready, &here), slot(1, SlotState::Starting, &Arc::default())];
        let mut peers = PeerTable::default();
        assert!(matches!(judge(&ready, &peers), Verdict::Refused(_)));
        assert_eq!(judge(&starting, &peers), Verdict::Unjudged);
        let mut unheard = PeerTable::default();
        unheard.peers.insert(NodeId::from_bytes([7; 32]), peer(Link::Up, &[]));
        assert_eq!(judge(&ready, &unheard), Verdict::Unjudged, "its definitions are being asked for");
        let silent = PeerView { inventory: None, ..peer(Link::Up, &[]) };
        peers.peers.insert(NodeId::from_bytes([1; 32]), silent.clone());
        assert_eq!(judge(&ready, &peers), Verdict::Unjudged);
        let mut looked = Reachable::default();
        let before = looked.look(&ready, &peers, &heard(), "amber", NodeId::short);
        peers.peers.insert(NodeId::from_bytes([1; 32]), PeerView { link: Link::Down, ..silent });
        assert!(matches!(judge(&ready, &peers), Verdict::Refused(_)), "whoever is away tells nothing");
        assert!(!Arc::ptr_eq(&before, &looked.look(&ready, &peers, &heard(), "amber", NodeId::short)));
    }

    #[test]
    fn a_machine_with_two_comfyuis_says_which_lacks_what() {
        let (one, other) = (has("One"), has("Other"));
        let slots = [slot(0, SlotState::Ready, &one), slot(1, SlotState::Ready, &other)];
        let catalog =
            Reachable::default().look(&slots, &PeerTable::default(), &heard(), "amber", NodeId::short);
        let graph = serde_json::json!({"1": {"class_type": "One", "inputs": {}}, "2": {"class_type": "Other", "inputs": {}}});
        let graph = graph.as_object().unwrap();
        let Verdict::Refused(refusal) = catalog.validate(graph, None, &|_| false) else {
            panic!("no ComfyUI has both");
        };
        let said = refusal.body(graph, Lang::En)["error"]["message"].to_string();
        assert!(
            said.contains("amber (slot 0): no class Other (node 2); amber (slot 1): no class One"),
            "{said}"
        );
    }
}
