//! The formats of errors: OpenAI's and Anthropic's JSON.

use schemars::JsonSchema;
use serde::Serialize;

/// An error in Anthropic's format.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicError")]
pub(crate) struct AnthropicEnvelope<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) error: AnthropicBody<'a>,
    pub(super) request_id: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicErrorBody")]
pub(super) struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) message: &'a str,
}

/// An error in OpenAI's format.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorEnvelope<'a> {
    pub(super) error: Body<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
pub(super) struct Body<'a> {
    /// What is wrong and how to fix it.
    pub(super) message: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Dotted path of the invalid field.
    pub(super) param: Option<&'a str>,
    /// Machine-readable error code.
    pub(super) code: Option<&'static str>,
}
