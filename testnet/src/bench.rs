//! Measurements, each against a baseline taken in the same run: absolute figures of a shared machine mean little.

mod blob;
mod direct;
mod dispatch;
mod gateway;
mod idle;
mod line;
mod overhead;
mod queued;
mod restart;
mod submitter;

use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::program::Programs;
use crate::talk::{result, say};

/// This binary's daemons, logging as installed ones do.
fn programs() -> Result<Programs> {
    Ok(Programs::this_binary()?.logging("info,libp2p_swarm=warn"))
}

/// `testnet bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    /// End with one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Submit at one daemon until ComfyUI starts beside another
    Dispatch {
        /// Tasks, one after the other
        #[arg(long, default_value_t = 100)]
        count: usize,
        /// Measure with so many tasks waiting instead of an idle pool, for instance 1,100,10000
        #[arg(long, value_name = "N,N…", value_delimiter = ',')]
        queued: Vec<u32>,
    },
    /// What the mesh adds to a whole tiny render, against the same ComfyUI asked directly
    Overhead {
        /// Renders of each kind, taken in turn
        #[arg(long, default_value_t = 60)]
        count: usize,
        /// Measure on this ComfyUI instead of a simulated one
        #[arg(long, value_name = "URL")]
        comfyui: Option<String>,
    },
    /// What the ComfyUI gateway adds to a whole tiny render, against the same ComfyUI asked directly by the same client
    Gateway {
        /// Renders of each client, of each kind, taken in turn
        #[arg(long, default_value_t = 40)]
        count: usize,
        /// Clients at once
        #[arg(long, value_name = "N,N…", value_delimiter = ',', default_values_t = [1, 32])]
        clients: Vec<usize>,
        /// A file of so many MiB goes in and out again, and the daemon's memory is watched; 0: none
        #[arg(long, default_value_t = 1024)]
        mib: usize,
        /// So many more prompts are rendered, and the memory that their history takes is watched; 0: none
        #[arg(long, default_value_t = 10_000)]
        prompts: u32,
    },
    /// A large sealed blob from node to node, against one raw libp2p stream
    Blob {
        #[arg(long, default_value_t = 2048)]
        mib: usize,
        /// Over a line of so many Mbit/s, in a network namespace made for it: needs root and iproute2
        #[arg(long, value_name = "MBIT")]
        line_mbit: Option<u32>,
        #[command(flatten)]
        place: blob::Place,
    },
    /// The process at the other end of that
    #[command(hide = true)]
    BlobTaker {
        #[arg(long, value_name = "ADDRESS")]
        listen: IpAddr,
    },
    /// Start of a daemon with a long past, and its journal, before and after a compaction
    Restart {
        /// Tasks that ended before, at least 500
        #[arg(long, default_value_t = 100_000)]
        past: usize,
    },
    /// Memory and processor time of a daemon that only sends and receives adverts
    Idle {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Daemons in the mesh
        #[arg(long, default_value_t = 3)]
        nodes: usize,
    },
}

/// Runs one bench and prints its figures.
///
/// # Errors
/// When the mesh does not come up or a render fails.
pub async fn run(options: Options) -> Result<()> {
    let (name, figures) = match options.what {
        What::Dispatch { count, queued } if queued.is_empty() => ("dispatch", dispatch::run(count).await?),
        What::Dispatch { count, queued } => ("dispatch", queued::run(&queued, count).await?),
        What::Overhead { count, comfyui } => ("overhead", overhead::run(count, comfyui).await?),
        What::Gateway { count, clients, mib, prompts } => {
            ("gateway", gateway::run(count, &clients, mib, prompts).await?)
        }
        What::Blob { mib, line_mbit: Some(mbit), .. } => ("blob", line::run(mib, mbit).await?),
        What::Blob { mib, line_mbit: None, place } => ("blob", blob::run(mib, &place).await?),
        What::BlobTaker { listen } => return blob::serve(listen).await,
        What::Restart { past } => ("restart", restart::run(past).await?),
        What::Idle { minutes, nodes } => ("idle", idle::run(minutes, nodes).await?),
    };
    for (figure, value) in &figures {
        say(&format!("{figure:<28} {value}"));
    }
    if options.json {
        let mut object = Map::new();
        object.insert("schema".into(), json!(format!("bench-{name}/1")));
        object.insert("ok".into(), json!(true));
        object.extend(figures);
        result(&Value::Object(object).to_string());
    }
    Ok(())
}

/// Figures by name, units in the names.
type Figures = Map<String, Value>;

/// The value below which `part` of the samples lie; samples are sorted in place.
fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position in a short list")]
    let at = (last as f64 * part).round() as usize;
    samples.get(at).copied().unwrap_or(f64::NAN)
}

/// A figure in milliseconds, to the hundredth.
fn ms(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
