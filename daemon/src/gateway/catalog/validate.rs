//! PURE: whether a graph may be queued: first as ComfyUI would judge it, then whether one node has all it needs.

use std::collections::HashSet;
use std::fmt;

use scenemesh_protocol::task::ModelName;
use serde_json::{Map, Value, json};

use super::check::{Checked, Shelf, check, problem};
use super::{Catalog, Offering, korean, python};
use crate::executor::definitions;
use crate::executor::graph::input_folder;
use crate::messages::Lang;

/// Nodes that are told with what they lack; the rest is counted.
pub(super) const TOLD: usize = 8;
/// Things that are told of one node.
pub(super) const TOLD_OF_ONE: usize = 4;
/// Most characters of a name in a sentence: it may be anything.
const LONGEST_NAME: usize = 80;

/// What is to be done with a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// These outputs run; what is wrong with others goes into the answer's `node_errors`.
    Fine {
        outputs: Vec<String>,
        node_errors: Map<String, Value>,
    },
    /// Too little is known: no node has told more than names, or one that is there has told nothing yet. Queue it; whoever
    /// takes it judges it.
    Unjudged,
    Refused(Refusal),
}

/// Why a prompt is not queued.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It would fail on every ComfyUI: `error` and `node_errors` of a 400.
    Invalid { error: Value, node_errors: Map<String, Value> },
    /// Each thing that it needs is somewhere, but never all of it on one node.
    Scattered { shortfalls: Vec<Shortfall>, outputs: Vec<String> },
}

/// A node, and what it lacks for a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    pub node: String,
    pub lacks: Vec<Lack>,
}

/// Something that a graph needs and a node does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    Class {
        at: String,
        class: String,
    },
    /// Not there, or not shown to us.
    Model {
        at: String,
        input: String,
        model: ModelName,
    },
    /// A value that its version of the class does not take.
    Value {
        at: String,
        class: String,
        input: String,
    },
}

impl Lack {
    /// The graph's node that needs it.
    fn at(&self) -> &str {
        match self {
            Self::Class { at, .. } | Self::Model { at, .. } | Self::Value { at, .. } => at,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class { at, class } => write!(f, "no class {} (node {})", short(class), short(at)),
            Self::Model { at, model, .. } => {
                write!(f, "shows no model {} (node {})", short(&model.to_string()), short(at))
            }
            Self::Value { at, class, input } => {
                let (at, class, input) = (short(at), short(class), short(input));
                write!(f, "its {class} does not take the value of {input} (node {at})")
            }
        }
    }
}

pub(super) fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME).chain(['…']).collect()
}

impl Catalog {
    /// Judges a prompt, or those of its outputs that are in `targets`. `has_file` says whether a file that a loader names
    /// will come with it.
    pub fn validate(
        &self,
        prompt: &Map<String, Value>,
        targets: Option<&[String]>,
        has_file: &dyn Fn(&str) -> bool,
    ) -> Verdict {
        match self.judge(prompt, targets, has_file) {
            Verdict::Refused(_) if self.incomplete => Verdict::Unjudged,
            verdict => verdict,
        }
    }

    fn judge(
        &self,
        prompt: &Map<String, Value>,
        targets: Option<&[String]>,
        has_file: &dyn Fn(&str) -> bool,
    ) -> Verdict {
        if self.is_empty() {
            return Verdict::Unjudged;
        }
        if self.classes.is_empty() {
            return self.by_names(prompt);
        }
        let definition = |class: &str| self.classes.get(class);
        let has_model = |model: &ModelName| self.offerings.iter().any(|offering| offering.has_model(model));
        let shelf = Shelf { definition: &definition, has_file, has_model: &has_model };
        let checked = match check(prompt, targets, &shelf) {
            Ok(checked) => checked,
            // A class of which only the name is known, on a node that tells no more: that node decides.
            Err(_) if self.names_all_classes(prompt) => return self.by_names(prompt),
            Err(error) => return Verdict::Refused(Refusal::Invalid { error, node_errors: Map::new() }),
        };
        let Checked { good, node_errors, details } = checked;
        if good.is_empty() {
            let message = "Prompt outputs failed validation";
            let error = problem("prompt_outputs_failed_validation", message, &details.join("\n"));
            return Verdict::Refused(Refusal::Invalid { error, node_errors });
        }
        let mut shortfalls = Vec::new();
        for offering in &self.offerings {
            let lacks = self.lacks(offering, prompt, &good, has_file);
            if lacks.is_empty() {
                return Verdict::Fine { outputs: good, node_errors };
            }
            shortfalls.push(Shortfall { node: offering.node.clone(), lacks });
        }
        Verdict::Refused(Refusal::Scattered { shortfalls, outputs: good })
    }

