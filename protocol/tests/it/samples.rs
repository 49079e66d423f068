//! One fixed value of every message, and of every variant that travels.

use scenemesh_protocol::advert::{Advert, Availability, GpuAdvert, Hygiene, Inventory};
use scenemesh_protocol::codec::{self, Message};
use scenemesh_protocol::deputy::{
    GrantRight, InHand, Keep, KeepNews, KeepReply, KeptJob, Release, TakeBack, TakeBackReply, TaskNews,
    first_attempt,
};
use scenemesh_protocol::envelope::{GrantPayload, ResultKeys};
use scenemesh_protocol::ids::{
    BootId, ClaimId, ContentHash, JobId, MsgId, NodeId, PoolId, ProjectId, ReservationId, StudioId, TaskId,
};
use scenemesh_protocol::invite::{JoinNeeds, JoinRefusal, JoinReply, JoinRequest, Joining};
use scenemesh_protocol::keys::{KemPublic, KemSecret, PublicKey, SecretKey, Signature};
use scenemesh_protocol::lease::*;
use scenemesh_protocol::messages::*;
use scenemesh_protocol::receipt::{FeedHead, Quote, UsageClaim, WipeCount, WipeRecord, Wiped};
use scenemesh_protocol::roster::{
    Consent, Member, PoolParams, Revoked, Roles, RosterDigest, Rotated, Rotation, Settings, SignedRecord,
    SignedSettings, Studio,
};
use scenemesh_protocol::sealed::{BlobKey, Manifest};
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{
    Block, Project, ProjectName, SealedMemo, StudioDiff, StudioKey, StudioRecord, StudioSecret, StudioSync,
};
use scenemesh_protocol::task::{
    Class, Failure, FailureClass, InputFile, ModelName, OutputFile, OutputKind, Reach, Shape, TaskSpec,
};

mod list;

pub(crate) use list::samples;

pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
}

impl Sample {
    pub(crate) fn kind(&self) -> u16 {
        codec::read_header(&self.frame).unwrap().kind
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.frame[codec::HEADER_LEN..]
    }
}

const NOW: u64 = 1_800_000_000_000;

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn node(seed: u8) -> NodeId {
    key(seed).public().node()
}

fn hash(byte: u8) -> ContentHash {
    ContentHash::from_bytes([byte; 32])
}

const POOL: PoolId = PoolId::from_bytes([0x10; 16]);
const STUDIO: StudioId = StudioId::from_bytes([0x11; 16]);
const JOB: JobId = JobId::from_bytes([0x12; 16]);
const TASK: TaskId = TaskId::from_bytes([0x13; 16]);
const MSG: MsgId = MsgId::from_bytes([0x14; 16]);
const RESERVATION: ReservationId = ReservationId::from_bytes([0x15; 16]);
const CLAIM: ClaimId = ClaimId::from_bytes([0x16; 16]);
const BOOT: BootId = BootId::from_bytes([0x17; 16]);

pub(crate) fn settings() -> Settings {
    Settings {
        pool_name: "aurora".into(),
        nonce: [0x20; 16],
        epoch: 0,
        prev: hash(0),
        created_ms: NOW,
        studios: vec![Studio {
            id: STUDIO,
            name: "anim".into(),
            weight: 1,
            admins: vec![key(1).public(), key(2).public()],
        }],
        params: PoolParams::default(),
        min_protocol: 1,
    }
}

pub(crate) fn signed_settings() -> SignedSettings {
    SignedSettings::new(&settings(), &key(1))
}

pub(crate) fn member() -> Member {
    Member {
        pool: POOL,
        studio: STUDIO,
        node: key(3).public(),
        kem: KemSecret::from_bytes(&[4; 32]).public(),
        name: "ws-01".into(),
        roles: Roles { submit: true, render: true, keep: false },
        version: 2,
        issued_ms: NOW,
        not_after_ms: Some(NOW + 1),
        consent: consent(&key(3), KemSecret::from_bytes(&[4; 32]).public()),
    }
}

fn consent(node: &SecretKey, kem: KemPublic) -> Signature {
    Consent { pool: POOL, studio: STUDIO, kem }.sign(node)
}

pub(crate) fn revoked() -> Revoked {
    Revoked { pool: POOL, studio: STUDIO, key: key(3).public(), reason: "lost laptop".into(), issued_ms: NOW }
}

fn records() -> Vec<SignedRecord> {
    vec![
        SignedRecord::Member(Signed::new(&member(), &key(1))),
        SignedRecord::Revoked(Signed::new(&revoked(), &key(1))),
        SignedRecord::Rotated(Signed::new(&rotated(), &key(1))),
    ]
}

