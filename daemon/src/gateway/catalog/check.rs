//! PURE: what ComfyUI says to a prompt before it queues it, in its own shapes, held against any set of definitions.
//!
//! Written as a walk with its own stack: a graph may be a chain of ten thousand nodes. Where definitions do not tell how
//! ComfyUI will judge (inputs that grow, lists that a server is asked for), a graph passes: the renderer has the last
//! word.

use std::collections::{HashMap, HashSet};

use scenemesh_protocol::task::ModelName;
use serde_json::{Map, Value, json};

use super::python::{self, Raised};
use crate::executor::definitions::{inputs, is_upload, lists_files, options};
use crate::executor::graph::{input_folder, is_file_input};

/// Longer lists of options are not repeated in an error.
const MOST_OPTIONS_SHOWN: usize = 20;
/// Most entries of all `dependent_outputs` of an answer together: they grow with the square of a bad graph.
const MOST_DEPENDENTS: usize = 20_000;
/// Most errors of an answer, about; nodes beyond them fail without a word of their own.
const MOST_ERRORS: usize = 2_000;

/// What a prompt is held against.
pub(super) struct Shelf<'a> {
    pub(super) definition: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// Whether a file that a loader names will be there.
    pub(super) has_file: &'a dyn Fn(&str) -> bool,
    /// Whether a model is there that a definition does not list: those of other machines list none.
    pub(super) has_model: &'a dyn Fn(&ModelName) -> bool,
}

/// Outputs that may run, and what is wrong with the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checked {
    pub(super) good: Vec<String>,
    pub(super) node_errors: Map<String, Value>,
    /// One line for each error of an output node itself.
    pub(super) details: Vec<String>,
}

/// Checks the outputs of a prompt, or those of `targets`.
///
/// # Errors
/// The `error` object of a 400 that names no inputs: a class that is not there, or nothing to run.
pub(super) fn check<'a>(
    prompt: &'a Map<String, Value>,
    targets: Option<&[String]>,
    shelf: &Shelf<'a>,
) -> Result<Checked, Value> {
    let outputs = outputs(prompt, targets, shelf)?;
    let mut walk =
        Walk { prompt, shelf, judged: Vec::new(), places: HashMap::new(), open: HashSet::new(), errors: 0 };
    let mut checked = Checked::default();
    let (mut dependents, mut reported) = (0, 0);
    for output in outputs {
        if let Err(raised) = walk.to(output) {
            let mut error =
                problem("exception_during_validation", "Exception when validating node", &raised.text);
            error["extra_info"] = json!({"exception_type": raised.kind, "traceback": []});
            walk.settle(output, Judged { valid: false, errors: vec![error] });
        }
        let Some(judged) = walk.judged(output) else { continue };
        if judged.valid {
            checked.good.push(output.to_owned());
            continue;
        }
        for error in &judged.errors {
            let line = format!("{}: {}", python::text(&error["message"]), python::text(&error["details"]));
            checked.details.push(line);
        }
        // As ComfyUI does: all that was found wrong so far counts against this output. A node below a bad one is invalid
        // too, but has no errors of its own and is not reported.
        let from = if dependents < MOST_DEPENDENTS { 0 } else { reported };
        reported = walk.judged.len();
        for (id, judged) in walk.judged[from..].iter().filter(|(_, judged)| !judged.errors.is_empty()) {
            let entry = checked.node_errors.entry(*id).or_insert_with(|| {
                let class = prompt.get(*id).map_or(&Value::Null, |node| &node["class_type"]);
                json!({"errors": judged.errors, "dependent_outputs": [], "class_type": class})
            });
            if let Some(list) = entry["dependent_outputs"].as_array_mut()
                && dependents < MOST_DEPENDENTS
            {
                dependents += 1;
                list.push(Value::from(output));
            }
        }
    }
    Ok(checked)
}

/// The `error` object of a 400.
pub(super) fn problem(kind: &str, message: &str, details: &str) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": {}})
}

