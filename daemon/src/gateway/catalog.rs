//! PURE: what a pool can run, told as one ComfyUI tells it of itself.
//!
//! A class is shown as one node has it: as most nodes define it, its options aside, and as the one named first does
//! where they are even. Its own machine comes first. So whoever keeps to the definition keeps to one that some node
//! really has. Its options are those of all nodes together, as far as each shows them here; that no single node has all
//! that a graph picks is found by [`Catalog::validate`], before anything is queued.
//!
//! Names of models are written with `/`, whatever their machine does, and match either way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use scenemesh_protocol::advert::Inventory;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::task::ModelName;
use serde_json::{Map, Value, json};

mod check;
mod korean;
pub mod python;
mod validate;

pub use validate::{Lack, Refusal, Shortfall, Verdict};

use crate::executor::definitions::{self, Definitions, inputs_mut, options, options_mut};
use crate::executor::graph::{folder_alias, input_folder};

/// Most options of one input; what is beyond is not shown, and still matches.
const MOST_OPTIONS: usize = 50_000;

/// One node, as far as it shows itself to us.
#[derive(Clone, Debug)]
pub struct Offering {
    /// What people call it.
    pub node: String,
    pub inventory: Arc<Inventory>,
    /// Absent while it has told no more than names.
    pub definitions: Option<Arc<Definitions>>,
}

impl Offering {
    fn has_class(&self, class: &str) -> bool {
        self.inventory.classes.binary_search_by(|known| known.as_str().cmp(class)).is_ok()
    }

    fn has_model(&self, model: &ModelName) -> bool {
        model.find(&self.inventory.models).is_some()
    }

    fn definition(&self, class: &str) -> Option<&Value> {
        self.definitions.as_ref()?.get(class)
    }
}

/// All that the reachable nodes can run.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    offerings: Vec<Offering>,
    classes: Map<String, Value>,
    /// Somebody who is there has not told yet what it has.
    incomplete: bool,
}

impl Catalog {
    /// Brings together what nodes offer; our own machine is to be named first.
    pub fn of(offerings: Vec<Offering>) -> Self {
        let mut versions: HashMap<&str, Vec<Version<'_>>> = HashMap::new();
        let mut order: Vec<&str> = Vec::new();
        for definitions in offerings.iter().filter_map(|offering| offering.definitions.as_deref()) {
            for (class, definition) in definitions.iter() {
                let known = versions.entry(class).or_insert_with(|| {
                    order.push(class);
                    Vec::new()
                });
                // Most nodes of a studio have the very same definitions.
                let very_same = known.iter().position(|version| std::ptr::eq(version.definition, definition));
                let form = very_same.is_none().then(|| form(definition));
                let same = very_same.or_else(|| known.iter().position(|version| Some(version.form) == form));
                match (same, form) {
                    (Some(at), _) => known[at].count += 1,
                    (None, Some(form)) => known.push(Version { form, definition, count: 1 }),
                    (None, None) => {}
                }
            }
        }
        let mut shelves = Shelves { offerings: &offerings, unions: HashMap::new() };
        let mut classes = Map::new();
        for class in order {
            let versions = &versions[class];
            let most = versions.iter().map(|version| version.count).max();
            let version = versions.iter().find(|version| Some(version.count) == most);
            if let Some(version) = version {
                classes.insert(class.to_owned(), with_all_options(class, version.definition, &mut shelves));
            }
        }
        Self { classes, offerings, incomplete: false }
    }

    /// The same, while somebody who is there has not told yet what it has: nothing is refused for what the others lack.
    pub fn incomplete(self) -> Self {
        Self { incomplete: true, ..self }
    }

    /// Whether nobody has told anything yet: then nothing can be said of a graph either.
    pub fn is_empty(&self) -> bool {
        self.offerings.is_empty()
    }

    /// Whether no class is defined yet, but somebody is about to.
    pub fn is_about_to_tell(&self) -> bool {
        self.incomplete && self.classes.is_empty()
    }

    /// The body of `/object_info`.
    pub fn object_info(&self) -> &Map<String, Value> {
        &self.classes
    }

    /// The body of `/object_info/CLASS`: an empty object when nobody has it, as ComfyUI answers.
    pub fn class(&self, class: &str) -> Value {
        self.classes.get(class).map_or_else(|| json!({}), |definition| json!({class: definition}))
    }

    /// The body of `/models`.
    pub fn folders(&self) -> Vec<&str> {
        let folders: BTreeSet<&str> = self.all_models().map(|model| model.folder.as_str()).collect();
        folders.into_iter().collect()
    }

