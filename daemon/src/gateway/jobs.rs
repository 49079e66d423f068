//! `/api/jobs`: queue and history in one list, as the newer clients read them.

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Node;
use super::answer::{Problem, object};
use super::desk::{Desk, Key, Page, Prompt, Sorted};
use super::guard::Caller;
use super::queue;

const STATUS: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];
/// Jobs that one request cancels.
const MOST: usize = 1000;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    status: Option<String>,
    workflow_id: Option<String>,
    sort_by: Option<String>,
    sort_order: Option<String>,
    limit: Option<String>,
    offset: Option<String>,
}

impl Asked {
    fn page(self) -> Result<Page, Problem> {
        let status = self.status.filter(|status| !status.is_empty()).map(|status| {
            let words = status.split(',').map(|word| word.trim().to_ascii_lowercase());
            words.filter(|word| !word.is_empty()).collect::<Vec<_>>()
        });
        if let Some(word) = status.iter().flatten().find(|word| !STATUS.contains(&word.as_str())) {
            return Err(Problem::bad(format!(
                "no status is called {word:?}; there are {}",
                STATUS.join(", ")
            )));
        }
        let by = match self.sort_by.as_deref() {
            None | Some("created_at") => Sorted::Created,
            Some("execution_duration") => Sorted::Duration,
            Some(_) => return Err(Problem::bad("sort_by is created_at or execution_duration")),
        };
        let descending = match self.sort_order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(Problem::bad("sort_order is asc or desc")),
        };
        let limit = self.limit.map(|text| text.parse::<usize>().ok().filter(|limit| *limit > 0));
        let limit =
            limit.map(|limit| limit.ok_or_else(|| Problem::bad("limit is a number above 0"))).transpose()?;
        let offset =
            self.offset.map_or(Ok(0), |text| text.parse().map_err(|_| Problem::bad("offset is a number")))?;
        Ok(Page { status, workflow: self.workflow_id, by, descending, limit, offset })
    }
}

pub(super) async fn list(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let page = asked.page()?;
    let (limit, offset) = (page.limit, page.offset);
    let (jobs, total) = node.hub.ask(move |desk| desk.jobs(&caller.scope, &page)).await?;
    let has_more = offset.saturating_add(jobs.len()) < total;
    let pagination = json!({"offset": offset, "limit": limit, "total": total, "has_more": has_more});
    Ok(Json(json!({"jobs": jobs, "pagination": pagination})))
}

pub(super) async fn show(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let key = Key { scope: caller.scope.clone(), id: id.as_str().into() };
    let view = node.hub.ask(move |desk| desk.find(&caller.scope, &id).map(Prompt::job_view)).await?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "Job not found");
    let mut view = view.ok_or_else(none)?;
    let files = node.files.clone();
    let record = node.tasks.blocking(move || files.read(&key)).await.ok().flatten().ok_or_else(none)?;
    if let Some(view) = view.as_object_mut() {
        view.extend(record.detail());
    }
    Ok(Json(view))
}

pub(super) async fn cancel(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let cancelled = cancel_these(&node, caller, vec![id]).await?;
    Ok(Json(json!({"cancelled": cancelled})))
}

pub(super) async fn cancel_all(
    State(node): State<Node>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let body = object(request).await?;
    let Some(given) = body.get("job_ids").and_then(Value::as_array).filter(|ids| ids.len() <= MOST) else {
        return Err(Problem::bad(format!("job_ids is a list of at most {MOST} ids")));
    };
    let bad: Vec<&Value> = given.iter().filter(|id| !id.is_string()).collect();
    if !bad.is_empty() {
        let body = json!({"error": "job ids are texts", "invalid_ids": bad});
        return Err(Problem::with(StatusCode::BAD_REQUEST, body));
    }
    let ids = given.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let cancelled = cancel_these(&node, caller, ids).await?;
    Ok(Json(json!({"cancelled": cancelled})))
}

/// Whether there was anything to cancel.
async fn cancel_these(node: &Node, caller: Caller, ids: Vec<String>) -> Result<bool, Problem> {
    let choose = move |desk: &mut Desk| {
        let (mut jobs, mut effects) = (Vec::new(), Vec::new());
        for id in ids {
            let (job, told) = desk.cancel(&caller.scope, &id);
            jobs.extend(job);
            effects.extend(told);
        }
        (jobs, effects)
    };
    queue::cancel(node, choose).await.map(|jobs| jobs > 0)
}
