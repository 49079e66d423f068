//! What renderers signed that they removed after a task, and what they could not.

use std::collections::BTreeMap;

use scenemesh_protocol::api::{JobView, TaskState, TaskView, WipeView};

use crate::messages::{Lang, Message};
use crate::ui::{Tone, Ui, clip};

/// In the order in which people ask.
const KINDS: [&str; 5] = ["history", "inputs", "outputs", "temp", "cache"];

/// Prints one line per attempt whose renderer said something.
pub(crate) fn print(job: &JobView, ui: &Ui) {
    let said = job.tasks.iter().flat_map(|task| task.wipes.iter().map(move |wipe| (task, wipe)));
    for (at, (task, wipe)) in said.enumerate() {
        if at == 0 {
            ui.result("");
        }
        ui.result(&ui.text(&Message::Wiped {
            index: task.index,
            node: clip(&wipe.node, 60),
            wiped: counts(&wipe.wiped, ui.lang),
            left: counts(&wipe.left, ui.lang),
        }));
    }
}

/// Says loudly where a task that insists on leaving nothing may have left something.
pub(crate) fn warn(job: &JobView, ui: &Ui) {
    for task in job.tasks.iter().filter(|task| task.full_hygiene) {
        for wipe in task.wipes.iter().filter(|wipe| !wipe.left.is_empty()) {
            let left = counts(&wipe.left, ui.lang);
            say(ui, &Message::NotWiped { index: task.index, node: clip(&wipe.node, 60), left });
        }
        if let Some(node) = silent(task) {
            say(ui, &Message::NoWipe { index: task.index, node });
        }
    }
}

/// Who rendered a task and did not say what it removed.
fn silent(task: &TaskView) -> Option<String> {
    let node = task.node.as_ref().filter(|_| task.state == TaskState::Done && task.wipes.is_empty())?;
    Some(clip(&node.name, 60))
}

fn say(ui: &Ui, message: &Message) {
    ui.note(&ui.painted_err(Tone::Bad, &ui.text(message)));
}

/// `history 1, inputs 2`, or `nothing`.
fn counts(counts: &BTreeMap<String, u32>, lang: Lang) -> String {
    let told = KINDS.iter().filter_map(|kind| Some((kind, counts.get(*kind)?)));
    let told: Vec<_> = told.map(|(kind, count)| format!("{} {count}", name(kind, lang))).collect();
    if told.is_empty() { Message::Nothing.text(lang) } else { told.join(", ") }
}

fn name(kind: &'static str, lang: Lang) -> &'static str {
    match (lang, kind) {
        (Lang::En, kind) => kind,
        (Lang::Ko, "history") => "기록",
        (Lang::Ko, "inputs") => "입력",
        (Lang::Ko, "outputs") => "출력",
        (Lang::Ko, "temp") => "임시 파일",
        (Lang::Ko, _) => "캐시",
    }
}

/// As scripts have it.
pub(crate) fn json(wipe: &WipeView) -> serde_json::Value {
    serde_json::json!({
        "attempt": wipe.attempt,
        "node": wipe.node,
        "hygiene": wipe.hygiene,
        "wiped": wipe.wiped,
        "left": wipe.left,
    })
}
