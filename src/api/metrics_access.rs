//! Who may read the metrics.
//!
//! They tell what all clients do together. Where several keys open the server, that is more than
//! one of them should know of the others.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::{self, Caller};
use super::error::ApiError;
use super::state::AppState;

const METRICS: &str = "/metrics";

/// Whether a route tells what all clients do.
pub(super) fn is_metrics(path: &str) -> bool {
    path == METRICS
}

/// Checks who asks for the metrics by the address that clients use: whoever has a key for them, and
/// with one key for clients, or none, whoever may use the server.
///
/// # Errors
/// 401 without a right key, 403 with a client's where several are.
pub(super) fn check(app: &AppState, request: &Request) -> Result<Caller, ApiError> {
    let headers = request.headers();
    let (keys, metrics_keys) = (app.keys(), app.metrics_keys());
    if metrics_keys.is_open() && keys.num_keys() <= 1 {
        return keys.check(headers);
    }
    let for_metrics = match metrics_keys.is_open() {
        // None of them is there, which is not that any will do.
        true => Err(ApiError::unauthorized(
            "The metrics of this server need a key of their own.",
        )),
        false => metrics_keys.check(headers),
    };
    let Err(error) = for_metrics else {
        return Ok(Caller::default());
    };
    match (keys.num_keys(), keys.check(headers)) {
        (1, Ok(caller)) => Ok(caller),
        (2.., Ok(_)) => Err(ApiError::metrics_are_apart()),
        _ => Err(error),
    }
}

/// Lets a request to the address for metrics pass: it needs a key only if there is one for them.
pub(super) async fn require_key_beside(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    if auth::is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    match app.metrics_keys().check(request.headers()) {
        Ok(_) => next.run(request).await,
        Err(error) => auth::refuse(&app, request, error).await,
    }
}
