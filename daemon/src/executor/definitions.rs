//! PURE: one node's definitions of its classes, as `/object_info` prints them: read within bounds, and without what is
//! nobody else's business.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use scenemesh_protocol::messages::{DEFINITIONS_PART, DEFINITIONS_PARTS};
use serde_json::{Map, Value};

use super::MOST_DEFINITIONS;
use super::graph::{folder_alias, input_folder, is_file_input};

/// Most classes of a node. Large installations have a tenth of it.
const MOST_CLASSES: usize = 20_000;
/// Most bytes of definitions that travel.
pub const MOST_PACKED: usize = DEFINITIONS_PART * DEFINITIONS_PARTS as usize;

/// A node's definitions of its classes, in its own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    classes: Map<String, Value>,
}

/// Bytes that are not a node's definitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinitions {
    #[error("the definitions have {bytes} bytes, more than the {MOST_DEFINITIONS} allowed")]
    TooLarge { bytes: usize },
    #[error("the definitions are not an object of node classes: {why}")]
    Unreadable { why: String },
    #[error("the definitions list {classes} classes, more than the {MOST_CLASSES} allowed")]
    TooMany { classes: usize },
    #[error("the definitions take {bytes} bytes on the way, more than the {MOST_PACKED} allowed")]
    TooLong { bytes: usize },
    #[error("the definitions do not unpack: {why}")]
    Packed { why: String },
}

impl Definitions {
    /// Reads the body of an `/object_info`. What is no definition is left out, and so are classes that call a paid
    /// service: no node runs them for another. Inputs that take a file keep no list: what lies in a machine's input
    /// folder is its owner's.
    ///
    /// # Errors
    /// As [`BadDefinitions`] says.
    pub fn read(object_info: &[u8]) -> Result<Self, BadDefinitions> {
        if object_info.len() > MOST_DEFINITIONS {
            return Err(BadDefinitions::TooLarge { bytes: object_info.len() });
        }
        // The parser gives up beyond 128 levels by itself.
        let mut classes: Map<String, Value> = serde_json::from_slice(object_info)
            .map_err(|error| BadDefinitions::Unreadable { why: error.to_string() })?;
        if classes.len() > MOST_CLASSES {
            return Err(BadDefinitions::TooMany { classes: classes.len() });
        }
        classes.retain(|_, definition| is_definition(definition) && !is_partner(definition));
        if classes.is_empty() {
            return Err(BadDefinitions::Unreadable { why: "it has no definition that can be read".into() });
        }
        for (class, definition) in &mut classes {
            for (name, spec) in inputs_mut(definition) {
                if (is_file_input(class, name) || is_upload(spec))
                    && let Some(options) = options_mut(spec)
                {
                    options.clear();
                }
            }
        }
        Ok(Self { classes })
    }

    /// What another studio may see: of options that look like files, only models in these folders. Custom nodes list
    /// whatever lies on their machine, and a default may name one of them.
    pub fn for_others(mut self, shared_folders: &BTreeSet<String>) -> Self {
        for (class, definition) in &mut self.classes {
            for (name, spec) in inputs_mut(definition) {
                let folder = input_folder(class, name);
                if folder.is_some_and(|folder| shared_folders.contains(folder_alias(folder))) {
                    continue;
                }
                let told = |value: &Value| folder.is_none() && !value.as_str().is_some_and(names_a_file);
                // Text has a default too: a folder of that machine, now and then.
                if let Some(options) = options_mut(spec) {
                    options.retain(|option| told(option));
                }
                if let Some(config) = spec.get_mut(1).and_then(Value::as_object_mut)
                    && config.get("default").is_some_and(|default| !told(default))
                {
                    config.shift_remove("default");
                }
            }
        }
        self
    }

    /// The same without the models that loaders list: an inventory tells of those, once and not class by class.
    #[must_use]
    pub fn without_models(mut self) -> Self {
        for (class, definition) in &mut self.classes {
            for (name, spec) in inputs_mut(definition) {
                if input_folder(class, name).is_some()
                    && let Some(options) = options_mut(spec)
                {
                    options.retain(|option| !option.as_str().is_some_and(names_a_file));
                }
            }
        }
        self
    }

