//! The scheduler's views in the API's words.

use std::collections::HashMap;

use scenemesh_protocol::api::{
    Event, FailureView, JobState, JobView, LogLine, NodeRef, OutputView, ProgressView, ReachWords, Setting,
    TaskState, TaskView, UsageView, WipeCounts, WipeView,
};
use scenemesh_protocol::ids::{JobId, NodeId, TaskId};
use scenemesh_protocol::lease::Progress;
use scenemesh_protocol::receipt::{WipeCount, Wiped};
use scenemesh_protocol::task::{Failure, FailureClass, Reach};

use super::guard::Caller;
use super::{Node, korean};
use crate::clock;
use crate::membership;
use crate::messages::Lang;
use crate::scheduler::story::Why;
use crate::scheduler::{ResolveError, view as scheduler};

/// Shortest id that people are shown.
const SHORT: usize = 8;

/// All jobs of this node, newest first.
pub(super) async fn jobs(node: &Node) -> Vec<scheduler::JobView> {
    let mut jobs = node.ports.scheduler.jobs().await;
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.created_ms), job.job));
    jobs
}

/// One job. Its id is shortened against all others, its tasks' against each other.
pub(super) async fn job(node: &Node, id: JobId, caller: &Caller, lang: Lang) -> Option<JobView> {
    let job = node.ports.scheduler.show(id).await?;
    let mut view = job_view(node, &job, &Shorts::of(std::slice::from_ref(&job)), caller, lang);
    let whole = id.to_string();
    while view.short.len() < whole.len()
        && matches!(node.ports.scheduler.resolve(&view.short).await, Err(ResolveError::Ambiguous { .. }))
    {
        view.short = whole[..=view.short.len()].to_owned();
    }
    Some(view)
}

/// What kind of failure it was, in a word or two.
pub(super) fn failure_class(class: FailureClass, lang: Lang) -> String {
    match lang {
        Lang::En => class.words().to_owned(),
        Lang::Ko => korean::failure(&Failure::new(class, "")),
    }
}

/// How much of each id it takes to tell it from all others of its kind.
#[derive(Debug, Default)]
pub(super) struct Shorts {
    jobs: HashMap<JobId, usize>,
    tasks: HashMap<TaskId, usize>,
}

impl Shorts {
    pub(super) fn of(jobs: &[scheduler::JobView]) -> Self {
        Self {
            jobs: lengths(jobs.iter().map(|job| job.job)),
            tasks: lengths(jobs.iter().flat_map(|job| job.tasks.iter().map(|task| task.task))),
        }
    }

    fn job(&self, id: JobId) -> String {
        short(&id, self.jobs.get(&id))
    }

    fn task(&self, id: TaskId) -> String {
        short(&id, self.tasks.get(&id))
    }
}

fn short(id: &impl ToString, length: Option<&usize>) -> String {
    let mut text = id.to_string();
    text.truncate(length.copied().unwrap_or(SHORT));
    text
}

/// In sorted order only neighbours share the longest beginnings.
fn lengths<I: ToString + Copy + Eq + std::hash::Hash>(ids: impl Iterator<Item = I>) -> HashMap<I, usize> {
    let mut texts: Vec<(String, I)> = ids.map(|id| (id.to_string(), id)).collect();
    texts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let with =
        |at: usize, other: Option<&(String, I)>| other.map_or(0, |other| common(&texts[at].0, &other.0));
    (0..texts.len())
        .map(|at| {
            let before = at.checked_sub(1).and_then(|before| texts.get(before));
            let shared = with(at, before).max(with(at, texts.get(at + 1)));
            (texts[at].1, SHORT.max(shared + 1))
        })
        .collect()
}

/// A node as people know it.
pub(super) fn node_ref(node: &Node, id: NodeId) -> NodeRef {
    let roster = node.ports.membership.roster().borrow().clone();
    let member =
        roster.as_deref().and_then(|roster| roster.member(&id, clock::wall_ms()).map(|m| (roster, m)));
    match member {
        Some((roster, member)) => NodeRef {
            id,
            name: member.name.clone(),
            studio: Some(membership::studio_name(roster, &member.studio)),
        },
        None => NodeRef { id, name: id.short(), studio: None },
    }
}

