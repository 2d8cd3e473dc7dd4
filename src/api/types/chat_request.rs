//! `POST /v1/chat/completions`: what only a chat has.

use schemars::JsonSchema;
use serde::Deserialize;

use super::message::ChatMessage;
use super::object::Object;
use super::output_format::{ResponseFormat, StructuredOutputs};

/// The chat's own fields; those it shares are `SamplingFields` and `StreamFields`, read from the
/// same body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ChatRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// The conversation so far.
    #[schemars(length(min = 1))]
    pub(in crate::api) messages: Vec<Object<ChatMessage>>,
    /// Whether each token comes with its log-probability.
    pub(in crate::api) logprobs: Option<bool>,
    /// 0–20 alternatives for each token; only with `logprobs`.
    #[schemars(range(min = 0, max = 20))]
    pub(in crate::api) top_logprobs: Option<i64>,
    /// JSON, or JSON that keeps to a schema.
    pub(in crate::api) response_format: Option<Object<ResponseFormat>>,
    /// vLLM's: what the answer's text keeps to.
    pub(in crate::api) structured_outputs: Option<Object<StructuredOutputs>>,
}
