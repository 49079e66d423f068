//! What this node answers by itself, so that a test only says what matters to it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use libp2p::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::blobs::{Blob, Head, Want, read_get};
use super::bytes::{Frame, Hash, Id, Reader, Writer, frame, kind, read_frame, send};
use super::keys::{Key, now_ms};
use super::link::{Control, blob_of, node_of};
use super::questions::Question;
use super::records::{Diff, Digest, Roster};

/// Questions that wait for a test; it reads them or they are lost.
const WAITING: usize = 1024;

/// Something that a peer asked and that is answered by a test.
#[derive(Debug)]
pub struct Asked {
    pub from: [u8; 32],
    pub frame: Frame,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Asked {
    /// Answers with a frame.
    pub fn answer(self, kind: u16, body: &[u8]) {
        drop(self.answer.send(frame(kind, body)));
    }
}

/// What a Hello said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub pool: Id,
    pub boot: Id,
    pub versions: (u8, u8),
    pub digest: Digest,
    pub now_ms: u64,
}

impl Hello {
    pub fn new(pool: Id, boot: Id, digest: Digest) -> Self {
        Self { pool, boot, versions: (1, 1), digest, now_ms: now_ms() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new().raw(&self.pool).raw(&self.boot).u8(self.versions.0).u8(self.versions.1);
        self.digest.write(writer.bytes("second node")).u64(0).u64(self.now_ms).done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let (pool, boot, versions) = (reader.raw()?, reader.raw()?, (reader.u8()?, reader.u8()?));
        reader.text()?;
        let digest = Digest::read(reader)?;
        reader.list(|reader| Ok((reader.raw::<32>()?, reader.u64()?, reader.raw::<32>()?)))?;
        Ok(Self { pool, boot, versions, digest, now_ms: reader.u64()? })
    }
}

/// What this node offers as a renderer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    pub slots: u16,
    pub classes: Vec<String>,
    pub models: Vec<(String, String)>,
}

impl Stall {
    fn inventory(&self) -> Vec<u8> {
        let writer = Writer::new().list(&self.classes, |writer, class| writer.bytes(class));
        writer.list(&self.models, |writer, (folder, name)| writer.bytes(folder).bytes(name)).done()
    }
}

/// What is served and what is offered; a test changes it while the node runs.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    pub blobs: BTreeMap<Hash, Blob>,
    /// Takes the streams of blobs and never says a word.
    pub mute: bool,
    /// Never answers a Hello.
    pub aloof: bool,
    pub stall: Stall,
}

/// Who this node is, as far as its manners go.
#[derive(Clone, Debug)]
pub struct Self_ {
    pub pool: Id,
    pub key: Key,
    pub boot: Id,
}

/// Everything the manners share with the one who drives the node.
#[derive(Debug)]
pub struct Manners {
    pub roster: watch::Sender<Roster>,
    pub shelf: watch::Sender<Shelf>,
    /// The newest Hello of each peer.
    pub heard: watch::Receiver<BTreeMap<[u8; 32], Hello>>,
    /// How often a Progress was answered with Continue.
    pub progressed: watch::Receiver<u64>,
    /// Offer, Claim, Grant, Finished, Ack, Cancel and Probe.
    pub asked: mpsc::Receiver<Asked>,
    _answering: JoinSet<()>,
}

#[derive(Clone)]
struct Desk {
    me: Self_,
    roster: watch::Sender<Roster>,
    shelf: watch::Sender<Shelf>,
    heard: watch::Sender<BTreeMap<[u8; 32], Hello>>,
    progressed: watch::Sender<u64>,
    up: mpsc::Sender<Asked>,
}

