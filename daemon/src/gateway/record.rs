//! PURE: what is written down of a prompt, and what ComfyUI's history would say of it.

use std::collections::BTreeMap;

use scenemesh_protocol::task::{Failure, OutputFile, OutputKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::tooling;

/// The node class whose pictures go over the socket and stand in no history.
pub(super) const STREAMS: &str = "SaveImageWebsocket";
/// Most characters of a text that a node shows, as programs without a file get it.
pub(super) const TEXT_LIMIT: u64 = 64 << 10;
const VERSION: u8 = 1;
/// Characters of a text in a list of jobs; core's number.
const TEXT_PREVIEW: usize = 1024;

/// A prompt: one private file each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u8,
    pub(super) scope: String,
    pub(super) id: String,
    pub(super) number: Number,
    pub(super) client: Option<String>,
    pub(super) job: String,
    pub(super) created_ms: u64,
    pub(super) started_ms: Option<u64>,
    pub(super) prompt: Map<String, Value>,
    pub(super) extra_data: Map<String, Value>,
    pub(super) outputs_to_execute: Vec<String>,
    pub(super) ended: Option<Ended>,
    /// Taken out of the history; its files can still be named.
    #[serde(default)]
    pub(super) hidden: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) at_ms: u64,
    pub(super) how: How,
    pub(super) outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    Success,
    /// The data of `execution_error`, without its time.
    Error(Value),
    /// The node that ran, if any did.
    Interrupted(Option<String>),
}

/// A result as the prompt's owner may name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Output {
    pub(super) node: String,
    kind: Kind,
    pub(super) filename: String,
    /// Its place among the job's outputs.
    pub(super) index: u32,
    /// What a node shows as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Image,
    Video,
    Audio,
    Text,
    Other,
}

impl Output {
    pub(super) fn of(file: &OutputFile, index: u32, text: Option<String>) -> Self {
        let kind = match file.kind {
            OutputKind::Image => Kind::Image,
            OutputKind::Video => Kind::Video,
            OutputKind::Audio => Kind::Audio,
            OutputKind::Text => Kind::Text,
            OutputKind::Other => Kind::Other,
        };
        Self { node: file.node.clone(), kind, filename: file.filename.clone(), index, text }
    }
}

/// Whether a file holds what a node shows as text, rather than being one that it saved.
pub(super) fn is_shown_text(file: &OutputFile) -> bool {
    let number = file.filename.strip_prefix("text_").and_then(|rest| rest.strip_suffix(".txt"));
    file.kind == OutputKind::Text
        && file.bytes <= TEXT_LIMIT
        && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The class of a node, and what it says of its results where that is not in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Class {
    pub(super) name: String,
    words: Option<Box<Value>>,
}

impl Class {
    /// Whether its pictures go over the socket.
    pub(super) fn streams(&self) -> bool {
        self.name == STREAMS || tooling::streams(&self.name)
    }
}

/// Classes of a prompt's nodes.
pub(super) type Classes = BTreeMap<String, Class>;

pub(super) fn classes(prompt: &Map<String, Value>) -> Classes {
    let class = |node: &Value| {
        let name = node["class_type"].as_str().unwrap_or_default();
        let words = tooling::words(name, &node["inputs"]).map(Box::new);
        Class { name: name.to_owned(), words }
    };
    prompt.iter().map(|(id, node)| (id.clone(), class(node))).collect()
}

fn name<'a>(classes: &'a Classes, node: &str) -> &'a str {
    classes.get(node).map_or("", |class| class.name.as_str())
}

/// What each node shows, in the order in which its files came; names are those of the prompt's own folder.
pub(super) fn shown(id: &str, outputs: &[Output], classes: &Classes) -> Map<String, Value> {
    let mut all = Map::new();
    for output in outputs {
        let class = name(classes, &output.node);
        if class == STREAMS {
            continue;
        }
        let words = classes.get(&output.node).and_then(|class| class.words.as_deref());
        let own = words
            .and_then(|words| tooling::shown(class, words, id, &output.filename, output.text.as_deref()));
        if let Some(tooling::Shown { list, item, beside }) = own {
            let node = all.entry(output.node.clone()).or_insert_with(|| json!({}));
            if let Some((key, value)) = beside.filter(|(key, _)| node.get(key).is_none()) {
                node[key] = value;
            }
            push(node, list, item);
            continue;
        }
        let extension = output.filename.rsplit_once('.').map_or("", |(_, extension)| extension);
        let kind = if class.starts_with("Preview") || class == "MaskPreview" { "temp" } else { "output" };
        let file = json!({"filename": output.filename, "subfolder": id, "type": kind});
        let (key, item, animated) = match (output.kind, &output.text) {
            (_, Some(text)) => ("text", json!(text), false),
            (Kind::Image, _) => ("images", file, false),
            (Kind::Video, _) if class.starts_with("VHS_") => {
                let format =
                    if extension == "gif" { "image/gif".to_owned() } else { format!("video/{extension}") };
                let mut file = file;
                file["format"] = format.into();
                ("gifs", file, false)
            }
            (Kind::Video, _) => ("images", file, true),
            (Kind::Audio, _) => ("audio", file, false),
            (Kind::Other, _) if matches!(extension, "glb" | "gltf" | "obj" | "fbx" | "usdz" | "stl") => {
                ("3d", file, false)
            }
            (Kind::Text | Kind::Other, _) => ("files", file, false),
        };
        let node = all.entry(output.node.clone()).or_insert_with(|| json!({}));
        push(node, key, item);
        if animated {
            node["animated"] = json!([true]);
        }
    }
    all
}

