//! Sealing and opening: grants, acceptances, results. No state; everything it needs is handed in.

use scenemesh_protocol::codec::{self, Message};
use scenemesh_protocol::envelope::{
    self, Desk, Envelope, GrantPayload, Judged, MAX_LIFETIME_MS, Recipient, ResultKeys, Sealable, Standing,
    Terms,
};
use scenemesh_protocol::ids::{ClaimId, ContentHash, MsgId, NodeId, PoolId, TaskId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::lease::{
    AcceptedTerms, BlobRef, Finished, FinishedTerms, Grant, GrantTerms, Outcome, Refusal, RefusalReason,
};
use scenemesh_protocol::receipt::WipeRecord;
use scenemesh_protocol::sealed::BlobKey;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{Memo, MemoPlace, Project, StudioKey};
use scenemesh_protocol::task::{Class, Failure, FailureClass, OutputFile, Reach, TaskSpec};
use zeroize::Zeroizing;

use crate::executor::Wipe;
use crate::executor::graph::Graph;
use crate::scheduler::conversation::LEASE;
use crate::scheduler::record::{Recipe, TaskPlan};
use crate::scheduler::renderer::{Rejection, RunOutcome};
use crate::scheduler::requester::SealedGrant;
use crate::store::{BlobError, Blobs};

/// The pool, as far as sealing needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolFacts {
    pub(super) pool: PoolId,
    pub(super) epoch: u64,
}

/// A machine in no pool signs for itself only; its terms name no pool.
pub(super) const NO_POOL: PoolFacts = PoolFacts { pool: PoolId::from_bytes([0; 16]), epoch: 0 };

/// What a task is, as its renderer is told.
///
/// # Errors
/// Never for a graph that was accepted at submission; a sentence otherwise.
pub(super) fn spec(
    recipe: &Recipe,
    reach: &Reach,
    project: Option<Signed<Project>>,
    plan: TaskPlan,
    attempt: u32,
) -> Result<TaskSpec, String> {
    let graph = if plan.add_to_seeds == 0 {
        recipe.graph.clone()
    } else {
        let mut graph = Graph::parse(&recipe.graph).map_err(|error| error.to_string())?;
        graph.add_to_seeds(plan.add_to_seeds);
        graph.to_bytes()
    };
    Ok(TaskSpec {
        task: plan.task,
        attempt,
        graph,
        extra_data: recipe.extra_data.clone(),
        inputs: recipe.inputs.clone(),
        previews: recipe.previews,
        full_hygiene: recipe.shape.full_hygiene,
        time_limit_ms: recipe.time_limit_ms,
        reach: reach.clone(),
        project,
    })
}

/// All that a grant is made of.
#[derive(Debug)]
pub(super) struct GrantParts {
    pub(super) pool: PoolFacts,
    pub(super) claim: ClaimId,
    pub(super) class: Class,
    pub(super) recipe: Recipe,
    pub(super) reach: Reach,
    pub(super) project: Option<Signed<Project>>,
    /// For the own studio's books; with the key of that studio.
    pub(super) memo: Option<(Memo, StudioKey)>,
    pub(super) plan: TaskPlan,
    pub(super) attempt: u32,
    /// None: for this machine itself; nothing is sealed, and its renderer reads the task where it lies.
    pub(super) to: Option<Recipient>,
    pub(super) now_ms: u64,
}

