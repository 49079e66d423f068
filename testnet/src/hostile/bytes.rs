//! Frames and the fields in them, as the page's *Bytes* has them.

use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Type numbers of the page's *Types*.
pub mod kind {
    pub const SETTINGS: u16 = 0x0001;
    pub const HELLO: u16 = 0x0101;
    pub const ADVERTS: u16 = 0x0102;
    pub const ADVERT_SYNC: u16 = 0x0103;
    pub const INVENTORY: u16 = 0x0104;
    pub const ROSTER_SYNC: u16 = 0x0105;
    pub const ROSTER: u16 = 0x0106;
    pub const GOODBYE: u16 = 0x0107;
    pub const STUDIO_SYNC: u16 = 0x0108;
    pub const STUDIO: u16 = 0x0109;
    pub const OFFER: u16 = 0x0110;
    pub const CLAIM: u16 = 0x0111;
    pub const GRANT: u16 = 0x0112;
    pub const PROGRESS: u16 = 0x0113;
    pub const FINISHED: u16 = 0x0114;
    pub const ACK: u16 = 0x0115;
    pub const CANCEL: u16 = 0x0116;
    pub const PROBE: u16 = 0x0117;
    pub const KEEP: u16 = 0x0118;
    pub const KEEP_NEWS: u16 = 0x0119;
    pub const TAKE_BACK: u16 = 0x011a;
    pub const RELEASE: u16 = 0x011b;
    pub const HELLO_IS: u16 = 0x0181;
    pub const DONE: u16 = 0x0182;
    pub const DECLINED: u16 = 0x0183;
    pub const ADVERTS_ARE: u16 = 0x0184;
    pub const INVENTORY_IS: u16 = 0x0185;
    pub const ROSTER_IS: u16 = 0x0186;
    pub const STUDIO_IS: u16 = 0x0187;
    pub const OFFER_IS: u16 = 0x0190;
    pub const CLAIM_IS: u16 = 0x0191;
    pub const GRANT_IS: u16 = 0x0192;
    pub const VERDICT: u16 = 0x0193;
    pub const FINISHED_IS: u16 = 0x0194;
    pub const ATTEMPT: u16 = 0x0195;
    pub const KEEP_IS: u16 = 0x0196;
    pub const TAKE_BACK_IS: u16 = 0x0197;
    pub const MANIFEST: u16 = 0x0302;
    pub const GRANT_PAYLOAD: u16 = 0x0311;
    pub const RESULT_KEYS: u16 = 0x0312;
    pub const PORCH_JOIN: u16 = 0x0501;
    pub const PORCH_ROSTER: u16 = 0x0502;
    pub const PORCH_ROSTER_SYNC: u16 = 0x0503;
    pub const PORCH_STANDING: u16 = 0x0504;
    pub const PORCH_JOIN_IS: u16 = 0x0581;
    pub const PORCH_ROSTER_IS: u16 = 0x0582;
    pub const PORCH_STANDING_IS: u16 = 0x0583;
    pub const PORCH_DECLINED: u16 = 0x0584;
    pub const BLOB_GET: u16 = 0x0601;
    pub const BLOB_HEAD: u16 = 0x0602;

    /// Every verb of the control protocol, and of the porch.
    pub const CONTROL: [u16; 17] = [
        HELLO,
        ADVERTS,
        ADVERT_SYNC,
        INVENTORY,
        ROSTER_SYNC,
        ROSTER,
        GOODBYE,
        STUDIO_SYNC,
        STUDIO,
        OFFER,
        CLAIM,
        GRANT,
        PROGRESS,
        FINISHED,
        ACK,
        CANCEL,
        PROBE,
    ];
    pub const PORCH: [u16; 4] = [PORCH_JOIN, PORCH_ROSTER, PORCH_ROSTER_SYNC, PORCH_STANDING];
}

pub type Id = [u8; 16];
pub type Hash = [u8; 32];

/// Length of a frame's head.
pub const HEAD: usize = 10;

/// Longest frame this node reads; no type of the page is longer.
const LONGEST: usize = 16 << 20;

/// A frame that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Frame {
    /// The body, when the frame is of this type; a `Declined` is said in words.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn expect(&self, kind: u16) -> Result<Reader<'_>> {
        if let Some((why, detail)) = self.declined() {
            bail!("declined ({why}): {detail}");
        }
        ensure!(self.kind == kind, "type {:#06x} instead of {kind:#06x}", self.kind);
        Ok(Reader::new(&self.body))
    }

    /// Number and words of a refusal.
    pub fn declined(&self) -> Option<(u32, String)> {
        if ![kind::DECLINED, kind::PORCH_DECLINED].contains(&self.kind) {
            return None;
        }
        let mut reader = Reader::new(&self.body);
        Some((reader.u32().ok()?, reader.text().ok()?))
    }
}

/// The bytes of a frame.
pub fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
    frame_that_says(kind, body.len() as u32, body)
}

/// The same, but with a length that may be a lie.
pub fn frame_that_says(kind: u16, length: u32, body: &[u8]) -> Vec<u8> {
    Writer::new().raw(b"SM").u8(1).u8(1).u16(kind).u32(length).raw(body).done()
}

/// Reads one frame off a stream.
///
/// # Errors
/// When the stream ends or the bytes are no frame.
pub async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Frame> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await.context("reading a frame's head")?;
    let mut reader = Reader::new(&head);
    ensure!(reader.raw::<4>()? == *b"SM\x01\x01", "not a frame of version 1: {head:?}");
    let (kind, length) = (reader.u16()?, reader.u32()? as usize);
    ensure!(length <= LONGEST, "a frame of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.context("reading a frame's body")?;
    Ok(Frame { kind, body })
}

/// Writes bytes and flushes them.
///
/// # Errors
/// When the stream is gone.
pub async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// Writes fields one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    #[must_use]
    pub fn bool(self, value: bool) -> Self {
        self.u8(value.into())
    }

    /// `bytes` and `text`.
    #[must_use]
    pub fn bytes(self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.u64(value.len() as u64).raw(value)
    }

    #[must_use]
    pub fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => write(self.u8(1), value),
        }
    }

    #[must_use]
    pub fn list<T>(self, values: &[T], write: impl Fn(Self, &T) -> Self) -> Self {
        values.iter().fold(self.u64(values.len() as u64), write)
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the bytes end too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    /// # Errors
    /// When the bytes end too soon, as for every reader here.
    pub fn raw<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.raw::<1>()?[0])
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn u16(&mut self) -> Result<u16> {
        self.raw().map(u16::from_le_bytes)
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn u32(&mut self) -> Result<u32> {
        self.raw().map(u32::from_le_bytes)
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn u64(&mut self) -> Result<u64> {
        self.raw().map(u64::from_le_bytes)
    }

    /// # Errors
    /// When the byte is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => bail!("a bool of {other}"),
        }
    }

    /// # Errors
    /// When the bytes end too soon.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let count = usize::try_from(self.u64()?)?;
        Ok(self.take(count)?.to_vec())
    }

    /// # Errors
    /// When the bytes end too soon or are not UTF-8.
    pub fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8(self.bytes()?)?)
    }

    /// # Errors
    /// When the bytes are no option.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// # Errors
    /// When the bytes are no list.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.u64()?;
        (0..count).map(|_| read(self)).collect()
    }

    /// The body must be used up exactly.
    ///
    /// # Errors
    /// When something is left.
    pub fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{} bytes are left over", self.0.len());
        Ok(())
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}
