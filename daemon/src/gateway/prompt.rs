//! `POST /prompt`: judged as ComfyUI judges it, then a job of the mesh like any other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use scenemesh_protocol::ids::{JobId, random_bytes};
use scenemesh_protocol::task::{InputFile, OnSuspect};
use serde_json::{Map, Number, Value, json};
use tokio::sync::oneshot;

use super::answer::Problem;
use super::catalog::{Catalog, Verdict};
use super::desk::{Key, NoRoom};
use super::files::Files;
use super::guard::Caller;
use super::record::{Asked, Record};
use super::terms::{Terms, terms};
use super::uploads::{Folder, Place, Uploads};
use super::view::locate;
use super::{Node, answer, etn};
use crate::clock;
use crate::executor::graph::{self, FileInput, Graph};
use crate::executor::policy::strip_tokens;
use crate::http::body;
use crate::messages::Lang;
use crate::scheduler::{GRAPH_LIMIT, JobSpec, KeepOn, Needs, StageSpec, SubmitError};
use crate::store::JournalError;

/// A prompt with all that comes beside it.
const LIMIT: usize = GRAPH_LIMIT + (1 << 20);
/// A renderer's own limit may be lower; a day stops what would never end.
const TIME_LIMIT: Duration = Duration::from_hours(24);
/// Longest id that a client may give.
const LONGEST: usize = 64;
/// Longest client id.
const LONGEST_CLIENT: usize = 128;

/// What a body asks for.
struct Wanted {
    id: String,
    client: Option<String>,
    number: Option<Number>,
    front: bool,
    prompt: Map<String, Value>,
    extra_data: Map<String, Value>,
    targets: Option<Vec<String>>,
}

pub(super) async fn post(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Extension(lang): Extension<Lang>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let bytes = body::read(request, LIMIT).await?;
    // A prompt takes many times its bytes while it is read and judged.
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let place = node.prompts.clone().acquire_owned().await.map_err(stopping)?;
    let wanted = read(&bytes)?;
    drop(bytes);
    // A client that hangs up does not leave half a prompt behind.
    let (reply, answer) = oneshot::channel();
    let own = node.clone();
    node.tasks.spawn("gateway prompt", async move {
        drop(reply.send(queue(&own, &caller, lang, wanted).await));
        drop(place);
        Ok(())
    });
    answer.await.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping"))?
}

fn read(bytes: &[u8]) -> Result<Wanted, Problem> {
    let bad = |kind, why: &str| Problem::prompt(StatusCode::BAD_REQUEST, kind, why);
    let mut body: Map<String, Value> = serde_json::from_slice(bytes)
        .map_err(|error| bad("invalid_json", &format!("not a JSON object: {error}")))?;
    let prompt = match body.remove("prompt") {
        Some(Value::Object(prompt)) => prompt,
        Some(_) => return Err(bad("invalid_prompt", "the prompt is not a JSON object")),
        None => return Err(bad("no_prompt", "No prompt provided")),
    };
    let mut extra_data =
        body.remove("extra_data").filter(|extra| !extra.is_null()).unwrap_or_else(|| json!({}));
    // Logins at comfy.org are the user's own: they are kept nowhere and go nowhere.
    strip_tokens(&mut extra_data);
    let Value::Object(mut extra_data) = extra_data else {
        return Err(bad("invalid_extra_data", "extra_data is not a JSON object"));
    };
    let inner = extra_data.remove("client_id");
    let client = body.remove("client_id").or(inner);
    let client =
        client.and_then(|client| client.as_str().map(str::to_owned)).filter(|client| !client.is_empty());
    if client.as_ref().is_some_and(|client| client.len() > LONGEST_CLIENT) {
        return Err(bad("invalid_client_id", "this client id is too long"));
    }
    let id = match body.remove("prompt_id") {
        None | Some(Value::Null) => fresh_id(),
        Some(Value::String(id)) if is_id(&id) => id,
        Some(_) => {
            return Err(bad("invalid_prompt_id", "a prompt id is a UUID, or other letters, digits, - and _"));
        }
    };
    let targets = body.remove("partial_execution_targets").and_then(|targets| {
        let targets = targets.as_array()?.iter().map(|id| id.as_str().map(str::to_owned));
        targets.collect::<Option<Vec<String>>>()
    });
    let number = match body.remove("number") {
        Some(Value::Number(number)) => Number::from_f64(number.as_f64().unwrap_or_default()),
        _ => None,
    };
    let front = body.remove("front").is_some_and(|front| front == true);
    Ok(Wanted { id, client, number, front, prompt, extra_data, targets })
}

