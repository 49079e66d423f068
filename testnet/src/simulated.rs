//! `testnet comfyui`: the simulated ComfyUI as a process of its own.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::comfyui::{self, Ended};
use crate::talk::{result, say};

/// `testnet comfyui`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: comfyui::Options,
    /// Write the URL and a line break into this file once it answers
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs until Ctrl-C, or until a fault ends it.
///
/// # Errors
/// When it cannot start, or a fault crashed it.
pub async fn run(arguments: Arguments) -> Result<()> {
    let ready_file = arguments.ready_file;
    let mut announced = Ok(());
    let serving = comfyui::serve(arguments.options, |ready| {
        say("simulated ComfyUI: no GPU, no models, pictures computed from the graph");
        result(&ready.url());
        if let Some(file) = ready_file {
            announced = std::fs::write(&file, format!("{}\n", ready.url()))
                .with_context(|| format!("writing {}", file.display()));
        }
    });
    let ended = tokio::select! {
        ended = serving => ended?,
        interrupted = tokio::signal::ctrl_c() => return interrupted.context("waiting for Ctrl-C"),
    };
    announced?;
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Crashed => bail!("a fault crashed the simulated ComfyUI"),
    }
}
