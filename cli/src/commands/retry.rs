//! `retry`: failed and cancelled tasks once more.

use scenemesh_protocol::api::TaskState;

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed::{self, Tasks};
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// A job's or task's id, or JOB:3..7 for some of its tasks
    #[arg(value_name = "ID", value_parser = typed::tasks)]
    id: Tasks,
}

pub(crate) async fn run(args: RetryArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.retry(&args.id.to_string()).await?;
    let waiting = job.tasks.iter().filter(|task| task.state == TaskState::Queued).count();
    ui.result(&ui.text(&Message::RetriedNow { job: job.short.clone(), waiting }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