    /// These, and what only another one of the same machine defines.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (class, definition) in other.iter() {
            if !self.classes.contains_key(class) {
                self.classes.insert(class.clone(), definition.clone());
            }
        }
        self
    }

    /// The body of an `/object_info` that says just this.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.classes).expect("JSON values are always written to memory")
    }

    /// As it travels between nodes: one zlib stream. The same definitions are the same bytes.
    ///
    /// # Errors
    /// When it is longer than [`MOST_PACKED`].
    pub fn pack(&self) -> Result<Vec<u8>, BadDefinitions> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        let packed = packed.write_all(&self.to_bytes()).and_then(|()| packed.finish());
        let packed = packed.expect("memory takes what is written to it");
        if packed.len() > MOST_PACKED {
            return Err(BadDefinitions::TooLong { bytes: packed.len() });
        }
        Ok(packed)
    }

    /// Reads what another node packed; also says how many bytes of JSON it was.
    ///
    /// # Errors
    /// As [`BadDefinitions`] says: a short stream may be a long text.
    pub fn unpack(packed: &[u8]) -> Result<(Self, usize), BadDefinitions> {
        let mut text = Vec::new();
        let mut unpacked = ZlibDecoder::new(packed).take(MOST_DEFINITIONS as u64 + 1);
        unpacked
            .read_to_end(&mut text)
            .map_err(|error: io::Error| BadDefinitions::Packed { why: error.to_string() })?;
        Ok((Self::read(&text)?, text.len()))
    }

    pub fn get(&self, class: &str) -> Option<&Value> {
        self.classes.get(class)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.classes.iter()
    }
}

/// `{"input": {"required": {NAME: [TYPE, …]}, …}, "output": […], …}`.
fn is_definition(definition: &Value) -> bool {
    let group = |name: &str| match definition["input"].get(name) {
        None => true,
        Some(Value::Object(inputs)) => inputs.values().all(|spec| spec.get(0).is_some()),
        Some(_) => false,
    };
    definition["input"].is_object()
        && definition["output"].is_array()
        && group("required")
        && group("optional")
}

fn is_partner(definition: &Value) -> bool {
    let module = definition["python_module"].as_str().unwrap_or_default();
    definition["api_node"] == true || module.starts_with("comfy_api_nodes")
}

/// `image_upload`, `video_upload`, … in an input's options.
pub(crate) fn is_upload(spec: &Value) -> bool {
    let options = spec.get(1).and_then(Value::as_object);
    options.into_iter().flatten().any(|(key, value)| key.ends_with("_upload") && *value == true)
}

/// The inputs of a definition that a graph may give, required ones first, each with whether it is required.
pub(crate) fn inputs(definition: &Value) -> impl Iterator<Item = (&str, &Value, bool)> {
    [("required", true), ("optional", false)].into_iter().flat_map(move |(group, required)| {
        let inputs = definition["input"].get(group).and_then(Value::as_object);
        inputs.into_iter().flatten().map(move |(name, spec)| (name.as_str(), spec, required))
    })
}

pub(crate) fn inputs_mut(definition: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    let groups = definition["input"].as_object_mut().into_iter().flatten();
    let groups = groups.filter(|(group, _)| *group == "required" || *group == "optional");
    groups.flat_map(|(_, inputs)| inputs.as_object_mut().into_iter().flatten())
}

/// What a combo offers: an older one has its options in place of the type, a newer one beside the type `COMBO`.
pub(crate) fn options(spec: &Value) -> Option<&Vec<Value>> {
    match spec.get(0)? {
        Value::Array(options) => Some(options),
        Value::String(kind) if kind == "COMBO" => spec.get(1)?.get("options")?.as_array(),
        _ => None,
    }
}

pub(crate) fn options_mut(spec: &mut Value) -> Option<&mut Vec<Value>> {
    if spec.get(0)?.is_array() {
        return spec.get_mut(0)?.as_array_mut();
    }
    let newer = *spec.get(0)? == "COMBO";
    spec.get_mut(1).filter(|_| newer)?.get_mut("options")?.as_array_mut()
}

/// Whether a list of options has models in it; definitions of other machines come without.
pub(crate) fn lists_files(options: &[Value]) -> bool {
    options.iter().any(|option| option.as_str().is_some_and(names_a_file))
}

/// Endings of files that begin with a digit; others are numbers, as in `0.5x`.
const ENDINGS_WITH_A_DIGIT: [&str; 4] = ["3ds", "3g2", "3gp", "7z"];

