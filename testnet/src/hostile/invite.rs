//! Invite codes and joining, as the page's *Joining* has them.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};

use super::bytes::{Id, Reader, Writer};
use super::keys::{Key, hash, random};
use super::records::{Record, SignedSettings};

const PREFIX: &str = "smesh1";

/// What a code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    pub pool: Id,
    pub inviter: [u8; 32],
    pub studio: Id,
    pub secret: Id,
    /// The inviter's porch, as multiaddr text.
    pub addresses: Vec<String>,
}

impl Invite {
    /// # Errors
    /// When the code has a typing error.
    pub fn read(code: &str) -> Result<Self> {
        let plain =
            code.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| match c.to_ascii_lowercase() {
                '0' => 'o',
                '8' => 'b',
                c => c,
            });
        let plain: String = plain.collect();
        let text = plain.strip_prefix(PREFIX).context("no smesh1")?.replace('1', "l").to_ascii_uppercase();
        let all = data_encoding::BASE32_NOPAD.decode(text.as_bytes())?;
        let (data, checksum) = all.split_last_chunk::<4>().context("too short")?;
        ensure!(*checksum == sum(data), "a typing error");
        let mut reader = Reader::new(data);
        let (pool, inviter, studio, secret) = (reader.raw()?, reader.raw()?, reader.raw()?, reader.raw()?);
        let count = reader.u8()?;
        let addresses = (0..count).map(|_| address(&mut reader)).collect::<Result<_>>()?;
        reader.end()?;
        Ok(Self { pool, inviter, studio, secret, addresses })
    }

    /// The key that the secret gives.
    pub fn key(&self) -> Key {
        let material = [&self.pool[..], &self.inviter, &self.secret].concat();
        Key::from_seed(blake3::derive_key("scenemesh v1 invite key", &material))
    }
}

fn sum(data: &[u8]) -> [u8; 4] {
    let whole = hash(&[b"scenemesh/v1/text-code\0", PREFIX.as_bytes(), data].concat());
    [whole[0], whole[1], whole[2], whole[3]]
}

fn address(reader: &mut Reader<'_>) -> Result<String> {
    let port = |reader: &mut Reader<'_>| reader.raw().map(u16::from_be_bytes);
    let short = |reader: &mut Reader<'_>| -> Result<String> {
        let length = reader.u8()?;
        let bytes: Result<Vec<u8>> = (0..length).map(|_| reader.u8()).collect();
        Ok(String::from_utf8(bytes?)?)
    };
    Ok(match reader.u8()? {
        0 => short(reader)?,
        1 => format!("/ip4/{}/tcp/{}", Ipv4Addr::from(reader.raw::<4>()?), port(reader)?),
        2 => format!("/ip6/{}/tcp/{}", Ipv6Addr::from(reader.raw::<16>()?), port(reader)?),
        3 => format!("/dns/{}/tcp/{}", short(reader)?, port(reader)?),
        4 => format!("/dns4/{}/tcp/{}", short(reader)?, port(reader)?),
        5 => format!("/dns6/{}/tcp/{}", short(reader)?, port(reader)?),
        other => bail!("an address of kind {other}"),
    })
}

/// Everything a joiner says of itself.
#[derive(Clone, Debug)]
pub struct Joining {
    pub pool: Id,
    pub inviter: [u8; 32],
    pub invite: Key,
    pub node: Key,
    pub kem: [u8; 32],
    pub name: String,
    pub nonce: Id,
    pub admin: Option<[u8; 32]>,
    pub consent: Option<[u8; 64]>,
}

impl Joining {
    pub fn new(invite: &Invite, node: &Key, kem: [u8; 32], name: &str) -> Self {
        Self {
            pool: invite.pool,
            inviter: invite.inviter,
            invite: invite.key(),
            node: node.clone(),
            kem,
            name: name.to_owned(),
            nonce: random(),
            admin: None,
            consent: None,
        }
    }

    /// The body of a JoinRequest.
    pub fn request(&self) -> Vec<u8> {
        let body = Writer::new()
            .raw(&self.pool)
            .raw(&self.inviter)
            .raw(&self.invite.public())
            .raw(&self.node.public())
            .raw(&self.kem)
            .bytes(&self.name)
            .raw(&self.nonce)
            .option(self.admin, |writer, key| writer.raw(&key))
            .option(self.consent, |writer, signature| writer.raw(&signature))
            .done();
        Writer::new()
            .raw(&self.invite.public())
            .bytes(&body)
            .raw(&self.invite.sign("scenemesh/v1/join/invite", &body))
            .raw(&self.node.sign("scenemesh/v1/join/node", &body))
            .done()
    }
}

/// A porch's answer to a joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinReply {
    Admitted { settings: Vec<SignedSettings>, records: Vec<Record>, addresses: Vec<String> },
    Pending { words: String },
    Refused { reason: JoinRefusal, words: String },
}

/// Why a joiner was refused, in the page's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    UnknownInvite,
    Expired,
    Used,
    BadRequest,
    RevokedKey,
    NameTaken,
    AdminKey,
    Version,
}

impl JoinReply {
    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u32()? {
            0 => Self::Admitted {
                settings: reader.list(SignedSettings::read)?,
                records: reader.list(Record::read)?,
                addresses: reader.list(Reader::text)?,
            },
            1 => {
                // Unlock has no fields, Approvals has two numbers.
                if reader.u32()? == 1 {
                    reader.u16()?;
                    reader.u16()?;
                }
                Self::Pending { words: reader.text()? }
            }
            _ => {
                use JoinRefusal::*;
                let reasons =
                    [UnknownInvite, Expired, Used, BadRequest, RevokedKey, NameTaken, AdminKey, Version];
                let number = reader.u32()? as usize;
                let reason = *reasons.get(number).with_context(|| format!("reason {number}"))?;
                Self::Refused { reason, words: reader.text()? }
            }
        })
    }
}
