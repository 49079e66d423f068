//! PURE: nodes of comfyui-tooling-nodes (`ETN_…`), with which Krita's plugin hands pictures to a ComfyUI and takes them
//! back.
//!
//! They keep pictures in the memory of one ComfyUI, for all who speak with it, where nothing cleans. Here the pictures
//! are the client's own files and the nodes are core's that do the same, so any renderer can run them and has nothing
//! left afterwards. What the nodes say of their pictures is said here.
//!
//! After comfyui-tooling-nodes at 5d3194f, `nodes.py` and `krita.py`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::picture::Bands;
use crate::executor::graph::as_link;

const LOAD: &str = "ETN_LoadImageCache";
const SAVE: &str = "ETN_SaveImageCache";
const SEND: &str = "ETN_SendImageWebSocket";
const OUTPUT: &str = "ETN_KritaOutput";
const TEXT: &str = "ETN_KritaSendText";
/// Longest word that a node says beside its results, in bytes: it is said with each of them.
const WORD: usize = 256;
/// The folder inside `temp` where pictures are that were handed in.
pub(super) const FOLDER: &str = "etn";

/// Ids of the pictures that a prompt loads.
pub(super) fn loads(prompt: &Map<String, Value>) -> BTreeSet<&str> {
    prompt.values().filter_map(load).collect()
}

/// Ids of the pictures whose masks a prompt uses.
pub(super) fn masked(prompt: &Map<String, Value>) -> BTreeSet<&str> {
    masks(prompt).into_iter().filter_map(|node| load(prompt.get(node)?)).collect()
}

/// The first node that loads this picture, and its class.
pub(super) fn loader<'a>(prompt: &'a Map<String, Value>, id: &str) -> Option<(&'a str, &'static str)> {
    prompt.iter().find(|(_, node)| load(node) == Some(id)).map(|(at, _)| (at.as_str(), LOAD))
}

fn load(node: &Value) -> Option<&str> {
    node["inputs"]["id"].as_str().filter(|_| node["class_type"] == LOAD)
}

/// The prompt with core's nodes in the place of these. Every node keeps its id; the few that are added have ids that are
/// not in the prompt. `bands`: of the pictures that are here. A node whose inputs are not such as it has stays what it is.
pub(super) fn lowered(prompt: Map<String, Value>, bands: &BTreeMap<String, Bands>) -> Map<String, Value> {
    let masks: BTreeMap<String, Added> = masks(&prompt)
        .into_iter()
        .filter_map(|id| {
            let bands = *bands.get(load(prompt.get(id)?)?)?;
            let mask = free(&prompt, format!("{id}{ADDED}"));
            let read = free(&prompt, format!("{mask}.read"));
            Some((id.to_owned(), Added { bands, mask, read }))
        })
        .collect();
    let mut lowered = prompt;
    for node in lowered.values_mut() {
        lower(node);
        let inputs = node.get_mut("inputs").and_then(Value::as_object_mut);
        for (_, value) in inputs.into_iter().flatten() {
            let added = as_link(value).filter(|(_, slot)| *slot == 1).and_then(|(id, _)| masks.get(id));
            if let Some(Added { mask, .. }) = added {
                *value = json!([mask, 0]);
            }
        }
    }
    for (id, Added { bands, mask, read: read_id }) in masks {
        let image = lowered[&id]["inputs"]["image"].clone();
        let read = |channel: &str| json!({"class_type": "LoadImageMask", "inputs": {"image": image, "channel": channel}});
        if bands == Bands::Alpha {
            // Core's mask is what is transparent, theirs what is not.
            let inverted = json!({"class_type": "InvertMask", "inputs": {"mask": [read_id, 0]}});
            lowered.insert(read_id, read("alpha"));
            lowered.insert(mask, inverted);
        } else {
            lowered.insert(mask, read("red"));
        }
    }
    lowered
}

/// Nodes that load a picture whose mask is used.
fn masks(prompt: &Map<String, Value>) -> BTreeSet<&str> {
    let inputs = prompt.values().filter_map(|node| node["inputs"].as_object()).flatten();
    let links = inputs.filter_map(|(_, value)| as_link(value));
    let masks = links.filter(|(id, slot)| *slot == 1 && prompt.get(*id).and_then(load).is_some());
    masks.map(|(id, _)| id).collect()
}

/// The nodes that give a picture's mask.
struct Added {
    bands: Bands,
    mask: String,
    read: String,
}

/// What ids of added nodes have behind the id of the node that they are for.
const ADDED: &str = ".scenemesh.mask";

fn free(prompt: &Map<String, Value>, mut id: String) -> String {
    while prompt.contains_key(&id) {
        id.push('_');
    }
    id
}

/// The node of the prompt as it was sent that a renderer means by a node and its class.
pub(super) fn meant<'a>(
    node: &'a str,
    class: &str,
    sent: impl Fn(&str) -> Option<&'a str>,
) -> Option<&'a str> {
    let (node, added) = node.split_once(ADDED).map_or((node, false), |(node, _)| (node, true));
    let own = sent(node)?;
    (own == class || added || matches!(own, LOAD | SAVE | SEND | OUTPUT)).then_some(node)
}

