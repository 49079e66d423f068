//! The command line: global flags, the commands, and what is said when it cannot be read.

mod refusal;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use scenemesh_protocol::api::{DATA_DIR_VARIABLE, TOKEN_FILE_VARIABLE};

use crate::commands::{
    admin, block, cancel, completions, doctor, drain, fetch, init, invite, jobs, join, journal, leave,
    ledger, lend, logs, pause, peers, policy, pool, project, resume, retry, revoke, rotate, show, status,
    submit, top, user, why,
};
use crate::environment::Environment;
use crate::messages::{Lang, help};

pub(crate) use refusal::Refusal;

/// Render ComfyUI workflows on the GPUs of studios that share
#[derive(Debug, Parser)]
#[command(name = "scenemesh", version, disable_help_subcommand = true, subcommand_required = true)]
pub(crate) struct Args {
    /// Directory of the daemon to talk to
    #[arg(long, global = true, env = DATA_DIR_VARIABLE, value_name = "DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// File with your own token for the daemon, as user add wrote it
    #[arg(long, global = true, env = TOKEN_FILE_VARIABLE, value_name = "FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Print one JSON object as the last line on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Language of messages: en or ko; follows LANG otherwise
    #[arg(long, global = true, value_name = "LANG")]
    pub(crate) lang: Option<Lang>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Found a pool with this node as its first
    Init(init::InitArgs),
    /// Make a one-use invite for another machine
    Invite(invite::InviteArgs),
    /// Join a pool with an invite
    Join(join::JoinArgs),
    /// Show the pool, or approve a change to it
    Pool(pool::PoolArgs),
    /// Make, list and change projects of your studio
    Project(project::ProjectArgs),
    /// Give users of this machine their own tokens
    User(user::UserArgs),
    /// List the other nodes of the pool
    Peers(peers::PeersArgs),
    /// Show or change which node classes run here, and for whom
    Policy(policy::PolicyArgs),
    /// Show how this node stands
    Status(status::StatusArgs),
    /// Lend this machine, or take its GPU back
    Lend(lend::LendArgs),
    /// Take no new work from anybody, and wait until what runs here is done
    Drain(drain::DrainArgs),
    /// Leave the pool
    Leave(leave::LeaveArgs),
    /// Take a node or an admin key out of your studio for ever
    Revoke(revoke::RevokeArgs),
    /// Keep a node away from your studio's machines for 72 hours
    Block(block::BlockArgs),
    /// Exchange this node's keys for new ones
    Rotate(rotate::RotateArgs),
    /// Show, add, recover or remove your studio's admin keys
    Admin(admin::AdminArgs),
    /// Submit a workflow and wait for its results
    Submit(submit::SubmitArgs),
    /// List jobs, newest first
    Jobs(jobs::JobsArgs),
    /// Show a job and its tasks
    Show(show::ShowArgs),
    /// Say why a job or task is where it is
    Why(why::WhyArgs),
    /// Tell the story of a job or task
    Logs(logs::LogsArgs),
    /// Cancel a job or task
    Cancel(cancel::CancelArgs),
    /// Try the failed tasks of a job again
    Retry(retry::RetryArgs),
    /// Let no further task of a job begin
    Pause(pause::PauseArgs),
    /// Go on with what was paused
    Resume(resume::ResumeArgs),
    /// Save the results of a job
    Fetch(fetch::FetchArgs),
    /// Look for what is wrong, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Export the daemon's journal to a file, or import one
    Journal(journal::JournalArgs),
    /// Look after the books
    Ledger(ledger::LedgerArgs),
    /// Watch nodes and running tasks
    Top(top::TopArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// The `schema` of the command's JSON: `NAME/1`.
    pub(crate) const fn schema(&self) -> &'static str {
        match self {
            Self::Init(_) => "init/1",
            Self::Invite(_) => "invite/1",
            Self::Join(_) => "join/1",
            Self::Pool(_) => "pool/1",
            Self::Project(_) => "project/1",
            Self::User(_) => "user/1",
            Self::Peers(_) => "peers/1",
            Self::Policy(_) => "policy/1",
            Self::Status(_) => "status/1",
            Self::Lend(_) => "lend/1",
            Self::Drain(_) => "drain/1",
            Self::Leave(_) => "leave/1",
            Self::Revoke(_) => "revoke/1",
            Self::Block(_) => "block/1",
            Self::Rotate(_) => "rotate/1",
            Self::Admin(_) => "admin/1",
            Self::Submit(_) => "submit/1",
            Self::Jobs(_) => "jobs/1",
            Self::Show(_) => "show/1",
            Self::Why(_) => "why/1",
            Self::Logs(_) => "logs/1",
            Self::Cancel(_) => "cancel/1",
            Self::Retry(_) => "retry/1",
            Self::Pause(_) => "pause/1",
            Self::Resume(_) => "resume/1",
            Self::Fetch(_) => "fetch/1",
            Self::Doctor(_) => "doctor/1",
            Self::Journal(_) => "journal/1",
            Self::Ledger(_) => "ledger/1",
            Self::Top(_) => "top/1",
            Self::Completions(_) => "completions/1",
        }
    }
}