/// The output nodes, once every class is known.
fn outputs<'a>(
    prompt: &'a Map<String, Value>,
    targets: Option<&[String]>,
    shelf: &Shelf<'a>,
) -> Result<Vec<&'a str>, Value> {
    let refuse = |message: &str, id: &str| problem("invalid_prompt", message, &format!("Node ID '#{id}'"));
    let wanted: Option<HashSet<&str>> = targets.map(|ids| ids.iter().map(String::as_str).collect());
    let mut outputs = Vec::new();
    for (id, node) in prompt {
        let Some(class) = node.get("class_type") else {
            let message = "Cannot execute because a node is missing the class_type property.";
            return Err(refuse(message, id));
        };
        let class = python::text(class);
        let Some(definition) = (shelf.definition)(&class) else {
            return Err(refuse(&format!("Cannot execute because node {class} does not exist."), id));
        };
        let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(id.as_str()));
        if definition["output_node"] == true && is_wanted {
            outputs.push(id.as_str());
        }
    }
    if outputs.is_empty() {
        return Err(problem("prompt_no_outputs", "Prompt has no outputs", ""));
    }
    Ok(outputs)
}

#[derive(Clone, Debug)]
struct Judged {
    valid: bool,
    errors: Vec<Value>,
}

struct Walk<'a, 's> {
    prompt: &'a Map<String, Value>,
    shelf: &'s Shelf<'a>,
    /// In the order in which they were settled: errors are reported in it.
    judged: Vec<(&'a str, Judged)>,
    places: HashMap<&'a str, usize>,
    /// Nodes whose check has begun and not ended: meeting one again is a cycle.
    open: HashSet<&'a str>,
    errors: usize,
}

/// A node whose inputs are being checked.
struct Visit<'a> {
    id: &'a str,
    class: String,
    given: &'a Map<String, Value>,
    declared: Vec<(&'a str, &'a Value, bool)>,
    /// The declared input that is looked at.
    at: usize,
    below: bool,
    errors: Vec<Value>,
}

enum Step<'a> {
    /// This node must be judged first.
    Into(&'a str),
    Done,
}

