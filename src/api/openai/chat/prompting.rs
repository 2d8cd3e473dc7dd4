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
        }
    }

    /// Converts messages to a conversation: the instruction to reason comes before the system text,
    /// the tools after it.
    ///
    /// # Errors
    /// 400 with the path of an invalid field in the messages.
    pub(crate) fn chat(self, messages: Vec<JsonObject<ChatMessage>>) -> Result<Chat, ApiError> {
        let mut chat = convert_messages(messages, self.rules)?;
        let before = match self.instruction {
            ReasoningInstruction::Added => THINKING_INSTRUCTION,
            ReasoningInstruction::Omitted => "",
        };
        chat.instruct(before, self.tools);
        Ok(chat)
    }
}
