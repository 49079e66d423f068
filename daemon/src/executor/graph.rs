//! A ComfyUI graph in API format: read, questioned, edited. Pure; knows nothing of servers or tasks.
//!
//! API format is `{"<node id>": {"class_type": "…", "inputs": {"<name>": literal | ["<node id>", slot]}, …}}`.
//! Key order is kept: it decides the order in which ComfyUI validates and names outputs.

mod tables;

use scenemesh_protocol::task::ModelName;
use serde_json::{Map, Value};

pub use tables::{folder_alias, input_folder, is_file_input};

/// Most bytes of a graph: the limit of the message that carries it.
pub const MAX_BYTES: usize = 16 << 20;
/// Most nodes of a graph. The largest seen in the wild have a few thousand.
pub const MAX_NODES: usize = 10_000;

/// Most levels of lists and objects within each other. Graphs in the wild have six.
pub const MAX_DEPTH: usize = 64;

/// Why bytes are not a graph that can be run, or an edit that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error(
        "the workflow has {bytes} bytes, more than the {MAX_BYTES} allowed; attach pictures as inputs instead of embedding them"
    )]
    TooLarge { bytes: usize },
    #[error("the workflow nests lists and objects more than {MAX_DEPTH} deep; a ComfyUI graph does not")]
    TooDeep,
    #[error("the workflow is not JSON: {why}")]
    NotJson { why: String },
    #[error(
        "this is a workflow in the format of ComfyUI's editor, which cannot be run as it is; open it in ComfyUI, \
         choose Workflow → Export (API) (older menus: switch on dev mode, then Save (API Format)), and submit that file"
    )]
    UiFormat,
    #[error("the workflow is JSON, but not a ComfyUI graph in API format: {why}")]
    NotAGraph { why: String },
    #[error("the workflow has {nodes} nodes, more than the {MAX_NODES} allowed")]
    TooManyNodes { nodes: usize },
    #[error("{path:?} does not name a node's input; write NODE.INPUT, for instance 3.seed")]
    BadPath { path: String },
    #[error("the workflow has no node {node:?}; its nodes are {known}")]
    NoSuchNode { node: String, known: String },
    #[error("node {node} ({class}) has no input {input:?}; its inputs are {known}")]
    NoSuchInput { node: String, class: String, input: String, known: String },
}

/// A literal that names a file which must be brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInput {
    pub node: String,
    pub class: String,
    pub input: String,
    /// The literal as it stands.
    pub literal: String,
}

impl FileInput {
    /// The name without ComfyUI's ` [input]`, ` [output]` or ` [temp]` at its end.
    pub fn name(&self) -> &str {
        without_annotation(&self.literal)
    }
}

/// A literal that names a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInput {
    pub node: String,
    pub input: String,
    pub literal: String,
    pub model: ModelName,
}

/// One node of a graph.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub id: &'a str,
    pub class: &'a str,
    pub inputs: &'a Map<String, Value>,
}

/// A graph in API format whose every node has a class and an input map.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    nodes: Map<String, Value>,
}

