//! `pause`: no task that waits begins.

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed::{self, Tasks};
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    /// A job's or task's id, or JOB:3..7 for some of its tasks
    #[arg(value_name = "ID", value_parser = typed::tasks)]
    id: Tasks,
}

pub(crate) async fn run(args: PauseArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.pause(&args.id.to_string()).await?;
    ui.result(&ui.text(&Message::PausedNow { job: job.short.clone(), paused: job_view::paused(&job) }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
