//! What a finished prompt's history says: its outputs of every kind, and how it ended. Pure and lenient.

use std::collections::BTreeSet;

use scenemesh_protocol::task::OutputKind;
use serde_json::Value;

use super::client::FileRef;

/// Most outputs taken from one prompt. A shot of 240 frames saved as pictures has 240.
const MOST_OUTPUTS: usize = 10_000;

/// One output as history names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub node: String,
    pub kind: OutputKind,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File(FileRef),
    /// A bare string that looks like a file; it may turn out not to be one.
    MaybeFile(FileRef),
    Text(String),
}

/// How a prompt ended, by its history.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Success {
        exec_ms: Option<u64>,
    },
    Interrupted,
    /// The data of `execution_error`, or null when there is none.
    Error(Value),
}

/// All outputs of a history entry, in its order, each file once. Of what a node shows under several keys
/// (`images` and `animated`) only files and texts count.
pub(super) fn outputs(entry: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (node, shown) in entry.get("outputs").and_then(Value::as_object).into_iter().flatten() {
        let Some(shown) = shown.as_object() else { continue };
        let animated =
            shown.get("animated").and_then(|flag| flag.get(0)).and_then(Value::as_bool).unwrap_or(false);
        for (key, items) in shown {
            let Some(items) = items.as_array() else { continue };
            for what in read_items(key, items) {
                let kind = match &what {
                    What::File(file) | What::MaybeFile(file) => {
                        if !seen.insert((file.filename.clone(), file.subfolder.clone(), file.kind.clone())) {
                            continue;
                        }
                        kind_of(key, animated, &file.filename)
                    }
                    What::Text(_) => OutputKind::Text,
                };
                if found.len() < MOST_OUTPUTS {
                    found.push(Found { node: node.clone(), kind, what });
                }
            }
        }
    }
    found
}

fn read_items(key: &str, items: &[Value]) -> Vec<What> {
    // Some audio nodes give a bare `[name, directory]` instead of objects.
    if let [Value::String(name), Value::String(directory)] = items
        && key != "text"
        && matches!(directory.as_str(), "output" | "temp")
    {
        return file(name, "", directory).map(What::MaybeFile).into_iter().collect();
    }
    items.iter().filter_map(|item| read_item(key, item)).collect()
}

fn read_item(key: &str, item: &Value) -> Option<What> {
    match item {
        Value::Object(item) => {
            let text = |key: &str| item.get(key).and_then(Value::as_str);
            // Some nodes say beside a text what it is.
            if let Some(shown) = text("text").filter(|_| text("filename").is_none() && key == "text") {
                return Some(What::Text(shown.to_owned()));
            }
            let kind = text("type").unwrap_or("output");
            // Loaders show what they loaded: that is the submitter's own file.
            let of_ours = kind != "input";
            of_ours
                .then(|| file(text("filename")?, text("subfolder").unwrap_or_default(), kind))
                .flatten()
                .map(What::File)
        }
        Value::String(text) if matches!(key, "text" | "string" | "texts") => Some(What::Text(text.clone())),
        // 3D previews give bare paths, relative to the output folder.
        Value::String(path) if has_extension(path) => {
            let path = path.replace('\\', "/");
            let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            file(name, subfolder, "output").map(What::MaybeFile)
        }
        _ => None,
    }
}

/// A reference that stays inside ComfyUI's folders.
fn file(filename: &str, subfolder: &str, kind: &str) -> Option<FileRef> {
    let plain = !filename.is_empty() && !filename.contains(['/', '\\', '\0']) && filename != "..";
    let inside = !subfolder.starts_with(['/', '\\']) && subfolder.split(['/', '\\']).all(|part| part != "..");
    (plain && inside).then(|| FileRef {
        filename: filename.to_owned(),
        subfolder: subfolder.to_owned(),
        kind: kind.to_owned(),
    })
}

