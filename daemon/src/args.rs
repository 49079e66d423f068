//! The daemon's command line: arguments, configuration, run, exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use scenemesh_protocol::api::{DATA_DIR_VARIABLE, default_data_dir};

use crate::config::{Config, Overrides};
use crate::{node, platform, telemetry};

/// Bad configuration, found before any socket is open.
const EXIT_CONFIG: u8 = 64;

/// The SceneMesh node: runs until it is told to stop
#[derive(Debug, Parser)]
#[command(name = "scenemeshd", version)]
struct Arguments {
    /// Directory for keys, queue and blobs
    #[arg(long, value_name = "DIR", env = DATA_DIR_VARIABLE)]
    data_dir: Option<PathBuf>,
    /// Configuration file [default: DIR/scenemesh.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen for other nodes here, instead of `network.listen`; may be given several times
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Listen for joiners here, instead of `network.porch`
    #[arg(long, value_name = "MULTIADDR")]
    porch: Vec<String>,
    /// Serve the local API here, instead of `api.listen`
    #[arg(long, value_name = "ADDR")]
    api: Option<String>,
    /// Serve the ComfyUI gateway here, instead of `gateway.listen`
    #[arg(long, value_name = "ADDR")]
    gateway: Option<String>,
}

/// Runs the daemon with a command line of its own.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(told) => {
            // Help and version go to stdout with 0, mistakes to stderr with 2: clap knows which.
            drop(told.print());
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2));
        }
    };
    telemetry::init();
    platform::make_private_files_only();
    if let Err(error) = platform::keep_memory_private() {
        tracing::warn!(%error, "a crash of this process may leave its memory in a core dump");
    }
    let Arguments { listen, porch, api, gateway, .. } = arguments;
    let overrides = Overrides { listen, porch, api, gateway };
    let lookup = |name: &str| std::env::var_os(name);
    let dir = arguments.data_dir.or_else(|| default_data_dir(std::env::consts::OS, lookup));
    let Some(dir) = dir else {
        tracing::error!("no data directory: give --data-dir, set {DATA_DIR_VARIABLE}, or set HOME");
        return ExitCode::from(EXIT_CONFIG);
    };
    let config = match Config::load(&dir, arguments.config.as_deref(), &overrides, lookup) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let ran = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(node::run(config, node::stop_signal())));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("scenemeshd stops: {}", story(&error));
            node::exit_code(&error)
        }
    }
}

/// An error and its causes, each told once: most of our sentences hold their cause already.
fn story(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        told if told.contains(&cause) => told.to_owned(),
        told => format!("{told}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let source = std::io::Error::other("the port is taken");
        let error =
            anyhow::Error::new(source).context("cannot listen: the port is taken").context("starting");
        assert_eq!(story(&error), "starting: cannot listen: the port is taken");
    }
}
