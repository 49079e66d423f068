//! Logs: lines with fields on standard error, filtered by `RUST_LOG`. Never a secret, never a payload.
//!
//! What we log ourselves is held to that by review and by tests. Libraries are not: some print whole messages and
//! headers at their lower levels, prompts and tokens among them. They are cut off above `info`, whatever is asked for.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What is logged unless `RUST_LOG` asks for something else. Every swarm repeats its own id at `info`.
const DEFAULT: &str = "info,libp2p_swarm=warn";

/// Starts logging; a second call in one process changes nothing.
pub fn init() {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_filter(asked.and(filter_fn(may_be_logged)));
    if tracing_subscriber::registry().with(lines).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    allowed(metadata.target(), *metadata.level())
}

/// Whether a line of this origin and level can be had at all.
fn allowed(target: &str, level: Level) -> bool {
    let root = target.split("::").next().unwrap_or_default();
    matches!(root, "scenemeshd" | "scenemesh" | "scenemesh_protocol" | "scenemesh_testnet")
        || level <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_do_not_tell_what_they_carry() {
        for target in
            ["tungstenite::protocol", "hyper_util::client", "libp2p_noise", "sled", "scenemeshd_not"]
        {
            assert!(allowed(target, Level::INFO) && allowed(target, Level::ERROR));
            assert!(!allowed(target, Level::DEBUG) && !allowed(target, Level::TRACE), "{target}");
        }
        assert!(allowed("scenemeshd::network::actor", Level::TRACE) && allowed("scenemeshd", Level::DEBUG));
    }
}
