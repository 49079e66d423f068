//! `admin`: my studio's admin keys.

use std::path::PathBuf;

use scenemesh_protocol::api::{
    ChangeAdminsReply, ChangeAdminsRequest, ErrorCode, InstalledReply, NewAdminRequest, Passphrase,
    RecoverRequest,
};
use scenemesh_protocol::keyfile;
use scenemesh_protocol::keys::SecretKey;
use serde_json::json;

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::typed;
use crate::ui::{Outcome, Table, Tone, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    verb: Option<AdminVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum AdminVerb {
    /// Show your studio's admin keys
    Show,
    /// Bring the admin key of a recovery code onto this machine
    Recover(RecoverArgs),
    /// Make a key of another machine or on paper an admin of your studio
    Add(ChangeArgs),
    /// Take an admin key off your studio
    Remove(ChangeArgs),
    /// Make an admin key on this machine, or on paper
    New(NewArgs),
}

#[derive(Debug, clap::Args)]
struct RecoverArgs {
    /// Read the recovery code from the first line of a file
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// Leave the admin key unsealed on disk
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// The key, as `admin new` or `admin show` prints it
    #[arg(value_name = "KEY", value_parser = typed::hash)]
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    /// Print a recovery code instead of keeping a file
    #[arg(long, conflicts_with_all = ["no_passphrase", "passphrase_file"])]
    paper: bool,
    /// Leave the admin key unsealed on disk
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: AdminArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    if let Some(AdminVerb::New(NewArgs { paper: true, .. })) = &args.verb {
        return Ok(on_paper(ui));
    }
    let client = context.connection.open()?;
    match args.verb {
        None | Some(AdminVerb::Show) => show(&client, ui).await,
        Some(AdminVerb::Recover(args)) => recover(&client, args, ui).await,
        Some(AdminVerb::Add(args)) => change(&client, args, false, ui).await,
        Some(AdminVerb::Remove(args)) => change(&client, args, true, ui).await,
        Some(AdminVerb::New(args)) => {
            let passphrase = new_passphrase(&args.passphrase, args.no_passphrase, ui)?;
            let reply = client.new_admin(&NewAdminRequest { passphrase }).await?;
            installed(&reply, ui);
            ui.talk(&Message::NextAdminAdd { key: reply.key.clone() });
            Outcome::of_reply(&reply)
        }
    }
}

async fn show(client: &ApiClient, ui: &Ui) -> Result<Outcome, CliError> {
    let reply = client.admins().await?;
    let mut head = Table::fields();
    if !reply.studio.is_empty() {
        head.field(ui.word(Word::Studio), &reply.studio);
    }
    let file = match (&reply.on_file, reply.sealed) {
        (Some(key), Some(true)) => format!("{}  {}  ({})", reply.file, &key[..16], ui.word(Word::Sealed)),
        (Some(key), _) => format!("{}  {}  ({})", reply.file, &key[..16], ui.word(Word::NotSealed)),
        (None, _) => ui.word(Word::None).to_owned(),
    };
    head.field(ui.word(Word::AdminKey), file);
    ui.table(&head);
    if !reply.keys.is_empty() {
        ui.result("");
        let mut table = Table::new(&[Word::AdminKey, Word::State].map(|word| ui.word(word)));
        for key in &reply.keys {
            let (state, tone) = match &key.revoked {
                Some(reason) => (format!("{}: {reason}", ui.word(Word::Revoked)), Tone::Bad),
                None if key.here => (ui.word(Word::Here).to_owned(), Tone::Good),
                None if key.recovery => (ui.word(Word::RecoveryCode).to_owned(), Tone::Faint),
                None => (ui.word(Word::OtherMachine).to_owned(), Tone::Faint),
            };
            table.row([(key.key.as_str(), None), (state.as_str(), Some(tone))]);
        }
        ui.table(&table);
    }
    Outcome::of_reply(&reply)
}

async fn recover(client: &ApiClient, args: RecoverArgs, ui: &Ui) -> Result<Outcome, CliError> {
    let code = match &args.code_file {
        Some(path) => secret::read_file(path)?,
        None => secret::ask_code(ui)?,
    };
    let passphrase = new_passphrase(&args.passphrase, args.no_passphrase, ui)?;
    let reply = client.recover_admin(&RecoverRequest { code, passphrase }).await?;
    installed(&reply, ui);
    if let Some(aside) = &reply.aside {
        ui.talk(&Message::AdminMovedAside { path: aside.clone() });
    }
    ui.talk(&Message::NextAfterRecovery);
    Outcome::of_reply(&reply)
}

fn new_passphrase(given: &PassphraseArgs, without: bool, ui: &Ui) -> Result<Option<Passphrase>, CliError> {
    match given.read()? {
        Some(passphrase) => Ok(Some(passphrase)),
        None if without => Ok(None),
        None => secret::ask_new(ui).map(Some),
    }
}

fn installed(reply: &InstalledReply, ui: &Ui) {
    let sealed = if reply.sealed { Word::Sealed } else { Word::NotSealed };
    let mut table = Table::fields();
    table.field(ui.word(Word::AdminKey), &reply.key);
    table.field(ui.word(Word::Path), format!("{}  ({})", reply.file, ui.word(sealed)));
    ui.table(&table);
}

/// A key that no machine keeps. The daemon never sees it.
fn on_paper(ui: &Ui) -> Outcome {
    let key = SecretKey::generate();
    let (public, code) = (key.public().to_string(), keyfile::recovery_code(&key));
    let mut table = Table::fields();
    table.field(ui.word(Word::AdminKey), &public);
    table.field(ui.word(Word::RecoveryCode), code.as_str());
    ui.table(&table);
    ui.talk(&Message::KeepRecoveryCode);
    ui.talk(&Message::NextAdminAdd { key: public.clone() });
    Outcome::of(json!({ "key": public, "recovery_code": code.as_str() }))
}

async fn change(client: &ApiClient, args: ChangeArgs, remove: bool, ui: &Ui) -> Result<Outcome, CliError> {
    let request = ChangeAdminsRequest { key: args.key, remove, passphrase: args.passphrase.read()? };
    let reply = ask(client, request, ui).await?;
    let change = reply.proposal.change.clone();
    let missing = reply.proposal.signatures_missing;
    ui.result(&ui.text(&if reply.in_force {
        Message::ApprovedInForce { change }
    } else {
        Message::ApprovedWaiting { change, missing }
    }));
    Outcome::of_reply(&reply)
}

async fn ask(
    client: &ApiClient,
    mut request: ChangeAdminsRequest,
    ui: &Ui,
) -> Result<ChangeAdminsReply, CliError> {
    match client.change_admins(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            request.passphrase = Some(secret::ask_existing(ui)?);
            client.change_admins(&request).await
        }
        answer => answer,
    }
}
