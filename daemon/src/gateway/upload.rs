//! Uploads: sealed as they arrive, whatever their size.

use std::time::Duration;

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use scenemesh_protocol::task::InputFile;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Problem;
use super::guard::Caller;
use super::uploads::{BadPlace, Coming, Folder, Place, Refused};
use super::view::{gone, locate, whole};
use super::{Node, picture};
use crate::http::body::SILENCE;
use crate::store::{BlobError, Sealed, Sealer};

/// Most bytes of a form's other fields, each.
const SMALL: usize = 64 << 10;
/// Fields of one form.
const FIELDS: usize = 16;

/// A form, its file sealed already.
struct Form {
    name: String,
    sealed: Sealed,
    hash: blake3::Hash,
    folder: Folder,
    subfolder: String,
    overwrite: bool,
    original: Option<String>,
}

/// `GET /internal/files/FOLDER`: what was uploaded into it, the newest first. Results are in folders of their own below.
pub(super) async fn names(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(folder): Path<String>,
) -> Result<Json<Vec<String>>, Problem> {
    let Some(folder) = Folder::of(&folder) else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Invalid directory type"));
    };
    Ok(Json(node.uploads.newest(&caller.scope, folder)))
}

pub(super) async fn image(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let form = read(&node, request).await?;
    keep(&node, &caller, form).await
}

/// A mask is the alpha of a picture that is here already.
pub(super) async fn mask(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let form = read(&node, request).await?;
    let Some(original) = form.original.as_deref() else { return keep(&node, &caller, form).await };
    let made = masked(&node, &caller, &form, original).await;
    let blobs = &node.ports.store.blobs;
    let sealed = match made {
        Ok(bytes) => {
            let hash = blake3::hash(&bytes);
            let mut sealer = blobs.seal();
            match sealer.write(&bytes).await {
                Ok(()) => sealer.finish().await.map(|sealed| (sealed, hash)).map_err(|error| full(&error)),
                Err(error) => Err(full(&error)),
            }
        }
        Err(problem) => Err(problem),
    };
    if let Err(error) = blobs.remove(form.sealed.root).await {
        tracing::debug!(%error, "removing a mask that was put into its picture");
    }
    let (sealed, hash) = sealed?;
    keep(&node, &caller, Form { sealed, hash, ..form }).await
}

#[derive(Debug, Deserialize)]
struct Original {
    filename: String,
    #[serde(default)]
    subfolder: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

async fn masked(node: &Node, caller: &Caller, form: &Form, original: &str) -> Result<Vec<u8>, Problem> {
    let original: Original =
        serde_json::from_str(original).map_err(|_| Problem::bad("original_ref is no reference to a file"))?;
    let folder = Folder::of(original.kind.as_deref().unwrap_or("output"));
    let folder = folder.ok_or_else(|| Problem::bad("original_ref has no type of file"))?;
    let place = Place::read(folder, &original.subfolder, &original.filename);
    let place = place.map_err(|_| Problem::bad("original_ref leads elsewhere"))?;
    let file = locate(node, &caller.scope, &place).await.ok_or_else(Problem::not_found)?;
    let mask = InputFile {
        name: String::new(),
        root: form.sealed.root,
        key: form.sealed.key.clone(),
        bytes: form.sealed.bytes,
    };
    let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let place = node.pictures.clone().acquire_owned().await.map_err(busy)?;
    let mut both = Vec::new();
    for file in [&file, &mask] {
        if file.bytes > picture::LIMIT {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "this picture is too large for a mask"));
        }
        let opener = node.ports.store.blobs.open(file.root, &file.key).await.map_err(|error| gone(&error))?;
        both.push(whole(opener).await?);
    }
    let made = node
        .tasks
        .blocking(move || {
            let _place = place;
            picture::masked(&both[0], &both[1])
        })
        .await
        .ok()
        .flatten();
    made.ok_or_else(|| Problem::bad("the mask and its picture are no pictures of one size"))
}

async fn keep(node: &Node, caller: &Caller, form: Form) -> Result<Json<Value>, Problem> {
    let Form { name, sealed, hash, folder, subfolder, overwrite, .. } = form;
    let place = match Place::read(folder, &subfolder, &name) {
        Ok(place) => place,
        Err(bad) => {
            drop(node.ports.store.blobs.remove(sealed.root).await);
            return Err(Problem::bad(match bad {
                BadPlace::Name => "this is no file name",
                BadPlace::Escapes => "this subfolder leads elsewhere",
            }));
        }
    };
    let kept = node.uploads.add(&caller.scope, Coming { place, sealed, hash, overwrite }).await;
    let place = kept.map_err(|error| refused(&error))?;
    Ok(Json(json!({"name": place.name, "subfolder": place.subfolder, "type": place.folder.word()})))
}

