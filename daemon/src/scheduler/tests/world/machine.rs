//! One node of a world: its daemon's two machines, what outlives the daemon, and what it signs.

use super::*;
use crate::executor::policy::Policy;
use crate::scheduler::lend::{LendFacts, Owner};

#[derive(Debug)]
pub(in crate::scheduler::tests) struct Machine {
    pub(in crate::scheduler::tests) key: SecretKey,
    pub(in crate::scheduler::tests) id: NodeId,
    pub(in crate::scheduler::tests) name: String,
    pub(super) boots: u8,
    pub(in crate::scheduler::tests) requester: Requester,
    pub(in crate::scheduler::tests) renderer: Renderer,
    pub(in crate::scheduler::tests) journal: Vec<Line>,
    pub(super) commits: usize,
    pub(super) slots: Vec<String>,
    pub(in crate::scheduler::tests) inventory: Arc<Inventory>,
    pub(in crate::scheduler::tests) policy: Arc<Policy>,
    pub(in crate::scheduler::tests) roles: Roles,
    /// Jobs that it is to hold do not arrive.
    pub(in crate::scheduler::tests) cannot_keep: bool,
    /// Its studio; each machine has its own unless a test says otherwise.
    pub(in crate::scheduler::tests) studio: StudioId,
    pub(in crate::scheduler::tests) lend: LendFacts,
    pub(in crate::scheduler::tests) owner: Owner,
    /// Its ComfyUI does not react to an interrupt.
    pub(in crate::scheduler::tests) wedged: bool,
    /// Slots whose memory was let go.
    pub(in crate::scheduler::tests) freed: Vec<String>,
    /// Smoke renders that were begun.
    pub(in crate::scheduler::tests) smokes: usize,
    pub(in crate::scheduler::tests) comfy: Comfy,
    pub(in crate::scheduler::tests) refuses_grants: Option<Failure>,
    /// Whether results that are asked for are given.
    pub(in crate::scheduler::tests) serves: bool,
    /// Something stays behind in its ComfyUI.
    pub(in crate::scheduler::tests) wipes_badly: bool,
    /// Signs what it wiped with another key than its own.
    pub(in crate::scheduler::tests) forges_wipes: bool,
    other_key: SecretKey,
    /// Prompts in ComfyUI, which outlives the daemon: present until taken out.
    pub(super) prompts: BTreeSet<(TaskId, u32)>,
    /// Prompts that the running daemon waits for.
    pub(super) watched: BTreeSet<(TaskId, u32)>,
    /// How often ComfyUI really executed each.
    pub(in crate::scheduler::tests) executions: BTreeMap<(TaskId, u32), u32>,
    pub(in crate::scheduler::tests) blobs: BTreeSet<ContentHash>,
    pub(in crate::scheduler::tests) errands: VecDeque<Errand>,
    pub(super) asked: BTreeMap<u64, About>,
    pub(super) tickets: BTreeMap<Ticket, (usize, u64)>,
    pub(in crate::scheduler::tests) log: Vec<String>,
}

pub(super) fn output(task: TaskId, attempt: u32) -> OutputFile {
    OutputFile {
        node: "9".into(),
        kind: OutputKind::Image,
        filename: "a.png".into(),
        root: root(&format!("result of {task} {attempt}")),
        key: BlobKey::from_bytes([3; 32]),
        bytes: 10,
    }
}

impl Line {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Requester(record) => record.name(),
            Self::Renderer(record) => record.name(),
        }
    }
}

impl Machine {
    pub(super) fn new(n: usize, slots: usize) -> Self {
        let names = ["amber", "birch", "cedar", "damson", "elm"];
        let id = node_id(n);
        let mut machine = Self {
            key: secret(n),
            id,
            name: names[n].to_owned(),
            boots: 0,
            requester: Requester::new(id, IdSource::new([0; 32])),
            renderer: Renderer::new(id, IdSource::new([0; 32])),
            journal: Vec::new(),
            commits: 0,
            slots: (0..slots).map(|slot| format!("http://comfy-{slot}")).collect(),
            inventory: Arc::new(Inventory { classes: vec!["SaveImage".into()], models: Vec::new() }),
            policy: Arc::default(),
            roles: Roles::ALL,
            cannot_keep: false,
            studio: StudioId::from_bytes([u8::try_from(n).unwrap() + 50; 16]),
            lend: LendFacts::default(),
            owner: Owner::default(),
            wedged: false,
            freed: Vec::new(),
            smokes: 0,
            comfy: Comfy::default(),
            refuses_grants: None,
            serves: true,
            wipes_badly: false,
            forges_wipes: false,
            other_key: secret(99),
            prompts: BTreeSet::new(),
            watched: BTreeSet::new(),
            executions: BTreeMap::new(),
            blobs: BTreeSet::new(),
            errands: VecDeque::new(),
            asked: BTreeMap::new(),
            tickets: BTreeMap::new(),
            log: Vec::new(),
        };
        machine.die();
        machine
    }

    pub(super) fn die(&mut self) {
        self.boots += 1;
        let mut seed = [self.boots; 32];
        seed[..16].copy_from_slice(&self.id.as_bytes()[..16]);
        self.requester = Requester::new(self.id, IdSource::new(seed));
        self.renderer = Renderer::new(self.id, IdSource::new(seed));
        self.errands.clear();
        self.watched.clear();
        self.asked.clear();
        self.tickets.clear();
        self.log.push("— restart —".into());
    }

    /// How often it has written anything down.
    pub(in crate::scheduler::tests) fn commits(&self) -> usize {
        self.commits
    }

    pub(super) fn boot_id(&self) -> BootId {
        BootId::from_bytes([self.boots; 16])
    }

