//! The renderer's side of a task, step by step.

use anyhow::{Context, Result, ensure};

use super::blobs::Blob;
use super::bytes::{Id, Reader, Writer, kind};
use super::envelope::{self, Header};
use super::keys::{hash, random};
use super::manners::Stall;
use super::member::Member;
use super::requester::Grant;
use super::task::{
    ACCEPTED_DOMAIN, Finished, FinishedTerms, GRANT_DOMAIN, GrantTerms, Offer, OfferReply, Outcome,
    OutputFile, TaskSpec, Verdict, progress, result_keys,
};

/// A grant that this node holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub from: [u8; 32],
    pub grant: Grant,
    pub terms: GrantTerms,
    pub spec: TaskSpec,
}

impl Member {
    /// Offers a slot with these classes to a node.
    ///
    /// # Errors
    /// When the advert is declined.
    pub async fn open_stall(&self, node: &[u8; 32], classes: &[&str]) -> Result<()> {
        let mut classes: Vec<_> = classes.iter().map(ToString::to_string).collect();
        classes.sort();
        let stall = Stall { slots: 1, classes, models: Vec::new() };
        self.manners.shelf.send_modify(|shelf| shelf.stall = stall);
        self.advertise(node, 1, &[]).await
    }

    /// Waits for an offer and answers it with a fresh claim.
    ///
    /// # Errors
    /// When none comes.
    pub async fn claims_an_offer(&mut self) -> Result<(Offer, Id)> {
        let asked = self.asked(kind::OFFER).await?;
        let offer = Offer::read(&mut Reader::new(&asked.frame.body))?;
        let claim = random();
        asked.answer(kind::OFFER_IS, &OfferReply::Claim(claim).encode());
        Ok((offer, claim))
    }

    /// Waits for a grant, opens it, and accepts it.
    ///
    /// # Errors
    /// When none comes, or it does not verify.
    pub async fn takes_a_grant(&mut self) -> Result<Held> {
        let asked = self.asked(kind::GRANT).await?;
        let grant = Grant::read(&mut Reader::new(&asked.frame.body))?;
        grant.terms.verify(GRANT_DOMAIN)?;
        let terms = GrantTerms::read(&grant.terms.body)?;
        ensure!(terms.from == asked.from && terms.to == self.me.key.public(), "a grant of others");
        ensure!(terms.envelope == hash(&grant.envelope), "another envelope than was signed");
        let (_, payload) = envelope::open(&grant.envelope, &self.kem)?;
        let mut reader = Reader::new(&payload);
        ensure!(reader.u32()? == 0, "a payload in a blob");
        let spec = TaskSpec::read(&mut reader)?;
        ensure!(reader.rest().is_empty(), "bytes after the task");
        let accepted =
            Writer::new().raw(&grant.terms.hash()).raw(&terms.task).u32(terms.attempt).u8(0).done();
        let signed = self.me.key.signed(ACCEPTED_DOMAIN, &accepted);
        let from = asked.from;
        asked.answer(kind::GRANT_IS, &signed.write(Writer::new().u32(0)).done());
        Ok(Held { from, grant, terms, spec })
    }

    /// Reports progress and gives the verdict.
    ///
    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn reports(&self, to: &[u8; 32], task: &Id, attempt: u32, seq: u64) -> Result<Verdict> {
        let answer = self.ask(to, kind::PROGRESS, &progress(task, attempt, seq, 2)).await?;
        Verdict::read(&mut answer.expect(kind::VERDICT)?)
    }

    /// An honest result of one picture.
    ///
    /// # Errors
    /// When the roster does not name the requester.
    pub fn result_of(&self, held: &Held, blob: &Blob) -> Result<Finished> {
        let outputs = [output(blob)];
        let keys = self.keys_for(held, &outputs)?;
        Ok(Finished::new(&self.finished_terms(held, blob, &keys), keys, &self.me.key))
    }

    /// The sealed keys of a result.
    ///
    /// # Errors
    /// When the roster does not name the requester.
    pub fn keys_for(&self, held: &Held, outputs: &[OutputFile]) -> Result<Vec<u8>> {
        let (task, attempt) = (held.terms.task, held.terms.attempt);
        let payload = result_keys(&task, attempt, &held.grant.terms.hash(), outputs);
        let me = self.me.key.public();
        let kind = kind::RESULT_KEYS;
        let header = Header::new(kind, self.me.pool, self.epoch()?, me, held.from, task, attempt);
        envelope::seal(header, &payload, &self.me.key, &self.kem_of(&held.from)?)
    }

    pub fn finished_terms(&self, held: &Held, blob: &Blob, keys: &[u8]) -> FinishedTerms {
        FinishedTerms {
            pool: self.me.pool,
            task: held.terms.task,
            attempt: held.terms.attempt,
            grant: held.grant.terms.hash(),
            outcome: Outcome::Done { roots: vec![(blob.root, blob.sealed_bytes())], keys: hash(keys) },
            exec_ms: 5,
        }
    }

    /// Announces a result; whether it was noted.
    ///
    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn announces(&self, to: &[u8; 32], finished: &Finished) -> Result<bool> {
        let answer = self.ask(to, kind::FINISHED, &finished.encode()).await?;
        Ok(answer.expect(kind::FINISHED_IS)?.u32()? == 0)
    }

    /// Puts a blob where it is served from, under a root that need not be its own.
    pub fn shelve(&self, root: [u8; 32], blob: &Blob) {
        self.manners.shelf.send_modify(|shelf| {
            shelf.blobs.insert(root, blob.clone());
        });
    }

    /// Waits for the Ack of an attempt; whether the result was stored.
    ///
    /// # Errors
    /// When none comes.
    pub async fn acked(&mut self) -> Result<bool> {
        let asked = self.asked(kind::ACK).await?;
        let kind_at = asked.frame.body.len().checked_sub(4).context("an Ack without a kind")?;
        let stored = asked.frame.body[kind_at..] == [0; 4];
        asked.answer(kind::DONE, &[]);
        Ok(stored)
    }
}

/// How a picture is named in the result.
pub fn output(blob: &Blob) -> OutputFile {
    OutputFile {
        node: "3".into(),
        kind: 0,
        filename: "picture_00001_.png".into(),
        root: blob.root,
        key: blob.key,
        bytes: blob.bytes,
    }
}
