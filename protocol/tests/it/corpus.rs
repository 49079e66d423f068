//! What the fuzzer kept, read again: `fuzz/corpus` holds one file per way through the decoders.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use crate::decode_any;

fn replay(target: &str, read: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().path();
        let input = fs::read(&file).unwrap();
        (files, bytes) = (files + 1, bytes + input.len());
        assert!(catch_unwind(|| read(&input)).is_ok(), "{} makes it panic", file.display());
    }
    assert!((1..=300).contains(&files) && bytes <= 1 << 20, "{files} files, {bytes} bytes");
}

#[test]
fn decode_message() {
    replay("decode_message", decode_any::fuzz);
}

#[test]
fn readers() {
    replay("readers", decode_any::read_any);
}
