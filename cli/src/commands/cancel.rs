//! `cancel`: no more of this.

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed::{self, Tasks};
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// A job's or task's id, or JOB:3..7 for some of its tasks
    #[arg(value_name = "ID", value_parser = typed::tasks)]
    id: Tasks,
}

pub(crate) async fn run(args: CancelArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.cancel(&args.id.to_string()).await?;
    let state = job_view::job_state(job.state, ui).to_owned();
    ui.result(&ui.text(&Message::CancelledNow { job: job.short.clone(), state }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
