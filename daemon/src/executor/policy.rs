//! May this graph run here, and why not. Pure.
//!
//! A ComfyUI graph is code: its node classes are functions that somebody installed on the renderer, and its strings are their
//! arguments. So a task of another machine runs only if every class is allowed, and only if no string that means a name leads
//! anywhere. The [`List`] says which classes; the owner of the machine may allow and deny by hand ([`Choices`]). Tasks of the
//! machine itself are its owner's own, who could open ComfyUI beside it: they pass, unless the owner denied the class by hand.
//! Partner nodes and comfy.org credentials pass in no direction.

use std::fmt;

use scenemesh_protocol::codec::{Decode, Encode};
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::task::{Failure, FailureClass};
use serde_json::Value;

mod choices;
mod keeper;
mod list;
mod names;
#[cfg(test)]
mod tests;

pub use choices::{BadChoices, Choices, FILE};
pub use keeper::{BadFile, Change, ChangeError, Keeper, spawn};
pub use list::{Entry, Family, Judged, List, Meaning};
pub use names::Offence;

use super::graph::{Graph, Node, as_link};
use names::Strictness;

/// Findings collected of one graph at most; more add nothing but time.
const MOST_FINDINGS: usize = 200;
/// Findings told in a failure.
const TOLD: usize = 3;
/// Deepest nesting of a literal.
const DEEPEST: usize = 16;
/// Keys under which editors put comfy.org credentials end like this.
const TOKEN_ENDING: &str = "_comfy_org";

/// Whose task it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Submitted on this machine.
    OwnMachine,
    Others,
}

/// What may run here now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub choices: Choices,
    /// How often it changed since this node started: what was refused meanwhile is asked again, also when the choices are
    /// those of before.
    pub changes: u64,
}

/// Why a class may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WhyDenied {
    Family(Family),
    /// It is not on the list.
    Unlisted,
    /// The owner of the machine denied it.
    ByHand,
}

impl fmt::Display for WhyDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(family) => f.write_str(family.words()),
            Self::Unlisted => f.write_str("it is not on the list of classes that may run"),
            Self::ByHand => f.write_str("the owner of the machine denied it"),
        }
    }
}

/// A class that may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub class: String,
    pub why: WhyDenied,
}

/// The sentence of a refusal, as it travels: `node class "CLASS" is not allowed there (WORD)`. Its word is a family's or
/// `unlisted`; what an owner denied by hand is nobody's business, and is told as that.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class: String = self.class.chars().filter(|c| !c.is_control()).take(CLASS_SHOWN).collect();
        let word = match self.why {
            WhyDenied::Family(family) => family.word(),
            WhyDenied::Unlisted | WhyDenied::ByHand => UNLISTED,
        };
        write!(f, "{HEAD}{class}{MIDDLE}{word})")
    }
}

const HEAD: &str = "node class \"";
const MIDDLE: &str = "\" is not allowed there (";
const UNLISTED: &str = "unlisted";
/// Most characters of a class's name in a sentence.
const CLASS_SHOWN: usize = 100;

impl Denied {
    /// Reads the sentence of a refusal back; `None` when a peer said something else.
    pub fn of_sentence(sentence: &str) -> Option<Self> {
        let (class, word) = sentence.strip_prefix(HEAD)?.strip_suffix(')')?.rsplit_once(MIDDLE)?;
        let family = Family::ALL.into_iter().find(|family| family.word() == word);
        let why = match family {
            Some(family) => WhyDenied::Family(family),
            None if word == UNLISTED => WhyDenied::Unlisted,
            None => return None,
        };
        Some(Self { class: class.to_owned(), why })
    }
}

/// One reason why a graph may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the node; empty for what stands beside the graph.
    pub node: String,
    pub class: String,
    pub what: Forbidden,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forbidden {
    Class(WhyDenied),
    Literal {
        input: String,
        offence: Offence,
    },
    /// A comfy.org credential under this key.
    Token {
        key: String,
    },
}

/// Names node, class and input, and never a value.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, class, what } = self;
        match what {
            Forbidden::Class(why) => write!(f, "node {node} ({class}): {why}"),
            Forbidden::Literal { input, offence } => {
                write!(f, "node {node} ({class}), input {input}: {offence}")
            }
            Forbidden::Token { key } if node.is_empty() => {
                write!(f, "extra data: {key} is a comfy.org credential")
            }
            Forbidden::Token { key } => write!(f, "node {node} ({class}): {key} is a comfy.org credential"),
        }
    }
}

