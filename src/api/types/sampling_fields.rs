//! The fields that chat and text completions share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::object::JsonObject;
use super::presence::Presence;
use super::seed::Seed;
use crate::core::TokenId;

/// How to continue a prompt, as clients write it. Absent and null are the same.
///
/// Integers are signed here so that `lower` can answer −1 with the field's range.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct SamplingFields {
    /// New tokens at most; absent: what fits, and 16 in `/v1/completions`.
    #[schemars(range(min = 1))]
    pub(in crate::api) max_tokens: Option<i64>,
    /// The same; preferred where both are given.
    #[schemars(range(min = 1))]
    pub(in crate::api) max_completion_tokens: Option<i64>,
    /// 0–2; 0 is greedy. Absent: as the checkpoint says.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub(in crate::api) temperature: Option<f64>,
    /// Above 0, at most 1. Absent: as the checkpoint says.
    #[schemars(extend("exclusiveMinimum" = 0.0, "maximum" = 1.0))]
    pub(in crate::api) top_p: Option<f64>,
    /// At least 1; 0 and −1 are off. Absent: as the checkpoint says.
    #[schemars(range(min = -1))]
    pub(in crate::api) top_k: Option<i64>,
    /// 0–1.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.0))]
    pub(in crate::api) min_p: Option<f64>,
    /// −2–2; lowers what was generated before, once.
    #[schemars(range(min = -2.0, max = 2.0), extend("default" = 0.0))]
    pub(in crate::api) presence_penalty: Option<f64>,
    /// −2–2; lowers what was generated before, each time again.
    #[schemars(range(min = -2.0, max = 2.0), extend("default" = 0.0))]
    pub(in crate::api) frequency_penalty: Option<f64>,
    /// vLLM's: above 0, at most 10; divides what stands in the prompt or was generated before.
    #[schemars(extend("exclusiveMinimum" = 0.0, "maximum" = 10.0, "default" = 1.0))]
    pub(in crate::api) repetition_penalty: Option<f64>,
    /// −100–100 for each token id, written as a string.
    pub(in crate::api) logit_bias: Option<BTreeMap<String, f64>>,
    /// vLLM's: 0–20 alternatives for each token of the prompt; not with `stream`.
    #[schemars(range(min = 0, max = 20))]
    pub(in crate::api) prompt_logprobs: Option<i64>,
    /// Any 64-bit integer; absent: a random one.
    pub(in crate::api) seed: Option<Seed>,
    /// A string or up to 32 of them.
    pub(in crate::api) stop: Option<Stop>,
    /// Ids that end the answer.
    #[schemars(with = "Option<Vec<TokenId>>", length(max = 1024))]
    pub(in crate::api) stop_token_ids: Option<Vec<i64>>,
    /// New tokens at least.
    #[schemars(range(min = 0), extend("default" = 0))]
    pub(in crate::api) min_tokens: Option<i64>,
    /// Whether the model's own stop tokens count.
    #[schemars(extend("default" = false))]
    pub(in crate::api) ignore_eos: Option<bool>,
    /// 1–128 answers to one prompt.
    #[schemars(range(min = 1, max = 128), extend("default" = 1))]
    pub(in crate::api) n: Option<i64>,
    /// Whether ids come with the text.
    #[schemars(extend("default" = false))]
    pub(in crate::api) return_token_ids: Option<bool>,
}

/// How the answer travels.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct StreamFields {
    /// Whether it comes in pieces.
    #[schemars(extend("default" = false))]
    pub(in crate::api) stream: Option<bool>,
    /// Only with `stream`.
    pub(in crate::api) stream_options: Option<JsonObject<StreamOptions>>,
}

/// `stream_options`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(in crate::api) struct StreamOptions {
    /// Whether a last chunk carries the usage.
    #[schemars(extend("default" = false))]
    pub(in crate::api) include_usage: Option<bool>,
    /// vLLM's: whether every chunk carries the usage so far.
    #[schemars(extend("default" = false))]
    pub(in crate::api) continuous_usage_stats: Option<bool>,
    /// OpenAI's; not served.
    #[serde(default)]
    pub(in crate::api) include_obfuscation: Presence,
}

/// Stop strings: one or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum Stop {
    /// `"stop": "…"`.
    One(String),
    /// `"stop": ["…"]`.
    Several(Vec<String>),
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = Stop;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E>(self, value: &str) -> Result<Stop, E> {
        Ok(Stop::One(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Stop, E> {
        Ok(Stop::One(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
        let mut strings = Vec::new();
        while let Some(string) = seq.next_element()? {
            strings.push(string);
        }
        Ok(Stop::Several(strings))
    }
}

impl JsonSchema for Stop {
    fn schema_name() -> Cow<'static, str> {
        "Stop".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({ "type": "string", "minLength": 1, "maxLength": 256 });
        json_schema!({
            "description": "One stop string or several.",
            "anyOf": [one, { "type": "array", "items": one, "maxItems": 32 }],
        })
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}
