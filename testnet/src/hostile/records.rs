//! Settings, records and their digest, as the page's *Roster* has them.

use anyhow::{Context, Result, ensure};

use super::bytes::{Hash, Id, Reader, Writer};
use super::keys::{Key, Signed, hash};

pub const SETTINGS_DOMAIN: &str = "scenemesh/v1/settings";
pub const MEMBER_DOMAIN: &str = "scenemesh/v1/member";
pub const REVOKED_DOMAIN: &str = "scenemesh/v1/revoked";

/// One studio of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Studio {
    pub id: Id,
    pub name: String,
    pub weight: u32,
    pub admins: Vec<[u8; 32]>,
}

impl Studio {
    /// A studio and the id that its first admin and its name give.
    pub fn new(name: &str, admin: &[u8; 32]) -> Self {
        let whole = hash(&[&b"scenemesh/v1/studio\0"[..], admin, name.as_bytes()].concat());
        Self { id: first_half(&whole), name: name.to_owned(), weight: 1, admins: vec![*admin] }
    }
}

fn first_half(whole: &Hash) -> Id {
    let mut id = [0; 16];
    id.copy_from_slice(&whole[..16]);
    id
}

/// The settings of one epoch. The parameters are kept as bytes: this node only passes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub pool_name: String,
    pub nonce: Id,
    pub epoch: u64,
    pub prev: Hash,
    pub created_ms: u64,
    pub studios: Vec<Studio>,
    /// version, phi, half life, three times three weights, floor: 4·12 + 8 bytes.
    pub params: [u8; 56],
    pub min_protocol: u8,
}

impl Settings {
    /// # Errors
    /// When the bytes are no settings.
    pub fn read(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let settings = Self {
            pool_name: reader.text()?,
            nonce: reader.raw()?,
            epoch: reader.u64()?,
            prev: reader.raw()?,
            created_ms: reader.u64()?,
            studios: reader.list(|reader| {
                Ok(Studio {
                    id: reader.raw()?,
                    name: reader.text()?,
                    weight: reader.u32()?,
                    admins: reader.list(Reader::raw)?,
                })
            })?,
            params: reader.raw()?,
            min_protocol: reader.u8()?,
        };
        reader.end()?;
        Ok(settings)
    }

    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .bytes(&self.pool_name)
            .raw(&self.nonce)
            .u64(self.epoch)
            .raw(&self.prev)
            .u64(self.created_ms)
            .list(&self.studios, |writer, studio| {
                let writer = writer.raw(&studio.id).bytes(&studio.name).u32(studio.weight);
                writer.list(&studio.admins, |writer, admin| writer.raw(admin))
            })
            .raw(&self.params)
            .u8(self.min_protocol)
            .done()
    }

    /// The next epoch, before any change.
    pub fn next(&self) -> Self {
        Self { epoch: self.epoch + 1, prev: hash(&self.encode()), ..self.clone() }
    }

    pub fn signed(&self, by: &[&Key]) -> SignedSettings {
        let body = self.encode();
        let signatures = by.iter().map(|key| (key.public(), key.sign(SETTINGS_DOMAIN, &body))).collect();
        SignedSettings { body, signatures }
    }
}

/// Settings as they travel: body and signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedSettings {
    pub body: Vec<u8>,
    pub signatures: Vec<([u8; 32], [u8; 64])>,
}

impl SignedSettings {
    pub fn write(&self, writer: Writer) -> Writer {
        writer
            .bytes(&self.body)
            .list(&self.signatures, |writer, (key, signature)| writer.raw(key).raw(signature))
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            body: reader.bytes()?,
            signatures: reader.list(|reader| Ok((reader.raw()?, reader.raw()?)))?,
        })
    }
}

/// A record as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 0 a member, 1 a revocation.
    pub variant: u32,
    pub signed: Signed,
}

impl Record {
    pub fn write(&self, writer: Writer) -> Writer {
        self.signed.write(writer.u32(self.variant))
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { variant: reader.u32()?, signed: Signed::read(reader)? })
    }
}

/// What a member record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    pub pool: Id,
    pub studio: Id,
    pub node: [u8; 32],
    pub kem: [u8; 32],
    pub name: String,
    pub roles: [bool; 3],
    pub version: u32,
    pub issued_ms: u64,
    pub not_after_ms: Option<u64>,
    pub consent: [u8; 64],
}

