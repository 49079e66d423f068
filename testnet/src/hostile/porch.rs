//! The porch as a visitor sees it: a link of its own for each question.

use anyhow::Result;

use super::bytes::{Frame, frame, kind};
use super::invite::{JoinReply, Joining};
use super::keys::Key;
use super::link::{Link, PORCH};
use super::records::{Diff, Record};

/// Where a porch is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Porch {
    pub node: [u8; 32],
    pub address: String,
}

impl Porch {
    /// Sends bytes under `key` and reads one frame back.
    ///
    /// # Errors
    /// When none comes back.
    pub async fn ask_raw(&self, key: &Key, bytes: &[u8]) -> Result<Frame> {
        let link = Link::new(key)?;
        link.dial(&self.node, &self.address).await?;
        link.exchange(&self.node, PORCH, bytes).await
    }

    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn join(&self, joining: &Joining) -> Result<JoinReply> {
        let answer = self.ask_raw(&joining.node, &frame(kind::PORCH_JOIN, &joining.request())).await?;
        let mut reader = answer.expect(kind::PORCH_JOIN_IS)?;
        let reply = JoinReply::read(&mut reader)?;
        reader.end()?;
        Ok(reply)
    }

    /// Shows records, whoever signed them.
    ///
    /// # Errors
    /// When the porch declines.
    pub async fn show(&self, key: &Key, records: &[Record]) -> Result<Diff> {
        let bytes = frame(kind::PORCH_ROSTER, &Diff::records(records).encode());
        Diff::read(&mut self.ask_raw(key, &bytes).await?.expect(kind::PORCH_ROSTER_IS)?)
    }

    /// How the porch regards a key: 0 unknown, 1 member, 2 revoked.
    ///
    /// # Errors
    /// When there is no answer of the right kind.
    pub async fn standing(&self, key: &Key, of: &[u8; 32]) -> Result<u32> {
        let answer = self.ask_raw(key, &frame(kind::PORCH_STANDING, of)).await?;
        answer.expect(kind::PORCH_STANDING_IS)?.u32()
    }
}
