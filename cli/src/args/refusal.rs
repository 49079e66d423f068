//! What clap has to say, in our words: it knows no Korean.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::CliError;
use crate::messages::Message;
use crate::ui::Ui;

/// A command line that is not run: help was asked for, or it cannot be read.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Help or version, for stdout.
    Told(String),
    Usage(Box<CliError>),
}

impl Refusal {
    pub(super) fn new(error: &clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Told(error.render().to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                Self::Usage(Box::new(CliError::usage(Message::NoCommand, Message::HintHelp)))
            }
            kind => Self::Usage(Box::new(usage_error(error, kind))),
        }
    }

    pub(crate) fn show(self, ui: &Ui, schema: &str) -> u8 {
        match self {
            Self::Told(text) => {
                ui.raw(&text);
                0
            }
            Self::Usage(error) => ui.fail(schema, &error),
        }
    }
}

fn usage_error(error: &clap::Error, kind: ErrorKind) -> CliError {
    let text = |kind| error.get(kind).map(joined);
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let likeliest = |kind| error.get(kind).and_then(last);
    let suggestion = likeliest(ContextKind::SuggestedArg)
        .or_else(|| likeliest(ContextKind::SuggestedSubcommand))
        .or_else(|| likeliest(ContextKind::SuggestedValue));
    let help = suggestion.map_or(Message::HintHelp, |word| Message::HintDidYouMean { word });
    match kind {
        ErrorKind::UnknownArgument => CliError::usage(Message::UnknownArgument { argument }, help),
        ErrorKind::InvalidSubcommand => {
            let command = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            CliError::usage(Message::UnknownCommand { command }, help)
        }
        ErrorKind::MissingRequiredArgument => {
            CliError::usage(Message::MissingArgument { argument }, Message::HintHelp)
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).unwrap_or_default();
            CliError::usage(Message::ArgumentsConflict { argument, other }, Message::HintHelp)
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            CliError::usage(Message::MissingValue { argument }, Message::HintHelp)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let example = text(ContextKind::ValidValue)
                .or_else(|| std::error::Error::source(error).map(ToString::to_string))
                .unwrap_or_default();
            CliError::usage(Message::BadValue { argument, value }, Message::HintWriteLike { example })
        }
        _ => {
            let rendered = error.render().to_string();
            let line = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            CliError::usage(Message::BadCommandLine { why: line }, Message::HintHelp)
        }
    }
}

/// Of several words; clap puts the likeliest last.
fn last(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::Strings(words) => words.last().cloned(),
        other => Some(joined(other)),
    }
}

fn joined(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(", "),
        ContextValue::StyledStr(text) => text.to_string(),
        ContextValue::StyledStrs(texts) => {
            texts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        ContextValue::Bool(flag) => flag.to_string(),
        ContextValue::Number(number) => number.to_string(),
        _ => String::new(),
    }
}
