//! `/api/etn/…`: pictures that Krita's plugin hands in before a prompt and fetches after it, as comfyui-tooling-nodes
//! serves them. What its nodes do is in [`tooling`](super::tooling).

use std::collections::BTreeMap;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::RANGE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use futures::StreamExt;
use scenemesh_protocol::task::InputFile;
use serde_json::{Map, Value, json};

use super::answer::Problem;
use super::guard::Caller;
use super::picture::{self, Bands};
use super::prompt::is_id;
use super::upload::{self, Intake};
use super::uploads::{Coming, Folder, Place};
use super::view::{gone, locate, send};
use super::{Node, tooling};
use crate::http::body::SILENCE;

/// Quality of a result that its node was to make a JPEG; theirs.
const QUALITY: &str = "jpeg;95";
/// Bytes of a picture's beginning that say what its pixels have.
const HEAD: u64 = 64 << 10;

fn handed_in(id: &str) -> Place {
    Place { folder: Folder::Temp, subfolder: tooling::FOLDER.into(), name: id.to_owned() }
}

/// `PUT /api/etn/image/ID`: keeps a picture. One that is here already is not taken in again: its id says what is in it.
pub(super) async fn put(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if !is_id(&id) {
        return Err(Problem::bad("an image's id has up to 64 letters, digits, - and _"));
    }
    let place = handed_in(&id);
    let mut body = request.into_body().into_data_stream();
    if node.uploads.used(&caller.scope, &place) {
        drain(&node, &mut body).await?;
        return Ok((StatusCode::OK, Json(json!({"status": "cached"}))));
    }
    let mut intake = Intake::new(&node);
    while let Some(chunk) = next(&mut body).await? {
        intake.take(&chunk).await?;
    }
    let (sealed, hash) = intake.finish().await?;
    let kept = node.uploads.add(&caller.scope, Coming { place, sealed, hash, overwrite: true }).await;
    kept.map_err(|refused| upload::refused(&refused))?;
    Ok((StatusCode::CREATED, Json(json!({"status": "success"}))))
}

/// Reads what is of no use, so that the client hears an answer and no broken connection.
async fn drain(node: &Node, body: &mut BodyDataStream) -> Result<(), Problem> {
    let mut bytes = 0;
    while let Some(chunk) = next(body).await?.filter(|_| bytes <= node.upload_limit) {
        bytes += chunk.len() as u64;
    }
    Ok(())
}

async fn next(body: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    let late = |_| Problem::bad("the client sent nothing for a minute");
    let chunk = tokio::time::timeout(SILENCE, body.next()).await.map_err(late)?;
    chunk.transpose().map_err(|error| Problem::bad(format!("the body broke off: {error}")))
}

/// `GET /api/etn/image/ID`: a result, or what was handed in.
pub(super) async fn get(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "Image not found");
    let result = tooling::result(&id);
    let place = match &result {
        Some(result) => Place::read(Folder::Output, result.prompt, result.filename).map_err(|_| missing())?,
        None => handed_in(&id),
    };
    let file = locate(&node, &caller.scope, &place).await.ok_or_else(missing)?;
    let jpeg = result.is_some_and(|result| result.jpeg);
    let wish = picture::wish(jpeg.then_some(QUALITY), None);
    send(&node, &place.name, &file, wish, headers.get(RANGE)).await
}

/// `PUT /api/etn/upload/FOLDER/FILE`: models stay where their machines' owners put them.
pub(super) async fn model(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path((folder, file)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    drain(&node, &mut request.into_body().into_data_stream()).await?;
    let catalog = node.catalog(&caller);
    if catalog.models(&folder).is_some_and(|models| models.contains(&file.as_str())) {
        return Ok(Json(json!({"status": "cached"})));
    }
    let why = "models are not taken in over the gateway; put the file into the model folder of the machines that are to render with it";
    Err(Problem::new(StatusCode::FORBIDDEN, why))
}

/// `GET /api/etn/languages`: nobody translates. Nodes that do install what they need.
pub(super) async fn languages() -> Json<Value> {
    Json(json!([]))
}

/// What else comfyui-tooling-nodes serves. Programs that ask do without.
pub(super) async fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "the gateway does not serve this")
}

/// The prompt with core's nodes in the place of those that speak of pictures here.
pub(super) async fn lowered(
    node: &Node,
    caller: &Caller,
    prompt: &Map<String, Value>,
) -> Result<Map<String, Value>, Problem> {
    let mut bands: BTreeMap<String, Bands> = BTreeMap::new();
    let masked = tooling::masked(prompt);
    for id in tooling::loads(prompt) {
        let place = handed_in(id);
        let known = is_id(id) && node.uploads.used(&caller.scope, &place);
        let file = if known { locate(node, &caller.scope, &place).await } else { None };
        let file = file.ok_or_else(|| not_handed_in(prompt, id))?;
        if masked.contains(id) {
            let found = look(node, &file).await?;
            let found = found.ok_or_else(|| {
                refusal(prompt, id, &format!("Image with ID {id} is no picture that a mask can be read from"))
            })?;
            bands.insert(id.to_owned(), found);
        }
    }
    Ok(tooling::lowered(prompt.clone(), &bands))
}

/// What a picture's pixels have; its head mostly tells.
async fn look(node: &Node, file: &InputFile) -> Result<Option<Bands>, Problem> {
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    for most in [HEAD, picture::LIMIT] {
        let place = node.pictures.clone().acquire_owned().await.map_err(stopping)?;
        let opener = node.ports.store.blobs.open(file.root, &file.key).await;
        let mut opener = opener.map_err(|error| gone(&error))?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < most {
            let Some(chunk) = opener.next().await.map_err(|error| gone(&error))? else { break };
            bytes.extend_from_slice(&chunk);
        }
        let looked = node.tasks.blocking(move || {
            let _place = place;
            picture::bands(&bytes)
        });
        let found = looked.await.ok().flatten();
        if found.is_some() || file.bytes <= most {
            return Ok(found);
        }
    }
    Ok(None)
}

fn not_handed_in(prompt: &Map<String, Value>, id: &str) -> Problem {
    let shown = id.escape_debug().take(80).collect::<String>();
    refusal(prompt, id, &format!("Image with ID {shown} not found: PUT /api/etn/image/{shown} first"))
}

fn refusal(prompt: &Map<String, Value>, id: &str, why: &str) -> Problem {
    let (node, class) = tooling::loader(prompt, id).unwrap_or_default();
    Problem::input(node, class, "id", why)
}
