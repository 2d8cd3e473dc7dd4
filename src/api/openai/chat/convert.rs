//! Converts messages to the form that templates take, and separates their images.

use std::borrow::Cow;
use std::mem;

use super::message::{ChatMessage, Content};
use super::parts::{convert_parts, not_served};
use super::past_calls::PastCalls;
use super::turns::arrange;
use crate::api::generate::media::WireMedia;
use crate::api::generate::truncation::Truncation;
use crate::api::generate::types::presence::Presence;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::core::{PreparationFields, RolePolicy, ToolFormat};
use crate::text::{self, PromptEnd, THINKING_PHRASE, ToolResult, tool_results};

/// A checked conversation.
#[derive(Debug)]
pub(crate) struct Chat {
    /// The messages for the template.
    pub(crate) messages: Vec<text::Message>,
    /// The files, in the order of their places in the messages. Each has one place there, whatever
    /// number of images it becomes.
    pub(crate) media: Vec<WireMedia>,
    /// What the request says of the files' preparation.
    pub(crate) preparation: PreparationFields,
    /// Size of all text in bytes.
    pub(crate) text_bytes: usize,
    /// How the prompt ends.
    pub(crate) end: PromptEnd,
    /// How a long prompt is shortened, if it is.
    pub(crate) truncation: Option<Truncation>,
}

/// How messages are converted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageRules {
    pub(crate) roles: RolePolicy,
    /// The format in which the model writes calls.
    pub(crate) tool_format: ToolFormat,
    /// Whether the model's earlier messages may contain reasoning.
    pub(crate) reasoning: PastReasoning,
}

/// How reasoning in earlier answers is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PastReasoning {
    /// It is removed.
    Dropped,
    /// The model does not reason: text that looks like reasoning is plain text.
    Unknown,
}

/// Checks messages, separates their images and arranges turns in the order that templates need.
///
/// Several text parts of a system message become one, joined by line breaks, because Gemma's
/// templates would drop all but the first. An assistant's calls are written as the model would have
/// written them, and results of tools become a user turn. [`arrange`] handles the order of turns.
///
/// # Errors
/// 400 with the path of a field that is invalid or not supported.
pub(crate) fn convert_messages(
    wire: Vec<JsonObject<ChatMessage>>,
    rules: MessageRules,
) -> Result<Chat, ApiError> {
    if wire.is_empty() {
        return Err(ApiError::invalid_value(
            "messages",
            "'messages' must not be empty.",
        ));
    }
    let mut chat = Chat {
        messages: Vec::with_capacity(wire.len()),
        media: Vec::new(),
        preparation: PreparationFields::default(),
        text_bytes: 0,
        end: PromptEnd::Generation,
        truncation: None,
    };
    let mut calls = PastCalls::default();
    let mut results = Vec::new();
    for (message_idx, JsonObject(message)) in wire.into_iter().enumerate() {
        let path = format!("messages[{message_idx}]");
        check_served(&path, &message)?;
        if message.role == "tool" {
            results.push(calls.result(&path, message, &mut chat.media)?);
            continue;
        }
        chat.answer(&mut results);
        let role = role(&path, &message.role)?;
        if message
            .tool_call_id
            .as_ref()
            .is_some_and(|id| !id.is_empty())
        {
            return Err(not_served(format!("{path}.tool_call_id")));
        }
        let called = message.tool_calls.unwrap_or_default();
        if role != text::Role::Assistant && !called.is_empty() {
            return Err(not_served(format!("{path}.tool_calls")));
        }
        let called = calls.take(&path, called)?;
        let content_path = format!("{path}.content");
        let mut content = match message.content {
            // As answers are sent: without text that was cut off, or with calls or a refusal instead.
            None if role == text::Role::Assistant => {
                text::Content::Text(message.refusal.unwrap_or_default())
            }
            None => return Err(ApiError::missing(content_path)),
            Some(Content::Text(text)) => text::Content::Text(text),
            Some(Content::Parts(parts)) if parts.is_empty() && role == text::Role::Assistant => {
                text::Content::Text(String::new())
            }
            Some(Content::Parts(parts)) => {
                let parts = convert_parts(&content_path, &role, parts, &mut chat.media)?;
                text::Content::Parts(parts)
            }
        };
        if role == text::Role::Assistant {
            if rules.reasoning == PastReasoning::Dropped {
                drop_reasoning(&mut content);
            }
            if !called.is_empty() {
                append(&mut content, "\n", rules.tool_format.calls(called));
            }
        }
        chat.messages.push(text::Message { role, content });
    }
    chat.answer(&mut results);
    chat.text_bytes = chat.messages.iter().map(text::Message::num_bytes).sum();
    chat.messages = arrange(chat.messages, rules.roles);
    Ok(chat)
}

impl Chat {
    /// Whether a text of the client asks the model to think, as MedGemma's own instruction does.
    pub(crate) fn asks_to_think(&self) -> bool {
        let asks = |text: &String| text.contains(THINKING_PHRASE);
        self.messages.iter().any(|message| match &message.content {
            text::Content::Text(text) => asks(text),
            text::Content::Parts(parts) => parts.iter().any(|part| match part {
                text::Part::Text(text) => asks(text),
                text::Part::Image => false,
            }),
        })
    }

