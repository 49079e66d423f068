use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::advert::{Availability, Hygiene};
use scenemesh_protocol::api::{
    ApproveReply, ApproveRequest, CheckState, CheckView, ComfyuiView, DoctorReply, ElsewhereView, ErrorBody,
    ErrorCode, Event, FailureView, FindingKind, FindingView, GpuView, ImportReply, InitReply, InitRequest,
    InputName, InputReply, InviteReply, InviteRequest, InviteState, InviteView, JobState, JobView, JobsReply,
    JoinPreview, JoinPreviewRequest, JoinReply, JoinRequest, JoinState, LeaveReply, LendView, LinkState,
    LogLine, LogReply, MemberView, NeedsRequest, NodeRef, OutputView, Passphrase, PeerView, PeersReply,
    PolicyChange, PolicyChangeRequest, PolicyCheckReply, PolicyCheckRequest, PolicyClassReply,
    PolicyClassRequest, PolicyReason, PolicyReply, PoolReply, ProgressView, ProposalView, ReachWords,
    RebuildReply, Setting, SlotState, SlotView, Standing, StatusReply, StudioView, SubmitRequest, TaskState,
    TaskView, UsageView, WhyReply, WipeCounts, WipeView,
};
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId, PoolId, StudioId, TaskId};
use scenemesh_protocol::task::{Class, FailureClass, OutputKind};
use serde::Serialize;
use serde_json::Value;

use super::super::routes;
use super::DOCUMENT;

const NODE: NodeId = NodeId::from_bytes([1; 32]);
const POOL: PoolId = PoolId::from_bytes([2; 16]);
const STUDIO: StudioId = StudioId::from_bytes([3; 16]);
const JOB: JobId = JobId::from_bytes([4; 16]);
const TASK: TaskId = TaskId::from_bytes([5; 16]);

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[test]
fn every_route_is_described_with_its_role_and_no_other() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let role: scenemesh_protocol::api::Role =
                serde_json::from_value(operation["x-role"].clone()).unwrap();
            described.insert((method.clone(), path.clone(), role));
            let holes = path.matches('{').count();
            let given = operation["parameters"].as_array().into_iter().flatten();
            let in_path = given.filter(|parameter| parameter["in"] != "query").count();
            assert_eq!(in_path, holes, "{method} {path}: parameters of the path");
        }
    }
    let known: BTreeSet<_> = routes()
        .known
        .into_iter()
        .map(|(method, path, role)| (method.to_owned(), path.to_owned(), role))
        .collect();
    assert_eq!(described, known);
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                    found.insert(to.to_owned());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for to in &found {
        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is of no use");
    }
}

/// Holds values against the schemas of a document.
struct Judge {
    document: Value,
    /// Schemas of objects and enums that a value was held against.
    seen: BTreeSet<String>,
}

impl Judge {
    fn hold(&mut self, schema: &Value, value: &Value, at: &str) {
        if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
            self.seen.insert(to.rsplit('/').next().unwrap().to_owned());
            let schema = self.document.pointer(to.trim_start_matches('#')).unwrap().clone();
            return self.hold(&schema, value, to);
        }
        if let Some(options) = schema.get("oneOf").and_then(Value::as_array) {
            let event = &value["event"];
            let fits = options.iter().find(|option| match option.get("$ref").and_then(Value::as_str) {
                Some(to) if event.is_string() => {
                    let schema = self.document.pointer(to.trim_start_matches('#')).unwrap();
                    schema.pointer("/properties/event/const") == Some(event)
                }
                Some(_) => !value.is_null(),
                None => value.is_null(),
            });
            let fits = fits.unwrap_or_else(|| panic!("{at}: nothing fits {value}")).clone();
            return self.hold(&fits, value, at);
        }
        if let Some(known) = schema.get("enum").and_then(Value::as_array) {
            assert!(known.contains(value), "{at}: {value} is not in the list");
        }
        match value {
            Value::Object(fields) if schema["additionalProperties"].is_object() => {
                fields.values().for_each(|value| self.hold(&schema["additionalProperties"], value, at));
            }
            Value::Object(fields) => {
                let properties =
                    schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: no properties"));
                let named: Vec<&String> = fields.keys().collect();
                let described: Vec<&String> = properties.keys().collect();
                assert_eq!(
                    named.iter().collect::<BTreeSet<_>>(),
                    described.iter().collect::<BTreeSet<_>>(),
                    "{at}: the fields"
                );
                for (name, value) in fields {
                    self.hold(&properties[name], value, &format!("{at}.{name}"));
                }
            }
            Value::Array(items) => {
                assert_eq!(schema["type"], "array", "{at}");
                assert!(!items.is_empty(), "{at}: an example with nothing in it shows nothing");
                items.iter().for_each(|item| self.hold(&schema["items"], item, at));
            }
            Value::String(_) => self.is(schema, "string", at),
            Value::Bool(_) => self.is(schema, "boolean", at),
            Value::Number(_) => self.is(schema, "integer", at),
            Value::Null => panic!("{at}: every field of an example is filled in"),
        }
    }

    fn is(&self, schema: &Value, kind: &str, at: &str) {
        if schema.get("const").is_some() {
            return;
        }
        let kinds = &schema["type"];
        let fits = kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.contains(&kind.into()));
        assert!(fits, "{at}: {kinds} instead of {kind}");
    }

    fn value(&mut self, name: &str, value: impl Serialize) {
        self.hold(
            &serde_json::json!({ "$ref": format!("#/components/schemas/{name}") }),
            &serde_json::to_value(value).unwrap(),
            name,
        );
    }
}

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
    }
}

