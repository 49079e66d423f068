//! PURE: how Python reads and prints values, where ComfyUI's answers show it.

use serde_json::{Number, Value};

/// An exception that ComfyUI would raise: its type's qualified name and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    pub kind: &'static str,
    pub text: String,
}

impl Raised {
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// `KeyError` of a dict that lacks a key.
    pub fn key(key: &Value) -> Self {
        Self::new("KeyError", repr(key))
    }
}

/// `str(value)`.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let mut out = String::from(quote);
            for c in text.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == quote => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            out.push(quote);
            out
        }
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", repr(&Value::from(key.as_str())), repr(value))
            };
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let text = format!("{float:?}");
    // Python writes an exponent with its sign and at least two digits.
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// The name of the type that a JSON value has in Python.
pub fn type_name(value: &Value) -> &'static str {
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
///
/// # Errors
/// The text of the exception, where Python raises one.
pub fn int(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            #[expect(clippy::cast_possible_truncation, reason = "as int() does; saturates beyond any input")]
            Some(float) => Ok(Value::from(float as i64)),
            None => Ok(value.clone()),
        },
        Value::Bool(truth) => Ok(Value::from(i64::from(*truth))),
        Value::String(text) => {
            let digits = text.trim().replace('_', "");
            let parsed = digits.parse::<u64>().map(Value::from);
            let parsed = parsed.or_else(|_| digits.parse::<i64>().map(Value::from));
            parsed.map_err(|_| format!("invalid literal for int() with base 10: {}", repr(value)))
        }
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

/// `float(value)`.
///
/// # Errors
/// The text of the exception, where Python raises one.
pub fn float(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => Ok(Value::from(number.as_f64().unwrap_or(f64::MAX))),
        Value::Bool(truth) => Ok(Value::from(f64::from(u8::from(*truth)))),
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
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// `items[index]` of a tuple; negative ones count from its end.
///
/// # Errors
/// The exception that Python raises for an index that it has not.
pub fn item<'a, T>(items: &'a [T], index: &Value) -> Result<&'a T, Raised> {
    let Some(index) = index.as_i64() else {
        let text = format!("tuple indices must be integers or slices, not {}", type_name(index));
        return Err(Raised::new("TypeError", text));
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let at = if index < 0 { index.saturating_add(length) } else { index };
    let found = usize::try_from(at).ok().and_then(|at| items.get(at));
    found.ok_or_else(|| Raised::new("IndexError", "tuple index out of range"))
}

/// `left < right` for two numbers, without losing the low digits of a 64-bit seed.
pub fn is_less(left: &Value, right: &Value) -> bool {
    let whole = |value: &Value| value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left < right,
        _ => left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| left < right),
    }
}

/// `left == right`: `1 == 1.0 == True`.
pub fn same(left: &Value, right: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    };
    left == right || number(left).is_some_and(|left| number(right) == Some(left))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_and_convert_as_in_python() {
        let all = json!(["a", "it's", "a\"'b", 1, 1.0, 1e16, 0.00001, true, null, {"k": []}]);
        let printed = r#"['a', "it's", 'a"\'b', 1, 1.0, 1e+16, 1e-05, True, None, {'k': []}]"#;
        assert_eq!(repr(&all), printed);
        assert_eq!(int(&json!(" 1_2 ")), Ok(json!(12)));
        assert_eq!(int(&json!("x")), Err("invalid literal for int() with base 10: 'x'".to_owned()));
        assert_eq!(float(&json!(1)).unwrap().to_string(), "1.0");
        assert!(is_less(&json!(18_446_744_073_709_551_614_u64), &json!(18_446_744_073_709_551_615_u64)));
        assert!(same(&json!(1), &json!(true)) && !same(&json!("1"), &json!(1)));
        assert_eq!(item(&[json!("A"), json!("B")], &json!(-1)), Ok(&json!("B")));
        assert_eq!(item::<Value>(&[], &json!(i64::MIN)).unwrap_err().kind, "IndexError");
    }
}
