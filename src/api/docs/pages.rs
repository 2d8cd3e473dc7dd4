//! `GET /`, `/docs` and `/assets/…`: the web pages.
//!
//! They need no key, even on a server with keys. A browser sends no key when a person types an
//! address, and the page is where the person enters it. The pages are the same on every server of
//! this version and reveal nothing about this one, not even its version. The requests that they
//! make need the key like all others.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::openapi::{self, Operation};
use crate::api::http::state::AppState;
use crate::web::ASSETS;

const DOCS: &str = "/docs";

/// Content security policy: scripts, styles and requests of this server only, no HTML from strings,
/// no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every page and asset.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // A newer version's page must not run an older version's scripts.
    (CACHE_CONTROL, "no-cache"),
];

/// Returns the routes of all pages.
pub(crate) fn pages(operations: &'static [Operation]) -> Router<AppState> {
    let router = ASSETS.iter().fold(Router::new(), |router, asset| {
        let body = Bytes::from_static(asset.text.as_bytes());
        let serve = move || async move { page(asset.media_type, body) };
        router.route(asset.path, get(serve))
    });
    // Generated once, on the first request.
    let reference = Arc::new(OnceLock::new());
    let docs = move || async move {
        let body = reference.get_or_init(|| Bytes::from(openapi::reference(operations)));
        page("text/html; charset=utf-8", body.clone())
    };
    router.route(DOCS, get(docs))
}

/// Whether a path is a page or an asset.
pub(crate) fn is_page(path: &str) -> bool {
    path == DOCS || ASSETS.iter().any(|asset| asset.path == path)
}

fn page(media_type: &'static str, body: Bytes) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
