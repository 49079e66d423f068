//! Reads JSON bodies: bounded, exact, and refused in our own words.

use axum::extract::{FromRequest, Request};
use scenemesh_protocol::api::{ErrorCode, GRAPH_LIMIT};
use serde::de::DeserializeOwned;

use super::trouble::Trouble;
use crate::http::body::{self, BodyError};
use crate::messages::Message;

/// Everything but a submission is small.
const SMALL: usize = 64 << 10;
/// A graph within a JSON string doubles its quotes and line ends; settings come on top.
const SUBMISSION: usize = 2 * GRAPH_LIMIT + (2 << 20);

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
    let bytes = body::read(request, limit).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = Message::BodyNotJson { why: error.to_string() };
        Trouble::new(ErrorCode::Usage, &message).hint(&Message::HintSameRelease)
    })
}

impl From<BodyError> for Trouble {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::new(ErrorCode::TooLarge, &Message::BodyTooLarge { limit })
                .hint(&Message::HintNotEmbedded),
            BodyError::Broke { why } => {
                Self::new(ErrorCode::Usage, &Message::BodyBroke { why }).hint(&Message::HintSameRelease)
            }
        }
    }
}