fn job() -> JobView {
    JobView {
        job: JOB,
        short: text(),
        label: text(),
        state: JobState::Running,
        class: Class::Normal,
        reach: ReachWords::Pool,
        created_ms: 1,
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

fn requests(judge: &mut Judge) {
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
        "SubmitRequest",
        SubmitRequest {
            label: text(),
            workflow: text(),
            set: vec![Setting { path: text(), value: text() }],
            inputs: vec![InputName { name: text(), input: text() }],
            count: 1,
            class: Class::Urgent,
            reach: ReachWords::Studio,
            needs: NeedsRequest { vram_mib: Some(1), min_cc: Some(89) },
            previews: true,
            full_hygiene: false,
        },
    );
}

fn replies(judge: &mut Judge) {
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
    judge.value("LeaveReply", LeaveReply { pool_name: Some(text()), told: 1 });
    judge.value("StatusReply", status());
    judge.value("PoolReply", pool());
    judge.value("PeersReply", PeersReply { peers: vec![peer()] });
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

#[test]
fn every_schema_has_the_fields_that_are_sent() {
    let mut judge = Judge { document: document(), seen: BTreeSet::new() };
    requests(&mut judge);
    replies(&mut judge);
    policies(&mut judge);
    let all: BTreeSet<String> =
        document()["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(judge.seen, all, "every schema was held against a value");
}

fn policies(judge: &mut Judge) {
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

#[test]
fn lists_of_words_are_whole() {
    fn listed(name: &str) -> BTreeSet<String> {
        let words = &document()["components"]["schemas"][name]["enum"];
        words.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }
    fn words<T: Serialize>(values: &[T]) -> BTreeSet<String> {
        values.iter().map(|v| serde_json::to_value(v).unwrap().as_str().unwrap().to_owned()).collect()
    }
    let lists: BTreeMap<&str, BTreeSet<String>> = BTreeMap::from([
        ("Class", words(&[Class::Batch, Class::Normal, Class::Urgent])),
        ("PolicyChange", words(&[PolicyChange::Allow, PolicyChange::Deny, PolicyChange::Reset])),
        ("FindingKind", words(&[FindingKind::Class, FindingKind::Literal, FindingKind::Credential])),
        (
            "PolicyReason",
            words(&[
                PolicyReason::Listed,
                PolicyReason::Family,
                PolicyReason::Unlisted,
                PolicyReason::AllowedByHand,
                PolicyReason::DeniedByHand,
            ]),
        ),
        ("Hygiene", words(&[Hygiene::Full, Hygiene::Partial])),
        ("Availability", words(&[Availability::Available, Availability::NotNow])),
        ("CheckState", words(&[CheckState::Ok, CheckState::Warn, CheckState::Fail])),
        ("LinkState", words(&[LinkState::Up, LinkState::Down, LinkState::Refused])),
        ("Standing", words(&[Standing::Alone, Standing::Joining, Standing::Member, Standing::Outside])),
        ("SlotState", words(&[SlotState::Starting, SlotState::Ready, SlotState::Busy, SlotState::NotReady])),
        (
            "JobState",
            words(&[
                JobState::Queued,
                JobState::Running,
                JobState::Done,
                JobState::Failed,
                JobState::Cancelled,
            ]),
        ),
    ]);
    for (name, words) in lists {
        assert_eq!(listed(name), words, "{name}");
    }
}
