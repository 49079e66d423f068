//! `ledger`: the books over the journal.

use super::Context;
use crate::error::CliError;
use crate::messages::Message;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LedgerCommand {
    /// Make the index anew from the journal
    Rebuild(RebuildArgs),
}

#[derive(Debug, clap::Args)]
struct RebuildArgs {}

pub(crate) async fn run(args: LedgerArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let LedgerCommand::Rebuild(RebuildArgs {}) = args.command;
    let reply = context.connection.open()?.rebuild_index().await?;
    let message = Message::IndexRebuilt { records: reply.records, took_ms: reply.took_ms };
    context.ui.result(&context.ui.text(&message));
    Outcome::of_reply(&reply)
}
