//! English.

use super::{Message, Word};

pub(super) const fn word(word: Word) -> &'static str {
    match word {
        Word::AdminKey => "admin key",
        Word::Admins => "admins",
        Word::Age => "age",
        Word::Attempts => "tries",
        Word::Busy => "busy",
        Word::Cancelled => "cancelled",
        Word::Change => "change",
        Word::CheckWords => "check words",
        Word::Blocked => "blocked",
        Word::Class => "class",
        Word::Closed => "closed",
        Word::Code => "code",
        Word::Confirmed => "confirmed by",
        Word::Daemon => "daemon",
        Word::DataDir => "data dir",
        Word::Done => "done",
        Word::DoneTotal => "done/all",
        Word::Down => "away",
        Word::Epoch => "epoch",
        Word::Error => "error",
        Word::Expires => "expires",
        Word::Failed => "failed",
        Word::Fetching => "fetching",
        Word::Good => "ok",
        Word::Gpu => "gpu",
        Word::Granted => "preparing",
        Word::Here => "on this machine",
        Word::Hint => "hint",
        Word::Hygiene => "hygiene",
        Word::Id => "id",
        Word::Idle => "idle",
        Word::Job => "job",
        Word::Label => "label",
        Word::LastTime => "last time",
        Word::Lending => "lending",
        Word::LearnLater => "learn it later",
        Word::Listening => "listening",
        Word::Look => "look",
        Word::Missing => "missing",
        Word::Models => "models",
        Word::Name => "name",
        Word::Never => "never",
        Word::NewStudio => "new studio",
        Word::NoAnswer => "no answer",
        Word::NoSlots => "no GPU",
        Word::Node => "node",
        Word::Nodes => "nodes",
        Word::None => "none",
        Word::NotConfigured => "(not in scenemesh.toml)",
        Word::NotNow => "not now",
        Word::NotReady => "NOT READY",
        Word::NotSealed => "no passphrase",
        Word::Now => "now",
        Word::Open => "open",
        Word::OtherMachine => "elsewhere",
        Word::Output => "output",
        Word::Path => "path",
        Word::Peers => "peers",
        Word::Pool => "pool",
        Word::Progress => "progress",
        Word::Project => "project",
        Word::Queued => "queued",
        Word::Reach => "reach",
        Word::Ready => "ready",
        Word::RecoveryCode => "recovery code",
        Word::RefusedState => "refused",
        Word::Retention => "kept for",
        Word::Role => "role",
        Word::Revoked => "revoked",
        Word::Roles => "roles",
        Word::Rotated => "has new keys",
        Word::Rtt => "rtt",
        Word::Running => "running",
        Word::Sealed => "sealed with a passphrase",
        Word::Seen => "seen",
        Word::SignedAgain => "signed again",
        Word::SignedBy => "signed by",
        Word::SomebodysJob => "somebody's job",
        Word::Solo => "solo",
        Word::Starting => "starting",
        Word::State => "state",
        Word::StoppedHere => "its tasks stopped here",
        Word::Studio => "studio",
        Word::Submitted => "submitted",
        Word::KeptOn => "held by",
        Word::KeptFor => "held for",
        Word::TakenBack => "our tasks taken back",
        Word::Task => "task",
        Word::Tasks => "tasks",
        Word::Time => "time",
        Word::Version => "version",
        Word::VramFreeTotal => "vram free/all",
        Word::Weight => "weight",
        Word::What => "what",
        Word::AllowedByHand => "allowed here",
        Word::Always => "always",
        Word::Classes => "classes",
        Word::DeniedByHand => "denied here",
        Word::Elsewhere => "as far as is known",
        Word::Everybody => "every studio",
        Word::Everything => "all",
        Word::Family => "family",
        Word::From => "from",
        Word::Hours => "hours",
        Word::Input => "input",
        Word::Lent => "lent",
        Word::LentTo => "lent to",
        Word::List => "list",
        Word::MostVram => "most vram",
        Word::Unlimited => "no limit",
        Word::Why => "why",
        Word::Wrong => "wrong",
    }
}

