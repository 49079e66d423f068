//! One value of everything that travels, every field filled in.

use super::*;

fn text() -> String {
    "text".into()
}

fn comfyui() -> Vec<ComfyuiView> {
    vec![ComfyuiView { url: text(), configured: true, version: Some(text()), trouble: Some(text()) }]
}

fn gpu() -> GpuView {
    GpuView {
        name: text(),
        vram_mib: Some(1),
        vram_free_mib: Some(1),
        cc: Some(89),
        utilisation_percent: Some(1),
        temperature_c: Some(1),
        power_w: Some(1),
    }
}

fn passphrase() -> Option<Passphrase> {
    Some(Passphrase::new(text()))
}

fn proposal() -> ProposalView {
    ProposalView {
        id: ContentHash::of(b"proposal"),
        short: text(),
        epoch: 1,
        change: text(),
        signed_by: vec![text()],
        signatures_missing: 1,
        mine: true,
    }
}

fn log_line() -> LogLine {
    LogLine { at_ms: 1, task: Some(TASK), index: Some(0), text: text(), code: "offered".into() }
}

fn progress() -> ProgressView {
    ProgressView { node: text(), step: 1, max: 2, nodes_done: 3, nodes_total: 4 }
}

fn task() -> TaskView {
    TaskView {
        task: TASK,
        short: text(),
        index: 0,
        state: TaskState::Running,
        node: Some(NodeRef { id: NODE, name: text(), studio: Some(text()) }),
        attempts: 1,
        progress: Some(progress()),
        outputs: vec![OutputView {
            index: 0,
            node: text(),
            kind: OutputKind::Image,
            filename: text(),
            bytes: 1,
            suspect: Some(text()),
            suspect_code: Some(text()),
        }],
        failures: vec![FailureView { node: text(), class: FailureClass::Execution, why: text() }],
        usage: UsageView { exec_ms: Some(1), rgs_milli: Some(1) },
        waiting: Some(text()),
        waiting_code: Some(text()),
        full_hygiene: true,
        wipes: vec![WipeView {
            attempt: 1,
            node: text(),
            hygiene: scenemesh_protocol::advert::Hygiene::Full,
            wiped: WipeCounts { history: 1, ..WipeCounts::default() },
            left: WipeCounts::default(),
        }],
        varied: vec![Setting { path: text(), value: text() }],
    }
}

fn job() -> JobView {
    JobView {
        job: JOB,
        short: text(),
        label: text(),
        person: Some(text()),
        project: Some(text()),
        hidden: false,
        state: JobState::Running,
        class: Class::Normal,
        reach: ReachWords::Pool,
        created_ms: 1,
        kept_on: Some(text()),
        kept_for: Some(text()),
        tasks: vec![task()],
    }
}

fn peer() -> PeerView {
    PeerView {
        node: NODE,
        name: text(),
        studio: text(),
        link: LinkState::Up,
        why: Some(text()),
        address: Some(text()),
        rtt_us: Some(1),
        agent: Some(text()),
        skew_ms: Some(-1),
        availability: Some(Availability::Available),
        hygiene: Some(Hygiene::Full),
        slots_total: 1,
        slots_free: 1,
        queue: 1,
        gpus: vec![gpu()],
        models: Some(1),
        comfyui: Some(text()),
        last_seen_ms: Some(1),
    }
}

fn status() -> StatusReply {
    StatusReply {
        version: text(),
        uptime_s: 1,
        data_dir: text(),
        standing: Standing::Member,
        node: NODE,
        name: Some(text()),
        pool: Some(POOL),
        pool_name: Some(text()),
        studio_name: Some(text()),
        epoch: Some(1),
        solo: false,
        why: Some(text()),
        warnings: vec![text()],
        peers_up: 1,
        peers_total: 1,
        listening: vec![text()],
        porch: vec![text()],
        slots: vec![SlotView {
            url: text(),
            state: SlotState::Busy,
            why: Some(text()),
            task: Some(TASK),
            comfyui: Some(text()),
            models: 1,
            hygiene: Some(Hygiene::Partial),
            parked: Some(text()),
        }],
        gpus: vec![gpu()],
        tasks_queued: 1,
        tasks_running: 1,
    }
}

