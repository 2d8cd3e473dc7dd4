//! `POST /v1/responses`: the response.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::logprobs::TokenLogprob;

/// The whole response; in a stream, also its state so far.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ResponseObject<'a> {
    pub(in crate::api) id: &'a str,
    /// `response`.
    pub(in crate::api) object: &'static str,
    /// Creation time, in Unix seconds.
    pub(in crate::api) created_at: u64,
    /// Completion time, in Unix seconds; null unless the response is complete.
    pub(in crate::api) completed_at: Option<u64>,
    pub(in crate::api) status: ResponseStatus,
    pub(in crate::api) error: Option<ResponseFault<'a>>,
    pub(in crate::api) incomplete_details: Option<IncompleteDetails>,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) output: Vec<OutputItem<'a>>,
    /// Null until the response has ended.
    pub(in crate::api) usage: Option<ResponsesUsage>,
    // Repeated from the request.
    pub(in crate::api) instructions: Option<&'a RawValue>,
    pub(in crate::api) max_output_tokens: Option<i64>,
    pub(in crate::api) metadata: &'a RawValue,
    pub(in crate::api) parallel_tool_calls: bool,
    pub(in crate::api) reasoning: &'a RawValue,
    pub(in crate::api) text: &'a RawValue,
    pub(in crate::api) tool_choice: &'a RawValue,
    pub(in crate::api) tools: &'a RawValue,
    pub(in crate::api) temperature: f64,
    pub(in crate::api) top_p: f64,
    pub(in crate::api) top_logprobs: i64,
    pub(in crate::api) safety_identifier: Option<&'a RawValue>,
    pub(in crate::api) prompt_cache_key: Option<&'a RawValue>,
    pub(in crate::api) user: Option<&'a RawValue>,
    pub(in crate::api) service_tier: &'static str,
    // Unsupported features.
    pub(in crate::api) background: bool,
    pub(in crate::api) store: bool,
    /// `disabled`: an input that is too long is rejected.
    pub(in crate::api) truncation: &'static str,
    #[schemars(with = "()")]
    pub(in crate::api) max_tool_calls: Option<()>,
    #[schemars(with = "()")]
    pub(in crate::api) previous_response_id: Option<()>,
}

/// State of a response or of one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ResponseStatus {
    InProgress,
    Completed,
    /// It was cut off.
    Incomplete,
    Failed,
}

/// The error that stopped a response.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ResponseFault<'a> {
    pub(in crate::api) code: &'static str,
    pub(in crate::api) message: &'a str,
}

/// Reason why a response was cut off.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct IncompleteDetails {
    /// `max_output_tokens`.
    pub(in crate::api) reason: &'static str,
}

/// Token usage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct ResponsesUsage {
    pub(in crate::api) input_tokens: usize,
    pub(in crate::api) input_tokens_details: InputTokensDetails,
    pub(in crate::api) output_tokens: usize,
    pub(in crate::api) output_tokens_details: OutputTokensDetails,
    pub(in crate::api) total_tokens: usize,
}

/// Details of `input_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct InputTokensDetails {
    pub(in crate::api) cached_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    pub(in crate::api) cache_write_tokens: usize,
}

/// Details of `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct OutputTokensDetails {
    pub(in crate::api) reasoning_tokens: usize,
}

/// One item of a response.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::api) enum OutputItem<'a> {
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
}

/// One part of an item.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::api) enum OutputPart<'a> {
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
