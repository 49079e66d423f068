//! PURE: what the real server says to a prompt before it queues it: the same checks, the same error shapes, the same conversions.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::pythonic::{self, Raised};

/// What the checks look up.
pub(super) trait Shelf {
    /// A class as `/object_info` has it.
    fn definition(&self, class: &str) -> Option<Value>;
    /// Whether a loader's input names a file that is there.
    fn has_file(&self, annotated: &str) -> bool;
}

/// Outputs that may run, and what is wrong with the others.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) outputs: Vec<String>,
    pub(super) node_errors: Map<String, Value>,
}

/// Why a prompt is not queued.
#[derive(Debug)]
pub(super) enum Refused {
    /// 400 with this body.
    Invalid(Value),
    /// 500: the real server trips over it.
    Trips,
}

/// The inputs that a class checks itself (`VALIDATE_INPUTS`): a file that must be there, and how its kind is called in the message.
const FILE_INPUTS: [(&str, &str, &str); 3] =
    [("LoadImage", "image", "image"), ("LoadImageMask", "image", "image"), ("LoadAudio", "audio", "audio")];
/// Longer option lists are not repeated in an error.
const MOST_OPTIONS_SHOWN: usize = 20;

/// Checks a prompt and converts its literals in place, as the real server does: `1` becomes `1.0` in a FLOAT input.
pub(super) fn validate(
    prompt: &mut Value,
    targets: Option<&[String]>,
    shelf: &impl Shelf,
) -> Result<Valid, Refused> {
    let nodes = prompt.as_object_mut().ok_or(Refused::Trips)?;
    let mut check =
        Check { nodes, shelf, definitions: HashMap::new(), verdicts: Vec::new(), open: HashSet::new() };
    let outputs = check.outputs(targets)?;

    let mut good = Vec::new();
    let mut node_errors = Map::new();
    let mut details = Vec::new();
    for output in outputs {
        let verdict = match check.node(&output) {
            Ok(verdict) => verdict,
            Err(raised) => {
                let mut error = exception(
                    "exception_during_validation",
                    "Exception when validating node",
                    &raised,
                    "validate_prompt",
                );
                error["extra_info"] =
                    json!({"exception_type": raised.kind, "traceback": traceback("validate_prompt")});
                check.settle(&output, Verdict { valid: false, errors: vec![error] })
            }
        };
        if verdict.valid {
            good.push(output);
            continue;
        }
        for error in &verdict.errors {
            details.push(format!(
                "{}: {}",
                pythonic::text(&error["message"]),
                pythonic::text(&error["details"])
            ));
        }
        for (id, verdict) in &check.verdicts {
            // A node below a bad one is invalid too, but has no errors of its own and is not reported.
            if verdict.valid || verdict.errors.is_empty() {
                continue;
            }
            let class = check.nodes.get(id).map_or(&Value::Null, |node| &node["class_type"]);
            let entry = node_errors.entry(id.clone()).or_insert_with(
                || json!({"errors": verdict.errors, "dependent_outputs": [], "class_type": class}),
            );
            if let Some(dependent) = entry["dependent_outputs"].as_array_mut() {
                dependent.push(Value::from(output.as_str()));
            }
        }
    }
    if good.is_empty() {
        let error = problem(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            &details.join("\n"),
        );
        return Err(Refused::Invalid(json!({"error": error, "node_errors": node_errors})));
    }
    Ok(Valid { outputs: good, node_errors })
}

/// The `error` object of a 400.
pub(super) fn problem(kind: &str, message: &str, details: &str) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": {}})
}

#[derive(Clone, Debug)]
struct Verdict {
    valid: bool,
    errors: Vec<Value>,
}

struct Check<'a, S> {
    nodes: &'a mut Map<String, Value>,
    shelf: &'a S,
    definitions: HashMap<String, Value>,
    verdicts: Vec<(String, Verdict)>,
    /// Nodes whose check has begun and not ended: meeting one again is a cycle.
    open: HashSet<String>,
}

