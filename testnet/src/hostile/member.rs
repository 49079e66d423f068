//! A member of a pool: joined through the porch with a real invite, linked, greeted.

use anyhow::{Context, Result, bail, ensure};
use tokio::time::timeout;

use super::bytes::{Frame, Id, frame, kind};
use super::invite::{Invite, JoinReply, Joining};
use super::keys::{Kem, Key, now_ms, random};
use super::link::{Link, PATIENCE, control_of};
use super::manners::{Asked, Hello, Manners, Self_, advert};
use super::porch::Porch;
use super::records::{Diff, MemberRecord, Roster, consent, sync};

/// A node of the pool that is this program.
#[derive(Debug)]
pub struct Member {
    pub me: Self_,
    pub kem: Kem,
    /// The admin key of its studio, when the invite founded one.
    pub admin: Option<Key>,
    pub studio: Id,
    pub name: String,
    pub link: Link,
    pub manners: Manners,
    /// Where the inviter's porch is.
    pub porch: Porch,
    /// Where the inviter's main swarm is, best first.
    pub inviter_at: Vec<String>,
}

/// What becomes of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// A machine of the inviter's studio.
    Machine,
    /// The first node and admin of a studio of its own.
    Studio,
}

/// Somebody who holds a code and has keys of its own.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub joining: Joining,
    pub kem: Kem,
    pub admin: Option<Key>,
    pub studio: Id,
    pub porch: Porch,
}

impl Applicant {
    /// # Errors
    /// When the code is none.
    pub fn new(code: &str, name: &str, role: As) -> Result<Self> {
        let invite = Invite::read(code)?;
        let (node, kem) = (Key::random(), Kem::random());
        let mut joining = Joining::new(&invite, &node, kem.public(), name);
        let admin = match role {
            As::Machine => {
                joining.consent = Some(consent(&node, &invite.pool, &invite.studio, &kem.public()));
                None
            }
            As::Studio => Some(Key::random()),
        };
        joining.admin = admin.as_ref().map(Key::public);
        let address = invite.addresses.first().context("a code without an address")?.clone();
        let porch = Porch { node: invite.inviter, address };
        Ok(Self { joining, kem, admin, studio: invite.studio, porch })
    }

    /// Asks at the porch.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self) -> Result<JoinReply> {
        self.porch.join(&self.joining).await
    }

    /// Asks and becomes a member.
    ///
    /// # Errors
    /// When it is not admitted.
    pub async fn join(self) -> Result<Member> {
        let (settings, records, inviter_at) = match self.ask().await? {
            JoinReply::Admitted { settings, records, addresses } => (settings, records, addresses),
            other => bail!("not admitted: {other:?}"),
        };
        let Self { joining, kem, admin, mut studio, porch } = self;
        let (pool, node) = (joining.pool, joining.node);
        let mut roster = Roster { chain: settings, records };
        roster.check(&pool)?;
        if let Some(admin) = &admin {
            let settings = roster.head()?;
            let own = settings.studios.iter().find(|studio| studio.admins.contains(&admin.public()));
            studio = own.context("the settings do not name the new studio")?.id;
            let record = card(&pool, &studio, &node, &kem, &joining.name).signed(admin);
            porch.show(&node, std::slice::from_ref(&record)).await?;
            roster.records.push(record);
        }
        roster.member(&node.public())?;
        let me = Self_ { pool, key: node, boot: random() };
        let (link, questions) = Link::of_member(&me.key, &me.pool)?;
        let manners = Manners::begin(me.clone(), roster, link.control(), questions)?;
        Ok(Member { me, kem, admin, studio, name: joining.name, link, manners, porch, inviter_at })
    }
}

/// A member record of a node, with its consent.
pub fn card(pool: &Id, studio: &Id, node: &Key, kem: &Kem, name: &str) -> MemberRecord {
    MemberRecord {
        pool: *pool,
        studio: *studio,
        node: node.public(),
        kem: kem.public(),
        name: name.to_owned(),
        roles: [true; 3],
        version: 1,
        issued_ms: now_ms(),
        not_after_ms: None,
        consent: consent(node, pool, studio, &kem.public()),
    }
}

impl Member {
    /// Joins with a code under fresh keys.
    ///
    /// # Errors
    /// When it is not admitted.
    pub async fn join(code: &str, name: &str, role: As) -> Result<Self> {
        Applicant::new(code, name, role)?.join().await
    }