pub(crate) fn rotated() -> Rotated {
    let rotation = Rotation {
        pool: POOL,
        studio: STUDIO,
        old: key(3).public(),
        new: key(4).public(),
        kem: KemSecret::from_bytes(&[4; 32]).public(),
        issued_ms: NOW,
    };
    Rotated { rotation, old_signature: rotation.sign(&key(3)), new_signature: rotation.sign(&key(4)) }
}

fn project_name() -> ProjectName {
    ProjectName { salt: [0x35; 16], name: "moonrise".into() }
}

pub(crate) fn project() -> Project {
    Project {
        pool: POOL,
        studio: STUDIO,
        project: ProjectId::from_bytes([0x36; 16]),
        name: project_name().commitment(),
        version: 2,
        issued_ms: NOW,
        max_reach: Reach::Studios(vec![STUDIO]),
        nodes: Some(vec![node(3)]),
        hygiene: Hygiene::Full,
        retention_s: Some(86_400),
        closed: false,
    }
}

pub(crate) fn block() -> Block {
    Block {
        pool: POOL,
        studio: STUDIO,
        key: key(5).public(),
        reason: "noisy".into(),
        issued_ms: NOW,
        until_ms: NOW + Block::LONGEST_MS,
    }
}

pub(crate) fn studio_key() -> StudioKey {
    StudioKey {
        pool: POOL,
        studio: STUDIO,
        version: 3,
        kem: StudioSecret::from_bytes([0x37; 32]).kem().public(),
        issued_ms: NOW,
    }
}

fn studio_diff() -> StudioDiff {
    StudioDiff {
        records: vec![
            StudioRecord::Project { record: Signed::new(&project(), &key(1)), name: project_name() },
            StudioRecord::Block(Signed::new(&block(), &key(3))),
            StudioRecord::Key(Signed::new(&studio_key(), &key(1))),
        ],
        secrets: vec![(3, StudioSecret::from_bytes([0x37; 32]))],
    }
}

fn wipe() -> WipeRecord {
    WipeRecord {
        pool: POOL,
        task: TASK,
        attempt: 2,
        grant: hash(0x24),
        hygiene: Hygiene::Partial,
        wiped: [Wiped::History, Wiped::Inputs, Wiped::Temp, Wiped::Cache]
            .map(|what| WipeCount { what, count: 2 })
            .to_vec(),
        left: vec![WipeCount { what: Wiped::Outputs, count: 1 }],
    }
}

pub(crate) fn advert() -> Advert {
    Advert {
        pool: POOL,
        node: node(3),
        boot: BOOT,
        seq: 5,
        created_ms: NOW,
        ttl_s: 90,
        availability: Availability::Available,
        hygiene: Hygiene::Partial,
        slots_total: 2,
        slots_free: 1,
        queue: 3,
        gpus: vec![
            GpuAdvert {
                name: "RTX 4090".into(),
                vram_mib: Some(24_576),
                vram_free_mib: Some(20_000),
                cc: Some(89),
            },
            GpuAdvert { name: "cpu".into(), vram_mib: None, vram_free_mib: None, cc: None },
        ],
        warm: vec![model()],
        inventory_root: hash(0x21),
        external: vec!["/ip4/10.0.0.1/tcp/7872".into()],
        porch: vec!["/ip4/10.0.0.1/tcp/7873".into()],
        comfyui: "0.3.60".into(),
    }
}

fn model() -> ModelName {
    ModelName::new("checkpoints", "sd_xl_base_1.0.safetensors")
}

fn shape() -> Shape {
    Shape {
        classes: vec!["KSampler".into(), "SaveImage".into()],
        models: vec![model()],
        vram_mib: Some(8192),
        min_cc: None,
        input_bytes: 1234,
        full_hygiene: true,
    }
}

pub(crate) fn task_spec() -> TaskSpec {
    TaskSpec {
        task: TASK,
        attempt: 2,
        graph: br#"{"3":{"class_type":"KSampler","inputs":{}}}"#.to_vec(),
        extra_data: b"{}".to_vec(),
        inputs: vec![InputFile {
            name: "plate.png".into(),
            root: hash(0x22),
            key: BlobKey::from_bytes([0x23; 32]),
            bytes: 4096,
        }],
        previews: true,
        full_hygiene: false,
        time_limit_ms: 600_000,
        reach: Reach::Pool,
        project: Some(Signed::new(&project(), &key(1))),
    }
}

pub(crate) fn result_keys() -> ResultKeys {
    ResultKeys {
        task: TASK,
        attempt: 2,
        grant: hash(0x24),
        outputs: vec![
            output(OutputKind::Image),
            output(OutputKind::Video),
            output(OutputKind::Audio),
            output(OutputKind::Text),
            output(OutputKind::Other),
        ],
    }
}

fn output(kind: OutputKind) -> OutputFile {
    OutputFile {
        node: "9".into(),
        kind,
        filename: "shot_00001_.png".into(),
        root: hash(0x25),
        key: BlobKey::from_bytes([0x26; 32]),
        bytes: 99,
    }
}

