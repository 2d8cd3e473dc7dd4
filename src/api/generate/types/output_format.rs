//! Output formats: OpenAI's `response_format` and vLLM's `structured_outputs`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::json_text::JsonText;
use super::presence::Presence;
use crate::api::http::object::JsonObject;

/// `response_format`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["text", "json_object", "json_schema"]))]
    pub(crate) kind: String,
    /// The schema, for the type `json_schema`.
    pub(crate) json_schema: Option<JsonObject<NamedSchema>>,
    /// A JSON schema for the type `json_object`, as llama.cpp and Together take it.
    pub(crate) schema: Option<JsonText>,
}

/// A JSON schema with its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct NamedSchema {
    /// 1–64 letters, digits, `_` and `-`.
    #[schemars(extend("pattern" = "^[a-zA-Z0-9_-]{1,64}$"))]
    pub(crate) name: String,
    /// Description of the schema; it has no effect on the answer.
    #[serde(rename = "description")]
    pub(crate) _description: Option<String>,
    /// A JSON schema. Absent: any JSON object.
    pub(crate) schema: Option<JsonText>,
    /// Without effect: every schema is enforced.
    #[serde(rename = "strict")]
    pub(crate) _strict: Option<bool>,
}

/// vLLM's `structured_outputs`: exactly one of these fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct StructuredOutputs {
    /// A JSON schema, or a JSON schema written as a string.
    pub(crate) json: Option<JsonText>,
    /// A regular expression that the whole answer matches.
    pub(crate) regex: Option<String>,
    /// The possible answers.
    pub(crate) choice: Option<Vec<String>>,
    /// A grammar: in GBNF (EBNF) as llama.cpp and xgrammar read it, with the start rule `root`, or in
    /// Lark's notation, with the start rule `start`. They are told apart by the `::=` of GBNF's rules.
    pub(crate) grammar: Option<String>,
    /// Whether the answer is any JSON object.
    pub(crate) json_object: Option<bool>,
    /// Known, not supported.
    #[serde(default)]
    pub(crate) structural_tag: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(crate) whitespace_pattern: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(crate) disable_any_whitespace: Presence,
    /// Known, not supported.
    #[serde(default)]
    pub(crate) disable_additional_properties: Presence,
}
