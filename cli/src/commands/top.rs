//! `top`: nodes and unfinished tasks, again and again; once when nobody watches.

use std::time::Duration;

use scenemesh_protocol::api::{JobView, PeersReply, StatusReply, TaskState};
use serde_json::json;

use super::{Context, peers, status};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Tone, Ui, clip};
use crate::{human, job_view};

/// Longer than a look, shorter than patience.
const REDRAW: Duration = Duration::from_secs(1);
/// More would not fit on a screen.
const MOST_TASKS: usize = 30;

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Print once and end, as when stdout is no terminal
    #[arg(long)]
    once: bool,
}

struct Picture {
    status: StatusReply,
    peers: PeersReply,
    jobs: Vec<JobView>,
}

pub(crate) async fn run(args: TopArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let picture = look(&client).await?;
    if args.once || ui.json || !ui.stdout_is_terminal {
        ui.result(draw(&picture, ui).trim_end());
        let jobs: Vec<_> =
            picture.jobs.iter().map(|job| job_view::json(job, &job_view::Places::default())).collect();
        return Ok(Outcome::of(
            json!({ "status": picture.status, "peers": picture.peers.peers, "jobs": jobs }),
        ));
    }
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut picture: Result<Picture, CliError> = Ok(picture);
    loop {
        // Home, then each line to its end, then what is below: redrawing without clearing does not flicker. A narrow
        // window cuts lines off instead of wrapping them (DECAWM off meanwhile), so that a frame has as many lines as
        // it looks like.
        let text = match &picture {
            Ok(picture) => draw(picture, ui),
            Err(error) => format!("{}\n", error.body(ui.lang).message),
        };
        ui.raw(&format!("\x1b[?7l\x1b[H{}\x1b[J\x1b[?7h", text.replace('\n', "\x1b[K\n")));
        tokio::select! {
            _ = &mut interrupted => return Ok(Outcome::default()),
            () = tokio::time::sleep(REDRAW) => {}
        }
        // A daemon that restarts has another address and token.
        picture = match context.connection.open() {
            Ok(client) => look(&client).await,
            Err(error) => Err(error),
        };
    }
}

async fn look(client: &ApiClient) -> Result<Picture, CliError> {
    let (status, peers, jobs) = futures::try_join!(client.status(), client.peers(), client.jobs())?;
    let jobs = jobs.jobs.into_iter().filter(|job| !job.state.is_final()).collect();
    Ok(Picture { status, peers, jobs })
}

fn draw(picture: &Picture, ui: &Ui) -> String {
    let Picture { status, peers, jobs } = picture;
    let mut text = String::new();
    let pool = status.pool_name.as_deref().unwrap_or(ui.word(Word::None));
    let tasks = Message::TasksNow { running: status.tasks_running, queued: status.tasks_queued };
    let up = Message::PeersUp { up: status.peers_up, total: status.peers_total };
    let head = format!("{pool}  {}  {}", ui.text(&up), ui.text(&tasks));
    text.push_str(&head);
    text.push('\n');
    for slot in &status.slots {
        text.push_str(&status::slot_line(slot, ui));
        text.push('\n');
    }
    text.push('\n');
    if !peers.peers.is_empty() {
        text.push_str(&ui.painted(&peers::table(&peers.peers, human::now_ms(), ui)));
        text.push('\n');
    }
    text.push_str(&ui.painted(&running(jobs, ui)));
    text
}

fn running(jobs: &[JobView], ui: &Ui) -> Table {
    let words = [Word::Job, Word::Label, Word::Task, Word::State, Word::Node, Word::Progress];
    let mut table = Table::new(&words.map(|word| ui.word(word)));
    let tasks = || jobs.iter().flat_map(|job| job.tasks.iter().map(move |task| (job, task)));
    let busy = tasks().filter(|(_, task)| !task.state.is_final() && task.state != TaskState::Queued);
    let queued = tasks().filter(|(_, task)| task.state == TaskState::Queued);
    for (job, task) in busy.chain(queued).take(MOST_TASKS) {
        let cells = [
            job.short.clone(),
            clip(job_view::label(job, ui), 32),
            format!("#{}", task.index),
            job_view::task_state(task.state, ui).to_owned(),
            task.node.as_ref().map(|node| node.name.clone()).unwrap_or_default(),
            match (&task.progress, task.state) {
                (_, TaskState::Queued) => clip(task.waiting.as_deref().unwrap_or_default(), 160),
                (progress, _) => {
                    progress.as_ref().map(|at| job_view::progress(at, ui.lang)).unwrap_or_default()
                }
            },
        ];
        let tone = if task.state == TaskState::Queued { Tone::Faint } else { Tone::Busy };
        table.row(cells.iter().enumerate().map(|(at, text)| (text.as_str(), (at == 3).then_some(tone))));
    }
    table
}
