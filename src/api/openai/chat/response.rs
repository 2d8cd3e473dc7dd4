//! `POST /v1/chat/completions`: the response, whole or in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use super::tool_types::{AnswerToolCall, DeltaToolCall};
use crate::api::generate::types::inputs::InputReport;
use crate::api::generate::types::logprobs::{ChatLogprobs, PromptLogprobs};
use crate::api::generate::types::stop_reason::StopReason;
use crate::api::generate::types::usage::Usage;
use crate::core::TokenId;

/// Reasons why an answer ended.
pub(super) const FINISH_REASONS: [&str; 3] = ["stop", "length", "tool_calls"];
/// The same, or null for an unfinished answer.
pub(crate) const FINISH_REASONS_OR_NULL: [Option<&str>; 4] =
    [Some("stop"), Some("length"), Some("tool_calls"), None];

/// The response of a request without `stream`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatCompletion<'a> {
    pub(crate) id: &'a str,
    #[schemars(extend("const" = "chat.completion"))]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
    /// Present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<&'static str>,
    pub(crate) system_fingerprint: &'a str,
    /// With `prompt_logprobs`: one entry for each prompt token, null for the first.
    pub(crate) prompt_logprobs: Option<Vec<Option<PromptLogprobs>>>,
    /// With `return_token_ids`: the prompt's tokens.
    pub(crate) prompt_token_ids: Option<&'a [TokenId]>,
    /// vLLM's: always null, because no caches are passed between servers.
    #[schemars(with = "()")]
    pub(crate) kv_transfer_params: Option<()>,
    /// This server's: what became of each file; with `return_inputs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Vec<InputReport<'a>>>,
}

/// One of `n` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: AssistantMessage,
    pub(crate) logprobs: Option<ChatLogprobs>,
    #[schemars(extend("enum" = FINISH_REASONS))]
    pub(crate) finish_reason: &'static str,
    /// vLLM's: the stop string or the client's stop token that ended the answer.
    pub(crate) stop_reason: Option<StopReason>,
    /// With `return_token_ids`: the answer's tokens.
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

/// The model's message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AssistantMessage {
    #[schemars(extend("const" = "assistant"))]
    pub(crate) role: &'static str,
    /// Null if the model only calls tools.
    pub(crate) content: Option<String>,
    /// The model's reasoning before the answer.
    pub(crate) reasoning_content: Option<String>,
    /// The reasoning under its newer name.
    pub(crate) reasoning: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<AnswerToolCall>>,
    /// Always null: OpenAI's schema requires the field.
    #[schemars(with = "()")]
    pub(crate) refusal: Option<()>,
}

/// One event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatChunk<'a> {
    pub(crate) id: &'a str,
    #[schemars(extend("const" = "chat.completion.chunk"))]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'a str,
    pub(crate) choices: Vec<ChatChunkChoice<'a>>,
    /// Absent unless `include_usage` is set. Otherwise null in all chunks but the last, unless
    /// `continuous_usage_stats` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
    /// Present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<&'static str>,
    /// Present with `return_token_ids`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<&'a [TokenId]>,
    /// This server's: what became of each file; with `return_inputs`, in the last chunk with a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Vec<InputReport<'a>>>,
}

/// What a chunk adds to one answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatChunkChoice<'a> {
    pub(crate) index: usize,
    pub(crate) delta: Delta<'a>,
    pub(crate) logprobs: Option<ChatLogprobs>,
    /// Null until the answer's last chunk.
    #[schemars(extend("enum" = FINISH_REASONS_OR_NULL))]
    pub(crate) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

/// New parts of an answer. Empty in the chunk that has `finish_reason`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Delta<'a> {
    /// Present in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = "assistant"))]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<&'a str>,
    /// A piece of the model's reasoning before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<&'a str>,
    /// The reasoning under its newer name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<&'a str>,
    /// At most one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<[DeltaToolCall<'a>; 1]>,
}
