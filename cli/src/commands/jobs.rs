//! `jobs`: the list.

use scenemesh_protocol::api::{JobState, JobView, TaskState};
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Ui, clip};
use crate::{human, job_view};

#[derive(Debug, clap::Args)]
pub(crate) struct JobsArgs {
    /// Only jobs that are not finished
    #[arg(long)]
    active: bool,
    /// Show this many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

pub(crate) async fn run(args: JobsArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let mut jobs = context.connection.open()?.jobs().await?.jobs;
    if args.active {
        jobs.retain(|job| !job.state.is_final());
    }
    let more = jobs.len().saturating_sub(args.limit);
    jobs.truncate(args.limit);
    if jobs.is_empty() {
        ui.talk(&Message::NoJobs);
    } else {
        ui.table(&table(&jobs, human::now_ms(), ui));
    }
    if more > 0 {
        ui.talk(&Message::MoreJobs { count: more });
    }
    let jobs: Vec<_> = jobs.iter().map(|job| job_view::json(job, &job_view::Places::default())).collect();
    Ok(Outcome::of(json!({ "jobs": jobs })))
}

pub(super) fn table(jobs: &[JobView], now_ms: u64, ui: &Ui) -> Table {
    let words = [
        Word::Job,
        Word::Label,
        Word::State,
        Word::DoneTotal,
        Word::Class,
        Word::Reach,
        Word::Nodes,
        Word::Age,
    ];
    let mut table = Table::new(&words.map(|word| ui.word(word)));
    for job in jobs {
        let done = job.tasks.iter().filter(|task| task.state == TaskState::Done).count();
        let cells = [
            job.short.clone(),
            clip(job_view::label(job, ui), 40),
            job_view::job_state(job.state, ui).to_owned(),
            format!("{done}/{}", job.tasks.len()),
            job_view::class(job.class).to_owned(),
            clip(&job.reach.to_string(), 24),
            nodes(job),
            human::age_ms(now_ms.saturating_sub(job.created_ms)),
        ];
        let tone = job_view::job_tone(job.state);
        table.row(cells.iter().enumerate().map(|(at, text)| (text.as_str(), (at == 2).then_some(tone))));
    }
    table
}

/// Who renders it now, or who did.
fn nodes(job: &JobView) -> String {
    let now =
        |state| job.state != JobState::Running || matches!(state, TaskState::Granted | TaskState::Running);
    let mut names: Vec<&str> = job
        .tasks
        .iter()
        .filter(|task| now(task.state))
        .filter_map(|task| task.node.as_ref())
        .map(|node| node.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "-".into() } else { clip(&names.join(","), 32) }
}
