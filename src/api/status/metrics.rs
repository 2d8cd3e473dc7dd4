//! `GET /metrics`, for Prometheus and for load balancers.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::api::docs::openapi::{Access, Answer, Method, Operation};
use crate::api::http::error::ApiError;
use crate::api::http::state::AppState;

/// Content type of Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `GET /metrics` in the description of the API.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Get,
    paths: &["/metrics"],
    id: "metrics",
    summary: "Metrics for Prometheus and routers. With several API keys it requires a metrics key.",
    body: None,
    answer: Answer::Metrics,
    errors: &[503],
    access: Access::Key,
};

/// Returns the server's metrics.
///
/// # Errors
/// 503 while the model loads, because there is no engine yet.
pub(crate) async fn metrics(State(app): State<AppState>) -> Result<Response, ApiError> {
    let model = app.model()?;
    app.metrics().request_memory(app.request_memory().held());
    let text = app.metrics().encode(&model.names[0], &model.engine.stats());
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}
