//! What local callers ask.

use scenemesh_protocol::ids::TaskId;

use super::{Actor, Inbound};
use crate::scheduler::batch::Batch;
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::requester::{Action, Input, KeepOn};
use crate::scheduler::story::Why;
use crate::scheduler::view::{JobEvent, LogLine};
use crate::scheduler::{Command, Id, ResolveError, SubmitError, Which};
use crate::store::{Entry, JournalError};

impl Actor {
    /// Does what a caller wants.
    pub(super) async fn obey(&mut self, command: Command) {
        let now = self.now();
        // A caller that went away does not mind that nobody hears the answer.
        match command {
            Command::Submit { batch, keep_on, reply } => {
                let submitted = self.submit(batch, keep_on).await;
                drop(reply.send(submitted));
            }
            Command::Cancel { which, reply } => {
                let tasks = self.tasks_of(&which);
                let open = |task: &TaskId| {
                    self.requester.jobs().task(task).is_some_and(|known| known.state.is_open())
                };
                let count = tasks.iter().filter(|task| open(task)).count();
                self.feed(Inbound::Requester(Input::CancelWanted(tasks)));
                self.confirm.push((reply, count));
            }
            Command::Retry { which, reply } => {
                let tasks = self.tasks_of(&which);
                let before = self.open_among(&tasks);
                self.feed(Inbound::Requester(Input::RetryWanted(tasks.clone())));
                let count = self.open_among(&tasks).saturating_sub(before);
                self.tell_of_job(count, &tasks);
                self.confirm.push((reply, count));
            }
            Command::Pause { which, reply } => {
                let tasks = self.tasks_of(&which);
                let before = self.paused_among(&tasks);
                self.feed(Inbound::Requester(Input::PauseWanted(tasks.clone())));
                let count = self.paused_among(&tasks).saturating_sub(before);
                self.tell_of_job(count, &tasks);
                self.confirm.push((reply, count));
            }
            Command::Resume { which, reply } => {
                let tasks = self.tasks_of(&which);
                let before = self.paused_among(&tasks);
                self.feed(Inbound::Requester(Input::ResumeWanted(tasks.clone())));
                let count = before.saturating_sub(self.paused_among(&tasks));
                self.tell_of_job(count, &tasks);
                self.confirm.push((reply, count));
            }
            Command::Drain { wish, reply } => {
                self.begin_to_drain(wish);
                let _ = reply.send(self.load());
            }
            Command::Giving { reply } => {
                // Whoever has just said something is told how it goes.
                if *self.ports.lending.borrow() != self.picture.lending {
                    self.look();
                }
                drop(reply.send(self.renderer.giving_view(now)));
            }
            question => self.tell(question),
        }
    }

    /// Written down before anything else happens: a full disk is the submitter's to hear of.
    async fn submit(&mut self, batch: Box<Batch>, keep_on: KeepOn) -> Result<(), SubmitError> {
        let deputy = self.requester.deputy_for(&batch, keep_on).map_err(|why| {
            let node = match keep_on {
                KeepOn::Node(node) => self.requester.name(node),
                _ => String::new(),
            };
            SubmitError::Deputy { node, why }
        })?;
        let now = self.now();
        let job = batch.submission.job;
        let mut records = vec![RequesterRecord::submitted(batch.clone())];
        records.extend(deputy.map(|deputy| RequesterRecord::KeptWith { job, deputy, at_ms: now.wall_ms }));
        records.iter().for_each(|record| self.halt.sees(record.name()));
        self.halt.before_commit();
        self.ports.store.journal.commit(records.iter().map(Entry::new).collect()).await?;
        self.halt.after_commit();
        let actions = self.requester.on_input(now, Input::Submitted { batch, deputy });
        let rest = actions.into_iter().filter(|action| !matches!(action, Action::Record(_)));
        self.todo.extend(rest.map(super::Todo::Requester));
        self.board.tell(JobEvent::Job { job });
        Ok(())
    }

