//! What a ComfyUI can run: its node classes with their inputs, and its models by folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::task::{Failure, ModelName};
use serde_json::{Map, Number, Value};

use super::client::{CallError, Client};
use super::preflight;
use crate::executor::graph::{Graph, folder_alias, input_folder};

/// Folders of `/models` whose files are not models.
const NOT_MODELS: [&str; 3] = ["custom_nodes", "configs", "datasets"];
/// Most folders asked for. A stock ComfyUI has twenty, large installations about sixty.
const MOST_FOLDERS: usize = 200;

/// Most bytes of definitions that are kept as they came. Large installations have six mebibytes.
pub const MOST_DEFINITIONS: usize = 32 << 20;
/// Most classes and models that are noted; large installations have a tenth of either.
const MOST_CLASSES: usize = 20_000;
const MOST_MODELS: usize = 200_000;

/// Classes and models of one ComfyUI, as of the last time it was asked.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Sorted, each once.
    pub classes: Vec<String>,
    /// Sorted, each once.
    pub models: Vec<ModelName>,
    /// The body of `/object_info` as it came, for whoever shows it on; empty when it was longer than
    /// [`MOST_DEFINITIONS`], or there is no ComfyUI.
    pub definitions: Bytes,
    pub(super) types: BTreeMap<String, NodeType>,
}

/// What `/object_info` tells of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeType {
    pub inputs: Vec<InputType>,
    /// Type names; combos and whatever is not a plain name are `*`.
    pub outputs: Vec<String>,
    pub output_node: bool,
    /// Calls a paid service of somebody else.
    pub partner: bool,
}

#[derive(Clone, Debug)]
pub(super) struct InputType {
    pub name: String,
    pub required: bool,
    /// Takes a file that the editor uploads, whatever the class.
    pub upload: bool,
    pub kind: InputKind,
}

/// What an input takes.
#[derive(Clone, Debug)]
pub(super) enum InputKind {
    Int {
        min: Option<Number>,
        max: Option<Number>,
    },
    Float {
        min: Option<Number>,
        max: Option<Number>,
    },
    Text,
    Boolean,
    /// One of these; several when `many`.
    Combo {
        options: Arc<[Value]>,
        many: bool,
    },
    /// A link of this type (several separated by commas).
    Link(String),
    /// Grows inputs with dotted names, matches types, or asks a server for its options: not judged here.
    Dynamic,
}

impl Inventory {
    /// An inventory of bare names: for backends that are not ComfyUI.
    pub fn of(mut classes: Vec<String>, mut models: Vec<ModelName>) -> Self {
        classes.sort_unstable();
        classes.dedup();
        models.sort_unstable();
        models.dedup();
        Self { classes, models, definitions: Bytes::new(), types: BTreeMap::new() }
    }

    /// Reads the body of `/object_info`, and adds the models of folders that no class lists.
    ///
    /// # Errors
    /// When it is not an object of classes.
    pub(super) fn read(object_info: &[u8], folders: Vec<(String, Vec<String>)>) -> Result<Self, String> {
        let info: Map<String, Value> =
            serde_json::from_slice(object_info).map_err(|error| error.to_string())?;
        let mut lists = HashMap::new();
        let types: BTreeMap<String, NodeType> = info
            .iter()
            .filter_map(|(class, entry)| Some((class.clone(), NodeType::read(entry, &mut lists)?)))
            .take(MOST_CLASSES)
            .collect();
        if types.is_empty() {
            return Err("it lists no node classes".into());
        }
        let mut models = BTreeSet::new();
        for (class, node) in &types {
            for input in &node.inputs {
                let (InputKind::Combo { options, .. }, Some(folder)) =
                    (&input.kind, input_folder(class, &input.name))
                else {
                    continue;
                };
                let names = options.iter().filter_map(Value::as_str).filter(|name| looks_like_a_file(name));
                models.extend(names.map(|name| ModelName::new(folder, name)));
            }
        }
        for (folder, names) in &folders {
            let names = names.iter().take(MOST_MODELS.saturating_sub(models.len()));
            models.extend(names.map(|name| ModelName::new(folder_alias(folder), name)));
        }
        Ok(Self {
            classes: types.keys().cloned().collect(),
            models: models.into_iter().collect(),
            definitions: Bytes::new(),
            types,
        })
    }

    pub fn has_class(&self, class: &str) -> bool {
        self.classes.binary_search_by(|known| known.as_str().cmp(class)).is_ok()
    }

