//! What is said about a task, as the page's *A task* has it.

use anyhow::{Context, Result, bail};

use super::bytes::{Hash, Id, Reader, Writer};
use super::keys::{Key, Signed, now_ms, random};

/// Why a node refuses work, in the page's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotReady,
    MissingClass,
    MissingModel,
    TooLittleVram,
    NotAllowed,
    Busy,
    Stopping,
    DiskFull,
    BadGrant,
    Tombstone,
    Version,
    NotNow,
}

/// A refusal and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

impl Refusal {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        use Reason::*;
        let reasons = [
            NotReady,
            MissingClass,
            MissingModel,
            TooLittleVram,
            NotAllowed,
            Busy,
            Stopping,
            DiskFull,
            BadGrant,
            Tombstone,
            Version,
            NotNow,
        ];
        let number = reader.u32()? as usize;
        let reason = *reasons.get(number).with_context(|| format!("reason {number}"))?;
        Ok(Self { reason, detail: reader.text()? })
    }
}

/// An offer of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub reservation: Id,
    pub job: Id,
    pub classes: Vec<String>,
    pub models: Vec<(String, String)>,
    pub vram_mib: Option<u32>,
    pub input_bytes: u64,
    pub full_hygiene: bool,
    /// 0 batch, 1 normal, 2 urgent.
    pub class: u32,
    pub ready: u32,
    /// A deputy's right to grant the job.
    pub right: Option<Signed>,
}

impl Offer {
    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .raw(&self.reservation)
            .raw(&self.job)
            .list(&self.classes, |writer, class| writer.bytes(class))
            .list(&self.models, |writer, (folder, name)| writer.bytes(folder).bytes(name))
            .option(self.vram_mib, Writer::u32)
            .option(None, Writer::u16)
            .u64(self.input_bytes)
            .bool(self.full_hygiene)
            .u32(self.class)
            .u32(self.ready)
            .option(self.right.as_ref(), |writer, right| right.write(writer))
            .done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let (reservation, job) = (reader.raw()?, reader.raw()?);
        let classes = reader.list(Reader::text)?;
        let models = reader.list(|reader| Ok((reader.text()?, reader.text()?)))?;
        let vram_mib = reader.option(Reader::u32)?;
        reader.option(Reader::u16)?;
        Ok(Self {
            reservation,
            job,
            classes,
            models,
            vram_mib,
            input_bytes: reader.u64()?,
            full_hygiene: reader.bool()?,
            class: reader.u32()?,
            ready: reader.u32()?,
            right: reader.option(Signed::read)?,
        })
    }
}

/// Answer to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferReply {
    Waiting { position: u32 },
    Refused(Refusal),
    Claim(Id),
}

impl OfferReply {
    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u32()? {
            0 => {
                let position = reader.u32()?;
                reader.option(Reader::u64)?;
                Self::Waiting { position }
            }
            1 => Self::Refused(Refusal::read(reader)?),
            2 => Self::Claim(reader.raw()?),
            other => bail!("an offer's answer of kind {other}"),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Waiting { position } => Writer::new().u32(0).u32(*position).u8(0),
            Self::Refused(refusal) => Writer::new().u32(1).u32(refusal.reason as u32).bytes(&refusal.detail),
            Self::Claim(claim) => Writer::new().u32(2).raw(claim),
        }
        .done()
    }
}

/// What a grant is signed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTerms {
    pub pool: Id,
    pub claim: Id,
    pub task: Id,
    pub attempt: u32,
    pub from: [u8; 32],
    pub to: [u8; 32],
    pub msg_id: Id,
    pub envelope: Hash,
    pub roots: Vec<(Hash, u64)>,
    pub lease_ms: u32,
    pub class: u32,
}

pub const GRANT_DOMAIN: &str = "scenemesh/v1/grant";
pub const ACCEPTED_DOMAIN: &str = "scenemesh/v1/accepted";
pub const FINISHED_DOMAIN: &str = "scenemesh/v1/finished";

