//! The requester's side of a task, step by step.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::blobs::{self, Blob, Head, Want};
use super::bytes::{Frame, Hash, Id, Reader, Writer, frame, kind, read_frame, send};
use super::envelope::{self, Header};
use super::keys::{Signed, random};
use super::link::blob_of;
use super::member::Member;
use super::task::{
    ACCEPTED_DOMAIN, FINISHED_DOMAIN, Finished, FinishedTerms, GRANT_DOMAIN, GrantReply, GrantTerms,
    InputFile, Offer, OfferReply, Outcome, OutputFile, Reach, TaskSpec, about, read_result_keys,
};

/// A task of this node, before anybody has it.
#[derive(Clone, Debug)]
pub struct Order {
    pub offer: Offer,
    pub spec: TaskSpec,
    pub roots: Vec<(Hash, u64)>,
    pub lease_ms: u32,
}

impl Order {
    /// One attempt of a graph with these inputs.
    ///
    /// # Errors
    /// When it is no graph in API format.
    pub fn new(graph: &Value, inputs: &[(&str, &Blob)]) -> Result<Self> {
        let nodes = graph.as_object().context("a graph is an object")?.values();
        let mut classes: Vec<_> =
            nodes.filter_map(|node| node["class_type"].as_str().map(str::to_owned)).collect();
        classes.sort();
        classes.dedup();
        Ok(Self::raw(serde_json::to_vec(graph)?, classes, inputs))
    }

    /// The same of bytes that need not be a graph.
    pub fn raw(graph: Vec<u8>, classes: Vec<String>, inputs: &[(&str, &Blob)]) -> Self {
        let files = inputs.iter().map(|(name, blob)| InputFile {
            name: (*name).to_owned(),
            root: blob.root,
            key: blob.key,
            bytes: blob.bytes,
        });
        Self {
            offer: Offer {
                reservation: random(),
                job: random(),
                classes,
                models: Vec::new(),
                vram_mib: None,
                input_bytes: inputs.iter().map(|(_, blob)| blob.bytes).sum(),
                full_hygiene: false,
                class: 1,
                ready: 1,
                right: None,
            },
            spec: TaskSpec {
                task: random(),
                attempt: 1,
                graph,
                extra_data: Vec::new(),
                inputs: files.collect(),
                previews: false,
                full_hygiene: false,
                time_limit_ms: 60_000,
                reach: Reach::Pool,
                project: None,
            },
            roots: inputs.iter().map(|(_, blob)| (blob.root, blob.sealed_bytes())).collect(),
            lease_ms: 15_000,
        }
    }

    /// GrantPayload::Inline.
    pub fn payload(&self) -> Vec<u8> {
        Writer::new().u32(0).raw(&self.spec.encode()).done()
    }
}

/// A grant ready to be sent, or sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub terms: Signed,
    pub envelope: Vec<u8>,
}

impl Grant {
    pub fn encode(&self) -> Vec<u8> {
        self.terms.write(Writer::new()).bytes(&self.envelope).done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { terms: Signed::read(reader)?, envelope: reader.bytes()? })
    }
}

impl Member {
    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn offer(&self, node: &[u8; 32], offer: &Offer) -> Result<OfferReply> {
        OfferReply::read(&mut self.ask(node, kind::OFFER, &offer.encode()).await?.expect(kind::OFFER_IS)?)
    }

    /// Offers and waits for the claim, in the answer or later.
    ///
    /// # Errors
    /// When the offer is refused.
    pub async fn claim_of(&mut self, node: &[u8; 32], offer: &Offer) -> Result<Id> {
        match self.offer(node, offer).await? {
            OfferReply::Claim(claim) => return Ok(claim),
            OfferReply::Refused(refusal) => bail!("refused: {refusal:?}"),
            OfferReply::Waiting { .. } => {}
        }
        loop {
            let asked = self.asked(kind::CLAIM).await?;
            let mut reader = Reader::new(&asked.frame.body);
            let (reservation, claim): (Id, Id) = (reader.raw()?, reader.raw()?);
            // An offer of before may still stand there: its claim comes too late.
            let wanted = reservation == offer.reservation;
            asked.answer(kind::CLAIM_IS, &Writer::new().u32(u32::from(!wanted)).done());
            if wanted {
                return Ok(claim);
            }
        }
    }

