//! Door for the fuzzer to a segment of the journal.

use super::format::{Ending, HEADER_LEN, Header, scan};

/// A segment's file: eight bytes of its position, then what follows its header.
pub(crate) fn journal(bytes: &[u8]) {
    // As it lies on a disk, whatever that did to it.
    let _ = Header::decode(bytes);
    let Some((start, entries)) = bytes.split_first_chunk() else { return };
    let header = Header { start: u64::from_le_bytes(*start), journal: [7; 16] };
    let file = [&header.encode()[..], entries].concat();
    let Ok(header) = Header::decode(&file) else { return };
    let scan = scan(&file, &header);
    assert!((HEADER_LEN..=file.len()).contains(&scan.good_len));
    assert_eq!(scan.ending == Ending::Clean, scan.good_len == file.len());
    assert!(scan.entries.iter().all(|entry| entry.body.end <= scan.good_len));
}
