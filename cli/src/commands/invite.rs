//! `invite`: a one-use code for another machine.

use std::time::Duration;

use scenemesh_protocol::api::{ErrorCode, InviteReply, InviteRequest};

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::typed;
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// What the new node may do: submit, render, keep; submit and render otherwise
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',', value_parser = ["submit", "render", "keep"])]
    role: Vec<String>,
    /// Make the joiner the first admin of a new studio of this name
    #[arg(long, value_name = "NAME")]
    new_studio: Option<String>,
    /// How long the code is good
    #[arg(long, value_name = "TIME", value_parser = typed::duration, default_value = "24h")]
    expires: Duration,
    /// Make no code; unlock the invites that a restart of the daemon has locked
    #[arg(long, conflicts_with_all = ["role", "new_studio"])]
    unlock: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: InviteArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let request = InviteRequest {
        roles: args.role,
        new_studio: args.new_studio,
        expires_s: (!args.unlock).then_some(args.expires.as_secs()),
        passphrase: args.passphrase.read()?,
        unlock: args.unlock,
    };
    let reply = invite(&client, request, ui).await?;
    if let (Some(code), Some(check)) = (&reply.code, &reply.check) {
        let mut table = Table::fields();
        table.field(ui.word(Word::Code), code);
        table.field(ui.word(Word::CheckWords), check);
        if let Some(studio) = &reply.new_studio {
            table.field(ui.word(Word::NewStudio), studio);
        }
        if let Some(expires_ms) = reply.expires_ms {
            table.field(ui.word(Word::Expires), human::utc(expires_ms));
        }
        ui.table(&table);
        ui.talk(&Message::NextJoin { code: code.clone() });
    } else {
        ui.talk(&Message::InvitesUnlocked { count: reply.pending });
    }
    Outcome::of_reply(&reply)
}

async fn invite(client: &ApiClient, mut request: InviteRequest, ui: &Ui) -> Result<InviteReply, CliError> {
    match client.invite(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            request.passphrase = Some(secret::ask_existing(ui)?);
            client.invite(&request).await
        }
        answer => answer,
    }
}
