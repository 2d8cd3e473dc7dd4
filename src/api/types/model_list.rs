//! `GET /v1/models`.

use schemars::JsonSchema;
use serde::Serialize;

/// The list of all served names.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ModelList<'a> {
    #[schemars(extend("const" = "list"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) data: Vec<ModelCard<'a>>,
}

/// One served name.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ModelCard<'a> {
    pub(in crate::api) id: &'a str,
    #[schemars(extend("const" = "model"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) created: u64,
    pub(in crate::api) owned_by: &'static str,
    /// The model's main name; `id` may be another of its names.
    pub(in crate::api) root: &'a str,
    /// vLLM's: maximum length of prompt and output together, in tokens.
    pub(in crate::api) max_model_len: usize,
}
