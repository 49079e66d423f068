//! PURE: what the real server's answers show of its Python. How values are read and printed is the daemon's to know too,
//! and known once; recordings of the real server hold both to it.

use std::io;

pub(super) use scenemeshd::gateway::catalog::python::{
    Raised, float, int, is_less, item, repr, text, truth, type_name,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;

pub(super) const VERSION: &str = "3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]";

/// `json.dumps(value)`: a space after each separator, and ASCII only, so that it fits a PNG's Latin-1 text chunk.
pub(super) fn dumps(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    value.serialize(&mut serializer).expect("a JSON value is always written to memory");
    let text = String::from_utf8(out).expect("serde_json writes UTF-8");
    let mut ascii = String::with_capacity(text.len());
    for ch in text.chars() {
        if ch.is_ascii() {
            ascii.push(ch);
        } else {
            ascii.extend(ch.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(dumps(&json!({"a": [1, "é😀"], "b": {}})), r#"{"a": [1, "\u00e9\ud83d\ude00"], "b": {}}"#);
    }
}
