//! Failures of the local API, and the exit codes they become.

use serde::{Deserialize, Serialize};

/// What went wrong, for programs. Names and exit codes are stable; more may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A task of the job failed for good.
    WorkFailed,
    /// The work was cancelled.
    Cancelled,
    /// A check of `doctor` failed.
    CheckFailed,

    /// The command or request is not well formed.
    Usage,
    /// A file that the command names cannot be read or written here.
    File,
    /// The workflow, or a request's body, is not JSON.
    NotJson,
    /// The workflow is ComfyUI's UI format; only the API format can be run.
    UiFormat,
    /// The workflow is JSON, but not a graph that ComfyUI could run.
    InvalidGraph,
    /// `--set` names a node or an input that the workflow does not have.
    NoSuchSetting,
    /// The workflow names an input file that was not given, or one was given that it does not name.
    MissingInput,
    /// Over a size limit.
    TooLarge,
    /// No job, task, node or output of that name.
    NotFound,
    /// A shortened id that more than one thing begins with.
    Ambiguous,
    /// The invite is not one: mistyped or cut off.
    BadInvite,

    /// Nothing answers where the daemon should be.
    NotRunning,
    /// The daemon is stopping.
    Stopping,

    /// Wrong or missing token, or a foreign Host or Origin.
    NotAuthorised,
    /// The token or the node's role does not allow this.
    NotAllowed,
    /// The admin key is sealed with a passphrase, and none was given.
    PassphraseNeeded,
    WrongPassphrase,

    /// A node that is needed for this does not answer.
    PeerUnreachable,

    /// Understood, and declined: the sentence says why.
    Refused,
    /// No node in reach has a node class that the workflow uses.
    UnknownClass,
    /// No node in reach has a model that the workflow names.
    MissingModel,
    /// No node may take the task.
    NoEligibleNode,
    /// Not possible in the state things are in: already in a pool, not in a pool, already finished.
    Conflict,
    InviteExpired,
    InviteUsed,
    /// The inviter restarted since and must unlock its admin key.
    InviteLocked,
    /// The invite belongs to another pool or another inviter.
    InviteForeign,
    /// The other side speaks another version of the protocol.
    VersionMismatch,
    /// The clocks of two machines differ too much.
    ClockSkew,
    /// The disk, or this node's share of it, is full.
    DiskFull,
    /// Too many requests or too much unfinished work.
    Busy,

    Timeout,

    /// Our bug.
    Internal,
    /// A code of a newer release.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The process exit code: 1 the work failed, 2 usage, 3 daemon not running, 4 not authorised, 5 peer unreachable,
    /// 6 refused, 7 timeout, 70 our bug.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::WorkFailed | Self::Cancelled | Self::CheckFailed => 1,
            Self::Usage
            | Self::File
            | Self::NotJson
            | Self::UiFormat
            | Self::InvalidGraph
            | Self::NoSuchSetting
            | Self::MissingInput
            | Self::TooLarge
            | Self::NotFound
            | Self::Ambiguous
            | Self::BadInvite => 2,
            Self::NotRunning | Self::Stopping => 3,
            Self::NotAuthorised | Self::NotAllowed | Self::PassphraseNeeded | Self::WrongPassphrase => 4,
            Self::PeerUnreachable => 5,
            Self::Refused
            | Self::UnknownClass
            | Self::MissingModel
            | Self::NoEligibleNode
            | Self::Conflict
            | Self::InviteExpired
            | Self::InviteUsed
            | Self::InviteLocked
            | Self::InviteForeign
            | Self::VersionMismatch
            | Self::ClockSkew
            | Self::DiskFull
            | Self::Busy => 6,
            Self::Timeout => 7,
            Self::Internal | Self::Unknown => 70,
        }
    }

    /// The HTTP status that carries it, unless the failure is HTTP's own (404 for a path, 405).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::NotAuthorised => 401,
            Self::NotAllowed | Self::PassphraseNeeded | Self::WrongPassphrase => 403,
            Self::NotRunning | Self::Stopping => 503,
            Self::PeerUnreachable => 502,
            Self::Timeout => 504,
            Self::DiskFull => 507,
            Self::Busy => 429,
            Self::Internal | Self::Unknown => 500,
            other => match other.exit_code() {
                2 => 400,
                _ => 409,
            },
        }
    }
}

/// Body of every failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    pub code: ErrorCode,
    /// One sentence: what was tried, with what, and what came of it.
    pub message: String,
    /// One thing to do next.
    pub hint: Option<String>,
}

impl ErrorBody {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_stable_names_and_newer_ones_are_read() {
        let body = ErrorBody::new(ErrorCode::UiFormat, "no").with_hint("export it");
        let text = serde_json::to_string(&body).unwrap();
        assert_eq!(text, r#"{"code":"ui_format","message":"no","hint":"export it"}"#);
        let newer: ErrorBody = serde_json::from_str(r#"{"code":"on_strike","message":"no"}"#).unwrap();
        assert_eq!(newer.code, ErrorCode::Unknown);
    }
}
