//! Server-sent events, as far as our daemon uses them: `data:` lines, ended by an empty line.
//! The format is of the HTML standard, section 9.2.6, "Interpreting an event stream".

/// Most bytes of one event: the largest job with all its words.
const EVENT_LIMIT: usize = 64 << 20;

/// Collects bytes, gives whole events.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
    data: String,
}

impl Lines {
    /// `None` when the event grows beyond all bounds.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes.extend_from_slice(bytes);
        (self.bytes.len() + self.data.len() <= EVENT_LIMIT).then_some(())
    }

    /// The data of the next whole event.
    pub(super) fn next_data(&mut self) -> Option<String> {
        loop {
            let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let line: Vec<u8> = self.bytes.drain(..=self.searched + end).collect();
            self.searched = 0;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if !self.data.is_empty() {
                    return Some(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_fall() {
        let stream =
            ": hello\n\nevent: task\ndata: {\"a\":\ndata: 1}\n\nid: 3\r\ndata:2\r\n\r\ndata: cut off";
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                lines.push(piece).unwrap();
                seen.extend(std::iter::from_fn(|| lines.next_data()));
            }
            assert_eq!(seen, ["{\"a\":\n1}", "2"], "pieces of {size}");
        }
    }
}
