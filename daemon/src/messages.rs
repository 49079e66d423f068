//! Sentences of the node that a person on this machine reads, in English and Korean. A sentence is a value; each
//! language is one `match` over all of them, so that one that lacks a translation does not compile.

mod en;
mod ko;
mod phrases;

pub use phrases::phrase;

/// A language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    Ko,
}

impl Lang {
    /// What an `Accept-Language` header asks for first; English for anything but Korean.
    pub fn of_header(value: &str) -> Self {
        let first = value.split([',', ';']).next().unwrap_or_default().trim();
        if first == "ko" || first.starts_with("ko-") { Self::Ko } else { Self::En }
    }
}

/// A sentence, or a hint: one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    // who asks
    NoToken,
    WrongToken,
    ForeignHost { host: String },
    ForeignOrigin { origin: String },
    RoleLacking { need: &'static str },
    HintToken,
    HintLoopback,
    HintRole,
    SomebodysJob { job: String },
    HintOperate,
    NoSuchUser { name: String },
    BadUserName { given: String },
    UserHasToken { name: String },
    TooManyUsers,
    HintUsers,
    HintUserName,
    HintUserAgain,

    // how it is asked
    NoSuchPath { path: String },
    NoSuchMethod { method: String, path: String },
    BodyNotJson { why: String },
    BodyTooLarge { limit: u64 },
    BodyBroke { why: String },
    TooManyRequests,
    HintSameRelease,
    HintSlower,
    Stopping,
    HintRestart,
    Broke { what: String },
    HintLog,

    // jobs and tasks
    BadId { given: String },
    NoSuchId { given: String },
    AmbiguousId { given: String },
    NoSuchOutput { index: u32, count: usize },
    NoPreview,
    NothingToCancel,
    NothingToRetry,
    NothingToPause,
    NothingToResume,
    BadRange { given: String },
    RangeOfTask { given: String },
    HintRange,
    VariedTwice { path: String },
    HintJobs,
    HintLongerId,
    HintShow,

    // submitting
    WorkflowTooLarge { limit: usize },
    HintExportApi,
    HintNotEmbedded,
    BadSetting { path: String, value: String, stands: String },
    HintQuote,
    MissingInput { name: String, node: String, class: String, input: String },
    HintGiveInput { name: String },
    UnusedInput { name: String, names: String },
    HintRenameInput,
    UnknownInputHandle { name: String },
    HintUploadAgain,
    DuplicateInput { name: String },
    UnknownStudio { given: String, known: String },
    HintReach,
    BeyondProject { reach: String, project: String, limit: String },
    HintBeyondProject,
    ProjectClosed { name: String },
    HintProjectOpen,
    NotInPool { reach: String },
    HintJoinFirst,
    CountOutOfRange { count: u32, limit: u32 },
    UnknownClass { class: String, nodes: String, unknown: String },
    HintUnknownClass,
    MissingModel { model: String, unknown: String },
    HintModelElsewhere { model: String, nodes: String, reach: &'static str },
    HintModelNowhere,
    NoNodeHasAll { reasons: String },
    HintNoNodeHasAll,
    NobodyInReach { machines: Vec<(String, NotThere)> },
    HintNobodyInReach,
    MayNotSubmit,
    InputTooLarge { limit: u64 },

    // pool
    NewStudioNeedsKey,
    HintPassphrase,
    NoPool,
    HintInitOrJoin,
    NoSuchPeer { given: String },
    HintPeers,
    SoloComfyuiElsewhere { url: String },
    HintSoloComfyui,

    // the journal as a file
    JournalNotEmpty,
    HintEmptyDataDir,
    ImportWaits,
    HintRestartToImport,
    NotAnExport,
    DamagedExport { why: String },
    HintExport,
    NewerExport { version: u16 },
    HintNewerRelease,
    ForeignExport { node: String, me: String },
    HintCopyKeys,

    // doctor
    DataDirFine { path: String },
    DataDirNotWritable { path: String, why: String },
    HintDataDir,
    DiskFine { free: u64, used: u64 },
    DiskLow { free: u64 },
    DiskUnknown,
    HintDisk,
    JournalFine,
    JournalTorn { bytes: u64 },
    JournalMended { kept: String },
    HintLookAtDisk,
    JournalLost { bytes: u64, kinds: Vec<RecordKind>, kept: String },
    JournalBeginsLate { bytes: u64 },
    HintLost,
    JournalEndsEarly { bytes: u64 },
    JournalGone,
    HintSetBack,
    JournalImported { records: u64 },
    ImportLeft { path: String },
    HintRemoveImport { path: String },
    NoRoomForJournal,
    JournalStuck { why: String },
    HintCheckDiskAndRestart,
    IndexRebuilt { kept: String },
    IndexBroken { why: String },
    HintRebuild,
    ComfyuiReady { url: String, version: String, classes: usize, models: usize },
    ComfyuiStarting { url: String },
    ComfyuiNotReady { url: String, why: String },
    HintComfyuiStart { url: String },
    ComfyuiParked { url: String, nodes: usize, last: String, trouble: Option<String>, minutes: u64 },
    HintParked,
    ComfyuiUnused { url: String, version: String },
    HintComfyuiConfigure { url: String },
    ComfyuiNone { tried: String },
    HintComfyuiNone,
    HygieneFull { url: String },
    HygienePartial { url: String },
    HintHygiene,
    GpusSeen { gpus: String },
    GpusFromComfyui { gpus: String },
    GpusNone,
    HintGpus,
    PoolAlone,
    PoolJoining { words: String },
    PoolOutside { why: String },
    PoolMember { pool: String, studio: String, members: usize },
    HintAskAdmin,
    HintWait,
    Listening { addresses: String },
    NotListening,
    SoloPorts,
    OneAdmin { studio: String, paper: bool },
    HintSecondAdmin,
    HintPorts,
    PeersNone,
    PeersUp { up: usize, total: usize },
    PeersAllDown { total: usize },
    HintPeersDown,
    PeerUp { name: String, address: String, rtt_us: u64 },
    PeerDown { name: String, why: String },
    PeerRefused { name: String, words: String },
    HintPeer,
    ClockFine { peers: usize },
    ClockAlone,
    ClockOff { name: String, seconds: i64 },
    ClockMine { seconds: i64 },
    HintClock,
}

/// What a record of the journal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Jobs,
    Rendered,
    Membership,
    Other(u16),
}

/// Why a machine cannot be asked, whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotThere {
    OutOfReach,
    NoRole,
    NoComfyui,
}

impl Message {
    pub fn text(&self, lang: Lang) -> String {
        match lang {
            Lang::En => en::text(self),
            Lang::Ko => ko::text(self),
        }
    }
}

fn gigabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let gigabytes = bytes as f64 / 1e9;
    format!("{gigabytes:.1} GB")
}

fn milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

/// A limit of bytes is shown in the unit it was chosen in.
fn limit_words(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_language_of_the_header_counts() {
        for (header, lang) in [
            ("ko", Lang::Ko),
            ("ko-KR,en;q=0.5", Lang::Ko),
            ("en,ko", Lang::En),
            ("", Lang::En),
            ("kok", Lang::En),
        ] {
            assert_eq!(Lang::of_header(header), lang, "{header}");
        }
    }
}
