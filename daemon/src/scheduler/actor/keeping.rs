//! What a job that lies on two machines needs done: it is sealed for its deputy, fetched there, and results are brought
//! from one to the other.

use scenemesh_protocol::codec::{self, Message};
use scenemesh_protocol::deputy::{GrantRight, Keep, KeptJob, RIGHT_LIFETIME_MS, shelf_of};
use scenemesh_protocol::envelope::{Desk, Envelope, MAX_LIFETIME_MS, Standing, Terms};
use scenemesh_protocol::ids::{ContentHash, JobId, MsgId, NodeId, TaskId};
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::messages::Request;
use scenemesh_protocol::signed::Signed;
use zeroize::Zeroizing;

use super::fetching::fetch_all;
use super::seal::{self, Announced};
use super::shelf::For;
use super::{Actor, Inbound};
use crate::clock;
use crate::scheduler::batch::Batch;
use crate::scheduler::conversation::NoAnswer;
use crate::scheduler::link::{self, About, Question};
use crate::scheduler::record::RequesterRecord;
use crate::scheduler::requester::{self, SealedKeep};
use crate::store::{Blobs, Record};

impl Actor {
    pub(super) fn seal_kept(&mut self, node: NodeId, job: JobId) {
        let answer = move |sealed| Inbound::Requester(requester::Input::KeptSealed { job, sealed });
        let parts = self.recipient(node).and_then(|to| {
            let to = to.ok_or("it is this machine")?;
            let studio = self.member(&node).map(|member| member.studio).ok_or("it is no member any more")?;
            let known = self.requester.jobs().job(&job).ok_or("the job is not known any more")?;
            let submission = (*known.submission).clone();
            Ok((
                to,
                studio,
                Batch { submission, stages: known.stages.to_vec(), on_suspect: known.on_suspect },
            ))
        });
        let (to, studio, batch) = match parts {
            Ok(parts) => parts,
            Err(why) => return self.inside.push_back(answer(Err(why))),
        };
        let (pool, me, now_ms) = (self.pool(), self.id, clock::wall_ms());
        let (key, blobs) = (self.me.node.clone(), self.ports.store.blobs.clone());
        let right = GrantRight {
            pool: pool.pool,
            studio,
            origin: me,
            deputy: node,
            job,
            issued_ms: now_ms,
            not_after_ms: now_ms + RIGHT_LIFETIME_MS,
        };
        self.errand("seal a job for its deputy", async move {
            let seal = async {
                let mut roots: Vec<BlobRef> = Vec::new();
                for recipe in &batch.submission.recipes {
                    for blob in seal::blob_refs(recipe, &blobs).await? {
                        if !roots.contains(&blob) {
                            roots.push(blob);
                        }
                    }
                }
                let sealed = seal::seal_bytes(&blobs, &Zeroizing::new(codec::encode_body(&batch))).await?;
                roots.push(BlobRef { root: sealed.root, sealed_bytes: sealed.sealed_bytes });
                let payload = KeptJob { job, root: sealed.root, key: sealed.key, bytes: sealed.bytes };
                let terms = Terms {
                    pool: pool.pool,
                    epoch: pool.epoch,
                    task: shelf_of(job),
                    attempt: 0,
                    msg_id: MsgId::random(),
                    created_ms: now_ms,
                    expires_ms: now_ms + MAX_LIFETIME_MS,
                };
                let envelope =
                    Envelope::seal(&payload, &key, &to, &terms).map_err(|error| error.to_string())?;
                let envelope = envelope.as_bytes().to_vec();
                let keep = Keep { right: Signed::new(&right, &key), envelope, roots };
                Ok(SealedKeep { keep, root: sealed.root })
            };
            Some(answer(seal.await))
        });
    }

    pub(super) fn give_to_deputy(&mut self, node: NodeId, job: JobId, keep: Keep) {
        let roots = keep.roots.iter().map(|blob| blob.root).collect();
        self.shelf.serve(For::Kept(shelf_of(job), 0), node, roots);
        self.ask(Question { to: node, request: Request::from(keep), about: About::Keep { job } });
    }

