//! The programs that a mesh is made of, all held by this one binary: `testnet scenemeshd …` *is* the daemon,
//! `testnet scenemesh …` *is* the command line, `testnet comfyui …` is the simulated ComfyUI.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// Where the all-in-one binary is.
#[derive(Clone, Debug)]
pub struct Programs {
    exe: PathBuf,
    /// `RUST_LOG` of programs that stay.
    log: String,
    /// Through a shell that sets this umask first.
    umask: Option<String>,
    /// Another daemon than this binary's own.
    daemon: Option<PathBuf>,
    /// More of the environment.
    environment: Vec<(String, String)>,
}

/// What daemons log unless a test wants more.
const LOG: &str = "info,scenemeshd=debug";

impl Programs {
    /// The running binary itself.
    ///
    /// # Errors
    /// When the operating system does not say where it is.
    pub fn this_binary() -> Result<Self> {
        Ok(Self::at(std::env::current_exe().context("finding this program's own path")?))
    }

    /// A binary by path; tests pass `env!("CARGO_BIN_EXE_testnet")`.
    pub fn at(exe: impl Into<PathBuf>) -> Self {
        let exe = exe.into();
        Self { exe, log: LOG.to_owned(), umask: None, daemon: None, environment: Vec::new() }
    }

    /// The same, logging what `filter` says.
    #[must_use]
    pub fn logging(self, filter: &str) -> Self {
        Self { log: filter.to_owned(), ..self }
    }

    /// The same with another daemon, such as that of the release before; `None`: this binary's own.
    #[must_use]
    pub fn with_daemon(self, daemon: Option<PathBuf>) -> Self {
        Self { daemon, ..self }
    }

    /// The same, with a variable in their environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, run under this umask. Unix only.
    #[must_use]
    pub fn under_umask(self, umask: &str) -> Self {
        Self { umask: Some(umask.to_owned()), ..self }
    }

    /// A command for one of the programs. It dies with its handle.
    pub fn command(&self, program: &str) -> Command {
        let other = self.daemon.as_ref().filter(|_| program == "scenemeshd");
        let mut command = match &self.umask {
            _ if other.is_some() => other.map_or_else(|| Command::new(&self.exe), Command::new),
            Some(umask) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]).arg(&self.exe);
                shell
            }
            None => Command::new(&self.exe),
        };
        if other.is_none() {
            command.arg(program);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        // What a developer has set for a mesh of their own must not reach this one.
        for name in ["SCENEMESH_DATA_DIR", "COMFYUI_HOST", "LANG", "LC_ALL", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts a program that stays, its output going to `log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program not started.
    pub fn start<I, S>(&self, program: &str, args: I, log: &Path) -> Result<Child>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let err = out.try_clone()?;
        self.command(program)
            .args(args)
            .env("RUST_LOG", &self.log)
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {program} from {}", self.exe.display()))
    }
}
