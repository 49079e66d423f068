//! Which tasks wait for a renderer: those that nobody holds back, and whose sources are here.

use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::task::{InputFile, OnSuspect};

use super::{Jobs, Task, TaskState};
use crate::scheduler::batch;
use crate::scheduler::record::Recipe;

/// Indexes of tasks that wait for a renderer, by what they need of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    by_recipe: BTreeMap<u16, BTreeSet<u32>>,
}

impl Waiting {
    pub fn count(&self) -> usize {
        self.by_recipe.values().map(BTreeSet::len).sum()
    }

    pub fn recipes(&self) -> impl Iterator<Item = u16> {
        self.by_recipe.keys().copied()
    }

    pub fn of(&self, recipe: u16) -> impl Iterator<Item = u32> {
        self.by_recipe.get(&recipe).into_iter().flatten().copied()
    }

    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.by_recipe.values().flatten().copied()
    }

    fn insert(&mut self, recipe: u16, index: u32) {
        self.by_recipe.entry(recipe).or_default().insert(index);
    }

    fn remove(&mut self, recipe: u16, index: u32) {
        if let Some(waiting) = self.by_recipe.get_mut(&recipe) {
            waiting.remove(&index);
            if waiting.is_empty() {
                self.by_recipe.remove(&recipe);
            }
            if self.by_recipe.is_empty() {
                // A map that is emptied keeps its room, and jobs are remembered by the thousand.
                self.by_recipe = BTreeMap::new();
            }
        }
    }
}

impl Jobs {
    pub(super) fn pause(&mut self, tasks: &[TaskId], paused: bool) {
        for id in tasks {
            if let Some(task) = self.tasks.get_mut(id) {
                task.paused = paused;
                self.queue(id);
            }
        }
    }

    /// Whether the task waits for a renderer: nobody has it, nobody holds it back, and what it takes is here.
    pub(super) fn queue(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let waits = task.state == TaskState::Ready && !task.paused && self.blockers(task).next().is_none();
        let (job, index) = (task.job, task.index);
        let Some(job) = self.jobs.get_mut(&job) else { return };
        let waits = waits && job.is_ours_to_grant();
        let Some(recipe) = job.submission.tasks.get(index as usize).map(|plan| plan.recipe) else { return };
        if waits {
            job.ready.insert(recipe, index);
        } else {
            job.ready.remove(recipe, index);
        }
    }

    /// What its submitter wants done with a result that looks wrong.
    pub fn on_suspect(&self, task: &TaskId) -> OnSuspect {
        let job = self.task(task).and_then(|task| self.job(&task.job));
        job.map_or(OnSuspect::Keep, |job| job.on_suspect)
    }

    /// Tasks of open jobs that some node has failed.
    pub fn failed_and_open(&self) -> impl Iterator<Item = TaskId> {
        let jobs = self.open_jobs().filter_map(|job| self.job(&job));
        let tasks = jobs.flat_map(|job| &job.submission.tasks).map(|plan| plan.task);
        tasks.filter(|id| self.task(id).is_some_and(|task| task.state.is_open() && !task.failures.is_empty()))
    }

    /// Tasks whose results this one takes and that are not done.
    pub fn blockers<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = (TaskId, &'a Task)> {
        let job = self.jobs.get(&task.job);
        let stage = job.and_then(|job| batch::stage_of(&job.stages, task.index).map(|stage| (job, stage)));
        stage.into_iter().flat_map(move |(job, stage)| {
            let sources = stage.sources(&job.stages, task.index);
            sources.filter_map(move |source| {
                let id = job.submission.tasks.get(source.index as usize)?.task;
                Some((id, self.task(&id)?)).filter(|(_, task)| task.state != TaskState::Done)
            })
        })
    }

    /// Tasks that take a result of this one.
    pub(super) fn takers(&self, id: &TaskId) -> Vec<TaskId> {
        let Some(task) = self.tasks.get(id) else { return Vec::new() };
        let Some(job) = self.jobs.get(&task.job) else { return Vec::new() };
        let stages = &*job.stages;
        let Some(of) = stages.iter().position(|stage| stage.has(task.index)) else { return Vec::new() };
        let place = task.index - stages[of].first;
        let indexes = stages.iter().flat_map(|stage| stage.takers(stages, of, place));
        indexes.filter_map(|index| Some(job.submission.tasks.get(index as usize)?.task)).collect()
    }

    /// What must run again with these ended tasks: they, and whatever they build on that did not end well.
    pub fn to_retry(&self, tasks: &[TaskId]) -> Vec<TaskId> {
        let mut wanted = BTreeSet::new();
        let mut ahead = tasks.to_vec();
        while let Some(id) = ahead.pop() {
            let Some(task) = self.tasks.get(&id) else { continue };
            let again = matches!(task.state, TaskState::Failed | TaskState::Cancelled | TaskState::Skipped);
            if again && wanted.insert(id) {
                ahead.extend(self.blockers(task).map(|(id, _)| id));
            }
        }
        wanted.into_iter().collect()
    }

    /// What a task is made of: its recipe, with its own values in it and the results it takes among its inputs.
    ///
    /// # Errors
    /// A sentence, when a result that it takes is not there.
    pub fn recipe_of(&self, id: &TaskId) -> Option<Result<Recipe, String>> {
        let (_, _, recipe) = self.plan(id)?;
        let task = self.tasks.get(id)?;
        let job = self.jobs.get(&task.job)?;
        let Some(stage) = batch::stage_of(&job.stages, task.index) else { return Some(Ok(recipe.clone())) };
        let mut recipe = recipe.clone();
        for source in stage.sources(&job.stages, task.index) {
            let from =
                job.submission.tasks.get(source.index as usize).and_then(|plan| self.tasks.get(&plan.task));
            let outputs = from.and_then(|task| task.result.as_ref()).map(|result| &result.outputs);
            let files = outputs.into_iter().flatten().filter(|output| output.node == source.feed.node);
            let Some(file) = files.clone().nth(usize::from(source.feed.file)) else {
                let (node, index, has) = (&source.feed.node, source.index, files.count());
                return Some(Err(format!(
                    "it takes file {} of node {node} of task #{index}, which made {has} there",
                    source.feed.file
                )));
            };
            let (name, root, key, bytes) = (source.name, file.root, file.key.clone(), file.bytes);
            recipe.inputs.push(InputFile { name, root, key, bytes });
        }
        Some(stage.set_in(&mut recipe.graph, task.index).map(|()| recipe))
    }
}
