//! A grammar as a client sends it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::gbnf::is_gbnf;
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
    /// A context-free grammar in GBNF's notation; the start rule is `root`.
    Gbnf(String),
    /// A grammar in Lark's notation of tool calls in JSON. Other text may be allowed besides.
    Calls(String),
}

impl GrammarSource {
    /// Creates the source of a context-free grammar in either notation, which are told apart by the
    /// `::=` of GBNF's rules.
    pub fn of_grammar(grammar: String) -> Self {
        match is_gbnf(&grammar) {
            true => Self::Gbnf(grammar),
            false => Self::Lark(grammar),
        }
    }

    /// Returns whether answers that begin with `first` are JSON.
    pub(super) fn is_json_after(&self, first: u8) -> bool {
        match self {
            Self::JsonObject | Self::JsonSchema(_) => true,
            Self::Calls(_) => matches!(first, b'{' | b'[' | b'"'),
            Self::Regex(_) | Self::Choice(_) | Self::Lark(_) | Self::Gbnf(_) => false,
        }
    }

    /// Returns the schemas of the JSON that an answer may be.
    pub(super) fn schemas(&self) -> Vec<Value> {
        match self {
            Self::JsonSchema(schema) => serde_json::from_str(schema).into_iter().collect(),
            Self::Calls(grammar) => {
                let schemas = grammar.lines().filter_map(|line| line.split_once("%json "));
                let schemas = schemas.filter_map(|(_, schema)| serde_json::from_str(schema).ok());
                schemas.collect()
            }
            Self::JsonObject => vec![json!({"type": "object"})],
            Self::Regex(_) | Self::Choice(_) | Self::Lark(_) | Self::Gbnf(_) => Vec::new(),
        }
    }

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
            Self::Calls(grammar) => (5, grammar.clone()),
            Self::Gbnf(grammar) => (6, grammar.clone()),
        };
        hasher.update(&[kind]).update(text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}
