//! `POST /v1/messages`: Anthropic's request.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::generate::types::json_text::{JsonText, ObjectText};
use crate::api::generate::types::text_or::TextOr;
use crate::api::http::object::JsonObject;

/// A request to answer a conversation. Absent and null are the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct MessagesRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// Maximum number of new tokens, including thinking. Required, except for counting tokens.
    pub(crate) max_tokens: Option<i64>,
    /// The conversation so far.
    pub(crate) messages: Vec<JsonObject<InputMessage>>,
    /// Instructions, as a string or as text blocks.
    pub(crate) system: Option<TextOr<InputBlock>>,
    /// Sampling temperature, 0–1; 0 is greedy.
    pub(crate) temperature: Option<f64>,
    /// Nucleus sampling: above 0, at most 1.
    pub(crate) top_p: Option<f64>,
    /// Top-k sampling: at least 1; 0 and −1 turn it off.
    pub(crate) top_k: Option<i64>,
    /// Up to 32 strings that end the answer.
    pub(crate) stop_sequences: Option<Vec<String>>,
    /// Tools that the model may call.
    pub(crate) tools: Option<Vec<JsonObject<InputTool>>>,
    /// Whether tools must be called, and which.
    pub(crate) tool_choice: Option<JsonObject<InputToolChoice>>,
    /// Whether the model thinks before the answer.
    pub(crate) thinking: Option<JsonObject<Thinking>>,
    /// Output format and effort of the answer.
    pub(crate) output_config: Option<JsonObject<OutputConfig>>,
    /// Without effect: the server caches the prefix of every prompt.
    #[serde(rename = "cache_control")]
    _cache_control: Option<ObjectText>,
    /// The client's id of the end user; without effect.
    #[serde(rename = "metadata")]
    _metadata: Option<JsonObject<MessagesMetadata>>,
    /// `auto` or `standard_only`, which are the same here.
    pub(crate) service_tier: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct MessagesMetadata {
    #[serde(rename = "user_id")]
    _user_id: Option<String>,
}

/// One message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct InputMessage {
    /// `user`, `assistant` or `system`.
    pub(crate) role: String,
    /// Text, images, tool calls and tool results.
    pub(crate) content: TextOr<InputBlock>,
}

/// One block of a message. Its fields depend on its type. `cache_control` has no effect, because
/// the server caches the prefix of every prompt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct InputBlock {
    /// `text`, `image`, `document`, `tool_use`, `tool_result`, `thinking` or `redacted_thinking`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Text of a `text` block.
    pub(crate) text: Option<String>,
    /// Image of an `image` block, or file of a `document` block, which is an image too, whatever its
    /// media type says.
    pub(crate) source: Option<JsonObject<ImageSource>>,
    /// Id of a `tool_use` block, to which its result refers.
    pub(crate) id: Option<String>,
    /// Name of the tool, in a `tool_use` block.
    pub(crate) name: Option<String>,
    /// Arguments of a `tool_use` block, an object.
    pub(crate) input: Option<ObjectText>,
    /// Id of the call, in a `tool_result` block.
    pub(crate) tool_use_id: Option<String>,
    /// Result of the call, in a `tool_result` block.
    pub(crate) content: Option<TextOr<ResultBlock>>,
    /// Whether the tool failed, in a `tool_result` block.
    pub(crate) is_error: Option<bool>,
}

/// One block of a tool's result.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ResultBlock {
    /// `text`, `image` or `document`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Text of a `text` block.
    pub(crate) text: Option<String>,
    /// Image of an `image` block, or file of a `document` block, which is an image too, whatever its
    /// media type says.
    pub(crate) source: Option<JsonObject<ImageSource>>,
}

/// The data of an image.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ImageSource {
    /// `base64`, or `url` for a data URI.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Media type of the image: `image/png` and others.
    pub(crate) media_type: Option<String>,
    /// Bytes of the image, in base64.
    pub(crate) data: Option<String>,
    /// For `url`: the image as a data URI.
    pub(crate) url: Option<String>,
}

/// A tool of the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct InputTool {
    /// `custom` or absent. Anthropic's searches are left out beside such tools; every other type is
    /// refused.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Name of the tool.
    pub(crate) name: String,
    /// Description of the tool.
    pub(crate) description: Option<String>,
    /// JSON schema of the arguments.
    pub(crate) input_schema: Option<ObjectText>,
    /// Whether the arguments must be valid under the schema.
    pub(crate) strict: Option<bool>,
}

/// `tool_choice`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct InputToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Name of the tool, for `tool`.
    pub(crate) name: Option<String>,
    /// Whether at most one tool is called.
    pub(crate) disable_parallel_tool_use: Option<bool>,
}

/// `thinking`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Maximum number of thinking tokens, for `enabled`; less than `max_tokens`.
    pub(crate) budget_tokens: Option<i64>,
    /// `summarized`; this server returns the whole thinking text.
    pub(crate) display: Option<String>,
}

/// `output_config`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct OutputConfig {
    /// Effort, like `reasoning_effort` of a chat.
    pub(crate) effort: Option<String>,
    /// A schema that constrains the answer.
    pub(crate) format: Option<JsonObject<OutputFormat>>,
}

/// `output_config.format`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct OutputFormat {
    /// `json_schema`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The schema.
    pub(crate) schema: Option<JsonText>,
}
