//! Converts Anthropic's messages to chat messages: blocks become parts, calls and tool messages.

use super::request::{ImageSource, InputBlock, InputMessage, ResultBlock};
use crate::api::generate::field_names::MessageNames;
use crate::api::generate::types::json_text::ObjectText;
use crate::api::generate::types::text_or::TextOr;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::message::{ChatMessage, Content, ImageUrl, Part};
use crate::api::openai::chat::tool_types::MessageToolCall;
use crate::api::openai::chat::translation::Turns;

/// A message under construction.
struct Turn {
    role: String,
    names: MessageNames,
    parts: Vec<Part>,
    calls: Vec<JsonObject<MessageToolCall>>,
}

/// Adds a message. `whole` is its path in the request.
///
/// # Errors
/// 400 with the path of a block that a chat cannot represent.
pub(super) fn push(message: InputMessage, whole: &str, turns: &mut Turns) -> Result<(), ApiError> {
    // The system text is not a message, so its content has no path of its own.
    let content = match message.role.as_str() {
        "system" if whole == "system" => whole.to_owned(),
        _ => format!("{whole}.content"),
    };
    let mut turn = Turn {
        role: message.role,
        names: MessageNames {
            whole: whole.to_owned(),
            content: content.clone(),
            parts: Vec::new(),
        },
        parts: Vec::new(),
        calls: Vec::new(),
    };
    let blocks = match message.content {
        TextOr::Text(text) => {
            let message = ChatMessage {
                role: turn.role,
                content: Some(Content::Text(text)),
                ..ChatMessage::default()
            };
            turns.add(message, turn.names);
            return Ok(());
        }
        TextOr::List(blocks) if blocks.is_empty() && turn.role != "assistant" => {
            return Err(ApiError::invalid_value(
                content.clone(),
                format!("'{content}' must not be empty."),
            ));
        }
        TextOr::List(blocks) => blocks,
    };
    let is_said = |block: &InputBlock| matches!(block.kind.as_str(), "text" | "tool_use");
    if turn.role == "assistant" && !blocks.iter().any(is_said) {
        // An answer that was cut off before its first word.
        turn.parts.push(text_part(String::new()));
        turn.names.parts.push(content.clone());
    }
    for (block_idx, block) in blocks.into_iter().enumerate() {
        let path = format!("{content}[{block_idx}]");
        match (block.kind.as_str(), turn.role.as_str()) {
            ("text", _) => {
                let text = (block.text).ok_or_else(|| missing(&path, "text"))?;
                turn.add_part(text_part(text), path);
            }
            ("image" | "document", "user") => {
                let part = image_part(block.source, &path)?;
                turn.add_part(part, path);
            }
            ("tool_use", "assistant") => turn.calls.push(JsonObject(call(block, &path)?)),
            ("tool_result", "user") => {
                flush(&mut turn, turns);
                add_result(block, &path, turns)?;
            }
            // Earlier reasoning is not part of the prompt.
            ("thinking" | "redacted_thinking", "assistant") => {}
            (kind, role) => {
                return Err(ApiError::unsupported(
                    format!("{path}.type"),
                    format!(
                        "A block of type '{kind}' in a message of role {role} is not supported \
                         by this server."
                    ),
                ));
            }
        }
    }
    flush(&mut turn, turns);
    Ok(())
}

/// Ends a message, unless it is empty.
fn flush(turn: &mut Turn, turns: &mut Turns) {
    let parts = std::mem::take(&mut turn.parts);
    let calls = std::mem::take(&mut turn.calls);
    if parts.is_empty() && calls.is_empty() {
        return;
    }
    let names = MessageNames {
        parts: std::mem::take(&mut turn.names.parts),
        ..turn.names.clone()
    };
    let content = (!parts.is_empty()).then_some(Content::Parts(parts));
    let message = ChatMessage {
        role: turn.role.clone(),
        content,
        tool_calls: (!calls.is_empty()).then_some(calls),
        ..ChatMessage::default()
    };
    turns.add(message, names);
}