impl GrantTerms {
    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .raw(&self.pool)
            .raw(&self.claim)
            .raw(&self.task)
            .u32(self.attempt)
            .raw(&self.from)
            .raw(&self.to)
            .raw(&self.msg_id)
            .raw(&self.envelope)
            .list(&self.roots, |writer, (root, bytes)| writer.raw(root).u64(*bytes))
            .u32(self.lease_ms)
            .u32(self.class)
            // Neither a quote nor a memo.
            .u8(0)
            .u8(0)
            .done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        Ok(Self {
            pool: reader.raw()?,
            claim: reader.raw()?,
            task: reader.raw()?,
            attempt: reader.u32()?,
            from: reader.raw()?,
            to: reader.raw()?,
            msg_id: reader.raw()?,
            envelope: reader.raw()?,
            roots: reader.list(|reader| Ok((reader.raw()?, reader.u64()?)))?,
            lease_ms: reader.u32()?,
            class: reader.u32()?,
        })
    }
}

/// Answer to a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantReply {
    Accepted(Signed),
    Rejected { refusal: Refusal, failure: Option<(u32, String)> },
}

impl GrantReply {
    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        if reader.u32()? == 0 {
            return Ok(Self::Accepted(Signed::read(reader)?));
        }
        let refusal = Refusal::read(reader)?;
        let failure = reader.option(|reader| Ok((reader.u32()?, reader.text()?)))?;
        Ok(Self::Rejected { refusal, failure })
    }
}

/// One input of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    pub name: String,
    pub root: Hash,
    pub key: [u8; 32],
    pub bytes: u64,
}

/// What is to be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    pub task: Id,
    pub attempt: u32,
    pub graph: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub inputs: Vec<InputFile>,
    pub previews: bool,
    pub full_hygiene: bool,
    pub time_limit_ms: u64,
    pub reach: Reach,
    /// A signed [`Project`], or whatever a test puts there.
    pub project: Option<Signed>,
}

/// How far a task may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Machine,
    Studio,
    Studios(Vec<Id>),
    Pool,
}

impl Reach {
    fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::Machine => writer.u32(0),
            Self::Studio => writer.u32(1),
            Self::Studios(studios) => writer.u32(2).list(studios, |writer, studio| writer.raw(studio)),
            Self::Pool => writer.u32(3),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u32()? {
            0 => Self::Machine,
            1 => Self::Studio,
            2 => Self::Studios(reader.list(Reader::raw)?),
            3 => Self::Pool,
            other => bail!("a reach of kind {other}"),
        })
    }
}

impl TaskSpec {
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new()
            .raw(&self.task)
            .u32(self.attempt)
            .bytes(&self.graph)
            .bytes(&self.extra_data)
            .list(&self.inputs, |writer, input| {
                writer.bytes(&input.name).raw(&input.root).raw(&input.key).u64(input.bytes)
            })
            .bool(self.previews)
            .bool(self.full_hygiene)
            .u64(self.time_limit_ms);
        self.reach.write(writer).option(self.project.as_ref(), |writer, project| project.write(writer)).done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            task: reader.raw()?,
            attempt: reader.u32()?,
            graph: reader.bytes()?,
            extra_data: reader.bytes()?,
            inputs: reader.list(|reader| {
                Ok(InputFile {
                    name: reader.text()?,
                    root: reader.raw()?,
                    key: reader.raw()?,
                    bytes: reader.u64()?,
                })
            })?,
            previews: reader.bool()?,
            full_hygiene: reader.bool()?,
            time_limit_ms: reader.u64()?,
            reach: Reach::read(reader)?,
            project: reader.option(Signed::read)?,
        })
    }
}

pub const PROJECT_DOMAIN: &str = "scenemesh/v1/project";

/// A project's rules, as they travel in a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub pool: Id,
    pub studio: Id,
    pub max_reach: Reach,
    pub nodes: Option<Vec<[u8; 32]>>,
}

impl Project {
    /// The body: a first version, partial hygiene, kept as long as anything, not closed.
    pub fn encode(&self) -> Vec<u8> {
        let id: Id = random();
        let writer = Writer::new().raw(&self.pool).raw(&self.studio).raw(&id).raw(&random::<32>());
        self.max_reach
            .write(writer.u32(1).u64(now_ms()))
            .option(self.nodes.as_deref(), |writer, nodes| {
                writer.list(nodes, |writer, node| writer.raw(node))
            })
            .u32(1)
            .u8(0)
            .bool(false)
            .done()
    }
}

