//! `GET /version`.

use axum::response::Response;

use super::server_state::Version;
use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::json_response::{json_response, to_json};

/// `GET /version` in the description of the API.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Get,
    paths: &["/version"],
    id: "version",
    summary: "The server's version.",
    body: None,
    answer: Answer::Json(written::<Version>),
    errors: &[],
    access: Access::Key,
};

/// Returns the server's version.
pub(crate) async fn version() -> Response {
    json_response(to_json(&Version {
        version: env!("CARGO_PKG_VERSION"),
    }))
}
