//! Checks a graph against what a ComfyUI said of itself, as its own validation would, but before a byte is moved.
//! Pure.
//!
//! Where ComfyUI's judgement cannot be known from `/object_info` (dynamic inputs, unknown types), the graph passes:
//! ComfyUI has the last word. One thing is stricter here: files that were not attached to the task are not read
//! from the renderer's folders, even if they lie there.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::task::{Failure, FailureClass};
use serde_json::{Number, Value};

use super::inventory::{InputKind, InputType, Inventory, NodeType};
use crate::executor::graph::{Graph, Node, as_link, input_folder, is_file_input, without_annotation};

/// Problems told at once; the rest is counted.
const TOLD: usize = 5;
/// Most characters of them: names of nodes and values are the submitter's and may be long.
const LONGEST: usize = 2000;

pub(super) fn check(inventory: &Inventory, graph: &Graph, attached: &[String]) -> Result<(), Failure> {
    if inventory.classes.is_empty() {
        return Err(Failure::new(FailureClass::ComfyuiDied, "ComfyUI has not answered yet"));
    }
    let mut check = Check { inventory, graph, attached, problems: Vec::new() };
    check.classes();
    if !inventory.types.is_empty() {
        check.outputs();
        check.cycles();
    }
    let wanted = check.upstream_of_outputs();
    for node in graph.nodes().filter(|node| wanted.contains(node.id)) {
        if let Some(kind) = inventory.node_type(node.class) {
            check.inputs(node, kind);
        }
    }
    check.verdict()
}

struct Check<'a> {
    inventory: &'a Inventory,
    graph: &'a Graph,
    attached: &'a [String],
    problems: Vec<(FailureClass, String)>,
}

impl<'a> Check<'a> {
    fn invalid(&mut self, what: String) {
        self.problems.push((FailureClass::InvalidGraph, what));
    }

    fn missing(&mut self, what: String) {
        self.problems.push((FailureClass::MissingModelOrClass, what));
    }

    fn classes(&mut self) {
        for node in self.graph.nodes() {
            if !self.inventory.has_class(node.class) {
                self.missing(format!("node {}: class {} is not installed here", node.id, node.class));
            }
            // ComfyUI says so of nodes that no list knows yet.
            if self.inventory.node_type(node.class).is_some_and(|kind| kind.partner) {
                let what = format!("node {} ({}): it calls a paid service", node.id, node.class);
                self.problems.push((FailureClass::Policy, what));
            }
        }
    }

    fn outputs(&mut self) {
        if !self.graph.nodes().any(|node| self.is_end(&node)) {
            self.invalid(
                "no node of the graph saves or shows anything; add one, SaveImage for instance".into(),
            );
        }
    }