impl<S: Shelf> Check<'_, S> {
    /// The output nodes, once every class is known.
    fn outputs(&mut self, targets: Option<&[String]>) -> Result<Vec<String>, Refused> {
        let refuse = |message: String, id: &str| {
            let error = problem("invalid_prompt", &message, &format!("Node ID '#{id}'"));
            Refused::Invalid(json!({"error": error, "node_errors": {}}))
        };
        let mut outputs = Vec::new();
        for (id, node) in self.nodes.iter() {
            // Python finds no "class_type" in a list or a string either, and cannot look into anything else.
            if !(node.is_object() || node.is_array() || node.is_string()) {
                return Err(Refused::Trips);
            }
            let Some(class) = node.get("class_type") else {
                return Err(refuse(
                    "Cannot execute because a node is missing the class_type property.".to_owned(),
                    id,
                ));
            };
            let class = pythonic::text(class);
            let Some(definition) = self.shelf.definition(&class) else {
                return Err(refuse(format!("Cannot execute because node {class} does not exist."), id));
            };
            if definition["output_node"] == true && targets.is_none_or(|targets| targets.contains(id)) {
                outputs.push(id.clone());
            }
            self.definitions.insert(class, definition);
        }
        if outputs.is_empty() {
            let error = problem("prompt_no_outputs", "Prompt has no outputs", "");
            return Err(Refused::Invalid(json!({"error": error, "node_errors": {}})));
        }
        Ok(outputs)
    }

    fn settle(&mut self, id: &str, verdict: Verdict) -> Verdict {
        match self.verdicts.iter_mut().find(|(known, _)| known == id) {
            Some((_, known)) => known.clone_from(&verdict),
            None => self.verdicts.push((id.to_owned(), verdict.clone())),
        }
        verdict
    }

    fn node(&mut self, id: &str) -> Result<Verdict, Raised> {
        if let Some((_, verdict)) = self.verdicts.iter().find(|(known, _)| known == id) {
            return Ok(verdict.clone());
        }
        if !self.open.insert(id.to_owned()) {
            return Err(Raised::new("RecursionError", "maximum recursion depth exceeded"));
        }
        let verdict = self.inputs(id);
        self.open.remove(id);
        Ok(self.settle(id, verdict?))
    }

    fn inputs(&mut self, id: &str) -> Result<Verdict, Raised> {
        let node = self.nodes.get(id).ok_or_else(|| Raised::key(&Value::from(id)))?;
        let class = pythonic::text(&node["class_type"]);
        let mut inputs = node.get("inputs").cloned().ok_or_else(|| Raised::key(&Value::from("inputs")))?;
        let definition = self.definitions.get(&class).cloned().unwrap_or_default();
        let file_input = FILE_INPUTS.iter().find(|(known, ..)| *known == class);

        let mut verdict = Verdict { valid: true, errors: Vec::new() };
        for group in ["required", "optional"] {
            for (name, spec) in definition["input"][group].as_object().into_iter().flatten() {
                let Some(value) = inputs.get(name).cloned() else {
                    if group == "required" {
                        let text = "Required input is missing";
                        verdict.errors.push(input_error(
                            "required_input_missing",
                            text,
                            name,
                            json!({"input_name": name}),
                        ));
                    }
                    continue;
                };
                let input = Input { name, kind: &spec[0], config: config(spec), limits: &spec[1] };
                if let Value::Array(link) = &value {
                    match self.link(&input, link, &value)? {
                        Linked::Fine => {}
                        Linked::Below => verdict.valid = false,
                        Linked::Wrong(error) => verdict.errors.push(error),
                    }
                    continue;
                }
                let skip_range = file_input.is_some_and(|(_, own, _)| own == name);
                let (value, error) = literal(&input, value, skip_range);
                inputs[name.as_str()] = value;
                verdict.errors.extend(error);
            }
        }
        if let Some((_, input, kind)) = file_input {
            match inputs.get(*input) {
                None => {
                    let text = format!(
                        "{class}.VALIDATE_INPUTS() missing 1 required positional argument: '{input}'"
                    );
                    return Err(Raised::new("TypeError", text));
                }
                Some(file) if !file.is_string() && !file.is_array() => {
                    let text = format!("'{}' object has no attribute 'endswith'", pythonic::type_name(file));
                    return Err(Raised::new("AttributeError", text));
                }
                Some(Value::String(file)) if !self.shelf.has_file(file) => {
                    let details = format!("{input} - Invalid {kind} file: {file}");
                    let mut error =
                        problem("custom_validation_failed", "Custom validation failed for node", &details);
                    error["extra_info"] = json!({"input_name": input});
                    verdict.errors.push(error);
                }
                Some(_) => {}
            }
        }
        verdict.valid &= verdict.errors.is_empty();
        if let Some(node) = self.nodes.get_mut(id) {
            node["inputs"] = inputs;
        }
        Ok(verdict)
    }

    fn link(&mut self, input: &Input<'_>, link: &[Value], value: &Value) -> Result<Linked, Raised> {
        let [source, slot] = link else {
            let text = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let info =
                json!({"input_name": input.name, "input_config": input.config, "received_value": value});
            return Ok(Linked::Wrong(input_error("bad_linked_input", text, input.name, info)));
        };
        let known = source
            .as_str()
            .filter(|id| self.nodes.contains_key(*id))
            .ok_or_else(|| Raised::key(source))?
            .to_owned();
        let class = pythonic::text(&self.nodes[&known]["class_type"]);
        let outputs = self.definitions.get(&class).and_then(|definition| definition["output"].as_array());
        let received = pythonic::item(outputs.map_or(&[], Vec::as_slice), slot)?.clone();
        if !fits(&received, input.kind) {
            let (got, wanted) = (pythonic::text(&received), pythonic::text(input.kind));
            let details = format!("{}, received_type({got}) mismatch input_type({wanted})", input.name);
            let mut error =
                problem("return_type_mismatch", "Return type mismatch between linked nodes", &details);
            error["extra_info"] = json!({
                "input_name": input.name, "input_config": input.config, "received_type": received, "linked_node": value,
            });
            return Ok(Linked::Wrong(error));
        }
        match self.node(&known) {
            Ok(verdict) if verdict.valid => Ok(Linked::Fine),
            Ok(_) => Ok(Linked::Below),
            Err(raised) => {
                let text = "Exception when validating inner node";
                let mut error =
                    exception("exception_during_inner_validation", text, &raised, "validate_inputs");
                error["extra_info"] = json!({
                    "input_name": input.name, "input_config": input.config, "exception_message": raised.text,
                    "exception_type": raised.kind, "traceback": traceback("validate_inputs"), "linked_node": value,
                });
                self.settle(&known, Verdict { valid: false, errors: vec![error] });
                Ok(Linked::Below)
            }
        }
    }
}

