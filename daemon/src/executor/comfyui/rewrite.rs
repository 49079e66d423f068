//! Makes a task's graph fit this machine: names that collide with nothing and can all be removed afterwards.
//! Pure.

use std::collections::BTreeMap;

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::{Failure, FailureClass};
use serde_json::{Map, Value, json};

use super::inventory::Inventory;
use crate::executor::graph::{Graph, as_link, without_annotation};
use crate::executor::policy::strip_tokens;

/// The folder inside ComfyUI's own folders under which everything of ours lies.
pub(super) const ROOT: &str = "scenemesh";
/// Where a prompt's `extra_data` says that it is ours, and whose.
pub(super) const MARK: &str = "scenemesh";
/// Sends pictures over the socket and writes nothing to disk.
const STREAMING_CLASS: &str = "SaveImageWebsocket";
/// Saving classes that do exactly what the streaming one does, apart from the file.
const STREAMABLE: [&str; 2] = ["SaveImage", "PreviewImage"];

/// The names of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The same after a restart, so that a prompt is found instead of posted twice.
    pub prompt_id: String,
    /// Of the attempt's own socket; the same after a restart, so that its frames are heard again.
    pub client_id: String,
    /// `OWNER-TASK8-ATTEMPT`, and `-full` behind it where the cache is to be emptied too: whoever finds it after a
    /// crash knows what is owed.
    pub tag: String,
    /// Another each time that the attempt is posted: after a crash ComfyUI may have its outputs cached, whose files are
    /// gone.
    post: String,
}

/// The end of a tag whose attempt leaves nothing in the cache either.
const FULL: &str = "-full";
/// Prompts that an attempt may need to prove its cache empty.
const PROBES: u8 = 4;

impl Names {
    pub(super) fn new(owner: &str, task: TaskId, attempt: u32, full_hygiene: bool) -> Self {
        let full = if full_hygiene { FULL } else { "" };
        Self::of(prompt_id(task, attempt), format!("{owner}-{}-{attempt}{full}", task.short()))
    }

    /// The names of a prompt that was found.
    pub(super) fn of(prompt_id: String, tag: String) -> Self {
        let client_id = prompt_id.replace('-', "");
        Self { prompt_id, client_id, tag, post: String::new() }
    }

    /// The same, for one time that it is posted.
    pub(super) fn posted(self, nonce: [u8; 4]) -> Self {
        Self { post: data_encoding::HEXLOWER.encode(&nonce), ..self }
    }

    pub(super) fn full_hygiene(&self) -> bool {
        self.tag.ends_with(FULL)
    }

    /// Ids of the prompts that prove its cache empty; the same after a restart.
    pub(super) fn probes(&self) -> Vec<String> {
        let id = |number: u8| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"scenemesh/v1/cache probe\0").update(self.prompt_id.as_bytes()).update(&[number]);
            uuid(&hasher.finalize())
        };
        (0..PROBES).map(id).collect()
    }

    /// The attempt's folder inside each of ComfyUI's folders.
    pub(super) fn folder(&self) -> String {
        format!("{ROOT}/{}", self.tag)
    }
}

/// The idempotent prompt id of an attempt: a UUID (RFC 9562, version 8) from the first 16 bytes of
/// BLAKE3(`"scenemesh/v1/prompt\0"` ‖ task ‖ attempt as u32 little-endian).
pub(in crate::executor) fn prompt_id(task: TaskId, attempt: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"scenemesh/v1/prompt\0").update(task.as_bytes()).update(&attempt.to_le_bytes());
    uuid(&hasher.finalize())
}

fn uuid(hash: &blake3::Hash) -> String {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&id);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Whether pictures may be streamed instead of saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saving {
    /// Files can be removed afterwards.
    ToDisk,
    /// Files would stay: save only what cannot be streamed.
    Streaming,
}

/// Nodes whose pictures come over the socket, with the name their files would have had.
pub(super) type Streamed = BTreeMap<String, String>;

