//! Frames and bytes on a blob stream. Nothing waits for ever: each step that makes no progress is given up.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use scenemesh_protocol::codec::{self, HEADER_LEN, Message};

/// A peer that moves no byte for this long has gone.
const STALLED: Duration = Duration::from_secs(30);
/// A whole request must be there in this time: one that comes byte by byte holds a stream for nothing.
pub(super) const READING: Duration = Duration::from_secs(30);
/// A segment must be through in this time, about 9 KiB/s: a slower link carries no renders.
pub(super) const SEGMENT: Duration = Duration::from_secs(120);
/// Bytes per write; each must get through before the peer counts as stalled.
const CHUNK: usize = 64 << 10;

/// A step that must be done in this time.
pub(super) async fn in_time<T>(most: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(most, step).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("too slow: not done in {} s", most.as_secs())))
    })
}

/// Fills a buffer.
pub(super) async fn read_exact<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match in_time(STALLED, stream.read(&mut buffer[filled..])).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

/// Reads the bytes of a whole frame of `M`, after its header was found to be within limits.
pub(super) async fn read_frame<M: Message, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_LEN];
    read_exact(stream, &mut frame).await?;
    let len = codec::expect_header::<M>(&frame).map_err(io::Error::other)?;
    frame.resize(HEADER_LEN + len, 0);
    read_exact(stream, &mut frame[HEADER_LEN..]).await?;
    Ok(frame)
}

/// Reads and decodes a whole frame.
pub(super) async fn read_message<M: Message, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<M> {
    codec::decode(&read_frame::<M, S>(stream).await?).map_err(io::Error::other)
}

/// Like [`read_message`], but the stream may end before the frame begins.
pub(super) async fn read_next<M: Message, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<M>> {
    match read_message(stream).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(CHUNK) {
        in_time(STALLED, stream.write_all(chunk)).await?;
    }
    Ok(())
}

pub(super) async fn write_message<M: Message, S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &M,
) -> io::Result<()> {
    write(stream, &codec::encode(message)).await?;
    flush(stream).await
}

pub(super) async fn flush<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    in_time(STALLED, stream.flush()).await
}
