//! `rotate`: this node goes on under new keys, or another one does with my admin key's word.

use std::time::Duration;

use scenemesh_protocol::api::{ErrorCode, RotateReply, RotateRequest, RotateState};
use scenemesh_protocol::ids::NodeId;

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::ui::{Outcome, Table, Ui};

/// The daemon needs this long at most to come back under its new key.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    /// Exchange the node's own keys; what happens without it too
    #[arg(long)]
    node_key: bool,
    /// Sign another machine over to its new key, with the code that `rotate` printed there
    #[arg(long, value_name = "CODE", conflicts_with = "node_key")]
    countersign: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: RotateArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let request = RotateRequest { countersign: args.countersign, passphrase: args.passphrase.read()? };
    let reply = rotate(&client, request, ui).await?;
    match (reply.state, &reply.code) {
        (RotateState::Requested, Some(code)) => {
            let mut table = Table::fields();
            table.field(ui.word(Word::Code), code);
            ui.table(&table);
            ui.talk(&Message::NextCountersign { code: code.clone() });
        }
        (RotateState::Countersigned, _) => {
            let name = reply.name.clone().unwrap_or_default();
            ui.result(&ui.text(&Message::RotatedOther { name, node: reply.new.to_string() }));
        }
        _ => {
            ui.talk(&Message::Rotating);
            wait_for(context, reply.new).await?;
            ui.result(&ui.text(&Message::RotatedHere { node: reply.new.to_string() }));
        }
    }
    Outcome::of_reply(&reply)
}

async fn rotate(client: &ApiClient, mut request: RotateRequest, ui: &Ui) -> Result<RotateReply, CliError> {
    match client.rotate(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            request.passphrase = Some(secret::ask_existing(ui)?);
            client.rotate(&request).await
        }
        answer => answer,
    }
}

/// Looks until the daemon answers under its new key.
async fn wait_for(context: &Context<'_>, node: NodeId) -> Result<(), CliError> {
    let back = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // It has a new port and token, or none for a moment.
            let Ok(client) = context.connection.open() else { continue };
            if client.status().await.is_ok_and(|status| status.node == node) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, back)
        .await
        .map_err(|_| CliError::new(ErrorCode::Timeout, Message::DaemonStaysAway, Message::HintDoctor))
}
