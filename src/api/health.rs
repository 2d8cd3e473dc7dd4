//! `GET /health` and `GET /ready`, for an orchestrator's probes; neither needs a key.

use axum::extract::State;
use axum::response::Response;

use super::answer::{json_response, to_json};
use super::error::ApiError;
use super::state::{AppState, Readiness};
use super::types::Status;
use crate::error::Error;

/// Whether the process can work: also while it loads or drains, no more once the engine is dead.
///
/// # Errors
/// 503 when it must be restarted.
pub(super) async fn health(State(app): State<AppState>) -> Result<Response, ApiError> {
    match app.readiness() {
        Readiness::Dead => Err(Error::EngineDead.into()),
        Readiness::Ready | Readiness::Loading | Readiness::Draining => Ok(status("ok")),
    }
}

/// Whether requests are welcome.
///
/// # Errors
/// 503 while loading, while draining, and when the engine is dead.
pub(super) async fn ready(State(app): State<AppState>) -> Result<Response, ApiError> {
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
