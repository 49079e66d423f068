//! PURE: what a WebSocket client hears, byte for byte as ComfyUI says it.
//!
//! Every text begins with its `type`: some clients look at the first eight bytes. Binary frames begin with a big-endian
//! word: 1, a word for the picture's format, and the picture; or 4, the length of a JSON object, that, and the picture,
//! for clients that said they read it.

use bytes::{BufMut, Bytes, BytesMut};
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::BlobKey;
use serde_json::{Map, Value, json};

/// What goes to one client.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Text(String),
    /// A text that the next of its kind makes worthless.
    Passing(String),
    /// A preview, or another binary frame, whole.
    Picture(Bytes),
    /// A whole result, for nodes that send theirs over the socket: this head, then the blob, opened as it is sent.
    Result {
        head: [u8; 8],
        root: ContentHash,
        key: BlobKey,
        bytes: u64,
    },
}

impl Frame {
    /// A binary frame that came from a renderer's ComfyUI. None for what we say ourselves, with whose prompt it is.
    pub(super) fn relayed(frame: Bytes) -> Option<Self> {
        let event = u32::from_be_bytes(frame.get(..4)?.try_into().ok()?);
        (event != 1 && event != 4).then_some(Self::Picture(frame))
    }

    /// Whether a client that falls behind can do without it.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_) | Self::Picture(_))
    }

    /// Bytes that it takes while it waits.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) | Self::Passing(text) => text.len(),
            Self::Picture(bytes) => bytes.len(),
            Self::Result { .. } => 128,
        }
    }
}

fn text(kind: &str, data: &Value) -> String {
    json!({"type": kind, "data": data}).to_string()
}

fn remaining(queue: usize) -> Value {
    json!({"exec_info": {"queue_remaining": queue}})
}

/// `GET /prompt`.
pub(super) fn exec_info(queue: usize) -> Value {
    remaining(queue)
}

/// The first thing a client hears.
pub(super) fn welcome(queue: usize, sid: &str) -> Frame {
    Frame::Text(text("status", &json!({"status": remaining(queue), "sid": sid})))
}

pub(super) fn status(queue: usize) -> Frame {
    Frame::Text(text("status", &json!({"status": remaining(queue)})))
}

pub(super) fn feature_flags(features: &Value) -> Frame {
    Frame::Text(text("feature_flags", features))
}

/// An event that also stands in the history, with its data.
pub(super) fn event(kind: &str, data: &Value) -> Frame {
    Frame::Text(text(kind, data))
}

/// `None`: nothing more comes of this prompt.
pub(super) fn executing(prompt: &str, node: Option<&str>) -> Frame {
    let data = match node {
        Some(node) => json!({"node": node, "display_node": node, "prompt_id": prompt}),
        None => json!({"node": null, "prompt_id": prompt}),
    };
    Frame::Text(text("executing", &data))
}

pub(super) fn executed(prompt: &str, node: &str, output: &Value) -> Frame {
    let data = json!({"node": node, "display_node": node, "output": output, "prompt_id": prompt});
    Frame::Text(text("executed", &data))
}

pub(super) fn progress(prompt: &str, node: &str, value: u32, max: u32) -> Frame {
    Frame::Passing(text("progress", &json!({"value": value, "max": max, "prompt_id": prompt, "node": node})))
}

/// How far one node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) value: u32,
    pub(super) max: u32,
    pub(super) finished: bool,
}

/// Of every node that has begun.
pub(super) fn progress_state<'a>(prompt: &str, nodes: impl IntoIterator<Item = (&'a str, Step)>) -> Frame {
    let state = |(node, step): (&str, Step)| {
        let state = if step.finished { "finished" } else { "running" };
        let told = json!({
            "value": step.value, "max": step.max, "state": state, "node_id": node, "prompt_id": prompt,
            "display_node_id": node, "parent_node_id": null, "real_node_id": node,
        });
        (node.to_owned(), told)
    };
    let nodes: Map<String, Value> = nodes.into_iter().map(state).collect();
    Frame::Passing(text("progress_state", &json!({"prompt_id": prompt, "nodes": nodes})))
}

/// A preview, both ways.
#[derive(Clone, Debug)]
pub(super) struct Preview {
    plain: Bytes,
    with_metadata: Bytes,
}

