//! The outermost middleware: gives each request an id and a log span, catches panics, and formats
//! errors for the route's dialect.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{Instrument, field};

use super::dialect::Dialect;
use super::error::ApiError;
use super::random::random_id;
use super::route_kind::RouteKind;
use super::state::AppState;

/// Maximum length of a client's own id. A longer one is replaced.
const MAX_ID: usize = 128;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Anthropic's name for the same header.
static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Assigns a request its id and returns it in a header; logs and counts rejections; turns a panic
/// into a 500.
pub(crate) async fn identify(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let sent = request.headers().get(&X_REQUEST_ID);
    let id = match sent.and_then(|id| id.to_str().ok()) {
        Some(id) if is_sane(id) => id.to_owned(),
        _ => random_id("req-"),
    };
    let dialect = Dialect::of_route(request.uri().path());
    let is_page = RouteKind::of(&request) == RouteKind::Page;
    let span = tracing::info_span!("request", request_id = id, model = field::Empty);
    let answered = AssertUnwindSafe(next.run(request).instrument(span.clone()))
        .catch_unwind()
        .await;
    let mut response =
        answered.unwrap_or_else(|_| ApiError::internal("a handler panicked").into_response());
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        if !error.is_logged() {
            let _span = span.enter();
            log_refusal(&app, &error, response.status().as_u16());
        }
        if dialect == Dialect::Anthropic {
            *response.body_mut() = Body::from(error.to_anthropic_json(Some(&id)));
            // The length of the replaced body.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
    }
    if !is_page {
        // An answer may be about a patient, so no cache may store it, and no browser may render it
        // as a page.
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    let id = HeaderValue::from_str(&id).expect("an id is plain ASCII");
    if dialect == Dialect::Anthropic {
        response
            .headers_mut()
            .insert(REQUEST_ID.clone(), id.clone());
    }
    response.headers_mut().insert(X_REQUEST_ID.clone(), id);
    response
}

fn log_refusal(app: &AppState, error: &ApiError, status: u16) {
    let refusal = error.refusal();
    let code = refusal.code;
    app.metrics().error(code.unwrap_or("unknown"));
    match &refusal.detail {
        Some(detail) => tracing::error!(status, code, detail, "request failed"),
        None => tracing::info!(status, code, param = refusal.param, "request refused"),
    }
}

/// Whether an id has only characters that cannot forge a line in a log.
fn is_sane(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::api::ApiKeys;

    async fn panics() {
        panic!("a bug");
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_in_our_shape() {
        let app = AppState::new(ApiKeys::default(), None);
        let router = Router::new()
            .route("/", get(panics))
            .layer(from_fn_with_state(app, identify));
        let request = Request::get("/").header("x-request-id", "mine");
        let request = request.body(Body::empty()).expect("a plain request");
        let response = router.oneshot(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), 500);
        assert_eq!(response.headers()["x-request-id"], "mine");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "internal_error");
        assert!(!body.to_string().contains("a bug"));
    }
}
