//! Converts Anthropic's thinking settings to those of a chat.

use super::request::{OutputConfig, Thinking};
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::request::{ChatRequest, ChatTemplateKwargs};

/// Sets whether the model reasons, and for how long.
///
/// # Errors
/// 400 for an unknown type, and for a budget that leaves no tokens for the answer.
pub(super) fn think(
    thinking: Thinking,
    max_tokens: Option<i64>,
    chat: &mut ChatRequest,
) -> Result<(), ApiError> {
    if thinking
        .display
        .is_some_and(|display| display != "summarized")
    {
        return Err(ApiError::unsupported(
            "thinking.display",
            "Reasoning is returned in full and cannot be hidden. Omit 'thinking.display', or send \
             \"summarized\".",
        ));
    }
    let enable = match (thinking.kind.as_str(), thinking.budget_tokens) {
        ("enabled", None) => return Err(ApiError::missing("thinking.budget_tokens")),
        ("enabled", Some(budget)) => {
            if budget < 1 || max_tokens.is_some_and(|max_tokens| budget >= max_tokens) {
                return Err(ApiError::invalid_value(
                    "thinking.budget_tokens",
                    format!(
                        "'thinking.budget_tokens' must be at least 1 and less than 'max_tokens', \
                         got {budget}."
                    ),
                ));
            }
            chat.thinking_token_budget = Some(budget);
            true
        }
        ("adaptive", _) => true,
        ("disabled", _) => false,
        (kind, _) => {
            return Err(ApiError::invalid_value(
                "thinking.type",
                format!("'thinking.type' must be enabled, adaptive or disabled, got '{kind}'."),
            ));
        }
    };
    chat.chat_template_kwargs = Some(JsonObject(ChatTemplateKwargs {
        enable_thinking: Some(enable),
        ..ChatTemplateKwargs::default()
    }));
    Ok(())
}

/// Returns the reasoning effort.
pub(super) fn effort(config: &OutputConfig) -> Option<String> {
    let effort = config.effort.as_deref()?;
    // Anthropic has one more level, above all of OpenAI's.
    Some(if effort == "max" { "xhigh" } else { effort }.to_owned())
}