    /// The body of `/models/FOLDER`, by its present or an earlier name; none when nobody shows such a folder.
    pub fn models(&self, folder: &str) -> Option<Vec<&str>> {
        let folder = folder_alias(folder);
        let names = self.all_models().filter(|model| model.folder == folder);
        let names: BTreeSet<&str> = names.map(|model| model.name.as_str()).collect();
        (!names.is_empty()).then(|| names.into_iter().collect())
    }

    /// The body of `/embeddings`: names without what follows the last dot.
    pub fn embeddings(&self) -> Vec<&str> {
        let names = self.models("embeddings").unwrap_or_default();
        let bare = |name: &'_ str| name.rfind('.').unwrap_or(name.len());
        let names: BTreeSet<&str> = names.into_iter().map(|name| &name[..bare(name)]).collect();
        names.into_iter().collect()
    }

    fn all_models(&self) -> impl Iterator<Item = &ModelName> {
        self.offerings.iter().flat_map(|offering| &offering.inventory.models)
    }
}

/// A definition, and how many nodes have it.
struct Version<'a> {
    form: ContentHash,
    definition: &'a Value,
    count: usize,
}

/// What makes two definitions of a class the same for whoever writes a graph: inputs and outputs, without options.
fn form(definition: &Value) -> ContentHash {
    let kind = |spec: &Value| if options(spec).is_some() { json!("COMBO") } else { spec[0].clone() };
    let inputs: Vec<Value> = definitions::inputs(definition)
        .map(|(name, spec, required)| json!([name, kind(spec), required]))
        .collect();
    let form = json!([inputs, definition["output"].as_array().map(Vec::len), definition["output_node"]]);
    ContentHash::of(form.to_string().as_bytes())
}

/// The models of several nodes, brought together once and not for each class that lists them.
struct Shelves<'a> {
    offerings: &'a [Offering],
    unions: HashMap<(&'static str, Vec<usize>), Vec<Value>>,
}

impl Shelves<'_> {
    /// All models in a folder of these nodes, by their place among the offerings.
    fn models(&mut self, folder: &'static str, of: Vec<usize>) -> &[Value] {
        let Self { offerings, unions } = self;
        unions.entry((folder, of)).or_insert_with_key(|(folder, of)| {
            let mut names = BTreeSet::new();
            let mut before: Option<&Arc<Inventory>> = None;
            for inventory in of.iter().map(|at| &offerings[*at].inventory) {
                // Machines of one studio often have the same shelf.
                if before.is_none_or(|before| !Arc::ptr_eq(before, inventory)) {
                    let models = inventory.models.iter().filter(|model| model.folder == *folder);
                    names.extend(models.map(|model| model.name.as_str()));
                }
                before = Some(inventory);
            }
            names.into_iter().map(Value::from).collect()
        })
    }
}

/// A definition with the options of all nodes that have its class.
fn with_all_options(class: &str, definition: &Value, shelves: &mut Shelves<'_>) -> Value {
    let mut shown = definition.clone();
    for (name, spec) in inputs_mut(&mut shown) {
        let name = name.clone();
        // Files are the submitter's own, whatever lies where.
        if definitions::is_upload(spec) || crate::executor::graph::is_file_input(class, &name) {
            continue;
        }
        let folder = input_folder(class, &name);
        let Some(own) = options_mut(spec) else { continue };
        let mut union = Union { folder, seen: HashSet::new(), options: Vec::new() };
        for option in own.iter() {
            union.add(option);
        }
        let mut by_inventory = Vec::new();
        for (at, offering) in shelves.offerings.iter().enumerate() {
            let spec = offering.definition(class).and_then(|definition| {
                definitions::inputs(definition).find(|(other, ..)| *other == name).map(|(_, spec, _)| spec)
            });
            let theirs = spec.and_then(options);
            // Machines of one studio list the same ten thousand models, class by class.
            for option in theirs.filter(|theirs| *theirs != own).into_iter().flatten() {
                union.add(option);
            }
            if offering.has_class(class) && !theirs.is_some_and(|theirs| definitions::lists_files(theirs)) {
                by_inventory.push(at);
            }
        }
        if let Some(folder) = folder.filter(|_| !by_inventory.is_empty()) {
            for model in shelves.models(folder, by_inventory) {
                union.add(model);
            }
        }
        *own = union.options;
    }
    shown
}

/// Options in the order in which they were met, each once.
struct Union {
    /// Where they are models.
    folder: Option<&'static str>,
    seen: HashSet<String>,
    options: Vec<Value>,
}

impl Union {
    fn add(&mut self, option: &Value) {
        let option = match option.as_str().filter(|_| self.folder.is_some()) {
            Some(name) => Value::from(name.replace('\\', "/")),
            None => option.clone(),
        };
        if self.options.len() < MOST_OPTIONS && self.seen.insert(option.to_string()) {
            self.options.push(option);
        }
    }
}

#[cfg(test)]
mod tests;
