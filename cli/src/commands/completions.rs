//! `completions`: a script for a shell.

use clap_complete::Shell;

use crate::args;
use crate::ui::{Outcome, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, ui: &Ui) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(ui.lang), "scenemesh", &mut script);
    let script = String::from_utf8_lossy(&script);
    if ui.json {
        return Outcome::of(serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    }
    ui.raw(&script);
    Outcome::default()
}
