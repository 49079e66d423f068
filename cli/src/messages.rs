//! Every sentence that the command line says, in English and Korean. A sentence is a value; each language is one
//! `match` over all of them, so that one that lacks a translation does not compile.

mod en;
pub(crate) mod help;
mod ko;
mod lang;

pub use lang::Lang;

/// A word of a table or a list of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    AdminKey,
    Admins,
    Age,
    AllowedByHand,
    Always,
    Attempts,
    Busy,
    Cancelled,
    Change,
    CheckWords,
    Blocked,
    Class,
    Closed,
    Classes,
    Code,
    Confirmed,
    Daemon,
    DataDir,
    DeniedByHand,
    Done,
    DoneTotal,
    Down,
    Elsewhere,
    Epoch,
    Error,
    Everybody,
    Everything,
    Expires,
    Failed,
    Family,
    Fetching,
    From,
    Good,
    Gpu,
    Granted,
    Here,
    Hint,
    Hygiene,
    Hours,
    Id,
    Idle,
    Input,
    Job,
    Label,
    LastTime,
    LearnLater,
    Lending,
    Lent,
    LentTo,
    List,
    Listening,
    Look,
    Missing,
    Models,
    MostVram,
    Name,
    Never,
    NewStudio,
    NoAnswer,
    NoSlots,
    Node,
    Nodes,
    None,
    NotConfigured,
    NotNow,
    NotReady,
    NotSealed,
    Now,
    Open,
    OtherMachine,
    Output,
    Path,
    Peers,
    Pool,
    Progress,
    Project,
    Queued,
    Reach,
    Ready,
    RecoveryCode,
    RefusedState,
    Retention,
    Role,
    Revoked,
    Roles,
    Rotated,
    Rtt,
    Running,
    Sealed,
    Seen,
    SignedAgain,
    SignedBy,
    SomebodysJob,
    Solo,
    Starting,
    State,
    StoppedHere,
    Studio,
    Submitted,
    KeptOn,
    KeptFor,
    TakenBack,
    Task,
    Tasks,
    Time,
    Version,
    Unlimited,
    VramFreeTotal,
    Weight,
    What,
    Why,
    Wrong,
}

impl Word {
    pub fn text(self, lang: Lang) -> &'static str {
        match lang {
            Lang::En => en::word(self),
            Lang::Ko => ko::word(self),
        }
    }
}

/// The name of a finding of `doctor`, for people.
pub(crate) fn check(name: &str, lang: Lang) -> &str {
    match lang {
        Lang::En => name,
        Lang::Ko => ko::check(name),
    }
}

