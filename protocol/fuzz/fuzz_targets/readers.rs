//! Everything that reads bytes of strangers without a frame: envelopes, key files, invites, settings chains.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/decode_any.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod decode_any;

fuzz_target!(|bytes: &[u8]| decode_any::read_any(bytes));
