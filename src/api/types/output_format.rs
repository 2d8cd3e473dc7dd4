//! Output formats: OpenAI's `response_format` and vLLM's `structured_outputs`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::object::JsonObject;
use super::presence::Presence;

/// `response_format`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["text", "json_object", "json_schema"]))]
    pub(in crate::api) kind: String,
    /// The schema, for the type `json_schema`.
    pub(in crate::api) json_schema: Option<JsonObject<NamedSchema>>,
    /// A JSON schema for the type `json_object`, as llama.cpp and Together take it.
    pub(in crate::api) schema: Option<Value>,
}

/// A JSON schema with its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct NamedSchema {
    /// 1–64 letters, digits, `_` and `-`.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9_-]{1,64}$"))]
    pub(in crate::api) name: String,
    /// Description of the schema; it has no effect on the answer.
    #[serde(rename = "description")]
    pub(in crate::api) _description: Option<String>,
    /// A JSON schema. Absent: any JSON object.
    pub(in crate::api) schema: Option<Value>,
    /// Without effect: every schema is enforced.
    #[serde(rename = "strict")]
    pub(in crate::api) _strict: Option<bool>,
}

/// vLLM's `structured_outputs`: exactly one of these fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct StructuredOutputs {
    /// A JSON schema, or a JSON schema written as a string.
    pub(in crate::api) json: Option<Value>,
    /// A regular expression that the whole answer matches.
    pub(in crate::api) regex: Option<String>,
    /// The possible answers.
    pub(in crate::api) choice: Option<Vec<String>>,
    /// A grammar in Lark's notation, with the start rule `start`.
    pub(in crate::api) grammar: Option<String>,
    /// Whether the answer is any JSON object.
    pub(in crate::api) json_object: Option<bool>,
    /// Known, not supported.
    #[serde(default)]
    pub(in crate::api) structural_tag: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(in crate::api) whitespace_pattern: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(in crate::api) disable_any_whitespace: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(in crate::api) disable_additional_properties: Presence,
}
