//! `POST /tokenize` and `POST /detokenize`, in vLLM's form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chat_request::ChatTemplateKwargs;
use super::message::ChatMessage;
use super::object::JsonObject;
use super::tools::ToolDefinition;
use crate::core::TokenId;

/// What to tokenise: a text or a chat.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct TokenizeRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// A text, in which control tokens count.
    pub(in crate::api) prompt: Option<String>,
    /// Or a chat, through the model's template.
    pub(in crate::api) messages: Option<Vec<JsonObject<ChatMessage>>>,
    /// Whether a text gets `<bos>`. Absent: a text does; a chat has it from its template.
    pub(in crate::api) add_special_tokens: Option<bool>,
    /// Whether each token's text comes too.
    pub(in crate::api) return_token_strs: Option<bool>,
    /// Tools that the chat's prompt tells of.
    #[schemars(length(max = 128))]
    pub(in crate::api) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    /// Whether the prompt ends where the assistant's turn begins; absent: it does.
    pub(in crate::api) add_generation_prompt: Option<bool>,
    /// Whether the answer goes on with the last message, the assistant's, instead.
    pub(in crate::api) continue_final_message: Option<bool>,
    /// vLLM's: settings of the chat template.
    pub(in crate::api) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
}

/// The tokens of a text or of a chat.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Tokenized {
    /// How many tokens.
    pub(in crate::api) count: usize,
    /// How many the model takes.
    pub(in crate::api) max_model_len: usize,
    /// The tokens, images expanded.
    pub(in crate::api) tokens: Vec<TokenId>,
    /// Each token as the vocabulary spells it (`▁the`, `<0xE2>`), or null.
    pub(in crate::api) token_strs: Option<Vec<String>>,
}

/// Ids whose text is wanted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct DetokenizeRequest {
    /// Absent: the served model.
    pub(in crate::api) model: Option<String>,
    /// The ids.
    #[schemars(with = "Vec<TokenId>")]
    pub(in crate::api) tokens: Vec<i64>,
}

/// The text of tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Detokenized {
    /// Their text, control tokens included.
    pub(in crate::api) prompt: String,
}