    /// The nodes that ComfyUI will execute and therefore validates: leftovers beside them may be half-wired.
    fn upstream_of_outputs(&self) -> BTreeSet<&'a str> {
        let mut wanted = BTreeSet::new();
        let ends = self.graph.nodes().filter(|node| self.is_end(node));
        let mut stack: Vec<&'a str> = ends.map(|node| node.id).collect();
        while let Some(id) = stack.pop() {
            let Some(node) = self.graph.node(id) else { continue };
            if wanted.insert(node.id) {
                stack.extend(node.inputs.values().filter_map(as_link).map(|(source, _)| source));
            }
        }
        wanted
    }

    fn is_end(&self, node: &Node<'_>) -> bool {
        self.inventory.node_type(node.class).is_none_or(|kind| kind.output_node)
    }

    /// ComfyUI of today says so, older ones hang or overflow.
    fn cycles(&mut self) {
        // White is absent, grey is on the way, black is done; an explicit stack, since chains can be long.
        let mut done: BTreeMap<&str, bool> = BTreeMap::new();
        for start in self.graph.nodes() {
            let mut stack = vec![(start.id, false)];
            while let Some((id, leaving)) = stack.pop() {
                if leaving {
                    done.insert(id, true);
                    continue;
                }
                match done.get(id) {
                    Some(true) => continue,
                    Some(false) => {
                        let class = self.graph.node(id).map_or("", |node| node.class);
                        self.problems.push((
                            FailureClass::InvalidGraph,
                            format!("node {id} ({class}) depends on its own output"),
                        ));
                        return;
                    }
                    None => {}
                }
                let Some(node) = self.graph.node(id) else { continue };
                done.insert(node.id, false);
                stack.push((node.id, true));
                stack.extend(node.inputs.values().filter_map(as_link).map(|(source, _)| (source, false)));
            }
        }
    }

    fn inputs(&mut self, node: Node<'_>, kind: &NodeType) {
        for input in &kind.inputs {
            match node.inputs.get(&input.name) {
                None => {
                    if input.required && !matches!(input.kind, InputKind::Dynamic) {
                        self.invalid(format!("{}: the required input is missing", at(node, &input.name)));
                    }
                }
                Some(Value::Array(items)) => self.link(node, input, items),
                Some(value) => self.literal(node, input, value.get("__value__").unwrap_or(value)),
            }
        }
    }

    fn link(&mut self, node: Node<'_>, input: &InputType, items: &[Value]) {
        let at = at(node, &input.name);
        let [Value::String(source), slot] = items else {
            // A combo that takes several values may stand as a bare list of another length.
            if !matches!(input.kind, InputKind::Combo { many: true, .. } | InputKind::Dynamic) {
                self.invalid(format!("{at}: a link is a list of a node and a slot number"));
            }
            return;
        };
        let Some(source) = self.graph.node(source) else {
            return self.invalid(format!("{at}: linked to node {source:?}, which is not in the graph"));
        };
        let Some(kind) = self.inventory.node_type(source.class) else { return };
        let output = slot.as_u64().and_then(|slot| kind.outputs.get(usize::try_from(slot).ok()?));
        let Some(given) = output else {
            let (has, class) = (kind.outputs.len(), source.class);
            return self.invalid(format!(
                "{at}: linked to output {slot} of node {} ({class}), which has {has}",
                source.id
            ));
        };
        let Some(wanted) = input.kind.link_type() else { return };
        if !types_meet(given, wanted) {
            self.invalid(format!(
                "{at}: takes {wanted}, but is linked to {given} of node {} ({})",
                source.id, source.class
            ));
        }
    }

    fn literal(&mut self, node: Node<'_>, input: &InputType, value: &Value) {
        let at = at(node, &input.name);
        if input.upload || is_file_input(node.class, &input.name) {
            return self.file(&at, value);
        }
        match &input.kind {
            InputKind::Int { min, max } | InputKind::Float { min, max } => {
                let Some(number) = as_number(value) else {
                    return self.invalid(format!("{at}: {} is not a number", shown(value)));
                };
                let beyond = |limit: &Option<Number>, past: fn(f64, f64) -> bool| {
                    limit
                        .as_ref()
                        .filter(|limit| limit.as_f64().is_some_and(|limit| past(number, limit)))
                        .cloned()
                };
                if let Some(min) = beyond(min, |number, min| number < min) {
                    self.invalid(format!("{at}: {} is smaller than the least allowed, {min}", shown(value)));
                } else if let Some(max) = beyond(max, |number, max| number > max) {
                    self.invalid(format!("{at}: {} is larger than the most allowed, {max}", shown(value)));
                }
            }
            InputKind::Combo { options, many } => {
                let several = value.as_array().filter(|_| *many).map(Vec::as_slice);
                let values = several.unwrap_or(std::slice::from_ref(value));
                for value in values {
                    self.choice(node, &input.name, options, value);
                }
            }
            InputKind::Link(wanted) if is_certainly_a_link(wanted) => {
                self.invalid(format!("{at}: takes a link of type {wanted}, not a value"));
            }
            InputKind::Text | InputKind::Boolean | InputKind::Link(_) | InputKind::Dynamic => {}
        }
    }

    fn choice(&mut self, node: Node<'_>, input: &str, options: &[Value], value: &Value) {
        let listed = options.iter().any(|option| same_choice(option, value));
        let text = value.as_str();
        let spelt = text.is_some_and(|value| self.inventory.spelling(node.class, input, value).is_some());
        if listed || spelt || text.is_some_and(|name| self.is_attached(name)) {
            return;
        }
        // Another node may have more: custom nodes add samplers as well as models.
        match (input_folder(node.class, input), value.as_str()) {
            (Some(folder), Some(name)) => {
                self.missing(format!("{}: the model {folder}/{name} is not here", at(node, input)));
            }
            _ => {
                let known = choices(options);
                self.missing(format!("{}: {} is not one of {known}", at(node, input), shown(value)));
            }
        }
    }

    fn file(&mut self, at: &str, value: &Value) {
        let Some(name) = value.as_str() else {
            return self.invalid(format!("{at}: {} is not a file name", shown(value)));
        };
        if !self.is_attached(name) {
            self.invalid(format!("{at}: the file {} is not attached to the task", shown(value)));
        }
    }

    fn is_attached(&self, name: &str) -> bool {
        self.attached.iter().any(|given| given == name || given == without_annotation(name))
    }

    fn verdict(mut self) -> Result<(), Failure> {
        let invalid = |(class, _): &(FailureClass, String)| *class == FailureClass::InvalidGraph;
        // A graph that is wrong everywhere is told as that, whatever else this machine lacks.
        self.problems.sort_by_key(|problem| (problem.0 != FailureClass::Policy, !invalid(problem)));
        let Some((class, _)) = self.problems.first() else { return Ok(()) };
        let class = *class;
        let more = self.problems.len().saturating_sub(TOLD);
        let told: Vec<String> = self.problems.into_iter().take(TOLD).map(|(_, what)| what).collect();
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        let told: String = told.join("; ").chars().take(LONGEST).collect();
        Err(Failure::new(class, told + &tail))
    }
}

