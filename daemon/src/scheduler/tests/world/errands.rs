//! What a daemon does that takes a while, and what its ComfyUI does.

use super::machine::output;
use super::*;
use crate::scheduler::renderer::RunTrouble;
use crate::scheduler::requester::Brought;
use crate::scheduler::suspicion::{Suspect, Suspicion};

/// Work of a daemon that takes a while: it is lost when the daemon dies.
#[derive(Debug)]
pub(in crate::scheduler::tests) enum Errand {
    SealGrant {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        claim: scenemesh_protocol::ids::ClaimId,
    },
    Fetch {
        node: NodeId,
        task: TaskId,
        attempt: u32,
        finished: Box<Finished>,
    },
    /// Whatever a job needs that lies on two machines.
    Keeping(Box<requester::Action>),
    Examine {
        claim: scenemesh_protocol::ids::ClaimId,
        grant: Box<Grant>,
    },
    FetchInputs {
        key: AttemptKey,
    },
    Run {
        key: AttemptKey,
    },
    FreeMemory {
        slot: String,
    },
    Smoke {
        task: TaskId,
    },
    LookAtSmoke {
        task: TaskId,
    },
    SealResult {
        key: AttemptKey,
        grant: ContentHash,
        outcome: RunOutcome,
        wipe: Option<Wipe>,
    },
}

impl Machine {
    /// What smoke renders ask for.
    pub(super) fn smoke(&mut self, action: renderer::Action) {
        use renderer::Action as A;
        match action {
            A::Smoke { task, .. } => self.errands.push_back(Errand::Smoke { task }),
            A::LookAtSmoke { task, .. } => self.errands.push_back(Errand::LookAtSmoke { task }),
            A::DropSmoke { roots } => self.blobs.retain(|root| !roots.contains(root)),
            _ => {}
        }
    }
}

impl World {
    /// Does the oldest errand of a machine.
    pub(in crate::scheduler::tests) fn errand(&mut self, n: usize) -> bool {
        let Some(errand) = self.machines[n].errands.pop_front() else { return false };
        let now_ms = self.now().wall_ms;
        let machine = &mut self.machines[n];
        match errand {
            Errand::SealGrant { node, task, attempt, claim } => {
                self.next += 1;
                let sealed = Ok(machine.seal_grant(self.next, node, task, attempt, claim));
                self.tell_requester(n, requester::Input::GrantSealed { task, node, claim, sealed });
            }
            Errand::Keeping(action) => self.keep(n, *action),
            Errand::Examine { claim, grant } => {
                let result = machine.examine(&grant, now_ms);
                self.tell_renderer(n, renderer::Input::Examined { claim, result });
            }
            Errand::FetchInputs { key } => {
                self.tell_renderer(n, renderer::Input::InputsFetched { key, result: Ok(()) });
            }
            Errand::Run { key } if machine.renderer.holdings().held(&key).is_none() => {
                let result = Err(RunTrouble::NotNow("it is not held any more".into()));
                self.tell_renderer(n, renderer::Input::RunAnswered { key, result });
            }
            Errand::Run { key } => {
                let prompt = (key.task, key.attempt);
                // Looked up before it is posted: a prompt that is there is not posted again.
                if machine.prompts.insert(prompt) {
                    *machine.executions.entry(prompt).or_default() += 1;
                }
                machine.watched.insert(prompt);
                self.tell_renderer(n, renderer::Input::RunAnswered { key, result: Ok(()) });
            }
            Errand::FreeMemory { slot } => {
                machine.freed.push(slot.clone());
                let freed = crate::executor::Freed::of(crate::executor::Verdict::Freed);
                let report = crate::scheduler::giving::Report { freed, driver: None };
                self.tell_renderer(n, renderer::Input::Freed { slot, report });
            }
            Errand::Smoke { task } => {
                machine.smokes += 1;
                machine.watched.insert((task, renderer::SMOKE_ATTEMPT));
            }
            Errand::LookAtSmoke { task } => {
                let wrong = matches!(machine.comfy, Comfy::LooksWrong);
                let result = if wrong { Err("it has another colour".to_owned()) } else { Ok(()) };
                self.tell_renderer(n, renderer::Input::Smoked { task, result });
            }
            Errand::SealResult { key, grant, outcome, wipe } => {
                let (finished, roots) = machine.seal_result(key, grant, outcome, wipe);
                let finished = Box::new(finished);
                let keep_ms = self.keep_ms;
                self.tell_renderer(n, renderer::Input::Sealed { key, finished, roots, keep_ms });
            }
            Errand::Fetch { node, task, attempt, finished } => {
                let result = self.fetch(n, node, task, attempt, &finished);
                self.tell_requester(n, requester::Input::Fetched { task, attempt, result });
            }
        }
        true
    }

    fn fetch(
        &mut self,
        n: usize,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        finished: &Finished,
    ) -> Result<Brought, FetchTrouble> {
        let at = self.machines.iter().position(|machine| machine.id == node).unwrap();
        if at != n && !self.connected(n, at) {
            return Err(FetchTrouble::Unreachable("not connected".into()));
        }
        let terms = finished.terms.verify().unwrap();
        let Outcome::Done { roots, .. } = &terms.outcome else { panic!("only results are fetched") };
        for blob in roots {
            if !self.machines[at].serves || !self.machines[at].blobs.contains(&blob.root) {
                return Err(FetchTrouble::Unreachable("not served".into()));
            }
            self.machines[n].blobs.insert(blob.root);
        }
        let wrong = matches!(self.machines[at].comfy, Comfy::LooksWrong);
        let suspect = wrong.then_some(Suspect { output: 0, why: Suspicion::Uniform });
        Ok(Brought { outputs: vec![output(task, attempt)], suspects: suspect.into_iter().collect() })
    }

    /// A ComfyUI gets done with whatever it runs.
    pub(in crate::scheduler::tests) fn finish_runs(&mut self, n: usize) -> bool {
        let outcome = match &self.machines[n].comfy {
            Comfy::Hangs => return false,
            Comfy::Renders | Comfy::LooksWrong => None,
            Comfy::Fails(class) => Some(Failure::new(*class, "as the test wants it")),
        };
        let watched = std::mem::take(&mut self.machines[n].watched);
        let any = !watched.is_empty();
        for (task, attempt) in watched {
            let machine = &mut self.machines[n];
            machine.prompts.remove(&(task, attempt));
            let outcome = match &outcome {
                Some(failure) => RunOutcome::Failed(failure.clone()),
                None => {
                    let output = output(task, attempt);
                    machine.blobs.insert(output.root);
                    RunOutcome::Done { outputs: vec![output], exec_ms: 1500 }
                }
            };
            let event = RunEvent::Ended { outcome, wipe: Some(machine.wipe()) };
            self.tell_renderer(n, renderer::Input::Ran { task, attempt, event });
        }
        any
    }
}
