//! `show`: a job and its tasks.

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::typed;
use crate::ui::Outcome;
use crate::wipes;

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// A job's or task's id, shortened at will
    #[arg(value_name = "ID", value_parser = typed::id)]
    id: String,
}

pub(crate) async fn run(args: ShowArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let job = context.connection.open()?.job(&args.id).await?;
    let places = Places::default();
    job_view::print(&job, &places, context.ui);
    wipes::print(&job, context.ui);
    wipes::warn(&job, context.ui);
    Ok(Outcome::of(job_view::json(&job, &places)))
}
