//! What people are told: views of jobs and tasks, and why each stands where it stands.

use scenemesh_protocol::ids::{JobId, TaskId};
use scenemesh_protocol::lease::Progress;
use scenemesh_protocol::task::Failure;

use super::jobs::{AttemptState, Job, Task, TaskState};
use super::{Requester, results};
use crate::scheduler::batch;
use crate::scheduler::conversation::Now;
use crate::scheduler::placement::WhyNot;
use crate::scheduler::story::{Doing, Held, Why};
use crate::scheduler::view::{JobState, JobView, OpenTasks, TaskPhase, TaskView, WipeView};

/// So many nodes are named in one sentence.
const NODES_NAMED: usize = 12;
/// Silence shorter than this is not worth a word.
const SILENT_S: u64 = 6;

impl Requester {
    pub fn job_view(&self, now: Now, id: JobId) -> Option<JobView> {
        let job = self.jobs.job(&id)?;
        let submission = &job.submission;
        // Tasks that only wait, wait for the same: a job can have thousands of them.
        let mut waiting: Option<Why> = None;
        let mut view = |task: TaskId| {
            let known = self.jobs.task(&task)?;
            let plain = known.state == TaskState::Ready
                && job.stages.is_empty()
                && !known.paused
                && known.failures.is_empty()
                && !self.promised.contains_key(&task);
            let why = if plain {
                waiting.get_or_insert_with(|| self.why_waiting(task, known)).clone()
            } else {
                self.why(now, task)?
            };
            self.task_view_with(task, why)
        };
        let tasks: Vec<TaskView> = submission.tasks.iter().filter_map(|plan| view(plan.task)).collect();
        Some(JobView {
            job: id,
            label: submission.label.clone(),
            person: submission.person.clone(),
            state: JobState::of(tasks.iter().map(|task| task.state)),
            class: submission.class,
            reach: submission.reach.clone(),
            project: submission.project,
            created_ms: submission.created_ms,
            kept_on: job.deputy.map(|node| self.name(node)),
            kept_for: job.origin().map(|node| self.name(node)),
            tasks,
        })
    }

    /// A job's state alone, without its tasks' views.
    pub fn job_state(&self, id: JobId) -> Option<JobState> {
        let job = self.jobs.job(&id)?;
        let ids = job.submission.tasks.iter().map(|plan| plan.task);
        let phases = ids.filter_map(|id| Some((id, self.jobs.task(&id)?)));
        Some(JobState::of(phases.map(|(id, task)| self.phase(id, task))))
    }

    /// How many tasks of open jobs wait for a renderer, and how many one has.
    pub fn open_tasks(&self) -> OpenTasks {
        let jobs = self.jobs.open_jobs().filter_map(|id| self.jobs.job(&id));
        // Others' that are only held here are counted by their origins.
        let jobs = jobs.filter(|job| job.is_ours_to_grant());
        let plans = jobs.flat_map(|job| &job.submission.tasks);
        let states = plans.filter_map(|plan| Some(self.jobs.task(&plan.task)?.state));
        states.filter(|state| state.is_open()).fold(OpenTasks::default(), |mut open, state| {
            let counted = if state == TaskState::Ready { &mut open.queued } else { &mut open.running };
            *counted += 1;
            open
        })
    }

    pub fn task_view(&self, now: Now, id: TaskId) -> Option<TaskView> {
        self.task_view_with(id, self.why(now, id)?)
    }

