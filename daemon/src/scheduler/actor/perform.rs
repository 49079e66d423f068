//! Performing: what the machines want done, once their records are on disk.

use std::time::Duration;

use scenemesh_protocol::deputy::shelf_of;
use scenemesh_protocol::envelope::{
    Desk, GrantPayload, Recipient, Refused, Standing, judge_header, open_header,
};
use scenemesh_protocol::ids::{ClaimId, ContentHash, NodeId, TaskId};
use scenemesh_protocol::lease::{BlobRef, Finished, Grant, PREVIEW_LIMIT, Preview, RELAYED, RefusalReason};
use scenemesh_protocol::roster::Member;
use scenemesh_protocol::studio::Memo;
use scenemesh_protocol::task::{Class, Failure, FailureClass, TaskSpec};
use zeroize::Zeroizing;

use super::fetching::{Fetching, fetch_all, input_trouble, prove, result_trouble, too_late};
use super::seal::{self, GrantParts, NO_POOL, PoolFacts, ResultParts};
use super::shelf::For;
use super::{Actor, Inbound, ReplyTo};
use crate::clock;
use crate::executor::graph::Graph;
use crate::executor::policy::Whose;
use crate::executor::{self, Executor, Rules, Run, RunError, SlotId, Wipe};
use crate::scheduler::JobEvent;
use crate::scheduler::conversation::{AttemptKey, NoAnswer};
use crate::scheduler::discretion;
use crate::scheduler::link::{self, Question, Sorted};
use crate::scheduler::renderer::{
    self, Examination, InputTrouble, Rejection, RunEvent, RunOutcome, RunTrouble,
};
use crate::scheduler::requester::{self, Brought, FetchTrouble};
use crate::scheduler::suspicion::Expected;
use crate::scheduler::{story::Line, view::LogLine};

impl Actor {
    /// Starts work that ends with an input for one of the machines, unless the node stops first.
    pub(super) fn errand(
        &self,
        name: &'static str,
        work: impl Future<Output = Option<Inbound>> + Send + 'static,
    ) {
        let (reports, stopping) = (self.reports.clone(), self.tasks.stopping());
        self.tasks.spawn(name, async move {
            let report = async {
                if let Some(inbound) = work.await {
                    // The actor is gone only when the node stops.
                    drop(reports.send(inbound).await);
                }
            };
            tokio::select! {
                () = stopping.cancelled() => {}
                () = report => {}
            }
            Ok(())
        });
    }

    pub(super) fn ask(&mut self, question: Question) {
        let Question { to, request, about } = question;
        if to == self.id {
            let ticket = self.ticket();
            self.tickets.insert(ticket, ReplyTo::Here(about));
            // Here only requesters probe, cancel and acknowledge, so all of it is for the renderer.
            match link::route(to, request, ticket, |_| false) {
                Ok(inbound) => self.inside.push_back(inbound),
                Err(declined) => tracing::error!(detail = %declined.detail, "a question to ourselves"),
            }
            return;
        }
        let network = self.ports.network.clone();
        self.errand("ask a peer", async move {
            let answer = network.request(to, request).await;
            link::understand(about, answer.map_err(|error| NoAnswer(error.to_string())))
        });
    }

