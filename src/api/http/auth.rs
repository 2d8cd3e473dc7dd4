//! Middleware that checks API keys.
//!
//! The metrics describe the requests of all clients. If several keys exist, no single client should
//! see them.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth_failures::Sent;
use super::error::ApiError;
use super::extract;
use super::keys::{Caller, X_API_KEY};
use super::peer::Peer;
use super::route_kind::RouteKind;
use super::state::AppState;

/// Middleware that passes only requests with a valid key, or to routes that need none.
pub(crate) async fn require_key(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let checked = match RouteKind::of(&request) {
        RouteKind::Probe | RouteKind::Page => return next.run(request).await,
        RouteKind::Metrics => check_metrics(&app, request.headers()),
        RouteKind::Keyed => app.keys().check(request.headers()),
    };
    match checked {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => refuse(&app, request, error).await,
    }
}

/// Rejects a request without a valid key, and slows down addresses that try many keys.
async fn refuse(app: &AppState, request: Request, error: ApiError) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    // The key was valid but lacks a permission.
    if !error.is_of_key() {
        return error.into_response();
    }
    app.metrics().auth_failure();
    // Requests made inside this process have no peer address to limit or to log.
    let Some(peer) = peer else {
        return error.into_response();
    };
    let has_key = head.headers.contains_key(AUTHORIZATION) || head.headers.contains_key(&X_API_KEY);
    let sent = match has_key {
        true => Sent::WrongKey,
        false => Sent::Nothing,
    };
    let verdict = app.auth_failures().count(peer.network, sent);
    let error = match verdict.wait {
        Some(wait) => ApiError::too_many_wrong_keys(wait),
        None => error,
    };
    let code = error.refusal().code.unwrap_or("unknown");
    app.metrics().error(code);
    if let Some(num_untold) = verdict.line {
        let address = peer.network;
        tracing::info!(%address, code, num_untold, "request refused for its key");
    }
    error.logged().into_response()
}

/// Checks access to the metrics on the clients' address. A metrics key gives access, and so does a
/// client's key if it is the only one. With neither metrics keys nor client keys, access is open.
///
/// # Errors
/// 401 without a valid key, 403 with a client's key where several exist.
fn check_metrics(app: &AppState, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let (keys, metrics_keys) = (app.keys(), app.metrics_keys());
    if metrics_keys.is_open() && keys.num_keys() <= 1 {
        return keys.check(headers);
    }
    let for_metrics = match metrics_keys.is_open() {
        // Unlike elsewhere, an empty set of keys does not mean open access here.
        true => Err(ApiError::unauthorized(
            "The metrics of this server require a metrics key.",
        )),
        false => metrics_keys.check(headers),
    };
    let Err(error) = for_metrics else {
        return Ok(Caller::default());
    };
    match (keys.num_keys(), keys.check(headers)) {
        (1, Ok(caller)) => Ok(caller),
        (2.., Ok(_)) => Err(ApiError::metrics_key_required()),
        _ => Err(error),
    }
}

/// Middleware of the separate metrics address: a key is needed only if metrics keys exist.
pub(crate) async fn require_metrics_key(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    if RouteKind::of(&request) == RouteKind::Probe {
        return next.run(request).await;
    }
    match app.metrics_keys().check(request.headers()) {
        Ok(_) => next.run(request).await,
        Err(error) => refuse(&app, request, error).await,
    }
}