    /// Whether each class is at least named by somebody, and one of them by nobody who defines it.
    fn names_all_classes(&self, prompt: &Map<String, Value>) -> bool {
        let classes: Vec<&str> = prompt.values().filter_map(|node| node["class_type"].as_str()).collect();
        let named = |class: &&str| self.offerings.iter().any(|offering| offering.has_class(class));
        classes.len() == prompt.len()
            && classes.iter().all(named)
            && classes.iter().any(|class| !self.classes.contains_key(*class))
    }

    /// By names alone: whether one node has all classes and models.
    fn by_names(&self, prompt: &Map<String, Value>) -> Verdict {
        let mut shortfalls = Vec::new();
        for offering in &self.offerings {
            let lacks = names_lacking(offering, prompt, &prompt.keys().map(String::as_str).collect());
            if lacks.is_empty() {
                return Verdict::Unjudged;
            }
            shortfalls.push(Shortfall { node: offering.node.clone(), lacks });
        }
        Verdict::Refused(Refusal::Scattered { shortfalls, outputs: Vec::new() })
    }

    /// What a node lacks to run these outputs.
    fn lacks(
        &self,
        offering: &Offering,
        prompt: &Map<String, Value>,
        outputs: &[String],
        has_file: &dyn Fn(&str) -> bool,
    ) -> Vec<Lack> {
        let missing: Vec<Lack> = names_lacking(offering, prompt, &HashSet::new());
        if !missing.is_empty() {
            return missing;
        }
        let Some(own) = &offering.definitions else {
            return names_lacking(offering, prompt, &self.upstream(prompt, outputs));
        };
        let definition = |class: &str| own.get(class);
        let has_model = |model: &ModelName| offering.has_model(model);
        let shelf = Shelf { definition: &definition, has_file, has_model: &has_model };
        let Ok(checked) = check(prompt, Some(outputs), &shelf) else {
            // All classes are there, so what it does not call an output here is one elsewhere.
            return outputs
                .iter()
                .map(|id| Lack::Class { at: id.clone(), class: python::text(&prompt[id]["class_type"]) })
                .collect();
        };
        let mut lacks = Vec::new();
        for (id, entry) in &checked.node_errors {
            let class = python::text(&prompt[id]["class_type"]);
            for error in entry["errors"].as_array().into_iter().flatten() {
                let input = error["extra_info"]["input_name"].as_str().unwrap_or_default().to_owned();
                let name = prompt[id]["inputs"][&input].as_str();
                let at = id.clone();
                lacks.push(match (input_folder(&class, &input), name) {
                    (Some(folder), Some(name)) => {
                        Lack::Model { at, input, model: ModelName::new(folder, name) }
                    }
                    _ => Lack::Value { at, class: class.clone(), input },
                });
            }
        }
        lacks
    }

    /// These nodes and all that they need.
    fn upstream<'p>(&self, prompt: &'p Map<String, Value>, outputs: &'p [String]) -> HashSet<&'p str> {
        let mut wanted = HashSet::new();
        let mut stack: Vec<&str> = outputs.iter().map(String::as_str).collect();
        while let Some(id) = stack.pop() {
            if wanted.insert(id) {
                let inputs = prompt.get(id).and_then(|node| node["inputs"].as_object());
                let links = inputs.into_iter().flatten().filter_map(|(_, value)| value.as_array());
                let sources = links.filter(|link| link.len() == 2).filter_map(|link| link[0].as_str());
                stack.extend(sources);
            }
        }
        wanted
    }
}

