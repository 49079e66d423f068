//! Which nodes may take a job's tasks, which of them are asked first, and why the others are not asked.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use scenemesh_protocol::advert::{Availability, Hygiene, Inventory};
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId, PoolId, StudioId};
use scenemesh_protocol::roster::Roles;
use scenemesh_protocol::studio::Project;
use scenemesh_protocol::task::{Failure, ModelName, Reach, Shape};

use super::story::No;

/// Offers of one job go to at least this many eligible nodes, and to twice as many as it has ready tasks.
const LEAST_OFFERS: usize = 4;

/// Everything placement knows of the pool's machines, this one included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    pub me: NodeId,
    /// None while this machine is in no pool.
    pub pool: Option<PoolId>,
    /// None while this machine is in no pool.
    pub my_studio: Option<StudioId>,
    pub nodes: BTreeMap<NodeId, Node>,
}

/// One machine as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub studio: Option<StudioId>,
    pub link: Link,
    pub roles: Roles,
    /// What it last said of itself; `None` before its first advert.
    pub card: Option<Card>,
}

/// Whether a node can be talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    Down,
    /// Connected, but not understood or not let in; why, in words.
    Refused(String),
}

/// A node's own words about what it can render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub availability: Availability,
    pub hygiene: Hygiene,
    pub slots_total: u16,
    pub slots_free: u16,
    /// The most of one GPU, in MiB.
    pub vram_mib: Option<u32>,
    /// The highest compute capability, times ten.
    pub cc: Option<u16>,
    /// Most recent first.
    pub warm: Vec<ModelName>,
    /// `None` until it was fetched.
    pub inventory: Option<Arc<Inventory>>,
    /// Its advert's mark for what it can and may run: another mark, another answer.
    pub revision: Option<ContentHash>,
}

impl Card {
    /// Whether another card of the same node would be judged alike: what a refusal depends on, free slots aside.
    pub fn same_abilities(&self, other: &Self) -> bool {
        let of = |card: &Self| (card.availability, card.hygiene, card.slots_total, card.vram_mib, card.cc);
        of(self) == of(other) && self.inventory == other.inventory && self.revision == other.revision
    }
}

/// Why a node is not asked. Displayed after the node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    OutOfReach(&'static str),
    /// Within the job's reach, and outside its project's.
    OutOfProject(&'static str),
    /// The project is bound to other nodes.
    NotOfProject,
    /// The studio has no record of the job's project that holds: nobody may say where it goes.
    NoProject,
    NotConnected,
    LinkRefused(String),
    DoesNotRender,
    NoAdvert,
    NoSlot,
    NotNow,
    NoInventory,
    LacksClasses {
        first: String,
        more: usize,
    },
    LacksModels {
        first: ModelName,
        more: usize,
    },
    VramUnknown {
        need_mib: u32,
    },
    TooLittleVram {
        need_mib: u32,
        has_mib: u32,
    },
    CcUnknown {
        need: u16,
    },
    CcTooLow {
        need: u16,
        has: u16,
    },
    PartialHygiene,
    /// Every task of the job has a node by now.
    NoneLeft,
    /// It failed what waits, or lost it (then there is no failure); `returns` when it gets it again later.
    FailedThere {
        failure: Option<Failure>,
        returns: bool,
    },
    /// It is asked again later.
    SaidNo(No),
}

