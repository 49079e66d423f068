//! Files: what clients uploaded, and what their prompts made. Opened as they are sent.
//!
//! A prompt's files are in a subfolder of its own name, so that no two machines' `ComfyUI_00001_.png` can be confused.

use std::io;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use scenemesh_protocol::task::InputFile;
use serde::Deserialize;

use super::Node;
use super::answer::Problem;
use super::desk::{Key, Scope};
use super::guard::Caller;
use super::picture::{self, Wish};
use super::uploads::{BadPlace, Folder, Place};
use crate::store::{BlobError, Opener};

#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    filename: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    subfolder: Option<String>,
    preview: Option<String>,
    channel: Option<String>,
}

pub(super) async fn view(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(filename) = asked.filename.as_deref() else { return Err(Problem::not_found()) };
    let place = place(filename, asked.kind.as_deref(), asked.subfolder.as_deref())?;
    let file = locate(&node, &caller.scope, &place).await.ok_or_else(Problem::not_found)?;
    let wish = picture::wish(asked.preview.as_deref(), asked.channel.as_deref());
    send(&node, &place.name, &file, wish, headers.get(RANGE)).await
}

/// A file, or what is wished for of a picture.
pub(super) async fn send(
    node: &Node,
    name: &str,
    file: &InputFile,
    wish: Option<Wish>,
    range: Option<&HeaderValue>,
) -> Result<Response, Problem> {
    let opener = node.ports.store.blobs.open(file.root, &file.key).await.map_err(|error| gone(&error))?;
    match wish {
        Some(wish) if file.bytes <= picture::LIMIT => changed(node, name, opener, wish).await,
        _ => plain(name, opener, range),
    }
}

/// Reads what is asked for, with core's own refusals.
fn place(filename: &str, kind: Option<&str>, subfolder: Option<&str>) -> Result<Place, Problem> {
    let marks = [(" [input]", Folder::Input), (" [output]", Folder::Output), (" [temp]", Folder::Temp)];
    let marked = marks.iter().find_map(|(mark, folder)| Some((filename.strip_suffix(mark)?, *folder)));
    let (filename, folder) = match (marked, kind) {
        (Some((filename, folder)), _) => (filename, Some(folder)),
        (None, kind) => (filename, Folder::of(kind.unwrap_or("output"))),
    };
    let refuse = |why| Problem::bad(why);
    if filename.is_empty() || filename.starts_with('/') || filename.contains("..") {
        return Err(refuse("this is no file name"));
    }
    let folder = folder.ok_or_else(|| refuse("type is input, output or temp"))?;
    Place::read(folder, subfolder.unwrap_or_default(), filename).map_err(|bad| match bad {
        BadPlace::Name => refuse("this is no file name"),
        BadPlace::Escapes => Problem::new(StatusCode::FORBIDDEN, "this subfolder leads elsewhere"),
    })
}

/// The caller's own file at a place: an upload, or a result of one of its prompts.
pub(super) async fn locate(node: &Node, scope: &Scope, place: &Place) -> Option<InputFile> {
    if let Some(upload) = node.uploads.get(scope, place) {
        return Some(upload.file);
    }
    if place.folder == Folder::Input {
        return None;
    }
    let key = Key { scope: scope.clone(), id: place.subfolder.as_str().into() };
    let (files, name) = (node.files.clone(), place.name.clone());
    let found = node.tasks.blocking(move || {
        let record = files.read(&key)?;
        let ended = record.ended?;
        let output = ended.outputs.into_iter().find(|output| output.filename == name)?;
        Some((record.job.parse().ok()?, output.index))
    });
    let (job, index) = found.await.ok().flatten()?;
    let view = node.ports.scheduler.show(job).await?;
    let output = view.tasks.first()?.outputs.get(index as usize)?;
    (output.filename == place.name).then(|| InputFile {
        name: String::new(),
        root: output.root,
        key: output.key.clone(),
        bytes: output.bytes,
    })
}

pub(super) fn gone(error: &BlobError) -> Problem {
    match error {
        BlobError::Unknown { .. } => Problem::not_found(),
        BlobError::Stopping => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error),
        other => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, other),
    }
}

/// Files with these endings are shown by browsers; what could run as a page of ours is only to be saved.
fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "avif" => "image/avif",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "mov" => "video/quicktime",
        "flac" => "audio/flac",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "ogg" | "opus" => "audio/ogg",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "glb" => "model/gltf-binary",
        _ => "application/octet-stream",
    }
}

fn headers(name: &str, kind: &str) -> HeaderMap {
    let shown: String =
        name.chars().map(|c| if c.is_ascii() && !matches!(c, '"' | '\\') { c } else { '_' }).collect();
    let way = if kind == "application/octet-stream" { "attachment" } else { "inline" };
    let fields = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, format!("{way}; filename=\"{shown}\"")),
        // Another machine made these bytes: nothing may take them for a page of ours.
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
        (CACHE_CONTROL, "private, no-cache".to_owned()),
    ];
    let fields =
        fields.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
    fields.collect()
}

/// What of a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Whole,
    /// The first byte, and the last.
    Part(u64, u64),
    Beyond,
}