    pub(super) fn bring_kept(&mut self, node: NodeId, job: JobId, keep: Keep) {
        let answer = move |brought| Inbound::Requester(requester::Input::KeptBrought { job, brought });
        let kept = match self.open_kept(node, job, &keep) {
            Ok(kept) => kept,
            Err(why) => return self.inside.push_back(answer(Err(why))),
        };
        let (network, broom) = (self.ports.network.clone(), self.broom.clone());
        let blobs = self.ports.store.blobs.clone();
        broom.pardon(keep.roots.iter().map(|blob| blob.root));
        self.errand("fetch a job to be kept", async move {
            // What is here and being removed must be gone before it is asked for.
            drop(broom.sweeping().await);
            let bring = async {
                let named: Vec<ContentHash> = keep.roots.iter().map(|blob| blob.root).collect();
                let fetched = fetch_all(&network, node, shelf_of(job), 0, keep.roots).await;
                fetched.map_err(|error| error.to_string())?;
                let batch = open_batch(&kept, &blobs).await?;
                let mut inputs = batch.submission.recipes.iter().flat_map(|recipe| &recipe.inputs);
                if inputs.any(|input| !named.contains(&input.root)) {
                    return Err("an input of it was not given".to_owned());
                }
                // What was here already may have been let go meanwhile.
                if named.iter().any(|root| !blobs.holds(*root)) {
                    return Err("an input of it is gone again".to_owned());
                }
                Ok(Box::new(batch))
            };
            Some(answer(bring.await))
        });
    }

    /// Where the job is that a node of this studio wants held here.
    fn open_kept(&self, node: NodeId, job: JobId, keep: &Keep) -> Result<KeptJob, String> {
        let roster = self.picture.roster.as_ref().ok_or("it is in no pool")?;
        let now_ms = clock::wall_ms();
        let desk = Desk {
            pool: roster.pool(),
            me: self.id,
            epoch: roster.settings().epoch,
            standing: &|from| match self.picture.member(from, now_ms) {
                Some(member) if member.roles.submit => Standing::Admitted,
                Some(_) => Standing::LacksRole,
                None => Standing::Unknown,
            },
            // Whoever gives the same job again changes nothing.
            seen: &|_, _| false,
            purged_ms: 0,
        };
        let envelope = Envelope::from_bytes(keep.envelope.clone());
        let unopened = envelope.read::<KeptJob>().map_err(|error| error.to_string())?;
        let judged = unopened.judge(now_ms, &desk).map_err(|error| error.to_string())?;
        let opened = judged.open(&self.me.kem).map_err(|error| error.to_string())?;
        if opened.header.from != node || opened.payload.job != job {
            return Err("its envelope is of somebody else, or of another job".into());
        }
        Ok(opened.payload)
    }

    /// Tells a node of a result that it is to have, and lets it fetch it.
    pub(super) fn deliver(&mut self, node: NodeId, task: TaskId, attempt: u32) {
        let about = About::Delivery { node, task, attempt };
        let jobs = self.requester.jobs();
        let parts = self.recipient(node).and_then(|to| {
            let to = to.ok_or("it is this machine")?;
            let known = jobs.attempt(&task, attempt).ok_or("the attempt is not known any more")?;
            let result = jobs.task(&task).and_then(|task| task.result.as_ref()).ok_or("it has no result")?;
            let (grant, outputs, exec_ms) = (known.grant_hash, result.outputs.clone(), result.exec_ms);
            let (pool, now_ms) = (self.pool(), clock::wall_ms());
            Ok(Announced { pool, task, attempt, grant, to, outputs, exec_ms, now_ms })
        });
        let parts = match parts {
            Ok(parts) => parts,
            Err(why) => {
                self.inside.extend(link::understand(about, Err(NoAnswer(why))));
                return;
            }
        };
        let roots = parts.outputs.iter().map(|output| output.root).collect();
        self.shelf.serve(For::Kept(task, attempt), node, roots);
        let (key, blobs) = (self.me.node.clone(), self.ports.store.blobs.clone());
        let network = self.ports.network.clone();
        self.errand("bring a result", async move {
            let answer = match seal::announce(parts, &key, &blobs).await {
                Ok(finished) => {
                    let answer = network.request(node, Request::from(finished)).await;
                    answer.map_err(|error| NoAnswer(error.to_string()))
                }
                Err(why) => {
                    tracing::warn!(task = %task.short(), why, "a result cannot be brought to its job's other machine");
                    let input = requester::Input::Undeliverable { node, task, attempt };
                    return Some(Inbound::Requester(input));
                }
            };
            link::understand(about, answer)
        });
    }
}

/// Longest encoding of a kept job: with the right it is one record.
const BATCH_LIMIT: usize = RequesterRecord::LIMIT - 2 * GrantRight::LIMIT;

async fn open_batch(kept: &KeptJob, blobs: &Blobs) -> Result<Batch, String> {
    let plain = seal::open_bytes(blobs, kept.root, &kept.key, BATCH_LIMIT).await?;
    let batch: Batch =
        codec::decode_body(&plain, BATCH_LIMIT).map_err(|error| format!("the job does not read: {error}"))?;
    batch.check().map(|()| batch)
}
