//! What a client writes on a request for itself or for a platform behind it. The answer does not
//! depend on it: one engine serves everybody at one tier, keeps its cache by itself, and stores
//! nothing.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The labels as clients write them. Absent and null are the same.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct LabelFields {
    /// `auto` or `default`.
    #[schemars(extend("enum" = ["auto", "default", null]))]
    pub(in crate::api) service_tier: Option<String>,
    /// Up to 16 pairs, of up to 64 and 512 characters.
    pub(in crate::api) metadata: Option<BTreeMap<String, String>>,
    /// Must be false: nothing is stored.
    #[schemars(extend("enum" = [false, null]))]
    pub(in crate::api) store: Option<bool>,
    /// `in_memory`: no prompt is kept longer.
    #[schemars(extend("enum" = ["in_memory", "in-memory", null]))]
    pub(in crate::api) prompt_cache_retention: Option<String>,
    /// Which requests are likely to begin alike.
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    /// Who asks, in the client's words.
    #[serde(rename = "user")]
    _user: Option<String>,
    /// The same under its newer name.
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<String>,
}
