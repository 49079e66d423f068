//! `drain`: no new work, and what is here is brought to an end.

use std::time::Duration;

use scenemesh_protocol::api::{DrainReply, DrainRequest, ErrorCode};

use super::Context;
use crate::error::CliError;
use crate::messages::Message;
use crate::typed;
use crate::ui::Outcome;

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// What to do when nothing is left here that somebody waits for
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "off")]
    then: Option<Then>,
    /// After so long give back what still runs for others, and wait for results no longer
    #[arg(long, value_name = "TIME", value_parser = typed::duration, conflicts_with = "off")]
    within: Option<Duration>,
    /// Take work again
    #[arg(long, conflicts_with = "detach")]
    off: bool,
    /// Do not wait
    #[arg(long)]
    detach: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Then {
    /// End the daemon
    Exit,
}

pub(crate) async fn run(args: DrainArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let exit = args.then == Some(Then::Exit);
    let within_s = args.within.map(|within| within.as_secs());
    let mut reply = client.drain(&DrainRequest { draining: !args.off, exit, within_s }).await?;
    if args.off {
        ui.result(&ui.text(&Message::TakesWorkAgain));
        return Outcome::of_reply(&reply);
    }
    if args.detach {
        ui.result(&ui.text(&Message::DrainsNow { running: reply.running, results: reply.results }));
        return Outcome::of_reply(&reply);
    }
    let mut told = None;
    while exit || is_left(&reply) {
        if told != Some((reply.running, reply.results)) && is_left(&reply) {
            told = Some((reply.running, reply.results));
            ui.talk(&Message::DrainsNow { running: reply.running, results: reply.results });
        }
        tokio::time::sleep(LOOK).await;
        reply = match client.drained().await {
            Ok(reply) if reply.draining => reply,
            Ok(_) => {
                return Err(CliError::new(ErrorCode::Conflict, Message::DrainEnded, Message::HintDrainEnded));
            }
            Err(error) if exit && matches!(error.code, ErrorCode::NotRunning | ErrorCode::Stopping) => {
                ui.result(&ui.text(&Message::DaemonHasEnded));
                return Outcome::of_reply(&DrainReply { running: 0, results: 0, ..reply });
            }
            Err(error) => return Err(error),
        };
    }
    ui.result(&ui.text(&Message::IsDrained));
    Outcome::of_reply(&reply)
}

fn is_left(reply: &DrainReply) -> bool {
    reply.running > 0 || reply.results > 0
}
