//! `GET /version`.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::json_response::{json_response, to_json};

/// Version of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Version {
    /// Version of the package.
    pub(crate) version: &'static str,
}

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