impl WhyNot {
    /// Whether it may pass without anybody changing the job, the node or the roster.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::NotConnected
            | Self::LinkRefused(_)
            | Self::NoProject
            | Self::NoAdvert
            | Self::NoSlot
            | Self::NotNow
            | Self::NoInventory
            | Self::NoneLeft
            | Self::SaidNo(_) => true,
            Self::FailedThere { returns, .. } => *returns,
            Self::OutOfReach(_)
            | Self::OutOfProject(_)
            | Self::NotOfProject
            | Self::DoesNotRender
            | Self::LacksClasses { .. }
            | Self::LacksModels { .. }
            | Self::VramUnknown { .. }
            | Self::TooLittleVram { .. }
            | Self::CcUnknown { .. }
            | Self::CcTooLow { .. }
            | Self::PartialHygiene => false,
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |more: &usize| if *more == 0 { String::new() } else { format!(" and {more} more") };
        match self {
            Self::OutOfReach(reach) => write!(f, "is outside the job's reach ({reach})"),
            Self::OutOfProject(reach) => write!(f, "is outside the project's reach ({reach})"),
            Self::NotOfProject => f.write_str("is not among the nodes that the project is bound to"),
            Self::NoProject => {
                f.write_str("gets nothing: the job's project has no record that holds in this studio")
            }
            Self::NotConnected => f.write_str("is not connected"),
            Self::LinkRefused(why) => write!(f, "cannot be used: {why}"),
            Self::DoesNotRender => f.write_str("has no role `render`"),
            Self::NoAdvert => f.write_str("has not advertised yet"),
            Self::NoSlot => f.write_str("has no ComfyUI ready"),
            Self::NotNow => f.write_str("takes no work of others now"),
            Self::NoInventory => f.write_str("has not listed its models yet"),
            Self::LacksClasses { first, more: n } => write!(f, "lacks node class {first}{}", more(n)),
            Self::LacksModels { first, more: n } => write!(f, "lacks model {first}{}", more(n)),
            Self::VramUnknown { need_mib } => {
                write!(f, "does not tell its video memory, {} needed", gigabytes(*need_mib))
            }
            Self::TooLittleVram { need_mib, has_mib } => {
                write!(f, "has {} of video memory, {} needed", gigabytes(*has_mib), gigabytes(*need_mib))
            }
            Self::CcUnknown { need } => {
                write!(f, "does not tell its compute capability, {} needed", capability(*need))
            }
            Self::CcTooLow { need, has } => {
                write!(f, "has compute capability {}, {} needed", capability(*has), capability(*need))
            }
            Self::PartialHygiene => f.write_str("cannot clean its ComfyUI completely (hygiene = partial)"),
            Self::NoneLeft => f.write_str("comes too late: other nodes have all of it"),
            Self::FailedThere { failure, returns } => {
                match failure {
                    Some(failure) => write!(f, "failed it: {failure}")?,
                    None => f.write_str("lost it")?,
                }
                if *returns { f.write_str("; it gets it again later") } else { Ok(()) }
            }
            Self::SaidNo(no) => write!(f, "refused: {no}"),
        }
    }
}

/// GiB, as memory is counted, under the name that people know.
pub fn gigabytes(mib: u32) -> String {
    format!("{:.1} GB", f64::from(mib) / 1024.0)
}

/// `8.9`.
pub fn capability(tenths: u16) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl Nodes {
    /// A machine alone, before anything is known.
    pub fn alone(me: NodeId) -> Self {
        Self { me, pool: None, my_studio: None, nodes: BTreeMap::new() }
    }

    /// A node's name for people; a short id for one that the roster does not name.
    pub fn name(&self, node: &NodeId) -> String {
        self.nodes.get(node).map_or_else(|| node.short(), |known| known.name.clone())
    }

    /// Nodes of my studio that list a model.
    pub fn holders(&self, model: &ModelName) -> Vec<&str> {
        let lists = |node: &&Node| {
            let inventory = node.card.as_ref().and_then(|card| card.inventory.as_ref());
            inventory.is_some_and(|inventory| model.find(&inventory.models).is_some())
        };
        let mine = |node: &&Node| node.studio == self.my_studio;
        self.nodes.values().filter(mine).filter(lists).map(|node| node.name.as_str()).collect()
    }
}

/// How far a job may travel: as its submitter said, and as its project says now.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub reach: &'a Reach,
    pub project: Rules<'a>,
}

/// What a job's project says.
#[derive(Clone, Copy, Debug)]
pub enum Rules<'a> {
    /// The job is of none.
    None,
    Hold(&'a Project),
    /// It is of one that this studio has no record of.
    Gone,
}

impl<'a> Bounds<'a> {
    /// Of a job without a project.
    pub fn of(reach: &'a Reach) -> Self {
        Self { reach, project: Rules::None }
    }
}

/// Whether a node may take a task of this shape within these bounds.
///
/// # Errors
/// The first reason why not.
pub fn check(nodes: &Nodes, id: NodeId, shape: &Shape, bounds: Bounds<'_>) -> Result<(), WhyNot> {
    let node = nodes.nodes.get(&id).ok_or(WhyNot::NotConnected)?;
    within_bounds(nodes, id, node, bounds)?;
    if !node.roles.render {
        return Err(WhyNot::DoesNotRender);
    }
    match &node.link {
        Link::Up => {}
        Link::Down => return Err(WhyNot::NotConnected),
        Link::Refused(why) => return Err(WhyNot::LinkRefused(why.clone())),
    }
    let card = node.card.as_ref().ok_or(WhyNot::NoAdvert)?;
    if card.slots_total == 0 {
        return Err(WhyNot::NoSlot);
    }
    // Calendar and lending are for other studios.
    let ours = id == nodes.me || (node.studio.is_some() && node.studio == nodes.my_studio);
    if card.availability == Availability::NotNow && !ours {
        return Err(WhyNot::NotNow);
    }
    fits(card.inventory.as_deref(), card.vram_mib, card.cc, card.hygiene, shape)
}

