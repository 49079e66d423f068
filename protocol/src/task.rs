//! A task: one ComfyUI prompt, what it needs, how it can end.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::codec::{Decode, Encode, Message};
use crate::ids::{ContentHash, StudioId, TaskId};
use crate::sealed::BlobKey;
use crate::signed::Signed;
use crate::studio::Project;

/// How soon somebody wants it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Batch,
    #[default]
    Normal,
    Urgent,
}

/// How far a task may travel. Both ends enforce it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Reach {
    /// This machine only.
    Machine,
    /// Nodes that my own studio's admins admitted.
    #[default]
    Studio,
    /// Nodes of these studios, my own among them only when named.
    Studios(Vec<StudioId>),
    /// Every node of the pool.
    Pool,
}

impl Reach {
    /// Whether everything that this reaches from the studio `home` lies within `limit`.
    pub fn is_within(&self, limit: &Self, home: &StudioId) -> bool {
        match (self, limit) {
            (Self::Machine, _) | (_, Self::Pool) | (Self::Studio, Self::Studio) => true,
            (Self::Pool, _) | (_, Self::Machine) => false,
            (Self::Studio, Self::Studios(limit)) => limit.contains(home),
            (Self::Studios(chosen), Self::Studio) => chosen.iter().all(|studio| studio == home),
            (Self::Studios(chosen), Self::Studios(limit)) => chosen.iter().all(|of| limit.contains(of)),
        }
    }

    /// What a task of a project gets when its submitter says nothing: the studio, or less where the project allows less.
    #[must_use]
    pub fn default_within(limit: &Self, home: &StudioId) -> Self {
        if Self::Studio.is_within(limit, home) { Self::Studio } else { limit.clone() }
    }
}

/// A model file as ComfyUI names it: its folder (`checkpoints`, `loras` …) and its name inside that folder,
/// with `/` between directories whatever the machine's own separator is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct ModelName {
    pub folder: String,
    pub name: String,
}

impl ModelName {
    /// Normalises `\` to `/`, so that a name from Windows matches one from Linux.
    pub fn new(folder: impl Into<String>, name: &str) -> Self {
        Self { folder: folder.into(), name: name.replace('\\', "/") }
    }
}

/// File names that say nothing of the model: many models of different makers have them.
const SHARED_NAMES: [&str; 4] = ["adapter_model.", "diffusion_pytorch_model", "model.", "pytorch_model"];

impl ModelName {
    /// Which of these models a name means. A name means itself; where that is not there, the only one of its folder whose
    /// path ends as the name does, or the other way round: one machine keeps in `sdxl/` what another has one directory
    /// above. `sd15/detail.pt` does not mean `sdxl/detail.pt`, and `model.safetensors` means only itself.
    ///
    /// `sorted` are models as an inventory lists them.
    pub fn find<'a>(&self, sorted: &'a [Self]) -> Option<&'a Self> {
        if let Ok(at) = sorted.binary_search(self) {
            return Some(&sorted[at]);
        }
        let of_folder = sorted.partition_point(|model| model.folder < self.folder);
        let of_folder = sorted[of_folder..].iter().take_while(|model| model.folder == self.folder);
        only(of_folder.filter(|model| is_same_file(&model.name, &self.name)))
    }

    /// The same among the names of one folder, as a machine spells them.
    pub fn find_name<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
        let plain = name.replace('\\', "/");
        let spelt = |other: &&str| *other == name || other.replace('\\', "/") == plain;
        names
            .clone()
            .find(spelt)
            .or_else(|| only(names.filter(|other| is_same_file(&other.replace('\\', "/"), &plain))))
    }
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether one path is the end of the other.
fn is_same_file(one: &str, other: &str) -> bool {
    let (long, short) = if one.len() > other.len() { (one, other) } else { (other, one) };
    let ends = long.strip_suffix(short).is_some_and(|above| above.ends_with('/'));
    ends && (short.contains('/') || !SHARED_NAMES.iter().any(|name| short.starts_with(name)))
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.folder, self.name)
    }
}

/// What a task needs of a node, and all that candidates learn of it before the grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Shape {
    /// Node classes of the graph, sorted, each once.
    pub classes: Vec<String>,
    /// Models the graph names, sorted, each once.
    pub models: Vec<ModelName>,
    /// Least video memory, in MiB.
    pub vram_mib: Option<u32>,
    /// Least CUDA compute capability, times ten (8.9 is 89).
    pub min_cc: Option<u16>,
    /// Sealed bytes of all inputs.
    pub input_bytes: u64,
    /// The task insists on `hygiene = full`.
    pub full_hygiene: bool,
}

