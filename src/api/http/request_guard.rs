//! Middleware for requests from a socket: rejects unsafe heads, unknown host names and requests
//! from other sites' pages. Requests made inside the process skip these checks.

use axum::extract::{Request, State};
use axum::http::header::{EXPECT, TRANSFER_ENCODING, VARY};
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connections::SlotKind;
use super::error::ApiError;
use super::extract;
use super::peer::Peer;
use super::route_kind::RouteKind;
use super::site::{host_of, is_preflight};
use super::state::AppState;

/// The outermost middleware: adds the CORS headers to every response for a page of an allowed site,
/// whatever became of the request, since a page that may ask may also read why it was refused.
pub(crate) async fn tell_browsers(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let from_socket = request.extensions().get::<Peer>().is_some();
    let origin = app.site().allowed_origin(request.headers());
    let origin = origin.filter(|_| from_socket).cloned();
    let mut response = next.run(request).await;
    if from_socket && app.site().allows_origins() {
        // A cache must not show one site's page what was answered to another's, or to none.
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin {
        app.cors().allow(origin, response.headers_mut());
    }
    response
}

/// Passes a request with a valid head from an allowed origin, and answers such an origin's
/// preflight.
pub(crate) async fn guard(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return next.run(request).await;
    };
    if let Err(error) = judge(&app, peer, &request) {
        let (head, body) = request.into_parts();
        extract::discard(&head.headers, body).await;
        return error.into_response();
    }
    let headers = request.headers();
    // A browser sends no key with it.
    if is_preflight(request.method(), headers) && app.site().allowed_origin(headers).is_some() {
        return app.cors().preflight(headers);
    }
    next.run(request).await
}

fn judge(app: &AppState, peer: Peer, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let is_probe = RouteKind::of(request) == RouteKind::Probe;
    if request.extensions().get() == Some(&SlotKind::Spare) && !is_probe {
        return Err(ApiError::too_many_connections());
    }
    let host = host_of(
        request.uri(),
        headers,
        request.version() >= Version::HTTP_11,
    )?;
    if let Some(expected) = headers.get(EXPECT)
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(ApiError::unknown_expectation());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(ApiError::unknown_transfer_coding());
    }
    let site = app.site();
    // Probes may use any host name, because orchestrators use names of their own, and probes reveal
    // nothing.
    if let Some(host) = &host
        && (peer.is_local || site.names_hosts())
        && !is_probe
    {
        site.check_host(host)?;
    }
    site.check_origin(request.method(), headers, host.as_ref())
}
