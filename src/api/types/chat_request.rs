//! `POST /v1/chat/completions`: what only a chat has.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::message::ChatMessage;
use super::object::JsonObject;
use super::output_format::{ResponseFormat, StructuredOutputs};
use super::tools::{ToolChoice, ToolDefinition};

/// The chat's own fields; those it shares are `SamplingFields` and `StreamFields`, read from the
/// same body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ChatRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// The conversation so far.
    #[schemars(length(min = 1))]
    pub(in crate::api) messages: Vec<JsonObject<ChatMessage>>,
    /// Whether each token comes with its log-probability.
    #[schemars(extend("default" = false))]
    pub(in crate::api) logprobs: Option<bool>,
    /// 0–20 alternatives for each token; only with `logprobs`.
    #[schemars(range(min = 0, max = 20))]
    pub(in crate::api) top_logprobs: Option<i64>,
    /// JSON, or JSON that keeps to a schema.
    pub(in crate::api) response_format: Option<JsonObject<ResponseFormat>>,
    /// vLLM's: what the answer's text keeps to.
    pub(in crate::api) structured_outputs: Option<JsonObject<StructuredOutputs>>,
    /// Up to 128 tools that may be called.
    #[schemars(length(max = 128))]
    pub(in crate::api) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    /// Whether tools may or must be called; absent: they may. Only with `tools`.
    pub(in crate::api) tool_choice: Option<ToolChoice>,
    /// Whether an answer may make several calls; absent: it may.
    pub(in crate::api) parallel_tool_calls: Option<bool>,
    /// How long to think: `none`, `minimal`, `low`, `medium`, `high` or `xhigh`.
    #[schemars(extend("enum" = ["none", "minimal", "low", "medium", "high", "xhigh", null]))]
    pub(in crate::api) reasoning_effort: Option<String>,
    /// vLLM's: tokens after which a thought is closed; −1 is without limit.
    #[schemars(range(min = -1))]
    pub(in crate::api) thinking_token_budget: Option<i64>,
    /// vLLM's: whether the thought comes with the answer; absent: it does.
    #[schemars(extend("default" = true))]
    pub(in crate::api) include_reasoning: Option<bool>,
    /// Whether the prompt ends where the assistant's turn begins; absent: it does.
    #[schemars(extend("default" = true))]
    pub(in crate::api) add_generation_prompt: Option<bool>,
    /// Whether the answer goes on with the last message, the assistant's, instead.
    #[schemars(extend("default" = false))]
    pub(in crate::api) continue_final_message: Option<bool>,
    /// vLLM's: settings of the chat template.
    pub(in crate::api) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
}

/// `chat_template_kwargs`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ChatTemplateKwargs {
    /// Whether to think before answering.
    pub(in crate::api) enable_thinking: Option<bool>,
    /// All others, which are refused by name.
    #[serde(flatten)]
    pub(in crate::api) others: Map<String, Value>,
}
