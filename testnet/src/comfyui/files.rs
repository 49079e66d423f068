//! `/view` and the uploads.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::Multipart;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::{Disk, Folder, inside};
use super::log::LogEvent;
use super::machine::Machine;
use super::raster::{self, Raster};
use super::routes::trips;
use super::{FaultKind, jpeg};

type Shared = State<Arc<Machine>>;

#[derive(Deserialize)]
pub(super) struct Wanted {
    filename: Option<String>,
    #[serde(rename = "type")]
    folder: Option<String>,
    subfolder: Option<String>,
    preview: Option<String>,
    channel: Option<String>,
}

pub(super) async fn view(State(machine): Shared, Query(wanted): Query<Wanted>) -> Response {
    let Some(filename) = &wanted.filename else { return StatusCode::NOT_FOUND.into_response() };
    let path =
        match located(&machine.disk, filename, wanted.folder.as_deref(), wanted.subfolder.as_deref(), true) {
            Ok(path) => path,
            Err(status) => return status.into_response(),
        };
    let Ok(bytes) = tokio::fs::read(&path).await else { return StatusCode::NOT_FOUND.into_response() };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shaped = tokio::task::spawn_blocking(move || {
        shaped(&wanted, &name, bytes).map(|(kind, bytes)| (kind, name, bytes))
    })
    .await;
    match shaped {
        Ok(Some((kind, name, bytes))) => {
            let disposition = format!("filename=\"{name}\"");
            ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], bytes)
                .into_response()
        }
        _ => trips(),
    }
}

/// The path behind a file reference. Of `filename` only the last part counts, as long as `subfolder` may say the rest.
fn located(
    disk: &Disk,
    filename: &str,
    folder: Option<&str>,
    subfolder: Option<&str>,
    last_part: bool,
) -> Result<PathBuf, StatusCode> {
    let (bare, annotated) = Disk::annotated(filename);
    if bare.is_empty() || bare.starts_with('/') || bare.contains("..") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let folder =
        annotated.or_else(|| Folder::parse(folder.unwrap_or("output"))).ok_or(StatusCode::BAD_REQUEST)?;
    let root = disk.root(folder);
    let dir = inside(&root, subfolder.unwrap_or_default()).ok_or(StatusCode::FORBIDDEN)?;
    let name = if last_part { bare.rsplit('/').next().unwrap_or(bare) } else { bare };
    Ok(dir.join(name))
}

