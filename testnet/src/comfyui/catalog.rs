//! The node definitions this machine offers: recorded ones, with the combos of local files filled from its own folders.

use serde_json::{Map, Value, json};

use super::disk::{Disk, Folder};

/// Recorded from 0.3.64; see the README beside it.
const RECORDED: &str = include_str!("../../data/comfyui-0.3.64/object_info.json");

#[derive(Debug)]
pub(super) struct Catalog {
    definitions: Map<String, Value>,
}

impl Catalog {
    pub(super) fn new(without: &[String], with: &[String]) -> Self {
        let mut definitions: Map<String, Value> =
            serde_json::from_str(RECORDED).expect("the recorded definitions are an object of objects");
        for class in with {
            definitions.insert(class.clone(), bare_output_node(class));
        }
        for class in without {
            definitions.shift_remove(class);
        }
        Self { definitions }
    }

    pub(super) fn is_output(&self, class: &str) -> bool {
        self.definitions.get(class).is_some_and(|definition| definition["output_node"] == true)
    }

    /// The types of its outputs.
    pub(super) fn outputs(&self, class: &str) -> Vec<&str> {
        let outputs = self.definitions.get(class).and_then(|definition| definition["output"].as_array());
        outputs.into_iter().flatten().map(|kind| kind.as_str().unwrap_or("COMBO")).collect()
    }

    /// Whether a declared input of this class has this name.
    pub(super) fn declares(&self, class: &str, input: &str) -> bool {
        let inputs = self.definitions.get(class).map(|definition| &definition["input"]);
        inputs.is_some_and(|inputs| {
            ["required", "optional"].iter().any(|group| inputs[group].get(input).is_some())
        })
    }

    /// Its hidden inputs and what fills them: `PROMPT`, `EXTRA_PNGINFO`.
    pub(super) fn hidden(&self, class: &str) -> impl Iterator<Item = (&String, &Value)> {
        let hidden =
            self.definitions.get(class).and_then(|definition| definition["input"]["hidden"].as_object());
        hidden.into_iter().flatten()
    }

    /// One definition as `GET /object_info/CLASS` has it.
    pub(super) fn definition(&self, class: &str, disk: &Disk) -> Option<Value> {
        let mut definition = self.definitions.get(class)?.clone();
        for group in ["required", "optional"] {
            let Some(inputs) = definition["input"].get_mut(group).and_then(Value::as_object_mut) else {
                continue;
            };
            for spec in inputs.values_mut() {
                // An older node has its options in place of the type; a newer one has them beside the type "COMBO".
                for place in ["/0", "/1/options"] {
                    let Some(options) = spec.pointer_mut(place) else { continue };
                    match options.as_str().and_then(|name| name.strip_prefix('@')) {
                        Some("input") => *options = json!(disk.files(Folder::Input)),
                        Some(folder) => *options = json!(disk.models(folder)),
                        None => {}
                    }
                }
            }
        }
        Some(definition)
    }

    /// Everything, as `GET /object_info` has it.
    pub(super) fn all(&self, disk: &Disk) -> Value {
        let filled =
            self.definitions.keys().filter_map(|class| Some((class.clone(), self.definition(class, disk)?)));
        Value::Object(filled.collect())
    }
}

fn bare_output_node(class: &str) -> Value {
    json!({
        "input": {"required": {}}, "input_order": {"required": []}, "output": [], "output_is_list": [], "output_name": [],
        "name": class, "display_name": class, "description": "", "python_module": format!("custom_nodes.{class}"),
        "category": "custom", "output_node": true,
    })
}
