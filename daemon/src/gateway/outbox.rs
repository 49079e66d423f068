//! What waits for one WebSocket client: bounded, so that a slow one holds up nobody and takes little memory.
//!
//! A client that falls behind loses previews and progress first, oldest first; one that does not even take what is
//! left is hung up on, and asks the history when it comes back, as it would with a ComfyUI.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::frames::Frame;

/// Frames, and bytes, from which on whatever can be missed is.
const SOFT_FRAMES: usize = 64;
const SOFT_BYTES: usize = 4 << 20;
/// Frames, and bytes, of things that cannot be missed: beyond them the client is gone.
const HARD_FRAMES: usize = 4096;
const HARD_BYTES: usize = 16 << 20;

/// PURE: the frames themselves.
#[derive(Debug, Default)]
struct Line {
    frames: VecDeque<Frame>,
    bytes: usize,
    over: bool,
}

impl Line {
    fn push(&mut self, frame: Frame) {
        if self.over {
            return;
        }
        self.bytes += frame.weight();
        self.frames.push_back(frame);
        while self.frames.len() > SOFT_FRAMES || self.bytes > SOFT_BYTES {
            let Some(at) = self.frames.iter().position(Frame::is_passing) else { break };
            if let Some(dropped) = self.frames.remove(at) {
                self.bytes -= dropped.weight();
            }
        }
        if self.frames.len() > HARD_FRAMES || self.bytes > HARD_BYTES {
            self.close();
        }
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.weight();
        Some(frame)
    }

    fn close(&mut self) {
        self.over = true;
        self.frames.clear();
        self.bytes = 0;
    }
}

/// The line of one client: the hub puts frames in, the client's own task takes them. Nothing waits under the lock.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    line: Mutex<Line>,
    more: Notify,
}

impl Outbox {
    pub(super) fn push(&self, frame: Frame) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        self.more.notify_one();
    }

    /// Lets nothing more through: the client is hung up on.
    pub(super) fn close(&self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).close();
        self.more.notify_one();
    }

    /// The next frame; `None` when the client is to be hung up on.
    pub(super) async fn next(&self) -> Option<Frame> {
        loop {
            {
                let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
                if line.over {
                    return None;
                }
                if let Some(frame) = line.pop() {
                    return Some(frame);
                }
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::gateway::frames;

    fn kinds(line: &mut Line) -> (usize, usize) {
        let frames: Vec<Frame> = std::iter::from_fn(|| line.pop()).collect();
        let passing = frames.iter().filter(|frame| frame.is_passing()).count();
        (frames.len() - passing, passing)
    }

    #[test]
    fn who_falls_behind_misses_previews_first_and_no_event() {
        let mut line = Line::default();
        for step in 0..500 {
            line.push(Frame::Picture(Bytes::from(vec![0; 40_000])));
            line.push(frames::progress("p", "3", step, 500));
            if step % 10 == 0 {
                line.push(frames::executing("p", Some("3")));
            }
        }
        assert!(line.frames.len() <= SOFT_FRAMES && line.bytes <= SOFT_BYTES);
        let Some(Frame::Passing(last)) = line.frames.iter().rfind(|frame| matches!(frame, Frame::Passing(_)))
        else {
            panic!("the newest progress stays")
        };
        assert!(last.contains("\"value\":499"), "{last}");
        let (events, passing) = kinds(&mut line);
        assert_eq!((events, passing), (50, SOFT_FRAMES - 50));
        assert_eq!(line.bytes, 0);
    }

    #[test]
    fn who_takes_nothing_at_all_is_hung_up_on() {
        let mut line = Line::default();
        for _ in 0..HARD_FRAMES {
            line.push(frames::status(1));
        }
        assert!(!line.over);
        line.push(frames::status(1));
        assert!(line.over && line.frames.is_empty());
        line.push(frames::status(1));
        assert!(line.frames.is_empty(), "nothing is collected for whoever is gone");
    }

    #[tokio::test]
    async fn a_closed_outbox_ends() {
        let outbox = Outbox::default();
        outbox.push(frames::status(1));
        assert!(outbox.next().await.is_some());
        outbox.close();
        assert!(outbox.next().await.is_none());
    }
}