fn lower(node: &mut Value) {
    let class = node["class_type"].as_str().unwrap_or_default();
    let images = node["inputs"].get("images").cloned();
    let (class, inputs) = match (class, images) {
        (LOAD, _) => match load(node) {
            Some(id) => ("LoadImage", json!({"image": format!("{FOLDER}/{id} [temp]")})),
            None => return,
        },
        (SAVE, Some(images)) => ("SaveImage", json!({"images": images, "filename_prefix": "ComfyUI"})),
        (SEND | OUTPUT, Some(images)) => (super::record::STREAMS, json!({"images": images})),
        _ => return,
    };
    (node["class_type"], node["inputs"]) = (class.into(), inputs);
}

/// What such a node says of what it shows, as far as its literals decide that. None: it is none of these.
pub(super) fn words(class: &str, inputs: &Value) -> Option<Value> {
    let short = |value: &&Value| match value {
        Value::String(text) => text.len() <= WORD,
        other => !other.is_array() && !other.is_object(),
    };
    let or = |name: &str, default: Value| inputs.get(name).filter(short).cloned().unwrap_or(default);
    match class {
        SAVE => Some(json!({"jpeg": inputs["format"] == "JPEG"})),
        SEND => Some(json!({})),
        OUTPUT => Some(json!({"info": {
            "name": or("name", "".into()), "offset_x": or("x", 0.into()), "offset_y": or("y", 0.into()),
            "batch_mode": or("batch_mode", "default".into()), "resize_canvas": or("resize_canvas", false.into()),
        }})),
        TEXT => {
            let mime = match inputs["type"].as_str() {
                Some("markdown") => "text/markdown",
                Some("html") => "text/html",
                _ => "text/plain",
            };
            Some(json!({"name": or("name", "Output".into()), "content-type": mime}))
        }
        _ => None,
    }
}

/// Whether pictures of this class go over the socket.
pub(super) fn streams(class: &str) -> bool {
    matches!(class, SEND | OUTPUT)
}

/// One picture or text as its node shows it.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    /// The list in which it stands.
    pub(super) list: &'static str,
    pub(super) item: Value,
    /// What the node says beside all of them, by its key.
    pub(super) beside: Option<(&'static str, Value)>,
}

/// What a node shows for one picture or text.
pub(super) fn shown(
    class: &str,
    words: &Value,
    prompt: &str,
    filename: &str,
    text: Option<&str>,
) -> Option<Shown> {
    match class {
        SAVE => {
            let kind = if words["jpeg"] == true { "jpeg" } else { "png" };
            let id = format!("{prompt}.{kind}.{filename}");
            let item = json!({"source": "http", "id": id, "content-type": format!("image/{kind}"), "type": "output"});
            Some(Shown { list: "images", item, beside: None })
        }
        SEND | OUTPUT => {
            let item = json!({"source": "websocket", "content-type": "image/png", "type": "output"});
            let info = words.get("info").map(|info| ("info", json!([info])));
            Some(Shown { list: "images", item, beside: info })
        }
        TEXT => {
            let item = json!({"name": words["name"], "text": text?, "content-type": words["content-type"]});
            Some(Shown { list: "text", item, beside: None })
        }
        _ => None,
    }
}

/// A result as its id names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Result<'a> {
    pub(super) prompt: &'a str,
    pub(super) filename: &'a str,
    pub(super) jpeg: bool,
}

