//! `GET /health`, `/ready` and `/version`.

use schemars::JsonSchema;
use serde::Serialize;

/// State of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Status<'a> {
    /// `ok` or `ready`.
    pub(in crate::api) status: &'a str,
}

/// Version of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Version {
    /// Version of the package.
    pub(in crate::api) version: &'static str,
}