/// Rewrites a graph in place. `uploads` maps names as they stand in literals to names as ComfyUI knows them.
pub(super) fn rewrite(
    graph: &mut Graph,
    inventory: &Inventory,
    names: &Names,
    uploads: &BTreeMap<String, String>,
    saving: Saving,
) -> Streamed {
    let mut files = Vec::new();
    for node in graph.nodes() {
        for (input, value) in node.inputs {
            let uploaded = value
                .as_str()
                .and_then(|name| uploads.get(name).or_else(|| uploads.get(without_annotation(name))));
            if let Some(uploaded) = uploaded {
                files.push((node.id.to_owned(), input.clone(), uploaded.as_str()));
            }
        }
    }
    for (node, input, uploaded) in files {
        graph.put(&node, &input, Value::from(uploaded));
    }
    for model in graph.model_inputs() {
        let class = graph.node(&model.node).map(|node| node.class.to_owned()).unwrap_or_default();
        if let Some(spelt) = inventory.spelling(&class, &model.input, &model.literal)
            && spelt != model.literal
        {
            graph.put(&model.node, &model.input, Value::from(spelt));
        }
    }
    let streaming = saving == Saving::Streaming && inventory.has_class(STREAMING_CLASS);
    let mut streamed = Streamed::new();
    let mut edits = Vec::new();
    for node in graph.nodes() {
        let prefix = node.inputs.get("filename_prefix");
        let base = user_name(prefix.and_then(Value::as_str).unwrap_or_default());
        let kind = inventory.node_type(node.class);
        if node.class == STREAMING_CLASS {
            streamed.insert(node.id.to_owned(), base);
        } else if streaming && STREAMABLE.contains(&node.class) {
            streamed.insert(node.id.to_owned(), base);
            let images = node.inputs.get("images").cloned().unwrap_or_default();
            edits.push((node.id.to_owned(), Edit::Stream(images)));
        } else if prefix.is_some_and(|prefix| as_link(prefix).is_none())
            || kind.is_some_and(|kind| prefix.is_none() && kind.input("filename_prefix").is_some())
        {
            let prefix = format!("{}/{}/{base}", names.folder(), names.post);
            edits.push((node.id.to_owned(), Edit::Prefix(prefix)));
        } else if kind.is_some_and(|kind| kind.output_node) {
            // A cached output would name files that an earlier run has left, or that were removed after it.
            edits.push((node.id.to_owned(), Edit::Uncached));
        }
    }
    for (id, edit) in edits {
        match edit {
            Edit::Stream(images) => {
                graph.replace(&id, STREAMING_CLASS, Map::from_iter([("images".to_owned(), images)]));
            }
            Edit::Prefix(prefix) => graph.put(&id, "filename_prefix", Value::from(prefix)),
            // ComfyUI does not hand unknown inputs to nodes, but keys its cache by them.
            Edit::Uncached => {
                graph.put(&id, "scenemesh_attempt", Value::from([&*names.tag, &*names.post].join(" ")));
            }
        }
    }
    streamed
}

enum Edit {
    Stream(Value),
    Prefix(String),
    Uncached,
}

/// The last part of a prefix: what the user sees in the file's name.
fn user_name(prefix: &str) -> String {
    let last = prefix.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(100).collect();
    match name.trim() {
        "" | "." | ".." => "ComfyUI".to_owned(),
        name => name.to_owned(),
    }
}

/// The name under which an input is uploaded: its extension is all that loaders look at.
pub(super) fn upload_name(index: usize, literal: &str) -> String {
    let name = without_annotation(literal).rsplit(['/', '\\']).next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let plain = !extension.is_empty()
        && extension.len() <= 10
        && extension.chars().all(|c| c.is_ascii_alphanumeric());
    if plain { format!("input{index}.{}", extension.to_ascii_lowercase()) } else { format!("input{index}") }
}

