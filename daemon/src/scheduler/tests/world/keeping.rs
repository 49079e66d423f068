//! What a daemon does for jobs that lie on two machines.

use scenemesh_protocol::deputy::{GrantRight, Keep, RIGHT_LIFETIME_MS};

use super::machine::output;
use super::*;
use crate::scheduler::batch::Batch;
use crate::scheduler::requester::SealedKeep;

impl World {
    /// Puts machines into the studio of the first.
    pub(in crate::scheduler::tests) fn of_one_studio(mut self) -> Self {
        let studio = self.machines[0].studio;
        self.machines.iter_mut().for_each(|machine| machine.studio = studio);
        for n in 0..self.machines.len() {
            self.refresh_facts(n);
        }
        self
    }

    /// A submission as the daemon takes it: with whoever is to hold it too.
    pub(in crate::scheduler::tests) fn submit_kept(
        &mut self,
        n: usize,
        job: u8,
        tasks: usize,
        on: usize,
    ) -> JobId {
        let batch: Batch = self.submission(job, tasks).into();
        let deputy = Some(self.machines[on].id);
        self.tell_requester(n, requester::Input::Submitted { batch: Box::new(batch), deputy });
        JobId::from_bytes([job; 16])
    }

    pub(super) fn keep(&mut self, n: usize, action: requester::Action) {
        use requester::Action as A;
        let now_ms = self.now().wall_ms;
        let machine = &mut self.machines[n];
        match action {
            A::SealKept { node, job } => {
                self.given_away += 1;
                let right = GrantRight {
                    pool: POOL,
                    studio: machine.studio,
                    origin: machine.id,
                    deputy: node,
                    job,
                    issued_ms: now_ms,
                    not_after_ms: now_ms + RIGHT_LIFETIME_MS,
                };
                let root = root(&format!("job {job}"));
                let roots = vec![BlobRef { root, sealed_bytes: 5 }];
                let keep = Keep { right: Signed::new(&right, &machine.key), envelope: Vec::new(), roots };
                let sealed = Ok(SealedKeep { keep, root });
                self.tell_requester(n, requester::Input::KeptSealed { job, sealed });
            }
            A::Keep { node, job, keep } => {
                let about = About::Keep { job };
                self.ask(n, Question { to: node, request: Request::from(*keep), about });
            }
            A::BringKept { node, job, .. } => {
                let at = self.machines.iter().position(|machine| machine.id == node).unwrap();
                let there = self.connected(n, at) && !self.machines[n].cannot_keep;
                let known = self.machines[at].requester.jobs().job(&job).filter(|_| there);
                let batch = known.map(|known| Batch {
                    submission: (*known.submission).clone(),
                    stages: known.stages.to_vec(),
                    on_suspect: known.on_suspect,
                });
                let brought = batch.map(Box::new).ok_or_else(|| "not connected".to_owned());
                self.tell_requester(n, requester::Input::KeptBrought { job, brought });
            }
            A::Deliver { node, task, attempt } => {
                let Some(known) = machine.requester.jobs().attempt(&task, attempt) else { return };
                let grant = known.grant_hash;
                let outcome = RunOutcome::Done { outputs: vec![output(task, attempt)], exec_ms: 1500 };
                let (finished, _) =
                    machine.seal_result(AttemptKey { from: node, task, attempt }, grant, outcome, None);
                let about = About::Delivery { node, task, attempt };
                self.ask(n, Question { to: node, request: Request::from(finished), about });
            }
            _ => {}
        }
    }
}
