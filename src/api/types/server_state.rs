//! `GET /health`, `/ready` and `/version`.

use schemars::JsonSchema;
use serde::Serialize;

/// How the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Status<'a> {
    /// `ok` or `ready`.
    pub(in crate::api) status: &'a str,
}

/// Which server it is.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Version {
    /// The package's.
    pub(in crate::api) version: &'static str,
}