impl Policy {
    /// Whether nodes of this class may run.
    ///
    /// # Errors
    /// Why not.
    pub fn class(&self, class: &str, whose: Whose) -> Result<(), WhyDenied> {
        let judged = List::embedded().entry(class).map(|entry| entry.judged);
        if judged == Some(Judged::Denied(Family::Partner)) {
            return Err(WhyDenied::Family(Family::Partner));
        }
        if self.choices.denied.contains(class) {
            return Err(WhyDenied::ByHand);
        }
        if whose == Whose::OwnMachine || self.choices.allowed.contains(class) {
            return Ok(());
        }
        match judged {
            Some(Judged::Allowed) => Ok(()),
            Some(Judged::Denied(family)) => Err(WhyDenied::Family(family)),
            None => Err(WhyDenied::Unlisted),
        }
    }

    /// Whether all of these classes may run.
    ///
    /// # Errors
    /// The first that may not.
    pub fn classes(&self, classes: &[String], whose: Whose) -> Result<(), Denied> {
        let denied = classes.iter().find_map(|class| Some((class, self.class(class, whose).err()?)));
        denied.map_or(Ok(()), |(class, why)| Err(Denied { class: class.clone(), why }))
    }

    /// Everything in a task that may not run here. `attached` are the names of the files that come with it.
    pub fn findings(
        &self,
        graph: &Graph,
        extra_data: &[u8],
        attached: &[String],
        whose: Whose,
    ) -> Vec<Finding> {
        let mut search = Search { policy: self, attached, whose, found: Vec::new() };
        for node in graph.nodes() {
            search.node(node);
            if search.found.len() >= MOST_FINDINGS {
                break;
            }
        }
        search.found.extend(tokens_in(graph, extra_data));
        search.found.truncate(MOST_FINDINGS);
        search.found
    }

    /// As [`Policy::findings`], as the failure of an attempt.
    ///
    /// # Errors
    /// When anything was found, or the graph is none.
    pub fn check(
        &self,
        graph: &[u8],
        extra_data: &[u8],
        attached: &[String],
        whose: Whose,
    ) -> Result<(), Failure> {
        let graph = Graph::parse(graph)
            .map_err(|error| Failure::new(FailureClass::InvalidGraph, error.to_string()))?;
        let found = self.findings(&graph, extra_data, attached, whose);
        if found.is_empty() { Ok(()) } else { Err(failure(&found)) }
    }

    /// Tells this policy from others, earlier ones of this run among them.
    pub fn fingerprint(&self) -> ContentHash {
        let list = List::embedded();
        let mut text = format!("{}\n{}\n{}\n", list.version, list.comfyui, self.changes);
        for (mark, classes) in [('+', &self.choices.allowed), ('-', &self.choices.denied)] {
            for class in classes {
                text.push(mark);
                text.push_str(class);
                text.push('\n');
            }
        }
        ContentHash::of(text.as_bytes())
    }
}

/// The failure that these findings are.
pub fn failure(found: &[Finding]) -> Failure {
    let told: Vec<String> = found.iter().take(TOLD).map(ToString::to_string).collect();
    let more = found.len().saturating_sub(TOLD);
    let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
    let told: String = told.join("; ").chars().take(1000).collect();
    Failure::new(FailureClass::Policy, told + &tail)
}

/// comfy.org credentials anywhere in a task.
pub fn tokens_in(graph: &Graph, extra_data: &[u8]) -> Vec<Finding> {
    let mut found = Vec::new();
    let graph_value = graph.to_value();
    for (id, node) in graph_value.as_object().into_iter().flatten() {
        let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
        let mut keys = Vec::new();
        token_keys(node, &mut keys);
        found.extend(keys.into_iter().map(|key| Finding {
            node: id.clone(),
            class: class.to_owned(),
            what: Forbidden::Token { key },
        }));
    }
    // What is no JSON cannot be posted either.
    if let Ok(extra) = serde_json::from_slice::<Value>(extra_data) {
        let mut keys = Vec::new();
        token_keys(&extra, &mut keys);
        let beside =
            |key| Finding { node: String::new(), class: String::new(), what: Forbidden::Token { key } };
        found.extend(keys.into_iter().map(beside));
    }
    found
}

