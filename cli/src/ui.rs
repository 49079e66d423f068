//! Results on stdout, talk on stderr. The only file that writes to either, with the bars in `progress`.

mod table;

use std::io::Write;

use scenemesh_protocol::api::ErrorBody;
use serde_json::{Map, Value, json};

use crate::environment::Environment;
use crate::error::CliError;
use crate::messages::{Lang, Message, Word};

pub(crate) use table::{Table, clip};

/// What a command hands back: its part of the JSON object, and whether the work failed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) fields: Map<String, Value>,
    pub(crate) failure: Option<CliError>,
    /// Instead of the failure's: the work goes on without us.
    pub(crate) exit_code: Option<u8>,
}

impl Outcome {
    /// `value` must be an object; anything else gives no fields.
    pub(crate) fn of(value: Value) -> Self {
        let Value::Object(fields) = value else { return Self::default() };
        Self { fields, ..Self::default() }
    }

    pub(crate) fn of_reply(reply: &impl serde::Serialize) -> Result<Self, CliError> {
        serde_json::to_value(reply).map(Self::of).map_err(|error| CliError::internal(error.to_string()))
    }

    pub(crate) fn failing(mut self, failure: Option<CliError>) -> Self {
        self.failure = failure;
        self
    }
}

/// Where words go.
#[derive(Debug)]
pub(crate) struct Ui {
    pub(crate) lang: Lang,
    pub(crate) json: bool,
    /// Whether bars and prompts make sense.
    pub(crate) stderr_is_terminal: bool,
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stdin_is_terminal: bool,
    colour_out: bool,
    colour_err: bool,
}

/// What a word wants to be seen as; without colour the word alone says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Faint,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Busy => "36",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        }
    }
}

impl Ui {
    pub(crate) fn new(lang: Lang, json: bool, environment: &Environment) -> Self {
        // https://no-color.org: set and not empty, whatever its value.
        let may_colour =
            environment.get("NO_COLOR").is_none() && environment.text("TERM").as_deref() != Some("dumb");
        Self {
            lang,
            json,
            stderr_is_terminal: environment.stderr_is_terminal,
            stdout_is_terminal: environment.stdout_is_terminal,
            stdin_is_terminal: environment.stdin_is_terminal,
            colour_out: may_colour && environment.stdout_is_terminal,
            colour_err: may_colour && environment.stderr_is_terminal,
        }
    }

    pub(crate) fn word(&self, word: Word) -> &'static str {
        word.text(self.lang)
    }

    pub(crate) fn text(&self, message: &Message) -> String {
        message.text(self.lang)
    }

    /// A line of the result; silent with `--json`.
    pub(crate) fn result(&self, line: &str) {
        if !self.json {
            self.raw(&format!("{line}\n"));
        }
    }

    /// A table of the result; silent with `--json`.
    pub(crate) fn table(&self, table: &Table) {
        if !self.json {
            self.raw(&table.text(self.colour_out));
        }
    }

    /// Bytes for stdout, `--json` or not. A reader that has gone away is no error of ours.
    pub(crate) fn raw(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        drop(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
    }

    /// Talk, for people, on stderr.
    pub(crate) fn talk(&self, message: &Message) {
        self.note(&self.text(message));
    }

    /// Talk that is worded already.
    pub(crate) fn note(&self, line: &str) {
        let mut stderr = std::io::stderr().lock();
        drop(writeln!(stderr, "{line}"));
    }

    /// A question, with the cursor behind it.
    pub(crate) fn prompt(&self, message: &Message) {
        let mut stderr = std::io::stderr().lock();
        drop(write!(stderr, "{} ", self.text(message)).and_then(|()| stderr.flush()));
    }

    /// A table for stdout as text.
    pub(crate) fn painted(&self, table: &Table) -> String {
        table.text(self.colour_out)
    }

    pub(crate) fn painted_err(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_err, tone, text)
    }

    /// Ends a command that ran: its JSON, its failure if the work failed, its exit code.
    pub(crate) fn finish(&self, schema: &str, outcome: Outcome) -> u8 {
        let error = outcome.failure.as_ref().map(|failure| failure.body(self.lang));
        let code = outcome.exit_code.or(error.as_ref().map(|body| body.code.exit_code())).unwrap_or(0);
        if let Some(body) = &error {
            self.tell_error(body);
        }
        if self.json {
            self.object(schema, error.is_none(), outcome.fields, error.as_ref());
        }
        code
    }

    /// Ends a command that could not run.
    pub(crate) fn fail(&self, schema: &str, error: &CliError) -> u8 {
        let body = error.body(self.lang);
        self.tell_error(&body);
        if self.json {
            self.object(schema, false, Map::new(), Some(&body));
        }
        body.code.exit_code()
    }

    fn tell_error(&self, body: &ErrorBody) {
        self.note(&format!("{}: {}", self.painted_err(Tone::Bad, self.word(Word::Error)), body.message));
        if let Some(hint) = &body.hint {
            self.note(&format!("{}: {hint}", self.painted_err(Tone::Busy, self.word(Word::Hint))));
        }
    }

    fn object(&self, schema: &str, ok: bool, fields: Map<String, Value>, error: Option<&ErrorBody>) {
        let mut object = Map::new();
        object.insert("schema".into(), schema.into());
        object.insert("ok".into(), ok.into());
        object.extend(fields);
        object.insert("error".into(), json!(error));
        self.raw(&format!("{}\n", Value::Object(object)));
    }
}

pub(crate) fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if colour { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
}
