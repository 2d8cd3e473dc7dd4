//! Tools that a model may call, and calls.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::api::generate::types::json_text::ObjectText;
use crate::api::http::object::JsonObject;

/// The parameter of a custom tool, which the model knows as a function.
pub(crate) const CUSTOM_INPUT: &str = "input";

/// A tool that may be called.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ToolDefinition {
    /// `function` or `custom`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The function, for the type `function`.
    pub(crate) function: Option<JsonObject<FunctionDefinition>>,
    /// The tool that takes text, for the type `custom`.
    pub(crate) custom: Option<JsonObject<CustomDefinition>>,
    /// Whether the model is told nothing of it: a tool of another API that nobody here can run. It
    /// keeps its place in the list, so that errors name the right one.
    #[serde(skip)]
    pub(crate) is_left_out: bool,
}

/// A tool of the client that takes any text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CustomDefinition {
    /// As a function's.
    pub(crate) name: String,
    /// Description of the tool for the model.
    pub(crate) description: Option<String>,
    /// The form of the text. Default: any.
    pub(crate) format: Option<JsonObject<CustomFormat>>,
}

/// The form of a custom tool's text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CustomFormat {
    /// `text`, or `grammar`: the model is told of it, and not held to it.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The grammar, for the type `grammar`.
    pub(crate) grammar: Option<JsonObject<CustomGrammar>>,
}

/// The grammar of a custom tool's text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CustomGrammar {
    /// `lark` or `regex`.
    pub(crate) syntax: String,
    /// The grammar.
    pub(crate) definition: String,
}

/// A function that the client can run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct FunctionDefinition {
    /// 1–128 letters, digits, underscores, hyphens and dots.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9_.-]{1,128}$"))]
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
    /// `{"type": "function", "function": {"name": …}}`: this tool must be called; or, with the type
    /// `allowed_tools`, the tools that may be called.
    Named(NamedToolChoice),
}

/// A tool that must be called, or the tools that may be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct NamedToolChoice {
    /// `function`, `custom` or `allowed_tools`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The function.
    pub(crate) function: Option<JsonObject<NamedFunction>>,
    /// The custom tool.
    pub(crate) custom: Option<JsonObject<NamedFunction>>,
    /// The tools that may be called. The model is told of no others.
    pub(crate) allowed_tools: Option<JsonObject<AllowedTools>>,
}

/// Some of the `tools`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct AllowedTools {
    /// `auto`, or `required`: one of them must be called.
    pub(crate) mode: String,
    /// The tools, each by its type and name.
    pub(crate) tools: Vec<JsonObject<AllowedTool>>,
}

/// One of the allowed tools.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct AllowedTool {
    /// `function` or `custom`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The function.
    pub(crate) function: Option<JsonObject<NamedFunction>>,
    /// The custom tool.
    pub(crate) custom: Option<JsonObject<NamedFunction>>,
}

/// A tool by its name.
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
    /// `function`, also if absent, or `custom`.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The called function.
    pub(crate) function: Option<JsonObject<CalledFunction>>,
    /// The called custom tool.
    pub(crate) custom: Option<JsonObject<CalledCustom>>,
}

impl MessageToolCall {
    /// Creates the call of a function.
    pub(crate) fn of_function(id: String, name: String, arguments: String) -> Self {
        Self {
            id,
            kind: Some("function".to_owned()),
            function: Some(JsonObject(CalledFunction { name, arguments })),
            custom: None,
        }
    }

    /// Creates the call of a custom tool.
    pub(crate) fn of_custom(id: String, name: String, input: String) -> Self {
        Self {
            id,
            kind: Some("custom".to_owned()),
            function: None,
            custom: Some(JsonObject(CalledCustom { name, input })),
        }
    }
}

/// A called custom tool with its text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CalledCustom {
    /// The tool's name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) input: String,
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
    /// `function` or `custom`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The called function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<AnswerFunction>,
    /// The called custom tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom: Option<AnswerCustom>,
}

/// A called custom tool with its text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AnswerCustom {
    /// The tool's name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) input: String,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<DeltaFunction<'a>>,
    /// The called custom tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom: Option<DeltaCustom<'a>>,
}

/// What a chunk adds to a call of a custom tool.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeltaCustom<'a> {
    /// Present in the call's first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// The next piece of the text.
    pub(crate) input: &'a str,
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
