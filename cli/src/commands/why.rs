//! `why`: one sentence.

use super::Context;
use crate::error::CliError;
use crate::typed;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// A job's or task's id, shortened at will
    #[arg(value_name = "ID", value_parser = typed::id)]
    id: String,
}

pub(crate) async fn run(args: WhyArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let reply = context.connection.open()?.why(&args.id).await?;
    context.ui.result(&reply.why);
    Outcome::of_reply(&reply)
}
