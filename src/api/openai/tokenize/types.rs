//! `POST /tokenize` and `POST /detokenize`, in vLLM's format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::generate::types::id_list::IdList;
use crate::api::generate::types::json_text::ObjectText;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::message::ChatMessage;
use crate::api::openai::chat::request::ChatTemplateKwargs;
use crate::api::openai::chat::tool_types::ToolDefinition;
use crate::core::TokenId;

/// A text or a chat to tokenize.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct TokenizeRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// A text, in which control tokens are recognized.
    pub(crate) prompt: Option<String>,
    /// A chat, which is rendered with the model's template.
    pub(crate) messages: Option<Vec<JsonObject<ChatMessage>>>,
    /// Whether `<bos>` is added. Default: it is added to a text; a chat gets it from its template.
    pub(crate) add_special_tokens: Option<bool>,
    /// Whether to return each token's text too.
    pub(crate) return_token_strs: Option<bool>,
    /// Tools that are described in the chat's prompt.
    #[schemars(length(max = 1024))]
    pub(crate) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    /// Whether the prompt ends with the start of the assistant's turn; default: it does.
    pub(crate) add_generation_prompt: Option<bool>,
    /// Whether the answer continues the last message, which must be the assistant's, instead.
    pub(crate) continue_final_message: Option<bool>,
    /// vLLM's: settings of the chat template.
    pub(crate) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
    /// vLLM's: how images are prepared, as in a chat.
    pub(crate) mm_processor_kwargs: Option<ObjectText>,
}

/// The tokens of a text or of a chat.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Tokenized {
    /// Number of tokens.
    pub(crate) count: usize,
    /// Maximum sequence length of the model, in tokens.
    pub(crate) max_model_len: usize,
    /// Token ids, with images expanded.
    pub(crate) tokens: Vec<TokenId>,
    /// Each token as the vocabulary spells it (`▁the`, `<0xE2>`), or null.
    pub(crate) token_strs: Option<Vec<String>>,
}

/// Token ids to convert to text.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct DetokenizeRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// The token ids.
    #[schemars(with = "Vec<TokenId>")]
    pub(crate) tokens: IdList,
}

/// The text of token ids.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Detokenized {
    /// The text, control tokens included.
    pub(crate) prompt: String,
}