/// Reads the id that [`shown`] gave a result; none when it is no such id.
pub(super) fn result(id: &str) -> Option<Result<'_>> {
    let (prompt, rest) = id.split_once('.')?;
    let (kind, filename) = rest.split_once('.')?;
    let jpeg = match kind {
        "png" => false,
        "jpeg" => true,
        _ => return None,
    };
    Some(Result { prompt, filename, jpeg })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    fn krita() -> Map<String, Value> {
        map(json!({
            "1": {"class_type": LOAD, "inputs": {"id": "aa"}},
            "2": {"class_type": LOAD, "inputs": {"id": "bb"}},
            "3": {"class_type": "ETN_ApplyMaskToImage", "inputs": {"image": ["1", 0], "mask": ["2", 1]}},
            "4": {"class_type": SAVE, "inputs": {"images": ["3", 0], "format": "PNG"}},
        }))
    }

    #[test]
    fn pictures_are_loaded_and_saved_by_cores_nodes() {
        assert_eq!(loads(&krita()), BTreeSet::from(["aa", "bb"]));
        let bands = BTreeMap::from([("aa".to_owned(), Bands::Colours), ("bb".to_owned(), Bands::Grey)]);
        let wanted = map(json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "etn/aa [temp]"}},
            "2": {"class_type": "LoadImage", "inputs": {"image": "etn/bb [temp]"}},
            "3": {"class_type": "ETN_ApplyMaskToImage",
                "inputs": {"image": ["1", 0], "mask": ["2.scenemesh.mask", 0]}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "ComfyUI"}},
            "2.scenemesh.mask": {"class_type": "LoadImageMask",
                "inputs": {"image": "etn/bb [temp]", "channel": "red"}},
        }));
        assert_eq!(lowered(krita(), &bands), wanted);
    }

    #[test]
    fn a_mask_is_what_is_opaque() {
        let bands = BTreeMap::from([("bb".to_owned(), Bands::Alpha)]);
        let lowered = lowered(krita(), &bands);
        assert_eq!(lowered["3"]["inputs"]["mask"], json!(["2.scenemesh.mask", 0]));
        assert_eq!(lowered["2.scenemesh.mask"]["class_type"], "InvertMask");
        let read = lowered["2.scenemesh.mask"]["inputs"]["mask"][0].as_str().unwrap();
        assert_eq!(lowered[read]["inputs"], json!({"image": "etn/bb [temp]", "channel": "alpha"}));
    }

    #[test]
    fn other_prompts_and_nodes_that_lack_their_inputs_stay_what_they_are() {
        let prompt = map(json!({
            "1": {"class_type": LOAD, "inputs": {"id": ["9", 0]}},
            "2": {"class_type": SAVE, "inputs": {}},
            "3": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 1], "mask": ["1", 1]}},
            "5": 7,
        }));
        assert_eq!(lowered(prompt.clone(), &BTreeMap::new()), prompt);
    }

    #[test]
    fn no_node_of_the_prompt_is_written_over() {
        let mut prompt = krita();
        let own = json!({"class_type": "PreviewAny", "inputs": {"source": "mine"}});
        prompt.insert("2.scenemesh.mask".into(), own.clone());
        let bands = BTreeMap::from([("bb".to_owned(), Bands::Grey)]);
        let lowered = lowered(prompt, &bands);
        assert_eq!(lowered["2.scenemesh.mask"], own);
        assert_eq!(lowered["3"]["inputs"]["mask"], json!(["2.scenemesh.mask_", 0]));
        assert_eq!(lowered["2.scenemesh.mask_"]["class_type"], "LoadImageMask");
    }

    #[test]
    fn what_a_renderer_says_of_added_nodes_is_said_of_the_clients_own() {
        let sent = |node: &str| match node {
            "2" => Some(LOAD),
            "4" => Some(SAVE),
            "3" => Some("KSampler"),
            _ => None,
        };
        assert_eq!(meant("4", "SaveImage", sent), Some("4"));
        assert_eq!(meant("2.scenemesh.mask", "LoadImageMask", sent), Some("2"));
        assert_eq!(meant("2.scenemesh.mask.read", "LoadImageMask", sent), Some("2"));
        assert_eq!((meant("3", "KSampler", sent), meant("3", "Other", sent)), (Some("3"), None));
        assert_eq!((meant("9", "", sent), meant("zzz", "X", sent)), (None, None));
    }

    #[test]
    fn words_beside_results_are_short() {
        let long = json!("x".repeat(WORD + 1));
        for bad in [long, json!({"a": [1]}), json!(["1", 0])] {
            let said = words(TEXT, &json!({"name": bad})).unwrap();
            assert_eq!(said["name"], "Output");
            assert_eq!(words(OUTPUT, &json!({"name": bad, "x": bad})).unwrap()["info"]["offset_x"], 0);
        }
    }

    #[test]
    fn results_are_named_as_the_nodes_name_them() {
        let words = words(SAVE, &json!({"format": "PNG"})).unwrap();
        let Shown { list: key, item, beside } =
            shown(SAVE, &words, "p-1", "ComfyUI_00001_.png", None).unwrap();
        let wanted = json!({"source": "http", "id": "p-1.png.ComfyUI_00001_.png", "content-type": "image/png", "type": "output"});
        assert_eq!((key, &item, beside), ("images", &wanted, None));
        let read = result(item["id"].as_str().unwrap()).unwrap();
        assert_eq!(read, Result { prompt: "p-1", filename: "ComfyUI_00001_.png", jpeg: false });
        assert!(result("1f2e3d4c").is_none() && result("a.gif.b").is_none());

        let words =
            super::words(OUTPUT, &json!({"images": ["1", 0], "name": "sky", "x": 4, "y": ["2", 0]})).unwrap();
        let Shown { item, beside, .. } = shown(OUTPUT, &words, "p", "a.png", None).unwrap();
        assert_eq!(item["source"], "websocket");
        let info = json!([{"name": "sky", "offset_x": 4, "offset_y": 0, "batch_mode": "default", "resize_canvas": false}]);
        assert_eq!(beside, Some(("info", info)));

        let words =
            super::words(TEXT, &json!({"value": ["1", 0], "name": "Tags", "type": "markdown"})).unwrap();
        let Shown { list: key, item, .. } = shown(TEXT, &words, "p", "text_1.txt", Some("dusk")).unwrap();
        assert_eq!(
            (key, item),
            ("text", json!({"name": "Tags", "text": "dusk", "content-type": "text/markdown"}))
        );
        assert!(super::words("SaveImage", &json!({})).is_none());
    }
}
