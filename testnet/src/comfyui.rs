//! A simulated ComfyUI: speaks the dialect of 0.3.64, traps included, renders real files, and misbehaves when told to.
//!
//! It has its own base directory (`models/`, `input/`, `output/`, `temp/`), one queue and one worker, like the real one. Pictures are
//! a function of the graph alone: two instances render the same pixels for the same graph, and others for another seed. What ran is in the
//! [`RunLog`]; what goes wrong is a list of [`Fault`]s that may change while it runs. `tests/it/comfyui_contract.rs` checks it against
//! recordings of a real server, and against a real server where one is given.
//!
//! Not simulated: subgraph expansion, lazy inputs, video encoding, the 2026 additions (`/api/jobs`, assets).

mod catalog;
mod disk;
mod fault;
mod files;
mod flac;
mod jpeg;
mod log;
mod machine;
mod nodes;
mod order;
mod picture;
mod plug;
mod pythonic;
mod queue;
mod raster;
mod routes;
mod run;
mod sockets;
mod validate;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

pub use fault::{Fault, FaultKind, ParseFaultError};
pub use log::{LogEvent, LogLine, Run, RunLog, RunOutcome};

use machine::Machine;

/// How a simulated machine looks and behaves. Every field is a flag of `testnet comfyui`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on; loopback only, port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value_t = Options::default().listen)]
    pub listen: SocketAddr,
    /// Base directory with models, input, output and temp [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Append what ran to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Misbehave: KIND[@STEP][*TIMES], e.g. stall@3, crash@2*1, oom, disk-full, lie, garbage
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// The GPU to claim in /system_stats
    #[arg(long, value_name = "NAME", default_value_t = Options::default().gpu)]
    pub gpu: String,
    /// Its memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = Options::default().vram_mib)]
    pub vram_mib: u64,
    /// A model that this machine holds, as FOLDER/NAME, e.g. checkpoints/sd15.safetensors; may be repeated
    #[arg(long = "model", value_name = "FOLDER/NAME", default_values_t = Options::default().models)]
    pub models: Vec<String>,
    /// Time one sampling step takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = Options::default().step_ms)]
    pub step_ms: u64,
    /// Time a cold model takes to load, in milliseconds; it stays warm until /free or until `--warm` others came after it
    #[arg(long, value_name = "MS", default_value_t = Options::default().load_ms)]
    pub load_ms: u64,
    /// Time the decoding of latents takes, in milliseconds; like loading, nothing interrupts it
    #[arg(long, value_name = "MS", default_value_t = Options::default().decode_ms)]
    pub decode_ms: u64,
    /// Time until an upload that was kept is answered, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = Options::default().upload_ms)]
    pub upload_ms: u64,
    /// Video memory that each warm model holds, in MiB
    #[arg(long, value_name = "MIB", default_value_t = Options::default().model_mib)]
    pub model_mib: u64,
    /// How many models stay warm
    #[arg(long, value_name = "N", default_value_t = Options::default().warm)]
    pub warm: usize,
    /// Time between execution_success and the history entry, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = Options::default().history_lag_ms)]
    pub history_lag_ms: u64,
    /// Send no previews, as a server without --preview-method
    #[arg(long)]
    pub no_previews: bool,
    /// With each sampling step, send the text that a node shows and a binary frame of an extension's own
    #[arg(long)]
    pub talkative: bool,
    /// Behind every saved file whose prefix ends in `large`, so many MiB that mean nothing
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub large_mib: usize,
    /// A node class this machine lacks; may be repeated
    #[arg(long, value_name = "CLASS")]
    pub without: Vec<String>,
    /// An extra output node without inputs, such as a custom node would bring; may be repeated
    #[arg(long, value_name = "CLASS")]
    pub with: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data: None,
            log: None,
            faults: Vec::new(),
            gpu: "NVIDIA GeForce RTX 4090".to_owned(),
            vram_mib: 24 * 1024,
            models: vec!["checkpoints/tiny_sd15.safetensors".to_owned()],
            talkative: false,
            large_mib: 0,
            step_ms: 5,
            load_ms: 0,
            decode_ms: 0,
            upload_ms: 0,
            model_mib: 4 * 1024,
            warm: 2,
            history_lag_ms: 2,
            no_previews: false,
            without: Vec::new(),
            with: Vec::new(),
        }
    }
}