    pub fn has_model(&self, model: &ModelName) -> bool {
        model.find(&self.models).is_some()
    }

    /// Checks a graph against this inventory. `attached` are the names of the files that come with the task.
    ///
    /// # Errors
    /// The failure that running it would end with, naming node, class and input.
    pub fn check(&self, graph: &Graph, attached: &[String]) -> Result<(), Failure> {
        preflight::check(self, graph, attached)
    }

    pub(super) fn node_type(&self, class: &str) -> Option<&NodeType> {
        self.types.get(class)
    }

    /// How this machine spells a combo's value: model names differ in the direction of their slashes, and in the directory
    /// below their folder.
    pub(super) fn spelling(&self, class: &str, input: &str, value: &str) -> Option<&str> {
        let known = self.node_type(class)?.input(input)?;
        let InputKind::Combo { options, .. } = &known.kind else { return None };
        let mut names = options.iter().filter_map(Value::as_str);
        if input_folder(class, input).is_some() {
            return ModelName::find_name(value, names);
        }
        let plain = value.replace('\\', "/");
        names.find(|option| *option == value || option.replace('\\', "/") == plain)
    }
}

impl NodeType {
    fn read(entry: &Value, lists: &mut HashMap<ContentHash, Arc<[Value]>>) -> Option<Self> {
        let entry = entry.as_object()?;
        let mut inputs = Vec::new();
        for (section, required) in [("required", true), ("optional", false)] {
            let specs = entry.get("input").and_then(|input| input.get(section)).and_then(Value::as_object);
            for (name, spec) in specs.into_iter().flatten() {
                let kind = InputKind::read(spec, lists);
                inputs.push(InputType { name: name.clone(), required, upload: is_upload(spec), kind });
            }
        }
        let outputs = entry.get("output").and_then(Value::as_array).into_iter().flatten();
        let outputs = outputs.map(|kind| plain_type(kind).unwrap_or("*").to_owned()).collect();
        let output_node = entry.get("output_node").and_then(Value::as_bool).unwrap_or(false);
        let module = entry.get("python_module").and_then(Value::as_str).unwrap_or_default();
        let partner = entry.get("api_node").and_then(Value::as_bool).unwrap_or(false)
            || module.starts_with("comfy_api_nodes");
        Some(Self { inputs, outputs, output_node, partner })
    }

    pub(super) fn input(&self, name: &str) -> Option<&InputType> {
        self.inputs.iter().find(|input| input.name == name)
    }
}

impl InputKind {
    /// `["INT", {"min": …}]`, `[["a", "b"], {…}]` (before 2025) or `["COMBO", {"options": […]}]`.
    fn read(spec: &Value, lists: &mut HashMap<ContentHash, Arc<[Value]>>) -> Self {
        let Some(kind) = spec.get(0) else { return Self::Dynamic };
        let options = spec.get(1);
        let number = |key: &str| options.and_then(|o| o.get(key)).and_then(Value::as_number).cloned();
        let flag =
            |key: &str| options.and_then(|o| o.get(key)).is_some_and(|value| *value != Value::Bool(false));
        let mut combo = |listed: &Vec<Value>| {
            // Fifty classes may offer the same ten thousand LoRAs.
            let hash = ContentHash::of(&serde_json::to_vec(listed).unwrap_or_default());
            let options = lists.entry(hash).or_insert_with(|| listed.as_slice().into()).clone();
            Self::Combo { options, many: flag("multiselect") || flag("multi_select") }
        };
        match kind {
            Value::Array(listed) => combo(listed),
            Value::String(name) => match name.as_str() {
                "COMBO" => match options.and_then(|o| o.get("options")).and_then(Value::as_array) {
                    Some(listed) if !flag("remote") => combo(listed),
                    _ => Self::Dynamic,
                },
                "INT" => Self::Int { min: number("min"), max: number("max") },
                "FLOAT" => Self::Float { min: number("min"), max: number("max") },
                "STRING" => Self::Text,
                "BOOLEAN" => Self::Boolean,
                dynamic if dynamic.starts_with("COMFY_") => Self::Dynamic,
                link => Self::Link(link.to_owned()),
            },
            _ => Self::Dynamic,
        }
    }