    /// Takes an offer back.
    ///
    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn withdraw(&self, node: &[u8; 32], offer: &Offer) -> Result<()> {
        self.offer(node, &Offer { ready: 0, ..offer.clone() }).await.map(drop)
    }

    /// The header that an honest grant of this order has.
    ///
    /// # Errors
    /// When this node holds no settings.
    pub fn header_for(&self, node: &[u8; 32], order: &Order) -> Result<Header> {
        let spec = &order.spec;
        let me = self.me.key.public();
        let kind = kind::GRANT_PAYLOAD;
        Ok(Header::new(kind, self.me.pool, self.epoch()?, me, *node, spec.task, spec.attempt))
    }

    /// The terms around an envelope.
    ///
    /// # Errors
    /// When the envelope has no header.
    pub fn terms_for(&self, claim: Id, order: &Order, envelope: &[u8]) -> Result<GrantTerms> {
        let header = Header::read(envelope)?;
        Ok(GrantTerms {
            pool: self.me.pool,
            claim,
            task: header.task,
            attempt: header.attempt,
            from: self.me.key.public(),
            to: header.to,
            msg_id: header.msg_id,
            envelope: super::keys::hash(envelope),
            roots: order.roots.clone(),
            lease_ms: order.lease_ms,
            class: order.offer.class,
        })
    }

    /// An honest grant.
    ///
    /// # Errors
    /// When the roster does not name the node.
    pub fn grant_for(&self, node: &[u8; 32], claim: Id, order: &Order) -> Result<Grant> {
        let header = self.header_for(node, order)?;
        let envelope = envelope::seal(header, &order.payload(), &self.me.key, &self.kem_of(node)?)?;
        self.grant_around(claim, order, envelope)
    }

    /// A grant around any envelope.
    ///
    /// # Errors
    /// When the envelope has no header.
    pub fn grant_around(&self, claim: Id, order: &Order, envelope: Vec<u8>) -> Result<Grant> {
        let terms = self.terms_for(claim, order, &envelope)?;
        Ok(Grant { terms: self.me.key.signed(GRANT_DOMAIN, &terms.encode()), envelope })
    }

    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn grant(&self, node: &[u8; 32], grant: &Grant) -> Result<GrantReply> {
        GrantReply::read(&mut self.ask(node, kind::GRANT, &grant.encode()).await?.expect(kind::GRANT_IS)?)
    }