    /// Another process with this node's signing key, and nothing else of it.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn thief(&self) -> Result<Self> {
        let me = Self_ { boot: random(), ..self.me.clone() };
        let (link, questions) = Link::of_member(&me.key, &me.pool)?;
        let roster = self.manners.roster.borrow().clone();
        let manners = Manners::begin(me.clone(), roster, link.control(), questions)?;
        Ok(Self {
            me,
            kem: Kem::random(),
            admin: None,
            studio: self.studio,
            name: self.name.clone(),
            link,
            manners,
            porch: self.porch.clone(),
            inviter_at: self.inviter_at.clone(),
        })
    }

    /// The admin key of its studio.
    ///
    /// # Errors
    /// When it has none.
    pub fn admin(&self) -> Result<&Key> {
        self.admin.as_ref().context("not an admin")
    }

    /// The inviter.
    pub fn host(&self) -> [u8; 32] {
        self.porch.node
    }

    /// Links with the inviter and exchanges Hellos.
    ///
    /// # Errors
    /// When they do not get along.
    pub async fn enter(&mut self) -> Result<()> {
        let at = self.inviter_at.first().context("no address of the inviter")?.clone();
        self.meet(&self.host(), &at).await
    }

    /// Links with a node and exchanges Hellos, both ways.
    ///
    /// # Errors
    /// When they do not get along.
    pub async fn meet(&mut self, node: &[u8; 32], address: &str) -> Result<()> {
        self.link.dial(node, address).await?;
        self.greet(node).await?;
        let heard = self.manners.heard.wait_for(|heard| heard.contains_key(node));
        timeout(PATIENCE, heard).await.context("waiting for their Hello")??;
        Ok(())
    }

    /// Says Hello and gives theirs.
    ///
    /// # Errors
    /// When it is not answered with one.
    pub async fn greet(&self, node: &[u8; 32]) -> Result<Hello> {
        let digest = self.manners.roster.borrow().digest();
        let hello = Hello::new(self.me.pool, self.me.boot, digest);
        Hello::read(&mut self.ask(node, kind::HELLO, &hello.encode()).await?.expect(kind::HELLO_IS)?)
    }

    /// Asks one thing and gives the answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn ask(&self, node: &[u8; 32], kind: u16, body: &[u8]) -> Result<Frame> {
        self.say(node, &frame(kind, body)).await
    }

    /// Says any bytes on the control protocol and gives the answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn say(&self, node: &[u8; 32], bytes: &[u8]) -> Result<Frame> {
        self.link.exchange(node, &control_of(&self.me.pool), bytes).await
    }

    /// Fetches what the other's roster has more, and takes it in.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn catch_up(&self, node: &[u8; 32]) -> Result<Diff> {
        let body = {
            let roster = self.manners.roster.borrow();
            let records: Vec<_> = roster.records.iter().map(|record| record.signed.hash()).collect();
            sync(&roster.digest(), &records)
        };
        let diff = Diff::read(&mut self.ask(node, kind::ROSTER_SYNC, &body).await?.expect(kind::ROSTER_IS)?)?;
        self.manners.roster.send_modify(|roster| roster.absorb(diff.clone()));
        Ok(diff)
    }

    /// Pushes settings, records and proposals as news.
    ///
    /// # Errors
    /// When they are declined.
    pub async fn push(&self, node: &[u8; 32], diff: &Diff) -> Result<()> {
        self.ask(node, kind::ROSTER, &diff.encode()).await?.expect(kind::DONE)?.end()
    }

    /// Pushes an advert of what the shelf's stall offers.
    ///
    /// # Errors
    /// When it is declined.
    pub async fn advertise(&self, node: &[u8; 32], seq: u64, external: &[String]) -> Result<()> {
        let body = advert(&self.me, seq, &self.manners.shelf.borrow().stall, external);
        let signed = self.me.key.signed("scenemesh/v1/advert", &body);
        let batch = signed.write(super::bytes::Writer::new().u64(1)).done();
        self.ask(node, kind::ADVERTS, &batch).await?.expect(kind::DONE)?.end()
    }

    /// Waits for a question of this type; others are dropped, which the other side takes for a broken answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn asked(&mut self, kind: u16) -> Result<Asked> {
        let waiting = async {
            loop {
                let asked = self.manners.asked.recv().await.context("the node is gone")?;
                if asked.frame.kind == kind {
                    return Ok(asked);
                }
            }
        };
        timeout(PATIENCE, waiting).await.with_context(|| format!("waiting for a {kind:#06x}"))?
    }

    /// The epoch of the settings it holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn epoch(&self) -> Result<u64> {
        Ok(self.manners.roster.borrow().head()?.epoch)
    }

    /// The KEM key that the roster binds to a node.
    ///
    /// # Errors
    /// When no record names it.
    pub fn kem_of(&self, node: &[u8; 32]) -> Result<[u8; 32]> {
        Ok(self.manners.roster.borrow().member(node)?.kem)
    }

    /// Fails unless the two hold the same roster, by digest.
    ///
    /// # Errors
    /// When they do not.
    pub async fn agrees_with(&self, node: &[u8; 32]) -> Result<()> {
        let (theirs, mine) = (self.greet(node).await?.digest, self.manners.roster.borrow().digest());
        ensure!(theirs == mine, "their roster {theirs:?} is not ours {mine:?}");
        Ok(())
    }
}
