//! Reads ComfyUI's long answers and keeps only what is wanted. Pure.
//!
//! History and queue carry whole graphs of whoever uses that ComfyUI: read as JSON values they would take many times
//! their bytes in memory. What is not wanted is passed over as it is read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::client::{Queue, Queued};

/// Most rows that are taken from a list of prompts; a queue of that many is nobody's work.
const MOST_ROWS: usize = 20_000;

/// The entry of one prompt in an answer of `/history/{id}`: its outputs and its status.
///
/// # Errors
/// When the answer is not an object of entries.
pub(super) fn history_entry(body: &[u8], prompt_id: &str) -> Result<Option<Value>, serde_json::Error> {
    whole(body, Entries { wanted: prompt_id })
}

/// Ids and `extra_data` of the entries in an answer of `/history`.
///
/// # Errors
/// When the answer is not an object of entries.
pub(super) fn history_rows(body: &[u8]) -> Result<Vec<Queued>, serde_json::Error> {
    whole(body, Prompts)
}

/// An answer of `/queue`; none when it lacks one of its lists.
///
/// # Errors
/// When the answer is not an object.
pub(super) fn queue(body: &[u8]) -> Result<Option<Queue>, serde_json::Error> {
    whole(body, Lists)
}

fn whole<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = seed.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// What is visited as an object.
macro_rules! objects {
    ($($seed:ty => $value:ty),*) => {$(
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
                from.deserialize_map(self)
            }
        }
    )*};
}

objects!(Entries<'_> => Option<Value>, Prompts => Vec<Queued>, Lists => Option<Queue>);

struct Entries<'a> {
    wanted: &'a str,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of history entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.wanted {
                found = Some(map.next_value_seed(Kept)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Outputs and status of an entry; what is no object counts as an empty entry.
struct Kept;

impl<'de> DeserializeSeed<'de> for Kept {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let mut parts = json!({});
        for (key, value) in from.deserialize_any(Parts(&["outputs", "status"]))? {
            parts[key] = value;
        }
        Ok(parts)
    }
}

/// Named members of an object; none of what is not an object.
struct Parts(&'static [&'static str]);

impl<'de> Visitor<'de> for Parts {
    type Value = Vec<(&'static str, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.iter().find(|wanted| **wanted == key) {
                Some(wanted) if kept.len() < self.0.len() => kept.push((*wanted, map.next_value()?)),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(kept)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
}

struct Prompts;

impl<'de> Visitor<'de> for Prompts {
    type Value = Vec<Queued>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of history entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while map.next_key::<IgnoredAny>()?.is_some() {
            if rows.len() < MOST_ROWS {
                rows.extend(map.next_value_seed(PromptOf)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(rows)
    }
}

/// The row under `prompt` of an entry.
struct PromptOf;

impl<'de> DeserializeSeed<'de> for PromptOf {
    type Value = Option<Queued>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PromptOf {
    type Value = Option<Queued>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a history entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut row = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "prompt" && row.is_none() {
                row = map.next_value_seed(Row)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(row)
    }
}

/// `[number, prompt_id, prompt, extra_data, outputs, …]`
struct Row;

impl<'de> DeserializeSeed<'de> for Row {
    type Value = Option<Queued>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row {
    type Value = Option<Queued>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of the queue")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let number = seq.next_element::<IgnoredAny>()?;
        let prompt_id = seq.next_element::<Value>()?;
        let graph = seq.next_element::<IgnoredAny>()?;
        let extra_data = if graph.is_some() { seq.next_element::<Value>()? } else { None };
        if extra_data.is_some() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(match (number, prompt_id) {
            (Some(_), Some(Value::String(prompt_id))) => {
                Some(Queued { prompt_id, extra_data: extra_data.unwrap_or_default() })
            }
            _ => None,
        })
    }
}

struct Lists;

impl<'de> Visitor<'de> for Lists {
    type Value = Option<Queue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the two lists of the queue")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut running, mut pending) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "queue_running" => running = Some(map.next_value_seed(Rows)?),
                "queue_pending" => pending = Some(map.next_value_seed(Rows)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(running.zip(pending).map(|(running, pending)| Queue { running, pending }))
    }
}

struct Rows;

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Vec<Queued>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<Queued>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows of the queue")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        loop {
            if rows.len() >= MOST_ROWS {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(rows);
                }
            } else {
                match seq.next_element_seed(Row)? {
                    Some(row) => rows.extend(row),
                    None => return Ok(rows),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_entry_outputs_and_status_are_kept() {
        let body = json!({
            "other": {"prompt": [1, "other", {}, {}, []], "outputs": {"1": {}}},
            "p": {"prompt": [2, "p", {"3": {"class_type": "X"}}, {}, ["3"]], "outputs": {"9": {"text": ["a"]}},
                "status": {"status_str": "success"}, "meta": {}},
        });
        let body = body.to_string();
        let entry = history_entry(body.as_bytes(), "p").unwrap().unwrap();
        assert_eq!(entry, json!({"outputs": {"9": {"text": ["a"]}}, "status": {"status_str": "success"}}));
        assert_eq!(history_entry(body.as_bytes(), "q").unwrap(), None);
        assert_eq!(history_entry(b"{}", "p").unwrap(), None);
        assert_eq!(history_entry(br#"{"p": 5}"#, "p").unwrap(), Some(json!({})));
        assert!(history_entry(b"[]", "p").is_err());
        assert!(history_entry(b"{} {}", "p").is_err());
    }

    #[test]
    fn rows_are_read_whatever_follows_the_id() {
        let body = json!({"queue_running": [[66, "a", {"12:3": {}}, {"client_id": "c"}, ["9"], {"secret": 1}]],
            "queue_pending": [[67, "b"], [68, 5], [], [69, "c", {}]]});
        let read = queue(body.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(read.running, [Queued { prompt_id: "a".into(), extra_data: json!({"client_id": "c"}) }]);
        let pending: Vec<_> = read.pending.iter().map(|row| row.prompt_id.as_str()).collect();
        assert_eq!(pending, ["b", "c"]);
        assert_eq!(queue(br#"{"queue_running": []}"#).unwrap(), None);
        assert!(queue(b"[]").is_err());
        let history =
            json!({"x": {"prompt": [1, "a", {}, {"k": 1}, []], "outputs": {}}, "y": {"status": {}}});
        let rows = history_rows(history.to_string().as_bytes()).unwrap();
        assert_eq!(rows, [Queued { prompt_id: "a".into(), extra_data: json!({"k": 1}) }]);
    }

    #[test]
    fn an_endless_queue_is_read_to_its_end_and_kept_in_part() {
        let rows = vec!["[1,\"a\",{}]"; MOST_ROWS + 100].join(",");
        let body = format!("{{\"queue_running\":[{rows}],\"queue_pending\":[]}}");
        assert_eq!(queue(body.as_bytes()).unwrap().unwrap().running.len(), MOST_ROWS);
    }
}
