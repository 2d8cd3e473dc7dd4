//! Middleware for requests from a socket: rejects unsafe heads, unknown host names and requests
//! from other sites' pages. Requests made inside the process skip these checks.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, EXPECT, TRANSFER_ENCODING, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connections::SeatKind;
use super::error::ApiError;
use super::extract;
use super::peer::Peer;
use super::route_kind::RouteKind;
use super::site::{Origin, host_of};
use super::state::AppState;

/// Passes a request with a valid head from an allowed origin.
pub(crate) async fn guard(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return next.run(request).await;
    };
    let judged = judge(&app, peer, &request).map(|origin| match origin {
        Origin::Own => None,
        Origin::Allowed(origin) => Some(origin.clone()),
    });
    let allowed = match judged {
        Ok(allowed) => allowed,
        Err(error) => {
            let (head, body) = request.into_parts();
            extract::discard(&head.headers, body).await;
            return error.into_response();
        }
    };
    let Some(origin) = allowed else {
        return next.run(request).await;
    };
    let headers = request.headers();
    let is_preflight =
        *request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match is_preflight {
        true => preflight(headers),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("x-request-id, request-id, retry-after"),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
    response
}

fn judge<'r>(app: &AppState, peer: Peer, request: &'r Request) -> Result<Origin<'r>, ApiError> {
    let headers = request.headers();
    let is_probe = RouteKind::of(request) == RouteKind::Probe;
    if request.extensions().get() == Some(&SeatKind::Spare) && !is_probe {
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
    site.origin(request.method(), headers, host.as_ref())
}

/// Answers the CORS preflight request of an allowed site.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = ().into_response();
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    // Client libraries send many headers of their own, and no header that this server reads is a
    // risk.
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}
