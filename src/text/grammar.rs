//! What an answer's text must keep to, as clients say it.

use serde_json::Value;

/// A language that an answer is to be a sentence of.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows.
    JsonSchema(Value),
    /// What a regular expression matches as a whole.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// A context-free grammar in Lark's notation, from its rule `start`.
    Lark(String),
}