/// A single range counts; several, and what cannot be read, mean the whole.
fn span(asked: Option<&HeaderValue>, bytes: u64) -> Span {
    let range = asked.and_then(|value| value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Span::Whole };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), _) if first >= bytes => Span::Beyond,
        (Ok(first), Ok(last)) if first <= last => Span::Part(first, last.min(bytes - 1)),
        (Ok(first), Err(_)) if last.trim().is_empty() => Span::Part(first, bytes - 1),
        (Err(_), Ok(0)) if first.trim().is_empty() => Span::Beyond,
        (Err(_), Ok(tail)) if first.trim().is_empty() && bytes > 0 => {
            Span::Part(bytes.saturating_sub(tail), bytes - 1)
        }
        _ => Span::Whole,
    }
}

fn plain(name: &str, mut opener: Opener, range: Option<&HeaderValue>) -> Result<Response, Problem> {
    let bytes = opener.bytes();
    let mut headers = headers(name, content_type(name));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (status, first, last) = match span(range, bytes) {
        Span::Beyond => {
            headers.insert(CONTENT_RANGE, number(format!("bytes */{bytes}")));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
        Span::Whole => (StatusCode::OK, 0, bytes.saturating_sub(1)),
        Span::Part(first, last) => {
            headers.insert(CONTENT_RANGE, number(format!("bytes {first}-{last}/{bytes}")));
            (StatusCode::PARTIAL_CONTENT, first, last)
        }
    };
    let left = if bytes == 0 { 0 } else { last - first + 1 };
    headers.insert(CONTENT_LENGTH, number(left.to_string()));
    let skip = opener.seek(first);
    // A broken blob breaks the connection off before its end: the client sees fewer bytes than were promised.
    let chunks = stream::try_unfold((opener, skip, left), |(mut opener, skip, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut chunk) = opener.next().await.map_err(io::Error::other)? else { return Ok(None) };
        let chunk = chunk.split_off(skip.min(chunk.len()));
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        Ok::<_, io::Error>(Some((chunk.slice(..take), (opener, 0, left - take as u64))))
    });
    Ok((status, headers, Body::from_stream(chunks)).into_response())
}

fn number(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
}

/// The whole file, which is small.
pub(super) async fn whole(mut opener: Opener) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = opener.next().await.map_err(|error| gone(&error))? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The picture as it is wished for; a file that is none as it is.
async fn changed(node: &Node, name: &str, opener: Opener, wish: Wish) -> Result<Response, Problem> {
    let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let place = node.pictures.clone().acquire_owned().await.map_err(busy)?;
    let bytes = whole(opener).await?;
    let original = Bytes::from(bytes);
    let source = original.clone();
    let made = node
        .tasks
        .blocking(move || {
            // Whether anybody still waits or not: so many at once.
            let _place = place;
            picture::change(&source, wish)
        })
        .await
        .ok()
        .flatten();
    Ok(match made {
        Some((kind, bytes)) => (headers(name, kind), bytes).into_response(),
        None => (headers(name, content_type(name)), original).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_means_them() {
        let span = |text: &'static str, bytes| span(Some(&HeaderValue::from_static(text)), bytes);
        assert_eq!(span("bytes=0-9", 100), Span::Part(0, 9));
        assert_eq!(span("bytes=90-", 100), Span::Part(90, 99));
        assert_eq!(span("bytes=-5", 100), Span::Part(95, 99));
        assert_eq!(span("bytes=-500", 100), Span::Part(0, 99));
        assert_eq!(span("bytes=50-500", 100), Span::Part(50, 99));
        for beyond in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(span(beyond, 100), Span::Beyond, "{beyond}");
        }
        for whole in ["bytes=9-5", "bytes=a-b", "bytes=0-1,5-6", "lines=1-2", "bytes=-"] {
            assert_eq!(span(whole, 100), Span::Whole, "{whole}");
        }
        assert_eq!(span("bytes=-5", 0), Span::Whole);
        assert_eq!(super::span(None, 100), Span::Whole);
    }

    #[test]
    fn names_are_read_and_refused_as_core_does() {
        let read = |name: &str, kind: Option<&str>, sub: &str| place(name, kind, Some(sub));
        let status = |result: Result<Place, Problem>| result.unwrap_err().into_response().status().as_u16();
        let at =
            |folder, subfolder: &str| Place { folder, subfolder: subfolder.into(), name: "a.png".into() };
        assert_eq!(read("a.png", None, "p").unwrap(), at(Folder::Output, "p"));
        assert_eq!(read("a.png [input]", Some("output"), "").unwrap(), at(Folder::Input, ""));
        assert_eq!(read("x/a.png", Some("temp"), "").unwrap(), at(Folder::Temp, ""));
        for bad in ["", "/etc/passwd", "../main.py"] {
            assert_eq!(status(read(bad, None, "")), 400, "{bad}");
        }
        assert_eq!(status(read("a.png", Some("nowhere"), "")), 400);
        assert_eq!(status(read("a.png", None, "../..")), 403);
        assert_eq!(content_type("page.HTML"), "application/octet-stream");
        assert_eq!(content_type("x.svg"), "application/octet-stream");
    }
}
