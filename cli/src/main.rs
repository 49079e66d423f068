//! The `scenemesh` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = scenemesh::Environment::of_this_process();
    ExitCode::from(scenemesh::run(std::env::args_os().collect(), &environment))
}
