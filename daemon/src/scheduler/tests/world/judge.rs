//! What must be true of a world in the end, and how its story is told when it is not.

use super::*;

impl World {
    /// Every task has ended and no renderer holds anything.
    pub(in crate::scheduler::tests) fn is_settled(&self) -> bool {
        self.machines.iter().all(|machine| {
            machine.requester.jobs().open_jobs().next().is_none()
                && machine.renderer.holdings().all().next().is_none()
                && machine.renderer.is_idle()
        })
    }

    /// The promise: every task ended once, with one result, and nothing was executed beyond what deaths explain.
    pub(in crate::scheduler::tests) fn assert_ended_exactly_once(&self) {
        for machine in &self.machines {
            let mut stored: BTreeMap<TaskId, u32> = BTreeMap::new();
            for line in &machine.journal {
                if let Line::Requester(RequesterRecord::Stored { task, .. }) = line {
                    *stored.entry(*task).or_default() += 1;
                }
            }
            for job in machine.requester.jobs().jobs() {
                for plan in &job.submission.tasks {
                    let view = machine.requester.task_view(self.now(), plan.task).unwrap();
                    assert_eq!(view.state, TaskPhase::Done, "{}", self.story());
                    assert_eq!(stored.get(&plan.task), Some(&1), "{}", self.story());
                    for output in &view.outputs {
                        assert!(machine.blobs.contains(&output.root), "a result is gone\n{}", self.story());
                    }
                }
            }
            for (prompt, count) in &machine.executions {
                let bound = 1 + self.kills;
                assert!(usize::try_from(*count).unwrap() <= bound, "{prompt:?} ran {count} times");
            }
        }
    }

    /// What replaying a journal gives is what the machine has.
    pub(in crate::scheduler::tests) fn assert_replay_gives_the_state(&self) {
        for machine in &self.machines {
            let mut jobs = requester::jobs::Jobs::default();
            let mut holdings = renderer::holdings::Holdings::default();
            for line in &machine.journal {
                match line {
                    Line::Requester(record) => jobs.apply(record),
                    Line::Renderer(record) => holdings.apply(record),
                }
            }
            assert_eq!(&jobs, machine.requester.jobs());
            let cutoff = u64::MAX;
            let mut known = machine.renderer.holdings().clone();
            known.forget_tombstones(cutoff);
            holdings.forget_tombstones(cutoff);
            assert_eq!(holdings, known);
        }
    }

    pub(in crate::scheduler::tests) fn story(&self) -> String {
        let mut story = format!("after {:?}, {} kills\n", self.elapsed, self.kills);
        for machine in &self.machines {
            story += &format!("{}: {:?}\n", machine.name, machine.renderer.holdings());
            for line in &machine.journal {
                let text = format!("{line:?}");
                story += &format!("  {}\n", text.chars().take(160).collect::<String>());
            }
            for job in machine.requester.jobs().jobs() {
                for plan in &job.submission.tasks {
                    let why = machine.requester.why(self.now(), plan.task);
                    story += &format!(
                        "  {:?}: {}\n",
                        plan.task,
                        why.map(|why| why.to_string()).unwrap_or_default()
                    );
                }
            }
            for line in &machine.log {
                story += &format!("  · {line}\n");
            }
        }
        story
    }
}
