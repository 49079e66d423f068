//! What belongs to whoever sits at a frontend: settings and saved workflows, each scope's own. As much as a frontend needs
//! to start and to keep its work.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Path as InPath, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::Node;
use super::answer::{Problem, object};
use super::guard::Caller;
use crate::clock;
use crate::http::body;
use crate::platform;

/// Most bytes of one file; a workflow with pictures in it has a few.
const LARGEST: usize = 16 << 20;
/// Most files of one scope.
const MOST: usize = 2000;
/// Most bytes of all settings together.
const SETTINGS: usize = 1 << 20;

/// Files of local users. One change at a time.
#[derive(Clone, Debug)]
pub(super) struct Local {
    dir: PathBuf,
    turn: Arc<Mutex<()>>,
}

/// The first line of a file; the rest is its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    path: String,
    created_ms: u64,
    modified_ms: u64,
}

impl Local {
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.join("gateway").join("users"), turn: Arc::default() }
    }

    fn home(&self, scope: &str) -> io::Result<PathBuf> {
        let home = self.dir.join(&blake3::hash(scope.as_bytes()).to_hex()[..32]);
        platform::create_private_dir(&self.dir)?;
        platform::create_private_dir(&home)?;
        Ok(home)
    }

    fn file(&self, scope: &str, path: &str) -> io::Result<PathBuf> {
        let name = format!("{}.file", &blake3::hash(path.as_bytes()).to_hex()[..40]);
        Ok(self.home(scope)?.join(name))
    }

    fn settings(&self, scope: &str) -> io::Result<Map<String, Value>> {
        match std::fs::read(self.home(scope)?.join("settings.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
            Err(error) => Err(error),
        }
    }

    fn read(&self, scope: &str, path: &str) -> io::Result<Option<(Head, Vec<u8>)>> {
        match std::fs::read(self.file(scope, path)?) {
            Ok(bytes) => Ok(split(bytes).filter(|(head, _)| head.path == path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Heads and sizes of all files of a scope.
    fn list(&self, scope: &str) -> io::Result<Vec<(Head, usize)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.home(scope)?)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "file") {
                files
                    .extend(split(std::fs::read(entry.path())?).map(|(head, content)| (head, content.len())));
            }
        }
        files.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn split(mut bytes: Vec<u8>) -> Option<(Head, Vec<u8>)> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let content = bytes.split_off(at + 1);
    Some((serde_json::from_slice(&bytes).ok()?, content))
}

fn joined(head: &Head, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(content);
    Ok(bytes)
}

/// A path below the user's folder.
fn path(given: &str) -> Result<String, Problem> {
    let path = given.replace('\\', "/");
    let bad =
        path.starts_with('/') || path.len() > 512 || path.chars().any(char::is_control) || path.contains(':');
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if bad || parts.is_empty() || parts.contains(&"..") {
        return Err(Problem::new(StatusCode::FORBIDDEN, "this path leads elsewhere"));
    }
    Ok(parts.join("/"))
}

/// Does something with the files, in turn, where it may block.
async fn work<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Local) -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let local = node.local.clone();
    let _turn = node.local.turn.lock().await;
    let done = node.tasks.blocking(move || work(&local)).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::other("the node is stopping")));
    done.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}

pub(super) async fn users() -> Json<Value> {
    Json(json!({"storage": "server", "migrated": true}))
}

/// A page's own style, which nobody has here.
pub(super) async fn no_style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css")], "")
}

/// What every browser asks for by itself.
pub(super) async fn no_picture() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Lists of things that a ComfyUI has and a mesh does not.
pub(super) async fn none() -> Json<Value> {
    Json(json!([]))
}

/// Things that a ComfyUI has and a mesh does not.
pub(super) async fn nothing() -> Json<Value> {
    Json(json!({}))
}

