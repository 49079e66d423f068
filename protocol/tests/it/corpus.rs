//! What the fuzzer kept, read again: `fuzz/corpus` holds one file per way through the decoders.

use std::fs;
use std::path::Path;

use crate::decode_any;

fn files(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let file = entry.unwrap().path();
            // A panic names no file: the last one printed is the one.
            println!("{}", file.display());
            fs::read(file).unwrap()
        })
        .collect();
    let bytes: usize = files.iter().map(Vec::len).sum();
    assert!((1..=300).contains(&files.len()) && bytes <= 1 << 20, "{} files, {bytes} bytes", files.len());
    files
}

#[test]
fn decode_message() {
    for bytes in files("decode_message") {
        decode_any::fuzz(&bytes);
    }
}

#[test]
fn readers() {
    for bytes in files("readers") {
        decode_any::read_any(&bytes);
    }
}
