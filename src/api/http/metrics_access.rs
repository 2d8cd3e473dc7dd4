//! Access control for the metrics.
//!
//! The metrics describe the requests of all clients. If several keys exist, no single client should
//! see them.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::{self, Caller};
use super::error::ApiError;
use super::state::AppState;

const METRICS: &str = "/metrics";

/// Whether a route returns the metrics.
pub(crate) fn is_metrics(path: &str) -> bool {
    path == METRICS
}

/// Checks access to the metrics on the clients' address. A metrics key gives access, and so does a
/// client's key if it is the only one. With neither metrics keys nor client keys, access is open.
///
/// # Errors
/// 401 without a valid key, 403 with a client's key where several exist.
pub(crate) fn check(app: &AppState, request: &Request) -> Result<Caller, ApiError> {
    let headers = request.headers();
    let (keys, metrics_keys) = (app.keys(), app.metrics_keys());
    if metrics_keys.is_open() && keys.num_keys() <= 1 {
        return keys.check(headers);
    }
    let for_metrics = match metrics_keys.is_open() {
        // Unlike elsewhere, an empty set of keys does not mean open access here.
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

/// Middleware of the separate metrics address: a key is needed only if metrics keys exist.
pub(crate) async fn require_key_beside(
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
