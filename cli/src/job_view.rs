//! A job as people and as scripts see it.

use std::collections::BTreeMap;

use scenemesh_protocol::api::{
    FailureView, JobState, JobView, OutputView, ProgressView, Setting, TaskState, TaskView,
};
use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::Class;
use serde_json::{Value, json};

use crate::human;
use crate::messages::{Lang, Word};
use crate::save;
use crate::ui::{Table, Tone, Ui, clip};
use crate::wipes;

/// Where outputs were saved, by task and position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<(TaskId, u32), String>);

impl Places {
    pub(crate) fn note(&mut self, task: &TaskView, output: &OutputView, path: String) {
        self.0.insert((task.task, output.index), path);
    }

    pub(crate) fn get(&self, task: &TaskView, output: &OutputView) -> Option<&str> {
        self.0.get(&(task.task, output.index)).map(String::as_str)
    }
}

/// The names that scripts rely on. An output's `path` is where it was saved, else where `fetch` would save it below
/// its `--out`; its `saved` tells which.
pub(crate) fn json(job: &JobView, places: &Places) -> Value {
    let names = save::file_names(job);
    let output = |task: &TaskView, output: &OutputView| {
        let saved = places.get(task, output);
        let path = saved.map(str::to_owned).or_else(|| names.get(&(task.index, output.index)).cloned());
        json!({
            "path": path,
            "bytes": output.bytes,
            "kind": output.kind,
            "saved": saved.is_some(),
            "filename": output.filename,
            "index": output.index,
            "graph_node": output.node,
            "suspect": output.suspect_code,
        })
    };
    let task = |task: &TaskView| {
        json!({
            "task": task.task,
            "state": task.state,
            "node": task.node.as_ref().map(|node| node.name.as_str()),
            "attempts": task.attempts,
            "outputs": task.outputs.iter().map(|o| output(task, o)).collect::<Vec<_>>(),
            "usage": task.usage,
            "index": task.index,
            "node_id": task.node.as_ref().map(|node| node.id),
            "studio": task.node.as_ref().and_then(|node| node.studio.as_deref()),
            "progress": task.progress,
            "failures": task.failures,
            "waiting": task.waiting,
            "waiting_code": task.waiting_code,
            "full_hygiene": task.full_hygiene,
            "wipes": task.wipes.iter().map(wipes::json).collect::<Vec<_>>(),
            "varied": task.varied.iter().map(value).collect::<serde_json::Map<_, _>>(),
        })
    };
    json!({
        "job": job.job,
        "state": job.state,
        "tasks": job.tasks.iter().map(task).collect::<Vec<_>>(),
        "short": job.short,
        "label": job.label,
        "person": job.person,
        "project": job.project,
        "hidden": job.hidden,
        "class": class(job.class),
        "reach": job.reach,
        "created_ms": job.created_ms,
        "kept_on": job.kept_on,
        "kept_for": job.kept_for,
    })
}

/// What a varied input is set to.
fn value(varied: &Setting) -> (String, Value) {
    let value = serde_json::from_str(&varied.value).unwrap_or_else(|_| Value::from(varied.value.as_str()));
    (varied.path.clone(), value)
}

/// How many of its tasks a person holds back.
pub(crate) fn paused(job: &JobView) -> usize {
    job.tasks.iter().filter(|task| task.waiting_code.as_deref() == Some("paused")).count()
}

/// Prints a job and its tasks.
pub(crate) fn print(job: &JobView, places: &Places, ui: &Ui) {
    let mut head = Table::fields();
    head.field(ui.word(Word::Job), format!("{}  {}", job.short, clip(label(job, ui), 60)));
    if let Some(project) = &job.project {
        head.field(ui.word(Word::Project), clip(project, 60));
    }
    head.row([
        (ui.word(Word::State), Some(Tone::Faint)),
        (job_state(job.state, ui), Some(job_tone(job.state))),
    ]);
    head.field(ui.word(Word::Reach), job.reach.to_string());
    head.field(ui.word(Word::Class), class(job.class));
    head.field(ui.word(Word::Submitted), human::utc(job.created_ms));
    for (word, node) in [(Word::KeptOn, &job.kept_on), (Word::KeptFor, &job.kept_for)] {
        if let Some(node) = node {
            head.field(ui.word(word), clip(node, 60));
        }
    }
    ui.table(&head);
    ui.result("");
    ui.table(&tasks(job, places, ui));
}

/// What the job is called, as far as one may know.
pub(crate) fn label<'a>(job: &'a JobView, ui: &Ui) -> &'a str {
    if job.hidden { ui.word(Word::SomebodysJob) } else { &job.label }
}

fn tasks(job: &JobView, places: &Places, ui: &Ui) -> Table {
    let words = [Word::Task, Word::State, Word::Node, Word::Attempts, Word::Time, Word::Output];
    let mut table = Table::new(&words.map(|word| ui.word(word)));
    for task in &job.tasks {
        let cells = [
            format!("#{} {}", task.index, task.short),
            task_state(task.state, ui).to_owned(),
            task.node.as_ref().map_or_else(|| "-".to_owned(), |node| node.name.clone()),
            task.attempts.to_string(),
            task.usage.exec_ms.map_or_else(|| "-".to_owned(), human::span_ms),
        ];
        let mut notes = notes(task, places, ui.lang).into_iter();
        let first = notes.next().unwrap_or_default();
        let tone = task_tone(task.state);
        let row = cells.iter().enumerate().map(|(at, text)| (text.as_str(), (at == 1).then_some(tone)));
        table.row(row.chain([(first.as_str(), None)]));
        for note in notes {
            table.row([("", None), ("", None), ("", None), ("", None), ("", None), (note.as_str(), None)]);
        }
    }
    table
}