fn add_result(block: InputBlock, path: &str, turns: &mut Turns) -> Result<(), ApiError> {
    let id = (block.tool_use_id).ok_or_else(|| missing(path, "tool_use_id"))?;
    let mut names = MessageNames {
        whole: path.to_owned(),
        content: format!("{path}.content"),
        parts: Vec::new(),
    };
    let mut parts = Vec::new();
    match block.content {
        None => {}
        Some(TextOr::Text(text)) => {
            parts.push(text_part(text));
            names.parts.push(names.content.clone());
        }
        Some(TextOr::List(blocks)) => {
            for (block_idx, block) in blocks.into_iter().enumerate() {
                let path = format!("{}[{block_idx}]", names.content);
                parts.push(result_part(block, &path)?);
                names.parts.push(path);
            }
        }
    }
    // A chat's tool messages can report a failure only in their text.
    if block.is_error == Some(true) {
        match parts.first_mut().and_then(|part| part.text.as_mut()) {
            Some(text) => text.insert_str(0, "Error: "),
            None => {
                parts.insert(0, text_part("Error: ".to_owned()));
                names.parts.insert(0, names.content.clone());
            }
        }
    }
    let message = ChatMessage {
        role: "tool".to_owned(),
        content: Some(Content::Parts(parts)),
        tool_call_id: Some(id),
        ..ChatMessage::default()
    };
    turns.add(message, names);
    Ok(())
}

impl Turn {
    fn add_part(&mut self, part: Part, path: String) {
        self.parts.push(part);
        self.names.parts.push(path);
    }
}

fn missing(path: &str, name: &str) -> ApiError {
    ApiError::missing(format!("{path}.{name}"))
}

fn text_part(text: String) -> Part {
    Part {
        kind: "text".to_owned(),
        text: Some(text),
        ..Part::default()
    }
}

fn image_part(source: Option<JsonObject<ImageSource>>, path: &str) -> Result<Part, ApiError> {
    let Some(JsonObject(source)) = source else {
        return Err(missing(path, "source"));
    };
    Ok(Part {
        kind: "image_url".to_owned(),
        image_url: Some(ImageUrl {
            url: data_uri(source, path)?,
        }),
        ..Part::default()
    })
}

fn call(block: InputBlock, path: &str) -> Result<MessageToolCall, ApiError> {
    let ObjectText(input) = block.input.ok_or_else(|| missing(path, "input"))?;
    Ok(MessageToolCall::of_function(
        block.id.ok_or_else(|| missing(path, "id"))?,
        block.name.ok_or_else(|| missing(path, "name"))?,
        input,
    ))
}

/// Converts a block of a result.
fn result_part(block: ResultBlock, path: &str) -> Result<Part, ApiError> {
    match block.kind.as_str() {
        "text" => Ok(text_part(block.text.ok_or_else(|| missing(path, "text"))?)),
        "image" | "document" => image_part(block.source, path),
        kind => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!(
                "A tool's result is text and images; a block of type '{kind}' is not supported by \
                 this server."
            ),
        )),
    }
}

fn data_uri(source: ImageSource, path: &str) -> Result<String, ApiError> {
    let path = format!("{path}.source");
    match source.kind.as_str() {
        "base64" => {}
        "url" => {
            let url = source.url.ok_or_else(|| missing(&path, "url"))?;
            let is_data = url
                .get(..5)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
            return match is_data {
                true => Ok(url),
                false => Err(ApiError::invalid_value(
                    format!("{path}.url"),
                    "Remote images are not fetched by this server. Send the image itself: \
                     \"source\": {\"type\": \"base64\", \"media_type\": \"image/png\", \
                     \"data\": …}.",
                )),
            };
        }
        kind => {
            let instead = match kind {
                "text" | "content" => " Send its text as a text block.",
                "file" => " Files are not kept here: send the file itself as base64.",
                _ => "",
            };
            return Err(ApiError::unsupported(
                format!("{path}.type"),
                format!(
                    "The source of an image or document must be base64 or url; '{kind}' is not \
                     supported by this server.{instead}"
                ),
            ));
        }
    }
    let media_type = source
        .media_type
        .ok_or_else(|| missing(&path, "media_type"))?;
    let data = source.data.ok_or_else(|| missing(&path, "data"))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.+-".contains(&byte);
    if !media_type.bytes().all(is_plain) {
        return Err(ApiError::invalid_value(
            format!("{path}.media_type"),
            "An image's media type must be like image/png.",
        ));
    }
    Ok(format!("data:{media_type};base64,{data}"))
}
