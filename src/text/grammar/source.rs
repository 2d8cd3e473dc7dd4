//! A grammar as a client sends it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::CacheSalt;

/// The set of texts that an answer may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under a schema, whose text this is.
    JsonSchema(String),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// A context-free grammar in Lark's notation; the start rule is `start`.
    Lark(String),
}

impl GrammarSource {
    /// Returns a hash of the source, which is equal only for equal sources with the same salt.
    pub(super) fn digest(&self, salt: Option<CacheSalt>) -> [u8; 32] {
        let mut hasher = match salt {
            Some(CacheSalt(salt)) => blake3::Hasher::new_keyed(&salt),
            None => blake3::Hasher::new(),
        };
        let (kind, text) = match self {
            Self::JsonObject => (0, String::new()),
            Self::JsonSchema(schema) => (1, schema.clone()),
            Self::Regex(regex) => (2, regex.clone()),
            // JSON keeps the strings separate.
            Self::Choice(choices) => (3, Value::from(choices.clone()).to_string()),
            Self::Lark(grammar) => (4, grammar.clone()),
        };
        hasher.update(&[kind]).update(text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}
