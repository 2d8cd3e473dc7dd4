//! `GET /version`.

use axum::response::Response;

use super::answer::{json_response, to_json};
use super::types::Version;

/// Returns the server's version.
pub(super) async fn version() -> Response {
    json_response(to_json(&Version {
        version: env!("CARGO_PKG_VERSION"),
    }))
}
