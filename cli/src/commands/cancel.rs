//! `cancel`: no more of this.

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// A job's or task's id, shortened at will
    #[arg(value_name = "ID", value_parser = typed::id)]
    id: String,
}

pub(crate) async fn run(args: CancelArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.cancel(&args.id).await?;
    let state = job_view::job_state(job.state, ui).to_owned();
    ui.result(&ui.text(&Message::CancelledNow { job: job.short.clone(), state }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
