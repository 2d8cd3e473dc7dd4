//! `POST /v1/messages`: Anthropic's request.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::object::JsonObject;
use super::text_or::TextOr;

/// A request to answer a conversation. Absent and null are the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct MessagesRequest {
    /// Name of the model. Default: the served model.
    pub(in crate::api) model: Option<String>,
    /// Maximum number of new tokens, including thinking. Required, except for counting tokens.
    pub(in crate::api) max_tokens: Option<i64>,
    /// The conversation so far.
    pub(in crate::api) messages: Vec<JsonObject<InputMessage>>,
    /// Instructions, as a string or as text blocks.
    pub(in crate::api) system: Option<TextOr<InputBlock>>,
    /// Sampling temperature, 0–1; 0 is greedy.
    pub(in crate::api) temperature: Option<f64>,
    /// Nucleus sampling: above 0, at most 1.
    pub(in crate::api) top_p: Option<f64>,
    /// Top-k sampling: at least 1; 0 and −1 turn it off.
    pub(in crate::api) top_k: Option<i64>,
    /// Up to 32 strings that end the answer.
    pub(in crate::api) stop_sequences: Option<Vec<String>>,
    /// Tools that the model may call.
    pub(in crate::api) tools: Option<Vec<JsonObject<InputTool>>>,
    /// Whether tools must be called, and which.
    pub(in crate::api) tool_choice: Option<JsonObject<InputToolChoice>>,
    /// Whether the model thinks before the answer.
    pub(in crate::api) thinking: Option<JsonObject<Thinking>>,
    /// Output format and effort of the answer.
    pub(in crate::api) output_config: Option<JsonObject<OutputConfig>>,
    /// Without effect: the server caches the prefix of every prompt.
    #[serde(rename = "cache_control")]
    _cache_control: Option<Map<String, Value>>,
    /// The client's id of the end user; without effect.
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

/// One message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputMessage {
    /// `user`, `assistant` or `system`.
    pub(in crate::api) role: String,
    /// Text, images, tool calls and tool results.
    pub(in crate::api) content: TextOr<InputBlock>,
}

/// One block of a message. Its fields depend on its type. `cache_control` has no effect, because
/// the server caches the prefix of every prompt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct InputBlock {
    /// `text`, `image`, `tool_use`, `tool_result`, `thinking` or `redacted_thinking`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Text of a `text` block.
    pub(in crate::api) text: Option<String>,
    /// Image of an `image` block.
    pub(in crate::api) source: Option<JsonObject<ImageSource>>,
    /// Id of a `tool_use` block, to which its result refers.
    pub(in crate::api) id: Option<String>,
    /// Name of the tool, in a `tool_use` block.
    pub(in crate::api) name: Option<String>,
    /// Arguments of a `tool_use` block, an object.
    pub(in crate::api) input: Option<Map<String, Value>>,
    /// Id of the call, in a `tool_result` block.
    pub(in crate::api) tool_use_id: Option<String>,
    /// Result of the call, in a `tool_result` block.
    pub(in crate::api) content: Option<TextOr<ResultBlock>>,
    /// Whether the tool failed, in a `tool_result` block.
    pub(in crate::api) is_error: Option<bool>,
}

/// One block of a tool's result.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ResultBlock {
    /// `text`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Text of a `text` block.
    pub(in crate::api) text: Option<String>,
}

/// The data of an image.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ImageSource {
    /// `base64`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Media type of the image: `image/png` and others.
    pub(in crate::api) media_type: Option<String>,
    /// Bytes of the image, in base64.
    pub(in crate::api) data: Option<String>,
}

/// A tool of the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputTool {
    /// `custom` or absent; every other type is a tool that the server would have to run.
    #[serde(rename = "type")]
    pub(in crate::api) kind: Option<String>,
    /// Name of the tool.
    pub(in crate::api) name: String,
    /// Description of the tool.
    pub(in crate::api) description: Option<String>,
    /// JSON schema of the arguments.
    pub(in crate::api) input_schema: Option<Map<String, Value>>,
    /// Whether the arguments must be valid under the schema.
    pub(in crate::api) strict: Option<bool>,
}

/// `tool_choice`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct InputToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Name of the tool, for `tool`.
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
    /// Maximum number of thinking tokens, for `enabled`; less than `max_tokens`.
    pub(in crate::api) budget_tokens: Option<i64>,
    /// `summarized`; this server returns the whole thinking text.
    pub(in crate::api) display: Option<String>,
}

/// `output_config`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct OutputConfig {
    /// Effort, like `reasoning_effort` of a chat.
    pub(in crate::api) effort: Option<String>,
    /// A schema that constrains the answer.
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
