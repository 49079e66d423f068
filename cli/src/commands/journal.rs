//! `journal`: the daemon's log as a file, out and in.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use crate::client::ApiClient;
use crate::error::{CliError, os_words};
use crate::human;
use crate::messages::Message;
use crate::platform;
use crate::ui::{Outcome, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, clap::Subcommand)]
enum JournalCommand {
    /// Write everything that this node has recorded into a file
    Export(ExportArgs),
    /// Take an export into a daemon that has recorded nothing yet
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// File to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// File that export wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) async fn run(args: JournalArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    match args.command {
        JournalCommand::Export(args) => export(&client, &args.file, context.ui).await,
        JournalCommand::Import(args) => import(&client, &args.file, context.ui).await,
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CliError {
    let message = Message::CannotWrite { path: path.display().to_string(), why: os_words(error) };
    CliError::file(message, Message::HintCheckDisk)
}

async fn export(client: &ApiClient, path: &Path, ui: &Ui) -> Result<Outcome, CliError> {
    let mut download = client.journal().await?;
    let file = platform::new_private_file(path);
    let mut file = file.map_err(|error| cannot_write(path, &error))?;
    let written = async {
        let (mut bytes, expected) = (0, download.length());
        while let Some(chunk) = download.chunk().await? {
            file.write_all(chunk.as_ref()).map_err(|error| cannot_write(path, &error))?;
            bytes += chunk.as_ref().len() as u64;
        }
        file.sync_all().map_err(|error| cannot_write(path, &error))?;
        match expected {
            Some(of) if of != bytes => {
                let message = Message::CutOff { path: path.display().to_string(), bytes, of };
                Err(CliError::file(message, Message::HintTryAgain))
            }
            _ => Ok(bytes),
        }
    };
    let bytes = match written.await {
        Ok(bytes) => bytes,
        Err(error) => {
            // Half an export is of no use, and in the way of the next try.
            drop(std::fs::remove_file(path));
            return Err(error);
        }
    };
    let shown = path.display().to_string();
    ui.result(&ui.text(&Message::JournalExported { path: shown.clone(), bytes: human::bytes(bytes) }));
    Ok(Outcome::of(json!({ "path": shown, "bytes": bytes })))
}

async fn import(client: &ApiClient, path: &Path, ui: &Ui) -> Result<Outcome, CliError> {
    let cannot_read = |error: &std::io::Error| {
        let message = Message::CannotRead { path: path.display().to_string(), why: os_words(error) };
        CliError::file(message, Message::HintCheckPath)
    };
    let file = tokio::fs::File::open(path).await.map_err(|error| cannot_read(&error))?;
    let bytes = file.metadata().await.map_err(|error| cannot_read(&error))?.len();
    let reply = client.import_journal(file, bytes).await?;
    ui.result(&ui.text(&Message::JournalImported { records: reply.records }));
    ui.talk(&Message::NextRestart);
    Outcome::of_reply(&reply)
}