pub(super) fn job_view(
    node: &Node,
    job: &scheduler::JobView,
    shorts: &Shorts,
    caller: &Caller,
    lang: Lang,
) -> JobView {
    let seen = caller.sees(&job.person);
    let project = job.project.map(|id| {
        let own = node.ports.membership.studio().borrow().clone();
        own.projects.get(&id).map_or_else(|| id.short(), |project| project.name.name.clone())
    });
    let task = |task| if seen { task_view(node, task, shorts, lang) } else { hidden_task(task, shorts) };
    JobView {
        job: job.job,
        short: shorts.job(job.job),
        label: if seen { job.label.clone() } else { String::new() },
        person: seen.then(|| job.person.clone()),
        project: project.filter(|_| seen),
        hidden: !seen,
        state: match job.state {
            scheduler::JobState::Queued => JobState::Queued,
            scheduler::JobState::Running => JobState::Running,
            scheduler::JobState::Done => JobState::Done,
            scheduler::JobState::Failed => JobState::Failed,
            scheduler::JobState::Cancelled => JobState::Cancelled,
        },
        class: job.class,
        reach: reach_words(node, &job.reach),
        created_ms: job.created_ms,
        kept_on: job.kept_on.clone(),
        kept_for: job.kept_for.clone(),
        tasks: job.tasks.iter().map(task).collect(),
    }
}

/// Somebody else's task: that it is there, and how it stands.
pub(super) fn hidden_task(task: &scheduler::TaskView, shorts: &Shorts) -> TaskView {
    TaskView {
        task: task.task,
        short: shorts.task(task.task),
        index: task.index,
        state: task_state(task.state),
        node: None,
        attempts: task.attempts,
        progress: None,
        outputs: Vec::new(),
        failures: Vec::new(),
        usage: UsageView::default(),
        waiting: None,
        waiting_code: None,
        full_hygiene: false,
        wipes: Vec::new(),
        varied: Vec::new(),
    }
}

const fn task_state(phase: scheduler::TaskPhase) -> TaskState {
    match phase {
        scheduler::TaskPhase::Queued => TaskState::Queued,
        scheduler::TaskPhase::Granted => TaskState::Granted,
        scheduler::TaskPhase::Running => TaskState::Running,
        scheduler::TaskPhase::Fetching => TaskState::Fetching,
        scheduler::TaskPhase::Done => TaskState::Done,
        scheduler::TaskPhase::Failed => TaskState::Failed,
        scheduler::TaskPhase::Cancelled => TaskState::Cancelled,
    }
}

pub(super) fn task_view(node: &Node, task: &scheduler::TaskView, shorts: &Shorts, lang: Lang) -> TaskView {
    let suspect = |index| task.suspects.iter().find(|suspect| suspect.output == index);
    let outputs = task.outputs.iter().zip(0_u32..).map(|(output, index)| OutputView {
        suspect: suspect(index).map(|suspect| match lang {
            Lang::En => suspect.why.to_string(),
            Lang::Ko => korean::suspicion(suspect.why),
        }),
        suspect_code: suspect(index).map(|suspect| suspect.why.code().to_owned()),
        index,
        node: output.node.clone(),
        kind: output.kind,
        filename: output.filename.clone(),
        bytes: output.bytes,
    });
    let failures = task.failures.iter().map(|(name, failure)| FailureView {
        node: name_in(name, lang),
        class: failure.class,
        why: match lang {
            Lang::En => failure.to_string(),
            Lang::Ko => korean::failure(failure),
        },
    });
    let named = task.node.map(|id| {
        let mut named = node_ref(node, id);
        // Whoever rendered it may have left the roster since.
        if named.studio.is_none() && !task.node_name.is_empty() {
            named.name = name_in(&task.node_name, lang);
        }
        named
    });
    let tells = task.state == scheduler::TaskPhase::Queued || matches!(task.why, Why::Skipped { .. });
    let waits = Some(&task.why).filter(|_| tells);
    TaskView {
        task: task.task,
        short: shorts.task(task.task),
        index: task.index,
        state: task_state(task.state),
        node: named,
        attempts: task.attempts,
        progress: task.progress.as_ref().map(progress_view),
        outputs: outputs.collect(),
        failures: failures.collect(),
        usage: UsageView { exec_ms: task.exec_ms, rgs_milli: None },
        waiting: waits.map(|why| self::why(why, lang)),
        waiting_code: waits.map(|why| why.code().to_owned()),
        full_hygiene: task.full_hygiene,
        wipes: task.wipes.iter().map(wipe_view).collect(),
        varied: task.varied.iter().map(setting).collect(),
    }
}

