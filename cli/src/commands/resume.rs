//! `resume`: what was paused waits for a node again.

use scenemesh_protocol::api::TaskState;

use super::Context;
use crate::error::CliError;
use crate::job_view::{self, Places};
use crate::messages::Message;
use crate::typed::{self, Tasks};
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// A job's or task's id, or JOB:3..7 for some of its tasks
    #[arg(value_name = "ID", value_parser = typed::tasks)]
    id: Tasks,
}

pub(crate) async fn run(args: ResumeArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let job = context.connection.open()?.resume(&args.id.to_string()).await?;
    let waiting = job.tasks.iter().filter(|task| task.state == TaskState::Queued).count();
    let waiting = waiting - job_view::paused(&job);
    ui.result(&ui.text(&Message::ResumedNow { job: job.short.clone(), waiting }));
    Ok(Outcome::of(job_view::json(&job, &Places::default())))
}