/// An input file of a task: where the graph names it, and where its sealed bytes are. Name and key are wiped when
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InputFile {
    /// The name as it stands in the graph's literals; the renderer replaces it with the name of its upload.
    pub name: String,
    pub root: ContentHash,
    pub key: BlobKey,
    /// Plaintext bytes.
    pub bytes: u64,
}

impl Drop for InputFile {
    fn drop(&mut self) {
        self.name.zeroize();
    }
}

/// What a renderer is asked to run: the payload of a grant's envelope. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct TaskSpec {
    pub task: TaskId,
    pub attempt: u32,
    /// The ComfyUI graph in API format, as JSON bytes.
    pub graph: Vec<u8>,
    /// ComfyUI's `extra_data` as JSON bytes; empty when there is none. Never carries comfy.org tokens.
    pub extra_data: Vec<u8>,
    pub inputs: Vec<InputFile>,
    /// Whether preview pictures are wanted.
    pub previews: bool,
    pub full_hygiene: bool,
    /// Most milliseconds the renderer may spend executing; the renderer's own limit may be lower.
    pub time_limit_ms: u64,
    /// How far the task may travel: a renderer outside of it refuses.
    pub reach: Reach,
    /// The rules of the task's project, signed by an admin of the requester's studio: the renderer holds to them too.
    pub project: Option<Signed<Project>>,
}

impl fmt::Debug for TaskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSpec")
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .field("graph_bytes", &self.graph.len())
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

impl Drop for TaskSpec {
    fn drop(&mut self) {
        self.graph.zeroize();
        self.extra_data.zeroize();
    }
}

impl Message for TaskSpec {
    const TYPE: u16 = 0x0301;
    /// 16 MiB: graphs with embedded masks and base64 images are seen at a few MiB.
    const LIMIT: usize = 16 << 20;
}

/// What kind of thing an output is, from ComfyUI's own output keys and the file's type.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    Image,
    /// Moving pictures: ComfyUI's `gifs`, or `images` with `animated`.
    Video,
    Audio,
    /// Text that a node shows; stored as UTF-8.
    Text,
    /// Anything else that has a file name.
    Other,
}

/// One result file, as the requester gets to know it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutputFile {
    /// Id of the graph's node that made it.
    pub node: String,
    pub kind: OutputKind,
    /// File name as ComfyUI gave it, without directories and without the executor's own prefix.
    pub filename: String,
    pub root: ContentHash,
    pub key: BlobKey,
    /// Plaintext bytes.
    pub bytes: u64,
}

/// What is done with a result that looks wrong.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OnSuspect {
    /// It is kept, and said to be suspect.
    #[default]
    Keep,
    /// The attempt has failed: elsewhere, not here again.
    Retry,
}

/// Why an attempt failed. Complete: what the requester does next depends on nothing else.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The graph is wrong wherever it runs: never again.
    InvalidGraph,
    /// A node class or a model is not on this node: elsewhere, not here again.
    MissingModelOrClass,
    /// Out of video memory: elsewhere, with more of it.
    OutOfMemory,
    /// ComfyUI went away while the task ran: elsewhere, and here once it is back; the third time fails the task.
    ComfyuiDied,
    /// The renderer's policy does not allow the graph.
    Policy,
    /// Inputs or results could not be moved.
    Transfer,
    DiskFull,
    /// Over the time limit.
    Timeout,
    /// The GPU's owner wanted it back.
    OwnerReturned,
    /// One side's key was revoked.
    Revoked,
    Cancelled,
    /// What came back is not what was signed: elsewhere, never here again.
    ResultDoesNotVerify,
    /// The renderer stopped answering and its lease ran out.
    LeaseLost,
    /// An execution error that the graph's own nodes raised; three nodes decide.
    Execution,
    /// What came back looks wrong, and its submitter wants such results rendered again.
    Suspect,
}

impl FailureClass {
    /// Whether another node may try.
    pub fn may_go_elsewhere(self) -> bool {
        !matches!(self, Self::InvalidGraph | Self::Cancelled)
    }

    /// Whether the same node may try this task again later.
    pub fn may_return_here(self) -> bool {
        matches!(self, Self::ComfyuiDied | Self::Transfer | Self::OwnerReturned | Self::LeaseLost)
    }

    /// Whether this counts as one of the three distinct nodes that fail a task.
    pub fn counts_against_task(self) -> bool {
        !matches!(self, Self::OwnerReturned | Self::Cancelled | Self::LeaseLost | Self::Revoked)
    }