fn push(node: &mut Value, key: &str, item: Value) {
    let list = node.as_object_mut().map(|node| node.entry(key).or_insert_with(|| json!([])));
    list.and_then(Value::as_array_mut).into_iter().for_each(|list| list.push(item.clone()));
}

/// What came of a prompt, in the few words that lists of jobs have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) outputs: usize,
    pub(super) previewable: usize,
    /// JSON, but for the subfolder of a file, which is the prompt's id: as a text it takes a third of the memory, and there are
    /// thousands of them.
    pub(super) preview: Option<Box<str>>,
}

pub(super) fn summary(shown: &Map<String, Value>) -> Summary {
    let mut summary = Summary::default();
    let (mut saved, mut other, mut words) = (None, None, None);
    for (node, lists) in shown {
        let lists = lists.as_object().into_iter().flatten();
        for (media, items) in lists.filter(|(media, _)| !matches!(media.as_str(), "animated" | "info")) {
            for item in items.as_array().into_iter().flatten() {
                if let Some(text) = item.as_str().or_else(|| item["text"].as_str()) {
                    let content: String = text.chars().take(TEXT_PREVIEW).collect();
                    words.get_or_insert_with(
                        || json!({"content": content, "nodeId": node, "mediaType": "text"}),
                    );
                    continue;
                }
                summary.outputs += 1;
                let seen =
                    matches!(media.as_str(), "images" | "audio" | "3d") || item.get("format").is_some();
                // Of those that Krita's plugin fetches by routes of its own a frontend can show none.
                if !seen || item.get("filename").is_none() {
                    continue;
                }
                summary.previewable += 1;
                let mut item = item.clone();
                (item["nodeId"], item["mediaType"]) = (json!(node), json!(media));
                let place = if item["type"] == "output" { &mut saved } else { &mut other };
                place.get_or_insert(item);
            }
        }
    }
    summary.preview = saved.or(other).or(words).map(|mut preview| {
        preview.as_object_mut().map(|preview| preview.shift_remove("subfolder"));
        preview.to_string().into()
    });
    summary
}

/// `execution_error`'s data for a failure, which says itself where it happened when it knows: `node 3 (KSampler): …`.
pub(super) fn error_data(
    id: &str,
    failure: &Failure,
    on: &str,
    running: Option<&str>,
    classes: &Classes,
) -> Value {
    let told = failure.detail.strip_prefix("node ").and_then(|rest| {
        let (node, rest) = rest.split_once(" (")?;
        let (class, rest) = rest.split_once("): ")?;
        let sent = |node: &str| classes.get(node).map(|class| class.name.as_str());
        tooling::meant(node, class, sent).map(|node| (node, rest))
    });
    let (node, said) = told.unwrap_or((running.unwrap_or_default(), failure.detail.as_str()));
    let (kind, message) = match said.split_once(": ") {
        Some((kind, message)) if told.is_some() && !kind.contains(' ') => (kind, message),
        _ => (failure.class.words(), said),
    };
    let message = if on.is_empty() { message.to_owned() } else { format!("{message} (on {on})") };
    json!({
        "prompt_id": id, "node_id": node, "node_type": name(classes, node), "executed": [],
        "exception_message": message, "exception_type": kind, "traceback": [], "current_inputs": {}, "current_outputs": [],
    })
}

/// The same for a failure of which no more is known.
pub(super) fn unexplained(id: &str, why: &str) -> Value {
    json!({
        "prompt_id": id, "node_id": "", "node_type": "", "executed": [], "exception_type": "failed",
        "exception_message": why, "traceback": [], "current_inputs": {}, "current_outputs": [],
    })
}

fn at(mut data: Value, ms: u64) -> Value {
    data["timestamp"] = ms.into();
    data
}