    pub(super) fn perform_for_requester(&mut self, action: requester::Action) {
        use requester::Action as A;
        let action = match link::sort_for_requester(action) {
            Sorted::Asks(question) => return self.ask(*question),
            Sorted::Does(action) => action,
        };
        match action {
            A::SealGrant { node, task, attempt, claim, class } => {
                self.seal_grant(node, task, attempt, claim, class);
            }
            A::Fetch { node, task, attempt, grant, finished } => {
                self.fetch_result(node, task, attempt, grant, finished);
            }
            A::Serve { node, task, attempt, roots } if node != self.id => {
                self.shelf.serve(For::Inputs(task, attempt), node, roots);
            }
            A::Unserve { node, task, attempt } => {
                let served = self.shelf.end(For::Inputs(task, attempt), node);
                // A task that travelled as a blob of its own was sealed for this attempt only.
                self.drop_blobs(served);
            }
            A::DropBlobs(roots) => self.drop_blobs(roots),
            A::SealKept { node, job } => self.seal_kept(node, job),
            A::Keep { node, job, keep } => self.give_to_deputy(node, job, *keep),
            A::Unkeep { node, job, sealed } => {
                self.shelf.end(For::Kept(shelf_of(job), 0), node);
                self.drop_blobs(sealed);
            }
            A::BringKept { node, job, keep } => self.bring_kept(node, job, *keep),
            A::Deliver { node, task, attempt } => self.deliver(node, task, attempt),
            A::Undeliver { node, task, attempt } => {
                self.shelf.end(For::Kept(task, attempt), node);
            }
            A::Forgotten { job, tasks } => {
                self.board.forget(job, &tasks);
                self.retention.forgot();
            }
            A::Reply { ticket, response } => self.reply(ticket, response),
            A::Changed(task) => {
                self.board.changed.insert(task);
            }
            A::Moved(task) => {
                self.board.moved.insert(task);
            }
            A::Preview { task, preview } => {
                if let Some(job) = self.requester.jobs().task(&task).map(|task| task.job) {
                    if preview.mime == RELAYED {
                        self.board.tell(JobEvent::Relayed { job, frame: preview.bytes.into() });
                    } else {
                        self.board.set_preview(job, task, preview);
                    }
                }
            }
            A::Log { task, line } => self.log(task, line),
            // Our own machine reads its inputs where they lie; questions and records were dealt with before.
            _ => {}
        }
    }

    fn log(&mut self, task: TaskId, line: Line) {
        let Some(known) = self.requester.jobs().task(&task) else { return };
        let (job, index) = (known.job, known.index);
        self.board.log(job, LogLine { at_ms: clock::wall_ms(), task, index, line });
    }

    pub(super) fn pool(&self) -> PoolFacts {
        let roster = self.picture.roster.as_ref();
        roster.map_or(NO_POOL, |roster| PoolFacts { pool: roster.pool(), epoch: roster.settings().epoch })
    }

    pub(super) fn member(&self, node: &NodeId) -> Option<&Member> {
        self.picture.member(node, clock::wall_ms())
    }

    /// To whom something is sealed: `None` is this machine itself.
    pub(super) fn recipient(&self, node: NodeId) -> Result<Option<Recipient>, String> {
        if node == self.id {
            return Ok(None);
        }
        let member = self.member(&node).ok_or("it is no member of the pool any more")?;
        Ok(Some(Recipient { node, kem: member.kem }))
    }

    fn seal_grant(&mut self, node: NodeId, task: TaskId, attempt: u32, claim: ClaimId, class: Class) {
        let answer =
            move |sealed| Inbound::Requester(requester::Input::GrantSealed { task, node, claim, sealed });
        let jobs = self.requester.jobs();
        let parts = self.recipient(node).and_then(|to| {
            let (job, plan, _) = jobs.plan(&task).ok_or("its job is not known any more")?;
            let recipe = jobs.recipe_of(&task).ok_or("its job is not known any more")??;
            let memo = Memo { person: job.person.clone(), project: job.project, label: job.label.clone() };
            let memo = self.ports.studio.borrow().key.map(|key| (memo, key));
            let project = self.requester.project_of(&job.job).map(|rules| rules.signed().clone());
            let reach = job.reach.clone();
            let (pool, now_ms) = (self.pool(), clock::wall_ms());
            Ok(GrantParts { pool, claim, class, recipe, reach, project, memo, plan, attempt, to, now_ms })
        });
        let parts = match parts {
            Ok(parts) => parts,
            Err(why) => return self.inside.push_back(answer(Err(why))),
        };
        let (key, blobs) = (self.me.node.clone(), self.ports.store.blobs.clone());
        self.errand("seal a grant", async move { Some(answer(seal::grant(parts, key, blobs).await)) });
    }

