//! `POST /v1/completions`: the answer; chunks have the same shape.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::chat_response::{FINISH_REASONS_OR_NULL, StopReason};
use super::logprobs::{CompletionLogprobs, PromptLogprobs};
use super::usage::Usage;
use crate::core::TokenId;

/// The whole answer, or one event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Completion<'a> {
    pub(in crate::api) id: &'a str,
    #[schemars(extend("const" = "text_completion"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) created: u64,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) choices: Vec<CompletionChoice<'a>>,
    /// Absent from chunks unless `include_usage`; then null in all but the last, unless
    /// `continuous_usage_stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) usage: Option<Option<Usage>>,
    /// vLLM's: for requests that speak of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) service_tier: Option<&'static str>,
    pub(in crate::api) system_fingerprint: &'a str,
    /// With `return_token_ids`, if there is one prompt; in a stream in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
}

/// One answer, or what a chunk adds to it. Answers to the same prompt stand together.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct CompletionChoice<'a> {
    pub(in crate::api) index: usize,
    pub(in crate::api) text: Cow<'a, str>,
    pub(in crate::api) logprobs: Option<CompletionLogprobs>,
    /// Null in chunks before the last.
    #[schemars(extend("enum" = FINISH_REASONS_OR_NULL))]
    pub(in crate::api) finish_reason: Option<&'static str>,
    /// vLLM's: the stop string or the client's stop token that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stop_reason: Option<StopReason>,
    /// With `return_token_ids`, in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
    /// With `prompt_logprobs`: one for each token of the prompt, null for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_logprobs: Option<Vec<Option<PromptLogprobs>>>,
    /// With `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) token_ids: Option<Vec<TokenId>>,
}
