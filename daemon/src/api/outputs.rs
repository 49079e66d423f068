//! Results and previews, opened as they are sent.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use futures::stream;
use scenemesh_protocol::api::ErrorCode;

use super::eyes::{self, Who};
use super::inputs::blob_trouble;
use super::trouble::Trouble;
use super::{Node, jobs};
use crate::messages::Message;

pub(super) async fn output(
    State(node): State<Node>,
    Extension(caller): Who,
    Path((id, index)): Path<(String, u32)>,
) -> Result<Response, Trouble> {
    let (job, task) = jobs::task_of(&node, &id).await?;
    let view = eyes::own(&node, &caller, job).await?;
    let outputs = view.tasks.into_iter().find(|known| known.task == task);
    let outputs = outputs.map(|task| task.outputs).unwrap_or_default();
    let count = outputs.len();
    let output = outputs.into_iter().nth(index as usize).ok_or_else(|| {
        Trouble::new(ErrorCode::NotFound, &Message::NoSuchOutput { index, count }).hint(&Message::HintShow)
    })?;
    let opener =
        node.ports.store.blobs.open(output.root, &output.key).await.map_err(|error| blob_trouble(&error))?;
    let bytes = opener.bytes();
    // A broken blob breaks the connection off before its end: the client sees fewer bytes than were promised.
    let chunks = stream::try_unfold(opener, |mut opener| async move {
        opener.next().await.map(|chunk| chunk.map(|chunk| (chunk, opener))).map_err(std::io::Error::other)
    });
    // Another machine made these bytes: nothing may take them for a page of ours.
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, bytes.to_string()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

pub(super) async fn preview(
    State(node): State<Node>,
    Extension(caller): Who,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let (job, task) = jobs::task_of(&node, &id).await?;
    eyes::own(&node, &caller, job).await?;
    let preview = node.ports.scheduler.preview(task).await;
    let preview = preview
        .ok_or_else(|| Trouble::new(ErrorCode::NotFound, &Message::NoPreview).hint(&Message::HintShow))?;
    let kind = if preview.bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
    let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-store")];
    Ok((headers, preview.bytes.clone()).into_response())
}