    fn fetch_result(
        &mut self,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        grant: ContentHash,
        finished: Box<Finished>,
    ) {
        let (me, kem) = (self.id, self.me.kem.clone());
        let (network, blobs) = (self.ports.network.clone(), self.ports.store.blobs.clone());
        let (looking, recipe) = (self.looking.clone(), self.requester.jobs().recipe_of(&task));
        let graph = recipe.and_then(Result::ok).and_then(|recipe| Graph::parse(&recipe.graph).ok());
        let expected = graph.map(|graph| Expected::of(&graph)).unwrap_or_default();
        self.errand("fetch a result", async move {
            let fetch = async {
                let (outputs, refs) =
                    seal::open_keys(&finished, grant, node, me, &kem).map_err(FetchTrouble::DoesNotVerify)?;
                if node != me {
                    fetch_all(&network, node, task, attempt, refs).await.map_err(result_trouble)?;
                    prove(&outputs, &blobs).await?;
                }
                let suspects = looking.look(&outputs, expected, &blobs).await;
                Ok(Brought { outputs, suspects })
            };
            let result = fetch.await;
            Some(Inbound::Requester(requester::Input::Fetched { task, attempt, result }))
        });
    }

    pub(super) fn perform_for_renderer(&mut self, action: renderer::Action) {
        use renderer::Action as A;
        let action = match link::sort_for_renderer(action) {
            Sorted::Asks(question) => return self.ask(*question),
            Sorted::Does(action) => action,
        };
        match action {
            A::Examine { claim, from, slot, grant } => self.examine(claim, from, &slot, *grant),
            A::FetchInputs { key, blobs, within } => self.fetch_inputs(key, blobs, within),
            A::Run { key, slot } => self.run_task(key, &slot),
            A::CancelRun { task, attempt } => {
                let executor = self.ports.executor.clone();
                self.errand("cancel a run", async move {
                    executor.cancel(task, attempt).await;
                    None
                });
            }
            A::FreeMemory { slot } => self.free_memory(slot),
            A::Smoke { task, slot } => self.smoke(task, &slot),
            A::LookAtSmoke { task, outputs } => self.look_at_smoke(task, outputs),
            A::DropSmoke { roots } => self.drop_blobs(roots),
            A::SealResult { key, grant, outcome, wipe } => self.seal_result(key, grant, outcome, wipe),
            A::Serve { key, roots } if key.from != self.id => {
                self.shelf.serve(For::Results(key.task, key.attempt), key.from, roots);
            }
            A::Unserve { key } => {
                self.shelf.end(For::Results(key.task, key.attempt), key.from);
            }
            // On this machine results stay where they were made: our own job names them.
            A::DropResults { roots, .. } => self.drop_blobs(roots),
            A::DropInputs { key, roots } => {
                let fetching = self.fetching.remove(&key);
                self.drop_blobs_after(roots, fetching);
            }
            A::Reply { ticket, response } => self.reply(ticket, response),
            _ => {}
        }
    }

    fn slot_id(&self, name: &str) -> Option<SlotId> {
        self.picture.slots.iter().find(|view| view.url == name).map(|view| view.slot)
    }

    /// The checks of the envelope that need this node's memory happen here; opening and preflight in a task.
    fn examine(&mut self, claim: ClaimId, from: NodeId, slot: &str, grant: Grant) {
        let answer = move |result| Inbound::Renderer(renderer::Input::Examined { claim, result });
        let judged = match self.judge(from, &grant) {
            Ok(judged) => judged,
            Err(rejection) => return self.inside.push_back(answer(Err(rejection))),
        };
        let Some(slot) = self.slot_id(slot) else {
            let rejection = seal::not_taken(RefusalReason::NotReady, "its ComfyUI is gone");
            return self.inside.push_back(answer(Err(rejection)));
        };
        let (me, keys, executor) = (self.id, self.me.clone(), self.ports.executor.clone());
        let rules = self.rules(AttemptKey { from, task: judged.task, attempt: judged.attempt });
        let own = (from == me).then(|| self.own_spec(judged.task, judged.attempt));
        let bench = self.bench(slot);
        self.errand("examine a grant", async move {
            let bad = |why: String| seal::not_taken(RefusalReason::BadGrant, why);
            let examine = || {
                let spec = match own {
                    Some(own) => Some(own.map_err(bad)?),
                    None => match seal::open_grant(&grant, me, &keys.kem).map_err(bad)? {
                        GrantPayload::Inline(spec) => Some(spec),
                        // Looked at once it is here.
                        GrantPayload::Blob { .. } => None,
                    },
                };
                if let Some(spec) = spec {
                    let judged = bench.judge(from, &spec).and_then(|()| vet(&rules, &spec));
                    judged.and_then(|()| preflight(&executor, slot, &spec)).map_err(|failure| Rejection {
                        refusal: seal::not_taken(reason_of(failure.class), failure.detail.clone()).refusal,
                        failure: Some(failure),
                    })?;
                }
                let hash = grant.terms.hash();
                let accepted = seal::accept(hash, judged.task, judged.attempt, &keys.node);
                Ok(Examination { accepted, ..judged.examination })
            };
            Some(answer(examine()))
        });
    }

