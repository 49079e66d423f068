//! Reads JSON bodies: bounded, exact, and refused in our own words.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use futures::StreamExt;
use scenemesh_protocol::api::{ErrorCode, GRAPH_LIMIT};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::trouble::Trouble;
use crate::messages::Message;

/// Everything but a submission is small.
const SMALL: usize = 64 << 10;
/// A graph within a JSON string doubles its quotes and line ends; settings come on top.
const SUBMISSION: usize = 2 * GRAPH_LIMIT + (2 << 20);

/// A whole body must be there in this time; over loopback the largest takes a fraction of a second.
const READING: Duration = Duration::from_mins(1);
/// A client that sends nothing of a long body for this long has gone.
const SILENCE: Duration = Duration::from_mins(1);

/// A JSON body of at most 64 KiB.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

/// A JSON body that holds a workflow.
#[derive(Debug)]
pub(super) struct Submitted<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Trouble;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Trouble> {
        read(request, SMALL).await.map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Submitted<T> {
    type Rejection = Trouble;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Trouble> {
        read(request, SUBMISSION).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, Trouble> {
    let declared = declared_length(&request).unwrap_or(0);
    if declared > limit as u64 {
        return Err(too_large(limit as u64));
    }
    let reading = tokio::time::timeout(READING, collect(request.into_body(), limit));
    let late = |_| broke_off(&axum::Error::new("it did not arrive within a minute"));
    let bytes = reading.await.map_err(late)??;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = Message::BodyNotJson { why: error.to_string() };
        Trouble::new(ErrorCode::Usage, &message).hint(&Message::HintSameRelease)
    })
}

/// What the request says about its own length.
pub(super) fn declared_length(request: &Request) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body; it may hold a passphrase or a workflow, and is wiped when dropped.
async fn collect(body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk.map_err(|error| broke_off(&error))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large(limit as u64));
        }
        if bytes.len() + chunk.len() > bytes.capacity() {
            // Growing in place would leave a copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * bytes.capacity() + chunk.len()));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A body that may be long, taken as it comes.
#[derive(Debug)]
pub(super) struct Pieces(BodyDataStream);

impl Pieces {
    pub(super) fn of(request: Request) -> Self {
        Self(request.into_body().into_data_stream())
    }

    /// `None` at the end.
    ///
    /// # Errors
    /// When the client breaks off, or sends nothing for a minute.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        let piece = tokio::time::timeout(SILENCE, self.0.next()).await;
        let piece =
            piece.map_err(|_| broke_off(&axum::Error::new("the client sent nothing for a minute")))?;
        piece.transpose().map_err(|error| broke_off(&error))
    }
}

fn broke_off(error: &axum::Error) -> Trouble {
    let message = Message::BodyBroke { why: error.to_string() };
    Trouble::new(ErrorCode::Usage, &message).hint(&Message::HintSameRelease)
}

fn too_large(limit: u64) -> Trouble {
    Trouble::new(ErrorCode::TooLarge, &Message::BodyTooLarge { limit }).hint(&Message::HintNotEmbedded)
}
