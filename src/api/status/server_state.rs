//! `GET /health`, `/ready` and `/version`.

use schemars::JsonSchema;
use serde::Serialize;

/// State of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status<'a> {
    /// `ok` or `ready`.
    pub(crate) status: &'a str,
}

/// Version of the server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Version {
    /// Version of the package.
    pub(crate) version: &'static str,
}