    fn judge(&self, from: NodeId, grant: &Grant) -> Result<JudgedGrant, Rejection> {
        let bad = |why: String| seal::not_taken(RefusalReason::BadGrant, why);
        let terms = grant.terms.verify().map_err(|error| bad(error.to_string()))?;
        let accepted = seal::accept(terms.hash(), terms.task, terms.attempt, &self.me.node);
        let now_ms = clock::wall_ms();
        let mut examination =
            Examination { msg_id: terms.msg_id, expires_ms: now_ms, roots: terms.roots.clone(), accepted };
        if from != self.id {
            let header =
                open_header::<GrantPayload>(&grant.envelope).map_err(|error| bad(error.to_string()))?;
            let roster = self.picture.roster.clone().ok_or_else(|| bad("it is in no pool".into()))?;
            let holdings = self.renderer.holdings();
            let deputy = self.renderer.shows_right(self.now(), from, terms.claim);
            let desk = Desk {
                pool: roster.pool(),
                me: self.id,
                epoch: roster.settings().epoch,
                standing: &|node| match self.picture.member(node, now_ms) {
                    Some(member) if member.roles.submit || deputy => Standing::Admitted,
                    Some(_) => Standing::LacksRole,
                    None if roster.member(node, now_ms).is_some() => Standing::Revoked,
                    None if roster.revocation(&(*node).into()).is_some() => Standing::Revoked,
                    None => Standing::Unknown,
                },
                seen: &|node, msg_id| holdings.has_seen(node, msg_id),
                purged_ms: holdings.purged_ms(),
            };
            judge_header(&header, now_ms, &desk).map_err(|refused| match refused {
                Refused::RosterBehind { .. } => {
                    seal::not_taken(RefusalReason::NotReady, "its roster is behind yours; it is catching up")
                }
                other => bad(other.to_string()),
            })?;
            let named = (header.from, header.task, header.attempt, header.msg_id);
            if named != (from, terms.task, terms.attempt, terms.msg_id) {
                return Err(bad("the envelope and the terms are of different attempts".into()));
            }
            examination.expires_ms = header.expires_ms;
        }
        Ok(JudgedGrant { task: terms.task, attempt: terms.attempt, examination })
    }

    /// A task of our own, for our own ComfyUI: nothing was sealed.
    fn own_spec(&self, task: TaskId, attempt: u32) -> Result<TaskSpec, String> {
        let jobs = self.requester.jobs();
        let (job, plan, _) = jobs.plan(&task).ok_or("its job is not known any more")?;
        let recipe = jobs.recipe_of(&task).ok_or("its job is not known any more")??;
        seal::spec(&recipe, &job.reach, None, plan, attempt)
    }

    /// What an attempt must keep to.
    pub(super) fn rules(&self, key: AttemptKey) -> Rules {
        let whose = if key.is_own(self.id) { Whose::OwnMachine } else { Whose::Others };
        Rules { policy: self.ports.policy.clone(), whose }
    }