    /// The type a link must have; `None` when any may come.
    pub(super) fn link_type(&self) -> Option<&str> {
        match self {
            Self::Int { .. } => Some("INT"),
            Self::Float { .. } => Some("FLOAT"),
            Self::Text => Some("STRING"),
            Self::Boolean => Some("BOOLEAN"),
            Self::Link(kind) => Some(kind),
            Self::Combo { .. } | Self::Dynamic => None,
        }
    }
}

/// `image_upload`, `video_upload`, … in an input's options.
fn is_upload(spec: &Value) -> bool {
    let options = spec.get(1).and_then(Value::as_object);
    options.into_iter().flatten().any(|(key, value)| key.ends_with("_upload") && *value == Value::Bool(true))
}

fn plain_type(kind: &Value) -> Option<&str> {
    kind.as_str().filter(|name| !name.starts_with("COMFY_") && *name != "COMBO")
}

/// Combos of loaders also offer words like `None` or `Baked VAE`.
fn looks_like_a_file(name: &str) -> bool {
    name.contains('.') || name.contains('/') || name.contains('\\')
}

/// Asks one ComfyUI for everything it has.
pub(super) async fn ask(client: &Client) -> Result<Inventory, CallError> {
    let info = client.object_info().await?;
    let mut folders = Vec::new();
    // Older and foreign servers lack these; what the loaders list is then all there is.
    for folder in client.model_folders().await.unwrap_or_default().into_iter().take(MOST_FOLDERS) {
        let plain = folder.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if plain && !NOT_MODELS.contains(&folder.as_str()) {
            let names = client.models(&folder).await.unwrap_or_default();
            folders.push((folder, names));
        }
    }
    let mut inventory = Inventory::read(&info, folders).map_err(|why| CallError::Garbage {
        call: "GET /object_info",
        base: client.base(),
        why,
    })?;
    if info.len() <= MOST_DEFINITIONS {
        inventory.definitions = info;
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::comfyui::testing;

    #[test]
    fn models_come_from_loaders_and_folders_once_each() {
        let folders = vec![
            ("checkpoints".to_owned(), vec!["tiny_sd15.safetensors".to_owned()]),
            ("clip".to_owned(), vec!["sub\\t5.safetensors".to_owned()]),
        ];
        let inventory = Inventory::read(testing::OBJECT_INFO.as_bytes(), folders).unwrap();
        assert!(inventory.has_class("KSampler"));
        assert!(inventory.has_model(&ModelName::new("checkpoints", "tiny_sd15.safetensors")));
        assert!(inventory.has_model(&ModelName::new("text_encoders", "sub/t5.safetensors")));
        assert_eq!(inventory.models.iter().filter(|model| model.folder == "checkpoints").count(), 1);
    }

    #[test]
    fn what_is_not_object_info_is_refused() {
        for body in ["", "[]", "{}", "<html>", r#"{"error": "no"}"#] {
            assert!(Inventory::read(body.as_bytes(), Vec::new()).is_err(), "{body}");
        }
    }

    #[test]
    fn both_shapes_of_combos_are_read() {
        let info = r#"{"A": {"input": {"required": {
            "old": [["x", "y"], {}], "new": ["COMBO", {"options": ["x"]}], "far": ["COMBO", {"remote": {}}]}}}}"#;
        let inventory = Inventory::read(info.as_bytes(), Vec::new()).unwrap();
        let kinds: Vec<_> = inventory.types["A"].inputs.iter().map(|input| &input.kind).collect();
        assert!(matches!(kinds[0], InputKind::Combo { options, .. } if options.len() == 2));
        assert!(matches!(kinds[1], InputKind::Combo { options, .. } if options.len() == 1));
        assert!(matches!(kinds[2], InputKind::Dynamic));
    }

    #[test]
    fn slashes_follow_the_machine() {
        let info =
            r#"{"LoraLoader": {"input": {"required": {"lora_name": [["film\\grain.safetensors"], {}]}}}}"#;
        let inventory = Inventory::read(info.as_bytes(), Vec::new()).unwrap();
        let spelt = inventory.spelling("LoraLoader", "lora_name", "film/grain.safetensors");
        assert_eq!(spelt, Some("film\\grain.safetensors"));
        let below = inventory.spelling("LoraLoader", "lora_name", "grain.safetensors");
        assert_eq!(below, Some("film\\grain.safetensors"), "one of that name, wherever it is kept");
        assert_eq!(inventory.spelling("LoraLoader", "lora_name", "other/grain.safetensors"), None);
        assert_eq!(inventory.spelling("LoraLoader", "lora_name", "other.safetensors"), None);
    }
}
