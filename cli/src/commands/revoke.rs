//! `revoke`: a node or an admin key of my studio, out for ever.

use scenemesh_protocol::api::{ErrorCode, NodeRef, RevokeReply, RevokeRequest};

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::typed;
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The node: its name, its id or the end of it
    #[arg(value_name = "NODE", required_unless_present = "admin")]
    node: Option<String>,
    /// Revoke an admin key instead, as `admin show` names it
    #[arg(long, value_name = "KEY", value_parser = typed::hash, conflicts_with = "node")]
    admin: Option<String>,
    /// Why; the node and all members read it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Let fall what that admin key signed, instead of signing it again
    #[arg(long, requires = "admin")]
    void: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: RevokeArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let request = RevokeRequest {
        node: args.node,
        admin: args.admin,
        reason: args.reason,
        void: args.void,
        passphrase: args.passphrase.read()?,
    };
    let reply = revoke(&client, request, ui).await?;
    let mut table = Table::fields();
    table.field(ui.word(Word::Revoked), format!("{}  {}", reply.name, reply.studio));
    table.field(ui.word(Word::Confirmed), names(&reply.confirmed, ui));
    table.field(ui.word(Word::LearnLater), names(&reply.later, ui));
    if reply.node.is_some() {
        table.field(ui.word(Word::TakenBack), reply.attempts_there.to_string());
        table.field(ui.word(Word::StoppedHere), reply.attempts_here.to_string());
    } else {
        table.field(ui.word(Word::SignedAgain), reply.resigned.to_string());
    }
    ui.table(&table);
    if reply.node.is_some() {
        ui.talk(&Message::CannotRecall { name: reply.name.clone() });
    }
    if !reply.fallen.is_empty() {
        ui.talk(&Message::Fallen { names: reply.fallen.join(", ") });
    }
    Outcome::of_reply(&reply)
}

fn names(nodes: &[NodeRef], ui: &Ui) -> String {
    if nodes.is_empty() {
        return ui.word(Word::None).to_owned();
    }
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

async fn revoke(client: &ApiClient, mut request: RevokeRequest, ui: &Ui) -> Result<RevokeReply, CliError> {
    match client.revoke(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            request.passphrase = Some(secret::ask_existing(ui)?);
            client.revoke(&request).await
        }
        answer => answer,
    }
}
