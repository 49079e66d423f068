//! The journal as a file, out and in, and the index over it made anew.

use std::io;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use scenemesh_protocol::api::{ErrorCode, ImportReply, RebuildReply};
use tokio::time::Instant;

use super::Node;
use super::trouble::Trouble;
use crate::http::body::Pieces;
use crate::messages::Message;
use crate::store::{ExportError, ImportError, JournalError, RebuildError};

pub(super) async fn export(State(node): State<Node>) -> Result<Response, Trouble> {
    let export = node.ports.store.journal.export(node.ports.me).await.map_err(|error| match error {
        ExportError::Stopping | ExportError::Journal(JournalError::Stopping) => Trouble::stopping(),
        ExportError::Journal(JournalError::NoSpace { .. }) => disk_full(),
        error => Trouble::broke(&error),
    })?;
    let length = export.bytes();
    // A break in the middle is seen by its length.
    let pieces = futures::stream::try_unfold(export, async |mut export| {
        let piece = export.next().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece.map(|piece| (Bytes::from(piece), export)))
    });
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, length.to_string())];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

pub(super) async fn import(State(node): State<Node>, request: Request) -> Result<Json<ImportReply>, Trouble> {
    let mut import = node.ports.store.journal.import(node.ports.me).await.map_err(|error| trouble(&error))?;
    let mut pieces = Pieces::of(request);
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await? {
        bytes += piece.len() as u64;
        import.write(piece).await.map_err(|error| trouble(&error))?;
    }
    let records = import.finish().await.map_err(|error| trouble(&error))?;
    Ok(Json(ImportReply { records, bytes }))
}

pub(super) async fn rebuild(State(node): State<Node>) -> Result<Json<RebuildReply>, Trouble> {
    let began = Instant::now();
    let records = node.ports.store.journal.rebuild_index().await.map_err(|error| match error {
        RebuildError::Stopping => Trouble::stopping(),
        error => {
            let found = Message::IndexBroken { why: error.to_string() };
            Trouble::new(ErrorCode::Internal, &found).hint(&Message::HintDisk)
        }
    })?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(RebuildReply { records, took_ms }))
}

fn disk_full() -> Trouble {
    Trouble::new(ErrorCode::DiskFull, &Message::NoRoomForJournal).hint(&Message::HintDisk)
}

fn trouble(error: &ImportError) -> Trouble {
    let told = |code, message, hint| Trouble::new(code, &message).hint(&hint);
    match error {
        ImportError::NotEmpty => {
            told(ErrorCode::Conflict, Message::JournalNotEmpty, Message::HintEmptyDataDir)
        }
        ImportError::Busy => told(ErrorCode::Conflict, Message::ImportWaits, Message::HintRestartToImport),
        ImportError::NotAnExport => told(ErrorCode::Usage, Message::NotAnExport, Message::HintExport),
        ImportError::Version { version } => told(
            ErrorCode::VersionMismatch,
            Message::NewerExport { version: *version },
            Message::HintNewerRelease,
        ),
        ImportError::Foreign { node, me } => {
            let message = Message::ForeignExport { node: node.to_string(), me: me.to_string() };
            told(ErrorCode::Refused, message, Message::HintCopyKeys)
        }
        ImportError::Damaged { why } => {
            told(ErrorCode::Usage, Message::DamagedExport { why: (*why).to_owned() }, Message::HintExport)
        }
        ImportError::NoSpace => disk_full(),
        ImportError::Stopping => Trouble::stopping(),
        ImportError::Io { .. } => Trouble::broke(error),
    }
}
