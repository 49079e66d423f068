//! A frontend's files, from a directory that somebody installed: none is part of this program.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

use super::Node;
use super::answer::Problem;

/// Whatever no route takes: a file of the frontend, where there is one.
pub(super) async fn file(State(node): State<Node>, request: Request) -> Result<Response, Problem> {
    let Some(root) = &node.frontend else { return Err(Problem::not_found()) };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Problem::not_found());
    }
    let path = wanted(root, request.uri().path()).ok_or_else(Problem::not_found)?;
    let root = root.clone();
    let opened = node.tasks.blocking(move || {
        // Links inside lead nowhere else either.
        let real = path.canonicalize().ok().filter(|real| real.starts_with(&root))?;
        let file = std::fs::File::open(&real).ok()?;
        let bytes = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        Some((real, file, bytes))
    });
    let (path, file, bytes) = opened.await.ok().flatten().ok_or_else(Problem::not_found)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    headers.insert(CONTENT_LENGTH, bytes.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let content = ReaderStream::new(tokio::fs::File::from_std(file));
    Ok((headers, Body::from_stream(content)).into_response())
}

/// Where a path of a URL is on disk; none when it leads elsewhere.
fn wanted(root: &Path, path: &str) -> Option<PathBuf> {
    let path = percent_decoded(path)?;
    let mut file = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." || part.contains(['\\', '\0', ':']) {
            return None;
        }
        file.push(part);
    }
    if path.ends_with('/') {
        file.push("index.html");
    }
    Some(file)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_frontends_directory() {
        let root = Path::new("/srv/frontend");
        let at = |path: &str| wanted(root, path).map(|path| path.display().to_string());
        assert_eq!(at("/").as_deref(), Some("/srv/frontend/index.html"));
        assert_eq!(at("/assets/a%20b.js").as_deref(), Some("/srv/frontend/assets/a b.js"));
        for bad in ["/../etc/passwd", "/a/%2e%2e/%2E%2E/b", "/a%5c..%5cb", "/%00", "/%zz", "/c:/x", "/%"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