/// The bytes as asked for: as they are, as a smaller preview, or one channel of them. `None` where they are no picture.
fn shaped(wanted: &Wanted, name: &str, bytes: Vec<u8>) -> Option<(&'static str, Vec<u8>)> {
    let channel = wanted.channel.as_deref().unwrap_or("rgba");
    if let Some(preview) = &wanted.preview {
        let (raster, _) = Raster::read(&bytes)?;
        let wants_jpeg = preview.split(';').next() == Some("jpeg") && !channel.contains('a');
        return Some(match wants_jpeg {
            // Eight pixels become one tile, so this is as large as the picture.
            true => (
                "image/jpeg",
                jpeg::enlarged(&raster.scaled((raster.width / 8).max(1), (raster.height / 8).max(1))),
            ),
            false => ("image/webp", raster.webp()),
        });
    }
    match channel {
        "rgb" => Some(("image/png", Raster::read(&bytes)?.0.png(&[]))),
        "a" => {
            let (width, height, rgba) = raster::read_rgba(&bytes)?;
            let alpha: Vec<u8> = rgba.chunks_exact(4).flat_map(|pixel| [0, 0, 0, pixel[3]]).collect();
            Some(("image/png", raster::png(width, height, png::ColorType::Rgba, &alpha, &[])))
        }
        _ => Some((content_type(name), bytes)),
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "png" => "image/png",
        "webp" => "image/webp",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "wav" => "audio/x-wav",
        "flac" => "audio/x-flac",
        "txt" => "text/plain",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

#[derive(Deserialize)]
pub(super) struct FileName {
    filename: Option<String>,
}

pub(super) async fn view_metadata(
    State(machine): Shared,
    Path(folder): Path<String>,
    Query(file): Query<FileName>,
) -> Response {
    let name = file.filename.filter(|name| name.ends_with(".safetensors"));
    match name.and_then(|name| machine.disk.model_metadata(&folder, &name)) {
        Some(metadata) => Json(metadata).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The fields of an upload form.
#[derive(Default)]
struct Form {
    file: Option<(String, Vec<u8>)>,
    overwrite: bool,
    folder: Option<String>,
    subfolder: String,
    original_ref: Option<Value>,
}

/// `Err(None)`: the power went off while it came in.
async fn form(machine: &Machine, mut parts: Multipart) -> Result<Form, Option<StatusCode>> {
    let mut form = Form::default();
    while let Some(mut part) = parts.next_field().await.map_err(|_| Some(StatusCode::BAD_REQUEST))? {
        let name = part.name().unwrap_or_default().to_owned();
        if name == "image" {
            let Some(filename) = part.file_name().map(str::to_owned) else { continue };
            let mut bytes = Vec::new();
            while let Some(chunk) = part.chunk().await.map_err(|error| Some(error.status()))? {
                bytes.extend_from_slice(&chunk);
                if machine.strikes(FaultKind::DieMidUpload, None) {
                    machine.crash();
                    return Err(None);
                }
            }
            form.file = Some((filename, bytes));
            continue;
        }
        let text = part.text().await.map_err(|error| Some(error.status()))?;
        match name.as_str() {
            "overwrite" => form.overwrite = text == "true" || text == "1",
            "type" => form.folder = Some(text),
            "subfolder" => form.subfolder = text,
            "original_ref" => form.original_ref = serde_json::from_str(&text).ok(),
            _ => {}
        }
    }
    Ok(form)
}

pub(super) async fn upload_image(State(machine): Shared, parts: Multipart) -> Response {
    match form(&machine, parts).await {
        Ok(form) => {
            let answer = stored(&machine, form, Ok);
            tokio::time::sleep(Duration::from_millis(machine.options.upload_ms)).await;
            answer
        }
        Err(status) => status.map_or_else(trips, IntoResponse::into_response),
    }
}

/// Stores the original picture with the alpha channel of the uploaded one.
pub(super) async fn upload_mask(State(machine): Shared, parts: Multipart) -> Response {
    let mut form = match form(&machine, parts).await {
        Ok(form) => form,
        Err(status) => return status.map_or_else(trips, IntoResponse::into_response),
    };
    let Some(original) = form.original_ref.take() else { return trips() };
    let text = |name: &str| original.get(name).and_then(Value::as_str);
    let Some(filename) = text("filename") else { return trips() };
    let path = match located(&machine.disk, filename, text("type"), text("subfolder"), false) {
        Ok(path) => path,
        Err(status) => return status.into_response(),
    };
    stored(&machine, form, move |mask| {
        let bytes = fs::read(path).map_err(|_| ())?;
        let (width, height, mut pixels) = raster::read_rgba(&bytes).ok_or(())?;
        let (_, _, mask) = raster::read_rgba(&mask).ok_or(())?;
        for (pixel, mask) in pixels.chunks_exact_mut(4).zip(mask.chunks_exact(4)) {
            pixel[3] = mask[3];
        }
        Ok(raster::png(width, height, png::ColorType::Rgba, &pixels, &raster::texts(&bytes)))
    })
}

/// Keeps an upload under its name; a taken name with other bytes becomes `name (1).png`, with the same bytes it is kept as it is.
fn stored(machine: &Machine, form: Form, shape: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, ()>) -> Response {
    let Some((mut filename, bytes)) = form.file.filter(|(filename, _)| !filename.is_empty()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let named = form.folder.as_deref().unwrap_or("input");
    // The real handler has no branch for another type and stumbles.
    let Some(folder) = Folder::parse(named) else { return trips() };
    let root = machine.disk.root(folder);
    let escapes = || StatusCode::BAD_REQUEST.into_response();
    let Some(dir) = inside(&root, &form.subfolder) else { return escapes() };
    let Some(mut path) =
        inside(&dir, &filename).or_else(|| inside(&root, &format!("{}/{filename}", form.subfolder)))
    else {
        return escapes();
    };
    if fs::create_dir_all(path.parent().unwrap_or(&dir)).is_err() {
        return trips();
    }
    let (stem, extension) = match filename.rfind('.') {
        Some(at) if at > 0 => (filename[..at].to_owned(), filename[at..].to_owned()),
        _ => (filename.clone(), String::new()),
    };
    let mut duplicate = false;
    let mut count = 1;
    while !form.overwrite && path.exists() {
        if fs::read(&path).is_ok_and(|held| held == bytes) {
            duplicate = true;
            break;
        }
        filename = format!("{stem} ({count}){extension}");
        path = dir.join(&filename);
        count += 1;
    }
    if !duplicate {
        let written = shape(bytes).is_ok_and(|bytes| fs::write(&path, bytes).is_ok());
        if !written {
            return trips();
        }
    }
    machine.log.write(None, None, LogEvent::Uploaded { name: filename.clone() });
    Json(json!({"name": filename, "subfolder": form.subfolder, "type": folder.name()})).into_response()
}
