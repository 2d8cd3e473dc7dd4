//! Applies a request's tools and reasoning settings to the messages of its prompt.

use super::convert::{Chat, MessageRules, PastReasoning, convert_messages};
use super::message::ChatMessage;
use super::thinking::ReasoningInstruction;
use super::tools::ToolPlan;
use crate::api::generate::output::AskedGrammar;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::registry::ServedModel;
use crate::text::THINKING_INSTRUCTION;

/// How messages are converted to a conversation for this model.
#[derive(Debug)]
pub(crate) struct Prompting {
    rules: MessageRules,
    instruction: ReasoningInstruction,
    /// The instructions that describe the tools.
    tools: Option<String>,
    /// Maximum number of images in the prompt.
    max_images: Option<usize>,
}

impl Prompting {
    /// Creates the settings for a request with these tools. `asked` constrains an answer without
    /// calls.
    pub(crate) fn new(
        tools: Option<&ToolPlan>,
        asked: Option<&AskedGrammar>,
        instruction: ReasoningInstruction,
        model: &ServedModel,
    ) -> Self {
        Self {
            rules: MessageRules {
                roles: model.roles,
                tool_format: tools.map_or(model.tool_format, |tools| tools.format(asked)),
                reasoning: match model.thinking {
                    Some(_) => PastReasoning::Dropped,
                    None => PastReasoning::Unknown,
                },
            },
            instruction,
            tools: tools.map(|tools| tools.prompt(asked)),
            max_images: (model.images.as_ref()).and_then(|images| images.max_per_prompt),
        }
    }

    /// Converts messages to a conversation: the instruction to reason comes before the system text,
    /// the tools after it.
    ///
    /// # Errors
    /// 400 with the path of an invalid field in the messages.
    pub(crate) fn chat(self, messages: Vec<JsonObject<ChatMessage>>) -> Result<Chat, ApiError> {
        let mut chat = convert_messages(messages, self.rules)?;
        if let Some(max_images) = self.max_images {
            check_number(&chat, max_images)?;
        }
        let before = match self.instruction {
            ReasoningInstruction::Added => THINKING_INSTRUCTION,
            ReasoningInstruction::Omitted => "",
        };
        chat.instruct(before, self.tools);
        Ok(chat)
    }
}

/// Rejects a chat with more than `max_images` images.
///
/// # Errors
/// 400 with the path of the first file that is too many.
fn check_number(chat: &Chat, max_images: usize) -> Result<(), ApiError> {
    let mut num_images = 0;
    for media in &chat.media {
        num_images += media.num_images;
        if num_images > max_images {
            let total = chat.num_images();
            return Err(ApiError::too_many_images(&media.param, total, max_images));
        }
    }
    Ok(())
}