    fn fetch_inputs(&mut self, key: AttemptKey, mut blobs: Vec<BlobRef>, within: Duration) {
        let answer = move |result| Inbound::Renderer(renderer::Input::InputsFetched { key, result });
        if key.from == self.id {
            return self.inside.push_back(answer(Ok(())));
        }
        let grant = self.renderer.holdings().held(&key).map(|held| held.acceptance.clone());
        let slot = grant.as_ref().and_then(|held| self.slot_id(&held.slot));
        let bench = slot.map(|slot| self.bench(slot));
        let (me, kem, rules) = (self.id, self.me.kem.clone(), self.rules(key));
        let store = self.ports.store.blobs.clone();
        self.fetching.retain(|_, fetching| !fetching.is_over());
        let (fetching, stopped, over) = Fetching::begin();
        self.fetching.insert(key, fetching);
        let (network, broom) = (self.ports.network.clone(), self.broom.clone());
        broom.pardon(blobs.iter().map(|blob| blob.root));
        self.errand("fetch inputs", async move {
            // What is here and being removed must be gone before it is asked for.
            drop(broom.sweeping().await);
            let fetch = async |blobs| {
                let fetched = fetch_all(&network, key.from, key.task, key.attempt, blobs).await;
                fetched.map_err(input_trouble)
            };
            let fetched = async {
                // A task that travels as a blob is looked at before anything else of it is fetched.
                let payload = grant.and_then(|held| seal::open_grant(&held.grant, me, &kem).ok());
                if let Some(payload) = payload
                    && let GrantPayload::Blob { root, .. } = payload
                    && let Some(at) = blobs.iter().position(|blob| blob.root == root)
                {
                    fetch(vec![blobs.swap_remove(at)]).await?;
                    let spec = seal::payload_spec(payload, key.task, key.attempt, &store).await;
                    let bad = |why| InputTrouble::Failed(Failure::new(FailureClass::Transfer, why));
                    let spec = spec.map_err(bad)?;
                    if let Some(bench) = &bench {
                        bench.judge(key.from, &spec).map_err(InputTrouble::Failed)?;
                    }
                    vet(&rules, &spec).map_err(InputTrouble::Failed)?;
                }
                fetch(blobs).await
            };
            let fetched = tokio::select! {
                () = stopped.cancelled() => return None,
                fetched = tokio::time::timeout(within, fetched) => fetched.unwrap_or_else(|_| Err(too_late(within))),
            };
            drop(over);
            Some(answer(fetched))
        });
    }

    fn run_task(&mut self, key: AttemptKey, slot: &str) {
        let answer = move |result| Inbound::Renderer(renderer::Input::RunAnswered { key, result });
        let lost = |why: &str| RunTrouble::Failed(Failure::new(FailureClass::ComfyuiDied, why));
        let Some(slot) = self.slot_id(slot) else {
            return self.inside.push_back(answer(Err(lost("its ComfyUI is not configured any more"))));
        };
        let Some(held) = self.renderer.holdings().held(&key) else {
            return self.inside.push_back(answer(Err(RunTrouble::NotNow("it is not held any more".into()))));
        };
        let grant = held.acceptance.clone();
        let own = (key.from == self.id).then(|| self.own_spec(key.task, key.attempt));
        let (me, kem) = (self.id, self.me.kem.clone());
        let (executor, blobs) = (self.ports.executor.clone(), self.ports.store.blobs.clone());
        let (most, most_output_bytes) = (self.config.time_limit, self.config.output_bytes);
        let rules = self.rules(key);
        let bench = self.bench(slot);
        let fresh = self.fresh.remove(&key);
        self.errand("start a run", async move {
            let start = async {
                let bad = |why: String| RunTrouble::Failed(Failure::new(FailureClass::Transfer, why));
                let mut spec = match own {
                    Some(own) => own.map_err(bad)?,
                    None => {
                        let payload = seal::open_grant(&grant.grant, me, &kem).map_err(bad)?;
                        let spec = seal::payload_spec(payload, key.task, key.attempt, &blobs).await;
                        spec.map_err(bad)?
                    }
                };
                let judged = bench.judge(key.from, &spec).and_then(|()| vet(&rules, &spec));
                judged.and_then(|()| preflight(&executor, slot, &spec)).map_err(RunTrouble::Failed)?;
                let asked = Duration::from_millis(spec.time_limit_ms);
                let run = Run {
                    slot,
                    task: key.task,
                    attempt: key.attempt,
                    graph: Zeroizing::new(std::mem::take(&mut spec.graph)),
                    extra_data: Zeroizing::new(std::mem::take(&mut spec.extra_data)),
                    inputs: std::mem::take(&mut spec.inputs),
                    previews: spec.previews,
                    full_hygiene: spec.full_hygiene,
                    fresh,
                    time_limit: asked.min(most),
                    rules,
                    most_output_bytes,
                };
                executor.run(run).await.map_err(|error| match error {
                    RunError::NoSuchSlot(_) => {
                        RunTrouble::Failed(Failure::new(FailureClass::ComfyuiDied, error.to_string()))
                    }
                    other => RunTrouble::NotNow(other.to_string()),
                })
            };
            Some(answer(start.await))
        });
    }