impl Manners {
    /// Begins to answer on a link.
    ///
    /// # Errors
    /// When somebody answers there already.
    pub fn begin(
        me: Self_,
        roster: Roster,
        mut control: Control,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<Self> {
        let (roster, _) = watch::channel(roster);
        let (shelf, _) = watch::channel(Shelf::default());
        let (heard, hellos) = watch::channel(BTreeMap::new());
        let (progressed, progress) = watch::channel(0);
        let (up, asked) = mpsc::channel(WAITING);
        let desk = Desk { me, roster: roster.clone(), shelf: shelf.clone(), heard, progressed, up };
        let mut answering = JoinSet::new();
        let mut blobs = control.accept(&blob_of(&desk.me.pool))?;
        answering.spawn(async move {
            let mut busy = JoinSet::new();
            loop {
                tokio::select! {
                    Some(question) = questions.recv() => {
                        let desk = desk.clone();
                        busy.spawn(async move { drop(desk.answer(question).await) });
                    }
                    Some((_, stream)) = blobs.next() => {
                        let shelf = desk.shelf.subscribe();
                        busy.spawn(async move { drop(serve(shelf, stream).await) });
                    }
                    Some(_) = busy.join_next() => {}
                    else => return,
                }
            }
        });
        Ok(Self { roster, shelf, heard: hellos, progressed: progress, asked, _answering: answering })
    }
}

impl Desk {
    async fn answer(&self, question: Question) -> Result<()> {
        let Question { from, frame: asked, answer: reply } = question;
        if asked.kind == kind::HELLO && self.shelf.borrow().aloof {
            return std::future::pending().await;
        }
        let from = node_of(&from).unwrap_or_default();
        let answer = match self.by_itself(from, &asked)? {
            Some(answer) => answer,
            None => {
                let (answer, later) = oneshot::channel();
                self.up.try_send(Asked { from, frame: asked, answer }).ok().context("nobody listens")?;
                later.await?
            }
        };
        drop(reply.send(answer));
        Ok(())
    }

    fn by_itself(&self, from: [u8; 32], asked: &Frame) -> Result<Option<Vec<u8>>> {
        let mut reader = Reader::new(&asked.body);
        let done = || frame(kind::DONE, &[]);
        Ok(Some(match asked.kind {
            kind::HELLO => {
                let hello = Hello::read(&mut reader)?;
                self.heard.send_modify(|heard| {
                    heard.insert(from, hello);
                });
                let digest = self.roster.borrow().digest();
                frame(kind::HELLO_IS, &Hello::new(self.me.pool, self.me.boot, digest).encode())
            }
            kind::ADVERTS | kind::GOODBYE => done(),
            kind::ADVERT_SYNC => frame(kind::ADVERTS_ARE, &Writer::new().u64(0).done()),
            kind::INVENTORY => frame(kind::INVENTORY_IS, &self.shelf.borrow().stall.inventory()),
            kind::ROSTER_SYNC => {
                let digest = Digest::read(&mut reader)?;
                let records = reader.list(Reader::raw)?;
                let lacking = self.roster.borrow().lacking(&digest, &records);
                frame(kind::ROSTER_IS, &lacking.encode())
            }
            kind::ROSTER => {
                let diff = Diff::read(&mut reader)?;
                self.roster.send_modify(|roster| roster.absorb(diff));
                done()
            }
            // Nothing of a studio's own is known here.
            kind::STUDIO_SYNC => frame(kind::STUDIO_IS, &Writer::new().u64(0).u64(0).done()),
            kind::STUDIO => done(),
            kind::PROGRESS => {
                self.progressed.send_modify(|count| *count += 1);
                frame(kind::VERDICT, &Writer::new().u32(0).done())
            }
            _ => return Ok(None),
        }))
    }
}

/// The body of an Advert of this node.
pub fn advert(me: &Self_, seq: u64, stall: &Stall, external: &[String]) -> Vec<u8> {
    let root = super::keys::hash(&stall.inventory());
    Writer::new()
        .raw(&me.pool)
        .raw(&me.key.public())
        .raw(&me.boot)
        .u64(seq)
        .u64(now_ms())
        .u16(90)
        .u32(0)
        .u32(0)
        .u16(stall.slots)
        .u16(stall.slots)
        .u16(0)
        .u64(0)
        .u64(0)
        .raw(&root)
        .list(external, |writer, address| writer.bytes(address))
        .u64(0)
        .bytes("0.3.60")
        .done()
}

async fn serve(shelf: watch::Receiver<Shelf>, mut stream: Stream) -> Result<()> {
    if shelf.borrow().mute {
        // Held open until the other side has had enough.
        read_frame(&mut stream).await?;
        read_frame(&mut stream).await?;
        bail!("they went on talking");
    }
    loop {
        let (root, want) = read_get(&read_frame(&mut stream).await?.body)?;
        let blob = shelf.borrow().blobs.get(&root).cloned();
        let Some(blob) = blob else {
            send(&mut stream, &Head::NotServed.encode()).await?;
            continue;
        };
        let bytes = match want {
            Want::Manifest => blob.manifest_frame(),
            Want::Segments(ranges) => {
                let indices = ranges.iter().flat_map(|(first, count)| *first..first.saturating_add(*count));
                let wanted =
                    indices.map(|index| blob.pieces.get(index as usize).cloned().unwrap_or_default());
                wanted.collect::<Vec<_>>().concat()
            }
        };
        send(&mut stream, &Head::Sending(bytes.len() as u64).encode()).await?;
        send(&mut stream, &bytes).await?;
    }
}
