//! English.

use super::{Message, NotThere, RecordKind, gigabytes, limit_words, milliseconds};

#[expect(clippy::too_many_lines, reason = "one line per sentence")]
pub(super) fn text(message: &Message) -> String {
    match message {
        Message::NoToken => "the request has no token".into(),
        Message::WrongToken => "the token is not that of this daemon: it changes with every start".into(),
        Message::ForeignHost { host } => format!("the request was made to {host:?}, which is not this daemon"),
        Message::ForeignOrigin { origin } => format!("a page of {origin:?} may not talk to this daemon"),
        Message::RoleLacking { need } => format!("the token does not allow this: it takes the role {need}"),
        Message::HintToken => "read url and token from api.json in the daemon's data directory".into(),
        Message::HintLoopback => "use the url in api.json".into(),
        Message::SomebodysJob { job } => {
            format!("job {job} is somebody else's: with the role submit only one's own can be looked into")
        }
        Message::HintOperate => "ask whoever runs the daemon for the role operate".into(),
        Message::NoSuchUser { name } => format!("{name} has no token here"),
        Message::BadUserName { given } => format!("{given:?} is no name of a user"),
        Message::UserHasToken { name } => format!("{name} has a token here already"),
        Message::TooManyUsers => "there are as many tokens as there may be".into(),
        Message::HintUsers => "see who has one: scenemesh user ls".into(),
        Message::HintUserName => "give the name that the operating system knows".into(),
        Message::HintUserAgain => {
            "change the role with scenemesh user set, or remove the user first for a new token".into()
        }
        Message::HintRole => "ask whoever runs the daemon for a token with that role".into(),

        Message::NoSuchPath { path } => format!("the API has no {path}"),
        Message::NoSuchMethod { method, path } => format!("{path} does not take {method}"),
        Message::BodyNotJson { why } => format!("the request's body cannot be read: {why}"),
        Message::BodyTooLarge { limit } => format!("the request's body is over the limit of {}", limit_words(*limit)),
        Message::BodyBroke { why } => format!("the request's body broke off: {why}"),
        Message::TooManyRequests => "too many requests are under way".into(),
        Message::HintSameRelease => "use scenemesh and scenemeshd of the same release".into(),
        Message::HintSlower => "wait for some of them to end".into(),
        Message::Stopping => "the daemon is stopping".into(),
        Message::HintRestart => "start it again and repeat; nothing accepted before is lost".into(),
        Message::Broke { what } => format!("this should have worked: {what}"),
        Message::HintLog => "the daemon's log has more; scenemesh doctor looks at disk and data directory".into(),

        Message::BadId { given } => format!("{given:?} is not an id: those are hexadecimal"),
        Message::NoSuchId { given } => format!("no job or task begins with {given}"),
        Message::AmbiguousId { given } => format!("more than one job or task begins with {given}"),
        Message::NoSuchOutput { index, count } => format!("the task has no output {index}: it has {count}"),
        Message::NoPreview => "there is no preview of this task".into(),
        Message::NothingToCancel => "nothing of it waits or runs any more".into(),
        Message::NothingToRetry => "nothing of it failed or was cancelled".into(),
        Message::NothingToPause => "nothing of it waits or runs that is not paused already".into(),
        Message::NothingToResume => "nothing of it is paused".into(),
        Message::BadRange { given } => {
            format!("{given:?} is not a job's id with numbers of its tasks behind a colon")
        }
        Message::RangeOfTask { given } => format!("{given:?} is a task's id: numbers go with the id of a job"),
        Message::HintRange => "JOB:3, JOB:3..7 and JOB:1,4,9 name tasks by the numbers that scenemesh show prints".into(),
        Message::VariedTwice { path } => format!("{path} is varied twice; give all its values at once"),
        Message::HintJobs => "scenemesh jobs lists them".into(),
        Message::HintLongerId => "give more of its characters; scenemesh jobs shows enough of them".into(),
        Message::HintShow => "scenemesh show ID tells where it stands".into(),

        Message::WorkflowTooLarge { limit } => {
            format!("the workflow is over the limit of {}", limit_words(*limit as u64))
        }
        Message::HintExportApi => {
            "open it in ComfyUI and choose Workflow → Export (API); in older ones switch on dev mode, then Save (API Format)"
                .into()
        }
        Message::HintNotEmbedded => "send pictures with --input NAME=FILE instead of embedding them".into(),
        Message::BadSetting { path, value, stands } => {
            format!("--set {path}={value}: {stands} stands there, and {value:?} is not JSON")
        }
        Message::HintQuote => format!("to put text there, quote it as JSON: --set {}", r#"'NODE.INPUT="text"'"#),
        Message::MissingInput { name, node, class, input } => {
            format!("the workflow needs the file {name:?} (node {node}, {class}.{input}), and it was not sent")
        }
        Message::HintGiveInput { name } => format!("add --input {name}=FILE"),
        Message::UnusedInput { name, names } => {
            format!("the file {name:?} was sent, but the workflow does not name it; it names {}", or(names, "none"))
        }
        Message::HintRenameInput => "write --input NAME=FILE with NAME as it stands in the workflow".into(),
        Message::UnknownInputHandle { name } => format!("the upload of {name:?} is not known any more"),
        Message::HintUploadAgain => "send the file again".into(),
        Message::DuplicateInput { name } => format!("the file {name:?} was sent twice"),
        Message::UnknownStudio { given, known } => format!("the pool has no studio {given:?}; it has {known}"),
        Message::BeyondProject { reach, project, limit } => {
            format!("reach {reach} goes beyond project {project:?}, which allows {limit}")
        }
        Message::HintBeyondProject => {
            "give a smaller --reach, or none; an admin may widen the project: scenemesh project set".into()
        }
        Message::ProjectClosed { name } => format!("project {name:?} is closed: it takes no new jobs"),
        Message::HintProjectOpen => "an admin may open it again: scenemesh project set NAME --open".into(),
        Message::HintReach => "--reach takes machine, studio, pool, or names of studios with commas".into(),
        Message::NotInPool { reach } => format!("this node is in no pool, so a job cannot have reach {reach}"),
        Message::HintJoinFirst => "join a pool first, or use --reach machine".into(),
        Message::CountOutOfRange { count, limit } => format!("a job has 1 to {limit} tasks, not {count}"),
        Message::UnknownClass { class, nodes, unknown } => {
            format!("no node in reach has the node class {class:?}{}{}", used_by(nodes), besides(unknown))
        }
        Message::HintUnknownClass => {
            "install the custom nodes it comes from on a rendering machine, or correct the workflow".into()
        }
        Message::MissingModel { model, unknown } => {
            format!("no node in reach has the model {model:?}{}", besides(unknown))
        }
        Message::HintModelElsewhere { model, nodes, reach } => {
            format!("{model} is on {nodes}: use --reach {reach}")
        }
        Message::HintModelNowhere => {
            "put it on a rendering machine, or choose one that is there: models are named as ComfyUI lists them".into()
        }
        Message::NoNodeHasAll { reasons } => format!("no single node in reach can take this workflow: {reasons}"),
        Message::NobodyInReach { machines } => {
            let reason = |not_there: &NotThere| match not_there {
                NotThere::OutOfReach => "is out of reach",
                NotThere::NoRole => "does not have the role render",
                NotThere::NoComfyui => "has no ComfyUI configured",
            };
            let reasons: Vec<_> = machines.iter().map(|(name, why)| format!("{name} {}", reason(why))).collect();
            format!("no node can take this job: {}", reasons.join(", "))
        }
        Message::HintNobodyInReach => {
            "widen --reach, or give a machine in reach a ComfyUI: a [[comfyui]] block in its scenemesh.toml".into()
        }
        Message::HintNoNodeHasAll => "install what is missing on one of them, or widen --reach".into(),
        Message::MayNotSubmit => "this node is not allowed to submit work to its pool: it lacks the role submit".into(),
        Message::InputTooLarge { limit } => format!("an input is over the limit of {}", limit_words(*limit)),

        Message::NewStudioNeedsKey => {
            "this invite founds a studio, and how to keep its admin key was not said".into()
        }
        Message::HintPassphrase => "give --passphrase-file FILE or --no-passphrase".into(),
        Message::NoPool => "this node is in no pool".into(),
        Message::HintInitOrJoin => "run scenemesh init or scenemesh join CODE first".into(),
        Message::NoSuchPeer { given } => format!("the pool has no node {given:?}"),
        Message::HintPeers => "scenemesh peers lists them".into(),
        Message::SoloComfyuiElsewhere { url } => {
            format!("the ComfyUI at {url} is not on this machine's loopback, and a solo node opens no other socket")
        }
        Message::HintSoloComfyui => {
            "name one at 127.0.0.1 in scenemesh.toml and restart the daemon, or found the pool without --solo".into()
        }

        Message::DataDirFine { path } => format!("{path} can be written"),
        Message::DataDirNotWritable { path, why } => format!("{path} cannot be written: {why}"),
        Message::HintDataDir => "check the directory's owner and permissions, and that the disk is not read-only".into(),
        Message::DiskFine { free, used } => {
            format!("{} free; inputs and results take {}", gigabytes(*free), gigabytes(*used))
        }
        Message::DiskLow { free } => format!("only {} free: new inputs and results may be refused", gigabytes(*free)),
        Message::DiskUnknown => "this system does not tell how much is free".into(),
        Message::HintDisk => "free some space on the disk of the data directory".into(),
        Message::ComfyuiReady { url, version, classes, models } => {
            format!("{url} is ready: ComfyUI {version}, {classes} node classes, {models} models")
        }
        Message::ComfyuiStarting { url } => format!("{url} is being asked"),
        Message::ComfyuiNotReady { url, why } => format!("{url} is not ready: {why}"),
        Message::HintComfyuiStart { url } => format!("start ComfyUI there, or correct the url {url} in scenemesh.toml"),
        Message::ComfyuiParked { url, nodes, last, trouble, minutes } => {
            let trouble = trouble.as_ref().map(|trouble| format!("; the last try: {trouble}")).unwrap_or_default();
            format!(
                "{url} takes no work of others: tasks of {nodes} nodes failed there one after the other, the last with: \
                 {last}; it does again when a small render of its own comes out right, or in {minutes} min{trouble}"
            )
        }
        Message::HintParked => "look into the log of that ComfyUI; a restart of scenemeshd takes others' work again at once".into(),
        Message::ComfyuiUnused { url, version } => {
            format!("ComfyUI {version} answers at {url}, and scenemesh.toml does not name it")
        }
        Message::HintComfyuiConfigure { url } => {
            format!("to render on it, add [[comfyui]] url = \"{url}\" to scenemesh.toml and restart the daemon")
        }
        Message::ComfyuiNone { tried } => {
            format!("none is configured, and none answers at {tried}: this node submits, and renders nothing")
        }
        Message::HintComfyuiNone => "fine for a desk without a GPU; else start ComfyUI and run doctor again".into(),
        Message::HygieneFull { url } => format!("everything a task leaves in {url} can be removed"),
        Message::HygienePartial { url } => {
            format!("the folders of {url} cannot be reached: some files of a task may stay there")
        }
        Message::HintHygiene => {
            "name its folders in its [[comfyui]] block (input_dir, output_dir, temp_dir), or run it on this machine".into()
        }
        Message::GpusSeen { gpus } => format!("the driver sees {gpus}"),
        Message::GpusFromComfyui { gpus } => format!("no NVIDIA driver answers; ComfyUI sees {gpus}"),
        Message::GpusNone => "none is seen".into(),
        Message::HintGpus => "fine if this node only submits; else check the driver (nvidia-smi)".into(),
        Message::PoolAlone => "this node is in no pool".into(),
        Message::PoolJoining { words } => format!("this node waits to be let in: {words}"),
        Message::PoolOutside { why } => format!("the pool does not count this node among its members: {why}"),
        Message::PoolMember { pool, studio, members } => {
            format!("member of {pool} for {studio}; {members} members in all")
        }
        Message::HintAskAdmin => "ask an admin of your studio for a new invite".into(),
        Message::HintWait => "it goes on by itself; scenemesh leave gives it up".into(),
        Message::Listening { addresses } => format!("peers can dial {addresses}"),
        Message::NotListening => "no port is open for peers".into(),
        Message::SoloPorts => "solo: no socket but loopback is open".into(),
        Message::OneAdmin { studio, paper: true } => {
            format!("{studio} has one admin key besides its recovery code: if that machine is lost, only the paper is left")
        }
        Message::OneAdmin { studio, paper: false } => {
            format!("{studio} has one admin key: if it is lost, nobody can sign for the studio again")
        }
        Message::HintSecondAdmin => {
            "make a second one: scenemesh admin new on another machine (or --paper), scenemesh admin add KEY where the first is"
                .into()
        }
        Message::HintPorts => "look into the log for a port that was taken; --listen and --porch choose others".into(),
        Message::PeersNone => "no other node is in the pool".into(),
        Message::PeersUp { up, total } => format!("{up} of {total} are up"),
        Message::PeersAllDown { total } => format!("none of {total} is up"),
        Message::HintPeersDown => {
            "are their daemons running, and ports 7872 and 7873 open between you? scenemesh doctor --peer NODE looks closer"
                .into()
        }
        Message::PeerUp { name, address, rtt_us } => {
            format!("{name} is up at {address}, {} ms away", milliseconds(*rtt_us))
        },
        Message::PeerDown { name, why } => format!("{name} is away: {why}"),
        Message::PeerRefused { name, words } => format!("{name} was reached, but: {words}"),
        Message::HintPeer => "is its daemon running, and its port 7872 open to this machine?".into(),
        Message::ClockFine { peers } => format!("agrees with peers: {peers}"),
        Message::ClockAlone => "nobody to compare with".into(),
        Message::ClockOff { name, seconds } => {
            format!("the clock of {name} is {} s {} this machine's", seconds.abs(), ahead(*seconds))
        }
        Message::ClockMine { seconds } => {
            format!("this machine's clock is {} s {} that of most peers", seconds.abs(), ahead(-*seconds))
        }
        Message::JournalFine => "the journal and its index read as they were written".into(),
        Message::JournalTorn { bytes } => {
            format!("the last start cut {bytes} bytes of an unfinished write off the journal; nothing that was accepted is lost")
        }
        Message::JournalMended { kept } => {
            format!("the journal was damaged and could be mended; no record is lost, the damaged file is kept as {kept}")
        }
        Message::HintLookAtDisk => "a disk that damages files once does it again: check it (smartctl -a)".into(),
        Message::JournalLost { bytes, kinds, kept } => {
            format!("{bytes} bytes of the journal do not read any more{}; the damaged file is kept as {kept}", about(kinds))
        }
        Message::JournalBeginsLate { bytes } => format!("the first {bytes} bytes of the journal are missing"),
        Message::HintLost => {
            "compare scenemesh jobs and scenemesh pool with what you expect, submit again what is missing, and check the disk".into()
        }
        Message::JournalEndsEarly { bytes } => format!(
            "the journal ends {bytes} bytes before what this node had accepted: its end was lost, or an older copy was put back"
        ),
        Message::JournalGone => "the journal is gone, though the index knew of one; a new one was begun".into(),
        Message::HintSetBack => {
            "if you put back a backup, jobs submitted since are missing and unfinished ones run again; submit the missing ones again".into()
        }
        Message::JournalImported { records } => format!("an imported journal of {records} records was put in place"),
        Message::ImportLeft { path } => {
            format!("an import waits in {path}, but this node has recorded something since")
        }
        Message::HintRemoveImport { path } => {
            format!("remove {path}, or import into an empty data directory")
        }
        Message::NoRoomForJournal => "the disk is full: nothing new can be recorded".into(),
        Message::JournalStuck { why } => why.clone(),
        Message::HintCheckDiskAndRestart => "check the disk, then restart scenemeshd".into(),
        Message::IndexRebuilt { kept } => {
            format!("the index was damaged and made anew from the journal; the old one is kept as {kept}")
        }
        Message::IndexBroken { why } => format!("lookups fail: {why}"),
        Message::HintRebuild => "run scenemesh ledger rebuild".into(),
        Message::JournalNotEmpty => "this daemon has recorded something already: a journal is imported into an empty data directory".into(),
        Message::HintEmptyDataDir => {
            "stop it, start scenemeshd with a new --data-dir that holds only the old keys/ directory, and import there".into()
        }
        Message::ImportWaits => "another import is under way, or waits for a restart".into(),
        Message::HintRestartToImport => "restart scenemeshd to put it in place".into(),
        Message::NotAnExport => "the file is no exported journal".into(),
        Message::DamagedExport { why } => format!("the exported journal is damaged or was cut off: {why}"),
        Message::HintExport => "use a file that scenemesh journal export wrote, copied whole".into(),
        Message::NewerExport { version } => format!("the export has format {version}, which this release does not read"),
        Message::HintNewerRelease => "install the release that wrote it, or a newer one".into(),
        Message::ForeignExport { node, me } => format!("the journal is that of node {node}, and this is node {me}"),
        Message::HintCopyKeys => "copy that node's keys/ directory into this data directory first, and restart scenemeshd".into(),
        Message::HintClock => "set the clock by NTP (timedatectl set-ntp true): tasks are refused beyond 5 minutes".into(),
    }
}

fn about(kinds: &[RecordKind]) -> String {
    let word = |kind: &RecordKind| match kind {
        RecordKind::Jobs => "a step of a job submitted here".to_owned(),
        RecordKind::Rendered => "a step of a task rendered here".to_owned(),
        RecordKind::Membership => "a change of the pool or an invite".to_owned(),
        RecordKind::Other(kind) => format!("a record of kind {kind:#06x}"),
    };
    kinds.iter().map(|kind| format!(", {}", word(kind))).collect()
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn used_by(nodes: &str) -> String {
    if nodes.is_empty() { String::new() } else { format!(" (used by {nodes})") }
}

const fn ahead(seconds: i64) -> &'static str {
    if seconds >= 0 { "ahead of" } else { "behind" }
}

fn besides(unknown: &str) -> String {
    if unknown.is_empty() { String::new() } else { format!("; not known of {unknown}") }
}