/// The last column: what came of it, or why not yet.
fn notes(task: &TaskView, places: &Places, lang: Lang) -> Vec<String> {
    let outputs = task.outputs.iter().map(|output| {
        let name = places.get(task, output).map_or_else(|| clip(&output.filename, 80), str::to_owned);
        let suspect = output.suspect.as_ref().map(|why| format!("  ! {}", clip(why, 80)));
        format!("{name}  {}{}", human::bytes(output.bytes), suspect.unwrap_or_default())
    });
    let failures = task.failures.iter().map(failure);
    let progress =
        task.progress.as_ref().filter(|_| task.state == TaskState::Running).map(|at| progress(at, lang));
    let waiting = task.waiting.clone().filter(|_| !task.state.is_final() || task.failures.is_empty());
    let varied = task.varied.iter().map(|varied| format!("{}={}", varied.path, varied.value));
    let varied = Some(varied.collect::<Vec<_>>().join("  ")).filter(|text| !text.is_empty());
    let varied = varied.map(|text| clip(&text, 80));
    let came = match task.state {
        TaskState::Done => outputs.collect::<Vec<_>>(),
        _ => outputs.chain(progress).chain(waiting).chain(failures).collect(),
    };
    came.into_iter().chain(varied).collect()
}

/// `ws-02: out of memory: …`.
pub(crate) fn failure(failure: &FailureView) -> String {
    let why = clip(&failure.why, 400);
    if failure.node.is_empty() { why } else { format!("{}: {why}", failure.node) }
}

/// `node 3 10/20  (5/7)`: the graph's node at work, its step of how many, nodes done of how many.
pub(crate) fn progress(progress: &ProgressView, lang: Lang) -> String {
    let steps = if progress.max > 1 { format!(" {}/{}", progress.step, progress.max) } else { String::new() };
    let nodes = if progress.nodes_total > 0 {
        format!("  ({}/{})", progress.nodes_done, progress.nodes_total)
    } else {
        String::new()
    };
    format!("{}{steps}{nodes}", graph_node(progress, lang))
}

/// `node 3`.
pub(crate) fn graph_node(progress: &ProgressView, lang: Lang) -> String {
    let word = Word::Node.text(lang);
    if progress.node.is_empty() { word.to_owned() } else { format!("{word} {}", clip(&progress.node, 40)) }
}

/// Of a whole task, in percent, as well as ComfyUI lets us know: each node of the graph counts the same.
pub(crate) fn percent(progress: &ProgressView) -> u32 {
    let within = u64::from(progress.step.min(progress.max)) * 100 / u64::from(progress.max.max(1));
    if progress.nodes_total == 0 {
        return u32::try_from(within).unwrap_or(100);
    }
    let whole = (u64::from(progress.nodes_done) * 100 + within) / u64::from(progress.nodes_total);
    u32::try_from(whole.min(100)).unwrap_or(100)
}

/// As scripts have it.
pub(crate) const fn class(class: Class) -> &'static str {
    match class {
        Class::Urgent => "urgent",
        Class::Normal => "normal",
        Class::Batch => "batch",
    }
}

pub(crate) fn job_state(state: JobState, ui: &Ui) -> &'static str {
    ui.word(match state {
        JobState::Queued => Word::Queued,
        JobState::Running => Word::Running,
        JobState::Done => Word::Done,
        JobState::Failed => Word::Failed,
        JobState::Cancelled => Word::Cancelled,
    })
}

pub(crate) const fn job_tone(state: JobState) -> Tone {
    match state {
        JobState::Queued => Tone::Faint,
        JobState::Running => Tone::Busy,
        JobState::Done => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Cancelled => Tone::Warn,
    }
}

pub(crate) fn task_state(state: TaskState, ui: &Ui) -> &'static str {
    ui.word(match state {
        TaskState::Queued => Word::Queued,
        TaskState::Granted => Word::Granted,
        TaskState::Running => Word::Running,
        TaskState::Fetching => Word::Fetching,
        TaskState::Done => Word::Done,
        TaskState::Failed => Word::Failed,
        TaskState::Cancelled => Word::Cancelled,
    })
}

const fn task_tone(state: TaskState) -> Tone {
    match state {
        TaskState::Queued => Tone::Faint,
        TaskState::Granted | TaskState::Running | TaskState::Fetching => Tone::Busy,
        TaskState::Done => Tone::Good,
        TaskState::Failed => Tone::Bad,
        TaskState::Cancelled => Tone::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_counts_nodes_and_the_steps_within() {
        let at = |step, max, nodes_done, nodes_total| {
            percent(&ProgressView { node: String::new(), step, max, nodes_done, nodes_total })
        };
        assert_eq!(at(10, 20, 0, 0), 50);
        assert_eq!(at(10, 20, 2, 4), 62);
        assert_eq!(at(0, 0, 0, 0), 0);
        assert_eq!(at(9, 3, 9, 3), 100);
    }
}
