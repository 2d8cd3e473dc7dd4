//! `POST /v1/responses`: what only this request has.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::object::JsonObject;
use super::presence::Presence;
use super::text_or::TextOr;

/// The request's own fields; those that it shares with a chat are `SamplingFields`, `SchedulingFields`,
/// `StreamFields` and `LabelFields`, read from the same body. Absent and null are the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct ResponsesRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// A question, or the conversation so far.
    pub(in crate::api) input: TextOr<InputItem>,
    /// What the model is told before the conversation.
    pub(in crate::api) instructions: Option<String>,
    /// New tokens at most, thoughts included.
    pub(in crate::api) max_output_tokens: Option<i64>,
    /// What the answer looks like.
    pub(in crate::api) text: Option<JsonObject<TextConfig>>,
    /// Whether the model thinks first.
    pub(in crate::api) reasoning: Option<JsonObject<ReasoningConfig>>,
    /// Functions that the model may call.
    pub(in crate::api) tools: Option<Vec<JsonObject<FunctionTool>>>,
    /// `none`, `auto`, `required`, or which function.
    pub(in crate::api) tool_choice: Option<FunctionChoice>,
    /// Whether several functions may be called in one answer.
    pub(in crate::api) parallel_tool_calls: Option<bool>,
    /// What the answer holds besides: `message.output_text.logprobs`.
    pub(in crate::api) include: Option<Vec<String>>,
    /// 0–20 alternatives for each token; only with its log-probability.
    pub(in crate::api) top_logprobs: Option<i64>,
}

/// One item of the conversation. Which fields it has depends on its type.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct InputItem {
    /// `message` (also if absent), `function_call`, `function_call_output` or `reasoning`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: Option<String>,
    /// Of a message: `user`, `assistant`, `system` or `developer`.
    pub(in crate::api) role: Option<String>,
    /// Of a message: what is said and shown.
    pub(in crate::api) content: Option<TextOr<InputPart>>,
    /// Of a call and of its output.
    pub(in crate::api) call_id: Option<String>,
    /// Of a call: the function.
    pub(in crate::api) name: Option<String>,
    /// Of a call: a JSON object.
    pub(in crate::api) arguments: Option<String>,
    /// Of a call's output: what came of it.
    pub(in crate::api) output: Option<TextOr<InputPart>>,
}

/// One part of a message or of a call's output.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct InputPart {
    /// `input_text`, `output_text` or `input_image`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of a text.
    pub(in crate::api) text: Option<String>,
    /// Of an image: a data URI.
    pub(in crate::api) image_url: Option<String>,
    /// Of an image: `auto`, `low`, `high` or `original`; Gemma 3 sees every image at one
    /// resolution.
    pub(in crate::api) detail: Option<String>,
    /// Of an image; there are no files here.
    #[serde(default)]
    pub(in crate::api) file_id: Presence,
}

/// `text`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct TextConfig {
    /// `{"type": "text"}`, `{"type": "json_object"}`, or a schema.
    pub(in crate::api) format: Option<JsonObject<TextFormat>>,
    /// `medium`: how much is said is the model's business.
    pub(in crate::api) verbosity: Option<String>,
}

/// `text.format`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Of a schema.
    pub(in crate::api) name: Option<String>,
    /// Of a schema: what it is for; the answer does not depend on it.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// Of a schema: itself.
    pub(in crate::api) schema: Option<Value>,
    /// Of a schema: every one is kept to, whatever this says.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// `reasoning`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct ReasoningConfig {
    /// As `reasoning_effort` of a chat.
    pub(in crate::api) effort: Option<String>,
    /// `auto`: thoughts come as they are, not in summary.
    pub(in crate::api) summary: Option<String>,
    /// The same under its older name.
    pub(in crate::api) generate_summary: Option<String>,
}

/// A function of the client's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct FunctionTool {
    /// `function`; every other type is a tool of the server's.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// What the model calls it.
    pub(in crate::api) name: Option<String>,
    /// What it does.
    pub(in crate::api) description: Option<String>,
    /// A JSON schema of its arguments.
    pub(in crate::api) parameters: Option<Map<String, Value>>,
    /// Whether arguments must keep to the schema.
    pub(in crate::api) strict: Option<bool>,
}

/// `tool_choice`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::api) enum FunctionChoice {
    /// `none`, `auto` or `required`.
    Mode(String),
    /// Which function.
    Named(FunctionByName),
}

/// `tool_choice` as an object.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct FunctionByName {
    /// `function`.
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    /// Which one.
    pub(in crate::api) name: Option<String>,
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

/// Fields that the answer repeats as they were written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct RepeatedFields {
    pub(in crate::api) instructions: Option<Box<RawValue>>,
    pub(in crate::api) metadata: Option<Box<RawValue>>,
    pub(in crate::api) reasoning: Option<Box<RawValue>>,
    pub(in crate::api) text: Option<Box<RawValue>>,
    pub(in crate::api) tool_choice: Option<Box<RawValue>>,
    pub(in crate::api) tools: Option<Box<RawValue>>,
    pub(in crate::api) safety_identifier: Option<Box<RawValue>>,
    pub(in crate::api) prompt_cache_key: Option<Box<RawValue>>,
    pub(in crate::api) user: Option<Box<RawValue>>,
    pub(in crate::api) temperature: Option<f64>,
    pub(in crate::api) top_p: Option<f64>,
    pub(in crate::api) max_output_tokens: Option<i64>,
    pub(in crate::api) parallel_tool_calls: Option<bool>,
    pub(in crate::api) top_logprobs: Option<i64>,
}
