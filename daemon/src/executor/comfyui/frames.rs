//! Frames of ComfyUI's event socket. Pure; what is not understood is [`Frame::Other`], never an error.

use bytes::Bytes;
use scenemesh_protocol::lease::RELAYED_LIMIT;
use serde_json::Value;

/// What a frame says, and of which prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    Started {
        prompt: String,
    },
    Cached {
        prompt: String,
        nodes: Vec<String>,
    },
    /// `None`: the prompt is over, and its history is written.
    Executing {
        prompt: String,
        node: Option<String>,
    },
    Progress {
        prompt: Option<String>,
        node: Option<String>,
        value: u32,
        max: u32,
    },
    /// Nodes that are finished so far.
    Finished {
        prompt: String,
        nodes: Vec<String>,
    },
    /// A node's outputs are in.
    Executed {
        prompt: String,
        node: String,
        output: Value,
    },
    /// Success, error or interrupt: history will have it in a moment, but need not have it yet.
    Ended {
        prompt: String,
        success: bool,
    },
    Picture(Picture),
    /// A binary frame of another kind, whole.
    Relayed(Bytes),
    Other,
}

/// A picture on the socket: a preview, or what `SaveImageWebsocket` saved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    /// Only newer servers say whose it is; from older ones it belongs to the node that executes.
    pub prompt: Option<String>,
    pub node: Option<String>,
    /// Media type.
    pub format: &'static str,
    pub bytes: Bytes,
}

/// Most bytes of a text frame; the longest carry what a node shows.
const TEXT: usize = 16 << 20;

/// Reads a text frame.
pub(super) fn read_text(text: &str) -> Frame {
    if text.len() > TEXT {
        return Frame::Other;
    }
    serde_json::from_str::<Value>(text).ok().and_then(|value| read_value(&value)).unwrap_or(Frame::Other)
}

fn read_value(value: &Value) -> Option<Frame> {
    let data = value.get("data")?;
    let prompt = data.get("prompt_id").and_then(Value::as_str).map(str::to_owned);
    let node = data.get("node").and_then(id);
    Some(match value.get("type")?.as_str()? {
        "execution_start" => Frame::Started { prompt: prompt? },
        "execution_cached" => Frame::Cached { prompt: prompt?, nodes: ids(data.get("nodes")?) },
        "executing" => Frame::Executing { prompt: prompt?, node },
        "progress" => {
            Frame::Progress { prompt, node, value: count(data.get("value")?), max: count(data.get("max")?) }
        }
        "progress_state" => {
            let nodes = data.get("nodes")?.as_object()?;
            let finished = |state: &Value| state.get("state").and_then(Value::as_str) == Some("finished");
            let nodes = nodes.iter().filter(|(_, state)| finished(state)).map(|(id, _)| id.clone()).collect();
            Frame::Finished { prompt: prompt?, nodes }
        }
        "executed" => {
            let output = data.get("output").cloned().unwrap_or_default();
            Frame::Executed { prompt: prompt?, node: node?, output }
        }
        "execution_success" => Frame::Ended { prompt: prompt?, success: true },
        "execution_error" | "execution_interrupted" => Frame::Ended { prompt: prompt?, success: false },
        _ => return None,
    })
}

/// Reads a binary frame: a big-endian event number, then what that event says. Event 1 is a picture behind its
/// format number, event 4 one behind a length and JSON that says whose it is. Event 3 is a text that a node shows, other
/// numbers are extensions' own: clients may understand them.
pub(super) fn read_binary(frame: &Bytes) -> Frame {
    match number(frame, 0) {
        Some(1 | 4) => read_picture(frame).map_or(Frame::Other, Frame::Picture),
        Some(_) if frame.len() <= RELAYED_LIMIT => Frame::Relayed(frame.clone()),
        Some(_) | None => Frame::Other,
    }
}

fn read_picture(frame: &Bytes) -> Option<Picture> {
    let (event, second) = (number(frame, 0)?, number(frame, 4)?);
    match event {
        1 => {
            let bytes = frame.slice(8..);
            Some(Picture { prompt: None, node: None, format: media_type(&bytes)?, bytes })
        }
        4 => {
            let end = 8_usize.checked_add(second as usize)?;
            let meta: Value = serde_json::from_slice(frame.get(8..end)?).ok()?;
            let bytes = frame.slice(end..);
            let text = |key: &str| meta.get(key).and_then(Value::as_str).map(str::to_owned);
            Some(Picture {
                prompt: text("prompt_id"),
                node: text("node_id"),
                format: media_type(&bytes)?,
                bytes,
            })
        }
        _ => None,
    }
}

/// By the bytes themselves: format numbers differ between extensions.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

fn number(frame: &[u8], at: usize) -> Option<u32> {
    frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Node ids are strings, but some extensions send numbers.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn ids(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(id).collect()
}

/// Steps come as integers or floats; nonsense counts as nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range before")]
fn count(value: &Value) -> u32 {
    value.as_f64().map_or(0, |number| number.clamp(0.0, f64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_recorded_are_read() {
        let end = r#"{"type":"executing","data":{"node":null,"prompt_id":"p"}}"#;
        assert_eq!(read_text(end), Frame::Executing { prompt: "p".into(), node: None });
        let progress = r#"{"type":"progress","data":{"value":1.0,"max":30,"prompt_id":"p","node":"3"}}"#;
        assert_eq!(
            read_text(progress),
            Frame::Progress { prompt: Some("p".into()), node: Some("3".into()), value: 1, max: 30 }
        );
        let state = r#"{"type":"progress_state","data":{"prompt_id":"p","nodes":{
            "1":{"state":"finished"},"2":{"state":"running"}}}}"#;
        assert_eq!(read_text(state), Frame::Finished { prompt: "p".into(), nodes: vec!["1".into()] });
    }

    #[test]
    fn garbage_is_other() {
        for text in ["", "{", "null", "[]", r#"{"type":5}"#, r#"{"type":"progress","data":{}}"#] {
            assert_eq!(read_text(text), Frame::Other, "{text}");
        }
        for bytes in
            [&b""[..], b"\0\0\0\x01", b"\0\0\0\x04\xff\xff\xff\xff{}", b"\0\0\0\x01\0\0\0\x01nothing"]
        {
            assert_eq!(read_binary(&Bytes::copy_from_slice(bytes)), Frame::Other);
        }
    }

    #[test]
    fn both_kinds_of_pictures_are_read() {
        let jpeg = b"\xff\xd8\xff\xe0rest";
        let legacy = [b"\0\0\0\x01\0\0\0\x01".as_slice(), jpeg].concat();
        let Frame::Picture(picture) = read_binary(&legacy.into()) else { panic!("a picture") };
        assert_eq!((picture.format, &picture.bytes[..], picture.node), ("image/jpeg", &jpeg[..], None));

        let meta = br#"{"node_id": "3", "prompt_id": "p"}"#;
        let length = u32::try_from(meta.len()).unwrap().to_be_bytes();
        let modern = [b"\0\0\0\x04".as_slice(), &length, meta, jpeg].concat();
        let Frame::Picture(picture) = read_binary(&modern.into()) else { panic!("a picture") };
        assert_eq!((picture.node.as_deref(), picture.prompt.as_deref()), (Some("3"), Some("p")));
        assert_eq!(&picture.bytes[..], jpeg);
    }
}
