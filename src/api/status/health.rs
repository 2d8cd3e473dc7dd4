//! `GET /health`, `/livez`, `/ready` and `/readyz`, for an orchestrator's probes. None needs a key.

use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::state::{AppState, Readiness};
use crate::error::Error;

/// State of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status<'a> {
    /// `ok` or `ready`.
    pub(crate) status: &'a str,
}

/// `GET /health` in the description of the API.
pub(crate) const HEALTH: Operation = Operation {
    method: Method::Get,
    paths: &["/health"],
    id: "health",
    summary: "Whether the model can answer.",
    body: None,
    answer: Answer::Json(written::<Status<'static>>),
    errors: &[503],
    access: Access::Open,
};

/// `GET /livez` in the description of the API.
pub(crate) const LIVE: Operation = Operation {
    method: Method::Get,
    paths: &["/livez"],
    id: "live",
    summary: "Whether the process is alive, also while it loads or shuts down.",
    body: None,
    answer: Answer::Json(written::<Status<'static>>),
    errors: &[503],
    access: Access::Open,
};

/// `GET /ready` and `/readyz` in the description of the API.
pub(crate) const READY: Operation = Operation {
    method: Method::Get,
    paths: &["/ready", "/readyz"],
    id: "ready",
    summary: "Whether the server is ready.",
    body: None,
    answer: Answer::Json(written::<Status<'static>>),
    errors: &[503],
    access: Access::Open,
};

/// Health: whether the model can answer. Other servers listen only then, or answer 503 until then,
/// so scripts and probes that were written for them wait as they should.
///
/// # Errors
/// 503 while loading, and when the process must be restarted.
pub(crate) async fn health(State(app): State<AppState>) -> Result<Response, ApiError> {
    match app.readiness() {
        Readiness::Ready | Readiness::Draining => Ok(status("ok")),
        Readiness::Loading => Err(ApiError::loading()),
        Readiness::Dead => Err(Error::EngineDead.into()),
    }
}

/// Liveness: succeeds unless the engine has died, also while the server loads or drains.
///
/// # Errors
/// 503 when the process must be restarted.
pub(crate) async fn live(State(app): State<AppState>) -> Result<Response, ApiError> {
    match app.readiness() {
        Readiness::Ready | Readiness::Loading | Readiness::Draining => Ok(status("ok")),
        Readiness::Dead => Err(Error::EngineDead.into()),
    }
}

/// Readiness: whether the server accepts requests.
///
/// # Errors
/// 503 while loading, while draining, and when the engine is dead.
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Response, ApiError> {
    match app.readiness() {
        Readiness::Ready => Ok(status("ready")),
        Readiness::Loading => Err(ApiError::loading()),
        Readiness::Draining => Err(Error::Draining.into()),
        Readiness::Dead => Err(Error::EngineDead.into()),
    }
}

fn status(status: &str) -> Response {
    json_response(to_json(&Status { status }))
}
