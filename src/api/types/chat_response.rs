//! `POST /v1/chat/completions`: the response, whole or in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use super::logprobs::{ChatLogprobs, PromptLogprobs};
use super::tools::{AnswerToolCall, DeltaToolCall};
use super::usage::Usage;
use crate::core::TokenId;

/// Reasons why an answer ended.
pub(super) const FINISH_REASONS: [&str; 3] = ["stop", "length", "tool_calls"];
/// The same, or null for an unfinished answer.
pub(super) const FINISH_REASONS_OR_NULL: [Option<&str>; 4] =
    [Some("stop"), Some("length"), Some("tool_calls"), None];

/// The response of a request without `stream`.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ChatCompletion<'a> {
    pub(in crate::api) id: &'a str,
    #[schemars(extend("const" = "chat.completion"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) created: u64,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) choices: Vec<ChatChoice>,
    pub(in crate::api) usage: Usage,
    /// Present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) service_tier: Option<&'static str>,
    pub(in crate::api) system_fingerprint: &'a str,
    /// With `prompt_logprobs`: one entry for each prompt token, null for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_logprobs: Option<Vec<Option<PromptLogprobs>>>,
    /// Present with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
}

/// One of `n` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ChatChoice {
    pub(in crate::api) index: usize,
    pub(in crate::api) message: AssistantMessage,
    pub(in crate::api) logprobs: Option<ChatLogprobs>,
    #[schemars(extend("enum" = FINISH_REASONS))]
    pub(in crate::api) finish_reason: &'static str,
    /// vLLM's: the stop string or the client's stop token that ended the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stop_reason: Option<StopReason>,
    /// Present with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) token_ids: Option<Vec<TokenId>>,
}

/// The model's message.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct AssistantMessage {
    #[schemars(extend("const" = "assistant"))]
    pub(in crate::api) role: &'static str,
    /// Null if the model only calls tools.
    pub(in crate::api) content: Option<String>,
    /// The model's reasoning before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) reasoning_content: Option<String>,
    /// The reasoning under its newer name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) reasoning: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) tool_calls: Option<Vec<AnswerToolCall>>,
    /// Always null: OpenAI's schema requires the field.
    #[schemars(with = "()")]
    pub(in crate::api) refusal: Option<()>,
}

/// One event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ChatChunk<'a> {
    pub(in crate::api) id: &'a str,
    #[schemars(extend("const" = "chat.completion.chunk"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) created: u64,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) system_fingerprint: &'a str,
    pub(in crate::api) choices: Vec<ChatChunkChoice<'a>>,
    /// Absent unless `include_usage` is set. Otherwise null in all chunks but the last, unless
    /// `continuous_usage_stats` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) usage: Option<Option<Usage>>,
    /// Present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) service_tier: Option<&'static str>,
    /// Present with `return_token_ids`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
}

/// What a chunk adds to one answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ChatChunkChoice<'a> {
    pub(in crate::api) index: usize,
    pub(in crate::api) delta: Delta<'a>,
    pub(in crate::api) logprobs: Option<ChatLogprobs>,
    /// Null until the answer's last chunk.
    #[schemars(extend("enum" = FINISH_REASONS_OR_NULL))]
    pub(in crate::api) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) token_ids: Option<Vec<TokenId>>,
}

/// New parts of an answer. Empty in the chunk that has `finish_reason`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(in crate::api) struct Delta<'a> {
    /// Present in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = "assistant"))]
    pub(in crate::api) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) content: Option<&'a str>,
    /// A piece of the model's reasoning before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) reasoning_content: Option<&'a str>,
    /// The reasoning under its newer name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) reasoning: Option<&'a str>,
    /// At most one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) tool_calls: Option<[DeltaToolCall<'a>; 1]>,
}

/// What ended an answer, other than the model's own stop tokens and the length limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::api) enum StopReason {
    /// A stop string.
    Text(String),
    /// One of the client's stop tokens.
    Token(TokenId),
}