fn at(node: Node<'_>, input: &str) -> String {
    format!("node {} ({}), input {input}", node.id, node.class)
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

fn choices(options: &[Value]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = options.iter().take(SHOWN).map(shown).collect();
    if options.len() > SHOWN {
        names.push(format!("{} more", options.len() - SHOWN));
    }
    if names.is_empty() { "an empty list".into() } else { names.join(", ") }
}

/// ComfyUI converts with Python's `int()` and `float()`, which take numeric text and booleans.
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| !number.is_nan()),
        Value::Bool(truth) => Some(f64::from(*truth)),
        _ => None,
    }
}

/// Python's equality: `1 == 1.0 == True`.
fn same_choice(option: &Value, value: &Value) -> bool {
    let number = |value: &Value| if value.is_string() { None } else { as_number(value) };
    option == value || number(option).is_some_and(|a| number(value) == Some(a))
}

/// As ComfyUI's `validate_node_input`: unions meet when they share a member, `*` meets everything.
fn types_meet(given: &str, wanted: &str) -> bool {
    let any = |kind: &str| kind.split(',').any(|one| one.trim() == "*");
    given == wanted
        || any(given)
        || any(wanted)
        || given.split(',').any(|one| wanted.split(',').any(|other| one.trim() == other.trim()))
}

