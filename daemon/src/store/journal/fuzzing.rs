//! Door for the fuzzer to a segment of the journal.

use super::format::{HEADER_LEN, Header, Scan, raw_entries, scan, without_losses};

/// A segment's file: eight bytes of its position, then what follows its header.
pub(crate) fn journal(bytes: &[u8]) {
    // As it lies on a disk, whatever that did to it.
    let _ = Header::decode(bytes);
    let Some((start, entries)) = bytes.split_first_chunk() else { return };
    let header = Header { start: u64::from_le_bytes(*start), journal: [7; 16], jumps: true };
    let file = [&header.encode()[..], entries].concat();
    let Ok(header) = Header::decode(&file) else { return };
    let found = scan(&file, &header);
    assert!((HEADER_LEN..=file.len()).contains(&found.good_len));
    assert_eq!(found.torn, found.good_len < file.len());
    assert!(found.entries.iter().all(|entry| entry.body.end <= found.good_len));
    assert!(found.entries.is_sorted_by(|a, b| a.end() <= b.at.0), "positions only grow");
    assert!(raw_entries(&file, &header).all(|entry| entry.body.end <= file.len()));
    let mended = without_losses(&file, &header, &found, found.end);
    let again = scan(&mended, &header);
    assert!(again.lost.is_empty() && !again.torn && again.end == found.end);
    let told = |scan: &Scan| -> Vec<_> {
        scan.entries.iter().map(|entry| (entry.at, entry.kind, entry.crc)).collect()
    };
    assert_eq!(told(&again), told(&found), "mending changes nothing that reads");
}