/// One file of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    pub node: String,
    /// 0 image, 1 video, 2 audio, 3 text, 4 other.
    pub kind: u32,
    pub filename: String,
    pub root: Hash,
    pub key: [u8; 32],
    pub bytes: u64,
}

/// The body of ResultKeys.
pub fn result_keys(task: &Id, attempt: u32, grant: &Hash, outputs: &[OutputFile]) -> Vec<u8> {
    let writer = Writer::new().raw(task).u32(attempt).raw(grant);
    writer
        .list(outputs, |writer, output| {
            let writer = writer.bytes(&output.node).u32(output.kind).bytes(&output.filename);
            writer.raw(&output.root).raw(&output.key).u64(output.bytes)
        })
        .done()
}

/// # Errors
/// When the bytes are none.
pub fn read_result_keys(body: &[u8]) -> Result<(Id, u32, Hash, Vec<OutputFile>)> {
    let mut reader = Reader::new(body);
    let (task, attempt, grant) = (reader.raw()?, reader.u32()?, reader.raw()?);
    let outputs = reader.list(|reader| {
        Ok(OutputFile {
            node: reader.text()?,
            kind: reader.u32()?,
            filename: reader.text()?,
            root: reader.raw()?,
            key: reader.raw()?,
            bytes: reader.u64()?,
        })
    })?;
    reader.end()?;
    Ok((task, attempt, grant, outputs))
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done { roots: Vec<(Hash, u64)>, keys: Hash },
    Failed { class: u32, detail: String },
}

/// What a result is signed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTerms {
    pub pool: Id,
    pub task: Id,
    pub attempt: u32,
    pub grant: Hash,
    pub outcome: Outcome,
    pub exec_ms: u64,
}

impl FinishedTerms {
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new().raw(&self.pool).raw(&self.task).u32(self.attempt).raw(&self.grant);
        match &self.outcome {
            Outcome::Done { roots, keys } => {
                let writer = writer.u32(0).list(roots, |writer, (root, bytes)| writer.raw(root).u64(*bytes));
                writer.raw(keys)
            }
            Outcome::Failed { class, detail } => writer.u32(1).u32(*class).bytes(detail),
        }
        .u64(self.exec_ms)
        .done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let (pool, task, attempt, grant) = (reader.raw()?, reader.raw()?, reader.u32()?, reader.raw()?);
        let outcome = match reader.u32()? {
            0 => Outcome::Done {
                roots: reader.list(|reader| Ok((reader.raw()?, reader.u64()?)))?,
                keys: reader.raw()?,
            },
            _ => Outcome::Failed { class: reader.u32()?, detail: reader.text()? },
        };
        let exec_ms = reader.u64()?;
        Ok(Self { pool, task, attempt, grant, outcome, exec_ms })
    }
}

/// A Finished as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub terms: Signed,
    pub keys: Vec<u8>,
}

impl Finished {
    pub fn new(terms: &FinishedTerms, keys: Vec<u8>, signer: &Key) -> Self {
        Self { terms: signer.signed(FINISHED_DOMAIN, &terms.encode()), keys }
    }

    pub fn encode(&self) -> Vec<u8> {
        // Neither a usage claim nor a wipe record.
        self.terms.write(Writer::new()).bytes(&self.keys).u8(0).u8(0).done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { terms: Signed::read(reader)?, keys: reader.bytes()? })
    }
}

/// The body of a Progress without preview.
pub fn progress(task: &Id, attempt: u32, seq: u64, phase: u32) -> Vec<u8> {
    let writer = Writer::new().raw(task).u32(attempt).u64(seq).u32(phase).bytes("1");
    writer.u32(1).u32(4).u32(0).u32(1).u8(0).done()
}

/// What a requester says to a renderer's Progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    Cancel,
    Drain,
    Unknown,
}

impl Verdict {
    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u32()? {
            0 => Self::Continue,
            1 => Self::Cancel,
            2 => Self::Drain,
            3 => Self::Unknown,
            other => bail!("a verdict of kind {other}"),
        })
    }
}

/// The body of Cancel, Probe, and, with a kind, of Ack.
pub fn about(task: &Id, attempt: u32) -> Vec<u8> {
    Writer::new().raw(task).u32(attempt).done()
}