    /// Whether it may well be the task's own doing: a node that is broken or dishonest says nothing of the task.
    pub fn may_be_the_tasks_own(self) -> bool {
        matches!(self, Self::Execution | Self::OutOfMemory | Self::Timeout | Self::Suspect)
    }

    /// Whether it may be its machine's fault. What a task brings along, and what somebody decided, is not.
    pub fn may_be_the_machines(self) -> bool {
        matches!(
            self,
            Self::Execution | Self::OutOfMemory | Self::ComfyuiDied | Self::DiskFull | Self::Timeout
        )
    }

    /// Short words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::InvalidGraph => "invalid graph",
            Self::MissingModelOrClass => "missing model or class",
            Self::OutOfMemory => "out of memory",
            Self::ComfyuiDied => "ComfyUI died",
            Self::Policy => "refused by policy",
            Self::Transfer => "transfer failed",
            Self::DiskFull => "disk full",
            Self::Timeout => "timeout",
            Self::OwnerReturned => "its owner took the GPU back",
            Self::Revoked => "revoked",
            Self::Cancelled => "cancelled",
            Self::ResultDoesNotVerify => "result does not verify",
            Self::LeaseLost => "lease lost",
            Self::Execution => "execution error",
            Self::Suspect => "suspect result",
        }
    }
}

/// A failed attempt: its class, and a sentence that names what and where. It may quote the graph, so it travels
/// only to the requester.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", class.words())]
pub struct Failure {
    pub class: FailureClass,
    pub detail: String,
}

impl Failure {
    pub fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_wherever_below_its_folder_it_is_kept_unless_that_is_in_doubt() {
        let names = |names: &[&str]| {
            let mut models: Vec<_> = names.iter().map(|name| ModelName::new("loras", name)).collect();
            models.extend([ModelName::new("checkpoints", "a.pt"), ModelName::new("vae", "a.pt")]);
            models.sort();
            models
        };
        for (wanted, here, found) in [
            ("a.pt", &["a.pt", "x/a.pt"][..], Some("a.pt")),
            ("a.pt", &["x/a.pt", "xa.pt"], Some("x/a.pt")),
            ("x/a.pt", &["a.pt"], Some("a.pt")),
            ("x\\y\\a.pt", &["y/a.pt"], Some("y/a.pt")),
            ("a.pt", &["x/a.pt", "y/a.pt"], None),
            ("x/a.pt", &["y/a.pt"], None),
            ("a.pt", &["b.pt"], None),
            ("model.safetensors", &["x/model.safetensors"], None),
            ("x/model.safetensors", &["y/x/model.safetensors"], Some("y/x/model.safetensors")),
        ] {
            let models = names(here);
            let one = ModelName::new("loras", wanted).find(&models);
            assert_eq!(one.map(|model| model.name.as_str()), found, "{wanted} among {here:?}");
            assert_eq!(ModelName::find_name(wanted, here.iter().copied()), found, "{wanted} among {here:?}");
        }
        assert_eq!(ModelName::find_name("x/a.pt", ["x\\a.pt"].into_iter()), Some("x\\a.pt"));
    }

    #[test]
    fn reach_is_ordered_by_what_it_contains() {
        let [home, birch, cedar] = [1, 2, 3].map(|n| StudioId::from_bytes([n; 16]));
        let of = |studios: &[StudioId]| Reach::Studios(studios.to_vec());
        let table = [
            (Reach::Machine, Reach::Machine, true),
            (Reach::Machine, of(&[birch]), true),
            (Reach::Studio, Reach::Machine, false),
            (Reach::Studio, Reach::Studio, true),
            (Reach::Studio, of(&[birch]), false),
            (Reach::Studio, of(&[home, birch]), true),
            (of(&[home]), Reach::Studio, true),
            (of(&[home, birch]), Reach::Studio, false),
            (of(&[birch]), of(&[birch, cedar]), true),
            (of(&[birch, cedar]), of(&[birch]), false),
            (of(&[birch]), Reach::Machine, false),
            (Reach::Pool, of(&[home, birch, cedar]), false),
            (Reach::Pool, Reach::Pool, true),
        ];
        for (reach, limit, within) in table {
            assert_eq!(reach.is_within(&limit, &home), within, "{reach:?} {limit:?}");
        }
        assert_eq!(Reach::default_within(&Reach::Pool, &home), Reach::Studio);
        assert_eq!(Reach::default_within(&Reach::Machine, &home), Reach::Machine);
        assert_eq!(Reach::default_within(&of(&[birch]), &home), of(&[birch]));
    }
}