impl<'a> Walk<'a, '_> {
    fn judged(&self, id: &str) -> Option<&Judged> {
        self.places.get(id).map(|at| &self.judged[*at].1)
    }

    fn settle(&mut self, id: &'a str, mut judged: Judged) {
        self.open.remove(id);
        if self.errors >= MOST_ERRORS {
            judged.errors.clear();
        }
        self.errors += judged.errors.len();
        if let Some(at) = self.places.get(id) {
            self.judged[*at].1 = judged;
        } else {
            self.places.insert(id, self.judged.len());
            self.judged.push((id, judged));
        }
    }

    /// Judges an output and all that it needs. An exception of its own inputs is the caller's to tell.
    fn to(&mut self, output: &'a str) -> Result<(), Raised> {
        if self.judged(output).is_some() {
            return Ok(());
        }
        let mut stack = vec![self.visit(output)?];
        while let Some(visit) = stack.last_mut() {
            let raised = match self.advance(visit) {
                Ok(Step::Into(id)) => match self.visit(id) {
                    Ok(next) => {
                        stack.push(next);
                        continue;
                    }
                    Err(raised) => (id, raised),
                },
                Ok(Step::Done) => {
                    let valid = visit.errors.is_empty() && !visit.below;
                    let judged = Judged { valid, errors: std::mem::take(&mut visit.errors) };
                    self.settle(visit.id, judged);
                    stack.pop();
                    continue;
                }
                Err(raised) => {
                    let id = visit.id;
                    stack.pop();
                    (id, raised)
                }
            };
            let (id, raised) = raised;
            // Whoever linked to it catches the exception.
            let Some(above) = stack.last() else { return Err(raised) };
            let error = inner_exception(above, &raised);
            self.settle(id, Judged { valid: false, errors: vec![error] });
        }
        Ok(())
    }

    fn visit(&mut self, id: &'a str) -> Result<Visit<'a>, Raised> {
        let node = self.prompt.get(id).ok_or_else(|| Raised::key(&Value::from(id)))?;
        let given = node.get("inputs").ok_or_else(|| Raised::key(&Value::from("inputs")))?;
        let given = given.as_object().ok_or_else(|| Raised::new("TypeError", "inputs must be a dict"))?;
        let class = python::text(&node["class_type"]);
        let declared = (self.shelf.definition)(&class).map(|definition| inputs(definition).collect());
        self.open.insert(id);
        let declared = declared.unwrap_or_default();
        Ok(Visit { id, class, given, declared, at: 0, below: false, errors: Vec::new() })
    }

    /// Checks inputs until another node has to be judged first.
    fn advance(&self, visit: &mut Visit<'a>) -> Result<Step<'a>, Raised> {
        while let Some((name, spec, required)) = visit.declared.get(visit.at).copied() {
            let input = Input { name, spec };
            match visit.given.get(name) {
                None if required && !input.is_dynamic() => {
                    let mut error = problem("required_input_missing", "Required input is missing", name);
                    error["extra_info"] = json!({"input_name": name});
                    visit.errors.push(error);
                }
                None => {}
                Some(value @ Value::Array(link)) => match self.link(&input, link, value)? {
                    Linked::To(id) => match self.judged(id) {
                        Some(judged) => visit.below |= !judged.valid,
                        None if self.open.contains(id) => {
                            let message = "Dependency cycle detected";
                            let mut error = problem("dependency_cycle", message, name);
                            error["extra_info"] = json!({"input_name": name, "linked_node": value});
                            visit.errors.push(error);
                        }
                        None => return Ok(Step::Into(id)),
                    },
                    Linked::Wrong(error) => visit.errors.push(error),
                },
                Some(value) => visit.errors.extend(self.literal(&visit.class, &input, value)),
            }
            visit.at += 1;
        }
        Ok(Step::Done)
    }

    fn link(&self, input: &Input<'a>, link: &'a [Value], value: &Value) -> Result<Linked<'a>, Raised> {
        let name = input.name;
        let [source, slot] = link else {
            let text = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let mut error = problem("bad_linked_input", text, name);
            error["extra_info"] =
                json!({"input_name": name, "input_config": input.config(), "received_value": value});
            return Ok(Linked::Wrong(error));
        };
        let known = source.as_str().and_then(|id| Some((id, self.prompt.get(id)?)));
        let (id, node) = known.ok_or_else(|| Raised::key(source))?;
        let class = python::text(&node["class_type"]);
        let outputs = (self.shelf.definition)(&class).and_then(|definition| definition["output"].as_array());
        let received = python::item(outputs.map_or(&[], Vec::as_slice), slot)?;
        if fits(received, &input.spec[0]) {
            return Ok(Linked::To(id));
        }
        let (got, wanted) = (python::text(received), python::text(&input.spec[0]));
        let details = format!("{name}, received_type({got}) mismatch input_type({wanted})");
        let text = "Return type mismatch between linked nodes";
        let mut error = problem("return_type_mismatch", text, &details);
        error["extra_info"] = json!({
            "input_name": name, "input_config": input.config(), "received_type": received, "linked_node": value,
        });
        Ok(Linked::Wrong(error))
    }

    /// Converts a literal to its input's type and holds it against range and list: what is wrong with it.
    fn literal(&self, class: &str, input: &Input<'_>, value: &Value) -> Option<Value> {
        let name = input.name;
        let value = value.get("__value__").unwrap_or(value);
        if is_file_input(class, name) || is_upload(input.spec) {
            let file = value.as_str().filter(|file| (self.shelf.has_file)(file));
            return file.is_none().then(|| {
                let kind = input.file_kind();
                let details = format!("{name} - Invalid {kind} file: {}", python::text(value));
                let text = "Custom validation failed for node";
                let mut error = problem("custom_validation_failed", text, &details);
                error["extra_info"] = json!({"input_name": name});
                error
            });
        }
        let kind = input.spec[0].as_str().unwrap_or_default();
        let converted = match kind {
            "INT" => python::int(value),
            "FLOAT" => python::float(value),
            "STRING" => Ok(Value::from(python::text(value))),
            "BOOLEAN" => Ok(Value::from(python::truth(value))),
            _ => Ok(value.clone()),
        };
        let value = match converted {
            Ok(value) => value,
            Err(reason) => {
                let message = format!("Failed to convert an input value to a {kind} value");
                let details = format!("{name}, {}, {reason}", python::text(value));
                let mut error = problem("invalid_input_type", &message, &details);
                error["extra_info"] = json!({
                    "input_name": name, "input_config": input.config(), "received_value": value,
                    "exception_message": reason,
                });
                return Some(error);
            }
        };
        let (message, kind, details, config) = if let Some(limit) = input.beyond(&value) {
            (limit.0, limit.1, name.to_owned(), input.config())
        } else {
            let (details, config) = not_listed(class, input, &value, self.shelf.has_model)?;
            ("Value not in list".to_owned(), "value_not_in_list", details, config)
        };
        let mut error = problem(kind, &message, &details);
        error["extra_info"] = json!({"input_name": name, "input_config": config, "received_value": value});
        Some(error)
    }
}

