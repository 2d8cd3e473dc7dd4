//! `GET /version`.

use axum::response::Response;

use super::server_state::Version;
use crate::api::http::json_response::{json_response, to_json};

/// Returns the server's version.
pub(crate) async fn version() -> Response {
    json_response(to_json(&Version {
        version: env!("CARGO_PKG_VERSION"),
    }))
}
