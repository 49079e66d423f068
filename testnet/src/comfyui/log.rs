//! What a simulated machine did: one line per event, in memory and as JSON lines on disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::StartError;

/// One event of one prompt, or of the machine where `prompt_id` is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    pub prompt_id: Option<String>,
    pub client_id: Option<String>,
    #[serde(flatten)]
    pub event: LogEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LogEvent {
    Queued,
    /// `seed`: the first `seed` or `noise_seed` literal of the graph.
    Started {
        seed: Option<u64>,
    },
    /// A cold model begins to load.
    Loading {
        model: String,
    },
    /// A cold model was loaded.
    Loaded {
        model: String,
    },
    /// Latents are being decoded, where that takes any time.
    Decoding,
    /// A sampling step was done, counted from 1.
    Step {
        node: String,
        step: u32,
        max: u32,
    },
    /// `cached`: how many nodes did not run because their output was still there.
    Finished {
        outcome: RunOutcome,
        cached: usize,
    },
    /// Taken out of the queue before it started.
    Dequeued,
    Uploaded {
        name: String,
    },
    /// The history entry was deleted.
    Forgotten,
    /// The execution cache was emptied.
    Freed,
    Struck {
        fault: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Success,
    Error,
    Interrupted,
}

/// One prompt from start to end, gathered from the lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub prompt_id: String,
    pub client_id: Option<String>,
    pub seed: Option<u64>,
    pub started_us: u64,
    /// Sampling steps done.
    pub steps: u32,
    /// When and how it ended; `None`: still running, or cut off by a crash.
    pub finished: Option<(u64, RunOutcome)>,
}

/// Lines kept in memory; a scenario that needs more reads the file.
const KEPT: usize = 100_000;

/// The log of one machine.
#[derive(Debug)]
pub struct RunLog {
    lines: Mutex<Vec<LogLine>>,
    count: watch::Sender<u64>,
    file: Option<Mutex<File>>,
}

impl RunLog {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let file = match path {
            Some(path) => {
                let opened = File::options().create(true).append(true).open(path);
                Some(Mutex::new(opened.map_err(|source| StartError::Log { path: path.to_owned(), source })?))
            }
            None => None,
        };
        Ok(Self { lines: Mutex::default(), count: watch::Sender::new(0), file })
    }

    pub(super) fn write(&self, prompt_id: Option<&str>, client_id: Option<&str>, event: LogEvent) {
        let line = LogLine {
            at_us: scenemeshd::clock::wall_us(),
            prompt_id: prompt_id.map(str::to_owned),
            client_id: client_id.map(str::to_owned),
            event,
        };
        if let Some(file) = &self.file {
            let mut text = serde_json::to_string(&line).expect("a log line is plain data");
            text.push('\n');
            // A full disk must not change what the simulated machine does.
            file.lock().expect("no holder of this lock panics").write_all(text.as_bytes()).ok();
        }
        let mut lines = self.lines.lock().expect("no holder of this lock panics");
        if lines.len() < KEPT {
            lines.push(line);
        }
        self.count.send_modify(|count| *count += 1);
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<LogLine> {
        self.lines.lock().expect("no holder of this lock panics").clone()
    }

    /// Every prompt that was started, in order; one that ran twice is there twice.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for line in self.lines() {
            let Some(prompt_id) = line.prompt_id else { continue };
            if let LogEvent::Started { seed } = line.event {
                let (client_id, started_us) = (line.client_id, line.at_us);
                runs.push(Run { prompt_id, client_id, seed, started_us, steps: 0, finished: None });
                continue;
            }
            let Some(run) = runs.iter_mut().rfind(|run| run.prompt_id == prompt_id) else { continue };
            match line.event {
                LogEvent::Step { .. } => run.steps += 1,
                LogEvent::Finished { outcome, .. } => run.finished = Some((line.at_us, outcome)),
                _ => {}
            }
        }
        runs
    }

    /// Resolves when the lines satisfy `holds`. Cancel safe.
    pub async fn until(&self, holds: impl Fn(&[LogLine]) -> bool) {
        let mut count = self.count.subscribe();
        while !holds(&self.lines()) {
            if count.changed().await.is_err() {
                return;
            }
        }
    }
}
