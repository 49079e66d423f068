//! `retry`: failed and cancelled tasks once more.

use scenemesh_protocol::api::TaskState;

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// A job's or task's id, shortened at will
    #[arg(value_name = "ID", value_parser = typed::id)]
    id: String,
}

pub(crate) async fn run(args: RetryArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.retry(&args.id).await?;
    let waiting = job.tasks.iter().filter(|task| task.state == TaskState::Queued).count();
    ui.result(&ui.text(&Message::RetriedNow { job: job.short.clone(), waiting }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
