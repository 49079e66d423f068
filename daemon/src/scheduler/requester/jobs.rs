//! Our jobs as the journal has them: what a task is, which attempts it had, where they stand.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scenemesh_protocol::codec::{self, Message};
use scenemesh_protocol::ids::{ClaimId, ContentHash, JobId, NodeId, TaskId};
use scenemesh_protocol::lease::{BlobRef, Grant, RefusalReason};
use scenemesh_protocol::receipt::WipeRecord;
use scenemesh_protocol::task::{Class, Failure, FailureClass, OnSuspect, OutputFile};

use crate::scheduler::Id;
use crate::scheduler::batch::{Batch, Stage};
use crate::scheduler::record::{Recipe, RequesterRecord, Submission, TaskPlan};
use crate::scheduler::suspicion::Suspect;

mod attempts;
mod keeping;
mod waiting;

pub use attempts::Attempts;
pub use keeping::Kept;
pub use waiting::Waiting;

/// Most bytes of a wipe's body.
const WIPE_LIMIT: usize = <WipeRecord as Message>::LIMIT;
/// So many different nodes that fail a task fail it for good.
const NODES_THAT_FAIL_A_TASK: usize = 3;
/// A task under which ComfyUI dies this often, wherever that is, does not get another one to kill.
const DEATHS_THAT_FAIL_A_TASK: usize = 3;

/// All jobs. Changed by [`Jobs::apply`] only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Both boxed: a third of a map's places are empty, and jobs are remembered by the thousand.
    jobs: BTreeMap<JobId, Box<Job>>,
    tasks: BTreeMap<TaskId, Box<Task>>,
    /// Jobs with tasks that are not closed, most urgent first, then oldest.
    open: BTreeSet<(Reverse<Class>, u64, JobId)>,
    /// Blobs that are ours, inputs and results, and how often they are named.
    named: BTreeMap<ContentHash, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Without graphs, and without recipes that name no input, once all tasks are done.
    pub submission: Arc<Submission>,
    pub stages: Arc<[Stage]>,
    pub on_suspect: OnSuspect,
    /// Tasks that wait for a renderer.
    pub ready: Waiting,
    /// Tasks that have not ended.
    pub open: u32,
    /// Who holds it as well, and may grant while we are away.
    pub deputy: Option<NodeId>,
    /// Who held it until it had ended.
    pub last_deputy: Option<NodeId>,
    /// It is another node's, held here.
    pub kept: Option<Box<Kept>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub job: JobId,
    /// Place in the job, from 0.
    pub index: u32,
    pub state: TaskState,
    pub attempts: Attempts,
    /// Failures since the task was submitted or last retried.
    pub failures: Vec<(NodeId, Failure)>,
    /// Nodes that must not have it again.
    pub barred: BTreeSet<NodeId>,
    /// It ran out of memory on a GPU with this many MiB.
    pub more_vram_than_mib: Option<u32>,
    /// A person wants it not to begin.
    pub paused: bool,
    pub result: Option<TaskResult>,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResult {
    pub node: NodeId,
    pub outputs: Vec<OutputFile>,
    pub exec_ms: u64,
    /// Those of its files that look wrong.
    pub suspects: Vec<Suspect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Waits for a renderer.
    Ready,
    /// One attempt has it.
    Held(u32),
    Done,
    Failed,
    Cancelled,
    /// A task that it builds on failed or was cancelled.
    Skipped,
}

