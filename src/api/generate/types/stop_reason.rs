//! What ended an answer.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::TokenId;

/// What ended an answer, other than the model's own stop tokens and the length limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum StopReason {
    /// A stop string.
    Text(String),
    /// One of the client's stop tokens.
    Token(TokenId),
}
