//! The human's hand: a client of the local API, nothing more.
//!
//! Results go to stdout, talk to stderr. With `--json` the last line on stdout is one object
//! `{"schema":"NAME/1","ok":…,…,"error":null|{"code","message","hint"}}`. What a command says comes from one table
//! ([`messages`]), in English or Korean; what it *is* (states, codes, field names) never changes with the language.

mod args;
mod client;
mod commands;
mod environment;
mod error;
mod follow;
mod human;
mod job_view;
mod messages;
mod platform;
mod progress;
mod save;
mod secret;
mod typed;
mod ui;
mod wipes;

use std::ffi::OsString;

pub use client::{ApiClient, Connection};
pub use environment::Environment;
pub use error::CliError;
pub use messages::{Lang, Message, Word};

/// Exit code after Ctrl-C, as shells have it: 128 + SIGINT. The work itself goes on.
pub const INTERRUPTED: u8 = 130;

/// Runs one command line and gives its exit code: 0 done, 1 the work failed, 2 usage, 3 daemon not running, 4 not
/// authorised, 5 peer unreachable, 6 refused, 7 timeout, 70 our bug, and 130 after Ctrl-C.
pub fn run(words: Vec<OsString>, environment: &Environment) -> u8 {
    let glance = args::Glance::at(&words, environment);
    let ui = ui::Ui::new(glance.lang, glance.json, environment);
    let parsed = match args::parse(words, glance.lang) {
        Ok(parsed) => parsed,
        Err(refusal) => return refusal.show(&ui, glance.schema),
    };
    let schema = parsed.command.schema();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ui.fail(schema, &CliError::internal(error.to_string())),
    };
    let code = match runtime.block_on(commands::dispatch(parsed, environment, &ui)) {
        Ok(outcome) => ui.finish(schema, outcome),
        Err(error) => ui.fail(schema, &error),
    };
    // A reader of the terminal that is still blocked must not hold the process.
    runtime.shutdown_background();
    code
}