/// Seals a task for its renderer. A large task becomes a blob of its own.
pub(super) async fn grant(parts: GrantParts, key: SecretKey, blobs: Blobs) -> Result<SealedGrant, String> {
    let me = key.public().node();
    let msg_id = MsgId::random();
    let inputs = blob_refs(&parts.recipe, &blobs).await?;
    let task = parts.plan.task;
    let (envelope, roots, to) = match parts.to {
        None => (Vec::new(), Vec::new(), me),
        Some(to) => {
            let project = parts.project.clone();
            let spec = spec(&parts.recipe, &parts.reach, project, parts.plan, parts.attempt)?;
            let mut roots = inputs;
            let payload = if GrantPayload::fits_inline(&spec) {
                GrantPayload::Inline(spec)
            } else {
                let sealed = seal_bytes(&blobs, &Zeroizing::new(codec::encode_body(&spec))).await?;
                roots.push(BlobRef { root: sealed.root, sealed_bytes: sealed.sealed_bytes });
                GrantPayload::Blob { root: sealed.root, key: sealed.key, bytes: sealed.bytes }
            };
            let terms = Terms {
                pool: parts.pool.pool,
                epoch: parts.pool.epoch,
                task,
                attempt: parts.attempt,
                msg_id,
                created_ms: parts.now_ms,
                expires_ms: parts.now_ms + MAX_LIFETIME_MS,
            };
            let envelope = Envelope::seal(&payload, &key, &to, &terms).map_err(|error| error.to_string())?;
            (envelope.as_bytes().to_vec(), roots, to.node)
        }
    };
    let memo = match &parts.memo {
        Some((memo, key)) if to != me => {
            let place = MemoPlace { pool: key.pool, studio: key.studio, task, attempt: parts.attempt };
            Some(memo.seal(key, &place).map_err(|error| error.to_string())?)
        }
        _ => None,
    };
    let terms = GrantTerms {
        pool: parts.pool.pool,
        claim: parts.claim,
        task,
        attempt: parts.attempt,
        from: me,
        to,
        msg_id,
        envelope: ContentHash::of(&envelope),
        roots: roots.clone(),
        lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
        class: parts.class,
        quote: None,
        memo,
    };
    Ok(SealedGrant { grant: Grant { terms: Signed::new(&terms, &key), envelope }, roots })
}

pub(super) async fn blob_refs(recipe: &Recipe, blobs: &Blobs) -> Result<Vec<BlobRef>, String> {
    let mut refs: Vec<BlobRef> = Vec::new();
    for input in &recipe.inputs {
        let manifest = blobs.manifest(input.root).await.map_err(|error| error.to_string())?;
        let blob = BlobRef { root: input.root, sealed_bytes: manifest.sealed_bytes() };
        if !refs.contains(&blob) {
            refs.push(blob);
        }
    }
    Ok(refs)
}

pub(super) async fn seal_bytes(blobs: &Blobs, plain: &[u8]) -> Result<crate::store::Sealed, String> {
    let mut sealer = blobs.seal();
    sealer.write(plain).await.map_err(|error| error.to_string())?;
    sealer.finish().await.map_err(|error| error.to_string())
}

/// A grant's envelope, opened. It was judged when it came; this opens it again whenever the task is needed.
fn open_again<T: Sealable + Message>(
    bytes: &[u8],
    me: NodeId,
    kem: &KemSecret,
) -> Result<envelope::Opened<T>, String> {
    let envelope = Envelope::from_bytes(bytes.to_vec());
    let unopened = envelope.read::<T>().map_err(|error| error.to_string())?;
    let header = unopened.header().clone();
    let desk = Desk {
        pool: header.pool,
        me,
        epoch: header.epoch,
        standing: &|_| Standing::Admitted,
        seen: &|_, _| false,
        purged_ms: 0,
    };
    let judged: Judged<'_, T> =
        unopened.judge(header.created_ms, &desk).map_err(|error| error.to_string())?;
    judged.open(kem).map_err(|error| error.to_string())
}

/// The payload of a grant that was accepted.
pub(super) fn open_grant(grant: &Grant, me: NodeId, kem: &KemSecret) -> Result<GrantPayload, String> {
    Ok(open_again::<GrantPayload>(&grant.envelope, me, kem)?.payload)
}

