//! The local API: what the daemon and its clients on the same machine say to each other, as JSON over HTTP.
//!
//! Nothing here crosses to another machine. The daemon listens on loopback only and writes [`ApiFile`] into its data
//! directory; a client reads it and sends `Authorization: Bearer <token>` with every request. Every failure, whatever
//! its status, has an [`ErrorBody`]. Where `ID` stands, any unambiguous prefix of a job's or task's id will do.
//!
//! ```text
//! GET  /v1/status                       StatusReply       GET  /v1/doctor[?peer=NODE]      DoctorReply
//! POST /v1/init          InitRequest    InitReply         POST /v1/invite    InviteRequest InviteReply
//! POST /v1/join/preview  JoinPreviewRequest JoinPreview   POST /v1/join      JoinRequest   JoinReply
//! GET  /v1/pool                         PoolReply         POST /v1/pool/approve ApproveRequest ApproveReply
//! GET  /v1/peers                        PeersReply        POST /v1/leave                   LeaveReply
//! GET  /v1/projects                     ProjectsReply     POST /v1/projects  ProjectRequest ProjectView
//! POST /v1/projects/set  ProjectSetRequest ProjectView
//! GET  /v1/users                        UsersReply        POST /v1/users     UserRequest   UserReply
//! POST /v1/users/set     UserRequest    UserView          POST /v1/users/rm  UserRemoveRequest UserView
//! POST /v1/revoke        RevokeRequest  RevokeReply       POST /v1/block     BlockRequest  BlockReply
//! POST /v1/rotate        RotateRequest  RotateReply       GET  /v1/admin                   AdminsReply
//! POST /v1/admin/new     NewAdminRequest InstalledReply   POST /v1/admin/recover RecoverRequest InstalledReply
//! POST /v1/admin/change  ChangeAdminsRequest ChangeAdminsReply
//! POST /v1/inputs        raw bytes      InputReply        POST /v1/jobs      SubmitRequest JobView
//! GET  /v1/jobs                         JobsReply         GET  /v1/jobs/ID                 JobView
//! GET  /v1/jobs/ID/why                  WhyReply          GET  /v1/jobs/ID/log             LogReply
//! POST /v1/jobs/ID/cancel               JobView           POST /v1/jobs/ID/retry           JobView
//! POST /v1/jobs/ID/pause                JobView           POST /v1/jobs/ID/resume          JobView
//! GET  /v1/jobs/ID/events               server-sent [`Event`]s, the first of them Event::Job
//! GET  /v1/events                       server-sent [`Event`]s of all jobs
//! GET  /v1/policy                       PolicyReply       POST /v1/policy    PolicyChangeRequest PolicyReply
//! POST /v1/policy/class  PolicyClassRequest PolicyClassReply
//! POST /v1/policy/check  PolicyCheckRequest PolicyCheckReply
//! GET  /v1/lend                         LendReply         POST /v1/lend      LendRequest   LendReply
//! GET  /v1/drain                        DrainReply        POST /v1/drain     DrainRequest  DrainReply
//! GET  /v1/tasks/ID/outputs/N           the bytes of that output
//! GET  /v1/tasks/ID/preview             the latest preview picture, 404 while there is none
//! GET  /v1/openapi.json                 all of this as an OpenAPI document
//! GET  /v1/journal                      the journal as one file
//! POST /v1/journal       such a file    ImportReply       POST /v1/ledger/rebuild          RebuildReply
//! ```

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod error;
mod jobs;
mod journal;
mod lend;
mod policy;
mod pool;
mod projects;
mod ranges;
mod status;
mod trust;
mod users;

