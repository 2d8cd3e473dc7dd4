//! Log-probabilities, in the format of chats and in the older one of text completions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Log-probabilities of a chat: `{"content": [...], "refusal": null}`.
#[derive(Clone, Debug, serde::Serialize, JsonSchema)]
pub(crate) struct ChatLogprobs {
    /// One entry for each token, in order.
    pub(crate) content: Vec<TokenLogprob>,
    /// Always null, because no answer is a refusal.
    #[schemars(with = "()")]
    pub(crate) refusal: Option<()>,
}

/// A token and its alternatives.
#[derive(Clone, Debug, serde::Serialize, JsonSchema)]
pub(crate) struct TokenLogprob {
    /// The token itself.
    #[serde(flatten)]
    pub(crate) chosen: TopLogprob,
    /// The most probable tokens, best first. With `logprob_token_ids`, the token itself and those of
    /// the request.
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

/// A token with its log-probability.
#[derive(Clone, Debug, serde::Serialize, JsonSchema)]
pub(crate) struct TopLogprob {
    /// Text of the token; U+FFFD if its bytes are not a character by themselves. With
    /// `return_tokens_as_token_ids`, its id: `token_id:123`.
    pub(crate) token: String,
    /// Natural logarithm, at least −9999.
    pub(crate) logprob: f32,
    /// Bytes that the token adds to the text, which together are the text's UTF-8: one byte of a
    /// character that several tokens write, none for control tokens.
    pub(crate) bytes: Vec<u8>,
}

/// Log-probabilities of a text completion: four lists of the same length.
#[derive(Clone, Debug, Default, serde::Serialize, JsonSchema)]
pub(crate) struct CompletionLogprobs {
    /// Offset of each token in the answer, in characters.
    pub(crate) text_offset: Vec<usize>,
    /// Log-probability of each token; null for the first token of an echoed prompt.
    pub(crate) token_logprobs: Vec<Option<f32>>,
    /// Text of each token.
    pub(crate) tokens: Vec<String>,
    /// Alternatives of each token; null for the first token of an echoed prompt.
    pub(crate) top_logprobs: Vec<Option<TopLogprobs>>,
}

/// Log-probabilities of a prompt token and its alternatives, by token id.
pub(crate) type PromptLogprobs = BTreeMap<u32, PromptLogprob>;

/// vLLM's: log-probability of a prompt token or of an alternative to it.
#[derive(Clone, Debug, serde::Serialize, JsonSchema)]
pub(crate) struct PromptLogprob {
    /// Natural logarithm, at least −9999.
    pub(crate) logprob: f32,
    /// Rank by probability; 1 is the most probable.
    pub(crate) rank: u32,
    /// Text of the token.
    pub(crate) decoded_token: String,
}

/// Texts and log-probabilities of the chosen token and of the most probable ones: a JSON object in
/// which each text occurs once.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopLogprobs(Vec<(String, f32)>);

impl TopLogprobs {
    /// Adds a token, unless its text is already present: different tokens can have the same text
    /// (U+FFFD).
    pub(crate) fn insert(&mut self, token: String, logprob: f32) {
        if self.0.iter().all(|(known, _)| *known != token) {
            self.0.push((token, logprob));
        }
    }
}

impl JsonSchema for TopLogprobs {
    fn schema_name() -> Cow<'static, str> {
        "TopLogprobs".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Log-probabilities of the chosen token and of the most probable ones, by their text.",
            "type": "object",
            "additionalProperties": generator.subschema_for::<f32>(),
        })
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}