/// The task of an accepted grant; a payload that is a blob must have been fetched.
pub(super) async fn payload_spec(
    payload: GrantPayload,
    task: TaskId,
    attempt: u32,
    blobs: &Blobs,
) -> Result<TaskSpec, String> {
    match payload {
        GrantPayload::Inline(spec) => Ok(spec),
        GrantPayload::Blob { root, key, bytes } => {
            if bytes > TaskSpec::LIMIT as u64 {
                return Err(format!("the task takes {bytes} bytes, at most {} are allowed", TaskSpec::LIMIT));
            }
            let plain = open_bytes(blobs, root, &key, TaskSpec::LIMIT).await?;
            GrantPayload::spec_from_blob(&plain, task, attempt).map_err(|error| error.to_string())
        }
    }
}

/// The plaintext of a blob that was sealed by [`seal_bytes`], at most so long.
pub(super) async fn open_bytes(
    blobs: &Blobs,
    root: ContentHash,
    key: &BlobKey,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut opener = blobs.open(root, key).await.map_err(|error| error.to_string())?;
    if opener.bytes() > limit as u64 {
        return Err("it is larger than it says".into());
    }
    // At its whole length at once: growing would leave copies.
    let mut plain = Zeroizing::new(Vec::with_capacity(usize::try_from(opener.bytes()).unwrap_or(0)));
    while let Some(piece) = opener.next().await.map_err(|error| error.to_string())? {
        plain.extend_from_slice(&piece);
    }
    Ok(plain)
}

/// How long the task's project lets anybody keep its results, in milliseconds; `None`: it does not say.
pub(super) async fn keep_ms(grant: &Grant, me: NodeId, kem: &KemSecret, blobs: &Blobs) -> Option<u64> {
    let terms = grant.terms.verify().ok()?;
    let payload = open_grant(grant, me, kem).ok()?;
    let spec = payload_spec(payload, terms.task, terms.attempt, blobs).await.ok()?;
    let project = spec.project.as_ref()?.verify().ok()?;
    Some(u64::from(project.retention_s?).saturating_mul(1000))
}

/// Signs that this node runs what the terms say.
pub(super) fn accept(
    grant: ContentHash,
    task: TaskId,
    attempt: u32,
    key: &SecretKey,
) -> Signed<AcceptedTerms> {
    Signed::new(&AcceptedTerms { grant, task, attempt, sigma_milli: None }, key)
}

/// A refusal of a grant that is nobody's failure.
pub(super) fn not_taken(reason: RefusalReason, detail: impl Into<String>) -> Rejection {
    Rejection { refusal: Refusal { reason, detail: detail.into() }, failure: None }
}

/// All that a finished attempt is made of.
#[derive(Debug)]
pub(super) struct ResultParts {
    pub(super) pool: PoolFacts,
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    pub(super) grant: ContentHash,
    /// None: for this machine itself.
    pub(super) to: Option<Recipient>,
    pub(super) outcome: RunOutcome,
    pub(super) wipe: Option<Wipe>,
    pub(super) now_ms: u64,
}

/// Signs how an attempt ended and seals the keys of its results for the requester alone.
pub(super) async fn finished(
    parts: ResultParts,
    key: &SecretKey,
    blobs: &Blobs,
) -> (Finished, Vec<ContentHash>) {
    let ResultParts { pool, task, attempt, grant, to, outcome, wipe, now_ms } = parts;
    let failed = |failure| (Outcome::Failed(failure), Vec::new(), 0, Vec::new());
    let (outcome, keys, exec_ms, roots) = match outcome {
        RunOutcome::Failed(failure) => failed(failure),
        RunOutcome::Done { outputs, exec_ms } => {
            let roots: Vec<ContentHash> = outputs.iter().map(|output| output.root).collect();
            match result_keys(pool, task, attempt, grant, to, outputs, now_ms, key, blobs).await {
                Ok((blobs, keys)) => {
                    (Outcome::Done { roots: blobs, keys: ContentHash::of(&keys) }, keys, exec_ms, roots)
                }
                Err(failure) => {
                    for root in roots {
                        drop(blobs.remove(root).await);
                    }
                    failed(failure)
                }
            }
        }
    };
    let terms = FinishedTerms { pool: pool.pool, task, attempt, grant, outcome, exec_ms };
    let wipe = wipe.map(|Wipe { hygiene, wiped, left }| {
        let record = WipeRecord { pool: pool.pool, task, attempt, grant, hygiene, wiped, left };
        Signed::new(&record, key)
    });
    (Finished { terms: Signed::new(&terms, key), keys, usage: None, wipe }, roots)
}