fn pool() -> PoolReply {
    PoolReply {
        pool: POOL,
        name: text(),
        epoch: 1,
        studios: vec![StudioView { id: STUDIO, name: text(), weight: 1, admins: 1, mine: true }],
        members: vec![MemberView { node: NODE, name: text(), studio: text(), roles: vec![text()], me: true }],
        proposals: vec![proposal()],
        invites: vec![InviteView {
            state: InviteState::Used,
            new_studio: Some(text()),
            roles: vec![text()],
            expires_ms: 1,
            used_by: Some(NODE),
        }],
        unlocked: true,
        warnings: vec![text()],
    }
}

fn node() -> NodeRef {
    NodeRef { id: NODE, name: text(), studio: Some(text()) }
}

fn shut() -> ShutView {
    ShutView {
        node: NODE,
        name: text(),
        studio: text(),
        state: ShutState::Blocked,
        reason: text(),
        until_ms: Some(1),
    }
}

pub(super) fn about_keys(judge: &mut Judge) {
    let request = RevokeRequest {
        node: Some(text()),
        admin: Some(text()),
        reason: text(),
        void: true,
        passphrase: passphrase(),
    };
    judge.value("RevokeRequest", request);
    let reply = RevokeReply {
        node: Some(NODE),
        key: text(),
        name: text(),
        studio: text(),
        reason: text(),
        confirmed: vec![node()],
        later: vec![node()],
        attempts_there: 1,
        attempts_here: 1,
        resigned: 1,
        fallen: vec![text()],
    };
    judge.value("RevokeReply", reply);
    judge.value("BlockRequest", BlockRequest { node: text(), reason: text(), lift: true });
    let blocked = BlockReply { node: NODE, name: text(), studio: text(), until_ms: Some(1) };
    judge.value("BlockReply", blocked);
    judge.value("RotateRequest", RotateRequest { countersign: Some(text()), passphrase: passphrase() });
    let state = RotateState::Requested;
    judge.value(
        "RotateReply",
        RotateReply { state, code: Some(text()), name: Some(text()), old: NODE, new: NODE },
    );
    let key = AdminKeyView { key: text(), here: true, recovery: false, revoked: Some(text()) };
    judge.value(
        "AdminsReply",
        AdminsReply {
            studio: text(),
            keys: vec![key],
            file: text(),
            on_file: Some(text()),
            sealed: Some(true),
        },
    );
    judge.value("NewAdminRequest", NewAdminRequest { passphrase: passphrase() });
    let code = Passphrase::new(text());
    judge.value("RecoverRequest", RecoverRequest { code, passphrase: passphrase() });
    judge.value(
        "InstalledReply",
        InstalledReply { key: text(), file: text(), aside: Some(text()), sealed: true },
    );
    judge.value(
        "ChangeAdminsRequest",
        ChangeAdminsRequest { key: text(), remove: true, passphrase: passphrase() },
    );
    judge.value(
        "ChangeAdminsReply",
        ChangeAdminsReply { key: text(), proposal: proposal(), in_force: true, resigned: 1 },
    );
}