/// Whether a task may travel to a node that renders.
pub fn reaches(nodes: &Nodes, id: NodeId, bounds: Bounds<'_>) -> bool {
    nodes.nodes.get(&id).is_some_and(|node| node.roles.render) && may_hold(nodes, id, bounds)
}

/// Whether a job may lie on this node, whether it renders or not.
pub fn may_hold(nodes: &Nodes, id: NodeId, bounds: Bounds<'_>) -> bool {
    nodes.nodes.get(&id).is_some_and(|node| within_bounds(nodes, id, node, bounds).is_ok())
}

fn within_bounds(nodes: &Nodes, id: NodeId, node: &Node, bounds: Bounds<'_>) -> Result<(), WhyNot> {
    within_reach(nodes, id, node, bounds.reach).map_err(WhyNot::OutOfReach)?;
    let project = match bounds.project {
        Rules::None => return Ok(()),
        Rules::Gone => return Err(WhyNot::NoProject),
        Rules::Hold(project) => project,
    };
    within_reach(nodes, id, node, &project.max_reach).map_err(WhyNot::OutOfProject)?;
    let bound = project.nodes.as_ref().is_some_and(|bound| !bound.contains(&id));
    if bound { Err(WhyNot::NotOfProject) } else { Ok(()) }
}

/// The word for the reach when the node lies outside of it.
fn within_reach(nodes: &Nodes, id: NodeId, node: &Node, reach: &Reach) -> Result<(), &'static str> {
    let is_me = id == nodes.me;
    let of_my_studio = is_me || (node.studio.is_some() && node.studio == nodes.my_studio);
    let (within, words) = match reach {
        Reach::Machine => (is_me, "machine"),
        Reach::Studio => (of_my_studio, "studio"),
        Reach::Studios(list) => (node.studio.is_some_and(|studio| list.contains(&studio)), "studios"),
        Reach::Pool => (is_me || node.studio.is_some(), "pool"),
    };
    if within { Ok(()) } else { Err(words) }
}

/// Whether something with these models, classes, memory and folders can run a shape. Both ends judge with it: the
/// requester a node's advert, the renderer its own slot.
///
/// # Errors
/// The first reason why not.
pub fn fits(
    inventory: Option<&Inventory>,
    vram_mib: Option<u32>,
    cc: Option<u16>,
    hygiene: Hygiene,
    shape: &Shape,
) -> Result<(), WhyNot> {
    let inventory = inventory.ok_or(WhyNot::NoInventory)?;
    let mut classes = shape.classes.iter().filter(|class| inventory.classes.binary_search(class).is_err());
    if let Some(first) = classes.next() {
        return Err(WhyNot::LacksClasses { first: first.clone(), more: classes.count() });
    }
    let mut models = shape.models.iter().filter(|model| model.find(&inventory.models).is_none());
    if let Some(first) = models.next() {
        return Err(WhyNot::LacksModels { first: first.clone(), more: models.count() });
    }
    match (shape.vram_mib, vram_mib) {
        (Some(need_mib), None) => return Err(WhyNot::VramUnknown { need_mib }),
        (Some(need_mib), Some(has_mib)) if has_mib < need_mib => {
            return Err(WhyNot::TooLittleVram { need_mib, has_mib });
        }
        _ => {}
    }
    match (shape.min_cc, cc) {
        (Some(need), None) => return Err(WhyNot::CcUnknown { need }),
        (Some(need), Some(has)) if has < need => return Err(WhyNot::CcTooLow { need, has }),
        _ => {}
    }
    if shape.full_hygiene && hygiene != Hygiene::Full {
        return Err(WhyNot::PartialHygiene);
    }
    Ok(())
}

/// How many nodes a job with so many ready tasks is offered to.
pub fn offers_for(ready: usize) -> usize {
    LEAST_OFFERS.max(ready.saturating_mul(2))
}

