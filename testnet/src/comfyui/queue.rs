//! PURE: the queue and the history, with the real one's order and shapes.

use serde_json::{Map, Number, Value, json};

/// A prompt as the queue holds it; on the wire it is the tuple `[number, id, prompt, extra_data, outputs_to_execute]`.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) number: Number,
    pub(super) id: String,
    pub(super) prompt: Value,
    pub(super) extra_data: Map<String, Value>,
    pub(super) outputs: Vec<String>,
}

impl Item {
    pub(super) fn client_id(&self) -> Option<&str> {
        self.extra_data.get("client_id").and_then(Value::as_str)
    }

    fn rank(&self) -> f64 {
        self.number.as_f64().unwrap_or(f64::MAX)
    }

    fn tuple(&self) -> Value {
        json!([self.number, self.id, self.prompt, self.extra_data, self.outputs])
    }
}

/// Entries kept before the oldest goes, as in the real one.
const HISTORY: usize = 10_000;
/// What the real server removes from `extra_data` before it stores it.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Next first: lowest number, then lowest id.
    pending: Vec<Item>,
    running: Option<Item>,
    history: Map<String, Value>,
    counter: i64,
    pub(super) unload_models: bool,
    pub(super) free_memory: bool,
}

impl Queue {
    /// The number for a prompt that did not bring its own. A prompt for the front gets a negative one; the count goes on.
    pub(super) fn next_number(&mut self, front: bool) -> Number {
        let number = self.counter;
        self.counter += 1;
        Number::from(if front { -number } else { number })
    }

    pub(super) fn put(&mut self, item: Item) {
        let after = |other: &Item| {
            let order = other.rank().total_cmp(&item.rank()).then_with(|| other.id.cmp(&item.id));
            order.is_gt()
        };
        let at = self.pending.iter().position(after).unwrap_or(self.pending.len());
        self.pending.insert(at, item);
    }

    pub(super) fn take(&mut self) -> Option<Item> {
        if self.pending.is_empty() {
            return None;
        }
        let item = self.pending.remove(0);
        self.running = Some(item.clone());
        Some(item)
    }

    /// Moves the running prompt into the history.
    pub(super) fn done(&mut self, outputs: Value, meta: Value, status: Value) {
        let Some(mut item) = self.running.take() else { return };
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.keys().next().cloned()
        {
            self.history.shift_remove(&oldest);
        }
        for secret in SECRETS {
            item.extra_data.shift_remove(secret);
        }
        let entry = json!({"prompt": item.tuple(), "outputs": outputs, "status": status, "meta": meta});
        self.history.insert(item.id, entry);
    }

    pub(super) fn is_running(&self, id: &str) -> bool {
        self.running.as_ref().is_some_and(|item| item.id == id)
    }

    pub(super) fn remaining(&self) -> usize {
        self.pending.len() + usize::from(self.running.is_some())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.unload_models && !self.free_memory
    }

    /// Drops what waits and says what it was.
    pub(super) fn clear(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn delete(&mut self, id: &str) -> Option<Item> {
        let at = self.pending.iter().position(|item| item.id == id)?;
        Some(self.pending.remove(at))
    }

    pub(super) fn forget(&mut self, id: &str) -> bool {
        self.history.shift_remove(id).is_some()
    }

    pub(super) fn forget_all(&mut self) -> Vec<String> {
        std::mem::take(&mut self.history).into_iter().map(|(id, _)| id).collect()
    }

    /// `GET /queue`.
    pub(super) fn view(&self) -> Value {
        let running: Vec<Value> = self.running.iter().map(Item::tuple).collect();
        let pending: Vec<Value> = self.pending.iter().map(Item::tuple).collect();
        json!({"queue_running": running, "queue_pending": pending})
    }

    /// `GET /history`: without an offset, `max_items` means the newest.
    pub(super) fn history(&self, max_items: Option<i64>, offset: i64) -> Value {
        let count = i64::try_from(self.history.len()).unwrap_or(i64::MAX);
        let from = match max_items {
            Some(max) if offset < 0 => count - max,
            _ => offset,
        };
        let skip = usize::try_from(from).unwrap_or(0);
        let take = max_items.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(1).max(1));
        let chosen = self.history.iter().skip(skip).take(take);
        Value::Object(chosen.map(|(id, entry)| (id.clone(), entry.clone())).collect())
    }

    pub(super) fn history_of(&self, id: &str) -> Value {
        self.history.get(id).map_or_else(|| json!({}), |entry| json!({id: entry}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: i64, id: &str) -> Item {
        let (prompt, extra_data) = (json!({}), Map::new());
        Item { number: number.into(), id: id.to_owned(), prompt, extra_data, outputs: Vec::new() }
    }

    #[test]
    fn lower_numbers_go_first_and_front_is_negative() {
        let mut queue = Queue::default();
        for (id, front) in [("a", false), ("b", false), ("c", true)] {
            let number = queue.next_number(front).as_i64().unwrap();
            queue.put(item(number, id));
        }
        let order: Vec<String> = std::iter::from_fn(|| queue.take().map(|item| item.id)).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[test]
    fn history_gives_the_newest_and_loses_secrets() {
        let mut queue = Queue::default();
        for id in ["a", "b", "c"] {
            let mut item = item(0, id);
            item.extra_data.insert("api_key_comfy_org".to_owned(), json!("secret"));
            queue.put(item);
            queue.take().unwrap();
            queue.done(json!({}), json!({}), json!(null));
        }
        let newest = queue.history(Some(2), -1);
        assert_eq!(newest.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(!newest.to_string().contains("secret"));
        assert_eq!(queue.history(None, -1).as_object().unwrap().len(), 3);
        assert_eq!(queue.history(Some(1), 0).as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);
    }
}
