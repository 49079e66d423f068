//! How a job goes, on stderr: bars on a terminal, else lines that do not flood a log.

pub(crate) mod lines;

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use scenemesh_protocol::api::{JobView, TaskState, TaskView};
use tokio::time::Instant;

use crate::job_view;
use crate::messages::{Message, Word};
use crate::ui::{Tone, Ui, clip};

use self::lines::Lines;

/// More bars than this are counted, not drawn: a screen has about forty lines.
const MOST_BARS: usize = 12;

/// The bar takes what is left of the line: a line that wraps cannot be taken away again.
const WITH_STEPS: &str = "{prefix:18!} {wide_bar} {pos:>4}/{len:4} {eta:>4} {msg:12!}";
const WITHOUT_STEPS: &str = "{prefix:18!} {spinner} {elapsed:>5} {wide_msg}";

/// Shows a job as it goes.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    face: Face,
}

#[derive(Debug)]
enum Face {
    Bars(Bars),
    Lines(Lines),
}

impl<'a> Progress<'a> {
    pub(crate) fn new(ui: &'a Ui) -> Self {
        let face =
            if ui.stderr_is_terminal { Face::Bars(Bars::new()) } else { Face::Lines(Lines::default()) };
        Self { ui, face }
    }

    /// Anything may have changed.
    pub(crate) fn show(&mut self, job: &JobView) {
        match &mut self.face {
            Face::Bars(bars) => bars.show(job, self.ui),
            Face::Lines(lines) => {
                for message in lines.note(Instant::now(), job, self.ui.lang) {
                    self.ui.talk(&message);
                }
            }
        }
    }

    /// A line for people, above the bars.
    pub(crate) fn talk(&self, message: &Message) {
        let text = self.ui.text(message);
        match &self.face {
            // Drawing fails when the terminal went away; nobody is left to tell.
            Face::Bars(bars) => drop(bars.all.println(text)),
            Face::Lines(_) => self.ui.note(&text),
        }
    }

    /// Takes the bars away.
    pub(crate) fn end(&mut self) {
        if let Face::Bars(bars) = &self.face {
            drop(bars.all.clear());
        }
    }
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    tasks: BTreeMap<u32, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{bar:24} {pos}/{len} {wide_msg}"));
        total.enable_steady_tick(Duration::from_millis(500));
        Self { all, total, tasks: BTreeMap::new() }
    }

    fn show(&mut self, job: &JobView, ui: &Ui) {
        for task in &job.tasks {
            self.show_task(task, ui);
        }
        let count = |wanted: &dyn Fn(TaskState) -> bool| job.tasks.iter().filter(|t| wanted(t.state)).count();
        self.total.set_length(job.tasks.len() as u64);
        self.total.set_position(count(&TaskState::is_final) as u64);
        self.total.set_message(total_line(job, ui));
    }

    fn show_task(&mut self, task: &TaskView, ui: &Ui) {
        let busy = matches!(task.state, TaskState::Granted | TaskState::Running | TaskState::Fetching);
        if !busy {
            if let Some(bar) = self.tasks.remove(&task.index) {
                bar.finish_and_clear();
                self.all.remove(&bar);
                self.tell_end(task, ui);
            }
            return;
        }
        if !self.tasks.contains_key(&task.index) {
            if self.tasks.len() >= MOST_BARS {
                return;
            }
            let bar = ProgressBar::new(0).with_style(style(WITHOUT_STEPS));
            let bar = self.all.insert_before(&self.total, bar);
            bar.enable_steady_tick(Duration::from_millis(500));
            self.tasks.insert(task.index, bar);
        }
        let Some(bar) = self.tasks.get(&task.index) else { return };
        let node = task.node.as_ref().map(|node| clip(&node.name, 20)).unwrap_or_default();
        bar.set_prefix(format!("#{} {node}", task.index));
        let steps =
            task.progress.as_ref().filter(|progress| progress.max > 1 && task.state == TaskState::Running);
        if let Some(progress) = steps {
            bar.set_style(style(WITH_STEPS));
            // Steps of another node are another count, with another pace.
            if bar.length() != Some(progress.max.into()) || bar.position() > progress.step.into() {
                bar.set_length(progress.max.into());
                bar.reset_eta();
            }
            bar.set_position(progress.step.into());
        } else {
            bar.set_style(style(WITHOUT_STEPS));
        }
        let at = task.progress.as_ref().map(|progress| job_view::graph_node(progress, ui.lang));
        let words = match (task.state, at) {
            (TaskState::Running, Some(at)) => at,
            (state, _) => job_view::task_state(state, ui).to_owned(),
        };
        bar.set_message(words);
    }

    fn tell_end(&self, task: &TaskView, ui: &Ui) {
        let tone = match task.state {
            TaskState::Done => Tone::Good,
            TaskState::Failed => Tone::Bad,
            _ => Tone::Warn,
        };
        let line = ui.text(&lines::ended(task));
        drop(self.all.println(ui.painted_err(tone, &line)));
    }
}

/// What the whole job does, in a few words: who waits for what matters most.
fn total_line(job: &JobView, ui: &Ui) -> String {
    let count = |state| job.tasks.iter().filter(|task| task.state == state).count();
    let running = count(TaskState::Running) + count(TaskState::Granted) + count(TaskState::Fetching);
    let queued = count(TaskState::Queued);
    if running == 0
        && let Some(waiting) = job.tasks.iter().find_map(|task| task.waiting.as_deref())
    {
        return format!("{}: {}", ui.word(Word::Queued), clip(waiting, 200));
    }
    ui.text(&Message::TasksNow {
        running: u32::try_from(running).unwrap_or(u32::MAX),
        queued: u32::try_from(queued).unwrap_or(u32::MAX),
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |s| s.progress_chars("━╸─"))
}
