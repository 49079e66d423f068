//! `logs`: the story of a job or task.

use scenemesh_protocol::api::LogLine;
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::follow::{Change, Follower};
use crate::human;
use crate::messages::Message;
use crate::typed;
use crate::ui::{Outcome, Ui, clip};

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// A job's or task's id, shortened at will
    #[arg(value_name = "ID", value_parser = typed::id)]
    id: String,
    /// Go on until the job has ended
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(args: LogsArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    // Listening before reading: what happens in between is told twice by the daemon, and once by us.
    let follower = match args.follow {
        true => Some(Follower::start(&context.connection, &args.id).await?),
        false => None,
    };
    let mut lines = client.log(&args.id).await?.lines;
    for line in &lines {
        tell(line, ui);
    }
    if let Some(mut follower) = follower {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while !follower.job().state.is_final() {
            tokio::select! {
                _ = &mut interrupted => {
                    let outcome = Outcome::of(json!({ "lines": lines }));
                    return Ok(Outcome { exit_code: Some(crate::INTERRUPTED), ..outcome });
                }
                change = follower.next() => match change? {
                    Change::Log(line) if !lines.contains(&line) => {
                        tell(&line, ui);
                        lines.push(line);
                    }
                    Change::Away => ui.talk(&Message::DaemonWentAway),
                    Change::Back => {
                        ui.talk(&Message::DaemonIsBack);
                        // What was said while nobody listened.
                        let missed = context.connection.open()?.log(&args.id).await?.lines;
                        for line in missed.into_iter().filter(|line| !lines.contains(line)).collect::<Vec<_>>() {
                            tell(&line, ui);
                            lines.push(line);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(Outcome::of(json!({ "lines": lines })))
}

fn tell(line: &LogLine, ui: &Ui) {
    let task = line.index.map(|index| format!("  #{index}")).unwrap_or_default();
    ui.result(&format!("{}{task}  {}", human::utc(line.at_ms), clip(&line.text, 4096)));
}
