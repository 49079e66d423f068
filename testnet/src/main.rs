//! `testnet`: a whole mesh on one machine. `testnet demo` is the place to start.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use scenemesh_testnet::{bench, chaos, demo, simulated};

#[derive(Debug, Parser)]
#[command(name = "testnet", version, about = "Real SceneMesh nodes on one machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up two studios, render four keyframes, kill a renderer half-way, and finish all the same
    Demo(demo::Options),
    /// Run the simulated ComfyUI alone
    Comfyui(Box<simulated::Arguments>),
    /// Kill, cut and crash eight nodes at work, and see that every task ends exactly once
    Chaos(chaos::Options),
    /// Measure, in one run, against a baseline
    Bench(bench::Options),
    /// Be the daemon (what `scenemeshd` is)
    #[command(hide = true, disable_help_flag = true)]
    Scenemeshd(Passed),
    /// Be the command line (what `scenemesh` is)
    #[command(hide = true, disable_help_flag = true)]
    Scenemesh(Passed),
}

#[derive(Debug, clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Passed {
    fn with_name(self, name: &str) -> Vec<OsString> {
        std::iter::once(name.into()).chain(self.arguments).collect()
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Scenemeshd(passed) => return scenemeshd::args::main(passed.with_name("scenemeshd")),
        Command::Scenemesh(passed) => return cli(passed),
        Command::Demo(options) => run(demo::run(options)),
        Command::Comfyui(options) => run(simulated::run(*options)),
        Command::Chaos(options) => run(chaos::run(options)),
        Command::Bench(options) => run(bench::run(options)),
    };
    outcome.map_or_else(|error| scenemesh_testnet::talk::failed(&error), |()| ExitCode::SUCCESS)
}

fn cli(passed: Passed) -> ExitCode {
    let environment = scenemesh::Environment::of_this_process();
    ExitCode::from(scenemesh::run(passed.with_name("scenemesh"), &environment))
}

fn run(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(work)
}
