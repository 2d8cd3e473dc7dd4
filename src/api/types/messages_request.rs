//! `POST /v1/messages`: Anthropic's request.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::object::JsonObject;
use super::text_or::TextOr;

/// A conversation to be answered. Absent and null are the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct MessagesRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// New tokens at most, thoughts included. Required, except where tokens are only counted.
    pub(in crate::api) max_tokens: Option<i64>,
    /// The conversation so far.
    pub(in crate::api) messages: Vec<JsonObject<InputMessage>>,
    /// Instructions, as a string or as blocks of text.
    pub(in crate::api) system: Option<TextOr<InputBlock>>,
    /// 0–1; 0 is greedy.
    pub(in crate::api) temperature: Option<f64>,
    /// Above 0, at most 1.
    pub(in crate::api) top_p: Option<f64>,
    /// At least 1; 0 and −1 are off.
    pub(in crate::api) top_k: Option<i64>,
    /// Up to 32 strings that end the answer.
    pub(in crate::api) stop_sequences: Option<Vec<String>>,
    /// Tools that the model may call.
    pub(in crate::api) tools: Option<Vec<JsonObject<InputTool>>>,
    /// Whether and which tools must be called.
    pub(in crate::api) tool_choice: Option<JsonObject<InputToolChoice>>,
    /// Whether the model thinks first.
    pub(in crate::api) thinking: Option<JsonObject<Thinking>>,
    /// What the answer looks like, and how much effort goes into it.
    pub(in crate::api) output_config: Option<JsonObject<OutputConfig>>,
    /// Where to cache the prompt: every prompt is cached, as far as it goes.
    #[serde(rename = "cache_control")]
    _cache_control: Option<Map<String, Value>>,
    /// Who asks; nothing depends on it.
    #[serde(rename = "metadata")]
    _metadata: Option<JsonObject<MessagesMetadata>>,
    /// `auto` or `standard_only`, which are the same here.
    pub(in crate::api) service_tier: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct MessagesMetadata {
    #[serde(rename = "user_id")]
    _user_id: Option<String>,
}

/// One turn.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputMessage {
    /// `user`, `assistant` or `system`.
    pub(in crate::api) role: String,
    /// What is said, shown, called and answered.
    pub(in crate::api) content: TextOr<InputBlock>,
}

/// One block of a message. Which fields it has depends on its type; hints for a cache
/// (`cache_control`) change nothing, since all prompts are cached by themselves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct InputBlock {
    /// `text`, `image`, `tool_use`, `tool_result`, `thinking` or `redacted_thinking`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of a `text`.
    pub(in crate::api) text: Option<String>,
    /// Of an `image`.
    pub(in crate::api) source: Option<JsonObject<ImageSource>>,
    /// Of a `tool_use`: what its result refers to.
    pub(in crate::api) id: Option<String>,
    /// Of a `tool_use`: the tool.
    pub(in crate::api) name: Option<String>,
    /// Of a `tool_use`: its arguments, an object.
    pub(in crate::api) input: Option<Map<String, Value>>,
    /// Of a `tool_result`: the call that it answers.
    pub(in crate::api) tool_use_id: Option<String>,
    /// Of a `tool_result`: what came of it.
    pub(in crate::api) content: Option<TextOr<ResultBlock>>,
    /// Of a `tool_result`: whether the tool failed.
    pub(in crate::api) is_error: Option<bool>,
}

/// One block of a tool's result.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ResultBlock {
    /// `text`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of a `text`.
    pub(in crate::api) text: Option<String>,
}

/// Where an image is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ImageSource {
    /// `base64`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Its type: `image/png` and others.
    pub(in crate::api) media_type: Option<String>,
    /// Its bytes, in base64.
    pub(in crate::api) data: Option<String>,
}

/// A tool of the client's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputTool {
    /// `custom` or absent; every other type is a tool of the server's.
    #[serde(rename = "type")]
    pub(in crate::api) kind: Option<String>,
    /// What the model calls it.
    pub(in crate::api) name: String,
    /// What it does.
    pub(in crate::api) description: Option<String>,
    /// A JSON schema of its arguments.
    pub(in crate::api) input_schema: Option<Map<String, Value>>,
    /// Whether arguments must keep to the schema.
    pub(in crate::api) strict: Option<bool>,
}

/// `tool_choice`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of `tool`: which one.
    pub(in crate::api) name: Option<String>,
    /// Whether at most one tool is called.
    pub(in crate::api) disable_parallel_tool_use: Option<bool>,
}

/// `thinking`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of `enabled`: tokens of the thought at most, fewer than `max_tokens`.
    pub(in crate::api) budget_tokens: Option<i64>,
    /// `summarized`, which here is the whole thought.
    pub(in crate::api) display: Option<String>,
}

/// `output_config`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct OutputConfig {
    /// As `reasoning_effort` of a chat.
    pub(in crate::api) effort: Option<String>,
    /// A schema that the answer keeps to.
    pub(in crate::api) format: Option<JsonObject<OutputFormat>>,
}

/// `output_config.format`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct OutputFormat {
    /// `json_schema`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// The schema.
    pub(in crate::api) schema: Option<Value>,
}