/// Whether an option may be the name of a file. Combos of loaders also offer words like `None` or `Baked VAE`, others
/// numbers.
pub(crate) fn names_a_file(name: &str) -> bool {
    if name.contains(['/', '\\']) {
        return true;
    }
    let Some((_, ending)) = name.rsplit_once('.') else { return false };
    let ending = ending.to_ascii_lowercase();
    let number = ending.starts_with(|first: char| first.is_ascii_digit())
        && !ENDINGS_WITH_A_DIGIT.contains(&ending.as_str());
    !number
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_travels_comes_out_as_it_went_in_and_short_streams_stay_short() {
        let info = json!({
            "LoraLoader": {"input": {"required": {"lora_name": [["None", "hero.safetensors"]],
                "factor": [["0.5x", "2x"]]}}, "output": ["MODEL"]},
            "Save": {"input": {}, "output": []},
        });
        let told = Definitions::read(info.to_string().as_bytes()).unwrap().without_models();
        let lora = &told.get("LoraLoader").unwrap()["input"]["required"];
        assert_eq!(*lora, json!({"lora_name": [["None"]], "factor": [["0.5x", "2x"]]}));
        let packed = told.pack().unwrap();
        assert_eq!(Definitions::unpack(&packed), Ok((told.clone(), told.to_bytes().len())));
        let cut = Definitions::unpack(&packed[..packed.len() / 2]);
        assert!(matches!(cut, Err(BadDefinitions::Packed { .. })), "{cut:?}");
        let mut bomb = ZlibEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![b' '; MOST_DEFINITIONS + (1 << 20)]).unwrap();
        let bomb = bomb.finish().unwrap();
        assert!(bomb.len() < 100_000);
        let bytes = MOST_DEFINITIONS + 1;
        assert_eq!(Definitions::unpack(&bomb), Err(BadDefinitions::TooLarge { bytes }));
    }

    #[test]
    fn two_comfyuis_of_a_machine_are_told_as_one() {
        let read = |text: &str| Definitions::read(text.as_bytes()).unwrap();
        let one = read(r#"{"A": {"input": {}, "output": ["INT"]}}"#);
        let both = one.and(&read(r#"{"A": {"input": {}, "output": []}, "B": {"input": {}, "output": []}}"#));
        let names: Vec<_> = both.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!(both.get("A").unwrap()["output"], json!(["INT"]));
    }

    #[test]
    fn numbers_are_no_files() {
        for file in ["a.safetensors", "x/y", "x\\y", "clip.3gp", "plate.0001.exr", ".hidden"] {
            assert!(names_a_file(file), "{file}");
        }
        for word in ["None", "Baked VAE", "0.5x", "1.0", "SD 1.5", "2x2"] {
            assert!(!names_a_file(word), "{word}");
        }
    }

    #[test]
    fn other_studios_see_no_names_of_files_but_shared_models() {
        let info = json!({
            "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["base.safetensors"]]}}, "output": ["MODEL"]},
            "LoraLoader": {"input": {"required": {
                "lora_name": [["None", "client/hero_v3.safetensors"], {"default": "client/hero_v3.safetensors"}],
                "strength_model": ["FLOAT", {"default": 1.0}]}}, "output": ["MODEL"]},
            "Custom": {"input": {"required": {
                "where": ["STRING", {"default": "/home/kim/hero/out"}], "words": ["STRING", {"default": "a lighthouse"}],
                "how": ["COMBO", {"options": ["fast", "plates/hero_012.exr"], "default": "plates/hero_012.exr"}],
                "grid": [["2x2", 4], {"default": "2x2"}]},
                "optional": {"file": [["secret hero.mov"], {"video_upload": true}]}}, "output": []},
        });
        let shown = Definitions::read(info.to_string().as_bytes()).unwrap();
        assert_eq!(
            shown.get("LoraLoader"),
            Some(&info["LoraLoader"]),
            "to the own studio all is told but files"
        );
        let shown = shown.for_others(&BTreeSet::from(["checkpoints".to_owned()])).to_bytes();
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        assert!(!shown.to_string().contains("hero"), "{shown}");
        assert_eq!(shown["CheckpointLoaderSimple"], info["CheckpointLoaderSimple"]);
        let lora = &shown["LoraLoader"]["input"]["required"];
        assert_eq!(*lora, json!({"lora_name": [[], {}], "strength_model": ["FLOAT", {"default": 1.0}]}));
        let custom = &shown["Custom"]["input"]["required"];
        let kept = json!({"where": ["STRING", {}], "words": ["STRING", {"default": "a lighthouse"}],
            "how": ["COMBO", {"options": ["fast"]}], "grid": [["2x2", 4], {"default": "2x2"}]});
        assert_eq!(*custom, kept);
    }
}
