//! Logs: lines with fields on standard error, filtered by `RUST_LOG`. Never a secret, never a payload.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging; a second call in one process changes nothing.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
