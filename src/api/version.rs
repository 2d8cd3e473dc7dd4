//! `GET /version`.

use axum::response::Response;

use super::answer::json_response;

/// The server's version.
pub(super) async fn version() -> Response {
    json_response(format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION")))
}
