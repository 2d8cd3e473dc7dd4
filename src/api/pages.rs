//! `GET /`, `/docs` and `/assets/…`: the pages.
//!
//! They need no key, on a server with keys too. A browser cannot send one when a person types an
//! address, and a page is where a person enters it; the pages are the same on every server of this
//! version and tell nothing about this one, not even which version it is. What they ask for then,
//! models and answers, needs the key like everything else.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::openapi;
use super::state::AppState;
use crate::web::ASSETS;

const DOCS: &str = "/docs";

/// Scripts, styles and requests of this server alone, no markup out of strings, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What stands on every page and on what it is made of.
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
    // A newer binary's page must not run an older one's scripts.
    (CACHE_CONTROL, "no-cache"),
];

/// The routes of all pages.
pub(super) fn pages() -> Router<AppState> {
    let router = ASSETS.iter().fold(Router::new(), |router, asset| {
        let body = Bytes::from_static(asset.text.as_bytes());
        let serve = move || async move { page(asset.media_type, body) };
        router.route(asset.path, get(serve))
    });
    // Written when the first person asks for it, once.
    let reference = Arc::new(OnceLock::new());
    let docs = move || async move {
        let body = reference.get_or_init(|| Bytes::from(openapi::reference()));
        page("text/html; charset=utf-8", body.clone())
    };
    router.route(DOCS, get(docs))
}

/// Whether a path is a page's or of what pages are made of.
pub(super) fn is_page(path: &str) -> bool {
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
