//! Bytes from a hostile peer: a type number, then a body. Whatever decodes must encode to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/decode_any.rs"]
mod decode_any;

fuzz_target!(|bytes: &[u8]| {
    decode_any::read_any(bytes);
    let Some((kind, body)) = bytes.split_first_chunk() else { return };
    // A small number picks a type, so that the fuzzer need not guess the numbers.
    let kinds = decode_any::kinds();
    let given = u16::from_le_bytes(*kind);
    let kind = kinds.get(usize::from(given)).map_or(given, |(_, kind, _)| *kind);
    if let Ok(frame) = decode_any::decode_any(kind, body) {
        assert!(frame.ends_with(body), "type {kind:#06x} has two encodings of one value");
    }
});
