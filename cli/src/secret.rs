//! Passphrases: from a file, or typed without an echo.

use std::path::{Path, PathBuf};

use scenemesh_protocol::api::{ErrorCode, Passphrase};

use crate::error::{CliError, os_words};
use crate::messages::Message;
use crate::ui::Ui;

/// Where a passphrase comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct PassphraseArgs {
    /// Read the admin key's passphrase from the first line of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    pub(crate) fn read(&self) -> Result<Option<Passphrase>, CliError> {
        self.passphrase_file.as_deref().map(read_file).transpose()
    }
}

fn read_file(path: &Path) -> Result<Passphrase, CliError> {
    let text = std::fs::read_to_string(path).map(Passphrase::new).map_err(|error| {
        let message = Message::CannotRead { path: path.display().to_string(), why: os_words(&error) };
        CliError::file(message, Message::HintCheckPath)
    })?;
    match text.as_str().lines().next() {
        Some(line) if !line.is_empty() => Ok(Passphrase::new(line.to_owned())),
        _ => Err(CliError::usage(
            Message::EmptyPassphraseFile { path: path.display().to_string() },
            Message::HintPassphraseFile,
        )),
    }
}

/// A new passphrase, typed twice.
pub(crate) fn ask_new(ui: &Ui) -> Result<Passphrase, CliError> {
    must_be_asked(ui)?;
    let first = ask(&ui.text(&Message::AskNewPassphrase))?;
    let second = ask(&ui.text(&Message::AskPassphraseAgain))?;
    if first.as_str().is_empty() {
        return Err(CliError::usage(Message::EmptyPassphrase, Message::HintNoPassphrase));
    }
    if first != second {
        return Err(CliError::usage(Message::PassphrasesDiffer, Message::HintTryAgain));
    }
    Ok(first)
}

/// The passphrase of a key that is there already.
pub(crate) fn ask_existing(ui: &Ui) -> Result<Passphrase, CliError> {
    must_be_asked(ui)?;
    ask(&ui.text(&Message::AskPassphrase))
}

fn must_be_asked(ui: &Ui) -> Result<(), CliError> {
    if ui.stdin_is_terminal {
        return Ok(());
    }
    Err(CliError::new(
        ErrorCode::PassphraseNeeded,
        Message::NobodyToAskPassphrase,
        Message::HintPassphraseFile,
    ))
}

fn ask(prompt: &str) -> Result<Passphrase, CliError> {
    rpassword::prompt_password(prompt).map(Passphrase::new).map_err(|error| {
        let message = Message::CannotAsk { why: os_words(&error) };
        CliError::new(ErrorCode::PassphraseNeeded, message, Message::HintPassphraseFile)
    })
}
