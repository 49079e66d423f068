//! What the process was started with, read once, so that tests can pretend.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

type Lookup = dyn Fn(&str) -> Option<OsString>;

/// Variables and terminals of a process.
pub struct Environment {
    lookup: Box<Lookup>,
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    pub stdin_is_terminal: bool,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment {
    pub fn of_this_process() -> Self {
        Self {
            lookup: Box::new(|name| std::env::var_os(name)),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// An environment of these variables and no terminal.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Self {
            lookup: Box::new(move |name| {
                variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }),
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            stdin_is_terminal: false,
        }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// Where the daemon keeps its things unless somebody says otherwise.
    pub fn default_data_dir(&self) -> Option<PathBuf> {
        scenemesh_protocol::api::default_data_dir(std::env::consts::OS, |name| self.get(name))
    }
}