/// An upload that is not kept.
pub(super) fn refused(refused: &Refused) -> Problem {
    let status = match refused {
        Refused::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refused)
}

fn broken(error: &MultipartError) -> Problem {
    Problem::bad(format!("the form cannot be read: {error}"))
}

fn full(error: &BlobError) -> Problem {
    let status = match error {
        BlobError::Quota { .. } | BlobError::NoSpace { .. } => StatusCode::INSUFFICIENT_STORAGE,
        BlobError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error)
}

/// Reads a form. A file that was sealed for one that is refused is removed.
async fn read(node: &Node, request: Request) -> Result<Form, Problem> {
    let multipart = Multipart::from_request(request, &());
    let mut multipart = multipart.await.map_err(|error| Problem::bad(error.body_text()))?;
    let mut file = None;
    let form = fields(node, &mut multipart, &mut file).await;
    match (form, file) {
        (Ok(given), Some((name, sealed, hash))) => Ok(Form {
            name,
            sealed,
            hash,
            folder: given.folder,
            subfolder: given.subfolder,
            overwrite: given.overwrite,
            original: given.original,
        }),
        (Ok(_), None) => Err(Problem::bad("the form has no file called image")),
        (Err(problem), file) => {
            if let Some((_, sealed, _)) = file {
                drop(node.ports.store.blobs.remove(sealed.root).await);
            }
            Err(problem)
        }
    }
}

struct Given {
    folder: Folder,
    subfolder: String,
    overwrite: bool,
    original: Option<String>,
}

type Received = (String, Sealed, blake3::Hash);

async fn fields(
    node: &Node,
    multipart: &mut Multipart,
    file: &mut Option<Received>,
) -> Result<Given, Problem> {
    let mut given =
        Given { folder: Folder::Input, subfolder: String::new(), overwrite: false, original: None };
    for _ in 0..FIELDS {
        let Some(mut field) = soon(multipart.next_field()).await? else { return Ok(given) };
        match field.name().unwrap_or_default() {
            "image" if file.is_none() => *file = Some(receive(node, &mut field).await?),
            "type" => {
                let word = text(&mut field).await?;
                given.folder =
                    Folder::of(&word).ok_or_else(|| Problem::bad("type is input, output or temp"))?;
            }
            "subfolder" => given.subfolder = text(&mut field).await?,
            "overwrite" => given.overwrite = matches!(text(&mut field).await?.as_str(), "true" | "1"),
            "original_ref" => given.original = Some(text(&mut field).await?),
            _ => drop(text(&mut field).await?),
        }
    }
    Err(Problem::bad("the form has too many fields"))
}

/// What a client sends, unless it falls silent.
async fn soon<T>(work: impl Future<Output = Result<T, MultipartError>>) -> Result<T, Problem> {
    let limit: Duration = SILENCE;
    let late = |_| Problem::bad("the client sent nothing for a minute");
    tokio::time::timeout(limit, work).await.map_err(late)?.map_err(|error| broken(&error))
}

async fn text(field: &mut Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = soon(field.chunk()).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SMALL {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "a field of the form is too long"));
        }
    }
    String::from_utf8(bytes).map_err(|_| Problem::bad("a field of the form is no text"))
}

async fn receive(node: &Node, field: &mut Field<'_>) -> Result<Received, Problem> {
    let name = field.file_name().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Problem::bad("the file has no name"));
    }
    let mut intake = Intake::new(node);
    while let Some(chunk) = soon(field.chunk()).await? {
        intake.take(&chunk).await?;
    }
    let (sealed, hash) = intake.finish().await?;
    Ok((name, sealed, hash))
}

/// A file that is sealed as it comes, up to the limit of an upload.
pub(super) struct Intake {
    sealer: Sealer,
    hasher: blake3::Hasher,
    bytes: u64,
    limit: u64,
}

impl Intake {
    pub(super) fn new(node: &Node) -> Self {
        let sealer = node.ports.store.blobs.seal();
        Self { sealer, hasher: blake3::Hasher::new(), bytes: 0, limit: node.upload_limit }
    }

    pub(super) async fn take(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.limit {
            let why = format!("an upload may have {} bytes (gateway.upload_limit)", self.limit);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        self.hasher.update(chunk);
        self.sealer.write(chunk).await.map_err(|error| full(&error))
    }

    /// The file, and the hash of what is in it.
    pub(super) async fn finish(self) -> Result<(Sealed, blake3::Hash), Problem> {
        let sealed = self.sealer.finish().await.map_err(|error| full(&error))?;
        Ok((sealed, self.hasher.finalize()))
    }
}