pub use error::{ErrorBody, ErrorCode};
pub use jobs::{
    Event, FailureView, FeedRequest, InputName, InputReply, JobState, JobView, JobsReply, LogLine, LogReply,
    NeedsRequest, NodeRef, OutputView, ProgressView, ReachWords, Setting, StageRequest, SubmitRequest,
    TaskState, TaskView, UsageView, Variation, WhyReply, WipeCounts, WipeView,
};
pub use journal::{ImportReply, RebuildReply};
pub use lend::{
    DrainReply, DrainRequest, GivenBackView, LendReply, LendRequest, LendState, LendWord, LentTaskView,
    SlotBackState, SlotBackView,
};
pub use policy::{
    ElsewhereView, FindingKind, FindingView, LendView, PolicyChange, PolicyChangeRequest, PolicyCheckReply,
    PolicyCheckRequest, PolicyClassReply, PolicyClassRequest, PolicyReason, PolicyReply,
};
pub use pool::{
    ApproveReply, ApproveRequest, InitReply, InitRequest, InviteReply, InviteRequest, InviteState,
    InviteView, JoinPreview, JoinPreviewRequest, JoinReply, JoinRequest, JoinState, LeaveReply, MemberView,
    Passphrase, PoolReply, ProposalView, StudioView,
};
pub use projects::{ProjectRequest, ProjectSetRequest, ProjectView, ProjectsReply};
pub use ranges::{BadRanges, Ranges};
pub use status::{
    CheckState, CheckView, ComfyuiView, DoctorReply, GpuView, LinkState, PeerView, PeersReply, ShutState,
    ShutView, SlotState, SlotView, Standing, StatusReply,
};
pub use trust::{
    AdminKeyView, AdminsReply, BlockReply, BlockRequest, ChangeAdminsReply, ChangeAdminsRequest,
    InstalledReply, NewAdminRequest, RecoverRequest, RevokeReply, RevokeRequest, RotateReply, RotateRequest,
    RotateState,
};
pub use users::{UserRemoveRequest, UserReply, UserRequest, UserView, UsersReply};

/// Environment variable that names a user's own token file.
pub const TOKEN_FILE_VARIABLE: &str = "SCENEMESH_TOKEN_FILE";
/// File in the data directory that tells clients where the daemon is.
pub const API_FILE: &str = "api.json";
/// Environment variable that names the data directory, for the daemon and its clients.
pub const DATA_DIR_VARIABLE: &str = "SCENEMESH_DATA_DIR";
/// Most bytes of a workflow: its task must fit [`crate::task::TaskSpec`]'s limit with room for the rest.
pub const GRAPH_LIMIT: usize = 15 << 20;
/// Most bytes of one uploaded input: 32 GiB, below what a manifest can list.
pub const INPUT_LIMIT: u64 = 32 << 30;
/// Most tasks of one job.
pub const COUNT_LIMIT: u32 = 10_000;

/// Contents of [`API_FILE`]; readable by the daemon's own user only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    /// `http://127.0.0.1:7870`, without a slash at the end.
    pub url: String,
    /// Random with every start.
    pub token: String,
    /// Where the ComfyUI gateway listens, when there is one.
    pub gateway: Option<String>,
}

impl std::fmt::Debug for ApiFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiFile")
            .field("url", &self.url)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// What the holder of a token may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    View,
    /// Submit, cancel and fetch one's own work.
    Submit,
    /// Everybody's work on this node.
    Operate,
    /// Pool membership and settings.
    Admin,
}

impl Role {
    /// As people write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::View, Self::Submit, Self::Operate, Self::Admin];
        all.into_iter().find(|role| role.word() == text).ok_or("view, submit, operate, admin")
    }
}

/// The data directory when neither a flag nor [`DATA_DIR_VARIABLE`] names one. `os` is
/// [`std::env::consts::OS`]; `lookup` reads the environment. `None` when the environment has no home.
pub fn default_data_dir(os: &str, lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let dir = |name: &str| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match os {
        "windows" => dir("LOCALAPPDATA").map(|base| base.join("SceneMesh")),
        "macos" => dir("HOME").map(|home| home.join("Library/Application Support/SceneMesh")),
        _ => dir("XDG_DATA_HOME")
            .filter(|base| base.is_absolute())
            .or_else(|| dir("HOME").map(|home| home.join(".local/share")))
            .map(|base| base.join("scenemesh")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_on(os: &str, environment: &[(&str, &str)]) -> Option<PathBuf> {
        default_data_dir(os, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn each_platform_has_its_usual_place() {
        let home = ("HOME", "/home/kim");
        assert_eq!(dir_on("linux", &[home]), Some("/home/kim/.local/share/scenemesh".into()));
        assert_eq!(dir_on("linux", &[home, ("XDG_DATA_HOME", "/data")]), Some("/data/scenemesh".into()));
        assert_eq!(
            dir_on("linux", &[home, ("XDG_DATA_HOME", "relative")]),
            Some("/home/kim/.local/share/scenemesh".into())
        );
        assert_eq!(dir_on("macos", &[home]), Some("/home/kim/Library/Application Support/SceneMesh".into()));
        assert_eq!(dir_on("linux", &[("HOME", "")]), None);
    }

    #[test]
    fn secrets_do_not_print() {
        let file = ApiFile { url: "http://127.0.0.1:1".into(), token: "hush".into(), gateway: None };
        assert!(!format!("{file:?}").contains("hush"));
        assert!(!format!("{:?}", Passphrase::new("hush".into())).contains("hush"));
    }
}