    /// Grants and checks what the renderer signs for it.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn accepted(&self, node: &[u8; 32], grant: &Grant) -> Result<()> {
        let signed = match self.grant(node, grant).await? {
            GrantReply::Accepted(signed) => signed,
            GrantReply::Rejected { refusal, failure } => bail!("rejected: {refusal:?}, {failure:?}"),
        };
        signed.verify(ACCEPTED_DOMAIN)?;
        ensure!(signed.signer == *node, "signed by another node");
        let mut reader = Reader::new(&signed.body);
        ensure!(reader.raw::<32>()? == grant.terms.hash(), "for another grant");
        Ok(())
    }

    /// Waits for the Finished of an attempt, checks every signature in it, and says Noted.
    ///
    /// # Errors
    /// When it does not come or does not verify.
    pub async fn finished(&mut self, grant: &Grant) -> Result<(FinishedTerms, Vec<OutputFile>)> {
        let asked = self.asked(kind::FINISHED).await?;
        let finished = Finished::read(&mut Reader::new(&asked.frame.body))?;
        finished.terms.verify(FINISHED_DOMAIN)?;
        ensure!(finished.terms.signer == asked.from, "signed by another node");
        let terms = FinishedTerms::read(&finished.terms.body)?;
        ensure!(terms.grant == grant.terms.hash(), "of another grant");
        let mut outputs = Vec::new();
        if let Outcome::Done { roots, keys } = &terms.outcome {
            ensure!(*keys == super::keys::hash(&finished.keys), "other keys than were signed");
            let (_, payload) = envelope::open(&finished.keys, &self.kem)?;
            let (task, attempt, of, files) = read_result_keys(&payload)?;
            ensure!(
                (task, attempt, of) == (terms.task, terms.attempt, terms.grant),
                "keys of another attempt"
            );
            let named: Vec<_> = files.iter().map(|file| file.root).collect();
            ensure!(
                named == roots.iter().map(|(root, _)| *root).collect::<Vec<_>>(),
                "other roots than signed"
            );
            outputs = files;
        }
        asked.answer(kind::FINISHED_IS, &Writer::new().u32(0).done());
        Ok((terms, outputs))
    }

    /// Fetches and opens one file of a result.
    ///
    /// # Errors
    /// When it is not served or does not verify.
    pub async fn fetch(&self, node: &[u8; 32], terms: &FinishedTerms, file: &OutputFile) -> Result<Vec<u8>> {
        let mut stream = self.link.control().open(node, &blob_of(&self.me.pool)).await?;
        let get = |want| frame(kind::BLOB_GET, &blobs::get(&terms.task, terms.attempt, &file.root, &want));
        send(&mut stream, &get(Want::Manifest)).await?;
        let head = Head::read(&mut read_frame(&mut stream).await?.expect(kind::BLOB_HEAD)?)?;
        ensure!(matches!(head, Head::Sending(_)), "the manifest is not served: {head:?}");
        let manifest: Frame = read_frame(&mut stream).await?;
        ensure!(manifest.kind == kind::MANIFEST, "no manifest");
        let pieces = blobs::lengths(&manifest.body, &file.root)?;
        send(&mut stream, &get(Want::Segments(vec![(0, pieces.len() as u32)]))).await?;
        let head = Head::read(&mut read_frame(&mut stream).await?.expect(kind::BLOB_HEAD)?)?;
        let Head::Sending(bytes) = head else { bail!("the pieces are not served: {head:?}") };
        let mut sealed = vec![0; usize::try_from(bytes)?];
        futures::AsyncReadExt::read_exact(&mut stream, &mut sealed).await?;
        blobs::open(&sealed, &pieces, &file.key)
    }

    /// What a BlobGet of its own substream is answered with.
    ///
    /// # Errors
    /// When nothing comes back.
    pub async fn get(
        &self,
        node: &[u8; 32],
        task: &Id,
        attempt: u32,
        root: &Hash,
        want: &Want,
    ) -> Result<Head> {
        let bytes = frame(kind::BLOB_GET, &blobs::get(task, attempt, root, want));
        let answer = self.link.exchange(node, &blob_of(&self.me.pool), &bytes).await?;
        Head::read(&mut answer.expect(kind::BLOB_HEAD)?)
    }

    /// # Errors
    /// When it is not answered with Done.
    pub async fn ack(&self, node: &[u8; 32], task: &Id, attempt: u32, stored: bool) -> Result<()> {
        let body = [about(task, attempt), u32::from(!stored).to_le_bytes().to_vec()].concat();
        self.ask(node, kind::ACK, &body).await?.expect(kind::DONE)?.end()
    }

    /// The whole honest way of one order, from offer to ack; gives the plain files.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn render_at(&mut self, node: &[u8; 32], order: &Order) -> Result<Vec<Vec<u8>>> {
        let claim = self.claim_of(node, &order.offer).await?;
        let grant = self.grant_for(node, claim, order)?;
        self.accepted(node, &grant).await?;
        let (terms, outputs) = self.finished(&grant).await?;
        ensure!(matches!(terms.outcome, Outcome::Done { .. }), "it failed: {:?}", terms.outcome);
        let mut files = Vec::new();
        for output in &outputs {
            files.push(self.fetch(node, &terms, output).await?);
        }
        self.ack(node, &terms.task, terms.attempt, true).await?;
        Ok(files)
    }
}