/// Why a simulated ComfyUI did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the simulated ComfyUI listens on loopback only, not on {0}; use 127.0.0.1")]
    NotLoopback(SocketAddr),
    #[error("listening on {addr}: {source}; is the port taken?")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("preparing the base directory: {0}")]
    Directory(#[source] std::io::Error),
    #[error("opening the run log {path}: {source}")]
    Log { path: PathBuf, source: std::io::Error },
}

/// How a simulated ComfyUI ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// [`Simulated::stop`] was called.
    Stopped,
    /// A `crash` or `die-mid-upload` fault struck: every connection is cut and the port is closed.
    Crashed,
}

/// A running simulated ComfyUI. Dropping it cuts every connection, as a killed process would.
#[derive(Debug)]
pub struct Simulated {
    addr: SocketAddr,
    machine: Arc<Machine>,
    tasks: JoinSet<()>,
    _unplug: DropGuard,
    _temporary: Option<tempfile::TempDir>,
}

impl Simulated {
    /// Binds, prepares the directories and starts serving; the address answers when this returns.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        if !options.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(options.listen));
        }
        let (base, temporary) = match &options.data {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(StartError::Directory)?;
                (std::path::absolute(dir).map_err(StartError::Directory)?, None)
            }
            None => {
                let dir = tempfile::tempdir().map_err(StartError::Directory)?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        let disk = disk::Disk::prepare(base, &options.models).map_err(StartError::Directory)?;
        let log = RunLog::open(options.log.as_deref())?;
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|source| StartError::Listen { addr: options.listen, source })?;
        let addr =
            listener.local_addr().map_err(|source| StartError::Listen { addr: options.listen, source })?;

        let machine = Arc::new(Machine::new(options, addr, disk, log));
        let mut tasks = JoinSet::new();
        tasks.spawn(routes::serve(Arc::clone(&machine), listener));
        tasks.spawn(worker::work(Arc::clone(&machine)));
        let unplug = machine.power.clone().drop_guard();
        Ok(Self { addr, machine, tasks, _unplug: unplug, _temporary: temporary })
    }

    /// Its address, port resolved.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it ran so far.
    pub fn log(&self) -> &RunLog {
        &self.machine.log
    }

    /// Its base directory, as `--base-directory` would give it.
    pub fn base_dir(&self) -> &Path {
        self.machine.disk.base()
    }

    /// Where uploads land.
    pub fn input_dir(&self) -> PathBuf {
        self.machine.disk.root(disk::Folder::Input)
    }

    /// Where SaveImage writes.
    pub fn output_dir(&self) -> PathBuf {
        self.machine.disk.root(disk::Folder::Output)
    }

    /// Where PreviewImage writes.
    pub fn temp_dir(&self) -> PathBuf {
        self.machine.disk.root(disk::Folder::Temp)
    }

    /// Replaces all faults; an empty list heals the machine. What already stalled stays stalled.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.machine.faults.set(faults);
    }

    /// Resolves when it has ended by a fault. Cancel safe.
    pub async fn ended(&self) -> Ended {
        self.machine.power.cancelled().await;
        if self.machine.has_crashed() { Ended::Crashed } else { Ended::Stopped }
    }

    /// Cuts every connection and waits until nothing of it runs.
    pub async fn stop(mut self) {
        self.machine.power.cancel();
        self.tasks.shutdown().await;
    }
}

/// Runs a simulated ComfyUI until a fault ends it; drop the future to stop it. `on_ready` is called once, when the address answers.
pub async fn serve(options: Options, on_ready: impl FnOnce(&Simulated)) -> Result<Ended, StartError> {
    let simulated = Simulated::start(options).await?;
    on_ready(&simulated);
    Ok(simulated.ended().await)
}
