//! What the owner of the machine allowed and denied by hand, and the file that keeps it. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use super::list::{Family, Judged, List};

/// The file's name in the data directory.
pub const FILE: &str = "policy.toml";
/// Most classes named by hand, and most bytes of a class's name.
const MOST: usize = 4096;
const LONGEST: usize = 200;

/// Classes that the owner judged. None is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    pub allowed: BTreeSet<String>,
    pub denied: BTreeSet<String>,
}

/// Why a file, or a change, is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChoices {
    #[error("{0}")]
    Toml(String),
    #[error("{}{class:?} is under allow and under deny; leave it in one of them", at(*line))]
    Both { line: usize, class: String },
    #[error(
        "{}{class} is a partner node, which spends somebody's money; it can be allowed nowhere, leave it out",
        at(*line)
    )]
    Partner { line: usize, class: String },
    #[error(
        "{}{class:?} is no name of a node class; write it as ComfyUI does, with at most {LONGEST} bytes",
        at(*line)
    )]
    Name { line: usize, class: String },
    #[error("more than {MOST} classes are named; take some out")]
    TooMany,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    allow: Vec<toml::Spanned<String>>,
    deny: Vec<toml::Spanned<String>>,
}

impl Choices {
    /// Reads the file.
    ///
    /// # Errors
    /// With the line, what is wrong, and what to write.
    pub fn read(text: &str) -> Result<Self, BadChoices> {
        let written: Written = toml::from_str(text)
            .map_err(|error| BadChoices::Toml(error.to_string().trim_end().to_owned()))?;
        if written.allow.len() + written.deny.len() > MOST {
            return Err(BadChoices::TooMany);
        }
        let mut choices = Self::default();
        for class in written.allow {
            let line = line_of(text, class.span().start);
            let class = named(class.into_inner(), line)?;
            if is_partner(&class) {
                return Err(BadChoices::Partner { line, class });
            }
            choices.allowed.insert(class);
        }
        for class in written.deny {
            let line = line_of(text, class.span().start);
            let class = named(class.into_inner(), line)?;
            if choices.allowed.contains(&class) {
                return Err(BadChoices::Both { line, class });
            }
            choices.denied.insert(class);
        }
        Ok(choices)
    }

    /// The file's text; reads back as the same choices.
    pub fn write(&self) -> String {
        let mut text = String::from(
            "# Node classes that the owner of this machine allowed or denied by hand, over the list that SceneMesh carries.\n\
             # `scenemesh policy allow|deny|reset CLASS` writes this file; it may be edited while the daemon is stopped, or\n\
             # before the next such command, which reads it first. Partner nodes cannot be allowed.\n\n\
             # These run for others although the list denies them or does not know them. Paths in their inputs are refused all the same.\n",
        );
        array(&mut text, "allow", &self.allowed);
        text.push_str("\n# These run for nobody, this machine's own tasks included.\n");
        array(&mut text, "deny", &self.denied);
        text
    }

    /// Allows, denies or forgets classes.
    ///
    /// # Errors
    /// When a name is none, or a partner node was to be allowed; nothing changed then.
    pub fn change(&mut self, change: super::Change, classes: &[String]) -> Result<(), BadChoices> {
        let mut next = self.clone();
        for class in classes {
            let class = named(class.clone(), 0)?;
            next.allowed.remove(&class);
            next.denied.remove(&class);
            match change {
                super::Change::Allow if is_partner(&class) => {
                    return Err(BadChoices::Partner { line: 0, class });
                }
                super::Change::Allow => drop(next.allowed.insert(class)),
                super::Change::Deny => drop(next.denied.insert(class)),
                super::Change::Reset => {}
            }
        }
        if next.allowed.len() + next.denied.len() > MOST {
            return Err(BadChoices::TooMany);
        }
        *self = next;
        Ok(())
    }
}

/// Changes by command have no line.
fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!("line {line}: ") }
}

fn is_partner(class: &str) -> bool {
    List::embedded().entry(class).is_some_and(|entry| entry.judged == Judged::Denied(Family::Partner))
}

fn named(class: String, line: usize) -> Result<String, BadChoices> {
    let fits = !class.trim().is_empty() && class.len() <= LONGEST && !class.chars().any(char::is_control);
    if fits { Ok(class) } else { Err(BadChoices::Name { line, class: class.chars().take(80).collect() }) }
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

fn array(text: &mut String, key: &str, classes: &BTreeSet<String>) {
    let _ = write!(text, "{key} = [");
    for class in classes {
        // TOML's basic strings escape what JSON's do.
        let _ = write!(text, "\n    {},", serde_json::Value::from(class.as_str()));
    }
    text.push_str(if classes.is_empty() { "]\n" } else { "\n]\n" });
}