/// What must be known before the line is read: even a usage error is told in the right language and form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    pub(crate) lang: Lang,
    pub(crate) json: bool,
    pub(crate) schema: &'static str,
}

impl Glance {
    pub(crate) fn at(words: &[OsString], environment: &Environment) -> Self {
        let words = || words.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
        let named = words().zip(words().skip(1).map(Some).chain([None])).find_map(|(word, next)| {
            word.strip_prefix("--lang=").or_else(|| next.filter(|_| word == "--lang"))
        });
        let schema = words().find_map(|word| SCHEMAS.iter().find(|(name, _)| *name == word));
        Self {
            lang: named
                .and_then(|name| name.parse().ok())
                .unwrap_or_else(|| Lang::of_environment(environment)),
            json: words().any(|word| word == "--json"),
            schema: schema.map_or("scenemesh/1", |(_, schema)| schema),
        }
    }
}

const SCHEMAS: &[(&str, &str)] = &[
    ("init", "init/1"),
    ("invite", "invite/1"),
    ("join", "join/1"),
    ("pool", "pool/1"),
    ("project", "project/1"),
    ("user", "user/1"),
    ("peers", "peers/1"),
    ("policy", "policy/1"),
    ("status", "status/1"),
    ("lend", "lend/1"),
    ("drain", "drain/1"),
    ("leave", "leave/1"),
    ("revoke", "revoke/1"),
    ("block", "block/1"),
    ("rotate", "rotate/1"),
    ("admin", "admin/1"),
    ("submit", "submit/1"),
    ("jobs", "jobs/1"),
    ("show", "show/1"),
    ("why", "why/1"),
    ("logs", "logs/1"),
    ("cancel", "cancel/1"),
    ("retry", "retry/1"),
    ("pause", "pause/1"),
    ("resume", "resume/1"),
    ("fetch", "fetch/1"),
    ("doctor", "doctor/1"),
    ("journal", "journal/1"),
    ("ledger", "ledger/1"),
    ("top", "top/1"),
    ("completions", "completions/1"),
];

/// The command tree with its help in this language.
pub(crate) fn command(lang: Lang) -> clap::Command {
    help::localise(Args::command(), lang)
}

/// Reads a command line, or says why it cannot be read.
pub(crate) fn parse(words: Vec<OsString>, lang: Lang) -> Result<Args, Refusal> {
    let mut command = command(lang);
    let matches = command.try_get_matches_from_mut(words).map_err(|error| Refusal::new(&error))?;
    Args::from_arg_matches(&matches).map_err(|error| Refusal::new(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound_and_every_command_has_its_schema() {
        Args::command().debug_assert();
        let names: Vec<_> = Args::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let known: Vec<_> = SCHEMAS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, known);
        assert!(SCHEMAS.iter().all(|(name, schema)| *schema == format!("{name}/1")));
    }

    #[test]
    fn a_glance_sees_language_and_form() {
        let at = |line: &str, lang: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let glance = Glance::at(&words, &Environment::of(&[("LANG", lang)]));
            (glance.lang, glance.json, glance.schema)
        };
        assert_eq!(at("scenemesh jobs", "ko_KR.UTF-8"), (Lang::Ko, false, "jobs/1"));
        assert_eq!(at("scenemesh --lang en --json show x", "ko_KR.UTF-8"), (Lang::En, true, "show/1"));
        assert_eq!(at("scenemesh show --lang=ko -- --json", "C"), (Lang::Ko, false, "show/1"));
        assert_eq!(at("scenemesh --lang tlh nonsense", "C"), (Lang::En, false, "scenemesh/1"));
    }
}
