//! `GET /v1/models`.

use schemars::JsonSchema;
use serde::Serialize;

/// The list of all served names.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelList<'a> {
    #[schemars(extend("const" = "list"))]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelCard<'a>>,
}

/// One served name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelCard<'a> {
    pub(crate) id: &'a str,
    #[schemars(extend("const" = "model"))]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// The model's main name; `id` may be another of its names.
    pub(crate) root: &'a str,
    /// vLLM's: maximum length of prompt and output together, in tokens.
    pub(crate) max_model_len: usize,
}
