//! What the testnet prints: results on standard output, talk on standard error. The only place that does.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing happens")]

use std::process::ExitCode;

/// One line of a result.
pub fn result(line: &str) {
    println!("{line}");
}

/// One line for whoever watches.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// The end of a run that failed.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("testnet: {error:#}");
    ExitCode::FAILURE
}