    /// While nothing can be written down: questions are answered, jobs are turned away, the rest waits.
    pub(super) fn obey_later(&mut self, command: Command, trouble: &JournalError) {
        match command {
            Command::Submit { reply, .. } => drop(reply.send(Err(trouble.clone().into()))),
            Command::Cancel { .. }
            | Command::Retry { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Drain { .. }
            | Command::Giving { .. } => {
                self.postponed.push_back(command);
            }
            question => self.tell(question),
        }
    }

    /// Answers a question; what is not one was dealt with before.
    fn tell(&self, question: Command) {
        let now = self.now();
        match question {
            Command::Held { node, reply } => {
                let here = self.renderer.holdings().all();
                let here = here.filter(|(key, _)| node.is_none_or(|node| key.from == node)).count();
                let _ = reply.send((self.requester.attempts_at(node.as_ref()), here));
            }
            Command::Parked { reply } => drop(reply.send(self.renderer.parked(now))),
            Command::Jobs { reply } => {
                let mut jobs: Vec<_> = self.requester.jobs().jobs().map(|job| &job.submission).collect();
                jobs.sort_by_key(|submission| std::cmp::Reverse((submission.created_ms, submission.job)));
                let views = jobs.iter().filter_map(|job| self.requester.job_view(now, job.job));
                drop(reply.send(views.collect()));
            }
            Command::OpenTasks { reply } => {
                let _ = reply.send(self.requester.open_tasks());
            }
            Command::Show { job, reply } => drop(reply.send(self.requester.job_view(now, job))),
            Command::Task { task, reply } => drop(reply.send(self.requester.task_view(now, task))),
            Command::Why { id, reply } => drop(reply.send(self.why(id))),
            Command::RefusedClasses { reply } => drop(reply.send(self.requester.refused_classes())),
            Command::Resolve { prefix, reply } => drop(reply.send(self.resolve(prefix))),
            Command::Preview { task, reply } => drop(reply.send(self.board.preview(task))),
            Command::Log { id, reply } => {
                let tasks = self.tasks_of(&Which::from(id));
                let mut lines: Vec<LogLine> =
                    tasks.into_iter().flat_map(|task| self.board.lines(task)).collect();
                lines.sort_by_key(|line| line.at_ms);
                drop(reply.send(lines));
            }
            Command::Submit { .. }
            | Command::Cancel { .. }
            | Command::Retry { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Giving { .. }
            | Command::Drain { .. } => {}
        }
    }

    fn open_among(&self, tasks: &[TaskId]) -> usize {
        let jobs = self.requester.jobs();
        tasks.iter().filter(|task| jobs.task(task).is_some_and(|known| known.state.is_open())).count()
    }

    fn paused_among(&self, tasks: &[TaskId]) -> usize {
        let jobs = self.requester.jobs();
        tasks.iter().filter(|task| jobs.task(task).is_some_and(|known| known.paused)).count()
    }

    /// Something that a person asked for changed these tasks, all of one job.
    fn tell_of_job(&mut self, count: usize, tasks: &[TaskId]) {
        if count > 0
            && let Some(job) = tasks.first().and_then(|task| self.requester.jobs().task(task))
        {
            self.board.tell(JobEvent::Job { job: job.job });
        }
    }

    fn tasks_of(&self, which: &Which) -> Vec<TaskId> {
        match which.id {
            Id::Task { task, .. } => vec![task],
            Id::Job(job) => {
                let known = self.requester.jobs().job(&job);
                let plans = known.into_iter().flat_map(|job| (0..).zip(&job.submission.tasks));
                plans.filter(|(index, _)| which.ranges.has(*index)).map(|(_, plan)| plan.task).collect()
            }
        }
    }

    /// A job is where its first task is that has not ended well.
    fn why(&self, id: Id) -> Option<Why> {
        let now = self.now();
        match id {
            Id::Task { task, .. } => self.requester.why(now, task),
            Id::Job(job) => {
                let view = self.requester.job_view(now, job)?;
                let done = |state: crate::scheduler::TaskPhase| state == crate::scheduler::TaskPhase::Done;
                let open = view.tasks.iter().find(|task| !task.state.is_over());
                let stuck = open.or_else(|| view.tasks.iter().find(|task| !done(task.state)));
                let Some(task) = stuck else {
                    return Some(Why::AllDone { tasks: view.tasks.len() });
                };
                if view.tasks.len() == 1 {
                    return Some(task.why.clone());
                }
                let why = Box::new(task.why.clone());
                Some(Why::OfTask { index: task.index, of: view.tasks.len(), why })
            }
        }
    }

    fn resolve(&self, prefix: String) -> Result<Id, ResolveError> {
        let wanted = prefix.trim().to_ascii_lowercase();
        let found = self.requester.jobs().ids_from(&wanted);
        match found[..] {
            [id] => Ok(id),
            [] => Err(ResolveError::None { prefix }),
            _ => Err(ResolveError::Ambiguous { prefix, count: found.len() }),
        }
    }
}
