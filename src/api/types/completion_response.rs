//! `POST /v1/completions`: the response. Chunks have the same format.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::chat_response::{FINISH_REASONS_OR_NULL, StopReason};
use super::logprobs::{CompletionLogprobs, PromptLogprobs};
use super::usage::Usage;
use crate::core::TokenId;

/// The whole response, or one event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Completion<'a> {
    pub(in crate::api) id: &'a str,
    #[schemars(extend("const" = "text_completion"))]
    pub(in crate::api) object: &'static str,
    pub(in crate::api) created: u64,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) choices: Vec<CompletionChoice<'a>>,
    /// Absent from chunks unless `include_usage` is set. Otherwise null in all chunks but the last,
    /// unless `continuous_usage_stats` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) usage: Option<Option<Usage>>,
    /// vLLM's: present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) service_tier: Option<&'static str>,
    pub(in crate::api) system_fingerprint: &'a str,
    /// Present with `return_token_ids` if there is one prompt; in a stream, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
}

/// One answer, or what a chunk adds to it. Answers to the same prompt are adjacent.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct CompletionChoice<'a> {
    pub(in crate::api) index: usize,
    pub(in crate::api) text: Cow<'a, str>,
    pub(in crate::api) logprobs: Option<CompletionLogprobs>,
    /// Null in chunks before the answer's last.
    #[schemars(extend("enum" = FINISH_REASONS_OR_NULL))]
    pub(in crate::api) finish_reason: Option<&'static str>,
    /// vLLM's: the stop string or the client's stop token that ended the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stop_reason: Option<StopReason>,
    /// Present with `return_token_ids`, in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_token_ids: Option<&'a [TokenId]>,
    /// With `prompt_logprobs`: one entry for each prompt token, null for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) prompt_logprobs: Option<Vec<Option<PromptLogprobs>>>,
    /// Present with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) token_ids: Option<Vec<TokenId>>,
}
