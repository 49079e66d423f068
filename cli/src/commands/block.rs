//! `block`: keeps a node away from my studio's machines for 72 hours.

use scenemesh_protocol::api::BlockRequest;

use super::Context;
use crate::error::CliError;
use crate::human;
use crate::messages::Message;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct BlockArgs {
    /// The node: its name, its id or the end of it
    #[arg(value_name = "NODE")]
    node: String,
    /// Why; only your studio's machines read it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// End the block
    #[arg(long)]
    lift: bool,
}

pub(crate) async fn run(args: BlockArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let request = BlockRequest { node: args.node, reason: args.reason, lift: args.lift };
    let reply = context.connection.open()?.block(&request).await?;
    let name = reply.name.clone();
    ui.result(&ui.text(&match reply.until_ms {
        Some(until_ms) => Message::Blocked { name, until: human::utc(until_ms) },
        None => Message::BlockLifted { name },
    }));
    Outcome::of_reply(&reply)
}
