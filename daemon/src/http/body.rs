//! Bodies of requests: bounded, and given up when their sender falls silent.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use futures::StreamExt;
use zeroize::Zeroizing;

/// A whole body must be there in this time; over loopback the largest takes a fraction of a second.
const READING: Duration = Duration::from_mins(1);
/// A client that sends nothing of a long body for this long has gone.
pub(crate) const SILENCE: Duration = Duration::from_mins(1);

/// Why a body was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the body broke off: {why}")]
    Broke { why: String },
}

/// What the request says about its own length.
pub(crate) fn declared_length(request: &Request) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body; it may hold a passphrase or a workflow, and is wiped when dropped.
///
/// # Errors
/// When it is longer than that, breaks off, or does not arrive in time.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    if declared_length(&request).unwrap_or(0) > limit as u64 {
        return Err(BodyError::TooLarge { limit: limit as u64 });
    }
    let reading = tokio::time::timeout(READING, collect(request.into_body(), limit));
    reading.await.map_err(|_| BodyError::Broke { why: "it did not arrive within a minute".into() })?
}

async fn collect(body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk.map_err(|error| broke_off(&error))?;
        if bytes.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge { limit: limit as u64 });
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
pub(crate) struct Pieces(BodyDataStream);

impl Pieces {
    pub(crate) fn of(request: Request) -> Self {
        Self(request.into_body().into_data_stream())
    }

    /// `None` at the end.
    ///
    /// # Errors
    /// When the client breaks off, or sends nothing for a minute.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let piece = tokio::time::timeout(SILENCE, self.0.next()).await;
        let silent = |_| BodyError::Broke { why: "the client sent nothing for a minute".into() };
        piece.map_err(silent)?.transpose().map_err(|error| broke_off(&error))
    }
}

fn broke_off(error: &axum::Error) -> BodyError {
    BodyError::Broke { why: error.to_string() }
}