fn setting((path, value): &(String, String)) -> Setting {
    Setting { path: path.clone(), value: value.clone() }
}

fn wipe_view(wipe: &scheduler::WipeView) -> WipeView {
    let record = &wipe.record;
    WipeView {
        attempt: wipe.attempt,
        node: wipe.node_name.clone(),
        hygiene: record.hygiene,
        wiped: wipe_counts(&record.wiped),
        left: wipe_counts(&record.left),
    }
}

fn wipe_counts(counted: &[WipeCount]) -> WipeCounts {
    let mut counts = WipeCounts::default();
    for WipeCount { what, count } in counted {
        let of_kind = match what {
            Wiped::History => &mut counts.history,
            Wiped::Inputs => &mut counts.inputs,
            Wiped::Outputs => &mut counts.outputs,
            Wiped::Temp => &mut counts.temp,
            Wiped::Cache => &mut counts.cache,
        };
        *of_kind = of_kind.saturating_add(*count);
    }
    counts
}

pub(super) fn progress_view(progress: &Progress) -> ProgressView {
    ProgressView {
        node: progress.node.clone(),
        step: progress.step,
        max: progress.max,
        nodes_done: progress.nodes_done,
        nodes_total: progress.nodes_total,
    }
}

pub(super) fn log_line(line: &scheduler::LogLine, lang: Lang) -> LogLine {
    LogLine {
        at_ms: line.at_ms,
        task: Some(line.task),
        index: Some(line.index),
        text: match lang {
            Lang::En => line.line.to_string(),
            Lang::Ko => korean::line(&line.line),
        },
        code: line.line.code().into(),
    }
}

/// One sentence: why a job or task stands where it stands.
pub(super) fn why(why: &Why, lang: Lang) -> String {
    match lang {
        Lang::En => why.to_string(),
        Lang::Ko => korean::why(why),
    }
}

fn name_in(name: &str, lang: Lang) -> String {
    match lang {
        Lang::En => name.to_owned(),
        Lang::Ko => korean::name(name),
    }
}

/// A change as clients hear it; of somebody else's job only that a task stands elsewhere. A job is told whole, by
/// whoever can look it up.
pub(super) fn event(
    node: &Node,
    event: &scheduler::JobEvent,
    shorts: &Shorts,
    seen: bool,
    lang: Lang,
) -> Option<Event> {
    if !seen {
        let scheduler::JobEvent::Task { job, task } = event else { return None };
        return Some(Event::Task { job: *job, task: Box::new(hidden_task(task, shorts)) });
    }
    Some(match event {
        scheduler::JobEvent::Job { .. } | scheduler::JobEvent::Relayed { .. } => return None,
        scheduler::JobEvent::Task { job, task } => {
            Event::Task { job: *job, task: Box::new(task_view(node, task, shorts, lang)) }
        }
        scheduler::JobEvent::Progress { job, task, progress } => {
            Event::Progress { job: *job, task: *task, progress: progress_view(progress) }
        }
        scheduler::JobEvent::Preview { job, task } => Event::Preview { job: *job, task: *task },
        scheduler::JobEvent::Log { job, line } => Event::Log { job: *job, line: log_line(line, lang) },
    })
}

pub(super) fn reach_words(node: &Node, reach: &Reach) -> ReachWords {
    match reach {
        Reach::Machine => ReachWords::Machine,
        Reach::Studio => ReachWords::Studio,
        Reach::Pool => ReachWords::Pool,
        Reach::Studios(ids) => {
            let roster = node.ports.membership.roster().borrow().clone();
            let name =
                |id| roster.as_deref().map_or_else(|| format!("{id}"), |r| membership::studio_name(r, id));
            ReachWords::Studios(ids.iter().map(name).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_long_enough_to_tell_them_apart() {
        let id = |text: &str| text.parse::<JobId>().unwrap();
        let (a, b, c) = (
            id("3fa9c1d2aa0000000000000000000000"),
            id("3fa9c1d2ab0000000000000000000000"),
            id("77000000000000000000000000000000"),
        );
        let lengths = lengths([a, b, c].into_iter());
        let shown = |id| short(&id, lengths.get(&id));
        assert_eq!([a, b, c].map(shown), ["3fa9c1d2aa", "3fa9c1d2ab", "77000000"]);
    }
}