/// Orders eligible nodes for offers and gives at most `limit`: the better half by warm models and free slots, the
/// rest by a hash of job and node, which spreads jobs without anybody's guess about load.
pub fn choose(nodes: &Nodes, job: JobId, shape: &Shape, eligible: Vec<NodeId>, limit: usize) -> Vec<NodeId> {
    let lot = |node: &NodeId| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(job.as_bytes()).update(node.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut ranked = eligible;
    ranked.sort_by_cached_key(|id| {
        let card = nodes.nodes.get(id).and_then(|node| node.card.as_ref());
        let warm = card.map_or(0, |card| shape.models.iter().filter(|m| card.warm.contains(m)).count());
        let free = card.map_or(0, |card| card.slots_free);
        (Reverse(warm), Reverse(free), *id != nodes.me, lot(id))
    });
    if ranked.len() > limit {
        let mut rest = ranked.split_off(limit.div_ceil(2));
        rest.sort_by_cached_key(lot);
        ranked.extend(rest);
        ranked.truncate(limit);
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn studio(n: u8) -> StudioId {
        StudioId::from_bytes([n; 16])
    }

    fn checkpoint(name: &str) -> ModelName {
        ModelName::new("checkpoints", name)
    }

    fn node(name: &str, of: u8, models: &[&str]) -> Node {
        let inventory = Inventory {
            classes: vec!["KSampler".into(), "SaveImage".into()],
            models: models.iter().map(|name| checkpoint(name)).collect(),
        };
        let card = Card {
            availability: Availability::Available,
            hygiene: Hygiene::Partial,
            slots_total: 1,
            slots_free: 1,
            vram_mib: Some(12 << 10),
            cc: Some(86),
            warm: Vec::new(),
            inventory: Some(Arc::new(inventory)),
            revision: None,
        };
        Node {
            name: name.into(),
            studio: Some(studio(of)),
            link: Link::Up,
            roles: Roles::ALL,
            card: Some(card),
        }
    }

    /// Machine 1 and 2 of studio 1, machine 3 of studio 2.
    fn pool() -> Nodes {
        let nodes = [
            (id(1), node("amber", 1, &[])),
            (id(2), node("birch", 1, &["sd.safetensors"])),
            (id(3), node("cedar", 2, &["sd.safetensors"])),
        ];
        Nodes { me: id(1), pool: None, my_studio: Some(studio(1)), nodes: BTreeMap::from(nodes) }
    }

    fn shape(models: &[&str]) -> Shape {
        Shape {
            classes: vec!["KSampler".into()],
            models: models.iter().map(|name| checkpoint(name)).collect(),
            ..Shape::default()
        }
    }

    fn why(nodes: &Nodes, n: u8, shape: &Shape, reach: &Reach) -> String {
        check(nodes, id(n), shape, Bounds::of(reach))
            .map_or_else(|why| why.to_string(), |()| "may".to_owned())
    }

    #[test]
    fn reach_is_a_wall() {
        let (nodes, shape) = (pool(), shape(&[]));
        let table = [
            (
                Reach::Machine,
                ["may", "is outside the job's reach (machine)", "is outside the job's reach (machine)"],
            ),
            (Reach::Studio, ["may", "may", "is outside the job's reach (studio)"]),
            (Reach::Pool, ["may", "may", "may"]),
            (
                Reach::Studios(vec![studio(2)]),
                ["is outside the job's reach (studios)", "is outside the job's reach (studios)", "may"],
            ),
        ];
        for (reach, expected) in table {
            for (n, words) in (1..).zip(expected) {
                assert_eq!(why(&nodes, n, &shape, &reach), words, "{reach:?} {n}");
            }
        }
    }

    #[test]
    fn a_project_is_a_second_wall() {
        let nodes = pool();
        let rules = |max_reach, nodes| Project {
            pool: scenemesh_protocol::ids::PoolId::from_bytes([0; 16]),
            studio: studio(1),
            project: scenemesh_protocol::ids::ProjectId::from_bytes([0; 16]),
            name: scenemesh_protocol::ids::ContentHash::from_bytes([0; 32]),
            version: 1,
            issued_ms: 0,
            max_reach,
            nodes,
            hygiene: Hygiene::Partial,
            retention_s: None,
            closed: false,
        };
        let says = |project: Rules<'_>| {
            [1, 2, 3].map(|n| {
                let bounds = Bounds { reach: &Reach::Pool, project };
                check(&nodes, id(n), &shape(&[]), bounds)
                    .map_or_else(|why| why.to_string(), |()| "may".into())
            })
        };
        let outside = "is outside the project's reach (studio)";
        assert_eq!(says(Rules::Hold(&rules(Reach::Studio, None))), ["may", "may", outside]);
        let other = "is not among the nodes that the project is bound to";
        assert_eq!(says(Rules::Hold(&rules(Reach::Pool, Some(vec![id(3)])))), [other, other, "may"]);
        let gone = "gets nothing: the job's project has no record that holds in this studio";
        assert_eq!(says(Rules::Gone), [gone; 3]);
    }

    #[test]
    fn a_machine_outside_any_pool_reaches_itself_only() {
        let mut nodes = pool();
        nodes.my_studio = None;
        for node in nodes.nodes.values_mut() {
            node.studio = None;
        }
        assert_eq!(why(&nodes, 1, &shape(&[]), &Reach::Studio), "may");
        assert_eq!(why(&nodes, 2, &shape(&[]), &Reach::Studio), "is outside the job's reach (studio)");
        assert_eq!(why(&nodes, 2, &shape(&[]), &Reach::Pool), "is outside the job's reach (pool)");
    }

    #[test]
    fn every_reason_is_a_sentence() {
        type Change = fn(&mut Nodes, &mut Shape);
        let table: [(Change, &str); 13] = [
            (|n, _| n.nodes.get_mut(&id(3)).unwrap().link = Link::Down, "is not connected"),
            (
                |n, _| n.nodes.get_mut(&id(3)).unwrap().link = Link::Refused("speaks wire version 9".into()),
                "cannot be used: speaks wire version 9",
            ),
            (|n, _| n.nodes.get_mut(&id(3)).unwrap().roles.render = false, "has no role `render`"),
            (|n, _| n.nodes.get_mut(&id(3)).unwrap().card = None, "has not advertised yet"),
            (|n, _| card(n).slots_total = 0, "has no ComfyUI ready"),
            (|n, _| card(n).availability = Availability::NotNow, "takes no work of others now"),
            (|n, _| card(n).inventory = None, "has not listed its models yet"),
            (|_, s| s.classes = vec!["A".into(), "B".into()], "lacks node class A and 1 more"),
            (|_, s| s.models = vec![checkpoint("x")], "lacks model checkpoints/x"),
            (|_, s| s.vram_mib = Some(24 << 10), "has 12.0 GB of video memory, 24.0 GB needed"),
            (
                |n, s| (card(n).vram_mib, s.vram_mib) = (None, Some(1024)),
                "does not tell its video memory, 1.0 GB needed",
            ),
            (|_, s| s.min_cc = Some(89), "has compute capability 8.6, 8.9 needed"),
            (|_, s| s.full_hygiene = true, "cannot clean its ComfyUI completely (hygiene = partial)"),
        ];
        fn card(nodes: &mut Nodes) -> &mut Card {
            nodes.nodes.get_mut(&id(3)).unwrap().card.as_mut().unwrap()
        }
        for (change, words) in table {
            let (mut nodes, mut shape) = (pool(), shape(&[]));
            change(&mut nodes, &mut shape);
            assert_eq!(why(&nodes, 3, &shape, &Reach::Pool), words);
        }
    }

    #[test]
    fn warm_nodes_come_first_and_the_limit_holds() {
        let mut nodes = pool();
        for n in 4..40 {
            nodes.nodes.insert(id(n), node("more", 2, &["sd.safetensors"]));
        }
        let warm = nodes.nodes.get_mut(&id(17)).unwrap();
        warm.card.as_mut().unwrap().warm = vec![checkpoint("sd.safetensors")];
        let wish = shape(&["sd.safetensors"]);
        let all: Vec<NodeId> = nodes.nodes.keys().copied().collect();
        let job = JobId::from_bytes([1; 16]);
        let chosen = choose(&nodes, job, &wish, all.clone(), offers_for(1));
        assert_eq!(chosen.len(), 4);
        assert_eq!(chosen[0], id(17));
        // Another job asks others in its random half: offers do not herd.
        let other = choose(&nodes, JobId::from_bytes([2; 16]), &wish, all, offers_for(1));
        assert_ne!(chosen[2..], other[2..]);
    }

    #[test]
    fn my_studios_holders_of_a_model_have_names() {
        assert_eq!(pool().holders(&checkpoint("sd.safetensors")), ["birch"]);
    }
}
