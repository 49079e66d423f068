//! The curated list of node classes, read from `classes.toml` once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use scenemesh_protocol::codec::{Decode, Encode};
use serde::Deserialize;

use crate::executor::graph::{input_folder, is_file_input};

/// Why classes are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Paths,
    Code,
    Partner,
    Install,
    Others,
    Network,
    Models,
    Hang,
}

impl Family {
    pub const ALL: [Self; 8] = [
        Self::Paths,
        Self::Code,
        Self::Partner,
        Self::Install,
        Self::Others,
        Self::Network,
        Self::Models,
        Self::Hang,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Paths => "paths",
            Self::Code => "code",
            Self::Partner => "partner",
            Self::Install => "install",
            Self::Others => "others",
            Self::Network => "network",
            Self::Models => "models",
            Self::Hang => "hang",
        }
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Paths => "it takes a path or an address",
            Self::Code => "it runs or loads code",
            Self::Partner => "it calls a paid service",
            Self::Install => "it installs what is missing",
            Self::Others => "it reaches files beyond the task's own",
            Self::Network => "it talks to other machines",
            Self::Models => "it takes models out or makes them",
            Self::Hang => "nothing can interrupt it",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the list says of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    Allowed,
    Denied(Family),
}

/// A class on the list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The module or pack that it comes from.
    pub from: String,
    pub judged: Judged,
}

/// What an input's strings mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Text,
    /// Of something that is not known; may be a number written as text.
    Name,
    /// Of a file, a model, or files to be written: never linked.
    File,
    Link,
    Word,
    Data,
    Class,
}

/// The list.
#[derive(Debug)]
pub struct List {
    pub version: u32,
    /// The release of ComfyUI that was judged.
    pub comfyui: String,
    classes: HashMap<String, Entry>,
    meanings: HashMap<String, Vec<(String, Meaning)>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    comfyui: String,
    allow: Vec<Group>,
    deny: Vec<Group>,
    text: BTreeMap<String, Vec<String>>,
    name: BTreeMap<String, Vec<String>>,
    link: BTreeMap<String, Vec<String>>,
    word: BTreeMap<String, Vec<String>>,
    data: BTreeMap<String, Vec<String>>,
    class: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    from: String,
    family: Option<Family>,
    classes: Vec<String>,
}

/// What is wrong with the list: a mistake of ours, found by a test.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadList {
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    #[error("{0} is judged twice")]
    Twice(String),
    #[error("the block from {0} is allowed with a family, or denied without")]
    Family(String),
    #[error("{0} has meanings, and is not an allowed class")]
    Meaning(String),
}

static LIST: LazyLock<List> =
    LazyLock::new(|| List::read(include_str!("classes.toml")).expect("a test reads the embedded list"));

impl List {
    /// The one that this release carries.
    pub fn embedded() -> &'static Self {
        &LIST
    }

    pub(super) fn read(text: &str) -> Result<Self, BadList> {
        let written: Written = toml::from_str(text)?;
        let mut classes = HashMap::new();
        let allowed = written.allow.into_iter().map(|group| (group, false));
        for (group, denied) in allowed.chain(written.deny.into_iter().map(|group| (group, true))) {
            let judged = match (denied, group.family) {
                (false, None) => Judged::Allowed,
                (true, Some(family)) => Judged::Denied(family),
                _ => return Err(BadList::Family(group.from)),
            };
            for class in group.classes {
                let entry = Entry { from: group.from.clone(), judged };
                if classes.insert(class.clone(), entry).is_some() {
                    return Err(BadList::Twice(class));
                }
            }
        }
        let mut meanings: HashMap<String, Vec<(String, Meaning)>> = HashMap::new();
        let tables = [
            (written.text, Meaning::Text),
            (written.name, Meaning::Name),
            (written.link, Meaning::Link),
            (written.word, Meaning::Word),
            (written.data, Meaning::Data),
            (written.class, Meaning::Class),
        ];
        for (table, meaning) in tables {
            for (class, inputs) in table {
                if !classes.get(&class).is_some_and(|entry: &Entry| entry.judged == Judged::Allowed) {
                    return Err(BadList::Meaning(class));
                }
                meanings.entry(class).or_default().extend(inputs.into_iter().map(|input| (input, meaning)));
            }
        }
        Ok(Self { version: written.version, comfyui: written.comfyui, classes, meanings })
    }

    pub fn entry(&self, class: &str) -> Option<&Entry> {
        self.classes.get(class)
    }

    /// Every class that is judged, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.classes.iter().map(|(class, entry)| (class.as_str(), entry))
    }

    /// What strings at this input mean.
    pub fn meaning(&self, class: &str, input: &str) -> Meaning {
        let of_class = self.meanings.get(class).map(Vec::as_slice).unwrap_or_default();
        let named =
            |name: &str| of_class.iter().find(|(known, _)| known == name).map(|(_, meaning)| *meaning);
        match named(input) {
            Some(Meaning::Name) | None if is_of_files(class, input) => Meaning::File,
            Some(meaning) => meaning,
            None => named("*").unwrap_or(Meaning::Name),
        }
    }
}

/// By the tables of inputs that name files and models, and by names that nobody gives to anything else.
fn is_of_files(class: &str, input: &str) -> bool {
    const NAMES: [&str; 10] = [
        "directory",
        "file",
        "filename",
        "filename_prefix",
        "folder",
        "output_dir",
        "path",
        "prefix_path",
        "subfolder",
        "url",
    ];
    const ENDS: [&str; 5] = ["_path", "_file", "_dir", "_url", "_folder"];
    is_file_input(class, input)
        || input_folder(class, input).is_some()
        || NAMES.contains(&input)
        || ENDS.iter().any(|end| input.ends_with(end))
}
