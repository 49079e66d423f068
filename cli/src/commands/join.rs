//! `join`: uses an invite, after showing what it says.

use std::io::BufRead;

use scenemesh_protocol::api::{ErrorCode, JoinPreview, JoinRequest, JoinState};

use super::Context;
use super::init::{comfyui_fields, comfyui_talk};
use crate::error::{CliError, os_words};
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The code that `invite` printed on the other machine
    #[arg(value_name = "CODE")]
    code: String,
    /// Name of this node; the machine's own otherwise
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// If this founds a studio: leave its admin key unsealed on disk
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: JoinArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    // A code that wrapped in a mail comes with spaces and line ends.
    let code: String = args.code.chars().filter(|c| !c.is_whitespace()).collect();
    let preview = client.join_preview(&code).await?;
    if !args.yes {
        confirm(ui, &preview)?;
    }
    let mut request = JoinRequest {
        code,
        name: args.name,
        passphrase: args.passphrase.read()?,
        no_passphrase: args.no_passphrase,
    };
    ui.talk(&Message::Joining { inviter: preview.inviter.short(), addresses: preview.addresses.join(", ") });
    let reply = match client.join(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            ui.talk(&Message::NewStudioNeedsKey);
            request.passphrase = Some(secret::ask_new(ui)?);
            client.join(&request).await?
        }
        answer => answer?,
    };
    let mut table = Table::fields();
    if let Some(name) = &reply.pool_name {
        table.field(ui.word(Word::Pool), format!("{name}  {}", reply.pool));
    }
    if let Some(studio) = &reply.studio_name {
        table.field(ui.word(Word::Studio), studio);
    }
    table.field(ui.word(Word::Node), format!("{}  {}", reply.name, reply.node));
    comfyui_fields(ui, &mut table, &reply.comfyui);
    ui.table(&table);
    match reply.state {
        JoinState::Joined => ui.talk(&Message::Joined { peers_up: reply.peers_up }),
        JoinState::AwaitingApproval => {
            ui.talk(&Message::AwaitingApproval { signatures_missing: reply.signatures_missing });
        }
        JoinState::AwaitingUnlock => {}
    }
    for note in &reply.notes {
        ui.note(note);
    }
    comfyui_talk(ui, &reply.comfyui);
    let locked = (reply.state == JoinState::AwaitingUnlock)
        .then(|| CliError::new(ErrorCode::InviteLocked, Message::InviteIsLocked, Message::HintUnlock));
    Ok(Outcome::of_reply(&reply)?.failing(locked))
}

fn confirm(ui: &Ui, preview: &JoinPreview) -> Result<(), CliError> {
    ui.talk(&Message::InviteSays {
        pool: preview.pool.to_string(),
        inviter: preview.inviter.to_string(),
        check: preview.check.clone(),
    });
    if !ui.stdin_is_terminal {
        return Err(CliError::usage(Message::NobodyToAsk, Message::HintYes));
    }
    ui.prompt(&Message::AskContinue);
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::usage(Message::CannotAsk { why: os_words(&error) }, Message::HintYes))?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "예" | "네" | "ㅇ") {
        return Ok(());
    }
    Err(CliError::new(ErrorCode::Refused, Message::NotJoined, Message::HintCompareWords))
}