    fn task_view_with(&self, id: TaskId, why: Why) -> Option<TaskView> {
        let task = self.jobs.task(&id)?;
        let held = match task.state {
            TaskState::Held(attempt) => Some(attempt),
            _ => None,
        };
        let holder = held.and_then(|attempt| task.attempts.get(attempt)).map(|attempt| attempt.node);
        let node = holder.or(task.result.as_ref().map(|result| result.node));
        let contact = held.and_then(|attempt| self.contacts.get(&(id, attempt)));
        let result = task.result.as_ref();
        Some(TaskView {
            task: id,
            job: task.job,
            index: task.index,
            state: self.phase(id, task),
            node,
            node_name: node.map(|node| self.name(node)).unwrap_or_default(),
            attempts: u32::try_from(task.attempts.len()).unwrap_or(u32::MAX),
            progress: contact.and_then(|contact| contact.progress.clone()),
            outputs: result.map(|result| result.outputs.clone()).unwrap_or_default(),
            failures: self.failures(task),
            exec_ms: result.map(|result| result.exec_ms),
            why,
            ended_ms: task.ended_ms,
            full_hygiene: self.jobs.plan(&id).is_some_and(|(_, _, recipe)| recipe.shape.full_hygiene),
            varied: self.varied(task),
            suspects: result.map(|result| result.suspects.clone()).unwrap_or_default(),
            wipes: self.wipes(task),
        })
    }

    /// How far the renderer of a task is, by its last report.
    pub fn progress_of(&self, id: TaskId) -> Option<(JobId, Progress)> {
        let task = self.jobs.task(&id)?;
        let TaskState::Held(attempt) = task.state else { return None };
        Some((task.job, self.contacts.get(&(id, attempt))?.progress.clone()?))
    }

    fn wipes(&self, task: &Task) -> Vec<WipeView> {
        let wiped = task.attempts.iter().filter_map(|(number, attempt)| {
            let record = attempt.wipe.clone()?;
            Some(WipeView { attempt: number, node_name: self.name(attempt.node), record })
        });
        wiped.collect()
    }

    /// What its varied inputs are set to: `NODE.INPUT` and JSON.
    fn varied(&self, task: &Task) -> Vec<(String, String)> {
        let job = self.jobs.job(&task.job);
        let stage = job.and_then(|job| batch::stage_of(&job.stages, task.index));
        let values = stage.into_iter().flat_map(|stage| stage.choice(task.index).1);
        values.map(|(path, value)| (path.to_owned(), value.to_owned())).collect()
    }

    fn failures(&self, task: &Task) -> Vec<(String, Failure)> {
        task.failures.iter().map(|(node, failure)| (self.name(*node), failure.clone())).collect()
    }

    fn phase(&self, id: TaskId, task: &Task) -> TaskPhase {
        match task.state {
            TaskState::Ready => TaskPhase::Queued,
            TaskState::Done => TaskPhase::Done,
            TaskState::Failed => TaskPhase::Failed,
            TaskState::Cancelled | TaskState::Skipped => TaskPhase::Cancelled,
            TaskState::Held(attempt) => {
                let contact = self.contacts.get(&(id, attempt));
                if contact.is_some_and(|contact| contact.fetch.is_some()) {
                    return TaskPhase::Fetching;
                }
                let granted = task.attempts.get(attempt);
                match granted.map(|attempt| &attempt.state) {
                    Some(AttemptState::Granted(_)) => TaskPhase::Granted,
                    _ => TaskPhase::Running,
                }
            }
        }
    }

    /// Why a task stands where it stands.
    pub fn why(&self, now: Now, id: TaskId) -> Option<Why> {
        let task = self.jobs.task(&id)?;
        Some(match task.state {
            TaskState::Ready => self.why_waiting(id, task),
            TaskState::Held(attempt) => self.why_held(now, id, task, attempt),
            TaskState::Cancelled => Why::Cancelled,
            TaskState::Skipped => self.why_skipped(task),
            TaskState::Done => task.result.as_ref().map_or(Why::AllDone { tasks: 1 }, |result| Why::Done {
                node: self.name(result.node),
                exec_ms: result.exec_ms,
            }),
            TaskState::Failed => Why::Failed { failures: self.failures(task) },
        })
    }

