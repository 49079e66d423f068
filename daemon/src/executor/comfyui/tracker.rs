//! What the frames of one prompt add up to: has it begun, how far is it, is it over. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::frames::{Frame, Picture};

/// What a frame meant for our prompt.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// Another's prompt, or nothing of interest.
    Nothing,
    /// Ours, and alive.
    Alive,
    Progress,
    /// Over; history has it now or in a moment.
    Ended,
    Picture {
        node: String,
        picture: Picture,
    },
    /// A frame that only the client may understand.
    Relayed(Bytes),
}

/// Most bytes of announced outputs that are kept, as JSON.
const OUTPUTS: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Tracker {
    prompt: String,
    total: u32,
    done: BTreeSet<String>,
    current: Option<String>,
    step: u32,
    max: u32,
    pub(super) started: bool,
    pub(super) succeeded: bool,
    /// Outputs of nodes as they were announced: what history would say, should somebody clear it.
    pub(super) outputs: Map<String, Value>,
    output_bytes: usize,
}

impl Tracker {
    pub(super) fn new(prompt: &str, nodes: usize) -> Self {
        Self {
            prompt: prompt.to_owned(),
            total: u32::try_from(nodes).unwrap_or(u32::MAX),
            done: BTreeSet::new(),
            current: None,
            step: 0,
            max: 0,
            started: false,
            succeeded: false,
            outputs: Map::new(),
            output_bytes: 0,
        }
    }

    pub(super) fn on_frame(&mut self, frame: Frame) -> Heard {
        match frame {
            Frame::Started { prompt } if prompt == self.prompt => {
                self.started = true;
                Heard::Alive
            }
            Frame::Cached { prompt, nodes } if prompt == self.prompt => {
                self.note_done(nodes);
                Heard::Alive
            }
            Frame::Finished { prompt, nodes } if prompt == self.prompt => {
                self.started = true;
                self.note_done(nodes);
                Heard::Alive
            }
            Frame::Executing { prompt, node: Some(node) } if prompt == self.prompt => {
                self.started = true;
                if self.current.as_ref() != Some(&node) {
                    let before = self.current.replace(node);
                    self.note_done(before);
                    (self.step, self.max) = (0, 0);
                }
                Heard::Progress
            }
            Frame::Executing { prompt, node: None } if prompt == self.prompt => Heard::Ended,
            Frame::Progress { prompt, node, value, max } if prompt.as_ref() == Some(&self.prompt) => {
                self.started = true;
                self.current = node.or(self.current.take());
                (self.step, self.max) = (value, max);
                Heard::Progress
            }
            Frame::Executed { prompt, node, output } if prompt == self.prompt => {
                self.note_done([node.clone()]);
                self.note_output(node, output);
                Heard::Alive
            }
            Frame::Ended { prompt, success } if prompt == self.prompt => {
                self.started = true;
                self.succeeded = success;
                Heard::Ended
            }
            Frame::Picture(picture) => self.on_picture(picture),
            // It names no prompt. Some extensions tell everybody: what comes before ours begins is not ours.
            Frame::Relayed(frame) if self.started => Heard::Relayed(frame),
            _ => Heard::Nothing,
        }
    }

    /// Nodes that are finished. Expanded graphs have more nodes than were posted, but not any number.
    fn note_done(&mut self, nodes: impl IntoIterator<Item = String>) {
        let room = (self.total as usize).saturating_mul(16).saturating_add(1024);
        for node in nodes {
            if self.done.len() < room {
                self.done.insert(node);
            }
        }
    }

    fn note_output(&mut self, node: String, output: Value) {
        let bytes = node.len() + output.to_string().len();
        if self.output_bytes + bytes <= OUTPUTS {
            self.output_bytes += bytes;
            self.outputs.insert(node, output);
        }
    }

    fn on_picture(&self, picture: Picture) -> Heard {
        let ours = picture.prompt.as_ref().is_none_or(|prompt| *prompt == self.prompt);
        let node = picture.node.clone().or_else(|| self.current.clone());
        match node {
            Some(node) if ours => Heard::Picture { node, picture },
            _ => Heard::Nothing,
        }
    }