enum Linked<'a> {
    To(&'a str),
    Wrong(Value),
}

/// A declared input.
struct Input<'a> {
    name: &'a str,
    spec: &'a Value,
}

impl Input<'_> {
    /// `[TYPE, {…}]`; ComfyUI answers the second part even where the class gave none.
    fn config(&self) -> Value {
        json!([self.spec[0], self.spec.get(1).cloned().unwrap_or_else(|| json!({}))])
    }

    /// Grows inputs with dotted names, or matches types.
    fn is_dynamic(&self) -> bool {
        self.spec[0].as_str().is_some_and(|kind| kind.starts_with("COMFY_"))
    }

    fn file_kind(&self) -> &'static str {
        let has =
            |word: &str| self.name.contains(word) || self.spec[1].get(format!("{word}_upload")).is_some();
        if has("audio") {
            "audio"
        } else if has("video") {
            "video"
        } else {
            "image"
        }
    }

    /// The limit that a value is beyond: message and type of the error.
    fn beyond(&self, value: &Value) -> Option<(String, &'static str)> {
        let limit = |name: &str| self.spec.get(1).and_then(|options| options.get(name));
        if let Some(min) = limit("min").filter(|min| python::is_less(value, min)) {
            let message = format!("Value {} smaller than min of {}", python::text(value), python::text(min));
            return Some((message, "value_smaller_than_min"));
        }
        let max = limit("max").filter(|max| python::is_less(max, value))?;
        let message = format!("Value {} bigger than max of {}", python::text(value), python::text(max));
        Some((message, "value_bigger_than_max"))
    }
}

/// The details of the error and the configuration it shows, when a value is none of its input's options.
fn not_listed(
    class: &str,
    input: &Input<'_>,
    value: &Value,
    has_model: &dyn Fn(&ModelName) -> bool,
) -> Option<(String, Value)> {
    let offered = options(input.spec)?;
    let folder = input_folder(class, input.name);
    let elsewhere = folder.filter(|_| !lists_files(offered));
    let listed = |value: &Value| {
        if offered.iter().any(|option| python::same(option, value)) {
            return true;
        }
        let Some(name) = value.as_str().filter(|_| folder.is_some()) else { return false };
        let names = offered.iter().filter_map(Value::as_str);
        ModelName::find_name(name, names).is_some()
            || elsewhere.is_some_and(|folder| has_model(&ModelName::new(folder, name)))
    };
    let many = input.spec.get(1).is_some_and(|options| options["multiselect"] == true);
    let all_listed = match value {
        Value::Array(values) if many => values.iter().all(listed),
        value => listed(value),
    };
    if all_listed {
        return None;
    }
    let name = python::text(value);
    if offered.len() > MOST_OPTIONS_SHOWN {
        let details = format!("{}: '{name}' not in (list of length {})", input.name, offered.len());
        return Some((details, Value::Null));
    }
    let shown: Vec<String> = offered.iter().map(python::repr).collect();
    Some((format!("{}: '{name}' not in [{}]", input.name, shown.join(", ")), input.config()))
}

/// Whether an output may feed an input; a type may be a comma-separated union, and `*` takes everything.
fn fits(output: &Value, input: &Value) -> bool {
    if output == input || output == "*" || input == "*" {
        return true;
    }
    match (output, input) {
        (Value::String(output), Value::String(input)) => {
            let any = |kind: &str| kind.starts_with("COMFY_") || kind.split(',').any(|one| one.trim() == "*");
            let meet = |one: &str| input.split(',').any(|other| other.trim() == one.trim());
            any(output) || any(input) || output.split(',').any(meet)
        }
        // Two lists of options are the same one, seen on different nodes.
        (Value::Array(_), Value::Array(_)) => true,
        (Value::String(kind), Value::Array(_)) | (Value::Array(_), Value::String(kind)) => kind == "COMBO",
        _ => false,
    }
}

/// What the node that linked to the broken one makes of its exception.
fn inner_exception(above: &Visit<'_>, raised: &Raised) -> Value {
    let text = "Exception when validating inner node";
    let mut error = problem("exception_during_inner_validation", text, &raised.text);
    let Some((name, spec, _)) = above.declared.get(above.at).copied() else { return error };
    error["extra_info"] = json!({
        "input_name": name, "input_config": Input { name, spec }.config(), "exception_message": raised.text,
        "exception_type": raised.kind, "traceback": [], "linked_node": above.given.get(name),
    });
    error
}