/// Classes of a whole prompt that a node does not name, then models of these graph nodes that it does not show.
fn names_lacking(offering: &Offering, prompt: &Map<String, Value>, nodes: &HashSet<&str>) -> Vec<Lack> {
    let mut lacks = Vec::new();
    for (id, node) in prompt {
        let class = python::text(&node["class_type"]);
        if offering.definition(&class).is_none() && !offering.has_class(&class) {
            lacks.push(Lack::Class { at: id.clone(), class });
        }
    }
    for (id, node) in prompt.iter().filter(|(id, _)| nodes.contains(id.as_str())) {
        let class = python::text(&node["class_type"]);
        for (input, value) in node["inputs"].as_object().into_iter().flatten() {
            let (Some(folder), Some(name)) = (input_folder(&class, input), value.as_str()) else { continue };
            let model = ModelName::new(folder, name);
            if definitions::names_a_file(name) && !offering.has_model(&model) {
                lacks.push(Lack::Model { at: id.clone(), input: input.clone(), model });
            }
        }
    }
    lacks
}

impl Refusal {
    /// The body of the 400. ComfyUI's own words stay as they are: programs look for them.
    pub fn body(&self, prompt: &Map<String, Value>, lang: Lang) -> Value {
        let (shortfalls, outputs) = match self {
            Self::Invalid { error, node_errors } => {
                return json!({"error": error, "node_errors": node_errors});
            }
            Self::Scattered { shortfalls, outputs } => (shortfalls, outputs),
        };
        let (sentence, title) = match lang {
            Lang::En => (sentence(shortfalls), "No single node of the pool can run this"),
            Lang::Ko => (korean::sentence(shortfalls), "풀에 이것을 혼자 실행할 수 있는 노드가 없습니다"),
        };
        let error = problem("no_single_node", &sentence, "");
        // Programs that show only the graph's nodes point at what the nearest machine lacks.
        let mut node_errors = Map::new();
        let nearest = shortfalls.iter().min_by_key(|shortfall| shortfall.lacks.len());
        for lack in nearest.into_iter().flat_map(|shortfall| &shortfall.lacks) {
            let entry = node_errors.entry(lack.at()).or_insert_with(|| {
                let class = prompt.get(lack.at()).map_or(&Value::Null, |node| &node["class_type"]);
                json!({"errors": [], "dependent_outputs": outputs, "class_type": class})
            });
            let mut error = problem("no_single_node", title, &sentence);
            if let Lack::Model { input, .. } | Lack::Value { input, .. } = lack {
                error["extra_info"] = json!({"input_name": input});
            }
            if let Some(errors) = entry["errors"].as_array_mut().filter(|errors| errors.is_empty()) {
                errors.push(error);
            }
        }
        json!({"error": error, "node_errors": node_errors})
    }
}

/// Which node lacks what, and what to do about it.
fn sentence(shortfalls: &[Shortfall]) -> String {
    let told = shortfalls.iter().take(TOLD).map(|Shortfall { node, lacks }| {
        let mut things: Vec<String> = lacks.iter().take(TOLD_OF_ONE).map(ToString::to_string).collect();
        if lacks.len() > TOLD_OF_ONE {
            things.push(format!("and {} more", lacks.len() - TOLD_OF_ONE));
        }
        format!("{}: {}", short(node), things.join(", "))
    });
    let mut told: Vec<String> = told.collect();
    if shortfalls.len() > TOLD {
        told.push(format!("and {} more nodes", shortfalls.len() - TOLD));
    }
    format!(
        "no single node of the pool can run this graph ({}); bring what is missing to one of them, or submit the parts \
         as graphs of their own",
        told.join("; ")
    )
}