struct Input<'a> {
    name: &'a str,
    kind: &'a Value,
    config: Value,
    limits: &'a Value,
}

enum Linked {
    Fine,
    /// Something is wrong further up.
    Below,
    Wrong(Value),
}

/// `[type, {…}]`; the real server answers the second part even where the class gave none.
fn config(spec: &Value) -> Value {
    json!([spec[0], spec.get(1).cloned().unwrap_or_else(|| json!({}))])
}

/// Converts a literal to its input's type and checks its range: the value as far as it got, and what is wrong with it.
fn literal(input: &Input<'_>, value: Value, skip_range: bool) -> (Value, Option<Value>) {
    let value = value.get("__value__").cloned().unwrap_or(value);
    let kind = input.kind.as_str().unwrap_or_default();
    let converted = match kind {
        "INT" => pythonic::int(&value),
        "FLOAT" => pythonic::float(&value),
        "STRING" => Ok(Value::from(pythonic::text(&value))),
        "BOOLEAN" => Ok(Value::from(pythonic::truth(&value))),
        _ => Ok(value.clone()),
    };
    let value = match converted {
        Ok(value) => value,
        Err(reason) => {
            let message = format!("Failed to convert an input value to a {kind} value");
            let details = format!("{}, {}, {reason}", input.name, pythonic::text(&value));
            let mut error = problem("invalid_input_type", &message, &details);
            error["extra_info"] = json!({
                "input_name": input.name, "input_config": input.config, "received_value": value, "exception_message": reason,
            });
            return (value, Some(error));
        }
    };
    if skip_range {
        return (value, None);
    }
    let info = json!({"input_name": input.name, "input_config": input.config, "received_value": value});
    for (limit, kind, word) in
        [("min", "value_smaller_than_min", "smaller"), ("max", "value_bigger_than_max", "bigger")]
    {
        let Some(bound) = input.limits.get(limit) else { continue };
        let outside =
            if limit == "min" { pythonic::is_less(&value, bound) } else { pythonic::is_less(bound, &value) };
        if outside {
            let message =
                format!("Value {} {word} than {limit} of {}", pythonic::text(&value), pythonic::text(bound));
            return (value, Some(input_error(kind, &message, input.name, info)));
        }
    }
    if let Some(options) = input.kind.as_array()
        && !options.contains(&value)
    {
        let long = options.len() > MOST_OPTIONS_SHOWN;
        let shown =
            if long { format!("(list of length {})", options.len()) } else { pythonic::repr(input.kind) };
        let details = format!("{}: '{}' not in {shown}", input.name, pythonic::text(&value));
        let mut error = problem("value_not_in_list", "Value not in list", &details);
        error["extra_info"] = info;
        if long {
            error["extra_info"]["input_config"] = Value::Null;
        }
        return (value, Some(error));
    }
    (value, None)
}

/// Whether an output may feed an input; a type may be a comma-separated union, and `*` takes everything.
fn fits(output: &Value, input: &Value) -> bool {
    if output == input || output == "*" || input == "*" {
        return true;
    }
    let (Some(output), Some(input)) = (output.as_str(), input.as_str()) else { return false };
    output.split(',').any(|kind| input.split(',').any(|wanted| wanted.trim() == kind.trim()))
}

fn input_error(kind: &str, message: &str, input: &str, extra_info: Value) -> Value {
    let mut error = problem(kind, message, input);
    error["extra_info"] = extra_info;
    error
}

fn exception(kind: &str, message: &str, raised: &Raised, function: &str) -> Value {
    let mut error = problem(kind, message, &raised.text);
    error["extra_info"] = json!({"exception_type": raised.kind, "traceback": traceback(function)});
    error
}

fn traceback(function: &str) -> Value {
    json!([format!("  File \"/opt/ComfyUI/execution.py\", line 788, in {function}\n")])
}