fn has_extension(path: &str) -> bool {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(stem, extension)| (stem.is_empty(), extension));
    extension.is_some_and(|(hidden, extension)| {
        !hidden && (2..=5).contains(&extension.len()) && extension.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

fn kind_of(key: &str, animated: bool, filename: &str) -> OutputKind {
    let extension = filename.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "mp4" | "webm" | "mkv" | "mov" | "avi" | "gif" => OutputKind::Video,
        "wav" | "flac" | "mp3" | "opus" | "ogg" | "m4a" | "aac" => OutputKind::Audio,
        "png" | "jpg" | "jpeg" | "webp" | "exr" | "tif" | "tiff" | "bmp" | "hdr" | "avif" => {
            if animated || key == "gifs" { OutputKind::Video } else { OutputKind::Image }
        }
        "txt" | "srt" | "json" | "csv" => OutputKind::Text,
        _ => match key {
            "images" if !animated => OutputKind::Image,
            "images" | "gifs" | "video" | "videos" => OutputKind::Video,
            "audio" => OutputKind::Audio,
            "text" => OutputKind::Text,
            _ => OutputKind::Other,
        },
    }
}

/// How the prompt ended. `None` when the entry does not say: it is not finished, or not one of ComfyUI's.
pub(super) fn ending(entry: &Value) -> Option<Ending> {
    let status = entry.get("status")?;
    let messages: Vec<(&str, &Value)> = status
        .get("messages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|message| Some((message.get(0)?.as_str()?, message.get(1)?)))
        .collect();
    let said = |name: &str| messages.iter().find(|(event, _)| *event == name).map(|(_, data)| *data);
    if let Some(error) = said("execution_error") {
        return Some(Ending::Error(error.clone()));
    }
    if said("execution_interrupted").is_some() {
        return Some(Ending::Interrupted);
    }
    match status.get("status_str").and_then(Value::as_str)? {
        "success" => {
            let at = |name: &str| said(name).and_then(|data| data.get("timestamp")).and_then(Value::as_u64);
            let exec_ms = at("execution_success")
                .zip(at("execution_start"))
                .map(|(end, start)| end.saturating_sub(start));
            Some(Ending::Success { exec_ms })
        }
        _ => Some(Ending::Error(Value::Null)),
    }
}

/// Nodes that were not executed but answered from the cache: their files are of an earlier prompt.
pub(super) fn cached_nodes(entry: &Value) -> BTreeSet<String> {
    let messages = entry.pointer("/status/messages").and_then(Value::as_array).into_iter().flatten();
    messages
        .filter(|message| message.get(0).and_then(Value::as_str) == Some("execution_cached"))
        .filter_map(|message| message.pointer("/1/nodes").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file_ref(filename: &str, subfolder: &str, kind: &str) -> FileRef {
        FileRef { filename: filename.into(), subfolder: subfolder.into(), kind: kind.into() }
    }

    #[test]
    fn every_kind_of_output_is_found() {
        let entry = json!({"outputs": {
            "9": {"images": [{"filename": "a.png", "subfolder": "s", "type": "output"}]},
            "3": {"images": [{"filename": "clip.mp4", "subfolder": "v", "type": "output"}], "animated": [true]},
            "4": {"images": [{"filename": "anim.webp", "type": "output"}], "animated": [true]},
            "5": {"gifs": [{"filename": "b.mp4", "subfolder": "", "type": "temp", "fullpath": "/x/b.mp4"}]},
            "6": {"audio": ["voice.wav", "output"]},
            "7": {"text": ["a lighthouse", {"name": "When", "text": "at dusk", "content-type": "text/plain"}]},
            "8": {"result": ["mesh/m.glb", null, {"camera": 1}]},
            "10": {"3d": [{"filename": "n.glb", "subfolder": "mesh", "type": "output"}]},
            "11": {"new_key": [{"filename": "latent.bin"}], "numbers": [1, true]},
        }});
        let found: Vec<(String, OutputKind, What)> =
            outputs(&entry).into_iter().map(|found| (found.node, found.kind, found.what)).collect();
        let expected = [
            ("9", OutputKind::Image, What::File(file_ref("a.png", "s", "output"))),
            ("3", OutputKind::Video, What::File(file_ref("clip.mp4", "v", "output"))),
            ("4", OutputKind::Video, What::File(file_ref("anim.webp", "", "output"))),
            ("5", OutputKind::Video, What::File(file_ref("b.mp4", "", "temp"))),
            ("6", OutputKind::Audio, What::MaybeFile(file_ref("voice.wav", "", "output"))),
            ("7", OutputKind::Text, What::Text("a lighthouse".into())),
            ("7", OutputKind::Text, What::Text("at dusk".into())),
            ("8", OutputKind::Other, What::MaybeFile(file_ref("m.glb", "mesh", "output"))),
            ("10", OutputKind::Other, What::File(file_ref("n.glb", "mesh", "output"))),
            ("11", OutputKind::Other, What::File(file_ref("latent.bin", "", "output"))),
        ];
        assert_eq!(found, expected.map(|(node, kind, what)| (node.to_owned(), kind, what)));
    }

    #[test]
    fn paths_that_leave_the_folders_are_not_outputs() {
        let entry = json!({"outputs": {"1": {"images": [
            {"filename": "../../etc/passwd"}, {"filename": "a", "subfolder": "../.."},
            {"filename": "a", "subfolder": "/etc"}, {"filename": "mine.png", "type": "input"}, 5, null, {}
        ], "text": 5}, "2": "nonsense"}});
        assert_eq!(outputs(&entry), []);
        assert_eq!(outputs(&json!("nonsense")), []);
    }

    #[test]
    fn endings_are_read_from_the_messages() {
        let success = json!({"status": {"status_str": "success", "completed": true, "messages": [
            ["execution_start", {"timestamp": 1_000}], ["execution_cached", {"nodes": ["4", "5"]}],
            ["execution_success", {"timestamp": 1_017}]]}});
        assert_eq!(ending(&success), Some(Ending::Success { exec_ms: Some(17) }));
        assert_eq!(cached_nodes(&success), BTreeSet::from(["4".to_owned(), "5".to_owned()]));
        let interrupted =
            json!({"status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}});
        assert_eq!(ending(&interrupted), Some(Ending::Interrupted));
        let error =
            json!({"status": {"status_str": "error", "messages": [["execution_error", {"node_id": "1"}]]}});
        assert_eq!(ending(&error), Some(Ending::Error(json!({"node_id": "1"}))));
        assert_eq!(ending(&json!({"status": {"status_str": "error"}})), Some(Ending::Error(Value::Null)));
        assert_eq!(ending(&json!({})), None);
    }
}
