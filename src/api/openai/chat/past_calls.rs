//! Tool calls of earlier turns and their results.

use serde_json::json;

use super::message::{ChatMessage, Content};
use super::parts::{PartContent, missing, not_served, place_image, read_part};
use super::tool_types::{CUSTOM_INPUT, MessageToolCall};
use crate::api::generate::media::WireMedia;
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
            let (name, arguments) = match call.kind.as_deref() {
                None | Some("function") => {
                    let function = call.function.ok_or_else(|| missing(&path, "function"))?;
                    (function.0.name, function.0.arguments)
                }
                Some("custom") => {
                    let custom = call.custom.ok_or_else(|| missing(&path, "custom"))?;
                    // As the model is told to call it.
                    let arguments = json!({CUSTOM_INPUT: custom.0.input});
                    (custom.0.name, arguments.to_string())
                }
                Some(kind) => {
                    let message = format!(
                        "A call's type must be function or custom; '{kind}' is not supported by \
                         this server."
                    );
                    return Err(ApiError::unsupported(format!("{path}.type"), message));
                }
            };
            self.known.push((call.id, name.clone()));
            calls.push(PastCall { name, arguments });
        }
        Ok(calls)
    }

    /// Converts a tool's result, from the message at `path`, and adds its files to `media`.
    ///
    /// # Errors
    /// 400 if it refers to no call, or contains more than text and images.
    pub(super) fn result(
        &self,
        path: &str,
        message: ChatMessage,
        media: &mut Vec<WireMedia>,
    ) -> Result<ToolResult, ApiError> {
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
        let mut images = Vec::new();
        let text = match message.content {
            None => return Err(ApiError::missing(path)),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for (part_idx, part) in parts.into_iter().enumerate() {
                    let path = format!("{path}[{part_idx}]");
                    match read_part(&path, part)? {
                        PartContent::Text(text) | PartContent::Refusal(text) => texts.push(text),
                        PartContent::Image(image) => {
                            images.push(place_image(path, image, media)?);
                        }
                    }
                }
                texts.join("\n")
            }
        };
        Ok(ToolResult {
            name: name.clone(),
            text,
            images,
        })
    }
}