/// It is part of file names and of folders' names.
pub(super) fn is_id(id: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !id.is_empty() && id.len() <= LONGEST && id.bytes().all(letter)
}

/// A random UUID (RFC 9562, version 4).
fn fresh_id() -> String {
    let mut bytes = random_bytes::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

async fn queue(node: &Node, caller: &Caller, lang: Lang, wanted: Wanted) -> Result<Json<Value>, Problem> {
    let listener = &node.listeners[caller.listener];
    let terms = terms(&node.ports, listener)
        .map_err(|error| Problem::prompt(StatusCode::FORBIDDEN, "no_terms", &error.to_string()))?;
    let key = Key { scope: caller.scope.clone(), id: wanted.id.as_str().into() };
    let prompt = etn::lowered(node, caller, &wanted.prompt).await?;
    let judged = judge(node, caller, lang, prompt, wanted.targets.clone()).await?;
    let (graph, inputs) = bring(node, caller, &judged.graph).await?;
    let reserved = key.clone();
    let room = node
        .hub
        .with(move |desk| (desk.reserve(&reserved).map(|()| desk.number(&reserved.scope)), Vec::new()));
    let count = room.await?.map_err(|why| match why {
        NoRoom::Taken => {
            Problem::prompt(StatusCode::BAD_REQUEST, "prompt_id_taken", "another prompt has this id already")
        }
        NoRoom::Full => {
            Problem::prompt(StatusCode::TOO_MANY_REQUESTS, "queue_full", "too many prompts wait already")
        }
    })?;
    let number =
        wanted.number.clone().unwrap_or_else(|| if wanted.front { (-count).into() } else { count.into() });
    let queued = submit(node, caller, &terms, wanted, judged.outputs, graph, inputs, number.clone()).await;
    if let Err(problem) = queued {
        drop(node.hub.with(move |desk| (desk.unreserve(&key), Vec::new())).await);
        return Err(problem);
    }
    Ok(Json(json!({"prompt_id": *key.id, "number": number, "node_errors": judged.node_errors})))
}

/// What may run of a prompt.
struct Judged {
    graph: Map<String, Value>,
    outputs: Vec<String>,
    node_errors: Map<String, Value>,
}

async fn judge(
    node: &Node,
    caller: &Caller,
    lang: Lang,
    prompt: Map<String, Value>,
    targets: Option<Vec<String>>,
) -> Result<Judged, Problem> {
    let catalog: Arc<Catalog> = node.catalog(caller);
    let shelf =
        Shelf { uploads: node.uploads.clone(), files: node.files.clone(), scope: caller.scope.clone() };
    let judging = node.tasks.blocking(move || {
        let verdict = catalog.validate(&prompt, targets.as_deref(), &|name| shelf.has(name));
        judged(prompt, targets, verdict, lang)
    });
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    judging.await.map_err(stopping)?
}

fn judged(
    prompt: Map<String, Value>,
    targets: Option<Vec<String>>,
    verdict: Verdict,
    lang: Lang,
) -> Result<Judged, Problem> {
    match verdict {
        Verdict::Refused(refusal) => Err(Problem::with(StatusCode::BAD_REQUEST, refusal.body(&prompt, lang))),
        Verdict::Fine { outputs, node_errors } => {
            let graph = if targets.is_some() || !node_errors.is_empty() {
                upstream(&prompt, &outputs)
            } else {
                prompt
            };
            Ok(Judged { graph, outputs, node_errors })
        }
        Verdict::Unjudged => {
            let outputs = targets.clone().unwrap_or_else(|| ends(&prompt));
            let graph = if targets.is_some() { upstream(&prompt, &outputs) } else { prompt };
            if graph.is_empty() {
                return Err(Problem::prompt(
                    StatusCode::BAD_REQUEST,
                    "prompt_no_outputs",
                    "Prompt has no outputs",
                ));
            }
            Ok(Judged { graph, outputs, node_errors: Map::new() })
        }
    }
}

fn links(node: &Value) -> impl Iterator<Item = &str> {
    let inputs = node["inputs"].as_object().into_iter().flatten();
    inputs.filter_map(|(_, value)| graph::as_link(value).map(|(id, _)| id))
}

/// These nodes and all that they need.
fn upstream(prompt: &Map<String, Value>, outputs: &[String]) -> Map<String, Value> {
    let mut wanted: HashSet<&str> = HashSet::new();
    let mut stack: Vec<&str> = outputs.iter().map(String::as_str).collect();
    while let Some(id) = stack.pop() {
        if let Some(node) = prompt.get(id)
            && wanted.insert(id)
        {
            stack.extend(links(node));
        }
    }
    prompt
        .iter()
        .filter(|(id, _)| wanted.contains(id.as_str()))
        .map(|(id, node)| (id.clone(), node.clone()))
        .collect()
}

/// Nodes that no other takes anything from.
fn ends(prompt: &Map<String, Value>) -> Vec<String> {
    let used: HashSet<&str> = prompt.values().flat_map(links).collect();
    prompt.keys().filter(|id| !used.contains(id.as_str())).cloned().collect()
}

/// What files a caller has, as far as that can be said without asking anybody.
struct Shelf {
    uploads: Uploads,
    files: Files,
    scope: Arc<str>,
}

impl Shelf {
    fn has(&self, literal: &str) -> bool {
        let Ok(place) = Place::named(literal) else { return false };
        if self.uploads.get(&self.scope, &place).is_some() {
            return true;
        }
        if place.folder == Folder::Input {
            return false;
        }
        let key = Key { scope: self.scope.clone(), id: place.subfolder.as_str().into() };
        let ended = self.files.read(&key).and_then(|record| record.ended);
        ended.is_some_and(|ended| ended.outputs.iter().any(|output| output.filename == place.name))
    }
}

/// The graph as it travels, and the files that it names.
async fn bring(
    node: &Node,
    caller: &Caller,
    prompt: &Map<String, Value>,
) -> Result<(Graph, Vec<InputFile>), Problem> {
    let mut graph = Graph::from_value(Value::Object(prompt.clone()))
        .map_err(|error| Problem::prompt(StatusCode::BAD_REQUEST, "invalid_prompt", &error.to_string()))?;
    let mut found: BTreeMap<String, (Place, InputFile)> = BTreeMap::new();
    for named in graph.file_inputs() {
        let place = Place::named(&named.literal).map_err(|_| no_file(&named))?;
        let file = match found.values().find(|(known, _)| *known == place) {
            Some((_, file)) => file.clone(),
            None => locate(node, &caller.scope, &place).await.ok_or_else(|| no_file(&named))?,
        };
        // Two folders may have a file of one name.
        let own = named.name().to_owned();
        let name = match found.get(&own) {
            Some((known, _)) if *known != place => format!("{}/{own}", place.folder.word()),
            _ => own,
        };
        if name != named.name() {
            graph.put(&named.node, &named.input, Value::String(name.clone()));
        }
        let mut file = file.clone();
        file.name.clone_from(&name);
        found.insert(name, (place, file));
    }
    Ok((graph, found.into_values().map(|(_, file)| file).collect()))
}

fn no_file(named: &FileInput) -> Problem {
    let why = format!("{} - Invalid image file: {}", named.input, named.literal);
    Problem::input(&named.node, &named.class, &named.input, &why)
}

#[expect(clippy::too_many_arguments, reason = "each is another's to say")]
async fn submit(
    node: &Node,
    caller: &Caller,
    terms: &Terms,
    wanted: Wanted,
    outputs: Vec<String>,
    graph: Graph,
    inputs: Vec<InputFile>,
    number: Number,
) -> Result<(), Problem> {
    let previews = wanted.extra_data.get("preview_method").is_none_or(|method| method != "none");
    let mut extra_data = wanted.extra_data.clone();
    extra_data.remove("preview_method");
    let stage = StageSpec {
        graph: graph.to_bytes(),
        extra_data: Value::Object(extra_data).to_string().into_bytes(),
        inputs,
        count: 1,
        ..StageSpec::default()
    };
    let spec = JobSpec {
        label: format!("ComfyUI {}", wanted.id),
        person: caller.person.to_string(),
        stages: vec![stage],
        class: node.listeners[caller.listener].class,
        reach: terms.reach.clone(),
        project: terms.project,
        needs: Needs::default(),
        on_suspect: OnSuspect::Keep,
        keep_on: KeepOn::Anybody,
        previews,
        full_hygiene: terms.full_hygiene,
        time_limit: TIME_LIMIT,
    };
    // The prompt's file first: a job without one would render for nobody. A file without a job goes at the next start.
    let job = JobId::random();
    let Wanted { id, client, prompt, extra_data, .. } = wanted;
    let asked = Asked { number, client, prompt, extra_data, outputs_to_execute: outputs };
    let record = Arc::new(Record::new(&caller.scope, &id, job.to_string(), clock::wall_ms(), asked));
    let (files, written) = (node.files.clone(), record.clone());
    let wrote = node.tasks.blocking(move || files.write(&written)).await;
    let wrote = wrote.unwrap_or_else(|_| Err(std::io::Error::other("the node is stopping")));
    let bytes = wrote.map_err(|error| {
        let why = format!("the prompt could not be written down: {error}");
        Problem::prompt(StatusCode::INSUFFICIENT_STORAGE, "not_written", &why)
    })?;
    if let Err(error) = node.ports.scheduler.submit_as(job, spec).await {
        // A node that stops may have taken it: it looks at its next start.
        if !matches!(error, SubmitError::Stopping) {
            let (files, key) =
                (node.files.clone(), Key { scope: caller.scope.clone(), id: id.as_str().into() });
            drop(node.tasks.blocking(move || files.remove(&key)).await);
        }
        return Err(refused(&error));
    }
    node.hub.accepted(&record, bytes, job).await.map_err(answer::Problem::from)
}

fn refused(error: &SubmitError) -> Problem {
    let (status, kind) = match error {
        SubmitError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        SubmitError::Journal(JournalError::NoSpace { .. }) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        SubmitError::Journal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_written"),
        SubmitError::Partner { .. } | SubmitError::Token { .. } => (StatusCode::BAD_REQUEST, "refused"),
        _ => (StatusCode::BAD_REQUEST, "invalid_prompt"),
    };
    Problem::prompt(status, kind, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: Value) -> Result<Wanted, Problem> {
        read(body.to_string().as_bytes())
    }

    #[test]
    fn a_body_is_read_with_what_belongs_to_it() {
        let wanted = of(json!({
            "prompt": {"1": {}}, "client_id": "c", "prompt_id": "0f9a3c1e-0000-4000-8000-000000000000", "front": true,
            "extra_data": {"client_id": "other", "auth_token_comfy_org": "SECRET", "kept": {"api_key_comfy_org": "SECRET", "x": 1}},
            "partial_execution_targets": ["9"],
        }))
        .unwrap();
        assert_eq!(wanted.id, "0f9a3c1e-0000-4000-8000-000000000000");
        assert_eq!((wanted.client.as_deref(), wanted.front), (Some("c"), true));
        assert_eq!(json!(wanted.extra_data), json!({"kept": {"x": 1}}));
        assert_eq!(wanted.targets, Some(vec!["9".to_owned()]));
        let bare = of(json!({"prompt": {}, "number": 7})).unwrap();
        assert!(is_id(&bare.id) && bare.id.len() == 36 && bare.client.is_none());
        assert_eq!(bare.number.unwrap().to_string(), "7.0");
        assert_eq!(
            of(json!({"prompt": {}, "extra_data": {"client_id": "c"}})).unwrap().client.as_deref(),
            Some("c")
        );
        for bad in [
            json!([]),
            json!({}),
            json!({"prompt": [1]}),
            json!({"prompt": {}, "prompt_id": "../x"}),
            json!({"prompt": {}, "prompt_id": 5}),
            json!({"prompt": {}, "extra_data": 5}),
            json!({"prompt": {}, "client_id": "c".repeat(500)}),
        ] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
        assert!(read(b"{oops").is_err());
    }

    #[test]
    fn what_is_not_wanted_stays_here() {
        let node = |source: Option<&str>| json!({"class_type": "X", "inputs": source.map_or(json!({}), |id| json!({"a": [id, 0], "b": 1}))});
        let prompt: Map<String, Value> =
            [("1", node(None)), ("2", node(Some("1"))), ("3", node(Some("1"))), ("4", node(Some("2")))]
                .map(|(id, node)| (id.to_owned(), node))
                .into_iter()
                .collect();
        assert_eq!(ends(&prompt), ["3", "4"]);
        let kept = upstream(&prompt, &["4".to_owned()]);
        assert_eq!(kept.len(), 3);
        assert!(!kept.contains_key("3"));
    }
}
