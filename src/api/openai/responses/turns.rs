//! Converts input items to chat messages.

use super::request::{InputItem, InputPart};
use crate::api::generate::field_names::MessageNames;
use crate::api::generate::types::presence::Presence;
use crate::api::generate::types::text_or::TextOr;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::message::{ChatMessage, Content, FilePart, ImageUrl, Part};
use crate::api::openai::chat::tool_types::MessageToolCall;
use crate::api::openai::chat::translation::Turns;

/// Adds a plain text as a message.
pub(super) fn say(role: &str, text: String, path: &str, turns: &mut Turns) {
    let message = ChatMessage {
        role: role.to_owned(),
        content: Some(Content::Text(text)),
        ..ChatMessage::default()
    };
    let names = MessageNames {
        whole: path.to_owned(),
        content: path.to_owned(),
        parts: Vec::new(),
    };
    turns.add(message, names);
}

/// Adds an item. `path` is its path in the request.
///
/// # Errors
/// 400 with the path of a field that a chat cannot represent.
pub(super) fn push(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    match item.kind.as_deref() {
        None | Some("message") => add_message(item, path, turns),
        Some("function_call") => add_call(item, path, turns),
        Some("custom_tool_call") => add_custom_call(item, path, turns),
        Some("function_call_output" | "custom_tool_call_output") => add_output(item, path, turns),
        // Earlier reasoning is not part of the prompt.
        Some("reasoning") => Ok(()),
        Some("item_reference") => Err(ApiError::unsupported(
            format!("{path}.type"),
            "Nothing is stored here, so an item cannot be referred to. Send 'store': false, with \
             which clients send the items themselves.",
        )),
        Some(kind) => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!("An item of type '{kind}' is not supported by this server."),
        )),
    }
}

fn add_message(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    let role = item.role.ok_or_else(|| missing(&path, "role"))?;
    if !matches!(role.as_str(), "user" | "assistant" | "system" | "developer") {
        return Err(ApiError::invalid_value(
            format!("{path}.role"),
            format!("A role must be user, assistant, system or developer, got '{role}'."),
        ));
    }
    let mut names = MessageNames {
        content: format!("{path}.content"),
        whole: path,
        parts: Vec::new(),
    };
    let content = match item.content {
        None => return Err(ApiError::missing(names.content)),
        Some(TextOr::Text(text)) => Content::Text(text),
        Some(TextOr::List(wire)) => {
            let mut parts = Vec::with_capacity(wire.len());
            for (part_idx, part) in wire.into_iter().enumerate() {
                let path = format!("{}[{part_idx}]", names.content);
                parts.push(translate_part(part, &path)?);
                names.parts.push(path);
            }
            Content::Parts(parts)
        }
    };
    let message = ChatMessage {
        role,
        content: Some(content),
        ..ChatMessage::default()
    };
    turns.add(message, names);
    Ok(())
}

fn add_call(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    let call = MessageToolCall::of_function(
        item.call_id.ok_or_else(|| missing(&path, "call_id"))?,
        item.name.ok_or_else(|| missing(&path, "name"))?,
        item.arguments.ok_or_else(|| missing(&path, "arguments"))?,
    );
    push_call(call, path, turns);
    Ok(())
}

fn add_custom_call(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    let call = MessageToolCall::of_custom(
        item.call_id.ok_or_else(|| missing(&path, "call_id"))?,
        item.name.ok_or_else(|| missing(&path, "name"))?,
        item.input.ok_or_else(|| missing(&path, "input"))?,
    );
    push_call(call, path, turns);
    Ok(())
}

/// Adds a call to the assistant message before it, or to a new one if there is none.
fn push_call(call: MessageToolCall, path: String, turns: &mut Turns) {
    if let Some(JsonObject(before)) = turns.messages.last_mut()
        && before.role == "assistant"
    {
        before
            .tool_calls
            .get_or_insert_default()
            .push(JsonObject(call));
        return;
    }
    let message = ChatMessage {
        role: "assistant".to_owned(),
        tool_calls: Some(vec![JsonObject(call)]),
        ..ChatMessage::default()
    };
    let names = MessageNames {
        content: path.clone(),
        whole: path,
        parts: Vec::new(),
    };
    turns.add(message, names);
}

fn add_output(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    let id = item.call_id.ok_or_else(|| missing(&path, "call_id"))?;
    let mut names = MessageNames {
        content: format!("{path}.output"),
        whole: path,
        parts: Vec::new(),
    };
    let content = match item.output {
        None => return Err(ApiError::missing(names.content)),
        Some(TextOr::Text(text)) => Content::Text(text),
        Some(TextOr::List(wire)) => {
            let mut parts = Vec::with_capacity(wire.len());
            for (part_idx, part) in wire.into_iter().enumerate() {
                let path = format!("{}[{part_idx}]", names.content);
                parts.push(translate_part(part, &path)?);
                names.parts.push(path);
            }
            Content::Parts(parts)
        }
    };
    let message = ChatMessage {
        role: "tool".to_owned(),
        content: Some(content),
        tool_call_id: Some(id),
        ..ChatMessage::default()
    };
    turns.add(message, names);
    Ok(())
}

fn missing(path: &str, name: &str) -> ApiError {
    ApiError::missing(format!("{path}.{name}"))
}

fn translate_part(part: InputPart, path: &str) -> Result<Part, ApiError> {
    match part.kind.as_str() {
        "input_text" | "output_text" => Ok(Part {
            kind: "text".to_owned(),
            text: Some(part.text.ok_or_else(|| missing(path, "text"))?),
            ..Part::default()
        }),
        "refusal" => Ok(Part {
            kind: part.kind,
            refusal: Some(part.refusal.ok_or_else(|| missing(path, "refusal"))?),
            ..Part::default()
        }),
        "input_image" => {
            if part.file_id == Presence::Set {
                let param = format!("{path}.file_id");
                let message = format!("There are no files here: send '{path}.image_url'.");
                return Err(ApiError::unsupported(param, message));
            }
            check_detail(part.detail.as_deref(), path)?;
            Ok(Part {
                kind: "image_url".to_owned(),
                image_url: Some(ImageUrl {
                    url: part.image_url.ok_or_else(|| missing(path, "image_url"))?,
                }),
                ..Part::default()
            })
        }
        "input_file" => {
            for (name, presence) in [("file_id", part.file_id), ("file_url", part.file_url)] {
                if presence == Presence::Set {
                    let message = format!(
                        "Files are neither kept nor fetched here: send the file itself in \
                         '{path}.file_data', as a data URI."
                    );
                    return Err(ApiError::unsupported(format!("{path}.{name}"), message));
                }
            }
            let data = part.file_data.ok_or_else(|| missing(path, "file_data"))?;
            Ok(Part {
                kind: "file".to_owned(),
                file: Some(JsonObject(FilePart::of_data(data))),
                ..Part::default()
            })
        }
        kind => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!(
                "A part's type must be input_text, output_text, input_image or input_file; '{kind}' \
                 is not supported by this server."
            ),
        )),
    }
}

fn check_detail(detail: Option<&str>, path: &str) -> Result<(), ApiError> {
    match detail {
        None | Some("auto" | "low" | "high" | "original") => Ok(()),
        Some(detail) => Err(ApiError::invalid_value(
            format!("{path}.detail"),
            format!("An image's detail must be auto, low, high or original, got '{detail}'."),
        )),
    }
}