impl MemberRecord {
    /// # Errors
    /// When the bytes are none.
    pub fn read(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        Ok(Self {
            pool: reader.raw()?,
            studio: reader.raw()?,
            node: reader.raw()?,
            kem: reader.raw()?,
            name: reader.text()?,
            roles: [reader.bool()?, reader.bool()?, reader.bool()?],
            version: reader.u32()?,
            issued_ms: reader.u64()?,
            not_after_ms: reader.option(Reader::u64)?,
            consent: reader.raw()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        Writer::new()
            .raw(&self.pool)
            .raw(&self.studio)
            .raw(&self.node)
            .raw(&self.kem)
            .bytes(&self.name)
            .bool(self.roles[0])
            .bool(self.roles[1])
            .bool(self.roles[2])
            .u32(self.version)
            .u64(self.issued_ms)
            .option(self.not_after_ms, Writer::u64)
            .raw(&self.consent)
            .done()
    }

    pub fn signed(&self, admin: &Key) -> Record {
        Record { variant: 0, signed: admin.signed(MEMBER_DOMAIN, &self.encode()) }
    }
}

/// A node's word that it belongs to a studio.
pub fn consent(node: &Key, pool: &Id, studio: &Id, kem: &[u8; 32]) -> [u8; 64] {
    node.sign("scenemesh/v1/consent", &Writer::new().raw(pool).raw(studio).raw(kem).done())
}

/// A revocation of `key`, in the name of `studio`.
pub fn revocation(
    pool: &Id,
    studio: &Id,
    key: &[u8; 32],
    reason: &str,
    issued_ms: u64,
    admin: &Key,
) -> Record {
    let body = Writer::new().raw(pool).raw(studio).raw(key).bytes(reason).u64(issued_ms).done();
    Record { variant: 1, signed: admin.signed(REVOKED_DOMAIN, &body) }
}

/// What two nodes compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub epoch: u64,
    pub head: Hash,
    pub records: Hash,
}

impl Digest {
    pub fn write(&self, writer: Writer) -> Writer {
        writer.u64(self.epoch).raw(&self.head).raw(&self.records)
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { epoch: reader.u64()?, head: reader.raw()?, records: reader.raw()? })
    }
}

/// A settings chain and the records that were met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub chain: Vec<SignedSettings>,
    pub records: Vec<Record>,
}

impl Roster {
    /// The newest settings.
    ///
    /// # Errors
    /// When there are none.
    pub fn head(&self) -> Result<Settings> {
        Settings::read(&self.chain.last().context("no settings")?.body)
    }

    /// Whether the chain belongs to a pool: its genesis gives the id, each epoch names the one before.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, pool: &Id) -> Result<()> {
        let genesis = self.chain.first().context("no genesis")?;
        ensure!(first_half(&hash(&genesis.body)) == *pool, "another pool's settings");
        for pair in self.chain.windows(2) {
            let next = Settings::read(&pair[1].body)?;
            ensure!(next.prev == hash(&pair[0].body), "a broken chain at epoch {}", next.epoch);
        }
        Ok(())
    }

    pub fn digest(&self) -> Digest {
        let epoch = self.head().map_or(0, |settings| settings.epoch);
        let head = self.chain.last().map_or([0; 32], |settings| hash(&settings.body));
        let mut records: Vec<Hash> = self.records.iter().map(|record| record.signed.hash()).collect();
        records.sort_unstable();
        Digest { epoch, head, records: hash(&records.concat()) }
    }

    /// Takes in what the other had more of. Nothing is judged: a hostile node believes what serves it.
    pub fn absorb(&mut self, diff: Diff) {
        for settings in diff.settings {
            let epoch =
                |settings: &SignedSettings| Settings::read(&settings.body).map_or(0, |read| read.epoch);
            if self.chain.iter().all(|known| epoch(known) < epoch(&settings)) {
                self.chain.push(settings);
            }
        }
        for record in diff.records {
            if !self.records.contains(&record) {
                self.records.push(record);
            }
        }
    }

    /// The KEM key that the roster binds to a node.
    ///
    /// # Errors
    /// When no record names it.
    pub fn member(&self, node: &[u8; 32]) -> Result<MemberRecord> {
        let members = self.records.iter().filter(|record| record.variant == 0);
        let mut read = members.filter_map(|record| MemberRecord::read(&record.signed.body).ok());
        read.find(|member| member.node == *node).context("no record of that node")
    }

    /// What whoever holds `digest` and `records` lacks.
    pub fn lacking(&self, digest: &Digest, records: &[Hash]) -> Diff {
        let newer = self.chain.iter().filter(|settings| {
            Settings::read(&settings.body).is_ok_and(|settings| settings.epoch > digest.epoch)
        });
        let unknown = self.records.iter().filter(|record| !records.contains(&record.signed.hash()));
        Diff {
            settings: newer.cloned().collect(),
            records: unknown.cloned().collect(),
            proposals: Vec::new(),
        }
    }
}

/// RosterDiff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub settings: Vec<SignedSettings>,
    pub records: Vec<Record>,
    pub proposals: Vec<SignedSettings>,
}

impl Diff {
    pub fn records(records: &[Record]) -> Self {
        Self { records: records.to_vec(), ..Self::default() }
    }

    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .list(&self.settings, |writer, settings| settings.write(writer))
            .list(&self.records, |writer, record| record.write(writer))
            .list(&self.proposals, |writer, settings| settings.write(writer))
            .done()
    }

    /// # Errors
    /// When the bytes are none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            settings: reader.list(SignedSettings::read)?,
            records: reader.list(Record::read)?,
            proposals: reader.list(SignedSettings::read)?,
        })
    }
}

/// The body of a RosterSync.
pub fn sync(digest: &Digest, records: &[Hash]) -> Vec<u8> {
    let writer = digest.write(Writer::new()).list(records, |writer, record| writer.raw(record));
    writer.u64(0).done()
}
