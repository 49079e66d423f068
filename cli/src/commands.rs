//! The commands: one file each, with its arguments; one line each here.

pub(crate) mod admin;
pub(crate) mod block;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod fetch;
pub(crate) mod init;
pub(crate) mod invite;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod journal;
pub(crate) mod leave;
pub(crate) mod ledger;
pub(crate) mod lend;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod pool;
pub(crate) mod project;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod revoke;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod top;
pub(crate) mod user;
pub(crate) mod why;

use crate::args::{Args, Command};
use crate::client::Connection;
use crate::environment::Environment;
use crate::error::CliError;
use crate::messages::Message;
use crate::ui::{Outcome, Ui};

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) connection: Connection,
    pub(crate) ui: &'a Ui,
}

pub(crate) async fn dispatch(args: Args, environment: &Environment, ui: &Ui) -> Result<Outcome, CliError> {
    if let Command::Completions(args) = &args.command {
        return Ok(completions::run(args, ui));
    }
    // Whoever names a data directory means the daemon there, whatever token lies elsewhere.
    let named = args.token_file;
    let token_file =
        if named.is_none() && args.data_dir.is_some() { None } else { user::token_file(named, environment) };
    let data_dir = args
        .data_dir
        .or_else(|| environment.default_data_dir())
        .ok_or_else(|| CliError::usage(Message::NoDataDir, Message::HintDataDir))?;
    let context = Context { connection: Connection { data_dir, token_file, lang: ui.lang }, ui };
    let context = &context;
    match args.command {
        Command::Init(args) => init::run(args, context).await,
        Command::Invite(args) => invite::run(args, context).await,
        Command::Join(args) => join::run(args, context).await,
        Command::Policy(args) => policy::run(args, context).await,
        Command::Pool(args) => pool::run(args, context).await,
        Command::Project(args) => project::run(args, context).await,
        Command::User(args) => user::run(args, context).await,
        Command::Peers(args) => peers::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Lend(args) => lend::run(args, context).await,
        Command::Drain(args) => drain::run(args, context).await,
        Command::Leave(args) => leave::run(args, context).await,
        Command::Revoke(args) => revoke::run(args, context).await,
        Command::Block(args) => block::run(args, context).await,
        Command::Rotate(args) => rotate::run(args, context).await,
        Command::Admin(args) => admin::run(args, context).await,
        Command::Submit(args) => submit::run(args, context).await,
        Command::Jobs(args) => jobs::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Why(args) => why::run(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Cancel(args) => cancel::run(args, context).await,
        Command::Retry(args) => retry::run(args, context).await,
        Command::Pause(args) => pause::run(args, context).await,
        Command::Resume(args) => resume::run(args, context).await,
        Command::Fetch(args) => fetch::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Journal(args) => journal::run(args, context).await,
        Command::Ledger(args) => ledger::run(args, context).await,
        Command::Top(args) => top::run(args, context).await,
        Command::Completions(_) => Err(CliError::internal("completions are printed above")),
    }
}
