//! Questions of others on the control protocol. libp2p-stream takes one substream at a time and drops what comes while
//! nobody looks; here they wait.

use std::io;

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, request_response};
use tokio::sync::{mpsc, oneshot};

use super::bytes::{Frame, Id, read_frame, send};
use super::link::{PATIENCE, control_of};

/// Questions that wait to be taken up.
const WAITING: usize = 1024;

/// One frame of a peer; the answer is bytes, or nothing when it is dropped.
#[derive(Debug)]
pub struct Question {
    pub from: PeerId,
    pub frame: Frame,
    pub answer: oneshot::Sender<Vec<u8>>,
}

/// Frames come in, whatever bytes go out. This node asks over substreams that it opens itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames;

pub(super) type Behaviour = request_response::Behaviour<Frames>;

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Frame;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io).await.map_err(io::Error::other)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        send(io, &bytes).await.map_err(io::Error::other)?;
        io.close().await
    }
}

/// Hears questions about a pool, when there is one.
pub(super) fn behaviour(pool: Option<&Id>) -> anyhow::Result<Toggle<Behaviour>> {
    let Some(pool) = pool else { return Ok(None.into()) };
    let protocol = StreamProtocol::try_from_owned(control_of(pool))?;
    let config = request_response::Config::default().with_request_timeout(PATIENCE);
    let inbound = [(protocol, request_response::ProtocolSupport::Inbound)];
    Ok(Some(Behaviour::new(inbound, config)).into())
}

pub(super) fn channel() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(WAITING)
}
