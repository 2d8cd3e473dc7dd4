//! How a request wants to be treated: fields that chat and text completions share.

use schemars::JsonSchema;
use serde::Deserialize;

/// The terms as clients write them. Absent and null are the same.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct SchedulingFields {
    /// vLLM's: smaller is served earlier; any 32-bit integer.
    #[schemars(range(min = i32::MIN, max = i32::MAX), extend("default" = 0))]
    pub(in crate::api) priority: Option<i64>,
    /// vLLM's: shares cached prompts only with those that send the same; not empty.
    #[schemars(length(min = 1))]
    pub(in crate::api) cache_salt: Option<String>,
    /// Ours: seconds after which the request is given up, above 0.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(in crate::api) timeout: Option<f64>,
}