/// A result that is here, for a node that was not its requester.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) pool: PoolFacts,
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    pub(super) grant: ContentHash,
    pub(super) to: Recipient,
    pub(super) outputs: Vec<OutputFile>,
    pub(super) exec_ms: u64,
    pub(super) now_ms: u64,
}

/// Signs that this node has a result and seals its keys for another. The blobs stay whatever happens.
pub(super) async fn announce(parts: Announced, key: &SecretKey, blobs: &Blobs) -> Result<Finished, String> {
    let Announced { pool, task, attempt, grant, to, outputs, exec_ms, now_ms } = parts;
    let sealed = result_keys(pool, task, attempt, grant, Some(to), outputs, now_ms, key, blobs).await;
    let (roots, keys) = sealed.map_err(|failure| failure.to_string())?;
    let outcome = Outcome::Done { roots, keys: ContentHash::of(&keys) };
    let terms = FinishedTerms { pool: pool.pool, task, attempt, grant, outcome, exec_ms };
    Ok(Finished { terms: Signed::new(&terms, key), keys, usage: None, wipe: None })
}

#[expect(clippy::too_many_arguments, reason = "the one caller has them all at hand")]
async fn result_keys(
    pool: PoolFacts,
    task: TaskId,
    attempt: u32,
    grant: ContentHash,
    to: Option<Recipient>,
    outputs: Vec<OutputFile>,
    now_ms: u64,
    key: &SecretKey,
    blobs: &Blobs,
) -> Result<(Vec<BlobRef>, Vec<u8>), Failure> {
    let unsent = |error: &dyn std::fmt::Display| {
        Failure::new(FailureClass::Transfer, format!("the result cannot be sent: {error}"))
    };
    let mut refs = Vec::with_capacity(outputs.len());
    for output in &outputs {
        let manifest = blobs.manifest(output.root).await.map_err(|error| unsent(&error))?;
        refs.push(BlobRef { root: output.root, sealed_bytes: manifest.sealed_bytes() });
    }
    let keys = ResultKeys { task, attempt, grant, outputs };
    let plain = Zeroizing::new(codec::encode_body(&keys));
    if plain.len() > ResultKeys::LIMIT {
        return Err(too_many_files(keys.outputs.len()));
    }
    let bytes = match to {
        None => plain.to_vec(),
        Some(to) => {
            let terms = Terms {
                pool: pool.pool,
                epoch: pool.epoch,
                task,
                attempt,
                msg_id: MsgId::random(),
                created_ms: now_ms,
                expires_ms: now_ms + MAX_LIFETIME_MS,
            };
            let sealed = Envelope::seal(&keys, key, &to, &terms).map_err(|error| unsent(&error))?;
            sealed.as_bytes().to_vec()
        }
    };
    Ok((refs, bytes))
}

/// Names and keys of all results travel in one message. Rendering it again would not make them fewer.
fn too_many_files(count: usize) -> Failure {
    let words = format!(
        "it made {count} files, more than one task can send back; save a video, or give each task fewer frames"
    );
    Failure::new(FailureClass::InvalidGraph, words)
}