pub(super) fn requests(judge: &mut Judge) {
    judge.value(
        "InitRequest",
        InitRequest { pool: text(), studio: text(), name: text(), passphrase: passphrase(), solo: false },
    );
    judge.value(
        "InviteRequest",
        InviteRequest {
            roles: vec![text()],
            new_studio: Some(text()),
            expires_s: Some(1),
            passphrase: passphrase(),
            unlock: false,
        },
    );
    judge.value("JoinPreviewRequest", JoinPreviewRequest { code: text() });
    judge.value(
        "JoinRequest",
        JoinRequest { code: text(), name: Some(text()), passphrase: passphrase(), no_passphrase: false },
    );
    judge.value("ApproveRequest", ApproveRequest { proposal: Some(text()), passphrase: passphrase() });
    judge.value(
        "ProjectRequest",
        ProjectRequest {
            name: text(),
            max_reach: ReachWords::Pool,
            nodes: vec![text()],
            full_hygiene: true,
            retention_s: Some(1),
            passphrase: passphrase(),
        },
    );
    judge.value(
        "ProjectSetRequest",
        ProjectSetRequest {
            project: text(),
            max_reach: Some(ReachWords::Machine),
            nodes: Some(vec![text()]),
            full_hygiene: Some(true),
            retention_s: Some(1),
            closed: Some(true),
            passphrase: passphrase(),
        },
    );
    judge.value("UserRequest", UserRequest { name: text(), role: Role::Submit });
    judge.value("UserRemoveRequest", UserRemoveRequest { name: text() });
    judge.value(
        "SubmitRequest",
        SubmitRequest {
            label: text(),
            workflow: text(),
            set: vec![Setting { path: text(), value: text() }],
            inputs: vec![InputName { name: text(), input: text() }],
            count: 1,
            vary: vec![variation()],
            then: vec![StageRequest {
                workflow: text(),
                set: vec![Setting { path: text(), value: text() }],
                inputs: vec![InputName { name: text(), input: text() }],
                count: 1,
                vary: vec![variation()],
                feeds: vec![FeedRequest { name: text(), node: text(), file: 1, stage: Some(1) }],
            }],
            class: Class::Urgent,
            reach: Some(ReachWords::Studio),
            project: Some(text()),
            needs: NeedsRequest { vram_mib: Some(1), min_cc: Some(89) },
            on_suspect: OnSuspect::Retry,
            keep_on: Some(text()),
            previews: true,
            full_hygiene: false,
        },
    );
}

fn variation() -> Variation {
    Variation { path: text(), values: vec![text()] }
}

pub(super) fn replies(judge: &mut Judge) {
    judge.value(
        "InitReply",
        InitReply {
            pool: POOL,
            pool_name: text(),
            studio: STUDIO,
            studio_name: text(),
            node: NODE,
            name: text(),
            admin_key: text(),
            sealed: true,
            recovery_code: Some(text()),
            comfyui: comfyui(),
        },
    );
    judge.value(
        "InviteReply",
        InviteReply {
            code: Some(text()),
            check: Some(text()),
            expires_ms: Some(1),
            new_studio: Some(text()),
            pending: 1,
        },
    );
    judge.value(
        "JoinPreview",
        JoinPreview { pool: POOL, inviter: NODE, check: text(), addresses: vec![text()] },
    );
    judge.value(
        "JoinReply",
        JoinReply {
            state: JoinState::AwaitingApproval,
            pool: POOL,
            pool_name: Some(text()),
            studio_name: Some(text()),
            node: NODE,
            name: text(),
            signatures_missing: 1,
            peers_up: 1,
            notes: vec![text()],
            comfyui: comfyui(),
        },
    );
    judge.value("ApproveReply", ApproveReply { proposal: proposal(), in_force: true });
    let project = ProjectView {
        project: ProjectId::from_bytes([6; 16]),
        short: text(),
        name: text(),
        version: 1,
        issued_ms: 1,
        max_reach: ReachWords::Studio,
        nodes: Some(vec![NodeRef { id: NODE, name: text(), studio: Some(text()) }]),
        hygiene: Hygiene::Full,
        retention_s: Some(1),
        closed: false,
    };
    judge.value("ProjectsReply", ProjectsReply { projects: vec![project] });
    let user = UserView { name: text(), role: Role::View, since_ms: 1 };
    judge.value("UsersReply", UsersReply { users: vec![user] });
    let given = UserReply { name: text(), role: Role::Admin, token: text(), url: text() };
    judge.value("UserReply", given);
    judge.value("LeaveReply", LeaveReply { pool_name: Some(text()), told: 1, solo: false });
    judge.value("StatusReply", status());
    judge.value("PoolReply", pool());
    judge.value("PeersReply", PeersReply { peers: vec![peer()], shut: vec![shut()], outside: Some(text()) });
    let check = CheckView { name: text(), state: CheckState::Warn, found: text(), hint: Some(text()) };
    judge.value("DoctorReply", DoctorReply { checks: vec![check] });
    judge.value("InputReply", InputReply { input: text(), bytes: 1 });
    judge.value("ImportReply", ImportReply { records: 1, bytes: 1 });
    judge.value("RebuildReply", RebuildReply { records: 1, took_ms: 1 });
    judge.value("JobsReply", JobsReply { jobs: vec![job()] });
    judge.value("WhyReply", WhyReply { id: text(), why: text(), code: "in_line".into() });
    judge.value("LogReply", LogReply { lines: vec![log_line()] });
    judge.value("ErrorBody", ErrorBody::new(ErrorCode::UiFormat, text()).with_hint(text()));
    for event in [
        Event::Job { job: job() },
        Event::Task { job: JOB, task: Box::new(task()) },
        Event::Progress { job: JOB, task: TASK, progress: progress() },
        Event::Preview { job: JOB, task: TASK },
        Event::Log { job: JOB, line: log_line() },
    ] {
        judge.value("Event", event);
    }
}