    fn why_held(&self, now: Now, id: TaskId, task: &Task, number: u32) -> Why {
        let Some(attempt) = task.attempts.get(number) else { return Why::Waits };
        let node = self.name(attempt.node);
        let Some(contact) = self.contacts.get(&(id, number)) else {
            return Why::Held { node, at: Held::Somehow, silent_s: None };
        };
        let at = match (&contact.fetch, &attempt.state) {
            (Some(results::Fetch { trouble: Some(why), again: Some(_), .. }), _) => {
                Held::FetchBroke { why: why.clone() }
            }
            (Some(_), _) => Held::Fetching,
            (None, _) if self.is_with_deputy(&id, number) => Held::ByDeputy,
            (None, AttemptState::Granted(_)) => Held::Granted,
            (None, _) => {
                contact.progress.as_ref().map_or(Held::Accepted, |progress| Held::At(Doing::of(progress)))
            }
        };
        let silent = now.at.saturating_duration_since(contact.heard).as_secs();
        let silent_s = Some(silent).filter(|silent| *silent >= SILENT_S && contact.fetch.is_none());
        Why::Held { node, at, silent_s }
    }

    /// The task that it builds on, and that ended otherwise than well.
    fn why_skipped(&self, task: &Task) -> Why {
        let mut blockers = self.jobs.blockers(task);
        let ended = blockers.find(|(_, on)| !on.state.is_open());
        ended.map_or(Why::Cancelled, |(_, on)| Why::Skipped {
            on: on.index,
            failed: on.state == TaskState::Failed,
        })
    }

    fn why_waiting(&self, id: TaskId, task: &Task) -> Why {
        if task.paused {
            return Why::Paused;
        }
        if let Some(deputy) = self.held_for(&task.job) {
            return Why::AsksDeputy { node: self.name(deputy) };
        }
        if let Some(origin) =
            self.jobs.job(&task.job).and_then(Job::origin).filter(|_| !self.may_grant(task.job))
        {
            return Why::KeptFor { node: self.name(origin) };
        }
        let mut blockers = self.jobs.blockers(task);
        if let Some((_, on)) = blockers.next() {
            return Why::BuildsOn { on: on.index, more: blockers.count() };
        }
        if let Some(promise) = self.promised.get(&id) {
            return Why::Claimed { node: self.name(promise.node) };
        }
        let reservations = self.reservations.get(&task.job).into_iter().flatten();
        let places: Vec<_> = reservations
            .filter(|(node, _)| self.up.contains_key(*node))
            .map(|(node, reservation)| (self.name(*node), reservation.place()))
            .collect();
        if places.is_empty() { self.why_nobody(task) } else { Why::InLine { places } }
    }

    fn why_nobody(&self, task: &Task) -> Why {
        if self.shapes_of(task.job).next().is_none() {
            return Why::Waits;
        }
        if self.nodes.nodes.is_empty() {
            return Why::NoNodes;
        }
        let outside = self.barred.get(&self.nodes.me);
        let mut reasons = Vec::new();
        for node in self.nodes.nodes.keys() {
            match self.fit_of(task, *node) {
                Err(why) => reasons.push((self.name(*node), why)),
                Ok(()) => return Why::BehindOthers,
            }
        }
        if let Some(words) = outside {
            return Why::Outside { words: words.clone() };
        }
        // What is closest to working comes first: reach is a wall, a refusal passes.
        reasons.sort_by_key(|(_, why)| match why {
            WhyNot::SaidNo(_) => 0,
            WhyNot::OutOfReach(_) | WhyNot::OutOfProject(_) | WhyNot::NotOfProject => 2,
            _ => 1,
        });
        let missing = reasons.iter().find_map(|(_, why)| match why {
            WhyNot::LacksModels { first, .. } => Some(first.clone()),
            _ => None,
        });
        let elsewhere = missing.and_then(|model| {
            let holders: Vec<String> = self.nodes.holders(&model).into_iter().map(str::to_owned).collect();
            (!holders.is_empty()).then_some((model, holders))
        });
        let more = reasons.len().saturating_sub(NODES_NAMED);
        reasons.truncate(NODES_NAMED);
        Why::Nobody { reasons, more, elsewhere }
    }
}