/// The files of a result, as its keys name them: for this attempt of this grant, and exactly the signed roots.
///
/// A result may be older than any envelope may be: its freshness is the attempt's, which takes one result only.
pub(super) fn open_keys(
    finished: &Finished,
    grant: ContentHash,
    from: NodeId,
    me: NodeId,
    kem: &KemSecret,
) -> Result<(Vec<OutputFile>, Vec<BlobRef>), String> {
    let terms = finished.terms.verify().map_err(|error| error.to_string())?;
    let Outcome::Done { roots, .. } = &terms.outcome else { return Err("it is not a result".into()) };
    let keys: ResultKeys = if from == me {
        codec::decode_body(&finished.keys, ResultKeys::LIMIT).map_err(|error| error.to_string())?
    } else {
        let opened = open_again::<ResultKeys>(&finished.keys, me, kem)?;
        if opened.header.from != from || opened.header.to != me || opened.header.pool != terms.pool {
            return Err("its keys are from somebody else".into());
        }
        opened.payload
    };
    if (keys.task, keys.attempt, keys.grant) != (terms.task, terms.attempt, grant) {
        return Err("its keys are of another attempt".into());
    }
    let named: std::collections::BTreeSet<ContentHash> =
        keys.outputs.iter().map(|output| output.root).collect();
    let signed: std::collections::BTreeSet<ContentHash> = roots.iter().map(|blob| blob.root).collect();
    if named != signed {
        return Err("its keys name other files than were signed".into());
    }
    Ok((keys.outputs, roots.clone()))
}

/// Opens every file of a result to the end: it decrypts with its key and has the length it should.
pub(super) async fn prove(outputs: &[OutputFile], blobs: &Blobs) -> Result<(), BadResult> {
    for output in outputs {
        let mut opener = blobs.open(output.root, &output.key).await.map_err(BadResult::of)?;
        let mut bytes = 0_u64;
        while let Some(piece) = opener.next().await.map_err(BadResult::of)? {
            bytes += piece.len() as u64;
        }
        if bytes != output.bytes {
            return Err(BadResult::DoesNotVerify(format!(
                "a file has {bytes} bytes instead of {}",
                output.bytes
            )));
        }
    }
    Ok(())
}

/// Why a result that was fetched does not count.
#[derive(Debug)]
pub(super) enum BadResult {
    DoesNotVerify(String),
    Here(String),
}

impl BadResult {
    fn of(error: BlobError) -> Self {
        match error {
            BlobError::Segment { .. } | BlobError::Manifest { .. } => Self::DoesNotVerify(error.to_string()),
            other => Self::Here(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::sealed::BlobKey;
    use scenemesh_protocol::task::OutputKind;

    use super::*;
    use crate::store;
    use crate::supervisor::Supervisor;

    #[tokio::test]
    async fn more_files_than_one_message_names_fail_the_task_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(std::time::Duration::from_secs(5));
        let config = store::Config { reserve: 0, ..store::Config::at(dir.path()) };
        let (store, _replay) = store::open(&config, &supervisor.tasks()).await.unwrap();
        let sealed = seal_bytes(&store.blobs, b"frame").await.unwrap();
        let output = |n: usize| OutputFile {
            node: "9".into(),
            kind: OutputKind::Image,
            filename: format!("shot_010_frame_{n:05}_.png"),
            root: sealed.root,
            key: BlobKey::generate(),
            bytes: sealed.bytes,
        };
        let key = SecretKey::generate();
        let ended = async |count: usize| {
            let parts = ResultParts {
                pool: NO_POOL,
                task: TaskId::random(),
                attempt: 1,
                grant: ContentHash::of(b"grant"),
                to: None,
                outcome: RunOutcome::Done { outputs: (0..count).map(output).collect(), exec_ms: 1 },
                wipe: None,
                now_ms: 1,
            };
            let (finished, _) = super::finished(parts, &key, &store.blobs).await;
            // Whatever it is, the requester can read it.
            finished.terms.verify().unwrap().outcome.clone()
        };
        assert!(matches!(ended(3000).await, Outcome::Done { .. }));
        let Outcome::Failed(failure) = ended(6000).await else { panic!("too many files") };
        assert_eq!(failure.class, FailureClass::InvalidGraph);
        assert!(failure.detail.contains("6000 files"), "{failure}");
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }
}
