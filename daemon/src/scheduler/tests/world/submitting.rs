//! Jobs as tests submit them.

use super::*;

impl World {
    pub(in crate::scheduler::tests) fn submit(&mut self, n: usize, job: u8, tasks: usize) -> JobId {
        self.submit_with(n, job, tasks, |_| {})
    }

    pub(in crate::scheduler::tests) fn submit_with(
        &mut self,
        n: usize,
        job: u8,
        tasks: usize,
        change: impl FnOnce(&mut Submission),
    ) -> JobId {
        let mut submission = self.submission(job, tasks);
        change(&mut submission);
        self.tell_requester(
            n,
            requester::Input::Submitted { batch: Box::new(submission.into()), deputy: None },
        );
        JobId::from_bytes([job; 16])
    }

    pub(in crate::scheduler::tests) fn submission(&self, job: u8, tasks: usize) -> Submission {
        let recipe = Recipe {
            graph: b"{}".to_vec(),
            extra_data: Vec::new(),
            inputs: Vec::new(),
            shape: Shape { classes: vec!["SaveImage".into()], ..Shape::default() },
            previews: false,
            time_limit_ms: 60_000,
        };
        let plan = |index| TaskPlan { task: task_id(job, index), recipe: 0, add_to_seeds: index as u64 };
        Submission {
            job: JobId::from_bytes([job; 16]),
            label: "test".into(),
            person: "somebody".into(),
            class: Class::Normal,
            reach: Reach::Pool,
            project: None,
            created_ms: self.now().wall_ms,
            recipes: vec![recipe],
            tasks: (0..tasks).map(plan).collect(),
        }
    }
}