    pub(in crate::scheduler::tests) fn has_models(&mut self, names: &[&str]) {
        let models =
            names.iter().map(|name| scenemesh_protocol::task::ModelName::new("checkpoints", name)).collect();
        self.inventory = Arc::new(Inventory { classes: vec!["SaveImage".into()], models });
    }

    /// Nothing of anybody's task is left here.
    pub(in crate::scheduler::tests) fn is_wiped(&self) -> bool {
        self.prompts.is_empty() && self.blobs.is_empty()
    }

    pub(in crate::scheduler::tests) fn is_about_to_run(&self) -> bool {
        self.errands.iter().any(|errand| matches!(errand, Errand::Run { .. }))
    }

    pub(super) fn slot_facts(&self, n: usize) -> Vec<Slot> {
        let slot = |name: &String| Slot {
            name: name.clone(),
            state: SlotState::Ready,
            inventory: self.inventory.clone(),
            shared: self.inventory.clone(),
            warm: Vec::new(),
            vram_mib: Some(u32::try_from(8192 * (n + 1)).unwrap()),
            cc: Some(86),
            hygiene: Hygiene::Full,
        };
        self.slots.iter().map(slot).collect()
    }

    pub(super) fn asked_whom(&self, about: About, me: NodeId) -> NodeId {
        let of_attempt = |task: &TaskId, attempt: u32| {
            self.requester.jobs().attempt(task, attempt).map_or(me, |attempt| attempt.node)
        };
        match about {
            About::Offer { node, .. } | About::Delivery { node, .. } => node,
            About::Keep { job }
            | About::TakeBack { job }
            | About::KeepNews { job }
            | About::Release { job } => {
                self.requester.jobs().job(&job).and_then(|job| job.deputy).unwrap_or(me)
            }
            About::Grant { task, attempt }
            | About::Cancel { task, attempt }
            | About::Probe { task, attempt } => of_attempt(&task, attempt),
            About::Progress { key } | About::Finished { key } => key.from,
            // Answers to these change nothing that a timeout does not heal.
            About::Ack | About::Claim { .. } => me,
        }
    }

    pub(in crate::scheduler::tests) fn seal_grant(
        &self,
        n: u64,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        claim: scenemesh_protocol::ids::ClaimId,
    ) -> SealedGrant {
        let envelope = n.to_le_bytes().to_vec();
        let mut msg_id = [0; 16];
        msg_id[..8].copy_from_slice(&n.to_le_bytes());
        let roots = vec![BlobRef { root: root("input"), sealed_bytes: 5 }];
        let terms = GrantTerms {
            pool: POOL,
            claim,
            task,
            attempt,
            from: self.id,
            to: node,
            msg_id: MsgId::from_bytes(msg_id),
            envelope: ContentHash::of(&envelope),
            roots: roots.clone(),
            lease_ms: 15_000,
            class: Class::Normal,
            quote: None,
            memo: None,
        };
        SealedGrant { grant: Grant { terms: Signed::new(&terms, &self.key), envelope }, roots }
    }

    pub(super) fn examine(
        &self,
        grant: &Grant,
        now_ms: u64,
    ) -> Result<renderer::Examination, renderer::Rejection> {
        let terms = grant.terms.verify().unwrap();
        if let Some(failure) = &self.refuses_grants {
            let refusal = scenemesh_protocol::lease::Refusal {
                reason: scenemesh_protocol::lease::RefusalReason::BadGrant,
                detail: "not here".into(),
            };
            return Err(renderer::Rejection { refusal, failure: Some(failure.clone()) });
        }
        let accepted = AcceptedTerms {
            grant: terms.hash(),
            task: terms.task,
            attempt: terms.attempt,
            sigma_milli: None,
        };
        Ok(renderer::Examination {
            msg_id: terms.msg_id,
            expires_ms: now_ms + 600_000,
            roots: terms.roots.clone(),
            accepted: Signed::new(&accepted, &self.key),
        })
    }

    /// What every run leaves to be removed.
    pub(super) fn wipe(&self) -> Wipe {
        let left =
            if self.wipes_badly { vec![WipeCount { what: Wiped::Outputs, count: 1 }] } else { Vec::new() };
        let wiped = vec![WipeCount { what: Wiped::History, count: 1 }];
        Wipe { hygiene: Hygiene::Full, wiped, left }
    }

    pub(super) fn seal_result(
        &self,
        key: AttemptKey,
        grant: ContentHash,
        outcome: RunOutcome,
        wipe: Option<Wipe>,
    ) -> (Finished, Vec<ContentHash>) {
        let keys = b"keys".to_vec();
        let (outcome, exec_ms, roots) = match outcome {
            RunOutcome::Done { outputs, exec_ms } => {
                let roots: Vec<ContentHash> = outputs.iter().map(|output| output.root).collect();
                let blobs = roots.iter().map(|root| BlobRef { root: *root, sealed_bytes: 10 }).collect();
                (Outcome::Done { roots: blobs, keys: ContentHash::of(&keys) }, exec_ms, roots)
            }
            RunOutcome::Failed(failure) => (Outcome::Failed(failure), 0, Vec::new()),
        };
        let terms =
            FinishedTerms { pool: POOL, task: key.task, attempt: key.attempt, grant, outcome, exec_ms };
        let wipe = wipe.map(|Wipe { hygiene, wiped, left }| {
            let (task, attempt) = (key.task, key.attempt);
            let record = WipeRecord { pool: POOL, task, attempt, grant, hygiene, wiped, left };
            Signed::new(&record, if self.forges_wipes { &self.other_key } else { &self.key })
        });
        (Finished { terms: Signed::new(&terms, &self.key), keys, usage: None, wipe }, roots)
    }
}