/// The whole body of `POST /prompt`.
///
/// # Errors
/// When the task's `extra_data` is not a JSON object.
pub(super) fn prompt_body(
    graph: &Graph,
    extra_data: &[u8],
    names: &Names,
    previews: bool,
) -> Result<Value, Failure> {
    let mut extra = match extra_data {
        [] => Map::new(),
        bytes => serde_json::from_slice::<Map<String, Value>>(bytes).map_err(|error| {
            Failure::new(FailureClass::InvalidGraph, format!("extra_data is not a JSON object: {error}"))
        })?,
    };
    // comfy.org credentials let their holder spend money; they have no business on another machine.
    extra.retain(|key, _| !key.to_ascii_lowercase().ends_with("_comfy_org"));
    extra.values_mut().for_each(strip_tokens);
    extra.insert("preview_method".into(), Value::from(if previews { "auto" } else { "none" }));
    extra.insert(MARK.into(), Value::from(names.tag.as_str()));
    Ok(json!({
        "prompt": graph.to_value(),
        "client_id": names.client_id,
        "prompt_id": names.prompt_id,
        "extra_data": extra,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::comfyui::testing;

    fn names() -> Names {
        Names::new("amber", TaskId::from_bytes([0xab; 16]), 2, false).posted([0xcd; 4])
    }

    fn rewritten(graph: Value, uploads: &[(&str, &str)], saving: Saving) -> (Graph, Streamed) {
        let mut graph = Graph::from_value(graph).unwrap();
        let uploads = uploads.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let streamed = rewrite(&mut graph, &testing::inventory(), &names(), &uploads, saving);
        (graph, streamed)
    }

    #[test]
    fn the_prompt_id_is_a_canonical_uuid_and_never_changes() {
        assert_eq!(names().prompt_id, "a8d0183a-00b9-856e-a982-cd4c2e3396ac");
        assert_ne!(prompt_id(TaskId::from_bytes([0xab; 16]), 3), names().prompt_id);
    }

    #[test]
    fn prefixes_move_into_the_attempts_folder_and_keep_the_users_name() {
        let save = |prefix: &str| {
            let graph = json!({"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}}});
            let (graph, _) = rewritten(graph, &[], Saving::ToDisk);
            graph.node("9").unwrap().inputs["filename_prefix"].as_str().unwrap().to_owned()
        };
        assert_eq!(save("scene_001"), "scenemesh/amber-abababab-2/cdcdcdcd/scene_001");
        assert_eq!(save("video/clip"), "scenemesh/amber-abababab-2/cdcdcdcd/clip");
        assert_eq!(save("..\\..\\x"), "scenemesh/amber-abababab-2/cdcdcdcd/x");
        assert_eq!(save("../.."), "scenemesh/amber-abababab-2/cdcdcdcd/ComfyUI");
    }

    #[test]
    fn output_nodes_without_a_prefix_are_kept_out_of_the_cache() {
        let graph = json!({"9": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}});
        let (graph, streamed) = rewritten(graph, &[], Saving::ToDisk);
        assert_eq!(graph.node("9").unwrap().inputs["scenemesh_attempt"], json!("amber-abababab-2 cdcdcdcd"));
        assert!(streamed.is_empty());
    }

    #[test]
    fn where_files_would_stay_pictures_are_streamed() {
        let graph = json!({
            "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "shots/s1"}},
            "10": {"class_type": "SaveVideo", "inputs": {"video": ["3", 0], "filename_prefix": "v"}},
        });
        let (graph, streamed) = rewritten(graph, &[], Saving::Streaming);
        assert_eq!(graph.node("9").unwrap().class, "SaveImageWebsocket");
        assert_eq!(graph.node("9").unwrap().inputs["images"], json!(["2", 0]));
        assert_eq!(streamed, Streamed::from([("9".to_owned(), "s1".to_owned())]));
        assert_eq!(graph.node("10").unwrap().class, "SaveVideo");
    }

    #[test]
    fn uploads_replace_literals_with_and_without_annotation() {
        let graph = json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "plate.png [input]"}},
            "2": {"class_type": "LoadImage", "inputs": {"image": "plate.png"}},
        });
        let (graph, _) = rewritten(graph, &[("plate.png", "scenemesh/t/input0.png")], Saving::ToDisk);
        for id in ["1", "2"] {
            assert_eq!(graph.node(id).unwrap().inputs["image"], json!("scenemesh/t/input0.png"));
        }
    }

    #[test]
    fn upload_names_keep_nothing_but_a_plain_extension() {
        assert_eq!(upload_name(0, "C:\\shots\\Plate.PNG [input]"), "input0.png");
        assert_eq!(upload_name(1, "no extension"), "input1");
        assert_eq!(upload_name(2, "x.p n g"), "input2");
    }

    #[test]
    fn comfy_org_tokens_do_not_travel() {
        let graph = Graph::from_value(testing::ksampler()).unwrap();
        let extra =
            br#"{"auth_token_comfy_org": "T", "api_key_comfy_org": "K", "extra_pnginfo": {"workflow": {}}}"#;
        let body = prompt_body(&graph, extra, &names(), true).unwrap();
        let expected =
            json!({"extra_pnginfo": {"workflow": {}}, "preview_method": "auto", "scenemesh": names().tag});
        assert_eq!(body["extra_data"], expected);
        assert!(prompt_body(&graph, b"[1]", &names(), true).is_err());
    }
}
