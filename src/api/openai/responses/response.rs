//! `POST /v1/responses`: the response.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::generate::types::inputs::InputReport;
use crate::api::generate::types::logprobs::TokenLogprob;

/// The whole response; in a stream, also its state so far.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ResponseObject<'a> {
    pub(crate) id: &'a str,
    /// `response`.
    pub(crate) object: &'static str,
    /// Creation time, in Unix seconds.
    pub(crate) created_at: u64,
    /// Completion time, in Unix seconds; null unless the response is complete.
    pub(crate) completed_at: Option<u64>,
    pub(crate) status: ResponseStatus,
    pub(crate) error: Option<ResponseFault<'a>>,
    pub(crate) incomplete_details: Option<IncompleteDetails>,
    pub(crate) model: &'a str,
    pub(crate) output: Vec<OutputItem<'a>>,
    /// Null until the response has ended.
    pub(crate) usage: Option<ResponsesUsage>,
    // Repeated from the request.
    pub(crate) instructions: Option<&'a RawValue>,
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) metadata: &'a RawValue,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) reasoning: &'a RawValue,
    pub(crate) text: &'a RawValue,
    pub(crate) tool_choice: &'a RawValue,
    pub(crate) tools: &'a RawValue,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) top_logprobs: i64,
    pub(crate) safety_identifier: Option<&'a RawValue>,
    pub(crate) prompt_cache_key: Option<&'a RawValue>,
    pub(crate) user: Option<&'a RawValue>,
    pub(crate) service_tier: &'static str,
    // Unsupported features.
    pub(crate) background: bool,
    pub(crate) store: bool,
    /// `disabled`: an input that is too long is rejected.
    pub(crate) truncation: &'static str,
    #[schemars(with = "()")]
    pub(crate) max_tool_calls: Option<()>,
    #[schemars(with = "()")]
    pub(crate) previous_response_id: Option<()>,
    /// This server's: what became of each file; with `return_inputs`, once the response has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Vec<InputReport<'a>>>,
}

/// State of a response or of one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseStatus {
    InProgress,
    Completed,
    /// It was cut off.
    Incomplete,
    Failed,
}

/// The error that stopped a response.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct ResponseFault<'a> {
    pub(crate) code: &'static str,
    pub(crate) message: &'a str,
}

/// Reason why a response was cut off.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct IncompleteDetails {
    /// `max_output_tokens`.
    pub(crate) reason: &'static str,
}

/// Token usage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ResponsesUsage {
    pub(crate) input_tokens: usize,
    pub(crate) input_tokens_details: InputTokensDetails,
    pub(crate) output_tokens: usize,
    pub(crate) output_tokens_details: OutputTokensDetails,
    pub(crate) total_tokens: usize,
}

/// Details of `input_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct InputTokensDetails {
    pub(crate) cached_tokens: usize,
    /// This server's: number of images that the model saw, crops included; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<NonZeroUsize>,
    /// Always 0: writing to the cache is not counted.
    pub(crate) cache_write_tokens: usize,
}

/// Details of `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OutputTokensDetails {
    pub(crate) reasoning_tokens: usize,
}

/// One item of a response.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem<'a> {
    Reasoning {
        id: &'a str,
        /// Always empty: the reasoning is returned unchanged.
        summary: [(); 0],
        content: Vec<OutputPart<'a>>,
        /// Always null.
        encrypted_content: Option<()>,
        status: ResponseStatus,
    },
    Message {
        id: &'a str,
        /// `assistant`.
        role: &'static str,
        status: ResponseStatus,
        content: Vec<OutputPart<'a>>,
    },
    FunctionCall {
        id: &'a str,
        call_id: &'a str,
        name: &'a str,
        /// Arguments of the call: a JSON object, as a string.
        arguments: &'a str,
        status: ResponseStatus,
    },
    CustomToolCall {
        id: &'a str,
        call_id: &'a str,
        name: &'a str,
        /// Text of the call.
        input: &'a str,
        status: ResponseStatus,
    },
}

/// One part of an item.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputPart<'a> {
    OutputText {
        text: &'a str,
        /// Always empty.
        annotations: [(); 0],
        /// Log-probabilities of the tokens; empty unless requested.
        logprobs: &'a [TokenLogprob],
    },
    ReasoningText {
        text: &'a str,
    },
}
