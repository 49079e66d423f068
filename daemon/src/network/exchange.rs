//! Requests and answers as frames: the codec of libp2p's request-response, and what waits for which answer.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, OutboundFailure, ProtocolSupport};
use scenemesh_protocol::codec::{DecodeError, HEADER_LEN};
use scenemesh_protocol::ids::{ContentHash, NodeId};
use scenemesh_protocol::messages::{PorchRequest, PorchResponse, Request, Response};
use tokio::sync::oneshot;

use super::RequestError;
use super::room::Rooms;

/// A control exchange, from opening the stream to the last byte of the answer.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(20);
/// The same at the porch: strangers hold nothing open.
const PORCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest a caller waits, time in our own queue included.
pub(super) const REQUEST_GUARD: Duration = Duration::from_secs(30);

/// Requests of ours that one peer answers at once; twice this stays below [`CONTROL_STREAMS`], above which the
/// receiving end silently drops streams.
pub(super) const IN_FLIGHT: usize = 48;
/// Requests that wait for one peer beyond those.
pub(super) const QUEUED: usize = 256;
const CONTROL_STREAMS: usize = 128;
const PORCH_STREAMS: usize = 2;

/// A message of one of the conversations, as a frame.
pub(super) trait Frame: Sized + Send + 'static {
    fn expect_header(header: &[u8]) -> Result<usize, DecodeError>;
    fn decode(frame: &[u8]) -> Result<Self, DecodeError>;
    fn encode(&self) -> Vec<u8>;
}

macro_rules! frames {
    ($($name:ident)*) => {$(
        impl Frame for $name {
            fn expect_header(header: &[u8]) -> Result<usize, DecodeError> {
                Self::expect_header(header)
            }
            fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
                Self::decode(frame)
            }
            fn encode(&self) -> Vec<u8> {
                self.encode()
            }
        }
    )*};
}

frames!(Request Response PorchRequest PorchResponse);

/// Reads questions `Q` and answers `A`. What does not decode is handed up as such: it deserves an answer in words.
pub(super) struct Frames<Q, A> {
    rooms: Rooms,
    kinds: PhantomData<fn() -> (Q, A)>,
}

impl<Q, A> Default for Frames<Q, A> {
    fn default() -> Self {
        Self { rooms: Rooms::default(), kinds: PhantomData }
    }
}

impl<Q, A> Clone for Frames<Q, A> {
    fn clone(&self) -> Self {
        Self { rooms: self.rooms.clone(), kinds: PhantomData }
    }
}

pub(super) type Control = request_response::Behaviour<Frames<Request, Response>>;
pub(super) type Porch = request_response::Behaviour<Frames<PorchRequest, PorchResponse>>;

/// The behaviour that speaks a pool's control protocol.
pub(super) fn control(protocol: StreamProtocol) -> Control {
    let config = request_response::Config::default()
        .with_request_timeout(CONTROL_TIMEOUT)
        .with_max_concurrent_streams(CONTROL_STREAMS);
    Control::with_codec(Frames::default(), [(protocol, ProtocolSupport::Full)], config)
}

/// The behaviour that speaks the porch protocol, on one of its two sides.
pub(super) fn porch(protocol: StreamProtocol, side: ProtocolSupport) -> Porch {
    let config = request_response::Config::default()
        .with_request_timeout(PORCH_TIMEOUT)
        .with_max_concurrent_streams(PORCH_STREAMS);
    Porch::with_codec(Frames::default(), [(protocol, side)], config)
}

impl<Q: Frame, A: Frame> request_response::Codec for Frames<Q, A> {
    type Protocol = StreamProtocol;
    type Request = Result<Q, DecodeError>;
    type Response = Result<A, DecodeError>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Self::Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, &self.rooms).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Self::Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, &self.rooms).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Self::Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Self::Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, response).await
    }
}