pub(super) fn policies(judge: &mut Judge) {
    judge.value(
        "PolicyChangeRequest",
        PolicyChangeRequest { change: PolicyChange::Allow, classes: vec![text()] },
    );
    judge.value("PolicyClassRequest", PolicyClassRequest { class: text() });
    judge.value("PolicyCheckRequest", PolicyCheckRequest { workflow: text() });
    let lend = LendView {
        to: Some(vec![text()]),
        classes: Some(vec![Class::Batch]),
        max_vram_mib: Some(1),
        hours: Some(vec![text()]),
        open: true,
    };
    judge.value(
        "PolicyReply",
        PolicyReply {
            version: 1,
            comfyui: text(),
            listed_allowed: 1,
            listed_denied: 1,
            allowed: vec![text()],
            denied: vec![text()],
            lend,
        },
    );
    let (family, from) = (Some(text()), Some(text()));
    let reason = PolicyReason::Family;
    judge.value(
        "PolicyClassReply",
        PolicyClassReply {
            class: text(),
            allowed: false,
            allowed_own: true,
            reason,
            family,
            from,
            words: text(),
        },
    );
    let (input, family, kind) = (Some(text()), Some(text()), FindingKind::Literal);
    let finding = FindingView { node: text(), class: text(), input, kind, family, words: text() };
    let elsewhere = ElsewhereView { node: NODE, name: text(), studio: text(), takes: true, words: text() };
    judge.value(
        "PolicyCheckReply",
        PolicyCheckReply { refused: true, findings: vec![finding], elsewhere: vec![elsewhere] },
    );
}

pub(super) fn about_lending(judge: &mut Judge) {
    judge.value("LendRequest", LendRequest { say: LendWord::Now, until: Some(text()) });
    let slot = || SlotBackView {
        comfyui: text(),
        state: SlotBackState::Free,
        words: text(),
        vram_before_mib: Some(2),
        vram_after_mib: Some(1),
    };
    let running = LentTaskView {
        studio: Some(text()),
        comfyui: text(),
        step: 1,
        max: 2,
        left_s: Some(1),
        stopping: true,
    };
    judge.value(
        "LendReply",
        LendReply {
            say: LendWord::Off,
            until_ms: Some(1),
            until: Some(text()),
            state: LendState::GivingBack,
            words: text(),
            finish_s: 30,
            running: vec![running],
            slots: vec![slot()],
            last: Some(GivenBackView { at_ms: 1, took_ms: 1, slots: vec![slot()] }),
        },
    );
    judge.value("DrainRequest", DrainRequest { draining: true, exit: true, within_s: Some(1) });
    judge.value(
        "DrainReply",
        DrainReply { draining: true, exit: true, running: 1, results: 1, left_s: Some(1) },
    );
}
