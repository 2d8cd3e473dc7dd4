//! Fields that all generating endpoints share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::presence::Presence;
use super::seed::Seed;
use crate::api::http::object::JsonObject;
use crate::core::TokenId;

/// Sampling parameters as clients send them. Absent and null are the same.
///
/// Integers are signed here so that `sampling` can reject −1 with the field's range.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct SamplingFields {
    /// Maximum number of new tokens; default: all that fit, and 16 in `/v1/completions`.
    #[schemars(range(min = 1))]
    pub(crate) max_tokens: Option<i64>,
    /// The same as `max_tokens`; preferred if both are given.
    #[schemars(range(min = 1))]
    pub(crate) max_completion_tokens: Option<i64>,
    /// Sampling temperature, 0–2; 0 is greedy. Default: the checkpoint's.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub(crate) temperature: Option<f64>,
    /// Nucleus sampling: above 0, at most 1. Default: the checkpoint's.
    #[schemars(extend("exclusiveMinimum" = 0.0, "maximum" = 1.0))]
    pub(crate) top_p: Option<f64>,
    /// Top-k sampling: at least 1; 0 and −1 turn it off. Default: the checkpoint's.
    #[schemars(range(min = -1))]
    pub(crate) top_k: Option<i64>,
    /// Minimum probability relative to the most probable token, 0–1.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.0))]
    pub(crate) min_p: Option<f64>,
    /// −2–2; lowers the logits of generated tokens once.
    #[schemars(range(min = -2.0, max = 2.0), extend("default" = 0.0))]
    pub(crate) presence_penalty: Option<f64>,
    /// −2–2; lowers the logits of generated tokens in proportion to their count.
    #[schemars(range(min = -2.0, max = 2.0), extend("default" = 0.0))]
    pub(crate) frequency_penalty: Option<f64>,
    /// vLLM's: above 0, at most 10; divides the logits of tokens in the prompt and of generated
    /// tokens.
    #[schemars(extend("exclusiveMinimum" = 0.0, "maximum" = 10.0, "default" = 1.0))]
    pub(crate) repetition_penalty: Option<f64>,
    /// Bias for token ids, which are written as strings; −100–100.
    pub(crate) logit_bias: Option<BTreeMap<String, f64>>,
    /// vLLM's: number of alternatives for each prompt token, 0–20; not with `stream`.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) prompt_logprobs: Option<i64>,
    /// Any 64-bit integer; default: a random one.
    pub(crate) seed: Option<Seed>,
    /// Stop strings: one string, or up to 32.
    pub(crate) stop: Option<Stop>,
    /// Token ids that end the answer.
    #[schemars(with = "Option<Vec<TokenId>>", length(max = 1024))]
    pub(crate) stop_token_ids: Option<Vec<i32>>,
    /// vLLM's: the only tokens that may be sampled.
    #[schemars(with = "Option<Vec<TokenId>>", length(min = 1))]
    pub(crate) allowed_token_ids: Option<Vec<i32>>,
    /// vLLM's: up to 1024 texts that must not occur in the answer, as the tokens that each has at the
    /// beginning of a text and behind a space.
    #[schemars(length(max = 1024))]
    pub(crate) bad_words: Option<Vec<String>>,
    /// vLLM's: whether the stop string or stop token that ends the answer is part of its text.
    #[schemars(extend("default" = false))]
    pub(crate) include_stop_str_in_output: Option<bool>,
    /// vLLM's: whether control tokens are left out of the text. Reasoning and tool calls are told
    /// apart either way.
    #[schemars(extend("default" = true))]
    pub(crate) skip_special_tokens: Option<bool>,
    /// vLLM's: whether log-probabilities name each token by its id, as `token_id:123`.
    #[schemars(extend("default" = false))]
    pub(crate) return_tokens_as_token_ids: Option<bool>,
    /// vLLM's: up to 128 tokens whose log-probabilities are returned in place of the most probable
    /// ones, behind the chosen token's; only with `logprobs`.
    #[schemars(with = "Option<Vec<TokenId>>", length(max = 128))]
    pub(crate) logprob_token_ids: Option<Vec<i32>>,
    /// Minimum number of new tokens.
    #[schemars(range(min = 0), extend("default" = 0))]
    pub(crate) min_tokens: Option<i64>,
    /// Whether to ignore the model's own stop tokens.
    #[schemars(extend("default" = false))]
    pub(crate) ignore_eos: Option<bool>,
    /// Number of answers to each prompt, 1–128.
    #[schemars(range(min = 1, max = 128), extend("default" = 1))]
    pub(crate) n: Option<i64>,
    /// Whether to return token ids with the text.
    #[schemars(extend("default" = false))]
    pub(crate) return_token_ids: Option<bool>,
}

/// Streaming options.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct StreamFields {
    /// Whether to stream the response.
    #[schemars(extend("default" = false))]
    pub(crate) stream: Option<bool>,
    /// Settings of the stream; only with `stream`.
    pub(crate) stream_options: Option<JsonObject<StreamOptions>>,
}

/// `stream_options`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk contains the usage.
    #[schemars(extend("default" = false))]
    pub(crate) include_usage: Option<bool>,
    /// vLLM's: whether every chunk contains the usage so far.
    #[schemars(extend("default" = false))]
    pub(crate) continuous_usage_stats: Option<bool>,
    /// OpenAI's; not supported.
    #[serde(default)]
    pub(crate) include_obfuscation: Presence,
}

/// One or more stop strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
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
