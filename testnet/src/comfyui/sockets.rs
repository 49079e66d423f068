//! Who listens: one socket per client id, as the real server keeps them, with its two quirks.
//!
//! A second socket with the same id replaces the first, which stays open and hears nothing more. And whichever of the two closes first
//! takes the entry with it, so that closing the *old* one silences the new one.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Frames a slow client may lag behind before it is dropped; a run of 10 000 steps makes about 30 000.
const LAG: usize = 65_536;

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Text(String),
    Binary(Bytes),
}

/// A text frame; `type` comes first, which some clients rely on.
pub(super) fn event(kind: &str, data: &Value) -> Frame {
    Frame::Text(json!({"type": kind, "data": data}).to_string())
}

#[derive(Debug)]
struct Socket {
    frames: mpsc::Sender<Frame>,
    preview_metadata: bool,
    muted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Sockets {
    by_sid: HashMap<String, Socket>,
}

impl Sockets {
    pub(super) fn open(&mut self, sid: &str) -> mpsc::Receiver<Frame> {
        let (frames, receiver) = mpsc::channel(LAG);
        self.by_sid.insert(sid.to_owned(), Socket { frames, preview_metadata: false, muted: false });
        receiver
    }

    pub(super) fn close(&mut self, sid: &str) {
        self.by_sid.remove(sid);
    }

    /// The client's answer to the feature flag handshake.
    pub(super) fn note_flags(&mut self, sid: &str, flags: &Value) {
        if let Some(socket) = self.by_sid.get_mut(sid) {
            socket.preview_metadata =
                flags.get("supports_preview_metadata").and_then(Value::as_bool).unwrap_or(false);
        }
    }

    /// Whether previews for this client are event 4 (with metadata) instead of event 1.
    pub(super) fn wants_preview_metadata(&self, sid: Option<&str>) -> bool {
        sid.and_then(|sid| self.by_sid.get(sid)).is_some_and(|socket| socket.preview_metadata)
    }

    /// To one client, or to everyone where there is no client id.
    pub(super) fn send(&mut self, sid: Option<&str>, frame: &Frame) {
        match sid {
            None => self.by_sid.retain(|_, socket| socket.deliver(frame)),
            Some(sid) => {
                if self.by_sid.get(sid).is_some_and(|socket| !socket.deliver(frame)) {
                    self.by_sid.remove(sid);
                }
            }
        }
    }

    /// Every socket that is open now delivers nothing more.
    pub(super) fn mute(&mut self) {
        for socket in self.by_sid.values_mut() {
            socket.muted = true;
        }
    }
}

impl Socket {
    fn deliver(&self, frame: &Frame) -> bool {
        self.muted || self.frames.try_send(frame.clone()).is_ok()
    }
}