pub(super) async fn settings(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Problem> {
    work(&node, move |local| local.settings(&caller.scope)).await.map(|settings| Json(settings.into()))
}

pub(super) async fn setting(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath<String>,
) -> Result<Json<Value>, Problem> {
    let mut settings = work(&node, move |local| local.settings(&caller.scope)).await?;
    Ok(Json(settings.remove(&id).unwrap_or_default()))
}

pub(super) async fn change_settings(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Problem> {
    change(&node, caller, object(request).await?).await
}

pub(super) async fn change_setting(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let bytes = body::read(request, SETTINGS).await?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| Problem::bad("a setting is JSON"))?;
    change(&node, caller, Map::from_iter([(id, value)])).await
}

async fn change(node: &Node, caller: Caller, new: Map<String, Value>) -> Result<StatusCode, Problem> {
    let written = work(node, move |local| {
        let mut settings = local.settings(&caller.scope)?;
        settings.extend(new);
        let bytes = Value::Object(settings).to_string().into_bytes();
        if bytes.len() > SETTINGS {
            return Ok(false);
        }
        platform::replace_file(&local.home(&caller.scope)?.join("settings.json"), &bytes)?;
        Ok(true)
    });
    if written.await? {
        Ok(StatusCode::OK)
    } else {
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too many settings"))
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Listing {
    dir: Option<String>,
    recurse: Option<String>,
    full_info: Option<String>,
    split: Option<String>,
}

fn told(head: &Head, size: usize, path: &str) -> Value {
    json!({"path": path, "size": size, "modified": head.modified_ms, "created": head.created_ms})
}

pub(super) async fn files(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Listing>,
) -> Result<Json<Value>, Problem> {
    let dir = asked.dir.as_deref().filter(|dir| !dir.is_empty());
    let dir = dir.ok_or_else(|| Problem::bad("which directory?"))?;
    let below = format!("{}/", path(dir)?);
    let yes = |given: &Option<String>| given.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let (recurse, full, split) = (yes(&asked.recurse), yes(&asked.full_info), yes(&asked.split));
    let all = work(&node, move |local| local.list(&caller.scope)).await?;
    let found: Vec<Value> = all
        .iter()
        .filter_map(|(head, size)| Some((head, size, head.path.strip_prefix(&below)?)))
        .filter(|(_, _, rest)| recurse || !rest.contains('/'))
        .map(|(head, size, rest)| match (full, split) {
            (true, _) => told(head, *size, rest),
            (false, true) => {
                let parts = std::iter::once(rest).chain(rest.split('/'));
                json!(parts.collect::<Vec<_>>())
            }
            (false, false) => json!(rest),
        })
        .collect();
    Ok(Json(found.into()))
}

pub(super) async fn file(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath(given): InPath<String>,
) -> Result<Response, Problem> {
    let path = path(&given)?;
    // Asked for at every start: nobody is to look for an error where there is none.
    let unsaved = match path.as_str() {
        "user.css" => return Ok(no_style().await.into_response()),
        "comfy.templates.json" => Some(b"[]".to_vec()),
        _ => None,
    };
    let found = work(&node, {
        let path = path.clone();
        move |local| local.read(&caller.scope, &path)
    });
    let unsaved = unsaved.map(|content| (Head { path, created_ms: 0, modified_ms: 0 }, content));
    let (head, content) = found.await?.or(unsaved).ok_or_else(Problem::not_found)?;
    let kind = if head.path.ends_with(".json") { "application/json" } else { "application/octet-stream" };
    Ok(([(CONTENT_TYPE, kind), (axum::http::header::X_CONTENT_TYPE_OPTIONS, "nosniff")], content)
        .into_response())
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Saving {
    overwrite: Option<String>,
    full_info: Option<String>,
}

impl Saving {
    fn keeps(&self) -> bool {
        self.overwrite.as_deref() == Some("false")
    }

    fn answer(&self, head: &Head, size: usize) -> Json<Value> {
        let full = self.full_info.as_deref() == Some("true");
        Json(if full { told(head, size, &head.path) } else { json!(head.path) })
    }
}

pub(super) async fn save(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath(given): InPath<String>,
    Query(saving): Query<Saving>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let path = path(&given)?;
    let content = body::read(request, LARGEST).await?;
    let keep = saving.keeps();
    let size = content.len();
    let saved = work(&node, move |local| put(local, &caller.scope, path, &content, keep));
    saved.await?.map(|head| saving.answer(&head, size))
}

fn put(
    local: &Local,
    scope: &str,
    path: String,
    content: &[u8],
    keep: bool,
) -> io::Result<Result<Head, Problem>> {
    let before = local.read(scope, &path)?;
    if keep && before.is_some() {
        return Ok(Err(Problem::new(StatusCode::CONFLICT, "there is such a file")));
    }
    if before.is_none() && local.list(scope)?.len() >= MOST {
        return Ok(Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "too many files are kept already")));
    }
    let now = clock::wall_ms();
    let head = Head { path, created_ms: before.map_or(now, |(head, _)| head.created_ms), modified_ms: now };
    platform::replace_file(&local.file(scope, &head.path)?, &joined(&head, content)?)?;
    Ok(Ok(head))
}

pub(super) async fn remove(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath(given): InPath<String>,
) -> Result<StatusCode, Problem> {
    let path = path(&given)?;
    let removed = work(&node, move |local| match local.read(&caller.scope, &path)? {
        Some(_) => std::fs::remove_file(local.file(&caller.scope, &path)?).map(|()| true),
        None => Ok(false),
    });
    if removed.await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

pub(super) async fn rename(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    InPath((from, to)): InPath<(String, String)>,
    Query(saving): Query<Saving>,
) -> Result<Json<Value>, Problem> {
    let (from, to) = (path(&from)?, path(&to)?);
    let keep = saving.keeps();
    let moved = work(&node, move |local| {
        let Some((_, content)) = local.read(&caller.scope, &from)? else {
            return Ok(Err(Problem::not_found()));
        };
        let size = content.len();
        let head = match put(local, &caller.scope, to, &content, keep)? {
            Ok(head) => head,
            Err(problem) => return Ok(Err(problem)),
        };
        if head.path != from {
            std::fs::remove_file(local.file(&caller.scope, &from)?)?;
        }
        Ok(Ok((head, size)))
    });
    moved.await?.map(|(head, size)| saving.answer(&head, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_each_scopes_own_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        platform::create_private_dir(&dir.path().join("gateway")).unwrap();
        let local = Local::at(dir.path());
        let put = |scope: &str, path: &str, content: &[u8], keep| {
            put(&local, scope, path.to_owned(), content, keep).unwrap().map(|head| head.path).ok()
        };
        assert_eq!(put("a", "workflows/x.json", b"{}\n{}", false), Some("workflows/x.json".into()));
        assert_eq!(put("a", "workflows/x.json", b"1", true), None, "it is not to be overwritten");
        assert_eq!(put("b", "workflows/x.json", b"2", true), Some("workflows/x.json".into()));
        let read = |scope: &str, path: &str| local.read(scope, path).unwrap().map(|(_, content)| content);
        assert_eq!(read("a", "workflows/x.json"), Some(b"{}\n{}".to_vec()));
        assert_eq!(read("b", "workflows/x.json"), Some(b"2".to_vec()));
        assert_eq!(read("c", "workflows/x.json"), None);
        assert_eq!(local.list("a").unwrap().len(), 1);
    }

    #[test]
    fn paths_stay_below_their_folder() {
        assert_eq!(path("workflows//./a b.json").unwrap(), "workflows/a b.json");
        assert_eq!(path("..a/b").unwrap(), "..a/b");
        for bad in ["", "/etc/passwd", "../x", "a/../../b", "a\\..\\b", "C:/x", "a\nb"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
}
