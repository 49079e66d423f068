//! `fetch`: saves results that the daemon holds.

use std::path::PathBuf;

use super::Context;
use crate::error::CliError;
use crate::job_view;
use crate::messages::Message;
use crate::save::Shelf;
use crate::typed::{self, Tasks};
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// A job's or task's id, or JOB:3..7 for some of its tasks
    #[arg(value_name = "ID", value_parser = typed::tasks)]
    id: Tasks,
    /// Save below this directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) async fn run(args: FetchArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let Tasks { id, ranges } = &args.id;
    let mut job = client.job(id).await?;
    // A task's id asks for that task alone.
    if !job.job.to_string().starts_with(id) {
        job.tasks.retain(|task| task.task.to_string().starts_with(id));
    }
    job.tasks.retain(|task| ranges.has(task.index));
    let mut shelf = Shelf::open(&args.out)?;
    for task in &job.tasks {
        for output in &task.outputs {
            shelf.save(&client, &job, task, output).await?;
        }
    }
    job_view::print(&job, &shelf.places, ui);
    if job.tasks.iter().all(|task| task.outputs.is_empty()) {
        ui.talk(&Message::NothingToFetch { job: job.short.clone() });
    }
    Ok(Outcome::of(job_view::json(&job, &shelf.places)))
}