impl Preview {
    pub(super) fn new(prompt: &str, node: &str, mime: &str, picture: &[u8]) -> Self {
        let mut plain = BytesMut::with_capacity(8 + picture.len());
        plain.put_u32(1);
        plain.put_u32(if mime == "image/png" { 2 } else { 1 });
        plain.extend_from_slice(picture);
        let metadata = json!({
            "node_id": node, "prompt_id": prompt, "display_node_id": node, "parent_node_id": null,
            "real_node_id": node, "image_type": mime,
        });
        let metadata = metadata.to_string();
        let mut with_metadata = BytesMut::with_capacity(8 + metadata.len() + picture.len());
        with_metadata.put_u32(4);
        with_metadata.put_u32(u32::try_from(metadata.len()).unwrap_or_default());
        with_metadata.extend_from_slice(metadata.as_bytes());
        with_metadata.extend_from_slice(picture);
        Self { plain: plain.freeze(), with_metadata: with_metadata.freeze() }
    }

    pub(super) fn frame(&self, metadata: bool) -> Frame {
        Frame::Picture(if metadata { self.with_metadata.clone() } else { self.plain.clone() })
    }
}

/// The head of a result that goes over the socket.
pub(super) fn result_head(filename: &str) -> [u8; 8] {
    let format: u32 = if filename.ends_with(".png") { 2 } else { 1 };
    let mut head = [0; 8];
    head[..4].copy_from_slice(&1_u32.to_be_bytes());
    head[4..].copy_from_slice(&format.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(frame: &Frame) -> String {
        match frame {
            Frame::Text(text) | Frame::Passing(text) => text.clone(),
            other => panic!("no text: {other:?}"),
        }
    }

    #[test]
    fn texts_are_those_of_comfyui() {
        assert_eq!(
            said(&welcome(2, "abc")),
            r#"{"type":"status","data":{"status":{"exec_info":{"queue_remaining":2}},"sid":"abc"}}"#
        );
        assert_eq!(
            said(&status(0)),
            r#"{"type":"status","data":{"status":{"exec_info":{"queue_remaining":0}}}}"#
        );
        assert_eq!(
            said(&executing("p", None)),
            r#"{"type":"executing","data":{"node":null,"prompt_id":"p"}}"#
        );
        assert_eq!(
            said(&executing("p", Some("12:3"))),
            r#"{"type":"executing","data":{"node":"12:3","display_node":"12:3","prompt_id":"p"}}"#
        );
        assert_eq!(
            said(&progress("p", "3", 1, 20)),
            r#"{"type":"progress","data":{"value":1,"max":20,"prompt_id":"p","node":"3"}}"#
        );
        let step = Step { value: 1, max: 3, finished: false };
        let state: Value = serde_json::from_str(&said(&progress_state("p", [("3", step)]))).unwrap();
        let wanted = json!({"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"3": {
            "value": 1, "max": 3, "state": "running", "node_id": "3", "prompt_id": "p", "display_node_id": "3",
            "parent_node_id": null, "real_node_id": "3"}}}});
        assert_eq!(state, wanted);
    }

    #[test]
    fn frames_of_a_renderer_are_not_those_that_tell_whose_they_are() {
        for event in [3_u32, 7, 0x4d45_5348] {
            let frame = Bytes::from([&event.to_be_bytes()[..], b"words"].concat());
            let Some(Frame::Picture(relayed)) = Frame::relayed(frame.clone()) else { panic!("{event}") };
            assert_eq!(relayed, frame);
        }
        for frame in [&b"\0\0\0\x01\0\0\0\x02png"[..], b"\0\0\0\x04\0\0\0\0", b"\0\0", b""] {
            assert!(Frame::relayed(Bytes::from_static(frame)).is_none(), "{frame:?}");
        }
    }

    #[test]
    fn previews_in_both_formats() {
        let preview = Preview::new("p", "3", "image/jpeg", b"\xff\xd8jpeg");
        let Frame::Picture(plain) = preview.frame(false) else { panic!("a picture") };
        assert_eq!(&plain[..], b"\0\0\0\x01\0\0\0\x01\xff\xd8jpeg");
        let Frame::Picture(told) = preview.frame(true) else { panic!("a picture") };
        assert_eq!(&told[..4], [0, 0, 0, 4]);
        let length = u32::from_be_bytes(told[4..8].try_into().unwrap()) as usize;
        let metadata: Value = serde_json::from_slice(&told[8..8 + length]).unwrap();
        assert_eq!((&metadata["node_id"], &metadata["image_type"]), (&json!("3"), &json!("image/jpeg")));
        assert_eq!(&told[8 + length..], b"\xff\xd8jpeg");
        let Frame::Picture(png) = Preview::new("p", "3", "image/png", b"x").frame(false) else {
            panic!("a picture")
        };
        assert_eq!(&png[4..8], [0, 0, 0, 2]);
        assert_eq!(result_head("a_00001_.png"), [0, 0, 0, 1, 0, 0, 0, 2]);
    }
}
