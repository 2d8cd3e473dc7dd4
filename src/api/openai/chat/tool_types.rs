//! Tools that a model may call, and calls.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::api::generate::types::json_text::ObjectText;
use crate::api::http::object::JsonObject;

/// A tool that may be called.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ToolDefinition {
    /// `function`; no other type is supported.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The function.
    pub(crate) function: Option<JsonObject<FunctionDefinition>>,
}

/// A function that the client can run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct FunctionDefinition {
    /// 1–64 letters, digits, underscores and hyphens.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9_-]{1,64}$"))]
    pub(crate) name: String,
    /// Description of the function for the model.
    pub(crate) description: Option<String>,
    /// JSON schema of the arguments, which must be an object. Absent: there are no arguments.
    pub(crate) parameters: Option<ObjectText>,
    /// Whether the arguments must always be valid under the schema.
    pub(crate) strict: Option<bool>,
}

/// Whether tools may or must be called, and which.
#[derive(Clone, Debug)]
pub(crate) enum ToolChoice {
    /// `none`, `auto` or `required`.
    Word(String),
    /// `{"type": "function", "function": {"name": …}}`: this function must be called.
    Named(NamedToolChoice),
}

/// A tool that must be called.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct NamedToolChoice {
    /// `function`; OpenAI's `allowed_tools` and `custom` are not supported.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The function.
    pub(crate) function: Option<JsonObject<NamedFunction>>,
}

/// A function by its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct NamedFunction {
    /// Name of one of the `tools`.
    pub(crate) name: String,
}

/// A call that the assistant made earlier.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct MessageToolCall {
    /// Id of the call, to which its result refers.
    pub(crate) id: String,
    /// `function`, also if absent.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The called function.
    pub(crate) function: JsonObject<CalledFunction>,
}

/// A called function with its arguments.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CalledFunction {
    /// The function's name.
    pub(crate) name: String,
    /// Arguments: a JSON object, as a string.
    pub(crate) arguments: String,
}

/// A call that the model makes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AnswerToolCall {
    /// Id of the call, to which its result must refer.
    pub(crate) id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The called function.
    pub(crate) function: AnswerFunction,
}

/// A called function with its arguments.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AnswerFunction {
    /// The function's name.
    pub(crate) name: String,
    /// Arguments: a JSON object, as a string. A call that was cut off is text, not a call.
    pub(crate) arguments: String,
}

/// What a chunk adds to a call.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeltaToolCall<'a> {
    /// Index of the call in the answer.
    pub(crate) index: usize,
    /// Present in the call's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Present in the call's first chunk.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    /// The called function.
    pub(crate) function: DeltaFunction<'a>,
}

/// What a chunk adds to a call's function.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeltaFunction<'a> {
    /// Present in the call's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// The next piece of the arguments' JSON.
    pub(crate) arguments: &'a str,
}

struct ToolChoiceVisitor;

impl<'de> Visitor<'de> for ToolChoiceVisitor {
    type Value = ToolChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none, auto, required or an object")
    }

    fn visit_str<E>(self, value: &str) -> Result<ToolChoice, E> {
        Ok(ToolChoice::Word(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
        NamedToolChoice::deserialize(MapAccessDeserializer::new(map)).map(ToolChoice::Named)
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ToolChoiceVisitor)
    }
}

impl JsonSchema for ToolChoice {
    fn schema_name() -> Cow<'static, str> {
        "ToolChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whether tools may or must be called, and which.",
            "anyOf": [
                {"type": "string", "enum": ["none", "auto", "required"]},
                generator.subschema_for::<NamedToolChoice>(),
            ],
        })
    }
}
