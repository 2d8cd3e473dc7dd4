//! Tool calls of earlier turns and their results.

use std::fmt::Display;

use super::message::{ChatMessage, Content};
use super::tool_types::MessageToolCall;
use crate::api::generate::types::presence::Presence;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::text::{PastCall, ToolResult};

/// The calls so far. Each result refers to one of them.
#[derive(Debug, Default)]
pub(super) struct PastCalls {
    /// Ids and function names, in order.
    known: Vec<(String, String)>,
}

impl PastCalls {
    /// Checks and records the calls of the message at `path`.
    ///
    /// # Errors
    /// 400 with the path of an invalid field.
    pub(super) fn take(
        &mut self,
        path: &str,
        wire: Vec<JsonObject<MessageToolCall>>,
    ) -> Result<Vec<PastCall>, ApiError> {
        let mut calls = Vec::with_capacity(wire.len());
        for (call_idx, JsonObject(call)) in wire.into_iter().enumerate() {
            let path = format!("{path}.tool_calls[{call_idx}]");
            if let Some(kind) = call.kind.filter(|kind| kind != "function") {
                let message = format!(
                    "A call's type must be function; '{kind}' is not supported by this server."
                );
                return Err(ApiError::unsupported(format!("{path}.type"), message));
            }
            let JsonObject(function) = call.function;
            self.known.push((call.id, function.name.clone()));
            calls.push(PastCall {
                name: function.name,
                arguments: function.arguments,
            });
        }
        Ok(calls)
    }

    /// Converts a tool's result, from the message at `path`.
    ///
    /// # Errors
    /// 400 if it refers to no call, or contains more than text.
    pub(super) fn result(&self, path: &str, message: ChatMessage) -> Result<ToolResult, ApiError> {
        if message.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(not_served(format!("{path}.tool_calls")));
        }
        let param = format!("{path}.tool_call_id");
        let Some(id) = message.tool_call_id else {
            return Err(ApiError::missing(param));
        };
        // If an id occurs twice, the result belongs to the later call.
        let call = self.known.iter().rev().find(|(known, _)| *known == id);
        let Some((_, name)) = call else {
            return Err(ApiError::invalid_value(
                param,
                "'tool_call_id' must be the id of a call in an earlier assistant message.",
            ));
        };
        let path = format!("{path}.content");
        let text = match message.content {
            None => return Err(ApiError::missing(path)),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for (part_idx, part) in parts.into_iter().enumerate() {
                    let path = format!("{path}[{part_idx}]");
                    if part.kind != "text" {
                        return Err(ApiError::unsupported(
                            format!("{path}.type"),
                            "A tool answers in text only. Put images into a user message.",
                        ));
                    }
                    if part.uuid == Presence::Set {
                        return Err(not_served(format!("{path}.uuid")));
                    }
                    texts.push(part.text.ok_or_else(|| missing(&path, "text"))?);
                }
                texts.join("\n")
            }
        };
        Ok(ToolResult {
            name: name.clone(),
            text,
        })
    }
}

/// Returns the error of a field of a message that is known and not supported.
pub(super) fn not_served(param: String) -> ApiError {
    let message = format!("The parameter '{param}' is not supported by this server. Leave it out.");
    ApiError::unsupported(param, message)
}

/// Returns the error of a part without the field `name`.
pub(super) fn missing(path: &dyn Display, name: &str) -> ApiError {
    ApiError::missing(format!("{path}.{name}"))
}
