//! What an answer is to look like: OpenAI's `response_format` and vLLM's `structured_outputs`.

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
    /// With the type `json_schema`.
    pub(in crate::api) json_schema: Option<JsonObject<NamedSchema>>,
}

/// A schema and what it is called.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct NamedSchema {
    /// 1–64 letters, digits, `_` and `-`.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9_-]{1,64}$"))]
    pub(in crate::api) name: String,
    /// What it is for; the answer does not depend on it.
    #[serde(rename = "description")]
    pub(in crate::api) _description: Option<String>,
    /// A JSON schema. Absent: any JSON object.
    pub(in crate::api) schema: Option<Value>,
    /// Every schema is kept to, whatever this says.
    #[serde(rename = "strict")]
    pub(in crate::api) _strict: Option<bool>,
}

/// vLLM's `structured_outputs`: one of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct StructuredOutputs {
    /// A JSON schema, or one written as a string.
    pub(in crate::api) json: Option<Value>,
    /// Matched as a whole.
    pub(in crate::api) regex: Option<String>,
    /// One of these strings.
    pub(in crate::api) choice: Option<Vec<String>>,
    /// In Lark's notation, from the rule `start`.
    pub(in crate::api) grammar: Option<String>,
    /// Any JSON object.
    pub(in crate::api) json_object: Option<bool>,
    /// Known, not served.
    #[serde(default)]
    pub(in crate::api) structural_tag: Presence,
    /// Known, not served.
    #[serde(default)]
    pub(in crate::api) whitespace_pattern: Presence,
    /// Known, not served.
    #[serde(default)]
    pub(in crate::api) disable_any_whitespace: Presence,
    /// Known, not served.
    #[serde(default)]
    pub(in crate::api) disable_additional_properties: Presence,
}
