//! `leave`: out of the pool.

use std::io::BufRead;

use scenemesh_protocol::api::ErrorCode;

use super::Context;
use crate::error::CliError;
use crate::messages::Message;
use crate::ui::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct LeaveArgs {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(crate) async fn run(args: LeaveArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    // A script that says `leave` means it; a person may have mistyped.
    if !args.yes && ui.stdin_is_terminal {
        ui.prompt(&Message::AskLeave);
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        let agreed =
            read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "예" | "네");
        if !agreed {
            return Err(CliError::new(ErrorCode::Refused, Message::NotLeft, Message::HintYes));
        }
    }
    let reply = client.leave().await?;
    ui.result(&ui.text(&match &reply.pool_name {
        Some(pool) => Message::Left { pool: pool.clone(), told: reply.told },
        None => Message::JoinGivenUp,
    }));
    if let Some(pool) = reply.pool_name.clone().filter(|_| !reply.solo) {
        ui.talk(&Message::LeftRecordStays { pool });
    }
    Outcome::of_reply(&reply)
}
