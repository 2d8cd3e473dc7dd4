//! `POST /tokenize` and `POST /detokenize`, in vLLM's format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chat_request::ChatTemplateKwargs;
use super::message::ChatMessage;
use super::object::JsonObject;
use super::tools::ToolDefinition;
use crate::core::TokenId;

/// A text or a chat to tokenize.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct TokenizeRequest {
    /// Name of the model. Default: the served model.
    pub(in crate::api) model: Option<String>,
    /// A text, in which control tokens are recognized.
    pub(in crate::api) prompt: Option<String>,
    /// A chat, which is rendered with the model's template.
    pub(in crate::api) messages: Option<Vec<JsonObject<ChatMessage>>>,
    /// Whether `<bos>` is added. Default: it is added to a text; a chat gets it from its template.
    pub(in crate::api) add_special_tokens: Option<bool>,
    /// Whether to return each token's text too.
    pub(in crate::api) return_token_strs: Option<bool>,
    /// Tools that are described in the chat's prompt.
    #[schemars(length(max = 128))]
    pub(in crate::api) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    /// Whether the prompt ends with the start of the assistant's turn; default: it does.
    pub(in crate::api) add_generation_prompt: Option<bool>,
    /// Whether the answer continues the last message, which must be the assistant's, instead.
    pub(in crate::api) continue_final_message: Option<bool>,
    /// vLLM's: settings of the chat template.
    pub(in crate::api) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
}

/// The tokens of a text or of a chat.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Tokenized {
    /// Number of tokens.
    pub(in crate::api) count: usize,
    /// Maximum sequence length of the model, in tokens.
    pub(in crate::api) max_model_len: usize,
    /// Token ids, with images expanded.
    pub(in crate::api) tokens: Vec<TokenId>,
    /// Each token as the vocabulary spells it (`▁the`, `<0xE2>`), or null.
    pub(in crate::api) token_strs: Option<Vec<String>>,
}

/// Token ids to convert to text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(in crate::api) struct DetokenizeRequest {
    /// Name of the model. Default: the served model.
    pub(in crate::api) model: Option<String>,
    /// The token ids.
    #[schemars(with = "Vec<TokenId>")]
    pub(in crate::api) tokens: Vec<i64>,
}

/// The text of token ids.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Detokenized {
    /// The text, control tokens included.
    pub(in crate::api) prompt: String,
}