impl TaskState {
    pub fn is_open(self) -> bool {
        matches!(self, Self::Ready | Self::Held(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub node: NodeId,
    pub claim: ClaimId,
    pub grant_hash: ContentHash,
    /// What its renderer fetches; none when it is over.
    pub roots: Vec<BlobRef>,
    pub state: AttemptState,
    /// What its renderer has signed that it removed afterwards, and what not.
    pub wipe: Option<Arc<WipeRecord>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// The grant is written down; whether the renderer has it is not known. The same bytes are sent again.
    Granted(Arc<Grant>),
    Running,
    /// Its lease ran out; a late result is still taken.
    Lost,
    Over(Over),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Stored,
    Refused(RefusalReason),
    /// The renderer did not have it any more.
    Unheld,
    Failed(FailureClass),
    Cancelled,
    /// Another attempt was first.
    Superseded,
}

fn inputs_of(job: &Job) -> impl Iterator<Item = ContentHash> {
    job.submission.recipes.iter().flat_map(|recipe| &recipe.inputs).map(|input| input.root)
}

fn results_of(task: &Task) -> impl Iterator<Item = ContentHash> {
    task.result.iter().flat_map(|result| &result.outputs).map(|output| output.root)
}

impl Attempt {
    /// Whether a result of it would be taken.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, AttemptState::Over(_))
    }

    fn set_state(&mut self, state: AttemptState) {
        self.state = state;
        if !self.is_live() {
            self.roots = Vec::new();
        }
    }
}

impl Jobs {
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id).map(|job| &**job)
    }

    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(|task| &**task)
    }

    pub fn attempt(&self, task: &TaskId, attempt: u32) -> Option<&Attempt> {
        self.tasks.get(task)?.attempts.get(attempt)
    }

    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().map(|job| &**job)
    }

    /// Jobs with tasks that have not ended, in the order in which they are served.
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> {
        self.open.iter().map(|(_, _, job)| *job)
    }

    /// Jobs and tasks whose id begins like this, in hexadecimal; none for what cannot begin one, or nothing.
    pub fn ids_from(&self, prefix: &str) -> Vec<Id> {
        if prefix.is_empty() || prefix.len() > 32 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Vec::new();
        }
        let bound = |digit: &str| {
            let whole = prefix.to_owned() + &digit.repeat(32 - prefix.len());
            u128::from_str_radix(&whole, 16).ok().map(u128::to_be_bytes)
        };
        let (Some(from), Some(to)) = (bound("0"), bound("f")) else { return Vec::new() };
        let jobs = self.jobs.range(JobId::from_bytes(from)..=JobId::from_bytes(to));
        let tasks = self.tasks.range(TaskId::from_bytes(from)..=TaskId::from_bytes(to));
        let tasks = tasks.map(|(task, known)| Id::Task { job: known.job, task: *task });
        jobs.map(|(job, _)| Id::Job(*job)).chain(tasks).collect()
    }

    /// Attempts of open jobs that may still bring a result.
    pub fn live_attempts(&self) -> impl Iterator<Item = (TaskId, u32, &Attempt)> {
        let plans = self.open_jobs().filter_map(|job| self.jobs.get(&job));
        let tasks = plans.flat_map(|job| job.submission.tasks.iter().map(|plan| plan.task));
        tasks.filter_map(|id| Some((id, self.tasks.get(&id)?))).flat_map(|(id, task)| {
            let live = task.attempts.iter().filter(|(_, attempt)| attempt.is_live());
            live.map(move |(number, attempt)| (id, number, attempt))
        })
    }

    pub fn plan(&self, id: &TaskId) -> Option<(&Submission, TaskPlan, &Recipe)> {
        let task = self.tasks.get(id)?;
        let submission = &*self.jobs.get(&task.job)?.submission;
        let plan = submission.tasks.get(task.index as usize)?;
        Some((submission, *plan, submission.recipes.get(usize::from(plan.recipe))?))
    }

    /// Whether a blob is an input or a result of a job of ours.
    pub fn names(&self, root: &ContentHash) -> bool {
        self.named.contains_key(root)
    }

    /// Every blob to be kept: results, inputs of tasks that may still run, and whatever a live attempt may still fetch.
    pub fn roots(&self) -> BTreeSet<ContentHash> {
        let live =
            self.live_attempts().flat_map(|(_, _, attempt)| attempt.roots.iter().map(|blob| blob.root));
        let results = self.tasks.values().flat_map(|task| results_of(task));
        let unfinished = self.jobs().filter(|job| {
            let mut tasks = job.submission.tasks.iter().filter_map(|plan| self.tasks.get(&plan.task));
            tasks.any(|task| task.state != TaskState::Done)
        });
        live.chain(results).chain(unfinished.flat_map(inputs_of)).collect()
    }

    /// Jobs all of whose tasks ended before this wall time.
    pub fn ended_before(&self, before_ms: u64) -> Vec<JobId> {
        let ended_ms = |job: &Job| {
            let tasks = job.submission.tasks.iter().filter_map(|plan| self.tasks.get(&plan.task));
            tasks.filter_map(|task| task.ended_ms).max().unwrap_or(job.submission.created_ms)
        };
        let ended = self.jobs.iter().filter(|(_, job)| job.open == 0 && ended_ms(job) < before_ms);
        ended.map(|(id, _)| *id).collect()
    }

    /// All tasks, and whether they may still change.
    pub fn all_tasks(&self) -> impl Iterator<Item = (TaskId, bool)> {
        self.tasks.iter().map(|(id, task)| (*id, task.state.is_open()))
    }

    /// Inputs and results of one job.
    pub fn roots_of(&self, id: &JobId) -> BTreeSet<ContentHash> {
        let Some(job) = self.jobs.get(id) else { return BTreeSet::new() };
        let tasks = job.submission.tasks.iter().filter_map(|plan| self.tasks.get(&plan.task));
        inputs_of(job).chain(tasks.flat_map(|task| results_of(task))).collect()
    }

    /// Jobs go whole; an input that another job has too stays named. Open ones stay: whoever wrote the record knew of
    /// none.
    fn forget(&mut self, jobs: &[JobId]) {
        for id in jobs {
            if self.jobs.get(id).is_none_or(|job| job.open > 0) {
                continue;
            }
            let Some(job) = self.jobs.remove(id) else { continue };
            inputs_of(&job).for_each(|root| self.unname(root));
            for plan in &job.submission.tasks {
                let Some(task) = self.tasks.remove(&plan.task) else { continue };
                results_of(&task).for_each(|root| self.unname(root));
            }
        }
    }

    fn name(&mut self, root: ContentHash) {
        *self.named.entry(root).or_default() += 1;
    }

    fn unname(&mut self, root: ContentHash) {
        if let Entry::Occupied(mut known) = self.named.entry(root) {
            *known.get_mut() -= 1;
            if *known.get() == 0 {
                known.remove();
            }
        }
    }

    /// Changes the state as a record says. Total: what does not fit is ignored, so that no journal stops a start.
    pub fn apply(&mut self, record: &RequesterRecord) {
        match record {
            RequesterRecord::Submitted(submission) => self.submitted(submission, &[], OnSuspect::Keep),
            RequesterRecord::SubmittedBatch(batch) => {
                let Batch { submission, stages, on_suspect } = &**batch;
                self.submitted(submission, stages, *on_suspect);
            }
            RequesterRecord::Suspected { task, suspects } => {
                if let Some(result) = self.tasks.get_mut(task).and_then(|known| known.result.as_mut()) {
                    result.suspects.clone_from(suspects);
                }
            }
            RequesterRecord::GivenUp { task, at_ms } => {
                if self.tasks.get(task).is_some_and(|known| known.state == TaskState::Ready) {
                    self.close(task, TaskState::Failed, Over::Superseded, *at_ms);
                }
            }
            RequesterRecord::Paused { tasks, .. } => self.pause(tasks, true),
            RequesterRecord::Resumed { tasks, .. } => self.pause(tasks, false),
            RequesterRecord::Granted { task, attempt, node, claim, grant, roots, .. } => {
                let state = AttemptState::Granted(Arc::new((**grant).clone()));
                let grant_hash = grant.terms.hash();
                let roots = roots.clone();
                let new = Attempt { node: *node, claim: *claim, grant_hash, roots, state, wipe: None };
                if let Some(known) = self.tasks.get_mut(task) {
                    known.attempts.insert(*attempt, new);
                    self.set_state(task, TaskState::Held(*attempt), None);
                }
            }
            RequesterRecord::Accepted { task, attempt, .. } => {
                self.set_attempt(task, *attempt, AttemptState::Running);
            }
            RequesterRecord::Refused { task, attempt, reason } => {
                self.set_attempt(task, *attempt, AttemptState::Over(Over::Refused(*reason)));
                self.release(task, *attempt);
            }
            RequesterRecord::Lost { task, attempt } => {
                self.set_attempt(task, *attempt, AttemptState::Lost);
                self.release(task, *attempt);
            }
            RequesterRecord::Revived { task, attempt } => {
                self.set_attempt(task, *attempt, AttemptState::Running);
                if self.tasks.get(task).is_some_and(|known| known.state == TaskState::Ready) {
                    self.set_state(task, TaskState::Held(*attempt), None);
                }
            }
            RequesterRecord::Unheld { task, attempt } => {
                self.set_attempt(task, *attempt, AttemptState::Over(Over::Unheld));
                self.release(task, *attempt);
            }
            RequesterRecord::Failed { task, attempt, failure, more_vram_than_mib, at_ms } => {
                self.failed(task, *attempt, failure, *more_vram_than_mib, *at_ms);
            }
            RequesterRecord::Stored { task, attempt, outputs, exec_ms, at_ms } => {
                self.set_attempt(task, *attempt, AttemptState::Over(Over::Stored));
                if let Some(known) = self.tasks.get_mut(task)
                    && let Some(first) = known.attempts.get(*attempt)
                {
                    let (node, suspects) = (first.node, Vec::new());
                    let result = TaskResult { node, outputs: outputs.clone(), exec_ms: *exec_ms, suspects };
                    let replaced = known.result.replace(result);
                    outputs.iter().for_each(|output| self.name(output.root));
                    let replaced = replaced.into_iter().flat_map(|result| result.outputs);
                    replaced.for_each(|output| self.unname(output.root));
                    self.close(task, TaskState::Done, Over::Superseded, *at_ms);
                }
            }
            RequesterRecord::Cancelled { tasks, at_ms } => {
                for task in tasks {
                    if self.tasks.get(task).is_some_and(|known| known.state.is_open()) {
                        self.close(task, TaskState::Cancelled, Over::Cancelled, *at_ms);
                    }
                }
            }
            RequesterRecord::Retried { tasks, .. } => tasks.iter().for_each(|task| self.retried(task)),
            RequesterRecord::Wiped { task, attempt, wipe } => {
                let known = self.tasks.get_mut(task).and_then(|known| known.attempts.get_mut(*attempt));
                // Its signature was checked before it was written down: a start need not check all of them again.
                let record = codec::decode_body::<WipeRecord>(wipe.body(), WIPE_LIMIT);
                if let (Some(known), Ok(record)) = (known, record) {
                    known.wipe = Some(Arc::new(record));
                }
            }
            RequesterRecord::Forgotten { jobs } => self.forget(jobs),
            RequesterRecord::KeptWith { job, deputy, .. } => self.keep_with(job, Some(*deputy)),
            RequesterRecord::KeptNoMore { job } => self.keep_with(job, None),
            RequesterRecord::Keeping { right, batch, .. } => self.keep(right, batch),
            RequesterRecord::TakenUp { job, term, .. } => self.pass_pen(job, Some(*term)),
            RequesterRecord::GivenBack { job, .. } => self.pass_pen(job, None),
            RequesterRecord::Tried { task, attempt, node, claim, grant } => {
                let (node, claim, grant_hash) = (*node, *claim, *grant);
                let state = AttemptState::Running;
                let tried = Attempt { node, claim, grant_hash, roots: Vec::new(), state, wipe: None };
                if let Some(known) = self.tasks.get_mut(task) {
                    known.attempts.insert(*attempt, tried);
                    self.set_state(task, TaskState::Held(*attempt), None);
                }
            }
        }
    }

    fn submitted(&mut self, submission: &Submission, stages: &[Stage], on_suspect: OnSuspect) {
        let job = submission.job;
        if self.jobs.contains_key(&job) {
            return;
        }
        for (index, plan) in (0..).zip(&submission.tasks) {
            let task = Task {
                job,
                index,
                state: TaskState::Ready,
                attempts: Attempts::default(),
                failures: Vec::new(),
                barred: BTreeSet::new(),
                more_vram_than_mib: None,
                paused: false,
                result: None,
                ended_ms: None,
            };
            self.tasks.insert(plan.task, Box::new(task));
        }
        let count = u32::try_from(submission.tasks.len()).unwrap_or(u32::MAX);
        let submission = Arc::new(submission.clone());
        self.open.insert(Self::place(&submission));
        let stages = if stages.is_empty() { Arc::default() } else { stages.into() };
        let ready = Waiting::default();
        let new = Job {
            submission,
            stages,
            on_suspect,
            ready,
            open: count,
            deputy: None,
            last_deputy: None,
            kept: None,
        };
        inputs_of(&new).for_each(|root| self.name(root));
        let plans = new.submission.clone();
        self.jobs.insert(job, Box::new(new));
        for plan in &plans.tasks {
            self.queue(&plan.task);
        }
    }

    fn place(submission: &Submission) -> (Reverse<Class>, u64, JobId) {
        (Reverse(submission.class), submission.created_ms, submission.job)
    }

    fn set_attempt(&mut self, task: &TaskId, attempt: u32, state: AttemptState) {
        if let Some(known) = self.tasks.get_mut(task).and_then(|known| known.attempts.get_mut(attempt)) {
            known.set_state(state);
        }
    }

    /// The attempt does not have the task any more: it waits again.
    fn release(&mut self, task: &TaskId, attempt: u32) {
        if self.tasks.get(task).is_some_and(|known| known.state == TaskState::Held(attempt)) {
            self.set_state(task, TaskState::Ready, None);
        }
    }

    fn set_state(&mut self, task: &TaskId, state: TaskState, ended_ms: Option<u64>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let Some(job) = self.jobs.get_mut(&known.job) else { return };
        let was_open = known.state.is_open();
        known.state = state;
        known.ended_ms = ended_ms;
        match (was_open, state.is_open()) {
            (true, false) => job.open -= 1,
            (false, true) => job.open += 1,
            _ => {}
        }
        let (id, place, open) = (known.job, Self::place(&job.submission), job.open);
        if open == 0 {
            self.open.remove(&place);
            self.let_go_of_graphs(&id);
        } else {
            self.open.insert(place);
        }
        self.queue(task);
    }

    /// What is done is not rendered again: of thousands of jobs that are remembered only those that may be retried keep their
    /// graphs in memory. Of the others stays what people are told of them, and what blobs they name.
    fn let_go_of_graphs(&mut self, id: &JobId) {
        let Self { jobs, tasks, .. } = self;
        let Some(job) = jobs.get_mut(id) else { return };
        let done = |plan: &TaskPlan| tasks.get(&plan.task).is_some_and(|task| task.state == TaskState::Done);
        if !job.submission.tasks.iter().all(done) {
            return;
        }
        let recipes = &mut Arc::make_mut(&mut job.submission).recipes;
        if recipes.iter().all(|recipe| recipe.inputs.is_empty() && !recipe.shape.full_hygiene) {
            *recipes = Vec::new();
        }
        for recipe in recipes {
            (recipe.graph, recipe.extra_data) = (Vec::new(), Vec::new());
            (recipe.shape.classes, recipe.shape.models) = (Vec::new(), Vec::new());
        }
    }

    /// Ends a task; attempts that might still have brought a result are over in the given way.
    fn close(&mut self, task: &TaskId, state: TaskState, others: Over, at_ms: u64) {
        if let Some(known) = self.tasks.get_mut(task) {
            for attempt in known.attempts.values_mut().filter(|attempt| attempt.is_live()) {
                attempt.set_state(AttemptState::Over(others));
            }
        }
        self.set_state(task, state, Some(at_ms));
        for taker in self.takers(task) {
            if state == TaskState::Done {
                self.queue(&taker);
            } else if self.tasks.get(&taker).is_some_and(|known| known.state == TaskState::Ready) {
                self.close(&taker, TaskState::Skipped, others, at_ms);
            }
        }
    }

    fn failed(&mut self, task: &TaskId, number: u32, failure: &Failure, vram: Option<u32>, at_ms: u64) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        match known.attempts.get_mut(number) {
            // Its result could not be had; should it still come first, it counts.
            Some(attempt)
                if attempt.state == AttemptState::Lost && failure.class == FailureClass::Transfer => {}
            Some(attempt) => attempt.set_state(AttemptState::Over(Over::Failed(failure.class))),
            None => {}
        }
        let Some(node) = known.attempts.get(number).map(|attempt| attempt.node) else { return };
        known.failures.push((node, failure.clone()));
        if !failure.class.may_return_here() {
            known.barred.insert(node);
        }
        known.more_vram_than_mib = known.more_vram_than_mib.max(vram);
        let counted = known.failures.iter().filter(|(_, failure)| failure.class.counts_against_task());
        let distinct = counted.map(|(node, _)| node).collect::<BTreeSet<_>>().len();
        let died = |failure: &Failure| failure.class == FailureClass::ComfyuiDied;
        let deaths = known.failures.iter().filter(|(_, failure)| died(failure)).count();
        let for_good = failure.class == FailureClass::InvalidGraph
            || distinct >= NODES_THAT_FAIL_A_TASK
            || deaths >= DEATHS_THAT_FAIL_A_TASK;
        if !known.state.is_open() {
            return;
        }
        if for_good {
            self.close(task, TaskState::Failed, Over::Superseded, at_ms);
        } else {
            self.release(task, number);
        }
    }

    fn retried(&mut self, task: &TaskId) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        if !matches!(known.state, TaskState::Failed | TaskState::Cancelled | TaskState::Skipped) {
            return;
        }
        known.failures.clear();
        known.barred.clear();
        known.more_vram_than_mib = None;
        self.set_state(task, TaskState::Ready, None);
        for taker in self.takers(task) {
            let Some(known) = self.tasks.get(&taker) else { continue };
            let ended = |task: &Task| !task.state.is_open();
            if known.state == TaskState::Skipped && !self.blockers(known).any(|(_, on)| ended(on)) {
                self.retried(&taker);
            }
        }
    }
}