/// A sentence. Those called `Hint…` are one thing to do next; those called `Next…` follow a success; those called
/// `Ask…` wait for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    // the command line
    NoCommand,
    UnknownCommand {
        command: String,
    },
    UnknownArgument {
        argument: String,
    },
    MissingArgument {
        argument: String,
    },
    MissingValue {
        argument: String,
    },
    ArgumentsConflict {
        argument: String,
        other: String,
    },
    BadValue {
        argument: String,
        value: String,
    },
    BadCommandLine {
        why: String,
    },
    HintHelp,
    HintDidYouMean {
        word: String,
    },
    HintWriteLike {
        example: String,
    },

    // finding the daemon, and talking to it
    NoDataDir,
    HintDataDir,
    NoAddress {
        path: String,
    },
    AddressNotReadable {
        path: String,
    },
    GarbledAddress {
        path: String,
    },
    NobodyAnswers {
        url: String,
        path: String,
    },
    AnswerBroke {
        url: String,
        why: String,
    },
    AnswerTimedOut {
        url: String,
    },
    AnswerNotOurs {
        url: String,
        why: String,
    },
    DaemonWentAway,
    DaemonIsBack,
    DaemonStaysAway,
    HintStartDaemon {
        data_dir: String,
    },
    HintSameUser,
    HintCheckDataDir,
    HintDoctor,
    HintSameRelease,
    HintJobGoesOn,
    OurBug {
        what: String,
    },
    HintOurBug,

    // files here
    CannotRead {
        path: String,
        why: String,
    },
    CannotWrite {
        path: String,
        why: String,
    },
    CutOff {
        path: String,
        bytes: u64,
        of: u64,
    },
    HintCheckPath,
    HintCheckDisk,
    HintFetchAgain,

    // passphrases and questions
    AskNewPassphrase,
    AskPassphraseAgain,
    AskPassphrase,
    AskContinue,
    AskLeave,
    CannotAsk {
        why: String,
    },
    EmptyPassphrase,
    EmptyPassphraseFile {
        path: String,
    },
    PassphrasesDiffer,
    NobodyToAsk,
    NobodyToAskPassphrase,
    HintPassphraseFile,
    HintNoPassphrase,
    HintTryAgain,
    /// After a task, on its renderer.
    Wiped {
        index: u32,
        node: String,
        wiped: String,
        left: String,
    },
    NotWiped {
        index: u32,
        node: String,
        left: String,
    },
    NoWipe {
        index: u32,
        node: String,
    },
    Nothing,
    HintYes,

    // pool
    KeepRecoveryCode,
    NextInvite,
    NextSubmit,
    NextJoin {
        code: String,
    },
    NextInitOrJoin,
    NextApprove,
    InvitesUnlocked {
        count: u32,
    },
    InviteSays {
        pool: String,
        inviter: String,
        check: String,
    },
    Joining {
        inviter: String,
        addresses: String,
    },
    NewStudioNeedsKey,
    Joined {
        peers_up: u32,
    },
    NotJoined,
    InviteIsLocked,
    HintUnlock,
    HintCompareWords,
    AwaitingApproval {
        signatures_missing: u32,
    },
    ApprovedInForce {
        change: String,
    },
    ApprovedWaiting {
        change: String,
        missing: u32,
    },
    Left {
        pool: String,
        told: u32,
    },
    NotLeft,
    JoinGivenUp,
    NoPeers,
    LeftRecordStays {
        pool: String,
    },

    // keys
    CannotRecall {
        name: String,
    },
    Fallen {
        names: String,
    },
    Blocked {
        name: String,
        until: String,
    },
    BlockLifted {
        name: String,
    },
    BlockedFor {
        left: String,
        reason: String,
    },
    NextCountersign {
        code: String,
    },
    Rotating,
    RotatedHere {
        node: String,
    },
    RotatedOther {
        name: String,
        node: String,
    },
    AskRecoveryCode,
    NobodyToAskCode,
    HintCodeFile,
    NextAdminAdd {
        key: String,
    },
    NextAfterRecovery,
    AdminMovedAside {
        path: String,
    },
    NextSecondAdmin,
    SoloSockets,

    // projects and users
    NextProject {
        name: String,
    },
    NoProjects,
    NoSuchProject {
        name: String,
    },
    HintProjects,
    NoUsers,
    UserRemoved {
        name: String,
    },
    TokenHandedOver {
        name: String,
        path: String,
    },
    TokenToHandOver {
        name: String,
        path: String,
    },
    NoSuchOsUser {
        name: String,
        path: String,
    },

    // lending and draining
    GivenBackIn {
        took: String,
    },
    NextLendOffUntil,
    NotFreeYet,
    HintNotFreeYet,
    StillHeld,
    HintStillHeld,
    NothingForOthers,
    BeingStopped,
    StillNeeds {
        left: String,
    },
    VramWent {
        before: String,
        after: String,
    },
    DrainsNow {
        running: u32,
        results: u32,
    },
    IsDrained,
    TakesWorkAgain,
    DaemonHasEnded,
    DrainEnded,
    HintDrainEnded,

    // policy
    PolicyList {
        version: u32,
        comfyui: String,
        allowed: u32,
        denied: u32,
    },
    PolicyFindsNothing,
    PolicyRefuses {
        count: usize,
    },
    HintPolicyRefuses,
    NextAllow {
        class: String,
    },

    // this node
    RunningSince {
        version: String,
        up: String,
    },
    PeersUp {
        up: u32,
        total: u32,
    },
    TasksNow {
        running: u32,
        queued: u32,
    },
    NoComfyui,
    ComfyuiNotConfigured {
        url: String,
    },
    DaemonAnswers {
        url: String,
    },
    ChecksFailed {
        count: usize,
    },
    JournalExported {
        path: String,
        bytes: String,
    },
    JournalImported {
        records: u64,
    },
    NextRestart,
    IndexRebuilt {
        records: u64,
        took_ms: u64,
    },
    HintChecks,

    // jobs
    WorkflowTooLarge {
        path: String,
        limit: String,
    },
    WorkflowNotText {
        path: String,
    },
    CannotReadInput {
        name: String,
        path: String,
        why: String,
    },
    InputTooLarge {
        path: String,
        bytes: String,
        limit: String,
    },
    HintNotEmbedded,
    HintExportApi,
    HintSmallerInput,
    Submitted {
        job: String,
        tasks: usize,
        reach: String,
    },
    NextShow {
        job: String,
    },
    NextFetch {
        job: String,
    },
    Detached {
        job: String,
    },
    TaskWaits {
        index: u32,
        why: String,
    },
    TaskGranted {
        index: u32,
        node: String,
    },
    TaskRuns {
        index: u32,
        node: String,
    },
    TaskProgress {
        index: u32,
        node: String,
        percent: u32,
        at: String,
    },
    TaskDone {
        index: u32,
        node: String,
        took: String,
    },
    TaskFailed {
        index: u32,
        why: String,
    },
    TaskCancelled {
        index: u32,
    },
    TaskGivenUp {
        index: u32,
        node: String,
    },
    JobProgress {
        ended: usize,
        total: usize,
        running: usize,
    },
    JobFailed {
        failed: usize,
        total: usize,
        why: String,
    },
    JobCancelled {
        job: String,
    },
    HintRetry {
        job: String,
    },
    NoJobs,
    MoreJobs {
        count: usize,
    },
    CancelledNow {
        job: String,
        state: String,
    },
    RetriedNow {
        job: String,
        waiting: usize,
    },
    PausedNow {
        job: String,
        paused: usize,
    },
    ResumedNow {
        job: String,
        waiting: usize,
    },
    NothingToFetch {
        job: String,
    },
}

impl Message {
    pub fn text(&self, lang: Lang) -> String {
        match lang {
            Lang::En => en::text(self),
            Lang::Ko => ko::text(self),
        }
    }
}
