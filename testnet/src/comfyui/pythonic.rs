//! PURE: how Python reads and prints values, where the real server's answers show it.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Number, Value};

pub(super) const VERSION: &str = "3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]";

/// An exception that the real server would raise: its qualified type name and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    pub(super) kind: &'static str,
    pub(super) text: String,
}

impl Raised {
    pub(super) fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// `str(value)`.
pub(super) fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
            let escaped = if quote == '\'' { escaped.replace('\'', "\\'") } else { escaped };
            format!("{quote}{escaped}{quote}")
        }
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{}: {}", repr(&Value::from(key.as_str())), repr(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => format!("{float:?}"),
        _ => number.to_string(),
    }
}

/// The name of the type that a JSON value has in Python.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// `int(value)`.
pub(super) fn int(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => match number.as_f64() {
            // Truncation towards zero is what int() does; the cast saturates far outside any input's range.
            Some(float) if number.is_f64() => Ok(Value::from(float as i64)),
            _ => Ok(value.clone()),
        },
        Value::Bool(flag) => Ok(Value::from(i64::from(*flag))),
        Value::String(text) => {
            let digits = text.trim().replace('_', "");
            let parsed =
                digits.parse::<u64>().map(Value::from).or_else(|_| digits.parse::<i64>().map(Value::from));
            parsed.map_err(|_| format!("invalid literal for int() with base 10: {}", repr(value)))
        }
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

/// `float(value)`.
pub(super) fn float(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => Ok(Value::from(number.as_f64().unwrap_or(f64::MAX))),
        Value::Bool(flag) => Ok(Value::from(f64::from(u8::from(*flag)))),
        Value::String(text) => {
            let parsed = text.trim().parse::<f64>();
            parsed.map(Value::from).map_err(|_| format!("could not convert string to float: {}", repr(value)))
        }
        other => {
            Err(format!("float() argument must be a string or a real number, not '{}'", type_name(other)))
        }
    }
}

/// `bool(value)`.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// `items[index]` of a tuple; negative ones count from its end.
pub(super) fn item<'a, T>(items: &'a [T], index: &Value) -> Result<&'a T, Raised> {
    let Some(index) = index.as_i64() else {
        let text = format!("tuple indices must be integers or slices, not {}", type_name(index));
        return Err(Raised::new("TypeError", text));
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let at = if index < 0 { index + length } else { index };
    let found = usize::try_from(at).ok().and_then(|at| items.get(at));
    found.ok_or_else(|| Raised::new("IndexError", "tuple index out of range"))
}

/// `left < right` for two numbers, without losing the low digits of a 64-bit seed.
pub(super) fn is_less(left: &Value, right: &Value) -> bool {
    let whole = |value: &Value| value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left < right,
        _ => left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| left < right),
    }
}

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
    fn values_print_and_convert_as_in_python() {
        assert_eq!(repr(&json!(["a", "it's", 1, 1.0, true, null])), r#"['a', "it's", 1, 1.0, True, None]"#);
        assert_eq!(int(&json!("12")), Ok(json!(12)));
        assert_eq!(int(&json!("x")), Err("invalid literal for int() with base 10: 'x'".to_owned()));
        assert_eq!(float(&json!(1)).unwrap().to_string(), "1.0");
        assert!(is_less(&json!(18_446_744_073_709_551_614_u64), &json!(18_446_744_073_709_551_615_u64)));
        assert_eq!(dumps(&json!({"a": [1, "é😀"], "b": {}})), r#"{"a": [1, "\u00e9\ud83d\ude00"], "b": {}}"#);
    }
}
