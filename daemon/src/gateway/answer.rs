//! How requests are refused: in ComfyUI's shapes where it has one, else as `{"error": …}`.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::hub::Stopping;
use crate::http::body::{self, BodyError};

/// JSON that is no prompt: names and ids.
const SMALL: usize = 1 << 20;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Value,
}

impl Problem {
    pub(super) fn new(status: StatusCode, why: impl ToString) -> Self {
        Self { status, body: json!({"error": why.to_string()}) }
    }

    pub(super) fn with(status: StatusCode, body: Value) -> Self {
        Self { status, body }
    }

    /// The shape of a prompt that is not queued.
    pub(super) fn prompt(status: StatusCode, kind: &str, message: &str) -> Self {
        let error = json!({"type": kind, "message": message, "details": message, "extra_info": {}});
        Self { status, body: json!({"error": error, "node_errors": {}}) }
    }

    /// The shape of a prompt that is not queued for what one input of a node names.
    pub(super) fn input(node: &str, class: &str, input: &str, why: &str) -> Self {
        let error = json!({
            "type": "custom_validation_failed", "message": "Custom validation failed for node", "details": why,
            "extra_info": {"input_name": input},
        });
        let all = json!({
            "type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": why,
            "extra_info": {},
        });
        let errors = json!({"errors": [error], "dependent_outputs": [], "class_type": class});
        let body = json!({"error": all, "node_errors": {node: errors}});
        Self { status: StatusCode::BAD_REQUEST, body }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    pub(super) fn bad(why: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Stopping> for Problem {
    fn from(stopping: Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopping)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Broke { .. } => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error)
    }
}

/// A small JSON object, whatever its content type; nothing, and `null`, are empty ones: several clients send those.
pub(super) async fn object(request: Request) -> Result<Map<String, Value>, Problem> {
    let bytes = body::read(request, SMALL).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Problem::bad("the body is not a JSON object")),
        Err(error) => Err(Problem::bad(format!("the body is not JSON: {error}"))),
    }
}
