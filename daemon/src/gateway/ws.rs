//! One WebSocket client: what its outbox holds goes to it, and what it says of itself is noted.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use scenemesh_protocol::ids::random_bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Problem;
use super::desk::{Scope, SocketId};
use super::frames::{self, Frame};
use super::guard::Caller;
use super::outbox::Outbox;
use super::{Node, told};

/// Clients say next to nothing over their socket.
const HEARD: usize = 256 << 10;
/// A client that takes nothing for this long has gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Something goes through a silent connection, or those in between forget it.
const PING: Duration = Duration::from_secs(20);
/// Bytes of a socket's own buffers: it hears little, and pictures are larger than any.
const READING: usize = 4 << 10;
const WRITING: usize = 16 << 10;
/// Longest client id.
const LONGEST: usize = 128;
/// Largest result that goes over a socket; a larger one is left to `scenemesh fetch`.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "clientId")]
    client_id: Option<String>,
}

pub(super) async fn open(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let given = asked.client_id.filter(|id| !id.is_empty());
    if given.as_ref().is_some_and(|id| id.len() > LONGEST) {
        return Err(Problem::bad("this client id is too long"));
    }
    let full = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many sockets are open");
    let place = node.sockets.clone().try_acquire_owned().map_err(full)?;
    let sid = given.unwrap_or_else(|| data_encoding::HEXLOWER.encode(&random_bytes::<16>()));
    let upgrade = upgrade.max_message_size(HEARD).max_frame_size(HEARD);
    let upgrade = upgrade.read_buffer_size(READING).write_buffer_size(WRITING);
    let run = move |socket| run(node, caller.scope, sid.into(), socket, place);
    Ok(upgrade.on_upgrade(run).into_response())
}

async fn run(node: Node, scope: Scope, sid: Arc<str>, socket: WebSocket, place: OwnedSemaphorePermit) {
    let Ok((id, outbox)) = node.hub.connect(scope, sid).await else { return };
    let mut client = Client { node: &node, socket, id, outbox: &outbox };
    tokio::select! {
        () = client.serve() => {}
        () = node.stop.cancelled() => {}
    }
    let goodbye = Message::Close(Some(CloseFrame { code: 1001, reason: "".into() }));
    drop(tokio::time::timeout(Duration::from_secs(1), client.socket.send(goodbye)).await);
    drop(node.hub.with(move |desk| (desk.gone(id), Vec::new())).await);
    drop(place);
}

struct Client<'a> {
    node: &'a Node,
    socket: WebSocket,
    id: SocketId,
    outbox: &'a Outbox,
}

impl Client<'_> {
    async fn serve(&mut self) {
        let mut ping = tokio::time::interval(PING);
        loop {
            tokio::select! {
                frame = self.outbox.next() => {
                    let Some(frame) = frame else { return };
                    let Some(message) = self.message(frame).await else { continue };
                    if !self.send(message).await {
                        return;
                    }
                }
                heard = self.socket.recv() => match heard {
                    Some(Ok(Message::Text(text))) => self.heard(&text).await,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                _ = ping.tick() => {
                    if !self.send(Message::Ping(Bytes::new())).await {
                        return;
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        matches!(tokio::time::timeout(PATIENCE, self.socket.send(message)).await, Ok(Ok(())))
    }

    /// A frame as it goes out; a result is opened now.
    async fn message(&mut self, frame: Frame) -> Option<Message> {
        match frame {
            Frame::Text(text) | Frame::Passing(text) => Some(Message::Text(text.into())),
            Frame::Picture(bytes) => Some(Message::Binary(bytes)),
            Frame::Result { head, root, key, bytes } => {
                if bytes > LARGEST {
                    tracing::warn!(bytes, "a result is too large for a socket: scenemesh fetch has it");
                    return None;
                }
                let mut opener = self.node.ports.store.blobs.open(root, &key).await.ok()?;
                let mut whole = BytesMut::from(&head[..]);
                while let Some(chunk) = opener.next().await.ok()? {
                    whole.extend_from_slice(&chunk);
                }
                Some(Message::Binary(whole.freeze()))
            }
        }
    }

    async fn heard(&mut self, text: &str) {
        let Ok(said) = serde_json::from_str::<Value>(text) else { return };
        if said["type"] != "feature_flags" {
            return;
        }
        let (id, reads) = (self.id, said["data"]["supports_preview_metadata"] == true);
        let noted = self.node.hub.with(move |desk| (desk.reads_metadata(id, reads), Vec::new())).await;
        if noted.is_ok() {
            self.outbox.push(frames::feature_flags(&told::flags(self.node)));
        }
    }
}