fn is_token(key: &str) -> bool {
    let end = key.len().checked_sub(TOKEN_ENDING.len());
    end.and_then(|at| key.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(TOKEN_ENDING))
}

fn token_keys(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if is_token(key) {
                    into.push(key.chars().take(CLASS_SHOWN).collect());
                }
                token_keys(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| token_keys(item, into)),
        _ => {}
    }
}

/// Takes comfy.org credentials out, at any depth.
pub fn strip_tokens(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !is_token(key));
            map.values_mut().for_each(strip_tokens);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_tokens),
        _ => {}
    }
}

/// Partner nodes of a graph by the list alone: of no machine, for no machine.
pub fn partner_nodes(graph: &Graph) -> Vec<(String, String)> {
    let partner = |class: &str| {
        List::embedded().entry(class).is_some_and(|entry| entry.judged == Judged::Denied(Family::Partner))
    };
    let nodes = graph.nodes().filter(|node| partner(node.class));
    nodes.map(|node| (node.id.to_owned(), node.class.to_owned())).collect()
}

struct Search<'a> {
    policy: &'a Policy,
    attached: &'a [String],
    whose: Whose,
    found: Vec<Finding>,
}

impl Search<'_> {
    fn node(&mut self, node: Node<'_>) {
        if let Err(why) = self.policy.class(node.class, self.whose) {
            self.found.push(finding(node, Forbidden::Class(why)));
            return;
        }
        if self.whose == Whose::OwnMachine {
            return;
        }
        for (input, value) in node.inputs {
            if let Some(offence) = self.input(node.class, input, value) {
                self.found.push(finding(node, Forbidden::Literal { input: input.clone(), offence }));
            }
            if self.found.len() >= MOST_FINDINGS {
                return;
            }
        }
    }

    fn input(&self, class: &str, input: &str, value: &Value) -> Option<Offence> {
        let meaning = List::embedded().meaning(class, input);
        if as_link(value).is_some() {
            let literal_only =
                matches!(meaning, Meaning::File | Meaning::Word | Meaning::Class | Meaning::Data);
            return literal_only.then_some(Offence::Linked);
        }
        self.value(meaning, value, 0)
    }

    fn value(&self, meaning: Meaning, value: &Value, depth: usize) -> Option<Offence> {
        if depth > DEEPEST {
            return Some(Offence::TooDeep);
        }
        match value {
            Value::String(text) => self.text(meaning, text, depth),
            Value::Array(items) => items.iter().find_map(|item| self.value(meaning, item, depth + 1)),
            Value::Object(map) => map.iter().find_map(|(key, value)| {
                names::offence(key, Strictness::Loose).or_else(|| self.value(meaning, value, depth + 1))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                (meaning == Meaning::Link).then_some(Offence::NotLinked)
            }
        }
    }

    fn text(&self, meaning: Meaning, text: &str, depth: usize) -> Option<Offence> {
        match meaning {
            Meaning::Text => names::text_offence(text),
            Meaning::Link => Some(Offence::NotLinked),
            Meaning::Word => names::word_offence(text),
            Meaning::Data => names::data_offence(text),
            Meaning::Class if text == "none" => None,
            Meaning::Class => {
                let denied = self.policy.class(text, self.whose).is_err();
                denied.then(|| Offence::Class(text.chars().take(CLASS_SHOWN).collect()))
            }
            Meaning::File => match names::offence(text, Strictness::File) {
                // A file of the task's own: what stands there is replaced by the name of its upload.
                Some(Offence::Annotation) if self.is_attached(text) => None,
                offence => offence,
            },
            Meaning::Name => names::offence(text, Strictness::Loose).or_else(|| self.nested(text, depth)),
        }
    }

    /// Some nodes take JSON as text: its strings are names as well.
    fn nested(&self, text: &str, depth: usize) -> Option<Offence> {
        if !text.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let value: Value = serde_json::from_str(text).ok()?;
        self.value(Meaning::Name, &value, depth + 1)
    }

    fn is_attached(&self, name: &str) -> bool {
        let bare = super::graph::without_annotation(name);
        let inside = names::offence(bare, Strictness::File).is_none();
        inside && self.attached.iter().any(|given| given == name || given == bare)
    }
}

fn finding(node: Node<'_>, what: Forbidden) -> Finding {
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(CLASS_SHOWN).collect();
    Finding { node: shown(node.id), class: shown(node.class), what }
}
