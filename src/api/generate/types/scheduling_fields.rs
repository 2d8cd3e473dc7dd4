//! Scheduling fields, which all generating endpoints share.

use schemars::JsonSchema;
use serde::Deserialize;

/// Scheduling fields as clients send them. Absent and null are the same.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct SchedulingFields {
    /// vLLM's: requests with smaller values are served earlier; any 32-bit integer.
    #[schemars(range(min = i32::MIN, max = i32::MAX), extend("default" = 0))]
    pub(crate) priority: Option<i64>,
    /// vLLM's: shares cached prompts only with requests that have the same salt; not empty.
    #[schemars(length(min = 1))]
    pub(crate) cache_salt: Option<String>,
    /// This server's: seconds after which the request fails; above 0.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(crate) timeout: Option<f64>,
}