    fn seal_result(&mut self, key: AttemptKey, grant: ContentHash, outcome: RunOutcome, wipe: Option<Wipe>) {
        let (to, outcome) = match self.recipient(key.from) {
            Ok(to) => (to, self.told(key.from, outcome)),
            Err(why) => {
                if let RunOutcome::Done { outputs, .. } = outcome {
                    self.drop_blobs(outputs.iter().map(|output| output.root).collect());
                }
                (None, RunOutcome::Failed(Failure::new(FailureClass::Revoked, why)))
            }
        };
        let (pool, now_ms) = (self.pool(), clock::wall_ms());
        let AttemptKey { task, attempt, .. } = key;
        let parts = ResultParts { pool, task, attempt, grant, to, outcome, wipe, now_ms };
        let (node, blobs) = (self.me.node.clone(), self.ports.store.blobs.clone());
        let held = self.renderer.holdings().held(&key).filter(|_| key.from != self.id);
        let granted = held.map(|held| held.acceptance.clone());
        let (me, kem) = (self.id, self.me.kem.clone());
        self.errand("seal a result", async move {
            let keep_ms = match granted {
                Some(acceptance) => seal::keep_ms(&acceptance.grant, me, &kem, &blobs).await,
                None => None,
            };
            let (finished, roots) = seal::finished(parts, &node, &blobs).await;
            let finished = Box::new(finished);
            Some(Inbound::Renderer(renderer::Input::Sealed { key, finished, roots, keep_ms }))
        });
    }

    /// An outcome as its requester is told it.
    fn told(&self, from: NodeId, outcome: RunOutcome) -> RunOutcome {
        match outcome {
            RunOutcome::Failed(failure) if self.picture.is_foreign(&from, clock::wall_ms()) => {
                RunOutcome::Failed(discretion::failure(failure))
            }
            outcome => outcome,
        }
    }

    pub(super) fn ran(&mut self, event: executor::Event) {
        use executor::Event as E;
        let (task, attempt, event) = match event {
            E::Started { task, attempt } => (task, attempt, RunEvent::Started),
            E::Progress { task, attempt, node, step, max, nodes_done, nodes_total } => {
                (task, attempt, RunEvent::Progress { node, step, max, nodes_done, nodes_total })
            }
            E::Preview { task, attempt, format, bytes } => {
                if bytes.len() > PREVIEW_LIMIT {
                    return;
                }
                let preview = Preview { mime: format.to_owned(), bytes: bytes.to_vec() };
                (task, attempt, RunEvent::Preview(preview))
            }
            E::Ended { task, attempt, outcome, wipe } => {
                let outcome = match outcome {
                    executor::Outcome::Done { outputs, exec_ms } => RunOutcome::Done { outputs, exec_ms },
                    executor::Outcome::Failed(failure) => RunOutcome::Failed(failure),
                };
                (task, attempt, RunEvent::Ended { outcome, wipe })
            }
        };
        self.feed(Inbound::Renderer(renderer::Input::Ran { task, attempt, event }));
    }
}

/// A grant whose envelope may be opened.
#[derive(Debug)]
struct JudgedGrant {
    task: TaskId,
    attempt: u32,
    examination: Examination,
}

/// Whether policy lets this task run here.
fn vet(rules: &Rules, spec: &TaskSpec) -> Result<(), Failure> {
    let names: Vec<String> = spec.inputs.iter().map(|input| input.name.clone()).collect();
    let policy = rules.policy.borrow().clone();
    policy.check(&spec.graph, &spec.extra_data, &names, rules.whose)
}

fn preflight(executor: &Executor, slot: SlotId, spec: &TaskSpec) -> Result<(), Failure> {
    let names: Vec<String> = spec.inputs.iter().map(|input| input.name.clone()).collect();
    executor.preflight(slot, &spec.graph, &names)
}

fn reason_of(class: FailureClass) -> RefusalReason {
    match class {
        FailureClass::MissingModelOrClass => RefusalReason::MissingModel,
        FailureClass::Policy => RefusalReason::NotAllowed,
        FailureClass::ComfyuiDied => RefusalReason::NotReady,
        _ => RefusalReason::BadGrant,
    }
}
