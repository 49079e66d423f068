//! What renderers signed that they removed after a task, and what they could not.

use scenemesh_protocol::api::{JobView, TaskState, TaskView, WipeCounts, WipeView};

use crate::messages::{Lang, Message};
use crate::ui::{Tone, Ui, clip};

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
        for wipe in task.wipes.iter().filter(|wipe| !wipe.left.is_nothing()) {
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
fn counts(counts: &WipeCounts, lang: Lang) -> String {
    let WipeCounts { history, inputs, outputs, temp, cache } = *counts;
    let names = match lang {
        Lang::En => ["history", "inputs", "outputs", "temp", "cache"],
        Lang::Ko => ["기록", "입력", "출력", "임시 파일", "캐시"],
    };
    let all = names.into_iter().zip([history, inputs, outputs, temp, cache]);
    let told: Vec<_> =
        all.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if told.is_empty() { Message::Nothing.text(lang) } else { told.join(", ") }
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
