//! `POST /v1/responses`: the answer.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::logprobs::TokenLogprob;

/// The whole answer; in a stream also what is known of it on the way.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ResponseObject<'a> {
    pub(in crate::api) id: &'a str,
    /// `response`.
    pub(in crate::api) object: &'static str,
    /// Unix seconds.
    pub(in crate::api) created_at: u64,
    /// Unix seconds; null unless it is complete.
    pub(in crate::api) completed_at: Option<u64>,
    pub(in crate::api) status: ResponseStatus,
    pub(in crate::api) error: Option<ResponseFault<'a>>,
    pub(in crate::api) incomplete_details: Option<IncompleteDetails>,
    pub(in crate::api) model: &'a str,
    pub(in crate::api) output: Vec<OutputItem<'a>>,
    /// Null until it has ended.
    pub(in crate::api) usage: Option<ResponsesUsage>,
    // What was asked for.
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
    // What there is not.
    pub(in crate::api) background: bool,
    pub(in crate::api) store: bool,
    /// `disabled`: what is too long is refused.
    pub(in crate::api) truncation: &'static str,
    #[schemars(with = "()")]
    pub(in crate::api) max_tool_calls: Option<()>,
    #[schemars(with = "()")]
    pub(in crate::api) previous_response_id: Option<()>,
}

/// How far an answer or one of its items is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ResponseStatus {
    InProgress,
    Completed,
    /// Cut off.
    Incomplete,
    Failed,
}

/// What stopped an answer.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct ResponseFault<'a> {
    pub(in crate::api) code: &'static str,
    pub(in crate::api) message: &'a str,
}

/// Why an answer was cut off.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct IncompleteDetails {
    /// `max_output_tokens`.
    pub(in crate::api) reason: &'static str,
}

/// How many tokens a request took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct ResponsesUsage {
    pub(in crate::api) input_tokens: usize,
    pub(in crate::api) input_tokens_details: InputTokensDetails,
    pub(in crate::api) output_tokens: usize,
    pub(in crate::api) output_tokens_details: OutputTokensDetails,
    pub(in crate::api) total_tokens: usize,
}

/// Of `input_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct InputTokensDetails {
    pub(in crate::api) cached_tokens: usize,
    /// Always 0: nothing is charged for keeping a prompt.
    pub(in crate::api) cache_write_tokens: usize,
}

/// Of `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::api) struct OutputTokensDetails {
    pub(in crate::api) reasoning_tokens: usize,
}

/// One item of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::api) enum OutputItem<'a> {
    Reasoning {
        id: &'a str,
        /// Always empty: the thought is there as it is.
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
        /// A JSON object.
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
        /// Empty unless they were asked for.
        logprobs: &'a [TokenLogprob],
    },
    ReasoningText {
        text: &'a str,
    },
}
