//! Uploads: input files that come before the job that names them.
//!
//! Bytes are sealed as they arrive and their key stays here: a client gets a handle. What no job has used within an
//! hour is removed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use scenemesh_protocol::api::{ErrorCode, INPUT_LIMIT, InputReply};
use scenemesh_protocol::ids::{ContentHash, random_bytes};
use scenemesh_protocol::sealed::BlobKey;
use tokio::time::Instant;

use super::trouble::Trouble;
use super::{Node, korean};
use crate::http::body::{Pieces, declared_length};
use crate::messages::Message;
use crate::store::{BlobError, Sealed};

/// How long an upload waits for its job.
const KEPT_FOR: Duration = Duration::from_hours(1);
/// Uploads that wait at once; a job of ten thousand frames sends a few inputs, not ten thousand.
const MOST_WAITING: usize = 4096;

/// A sealed input that waits for its job.
#[derive(Clone, Debug)]
pub(super) struct Uploaded {
    pub(super) root: ContentHash,
    pub(super) key: BlobKey,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    uploaded: Uploaded,
    since: Instant,
    /// A job names it: its blob is the scheduler's now.
    used: bool,
}

/// Uploads by handle. The lock is held for a look-up, never while anything waits.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Waiting>>);

impl Uploads {
    /// Takes an upload in; gives its handle, and blobs that have waited too long.
    fn take(&self, uploaded: Uploaded, now: Instant) -> Option<(String, Vec<ContentHash>)> {
        let mut waiting = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let stale = |entry: &Waiting| now.duration_since(entry.since) > KEPT_FOR;
        let removed = waiting.extract_if(|_, entry| stale(entry)).map(|(_, entry)| entry);
        let unused = removed.filter(|entry| !entry.used).map(|entry| entry.uploaded.root).collect();
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        let handle = data_encoding::HEXLOWER.encode(&random_bytes::<16>());
        waiting.insert(handle.clone(), Waiting { uploaded, since: now, used: false });
        Some((handle, unused))
    }

    pub(super) fn get(&self, handle: &str) -> Option<Uploaded> {
        let waiting = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.get(handle).map(|entry| entry.uploaded.clone())
    }

    /// A job was accepted with these.
    pub(super) fn mark_used<'a>(&self, handles: impl IntoIterator<Item = &'a str>) {
        let mut waiting = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for handle in handles {
            if let Some(entry) = waiting.get_mut(handle) {
                entry.used = true;
            }
        }
    }
}

pub(super) async fn upload(State(node): State<Node>, request: Request) -> Result<Json<InputReply>, Trouble> {
    let too_large = || Trouble::new(ErrorCode::TooLarge, &Message::InputTooLarge { limit: INPUT_LIMIT });
    let declared = declared_length(&request);
    if declared.is_some_and(|bytes| bytes > INPUT_LIMIT) {
        return Err(too_large());
    }
    let mut sealer = node.ports.store.blobs.seal();
    let mut pieces = Pieces::of(request);
    let mut bytes = 0_u64;
    while let Some(piece) = pieces.next().await? {
        bytes += piece.len() as u64;
        if bytes > INPUT_LIMIT {
            return Err(too_large());
        }
        sealer.write(&piece).await.map_err(|error| blob_trouble(&error))?;
    }
    let Sealed { root, key, .. } = sealer.finish().await.map_err(|error| blob_trouble(&error))?;
    let taken = node.uploads.take(Uploaded { root, key, bytes }, Instant::now());
    let Some((input, stale)) = taken else {
        drop(node.ports.store.blobs.remove(root).await);
        return Err(Trouble::new(ErrorCode::Busy, &Message::TooManyRequests).hint(&Message::HintSlower));
    };
    for root in stale {
        if let Err(error) = node.ports.store.blobs.remove(root).await {
            tracing::warn!(%error, "an upload that no job used stays on disk until the next start");
        }
    }
    Ok(Json(InputReply { input, bytes }))
}

pub(super) fn blob_trouble(error: &BlobError) -> Trouble {
    let code = match error {
        BlobError::Quota { .. } | BlobError::NoSpace { .. } => ErrorCode::DiskFull,
        BlobError::TooLong { .. } => ErrorCode::TooLarge,
        BlobError::Unknown { .. } => ErrorCode::NotFound,
        BlobError::Stopping => return Trouble::stopping(),
        _ => return Trouble::broke(error),
    };
    Trouble::of(code, error, korean::blob(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(byte: u8) -> Uploaded {
        Uploaded { root: ContentHash::from_bytes([byte; 32]), key: BlobKey::from_bytes([byte; 32]), bytes: 1 }
    }

    #[test]
    fn uploads_wait_an_hour_unless_a_job_has_them() {
        let uploads = Uploads::default();
        let start = Instant::now();
        let (used, _) = uploads.take(upload(1), start).unwrap();
        let (unused, _) = uploads.take(upload(2), start).unwrap();
        uploads.mark_used([used.as_str()]);
        assert_eq!(uploads.get(&unused).unwrap().root, ContentHash::from_bytes([2; 32]));

        let later = start + KEPT_FOR + Duration::from_secs(1);
        let (_, stale) = uploads.take(upload(3), later).unwrap();
        assert_eq!(stale, [ContentHash::from_bytes([2; 32])], "the used one is the job's now");
        assert!(uploads.get(&unused).is_none());
        assert!(uploads.get(&used).is_none());
    }

    #[test]
    fn uploads_are_bounded() {
        let uploads = Uploads::default();
        let now = Instant::now();
        for _ in 0..MOST_WAITING {
            assert!(uploads.take(upload(1), now).is_some());
        }
        assert!(uploads.take(upload(1), now).is_none());
    }
}