async fn read_frame<F: Frame, T: AsyncRead + Unpin + Send>(
    io: &mut T,
    rooms: &Rooms,
) -> io::Result<Result<F, DecodeError>> {
    let mut frame = vec![0; HEADER_LEN];
    io.read_exact(&mut frame).await?;
    let len = match F::expect_header(&frame) {
        Ok(len) => len,
        Err(error) => return Ok(Err(error)),
    };
    let _place = rooms.enter(len).await;
    // Grows with what arrives, so that an announced length alone costs nothing.
    io.take(len as u64).read_to_end(&mut frame).await?;
    Ok(F::decode(&frame))
}

async fn write_frame<F: Frame, T: AsyncWrite + Unpin + Send>(
    io: &mut T,
    message: Result<F, DecodeError>,
) -> io::Result<()> {
    let message = message.map_err(io::Error::other)?;
    io.write_all(&message.encode()).await
}

/// Who wants an answer.
pub(super) enum Purpose {
    Caller(oneshot::Sender<Result<Response, RequestError>>),
    /// Which of our Hellos; an answer to an earlier one does not count.
    Hello(u32),
    AdvertPush,
    AdvertSync,
    /// The inventory that goes with this root.
    Inventory(ContentHash),
    Goodbye,
    /// A node that is shut out is told why.
    Parting,
}

impl Purpose {
    /// Whether nobody waits any more.
    pub(super) fn is_moot(&self) -> bool {
        matches!(self, Self::Caller(answer) if answer.is_closed())
    }
}

/// A request on its way.
pub(super) struct Pending {
    pub(super) peer: NodeId,
    pub(super) purpose: Purpose,
    /// Kept when the link it takes may be the one that is closed as a double: then it is sent once more.
    pub(super) again: Option<Request>,
}

/// Puts a failed exchange into the caller's terms.
pub(super) fn request_error(peer: NodeId, failure: &OutboundFailure) -> RequestError {
    match failure {
        OutboundFailure::DialFailure => RequestError::NotConnected(peer),
        OutboundFailure::Timeout => RequestError::TimedOut(peer),
        OutboundFailure::ConnectionClosed => {
            RequestError::Broken { peer, cause: "the connection was closed".into() }
        }
        OutboundFailure::UnsupportedProtocols => {
            RequestError::Garbled { peer, cause: "it does not speak this pool's control protocol".into() }
        }
        OutboundFailure::Io(error) => RequestError::Broken { peer, cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use scenemesh_protocol::messages::{Done, Goodbye};

    use super::*;

    fn read<F: Frame>(bytes: &[u8]) -> io::Result<Result<F, DecodeError>> {
        block_on(read_frame(&mut Cursor::new(bytes), &Rooms::default()))
    }

    #[test]
    fn a_frame_survives_the_way() {
        let sent = Request::Goodbye(Goodbye);
        let mut wire = Cursor::new(Vec::new());
        block_on(write_frame(&mut wire, Ok(sent.clone()))).unwrap();
        assert_eq!(read::<Request>(wire.get_ref()).unwrap(), Ok(sent));
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_the_body() {
        let mut frame = Request::Goodbye(Goodbye).encode();
        frame[6..10].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read::<Request>(&frame).unwrap(), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn unknown_verbs_and_other_versions_are_told_apart() {
        let answer = Response::Done(Done).encode();
        assert!(matches!(read::<Request>(&answer).unwrap(), Err(DecodeError::UnknownType(_))));
        let mut newer = Request::Goodbye(Goodbye).encode();
        newer[2] += 1;
        assert!(matches!(read::<Request>(&newer).unwrap(), Err(DecodeError::Version { .. })));
    }

    #[test]
    fn a_cut_frame_is_a_decode_error_or_a_broken_stream() {
        let frame = Response::Done(Done).encode();
        assert!(read::<Response>(&frame[..HEADER_LEN - 1]).is_err());
        let mut longer = frame.clone();
        longer[6] = 5;
        assert!(matches!(read::<Response>(&longer).unwrap(), Err(DecodeError::Truncated { .. })));
    }
}