pub(crate) fn grant_terms() -> GrantTerms {
    GrantTerms {
        pool: POOL,
        claim: CLAIM,
        task: TASK,
        attempt: 2,
        from: node(5),
        to: node(3),
        msg_id: MSG,
        envelope: hash(0x27),
        roots: vec![BlobRef { root: hash(0x22), sealed_bytes: 4112 }],
        lease_ms: 15_000,
        class: Class::Urgent,
        quote: Some(Quote {
            params_version: 1,
            kind: "sdxl".into(),
            est_mrgs: 1500,
            w_vram_milli: 1000,
            w_class_milli: 2000,
            payload: hash(0x28),
        }),
        memo: Some(SealedMemo { key: 3, enc: [0x38; 32], ciphertext: vec![0x39; 272] }),
    }
}

pub(crate) fn grant_right() -> GrantRight {
    let (origin, deputy) = (node(5), node(3));
    GrantRight {
        pool: POOL,
        studio: STUDIO,
        origin,
        deputy,
        job: JOB,
        issued_ms: NOW,
        not_after_ms: NOW + 86_400_000,
    }
}

pub(crate) fn accepted_terms() -> AcceptedTerms {
    AcceptedTerms { grant: hash(0x24), task: TASK, attempt: 2, sigma_milli: Some(850) }
}

pub(crate) fn finished_terms(outcome: Outcome) -> FinishedTerms {
    FinishedTerms { pool: POOL, task: TASK, attempt: 2, grant: hash(0x24), outcome, exec_ms: 4321 }
}

pub(crate) fn done() -> Outcome {
    Outcome::Done { roots: vec![BlobRef { root: hash(0x25), sealed_bytes: 115 }], keys: hash(0x29) }
}

fn failure() -> Failure {
    Failure::new(FailureClass::OutOfMemory, "KSampler: 9 GiB wanted")
}

pub(crate) fn usage_claim() -> UsageClaim {
    UsageClaim {
        pool: POOL,
        task: TASK,
        attempt: 2,
        grant: hash(0x24),
        requester: node(5),
        renderer: node(3),
        exec_ms: 4321,
        charge_mrgs: Some(3600),
    }
}

fn finished(outcome: Outcome, keys: &[u8]) -> Finished {
    Finished {
        terms: Signed::new(&finished_terms(outcome), &key(3)),
        keys: keys.to_vec(),
        usage: Some(Signed::new(&usage_claim(), &key(3))),
        wipe: Some(Signed::new(&wipe(), &key(3))),
    }
}

pub(crate) fn joining(admin: Option<PublicKey>) -> Joining {
    Joining {
        pool: POOL,
        inviter: node(3),
        invite: key(6).public(),
        node: key(7).public(),
        kem: KemSecret::from_bytes(&[8; 32]).public(),
        name: "ws-02".into(),
        nonce: [0x2a; 16],
        admin,
        consent: admin.is_none().then(|| consent(&key(7), KemSecret::from_bytes(&[8; 32]).public())),
    }
}

pub(crate) fn join_request() -> JoinRequest {
    JoinRequest::sign(&joining(Some(key(9).public())), &key(6), &key(7))
}

fn digest() -> RosterDigest {
    RosterDigest { epoch: 4, head: hash(0x2b), records: hash(0x2c) }
}

fn diff() -> RosterDiff {
    RosterDiff { settings: vec![signed_settings()], records: records(), proposals: vec![signed_settings()] }
}

fn sync() -> RosterSync {
    RosterSync { digest: digest(), records: vec![hash(0x2d)], proposals: vec![(hash(0x2e), 1)] }
}

fn hello() -> Hello {
    Hello {
        pool: POOL,
        boot: BOOT,
        versions: (1, 1),
        agent: "scenemeshd 0.1.0".into(),
        roster: digest(),
        feeds: vec![FeedHead { feed: hash(0x2f), seq: 6, head: hash(0x30) }],
        now_ms: NOW,
    }
}

fn adverts() -> AdvertBatch {
    AdvertBatch { adverts: vec![Signed::new(&advert(), &key(3))] }
}

fn inventory() -> Inventory {
    Inventory { classes: vec!["KSampler".into()], models: vec![model()] }
}

fn progress(phase: Phase, preview: Option<Preview>) -> Progress {
    Progress {
        task: TASK,
        attempt: 2,
        seq: 7,
        phase,
        node: "3".into(),
        step: 4,
        max: 20,
        nodes_done: 1,
        nodes_total: 6,
        preview,
    }
}

fn refusal(reason: RefusalReason) -> Refusal {
    Refusal { reason, detail: "no such class here".into() }
}

fn declined(why: Decline) -> Declined {
    Declined { why, detail: "later".into() }
}

fn words() -> String {
    "ask the one who invited you".into()
}
