//! `scenemeshd`: the SceneMesh node.

use std::process::ExitCode;

fn main() -> ExitCode {
    scenemeshd::args::main(std::env::args_os())
}