#[expect(clippy::too_many_lines, reason = "one line per sentence")]
pub(super) fn text(message: &Message) -> String {
    match message {
        Message::NoCommand => "no command was given".into(),
        Message::UnknownCommand { command } => format!("there is no command {command:?}"),
        Message::UnknownArgument { argument } => format!("{argument:?} is not known here"),
        Message::MissingArgument { argument } => format!("{argument} is missing"),
        Message::MissingValue { argument } => format!("{argument} needs a value"),
        Message::ArgumentsConflict { argument, other } => format!("{argument} does not go with {other}"),
        Message::BadValue { argument, value } => format!("{value:?} cannot be read as {argument}"),
        Message::BadCommandLine { why } => format!("the command line cannot be read: {why}"),
        Message::HintHelp => {
            "scenemesh --help lists the commands, scenemesh COMMAND --help their arguments".into()
        }
        Message::HintDidYouMean { word } => format!("did you mean {word}?"),
        Message::HintWriteLike { example } => format!("it is written like this: {example}"),

        Message::NoDataDir => {
            "nothing says where the daemon keeps its data: there is no home directory".into()
        }
        Message::HintDataDir => "name it with --data-dir DIR or in SCENEMESH_DATA_DIR".into(),
        Message::NoAddress { path } => format!("the daemon is not running: there is no {path}"),
        Message::AddressNotReadable { path } => {
            format!("{path} may not be read: it belongs to the user who runs the daemon")
        }
        Message::GarbledAddress { path } => format!("{path} does not say where the daemon is"),
        Message::NobodyAnswers { url, path } => {
            format!("the daemon is not running: nothing answers at {url}, which {path} names")
        }
        Message::AnswerBroke { url, why } => format!("the daemon at {url} broke off its answer: {why}"),
        Message::AnswerTimedOut { url } => format!("the daemon at {url} did not answer in time"),
        Message::AnswerNotOurs { url, why } => format!("{url} answered what this release cannot read: {why}"),
        Message::DaemonWentAway => "the daemon went away; looking for it again for a minute".into(),
        Message::DaemonIsBack => "the daemon is back".into(),
        Message::DaemonStaysAway => "the daemon went away and did not come back".into(),
        Message::HintStartDaemon { data_dir } => format!("start it: scenemeshd --data-dir {data_dir}"),
        Message::HintSameUser => "run this as that user".into(),
        Message::HintCheckDataDir => "check the directory and who owns it".into(),
        Message::HintDoctor => "scenemesh doctor looks for what is wrong".into(),
        Message::HintSameRelease => {
            "use scenemesh and scenemeshd of the same release (scenemesh --version, scenemeshd --version)"
                .into()
        }
        Message::HintJobGoesOn => {
            "the job is in the daemon's journal and goes on when the daemon does: scenemesh jobs".into()
        }
        Message::OurBug { what } => format!("this should not have happened: {what}"),
        Message::HintOurBug => "it is a bug of ours; please report it with this line".into(),

        Message::CannotRead { path, why } => format!("{path} cannot be read: {why}"),
        Message::CannotWrite { path, why } => format!("{path} cannot be written: {why}"),
        Message::CutOff { path, bytes, of } => {
            format!("only {bytes} of {of} bytes arrived for {path}; nothing was kept of it")
        }
        Message::HintCheckPath => "check the path, and that you may read it".into(),
        Message::HintCheckDisk => "check the path, its permissions, and the space on that disk".into(),
        Message::HintFetchAgain => "scenemesh fetch ID --out DIR brings what is missing".into(),

        Message::AskNewPassphrase => "passphrase for the admin key: ".into(),
        Message::AskPassphraseAgain => "once more: ".into(),
        Message::AskPassphrase => "passphrase of the admin key: ".into(),
        Message::AskContinue => "continue? [y/N]".into(),
        Message::AskLeave => {
            "leave the pool? An admin must invite this node again to bring it back. [y/N]".into()
        }
        Message::CannotAsk { why } => format!("the terminal cannot be asked: {why}"),
        Message::EmptyPassphrase => "the passphrase is empty".into(),
        Message::EmptyPassphraseFile { path } => format!("the first line of {path} is empty"),
        Message::PassphrasesDiffer => "the two passphrases differ".into(),
        Message::NobodyToAsk => "this needs a yes, and there is no terminal to ask".into(),
        Message::NobodyToAskPassphrase => {
            "a passphrase is needed, and there is no terminal to ask for it".into()
        }
        Message::HintPassphraseFile => "write it to a file and pass --passphrase-file FILE".into(),
        Message::HintNoPassphrase => "to have none, say so: --no-passphrase".into(),
        Message::HintTryAgain => "try again".into(),
        Message::Wiped { index, node, wiped, left } => {
            format!("#{index} wiped by {node}: {wiped}; left: {left}")
        }
        Message::NotWiped { index, node, left } => format!(
            "warning: task #{index} insists on leaving nothing, but this stays on {node}: {left}; ask its owner to remove it"
        ),
        Message::NoWipe { index, node } => format!(
            "warning: task #{index} insists on leaving nothing, but {node} did not say what it removed; ask its owner"
        ),
        Message::Nothing => "nothing".into(),
        Message::HintYes => "add --yes to mean it".into(),

        Message::KeepRecoveryCode => {
            "the recovery code is a second admin key; it is not shown again, so write it down now".into()
        }
        Message::NextInvite => "next: scenemesh invite, for another machine".into(),
        Message::NextSubmit => "next: scenemesh submit WORKFLOW.json --out DIR".into(),
        Message::NextJoin { code } => format!("next, on the other machine: scenemesh join {code}"),
        Message::NextInitOrJoin => {
            "next: scenemesh init founds a pool, scenemesh join CODE enters one".into()
        }
        Message::NextApprove => "next: scenemesh pool approve signs a change".into(),
        Message::InvitesUnlocked { count } => format!("invites that can be used now: {count}"),
        Message::InviteSays { pool, inviter, check } => {
            format!(
                "pool     {pool}\ninviter  {inviter}\ncheck    {check}\nthe inviter must read out the same words"
            )
        }
        Message::Joining { inviter, addresses } => format!("asking …{inviter} at {addresses}"),
        Message::NewStudioNeedsKey => "this invite founds a studio; its admin key is made here".into(),
        Message::Joined { peers_up } => format!("joined; peers up: {peers_up}"),
        Message::NotJoined => "not joined, as you wished; the invite is still good".into(),
        Message::InviteIsLocked => {
            "not in yet: the inviter restarted, and its admin key is locked; this node keeps asking".into()
        }
        Message::HintUnlock => "on the inviting machine: scenemesh invite --unlock".into(),
        Message::HintCompareWords => {
            "if the words differed, ask for a new invite: somebody else made this one".into()
        }
        Message::AwaitingApproval { signatures_missing } => format!(
            "the new studio waits for signatures of other studios: {signatures_missing} missing \
             (scenemesh pool approve, there); it enters by itself when they have signed"
        ),
        Message::ApprovedInForce { change } => format!("signed, and in force: {change}"),
        Message::ApprovedWaiting { change, missing } => {
            format!("signed: {change}; signatures missing: {missing}")
        }
        Message::Left { pool, told } => format!("left {pool}; peers told: {told}"),
        Message::NotLeft => "not left, as you wished".into(),
        Message::JoinGivenUp => "no longer asking to join".into(),
        Message::NoPeers => "no other node is in the pool".into(),
        Message::LeftRecordStays { pool } => format!(
            "this node's record stays in {pool} until an admin of its studio revokes it (scenemesh revoke NODE); \
             until then an invite brings it back under the same key"
        ),

        Message::CannotRecall { name } => format!("files already delivered to {name} cannot be recalled"),
        Message::Fallen { names } => {
            format!("admitted by that key alone, and members no more: {names}; invite them again")
        }
        Message::Blocked { name, until } => {
            format!("{name} is blocked by this studio's machines until {until}; scenemesh block {name} --lift ends it")
        }
        Message::GivenBackIn { took } => format!("given back in {took}"),
        Message::NextLendOffUntil => "to have the GPU for yourself until a time: scenemesh lend off --until TIME".into(),
        Message::NotFreeYet => "the GPU is not free yet: ComfyUI still runs what it was told to stop".into(),
        Message::HintNotFreeYet => {
            "see scenemesh lend status; while it loads a model ComfyUI cannot be interrupted, restarting it can".into()
        }
        Message::StillHeld => "ComfyUI still holds video memory".into(),
        Message::HintStillHeld => "restart ComfyUI if you need the memory".into(),
        Message::NothingForOthers => "nothing for others".into(),
        Message::BeingStopped => "being stopped".into(),
        Message::StillNeeds { left } => format!("needs about {left}"),
        Message::VramWent { before, after } => format!("{before} → {after} GiB in use"),
        Message::DrainsNow { running, results } => {
            format!("takes no new work; running here: {running}, results not taken yet: {results}")
        }
        Message::IsDrained => "nothing is left here; it takes no new work until scenemesh drain --off or a restart".into(),
        Message::TakesWorkAgain => "it takes work again".into(),
        Message::DaemonHasEnded => "nothing was left here; the daemon has ended".into(),
        Message::DrainEnded => "somebody ended the draining meanwhile".into(),
        Message::HintDrainEnded => "start it again: scenemesh drain".into(),
        Message::BlockLifted { name } => format!("{name} is not blocked any more"),
        Message::BlockedFor { left, reason } if reason.is_empty() => format!("for another {left}"),
        Message::BlockedFor { left, reason } => format!("for another {left}: {reason}"),
        Message::NextCountersign { code } => format!(
            "next, where an admin key of your studio is: scenemesh rotate --countersign {code}\n\
             this node notices it by itself, and goes on under its new key"
        ),
        Message::Rotating => "the daemon restarts in place under its new key".into(),
        Message::RotatedHere { node } => format!("this node is {node} now; its old key is refused everywhere"),
        Message::RotatedOther { name, node } => format!("{name} goes on as {node}; its old key is refused everywhere"),
        Message::AskRecoveryCode => "recovery code: ".into(),
        Message::NobodyToAskCode => "a recovery code is needed, and there is no terminal to ask for it".into(),
        Message::HintCodeFile => "write it to a file and pass --code-file FILE".into(),
        Message::NextAdminAdd { key } => {
            format!("next, where an admin key of your studio is: scenemesh admin add {key}")
        }
        Message::NextAfterRecovery => {
            "if the old key may be in other hands: scenemesh revoke --admin KEY --reason stolen; then make a new paper \
             key: scenemesh admin new --paper"
                .into()
        }
        Message::AdminMovedAside { path } => format!("the admin key that was here is now {path}"),
        Message::NextSecondAdmin => {
            "for the day this machine is lost: scenemesh admin new on a second one, scenemesh admin add KEY here".into()
        }
        Message::SoloSockets => "no socket but loopback is open; nobody can join".into(),

        Message::NextProject { name } => format!("next: scenemesh submit WORKFLOW.json --project {name:?}"),
        Message::NoProjects => "your studio has no projects; make one: scenemesh project add NAME".into(),
        Message::NoSuchProject { name } => format!("your studio has no project {name:?}"),
        Message::HintProjects => "see which there are: scenemesh project ls".into(),
        Message::NoUsers => {
            "nobody but the daemon's own user has a token; give one: scenemesh user add NAME".into()
        }
        Message::UserRemoved { name } => format!("{name}'s token is refused from now on"),
        Message::TokenHandedOver { name, path } => format!(
            "{name}'s token is in {path}, which only {name} can read; it belongs in ~{name}/.config/scenemesh/api.json"
        ),
        Message::TokenToHandOver { name, path } => format!(
            "{name}'s token is in {path}, which only you can read; hand it over as root: install -D -m 600 -o {name} \
             {path} ~{name}/.config/scenemesh/api.json, then remove {path}"
        ),
        Message::NoSuchOsUser { name, path } => format!(
            "this machine knows no user {name}; the token in {path} works all the same, and whoever holds it is {name}"
        ),
        Message::PolicyList { version, comfyui, allowed, denied } => {
            format!(
                "version {version} for ComfyUI {comfyui}: {allowed} classes may run, {denied} may not, nor any other"
            )
        }
        Message::PolicyFindsNothing => "this node would refuse nothing of it".into(),
        Message::PolicyRefuses { count } => {
            format!("this node would refuse it if another machine sent it: {count} findings")
        }
        Message::HintPolicyRefuses => {
            "change the workflow, or scenemesh policy allow CLASS for a class that you trust".into()
        }
        Message::NextAllow { class } => format!("to let it run for others: scenemesh policy allow {class:?}"),

        Message::RunningSince { version, up } => format!("scenemeshd {version}, up {up}"),
        Message::PeersUp { up, total } => format!("{up} of {total} peers up"),
        Message::TasksNow { running, queued } => format!("{running} running, {queued} queued"),
        Message::NoComfyui => "no ComfyUI here: this node submits, and renders nothing".into(),
        Message::ComfyuiNotConfigured { url } => format!(
            "ComfyUI answers at {url}; to render on it, put this into scenemesh.toml and restart the daemon:\n\
             [[comfyui]]\nurl = \"{url}\""
        ),
        Message::DaemonAnswers { url } => format!("answers at {url}"),
        Message::ChecksFailed { count } => format!("checks that failed: {count}"),
        Message::JournalExported { path, bytes } => {
            format!("{path}: {bytes}. It holds prompts and names: keep it as you keep your keys")
        }
        Message::JournalImported { records } => format!("took in {records} records"),
        Message::NextRestart => "next: restart scenemeshd, it puts them in place".into(),
        Message::IndexRebuilt { records, took_ms } => {
            format!("made the index anew: {records} records in {took_ms} ms")
        }
        Message::HintChecks => "each has an arrow with what to do".into(),

        Message::WorkflowTooLarge { path, limit } => {
            format!("{path} is larger than a workflow may be ({limit})")
        }
        Message::WorkflowNotText { path } => format!("{path} is not JSON: it is not even text"),
        Message::CannotReadInput { name, path, why } => format!("input {name}: {path} cannot be read: {why}"),
        Message::InputTooLarge { path, bytes, limit } => {
            format!("{path} has {bytes}, more than an input may have ({limit})")
        }
        Message::HintNotEmbedded => "send pictures with --input NAME=FILE instead of embedding them".into(),
        Message::HintExportApi => "in ComfyUI, Workflow → Export (API) saves the right file".into(),
        Message::HintSmallerInput => "send a smaller or compressed file".into(),
        Message::Submitted { job, tasks, reach } => {
            let tasks = plural(*tasks, "task", "tasks");
            format!("job {job}: {tasks}, reach {reach}")
        }
        Message::NextShow { job } => format!("look at it: scenemesh show {job}"),
        Message::NextFetch { job } => {
            format!("the results are with the daemon: scenemesh fetch {job} --out DIR")
        }
        Message::Detached { job } => format!(
            "the job goes on without this command; look again: scenemesh show {job} · \
             scenemesh fetch {job} --out DIR · scenemesh cancel {job}"
        ),
        Message::TaskWaits { index, why } => format!("task #{index}: {why}"),
        Message::TaskGranted { index, node } => format!("task #{index} goes to {node}"),
        Message::TaskRuns { index, node } => format!("task #{index} runs on {node}"),
        Message::TaskProgress { index, node, percent, at } => {
            format!("task #{index} on {node}: {percent} % ({at})")
        }
        Message::TaskDone { index, node, took } if took.is_empty() => format!("task #{index} done on {node}"),
        Message::TaskDone { index, node, took } => format!("task #{index} done on {node} in {took}"),
        Message::TaskFailed { index, why } => format!("task #{index} failed: {why}"),
        Message::TaskCancelled { index } => format!("task #{index} cancelled"),
        Message::TaskGivenUp { index, node } if node.is_empty() => format!("task #{index} goes elsewhere"),
        Message::TaskGivenUp { index, node } => format!("task #{index} leaves {node} and goes elsewhere"),
        Message::JobProgress { ended, total, running } => {
            format!("{ended} of {total} tasks ended, {running} running")
        }
        Message::JobFailed { failed, total, why } => format!("{failed} of {total} tasks failed; {why}"),
        Message::JobCancelled { job } => format!("job {job} was cancelled"),
        Message::HintRetry { job } => {
            format!("scenemesh logs {job} tells the story, scenemesh retry {job} tries again")
        }
        Message::NoJobs => "no jobs".into(),
        Message::MoreJobs { count } => format!("older jobs not shown: {count} (--limit N)"),
        Message::CancelledNow { job, state } => format!("job {job} is {state}"),
        Message::RetriedNow { job, waiting } => {
            let tasks = plural(*waiting, "task is", "tasks are");
            format!("job {job}: {tasks} queued again")
        }
        Message::PausedNow { job, paused } => {
            format!("job {job}: {} paused; what runs goes on", plural(*paused, "task is", "tasks are"))
        }
        Message::ResumedNow { job, waiting } => {
            format!("job {job}: {} for a node", plural(*waiting, "task waits", "tasks wait"))
        }
        Message::NothingToFetch { job } => format!("job {job} has no results yet"),
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
