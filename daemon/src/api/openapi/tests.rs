use std::collections::{BTreeMap, BTreeSet};

use scenemesh_protocol::advert::{Availability, Hygiene};
use scenemesh_protocol::api::{
    AdminKeyView, AdminsReply, ApproveReply, ApproveRequest, BlockReply, BlockRequest, ChangeAdminsReply,
    ChangeAdminsRequest, CheckState, CheckView, ComfyuiView, DoctorReply, ElsewhereView, ErrorBody,
    ErrorCode, Event, FailureView, FeedRequest, FindingKind, FindingView, GpuView, ImportReply, InitReply,
    InitRequest, InputName, InputReply, InstalledReply, InviteReply, InviteRequest, InviteState, InviteView,
    JobState, JobView, JobsReply, JoinPreview, JoinPreviewRequest, JoinReply, JoinRequest, JoinState,
    LeaveReply, LendView, LinkState, LogLine, LogReply, MemberView, NeedsRequest, NewAdminRequest, NodeRef,
    OutputView, Passphrase, PeerView, PeersReply, PolicyChange, PolicyChangeRequest, PolicyCheckReply,
    PolicyCheckRequest, PolicyClassReply, PolicyClassRequest, PolicyReason, PolicyReply, PoolReply,
    ProgressView, ProposalView, ReachWords, RebuildReply, RecoverRequest, RevokeReply, RevokeRequest,
    RotateReply, RotateRequest, RotateState, Setting, ShutState, ShutView, SlotState, SlotView, StageRequest,
    Standing, StatusReply, StudioView, SubmitRequest, TaskState, TaskView, UsageView, Variation, WhyReply,
    WipeCounts, WipeView,
};
use scenemesh_protocol::api::{
    DrainReply, DrainRequest, GivenBackView, LendReply, LendRequest, LendState, LendWord, LentTaskView,
    SlotBackState, SlotBackView,
};
use scenemesh_protocol::api::{
    ProjectRequest, ProjectSetRequest, ProjectView, ProjectsReply, Role, UserRemoveRequest, UserReply,
    UserRequest, UserView, UsersReply,
};
use scenemesh_protocol::ids::{ContentHash, JobId, NodeId, PoolId, ProjectId, StudioId, TaskId};
use scenemesh_protocol::task::{Class, FailureClass, OnSuspect, OutputKind};
use serde::Serialize;
use serde_json::Value;

use super::super::routes;
use super::DOCUMENT;

mod samples;

use samples::{about_keys, about_lending, policies, replies, requests};

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
                self.is(schema, "array", at);
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

#[test]
fn every_schema_has_the_fields_that_are_sent() {
    let mut judge = Judge { document: document(), seen: BTreeSet::new() };
    requests(&mut judge);
    replies(&mut judge);
    about_keys(&mut judge);
    policies(&mut judge);
    about_lending(&mut judge);
    let all: BTreeSet<String> =
        document()["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(judge.seen, all, "every schema was held against a value");
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
        ("LendWord", words(&[LendWord::On, LendWord::Off, LendWord::Now])),
        (
            "LendState",
            words(&[
                LendState::Lent,
                LendState::OutsideHours,
                LendState::Draining,
                LendState::GivingBack,
                LendState::Back,
                LendState::NotARenderer,
            ]),
        ),
        (
            "SlotBackState",
            words(&[
                SlotBackState::Finishing,
                SlotBackState::Stopping,
                SlotBackState::Stuck,
                SlotBackState::Freeing,
                SlotBackState::Free,
                SlotBackState::Yours,
                SlotBackState::Held,
                SlotBackState::Unverified,
            ]),
        ),
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
