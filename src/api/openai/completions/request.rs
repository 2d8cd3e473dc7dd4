//! `POST /v1/completions`: fields of text completion requests only.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};

use crate::api::generate::types::id_list::read_rest;
use crate::api::generate::types::json_text::JsonText;
use crate::api::generate::types::output_format::{ResponseFormat, StructuredOutputs};
use crate::api::http::object::JsonObject;

use crate::core::TokenId;

/// A text completion's own fields. The shared fields are in `SamplingFields` and `StreamFields`,
/// read from the same body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct CompletionRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// The text or tokens to continue.
    pub(crate) prompt: Prompt,
    /// Number of alternatives for each token, 0–20.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) logprobs: Option<i64>,
    /// Whether the answer begins with the prompt; with `logprobs`, also with the prompt's
    /// log-probabilities. With `max_tokens` of 0 it is the prompt alone.
    #[schemars(extend("default" = false))]
    pub(crate) echo: Option<bool>,
    /// Constrains the answer to JSON, or to JSON that is valid under a schema.
    pub(crate) response_format: Option<JsonObject<ResponseFormat>>,
    /// vLLM's: constraint on the answer's text.
    pub(crate) structured_outputs: Option<JsonObject<StructuredOutputs>>,
    /// vLLM's: older name of `structured_outputs.json`.
    pub(crate) guided_json: Option<JsonText>,
    /// vLLM's: older name of `structured_outputs.regex`.
    pub(crate) guided_regex: Option<String>,
    /// vLLM's: older name of `structured_outputs.choice`.
    pub(crate) guided_choice: Option<Vec<String>>,
    /// vLLM's: older name of `structured_outputs.grammar`.
    pub(crate) guided_grammar: Option<String>,
    /// vLLM's: without effect, since there is one backend.
    #[serde(rename = "guided_decoding_backend")]
    pub(crate) _guided_decoding_backend: Option<String>,
    /// vLLM's: maximum number of each prompt's tokens; of a longer one, the last are kept. −1 stands
    /// for the most that the model takes.
    #[schemars(range(min = -1))]
    pub(crate) truncate_prompt_tokens: Option<i64>,
    /// vLLM's: `left` (default) or `right`, the end at which a longer prompt is cut off.
    #[schemars(extend("enum" = ["left", "right", null]))]
    pub(crate) truncation_side: Option<String>,
}

/// One or more prompts, as text or as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// `"…"`.
    Text(String),
    /// `["…", "…"]`.
    Texts(Vec<String>),
    /// `[2, 651]`: one prompt.
    Ids(Vec<i32>),
    /// `[[2, 651], [2, 5]]`: several prompts.
    IdLists(Vec<Vec<i32>>),
    /// `[]`: an empty list of unknown type.
    Nothing,
}

/// The first element of an array, which determines the type of the others.
enum First {
    Text(String),
    Id(i32),
    Ids(Vec<i32>),
}

struct PromptVisitor;
struct FirstVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, an array of ids or an array of arrays of ids")
    }

    fn visit_str<E>(self, value: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Prompt, E> {
        Ok(Prompt::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        Ok(match seq.next_element()? {
            None => Prompt::Nothing,
            Some(First::Text(text)) => Prompt::Texts(read_rest(text, seq)?),
            Some(First::Id(id)) => Prompt::Ids(read_rest(id, seq)?),
            Some(First::Ids(ids)) => Prompt::IdLists(read_rest(ids, seq)?),
        })
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

impl JsonSchema for Prompt {
    fn schema_name() -> Cow<'static, str> {
        "Prompt".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let id = generator.subschema_for::<TokenId>();
        json_schema!({
            "description": "One prompt or several, as text or as token ids.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                { "type": "array", "items": id, "minItems": 1 },
                {
                    "type": "array",
                    "items": { "type": "array", "items": id, "minItems": 1 },
                    "minItems": 1,
                },
            ],
        })
    }
}

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = First;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an id or an array of ids")
    }

    fn visit_str<E>(self, value: &str) -> Result<First, E> {
        Ok(First::Text(value.to_owned()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<First, E> {
        let id = i32::try_from(value);
        id.map(First::Id)
            .map_err(|_| E::invalid_value(Unexpected::Signed(value), &"i32"))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<First, E> {
        let id = i32::try_from(value);
        id.map(First::Id)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &"i32"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First, A::Error> {
        match seq.next_element()? {
            None => Ok(First::Ids(Vec::new())),
            Some(id) => read_rest(id, seq).map(First::Ids),
        }
    }
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor)
    }
}