/// The last event of a prompt: its name and data.
pub(super) fn ending(id: &str, ended: &Ended, classes: &Classes) -> (&'static str, Value) {
    match &ended.how {
        How::Success => ("execution_success", at(json!({"prompt_id": id}), ended.at_ms)),
        How::Error(data) => ("execution_error", at(data.clone(), ended.at_ms)),
        How::Interrupted(node) => {
            let node = node.as_deref().unwrap_or_default();
            let class = name(classes, node);
            let data = json!({"prompt_id": id, "node_id": node, "node_type": class, "executed": []});
            ("execution_interrupted", at(data, ended.at_ms))
        }
    }
}

/// The first events: names and data.
pub(super) fn beginning(id: &str, ms: u64) -> [(&'static str, Value); 2] {
    let cached = json!({"nodes": [], "prompt_id": id, "timestamp": ms});
    [("execution_start", at(json!({"prompt_id": id}), ms)), ("execution_cached", cached)]
}

/// A prompt as it came.
pub(super) struct Asked {
    pub(super) number: Number,
    pub(super) client: Option<String>,
    pub(super) prompt: Map<String, Value>,
    pub(super) extra_data: Map<String, Value>,
    pub(super) outputs_to_execute: Vec<String>,
}

impl Record {
    pub(super) fn new(scope: &str, id: &str, job: String, created_ms: u64, asked: Asked) -> Self {
        let Asked { number, client, prompt, mut extra_data, outputs_to_execute } = asked;
        extra_data.insert("create_time".into(), created_ms.into());
        if let Some(client) = &client {
            extra_data.insert("client_id".into(), client.clone().into());
        }
        Self {
            version: VERSION,
            scope: scope.to_owned(),
            id: id.to_owned(),
            number,
            client,
            job,
            created_ms,
            started_ms: None,
            prompt,
            extra_data,
            outputs_to_execute,
            ended: None,
            hidden: false,
        }
    }

    /// Reads a file that this release or an earlier one wrote.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version > VERSION {
            return Err(serde::de::Error::custom("a newer release wrote it"));
        }
        Ok(record)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and JSON always serialise")
    }

    pub(super) fn classes(&self) -> Classes {
        classes(&self.prompt)
    }

    pub(super) fn workflow(&self) -> Option<String> {
        let id = self.extra_data.get("extra_pnginfo")?.get("workflow")?.get("id")?;
        id.as_str().map(str::to_owned)
    }

    /// `[number, id, prompt, extra_data, outputs_to_execute]`, as queue and history have it.
    pub(super) fn tuple(&self) -> Value {
        json!([self.number, self.id, self.prompt, self.extra_data, self.outputs_to_execute])
    }

    pub(super) fn outputs(&self) -> Map<String, Value> {
        let outputs = self.ended.as_ref().map(|ended| ended.outputs.as_slice()).unwrap_or_default();
        shown(&self.id, outputs, &self.classes())
    }

    fn status(&self) -> Value {
        let Some(ended) = &self.ended else { return Value::Null };
        let classes = self.classes();
        let began = self.started_ms.map(|ms| beginning(&self.id, ms));
        let messages: Vec<Value> = began
            .into_iter()
            .flatten()
            .chain([ending(&self.id, ended, &classes)])
            .map(|(event, data)| json!([event, data]))
            .collect();
        let good = ended.how == How::Success;
        let word = if good { "success" } else { "error" };
        json!({"status_str": word, "completed": good, "messages": messages})
    }

    /// The entry of `/history`.
    pub(super) fn history(&self) -> Value {
        let outputs = self.outputs();
        let meta: Map<String, Value> = outputs
            .keys()
            .map(|node| {
                let told =
                    json!({"node_id": node, "display_node": node, "parent_node": null, "real_node_id": node});
                (node.clone(), told)
            })
            .collect();
        json!({"prompt": self.tuple(), "outputs": outputs, "status": self.status(), "meta": meta})
    }

    /// What `/api/jobs/ID` has beyond the list's words.
    pub(super) fn detail(&self) -> Map<String, Value> {
        let mut detail = Map::new();
        if self.ended.is_some() {
            detail.insert("outputs".into(), self.outputs().into());
            detail.insert("execution_status".into(), self.status());
        }
        let workflow = json!({"prompt": self.prompt, "extra_data": self.extra_data});
        detail.insert("workflow".into(), workflow);
        detail
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::ids::ContentHash;
    use scenemesh_protocol::sealed::BlobKey;
    use scenemesh_protocol::task::FailureClass;

    use super::*;

    fn file(node: &str, kind: OutputKind, filename: &str) -> OutputFile {
        let (root, key) = (ContentHash::from_bytes([1; 32]), BlobKey::from_bytes([1; 32]));
        OutputFile { node: node.into(), kind, filename: filename.into(), root, key, bytes: 3 }
    }

    fn graph() -> Map<String, Value> {
        let classes = [
            ("1", "SaveImage"),
            ("2", "PreviewImage"),
            ("3", "SaveVideo"),
            ("4", "VHS_VideoCombine"),
            ("5", "SaveAudio"),
            ("6", "PreviewAny"),
            ("7", STREAMS),
            ("8", "SaveGLB"),
        ];
        classes
            .map(|(id, class)| (id.to_owned(), json!({"class_type": class, "inputs": {}})))
            .into_iter()
            .collect()
    }

    #[test]
    fn results_stand_where_their_nodes_put_them() {
        let files = [
            (file("1", OutputKind::Image, "a_00001_.png"), None),
            (file("1", OutputKind::Image, "a_00002_.png"), None),
            (file("2", OutputKind::Image, "t.png"), None),
            (file("3", OutputKind::Video, "clip.mp4"), None),
            (file("4", OutputKind::Video, "b.mp4"), None),
            (file("5", OutputKind::Audio, "s.flac"), None),
            (file("6", OutputKind::Text, "text_1.txt"), Some("dusk".to_owned())),
            (file("7", OutputKind::Image, "ws_00001_.png"), None),
            (file("8", OutputKind::Other, "m.glb"), None),
        ];
        let outputs: Vec<Output> = files
            .iter()
            .zip(0..)
            .map(|((file, text), index)| Output::of(file, index, text.clone()))
            .collect();
        let shown = shown("p", &outputs, &classes(&graph()));
        let at = |name: &str, kind: &str| json!({"filename": name, "subfolder": "p", "type": kind});
        let mut combined = at("b.mp4", "output");
        combined["format"] = json!("video/mp4");
        let wanted = json!({
            "1": {"images": [at("a_00001_.png", "output"), at("a_00002_.png", "output")]},
            "2": {"images": [at("t.png", "temp")]},
            "3": {"images": [at("clip.mp4", "output")], "animated": [true]},
            "4": {"gifs": [combined]},
            "5": {"audio": [at("s.flac", "output")]},
            "6": {"text": ["dusk"]},
            "8": {"3d": [at("m.glb", "output")]},
        });
        assert_eq!(json!(shown), wanted);
        let summary = summary(&shown);
        assert_eq!((summary.outputs, summary.previewable), (7, 7));
        let preview: Value = serde_json::from_str(&summary.preview.unwrap()).unwrap();
        assert_eq!(preview["filename"], "a_00001_.png");
        assert!(is_shown_text(&files[6].0) && !is_shown_text(&file("6", OutputKind::Text, "notes.txt")));
    }

    #[test]
    fn failures_name_their_node_when_they_know_it() {
        let classes = classes(&graph());
        let failure = Failure::new(FailureClass::Execution, "node 1 (SaveImage): ValueError: no: really");
        let data = error_data("p", &failure, "birch", Some("2"), &classes);
        assert_eq!((&data["node_id"], &data["node_type"]), (&json!("1"), &json!("SaveImage")));
        assert_eq!(
            (&data["exception_type"], &data["exception_message"]),
            (&json!("ValueError"), &json!("no: really (on birch)"))
        );
        let failure = Failure::new(FailureClass::LeaseLost, "it stopped answering: silence");
        let data = error_data("p", &failure, "", Some("2"), &classes);
        assert_eq!((&data["node_id"], &data["node_type"]), (&json!("2"), &json!("PreviewImage")));
        assert_eq!(data["exception_message"], "it stopped answering: silence");
    }

    #[test]
    fn a_record_survives_its_file_and_tells_its_history() {
        let asked = Asked {
            number: 3.into(),
            client: Some("c".into()),
            prompt: graph(),
            extra_data: Map::new(),
            outputs_to_execute: vec!["1".into()],
        };
        let mut record = Record::new("gateway", "p", "j".into(), 10, asked);
        record.started_ms = Some(11);
        let outputs = vec![Output::of(&file("1", OutputKind::Image, "a_00001_.png"), 0, None)];
        record.ended = Some(Ended { at_ms: 12, how: How::Success, outputs });
        let record = Record::read(&record.to_bytes()).unwrap();
        let told = record.history();
        assert_eq!(told["prompt"][0], 3);
        assert_eq!(told["prompt"][3], json!({"create_time": 10, "client_id": "c"}));
        assert_eq!(told["status"]["completed"], true);
        let events: Vec<&str> = told["status"]["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line[0].as_str().unwrap())
            .collect();
        assert_eq!(events, ["execution_start", "execution_cached", "execution_success"]);
        assert_eq!(told["meta"]["1"]["real_node_id"], "1");
        let mut newer = serde_json::to_value(&record).unwrap();
        newer["version"] = json!(200);
        assert!(Record::read(newer.to_string().as_bytes()).is_err());
    }
}