    /// The node at work.
    pub(super) fn node(&self) -> String {
        self.current.clone().unwrap_or_default()
    }

    /// Steps of the node at work; (0, 0) when it has none.
    pub(super) fn steps(&self) -> (u32, u32) {
        (self.step, self.max)
    }

    /// Nodes finished, and nodes in the graph.
    pub(super) fn nodes(&self) -> (u32, u32) {
        let done = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        (done.min(self.total), self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::read_text;
    use super::*;

    /// The text frames of a recorded KSampler run (0.3.64), shortened.
    const RECORDED: &[&str] = &[
        r#"{"type":"status","data":{"status":{"exec_info":{"queue_remaining":1}}}}"#,
        r#"{"type":"execution_start","data":{"prompt_id":"p","timestamp":1}}"#,
        r#"{"type":"execution_cached","data":{"nodes":["4","5","6","7"],"prompt_id":"p"}}"#,
        r#"{"type":"executing","data":{"node":"3","display_node":"3","prompt_id":"p"}}"#,
        r#"{"type":"progress","data":{"value":1,"max":3,"prompt_id":"p","node":"3"}}"#,
        r#"{"type":"progress","data":{"value":2,"max":3,"prompt_id":"other","node":"3"}}"#,
        r#"{"type":"progress","data":{"value":2,"max":3,"prompt_id":"p","node":"3"}}"#,
        r#"{"type":"executing","data":{"node":"8","display_node":"8","prompt_id":"p"}}"#,
        r#"{"type":"executing","data":{"node":"9","display_node":"9","prompt_id":"p"}}"#,
        r#"{"type":"executed","data":{"node":"9","output":{"images":[{"filename":"a.png"}]},"prompt_id":"p"}}"#,
        r#"{"type":"execution_success","data":{"prompt_id":"p","timestamp":2}}"#,
    ];

    #[test]
    fn a_recorded_run_adds_up() {
        let mut tracker = Tracker::new("p", 7);
        let mut seen = Vec::new();
        for text in RECORDED {
            let heard = tracker.on_frame(read_text(text));
            seen.push((heard, tracker.node(), tracker.steps(), tracker.nodes().0));
        }
        let states: Vec<(&str, (u32, u32), u32)> =
            seen.iter().map(|(_, node, steps, done)| (node.as_str(), *steps, *done)).collect();
        assert_eq!(states[4], ("3", (1, 3), 4));
        assert_eq!(seen[5].0, Heard::Nothing);
        assert_eq!(states[6], ("3", (2, 3), 4));
        assert_eq!(states[8], ("9", (0, 0), 6));
        assert_eq!((&seen[10].0, tracker.nodes()), (&Heard::Ended, (7, 7)));
        assert!(tracker.started && tracker.succeeded);
        assert!(tracker.outputs.contains_key("9"));
    }

    #[test]
    fn pictures_belong_to_the_node_that_works_unless_they_say_otherwise() {
        let picture = |prompt: Option<&str>, node: Option<&str>| {
            let (prompt, node) = (prompt.map(str::to_owned), node.map(str::to_owned));
            Frame::Picture(Picture { prompt, node, format: "image/png", bytes: bytes::Bytes::new() })
        };
        let mut tracker = Tracker::new("p", 1);
        assert_eq!(tracker.on_frame(picture(None, None)), Heard::Nothing);
        tracker.on_frame(Frame::Executing { prompt: "p".into(), node: Some("3".into()) });
        assert!(matches!(tracker.on_frame(picture(None, None)), Heard::Picture { node, .. } if node == "3"));
        assert!(
            matches!(tracker.on_frame(picture(Some("p"), Some("5"))), Heard::Picture { node, .. } if node == "5")
        );
        assert_eq!(tracker.on_frame(picture(Some("other"), Some("5"))), Heard::Nothing);
    }
}