/// Custom types are upper-case by custom, and may well be widgets that carry a value (`CURVE`, `LOAD_3D`);
/// the core ones below never are.
fn is_certainly_a_link(kind: &str) -> bool {
    const CORE: [&str; 12] = [
        "MODEL",
        "CLIP",
        "VAE",
        "CONDITIONING",
        "LATENT",
        "IMAGE",
        "MASK",
        "CONTROL_NET",
        "CLIP_VISION",
        "STYLE_MODEL",
        "AUDIO",
        "VIDEO",
    ];
    CORE.contains(&kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::comfyui::testing;

    fn verdict(change: impl FnOnce(&mut Value)) -> Result<(), Failure> {
        let mut graph = testing::ksampler();
        change(&mut graph);
        testing::inventory().check(&Graph::from_value(graph).unwrap(), &["plate.png".to_owned()])
    }

    fn told(change: impl FnOnce(&mut Value)) -> (FailureClass, String) {
        let failure = verdict(change).unwrap_err();
        (failure.class, failure.detail)
    }

    #[test]
    fn a_good_graph_passes() {
        assert_eq!(verdict(|_| {}), Ok(()));
    }

    #[test]
    fn a_missing_class_is_named() {
        let (class, detail) = told(|graph| graph["3"]["class_type"] = json!("NoSuchNode"));
        assert_eq!(class, FailureClass::MissingModelOrClass);
        assert_eq!(detail, "node 3: class NoSuchNode is not installed here");
    }

    #[test]
    fn a_missing_model_is_named_with_its_folder() {
        let (class, detail) = told(|graph| graph["4"]["inputs"]["ckpt_name"] = json!("nope.safetensors"));
        assert_eq!(class, FailureClass::MissingModelOrClass);
        let expected = "node 4 (CheckpointLoaderSimple), input ckpt_name: the model checkpoints/nope.safetensors is not here";
        assert_eq!(detail, expected);
    }

    #[test]
    fn values_out_of_range_are_invalid_everywhere() {
        let (class, detail) = told(|graph| {
            graph["3"]["inputs"]["steps"] = json!(0);
            graph["3"]["inputs"]["cfg"] = json!(1000);
        });
        assert_eq!(class, FailureClass::InvalidGraph);
        let expected = "node 3 (KSampler), input steps: 0 is smaller than the least allowed, 1; \
                        node 3 (KSampler), input cfg: 1000 is larger than the most allowed, 100.0";
        assert_eq!(detail, expected);
        assert_eq!(verdict(|graph| graph["3"]["inputs"]["seed"] = json!(u64::MAX)), Ok(()));
        assert_eq!(verdict(|graph| graph["3"]["inputs"]["steps"] = json!("8")), Ok(()));
        assert!(told(|graph| graph["3"]["inputs"]["steps"] = json!("eight")).1.contains("is not a number"));
    }

    #[test]
    fn a_value_outside_its_list_is_missing_here_perhaps_not_elsewhere() {
        let (class, detail) = told(|graph| graph["3"]["inputs"]["sampler_name"] = json!("eulr"));
        assert_eq!(class, FailureClass::MissingModelOrClass);
        assert!(
            detail.starts_with("node 3 (KSampler), input sampler_name: \"eulr\" is not one of \"euler\""),
            "{detail}"
        );
    }

    #[test]
    fn bad_links_are_named_at_the_end_that_is_wrong() {
        let (class, detail) = told(|graph| graph["8"]["inputs"]["samples"] = json!(["99", 0]));
        assert_eq!(class, FailureClass::InvalidGraph);
        assert_eq!(
            detail,
            "node 8 (VAEDecode), input samples: linked to node \"99\", which is not in the graph"
        );
        let (_, detail) = told(|graph| graph["8"]["inputs"]["samples"] = json!(["4", 0]));
        let expected = "node 8 (VAEDecode), input samples: takes LATENT, but is linked to MODEL of node 4 \
                        (CheckpointLoaderSimple)";
        assert_eq!(detail, expected);
        let (_, detail) = told(|graph| graph["8"]["inputs"]["samples"] = json!(["4", 7]));
        assert!(
            detail.ends_with("linked to output 7 of node 4 (CheckpointLoaderSimple), which has 3"),
            "{detail}"
        );
        let (_, detail) = told(|graph| graph["8"]["inputs"]["samples"] = json!([3]));
        assert!(detail.ends_with("a link is a list of a node and a slot number"), "{detail}");
    }

    #[test]
    fn a_missing_input_is_named() {
        let (class, detail) = told(|graph| {
            graph["3"]["inputs"].as_object_mut().unwrap().remove("seed");
        });
        assert_eq!(class, FailureClass::InvalidGraph);
        assert_eq!(detail, "node 3 (KSampler), input seed: the required input is missing");
    }

    #[test]
    fn a_graph_without_outputs_is_invalid() {
        let (class, detail) = told(|graph| {
            graph.as_object_mut().unwrap().remove("9");
        });
        assert_eq!(class, FailureClass::InvalidGraph);
        assert!(detail.contains("no node of the graph saves or shows anything"), "{detail}");
    }

    #[test]
    fn a_cycle_is_found() {
        let (class, detail) =
            told(|graph| graph["5"] = json!({"class_type": "ImageInvert", "inputs": {"image": ["5", 0]}}));
        assert_eq!(class, FailureClass::InvalidGraph);
        assert!(detail.contains("node 5 (ImageInvert) depends on its own output"), "{detail}");
    }

    #[test]
    fn files_must_be_attached_even_where_the_renderer_has_one_of_that_name() {
        let load = |name: &str| {
            let name = name.to_owned();
            move |graph: &mut Value| {
                graph["20"] = json!({"class_type": "LoadImage", "inputs": {"image": name}});
                graph["21"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}});
            }
        };
        assert_eq!(verdict(load("plate.png")), Ok(()));
        assert_eq!(verdict(load("plate.png [input]")), Ok(()));
        let (class, detail) = told(load("example.png"));
        assert_eq!(class, FailureClass::InvalidGraph);
        assert_eq!(
            detail,
            "node 20 (LoadImage), input image: the file \"example.png\" is not attached to the task"
        );
    }

    #[test]
    fn wrong_everywhere_outweighs_missing_here() {
        let (class, detail) = told(|graph| {
            graph["4"]["inputs"]["ckpt_name"] = json!("nope.safetensors");
            graph["3"]["inputs"]["steps"] = json!(0);
        });
        assert_eq!(class, FailureClass::InvalidGraph);
        assert!(detail.contains("steps") && detail.contains("nope.safetensors"), "{detail}");
    }

    #[test]
    fn types_meet_as_unions() {
        assert!(types_meet("IMAGE", "IMAGE,MASK"));
        assert!(types_meet("*", "IMAGE"));
        assert!(types_meet("INT", "FLOAT, INT"));
        assert!(!types_meet("INT", "FLOAT"));
    }

    #[test]
    fn before_the_first_answer_nothing_passes() {
        let graph = Graph::from_value(testing::ksampler()).unwrap();
        let failure = Inventory::default().check(&graph, &[]).unwrap_err();
        assert_eq!(failure.class, FailureClass::ComfyuiDied);
    }
}
