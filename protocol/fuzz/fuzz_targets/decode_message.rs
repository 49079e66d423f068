//! Bytes from a hostile peer: a type number, then a body.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/decode_any.rs"]
mod decode_any;

fuzz_target!(|bytes: &[u8]| decode_any::fuzz(bytes));
