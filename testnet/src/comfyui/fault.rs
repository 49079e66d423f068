//! What a simulated machine is told to do wrong, and how often.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

/// One way to misbehave. Written `KIND[@STEP][*TIMES]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// Strikes in the n-th sampling step of a prompt, counted from 1; `None`: before the first node that really runs.
    /// Only [`FaultKind::is_timed`] kinds look at it.
    pub step: Option<u32>,
    /// How often it still strikes; `None`: always.
    pub times: Option<u32>,
}

/// The ways to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The running prompt makes no progress any more, until it is interrupted.
    Stall,
    /// The running prompt makes no progress any more, and an interrupt does not reach it.
    Wedge,
    /// Every open WebSocket stays open but delivers nothing more; the work goes on. New sockets hear again.
    Silent,
    /// The process is gone: connections cut, port closed.
    Crash,
    /// The node fails with PyTorch's out-of-memory error.
    OutOfMemory,
    /// Saving fails with `[Errno 28] No space left on device`.
    DiskFull,
    /// Another picture than the graph describes.
    Lie,
    /// A black picture, as a NaN in the VAE gives.
    Black,
    /// A saved file that is cut in half.
    Corrupt,
    /// GET answers and `POST /prompt` are 200 with bytes that are no JSON.
    Garbage,
    /// An upload is cut in the middle, and the process with it.
    DieMidUpload,
    /// `/internal/folder_paths` is 404 and argv tells no directory.
    NoFolderPaths,
}

impl FaultKind {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Stall, "stall"),
        (Self::Wedge, "wedge"),
        (Self::Silent, "silent"),
        (Self::Crash, "crash"),
        (Self::OutOfMemory, "oom"),
        (Self::DiskFull, "disk-full"),
        (Self::Lie, "lie"),
        (Self::Black, "black"),
        (Self::Corrupt, "corrupt"),
        (Self::Garbage, "garbage"),
        (Self::DieMidUpload, "die-mid-upload"),
        (Self::NoFolderPaths, "no-folder-paths"),
    ];

    /// The kinds that strike at a moment of a run, and so may carry `@STEP`.
    pub fn is_timed(self) -> bool {
        matches!(self, Self::Stall | Self::Wedge | Self::Silent | Self::Crash | Self::OutOfMemory)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(kind, _)| kind == self).map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, step: None, times: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(step) = self.step {
            write!(f, "@{step}")?;
        }
        if let Some(times) = self.times {
            write!(f, "*{times}")?;
        }
        Ok(())
    }
}

/// Why a fault could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseFaultError {
    #[error("no fault is called {0:?}; there are {known}", known = FaultKind::ALL.map(|(_, name)| name).join(", "))]
    Unknown(String),
    #[error("{0:?} is no count; write KIND[@STEP][*TIMES], e.g. stall@3*1")]
    Count(String),
    #[error("{0} has no moment in a run, so it takes no @STEP")]
    NotTimed(FaultKind),
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let count =
            |digits: &str| digits.parse::<u32>().map_err(|_| ParseFaultError::Count(digits.to_owned()));
        let (rest, times) = match text.split_once('*') {
            Some((rest, times)) => (rest, Some(count(times)?)),
            None => (text, None),
        };
        let (name, step) = match rest.split_once('@') {
            Some((name, step)) => (name, Some(count(step)?)),
            None => (rest, None),
        };
        let kind = FaultKind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| ParseFaultError::Unknown(name.to_owned()))?;
        if step.is_some() && !kind.is_timed() {
            return Err(ParseFaultError::NotTimed(kind));
        }
        Ok(Self { kind, step, times })
    }
}

/// The faults in force. Counts go down as they strike.
#[derive(Debug)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(faults))
    }

    pub(super) fn set(&self, faults: Vec<Fault>) {
        *self.0.lock().expect("no holder of this lock panics") = faults;
    }

    /// Whether a fault of this kind strikes at this moment; if so, one of its times is used up.
    pub(super) fn strikes(&self, kind: FaultKind, step: Option<u32>) -> bool {
        let mut faults = self.0.lock().expect("no holder of this lock panics");
        let Some(fault) = faults.iter_mut().find(|f| f.kind == kind && f.step == step && f.times != Some(0))
        else {
            return false;
        };
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in ["stall@3", "crash@2*1", "oom", "disk-full*2", "no-folder-paths"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("lie@2".parse::<Fault>(), Err(ParseFaultError::NotTimed(FaultKind::Lie)));
        assert_eq!("stall@x".parse::<Fault>(), Err(ParseFaultError::Count("x".to_owned())));
        assert!("nap".parse::<Fault>().unwrap_err().to_string().contains("stall, wedge, silent"));
    }

    #[test]
    fn a_fault_strikes_at_its_step_and_as_often_as_told() {
        let faults = Faults::new(vec!["oom@2*1".parse().unwrap()]);
        assert!(!faults.strikes(FaultKind::OutOfMemory, Some(1)));
        assert!(faults.strikes(FaultKind::OutOfMemory, Some(2)));
        assert!(!faults.strikes(FaultKind::OutOfMemory, Some(2)));
    }
}