    /// Adds the results of tools as one user turn.
    fn answer(&mut self, results: &mut Vec<ToolResult>) {
        if results.is_empty() {
            return;
        }
        self.messages.push(text::Message {
            role: text::Role::User,
            content: tool_results(mem::take(results)),
        });
    }

    /// Adds instructions before and after the system text. If there is none, they become the system
    /// text.
    pub(crate) fn instruct(&mut self, before: &str, behind: Option<String>) {
        if before.is_empty() && behind.is_none() {
            return;
        }
        self.text_bytes += before.len() + behind.as_ref().map_or(0, String::len);
        let is_system =
            (self.messages.first()).is_some_and(|message| message.role == text::Role::System);
        if !is_system {
            let system = text::Message {
                role: text::Role::System,
                content: text::Content::Text(String::new()),
            };
            self.messages.insert(0, system);
        }
        let content = &mut self.messages[0].content;
        if let Some(own) = first_text(content)
            && !own.starts_with(before.trim_end())
        {
            own.insert_str(0, before);
        }
        if let Some(behind) = behind {
            append(content, "\n\n", behind);
        }
    }

    /// Sets how the prompt ends.
    ///
    /// # Errors
    /// 400 if the fields contradict each other, or there is no message to continue.
    pub(crate) fn end(
        &mut self,
        add_generation_prompt: Option<bool>,
        continue_final_message: Option<bool>,
    ) -> Result<(), ApiError> {
        const CONTINUE: &str = "continue_final_message";
        self.end = match (add_generation_prompt, continue_final_message) {
            (Some(true), Some(true)) => {
                return Err(ApiError::contradiction(
                    CONTINUE,
                    "'continue_final_message' continues the last message, and \
                     'add_generation_prompt' begins another: send one of them.",
                ));
            }
            (_, Some(true)) => PromptEnd::Continue,
            (Some(false), _) => PromptEnd::Nothing,
            (None | Some(true), None | Some(false)) => PromptEnd::Generation,
        };
        let last = self.messages.last();
        let is_assistant = last.is_some_and(|message| message.role == text::Role::Assistant);
        if self.end == PromptEnd::Continue && !is_assistant {
            return Err(ApiError::contradiction(
                CONTINUE,
                "'continue_final_message' requires that the last message has the role assistant.",
            ));
        }
        Ok(())
    }
}

fn first_text(content: &mut text::Content) -> Option<&mut String> {
    match content {
        text::Content::Text(text) => Some(text),
        text::Content::Parts(parts) => parts.iter_mut().find_map(|part| match part {
            text::Part::Text(text) => Some(text),
            text::Part::Image => None,
        }),
    }
}

/// Appends text to the content, with `between` before it if there is text already.
fn append(content: &mut text::Content, between: &str, more: String) {
    let last = match content {
        text::Content::Text(text) => Some(text),
        text::Content::Parts(parts) => match parts.last_mut() {
            Some(text::Part::Text(text)) => Some(text),
            _ => {
                parts.push(text::Part::Text(more));
                return;
            }
        },
    };
    match last {
        Some(text) if text.is_empty() => *text = more,
        Some(text) => {
            text.push_str(between);
            text.push_str(&more);
        }
        None => {}
    }
}

fn drop_reasoning(content: &mut text::Content) {
    let drop = |text: &mut String| {
        if let Cow::Owned(kept) = text::without_reasoning(text) {
            *text = kept;
        }
    };
    match content {
        text::Content::Text(text) => drop(text),
        text::Content::Parts(parts) => parts.iter_mut().for_each(|part| match part {
            text::Part::Text(text) => drop(text),
            text::Part::Image => {}
        }),
    }
}

fn check_served(path: &str, message: &ChatMessage) -> Result<(), ApiError> {
    if message.images == Presence::Set {
        let param = format!("{path}.images");
        let message = format!(
            "The parameter '{param}' is not supported by this server. Send each image as an \
             image_url part of 'content'."
        );
        return Err(ApiError::unsupported(param, message));
    }
    // An assistant's reasoning is not part of the conversation.
    let of_others = |presence| match message.role.as_str() {
        "assistant" => Presence::Empty,
        _ => presence,
    };
    let refused = [
        ("function_call", message.function_call),
        ("audio", message.audio),
        ("reasoning_content", of_others(message.reasoning_content)),
        ("reasoning", of_others(message.reasoning)),
    ];
    match refused
        .iter()
        .find(|(_, presence)| *presence == Presence::Set)
    {
        None => Ok(()),
        Some((name, _)) => Err(not_served(format!("{path}.{name}"))),
    }
}

fn role(path: &str, role: &str) -> Result<text::Role, ApiError> {
    let param = format!("{path}.role");
    match role {
        "system" | "developer" => Ok(text::Role::System),
        "user" => Ok(text::Role::User),
        "assistant" => Ok(text::Role::Assistant),
        "function" => Err(ApiError::unsupported(
            param,
            "The role 'function' is not supported. Use 'tool'.",
        )),
        _ => Err(ApiError::invalid_value(
            param,
            format!("A role must be system, developer, user, assistant or tool, got '{role}'."),
        )),
    }
}
