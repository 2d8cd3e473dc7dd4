//! `GET /dashboard.json`: a dashboard of Grafana's over the metrics.

use axum::response::Response;

use crate::api::docs::openapi::{Access, Answer, Method, Operation};
use crate::api::http::json_response::json_response;
use crate::web;

/// `GET /dashboard.json` in the description of the API.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Get,
    paths: &["/dashboard.json"],
    id: "dashboard",
    summary: "A Grafana dashboard of /metrics. It requires the same key as /metrics.",
    body: None,
    answer: Answer::JsonObject("A dashboard in Grafana's format."),
    errors: &[],
    access: Access::Key,
};

/// Returns the dashboard.
pub(crate) async fn dashboard() -> Response {
    json_response(web::DASHBOARD.to_owned())
}
