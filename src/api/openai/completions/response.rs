//! `POST /v1/completions`: the response. Chunks have the same format.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::generate::types::inputs::InputReport;
use crate::api::generate::types::logprobs::{CompletionLogprobs, PromptLogprobs};
use crate::api::generate::types::stop_reason::StopReason;
use crate::api::generate::types::usage::Usage;
use crate::api::openai::chat::response::FINISH_REASONS_OR_NULL;
use crate::core::TokenId;

/// The whole response, or one event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Completion<'a> {
    pub(crate) id: &'a str,
    #[schemars(extend("const" = "text_completion"))]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<CompletionChoice<'a>>,
    /// Absent from chunks unless `include_usage` is set. Otherwise null in all chunks but the last,
    /// unless `continuous_usage_stats` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
    /// vLLM's: present if the request sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<&'static str>,
    pub(crate) system_fingerprint: &'a str,
    /// Present with `return_token_ids` if there is one prompt; in a stream, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Option<&'a [TokenId]>>,
    /// vLLM's: null in a whole response, because no caches are passed between servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv_transfer_params: Option<()>,
    /// This server's: empty, because a raw prompt has no files; with `return_inputs`, in a stream in the
    /// last chunk with a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Vec<InputReport<'a>>>,
}

/// One answer, or what a chunk adds to it. Answers to the same prompt are adjacent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CompletionChoice<'a> {
    pub(crate) index: usize,
    pub(crate) text: Cow<'a, str>,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    /// Null in chunks before the answer's last.
    #[schemars(extend("enum" = FINISH_REASONS_OR_NULL))]
    pub(crate) finish_reason: Option<&'static str>,
    /// vLLM's: the stop string or the client's stop token that ended the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_reason: Option<Option<StopReason>>,
    /// Present with `return_token_ids`, in an answer's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Option<&'a [TokenId]>>,
    /// With `prompt_logprobs`: one entry for each prompt token, null for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_logprobs: Option<Option<Vec<Option<PromptLogprobs>>>>,
    /// Present with `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Option<Vec<TokenId>>>,
}