impl Graph {
    /// Reads a graph; a whole `POST /prompt` body is unwrapped.
    ///
    /// # Errors
    /// When the bytes are too many, not JSON, in the editor's format, or not a graph.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        if bytes.len() > MAX_BYTES {
            return Err(GraphError::TooLarge { bytes: bytes.len() });
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if depth(bytes) > MAX_DEPTH {
            return Err(GraphError::TooDeep);
        }
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| GraphError::NotJson { why: error.to_string() })?;
        Self::from_value(value)
    }

    /// As [`Graph::parse`], from JSON that is already read.
    ///
    /// # Errors
    /// When it is in the editor's format or not a graph.
    pub fn from_value(value: Value) -> Result<Self, GraphError> {
        let Value::Object(mut nodes) = value else {
            return Err(not_a_graph("the outermost value is not an object"));
        };
        if is_ui_format(&nodes) {
            return Err(GraphError::UiFormat);
        }
        if let Some(Value::Object(inner)) = nodes.get_mut("prompt")
            && !inner.contains_key("class_type")
        {
            nodes = std::mem::take(inner);
        }
        if nodes.is_empty() {
            return Err(not_a_graph("it has no nodes"));
        }
        if nodes.len() > MAX_NODES {
            return Err(GraphError::TooManyNodes { nodes: nodes.len() });
        }
        for (id, node) in &mut nodes {
            let Value::Object(node) = node else {
                return Err(not_a_graph(format!("node {id:?} is not an object")));
            };
            if !node.get("class_type").is_some_and(Value::is_string) {
                return Err(not_a_graph(format!("node {id:?} has no class_type")));
            }
            let inputs = node.entry("inputs").or_insert_with(|| Value::Object(Map::new()));
            if !inputs.is_object() {
                return Err(not_a_graph(format!("the inputs of node {id:?} are not an object")));
            }
        }
        Ok(Self { nodes })
    }

    /// The graph as compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.nodes).expect("JSON values always serialise")
    }

    /// The graph as a JSON object.
    pub fn to_value(&self) -> Value {
        Value::Object(self.nodes.clone())
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, in the file's order.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().filter_map(|(id, node)| read_node(id, node))
    }

    pub fn node(&self, id: &str) -> Option<Node<'_>> {
        self.nodes.get_key_value(id).and_then(|(id, node)| read_node(id, node))
    }

    /// Node classes, sorted, each once.
    pub fn classes(&self) -> Vec<String> {
        sorted(self.nodes().map(|node| node.class.to_owned()))
    }

    /// Models that loaders name, sorted, each once.
    pub fn models(&self) -> Vec<ModelName> {
        sorted(self.model_inputs().into_iter().map(|input| input.model))
    }

    /// Literals that name models, where they stand.
    pub fn model_inputs(&self) -> Vec<ModelInput> {
        self.literals()
            .filter_map(|(node, input, literal)| {
                let folder = input_folder(node.class, input)?;
                let names_nothing = matches!(literal, "" | "None" | "none" | "Baked VAE" | "pixel_space");
                (!names_nothing).then(|| ModelInput {
                    node: node.id.to_owned(),
                    input: input.to_owned(),
                    literal: literal.to_owned(),
                    model: ModelName::new(folder, literal),
                })
            })
            .collect()
    }

    /// Literals that name files of the submitter.
    pub fn file_inputs(&self) -> Vec<FileInput> {
        self.literals()
            .filter(|(node, input, literal)| is_file_input(node.class, input) && !literal.is_empty())
            .map(|(node, input, literal)| FileInput {
                node: node.id.to_owned(),
                class: node.class.to_owned(),
                input: input.to_owned(),
                literal: literal.to_owned(),
            })
            .collect()
    }

    /// Sets an input named `NODE.INPUT`; a link that stood there is replaced. Both halves may contain dots.
    ///
    /// # Errors
    /// When no such node or input is in the graph.
    pub fn set(&mut self, path: &str, value: Value) -> Result<(), GraphError> {
        let (id, input) = self.resolve(path)?;
        self.put(&id, &input, value);
        Ok(())
    }

    /// Writes an input, whether it was there or not. Does nothing when there is no such node.
    pub fn put(&mut self, id: &str, input: &str, value: Value) {
        let inputs =
            self.nodes.get_mut(id).and_then(|node| node.get_mut("inputs")).and_then(Value::as_object_mut);
        if let Some(inputs) = inputs {
            inputs.insert(input.to_owned(), value);
        }
    }

    /// Makes a node another: its class and all its inputs. Does nothing when there is no such node.
    pub fn replace(&mut self, id: &str, class: &str, inputs: Map<String, Value>) {
        if let Some(node) = self.nodes.get_mut(id) {
            node["class_type"] = Value::from(class);
            node["inputs"] = Value::Object(inputs);
        }
    }

    /// Adds `i` to every literal `seed` and `noise_seed`, wrapping at 64 bits, and says how many there are.
    /// Negative literals stay: to the nodes that take them they mean "choose one".
    pub fn add_to_seeds(&mut self, i: u64) -> usize {
        let mut count = 0;
        for node in self.nodes.values_mut() {
            let Some(inputs) = node.get_mut("inputs").and_then(Value::as_object_mut) else { continue };
            for name in ["seed", "noise_seed"] {
                let Some(value) = inputs.get_mut(name) else { continue };
                if let Some(seed) = value.as_u64() {
                    *value = Value::from(seed.wrapping_add(i));
                    count += 1;
                }
            }
        }
        count
    }

    fn literals(&self) -> impl Iterator<Item = (Node<'_>, &str, &str)> {
        self.nodes().flat_map(|node| {
            let texts =
                node.inputs.iter().filter_map(|(input, value)| Some((input.as_str(), value.as_str()?)));
            texts.map(move |(input, literal)| (node, input, literal))
        })
    }

    fn resolve(&self, path: &str) -> Result<(String, String), GraphError> {
        let splits: Vec<(&str, &str)> =
            path.match_indices('.').map(|(at, _)| (&path[..at], &path[at + 1..])).collect();
        let Some(first) = splits.first() else {
            return Err(GraphError::BadPath { path: clip(path) });
        };
        let fits =
            |(id, input): &&(&str, &str)| self.node(id).is_some_and(|node| node.inputs.contains_key(*input));
        if let Some((id, input)) = splits.iter().find(fits) {
            return Ok(((*id).to_owned(), (*input).to_owned()));
        }
        let Some((node, input)) = splits.iter().find_map(|(id, input)| Some((self.node(id)?, *input))) else {
            let known = listed(self.nodes().map(|node| format!("{} ({})", node.id, node.class)));
            return Err(GraphError::NoSuchNode { node: clip(first.0), known });
        };
        Err(GraphError::NoSuchInput {
            node: node.id.to_owned(),
            class: node.class.to_owned(),
            input: clip(input),
            known: listed(node.inputs.keys().cloned()),
        })
    }
}

/// A link's source node and slot; `None` for literals, also for lists wrapped in `__value__`.
pub fn as_link(value: &Value) -> Option<(&str, u64)> {
    let [Value::String(id), slot] = value.as_array()?.as_slice() else { return None };
    Some((id, slot.as_u64()?))
}

/// A file name without ComfyUI's directory annotation.
pub fn without_annotation(name: &str) -> &str {
    [" [input]", " [output]", " [temp]"].iter().find_map(|mark| name.strip_suffix(mark)).unwrap_or(name)
}

/// How deep brackets nest outside of strings; of what is JSON, its depth.
fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut depth, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn read_node<'a>(id: &'a str, node: &'a Value) -> Option<Node<'a>> {
    Some(Node { id, class: node.get("class_type")?.as_str()?, inputs: node.get("inputs")?.as_object()? })
}

/// The editor saves `nodes` as a list, with `links` and counters beside it.
fn is_ui_format(top: &Map<String, Value>) -> bool {
    let listed = top.get("nodes").is_some_and(Value::is_array);
    listed
        && ["links", "last_node_id", "version", "state", "definitions"]
            .iter()
            .any(|key| top.contains_key(*key))
}

fn not_a_graph(why: impl Into<String>) -> GraphError {
    GraphError::NotAGraph { why: why.into() }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn listed(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 12;
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let text = if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
