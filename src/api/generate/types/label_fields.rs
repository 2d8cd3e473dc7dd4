//! Labels that a client adds to a request for its own use or for a platform. They do not affect the
//! answer: the server has one service tier, manages its prefix cache itself, and stores nothing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The label fields. Absent and null are the same.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct LabelFields {
    /// `auto` or `default`.
    #[schemars(extend("enum" = ["auto", "default", null]))]
    pub(crate) service_tier: Option<String>,
    /// Up to 16 pairs; keys of up to 64 characters, values of up to 512.
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// Must be false, because nothing is stored.
    #[schemars(extend("enum" = [false, null]))]
    pub(crate) store: Option<bool>,
    /// `in_memory`; no prompt is kept longer.
    #[schemars(extend("enum" = ["in_memory", "in-memory", null]))]
    pub(crate) prompt_cache_retention: Option<String>,
    /// Hint for requests that are likely to begin alike.
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    /// The client's id of the end user.
    #[serde(rename = "user")]
    _user: Option<String>,
    /// The client's id of the end user, under its newer name.
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
}
