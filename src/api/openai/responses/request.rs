//! `POST /v1/responses`: fields of these requests only.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::generate::types::json_text::{JsonText, ObjectText};
use crate::api::generate::types::presence::Presence;
use crate::api::generate::types::text_or::TextOr;
use crate::api::http::object::JsonObject;

/// The request's own fields. The fields shared with chats are in `SamplingFields`,
/// `SchedulingFields`, `StreamFields` and `LabelFields`, read from the same body. Absent and null
/// are the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct ResponsesRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// A question, or the conversation so far.
    pub(crate) input: TextOr<InputItem>,
    /// Instructions for the model, before the conversation.
    pub(crate) instructions: Option<String>,
    /// Maximum number of new tokens, including reasoning.
    pub(crate) max_output_tokens: Option<i64>,
    /// Output format of the answer.
    pub(crate) text: Option<JsonObject<TextConfig>>,
    /// Whether the model reasons before the answer.
    pub(crate) reasoning: Option<JsonObject<ReasoningConfig>>,
    /// Tools that the model may call.
    pub(crate) tools: Option<Vec<JsonObject<FunctionTool>>>,
    /// `none`, `auto`, `required`, one tool, or the tools that may be called.
    pub(crate) tool_choice: Option<FunctionChoice>,
    /// Whether one answer may call several functions.
    pub(crate) parallel_tool_calls: Option<bool>,
    /// Additional output data: `message.output_text.logprobs`. `reasoning.encrypted_content` is
    /// taken without effect: reasoning is returned as text.
    pub(crate) include: Option<Vec<String>>,
    /// Number of alternatives for each token, 0–20; only with log-probabilities.
    pub(crate) top_logprobs: Option<i64>,
}

/// One item of the conversation. Its fields depend on its type.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct InputItem {
    /// `message` (also if absent), `function_call`, `function_call_output`, `custom_tool_call`,
    /// `custom_tool_call_output` or `reasoning`.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Role of a message: `user`, `assistant`, `system` or `developer`.
    pub(crate) role: Option<String>,
    /// Content of a message: text and images.
    pub(crate) content: Option<TextOr<InputPart>>,
    /// Id of a call, in the call and in its output.
    pub(crate) call_id: Option<String>,
    /// Name of the function, in a call.
    pub(crate) name: Option<String>,
    /// Arguments of a function's call: a JSON object, as a string.
    pub(crate) arguments: Option<String>,
    /// Text of a custom tool's call.
    pub(crate) input: Option<String>,
    /// Result of a call, in its output.
    pub(crate) output: Option<TextOr<InputPart>>,
}

/// One part of a message or of a call's output.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct InputPart {
    /// `input_text`, `output_text`, `input_image`, `input_file`, or in an assistant's message
    /// `refusal`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Text of an `input_text` or `output_text` part.
    pub(crate) text: Option<String>,
    /// Text of a `refusal` part.
    pub(crate) refusal: Option<String>,
    /// Image of an `input_image` part: a data URI.
    pub(crate) image_url: Option<String>,
    /// Resolution of an `input_image` part: `auto`, `low`, `high` or `original`. Without effect:
    /// Gemma 3 processes every image at one resolution.
    pub(crate) detail: Option<String>,
    /// File of an `input_file` part: a data URI, or its bytes in base64. It is an image, whatever
    /// its media type says.
    pub(crate) file_data: Option<String>,
    /// Name of an `input_file` part; without effect: its content says what it is.
    #[serde(rename = "filename")]
    _filename: Option<String>,
    /// Known, not supported: address of an `input_file` part.
    #[serde(default)]
    pub(crate) file_url: Presence,
    /// Known, not supported: file id of an `input_image` or `input_file` part.
    #[serde(default)]
    pub(crate) file_id: Presence,
}

/// `text`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct TextConfig {
    /// `{"type": "text"}`, `{"type": "json_object"}`, or a schema.
    pub(crate) format: Option<JsonObject<TextFormat>>,
    /// `medium`; the length of answers cannot be controlled.
    pub(crate) verbosity: Option<String>,
}

/// `text.format`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Name of a schema.
    pub(crate) name: Option<String>,
    /// Description of a schema; it has no effect on the answer.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// The schema, for the type `json_schema`.
    pub(crate) schema: Option<JsonText>,
    /// Without effect: every schema is enforced.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// `reasoning`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct ReasoningConfig {
    /// Effort, like `reasoning_effort` of a chat.
    pub(crate) effort: Option<String>,
    /// `auto`: the reasoning is returned unchanged, not as a summary.
    pub(crate) summary: Option<String>,
    /// `summary` under its older name.
    pub(crate) generate_summary: Option<String>,
}

/// A tool of the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct FunctionTool {
    /// `function` or `custom`. Web searches and `local_shell` are left out beside such tools: the
    /// model is told nothing of them. Every other type is refused.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Name of the tool.
    pub(crate) name: Option<String>,
    /// Description of the tool.
    pub(crate) description: Option<String>,
    /// The form of a custom tool's text. Default: any.
    pub(crate) format: Option<JsonObject<CustomToolFormat>>,
    /// JSON schema of the arguments.
    pub(crate) parameters: Option<ObjectText>,
    /// Whether the arguments must be valid under the schema.
    pub(crate) strict: Option<bool>,
}

/// The form of a custom tool's text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CustomToolFormat {
    /// `text`, or `grammar`: the model is told of it, and not held to it.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `lark` or `regex`, for the type `grammar`.
    pub(crate) syntax: Option<String>,
    /// The grammar.
    pub(crate) definition: Option<String>,
}

/// `tool_choice`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum FunctionChoice {
    /// `none`, `auto` or `required`.
    Mode(String),
    /// The tool that must be called, or those that may be.
    Named(FunctionByName),
}

/// `tool_choice` as an object.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct FunctionByName {
    /// `function`, `custom` or `allowed_tools`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Name of the tool.
    pub(crate) name: Option<String>,
    /// For `allowed_tools`: `auto`, or `required`, with which one of them must be called.
    pub(crate) mode: Option<String>,
    /// For `allowed_tools`: the tools, each by its type and name. The model is told of no others.
    pub(crate) tools: Option<Vec<JsonObject<AllowedByName>>>,
}

/// One of the allowed tools.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct AllowedByName {
    /// `function` or `custom`; others are left out, as in the list of tools.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Name of the tool.
    pub(crate) name: Option<String>,
}

struct FunctionChoiceVisitor;

impl<'de> Visitor<'de> for FunctionChoiceVisitor {
    type Value = FunctionChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none, auto, required or an object")
    }

    fn visit_str<E>(self, value: &str) -> Result<FunctionChoice, E> {
        Ok(FunctionChoice::Mode(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FunctionChoice, A::Error> {
        let map = MapAccessDeserializer::new(map);
        FunctionByName::deserialize(map).map(FunctionChoice::Named)
    }
}

impl<'de> Deserialize<'de> for FunctionChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FunctionChoiceVisitor)
    }
}

/// Fields that the response repeats unchanged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct RepeatedFields {
    pub(crate) instructions: Option<Box<RawValue>>,
    pub(crate) metadata: Option<Box<RawValue>>,
    pub(crate) reasoning: Option<Box<RawValue>>,
    pub(crate) text: Option<Box<RawValue>>,
    pub(crate) tool_choice: Option<Box<RawValue>>,
    pub(crate) tools: Option<Box<RawValue>>,
    pub(crate) safety_identifier: Option<Box<RawValue>>,
    pub(crate) prompt_cache_key: Option<Box<RawValue>>,
    pub(crate) user: Option<Box<RawValue>>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) top_logprobs: Option<i64>,
}
