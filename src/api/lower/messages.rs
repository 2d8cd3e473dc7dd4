//! Messages as the template takes them, and the pictures beside them.

use std::fmt::Display;

use crate::api::error::ApiError;
use crate::api::types::{ChatMessage, Content, Object, Part, Presence};
use crate::error::ImageError;
use crate::text;

/// A checked conversation.
#[derive(Debug)]
pub(in crate::api) struct Chat {
    /// What the template gets.
    pub(in crate::api) messages: Vec<text::Message>,
    /// The pictures in the order in which the messages show them.
    pub(in crate::api) images: Vec<WireImage>,
    /// Bytes of all text.
    pub(in crate::api) text_bytes: usize,
}

/// A picture that is still what the client sent.
#[derive(Debug)]
pub(in crate::api) struct WireImage {
    /// Where it stands: `messages[i].content[j]`.
    pub(in crate::api) param: String,
    /// A data URI, unchecked.
    pub(in crate::api) url: String,
}

/// Checks messages and takes the pictures out.
///
/// Several text parts of a system message become one, with line breaks between: Gemma's templates
/// would drop all but the first.
///
/// # Errors
/// 400 with the path of what is wrong or cannot be served.
pub(in crate::api) fn lower_messages(wire: Vec<Object<ChatMessage>>) -> Result<Chat, ApiError> {
    if wire.is_empty() {
        return Err(ApiError::invalid_value(
            "messages",
            "'messages' must not be empty.",
        ));
    }
    let mut chat = Chat {
        messages: Vec::with_capacity(wire.len()),
        images: Vec::new(),
        text_bytes: 0,
    };
    for (message_idx, Object(message)) in wire.into_iter().enumerate() {
        let path = format!("messages[{message_idx}]");
        check_served(&path, &message)?;
        let role = role(&path, &message.role)?;
        let content_path = format!("{path}.content");
        let content = match message.content {
            None => return Err(ApiError::missing(content_path)),
            Some(Content::Text(text)) => {
                chat.text_bytes += text.len();
                text::Content::Text(text)
            }
            Some(Content::Parts(parts)) => {
                let parts = lower_parts(&content_path, &role, parts, &mut chat)?;
                text::Content::Parts(parts)
            }
        };
        chat.messages.push(text::Message { role, content });
    }
    Ok(chat)
}

fn check_served(path: &str, message: &ChatMessage) -> Result<(), ApiError> {
    let refused = [
        ("name", message.name),
        ("tool_calls", message.tool_calls),
        ("tool_call_id", message.tool_call_id),
        ("function_call", message.function_call),
        ("refusal", message.refusal),
        ("audio", message.audio),
        ("reasoning_content", message.reasoning_content),
        ("reasoning", message.reasoning),
        ("annotations", message.annotations),
    ];
    match refused
        .iter()
        .find(|(_, presence)| *presence == Presence::Set)
    {
        None => Ok(()),
        Some((name, _)) => Err(not_served(format!("{path}.{name}"))),
    }
}

fn not_served(param: String) -> ApiError {
    let message = format!("The parameter '{param}' is not supported by this server. Leave it out.");
    ApiError::unsupported(param, message)
}

fn role(path: &str, role: &str) -> Result<text::Role, ApiError> {
    let param = format!("{path}.role");
    match role {
        "system" | "developer" => Ok(text::Role::System),
        "user" => Ok(text::Role::User),
        "assistant" => Ok(text::Role::Assistant),
        "tool" | "function" => Err(ApiError::unsupported(
            param,
            format!("The role '{role}' is not supported: this server does not serve tools."),
        )),
        _ => Err(ApiError::invalid_value(
            param,
            format!("A role must be system, developer, user or assistant, got '{role}'."),
        )),
    }
}

fn lower_parts(
    path: &str,
    role: &text::Role,
    wire: Vec<Part>,
    chat: &mut Chat,
) -> Result<Vec<text::Part>, ApiError> {
    if wire.is_empty() {
        return Err(ApiError::invalid_value(
            path,
            format!("'{path}' must not be empty."),
        ));
    }
    let mut parts = Vec::with_capacity(wire.len());
    for (part_idx, part) in wire.into_iter().enumerate() {
        let param = format!("{path}[{part_idx}]");
        if part.uuid == Presence::Set {
            return Err(not_served(format!("{param}.uuid")));
        }
        match part.kind.as_str() {
            "text" => {
                let text = part.text.ok_or_else(|| missing(&param, "text"))?;
                chat.text_bytes += text.len();
                match (role, parts.last_mut()) {
                    (text::Role::System, Some(text::Part::Text(before))) => {
                        before.push('\n');
                        before.push_str(&text);
                    }
                    _ => parts.push(text::Part::Text(text)),
                }
            }
            "image_url" if *role == text::Role::System => {
                return Err(ApiError::invalid_value(
                    param,
                    "A system message cannot hold images. Put them into a user message.",
                ));
            }
            "image_url" => {
                let image = part.image_url.ok_or_else(|| missing(&param, "image_url"))?;
                check_url(&param, &image.url)?;
                parts.push(text::Part::Image);
                chat.images.push(WireImage {
                    param,
                    url: image.url,
                });
            }
            kind => {
                let message = format!(
                    "A part's type must be text or image_url; '{kind}' is not supported by this \
                     server."
                );
                return Err(ApiError::unsupported(format!("{param}.type"), message));
            }
        }
    }
    Ok(parts)
}

fn missing(path: &dyn Display, name: &str) -> ApiError {
    ApiError::missing(format!("{path}.{name}"))
}

/// Refuses what is certain to be refused later, before anything is decoded.
fn check_url(param: &str, url: &str) -> Result<(), ApiError> {
    let is_scheme = |scheme: &str| {
        let start = url.trim_start().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if is_scheme("http:") || is_scheme("https:") {
        return Err(ApiError::from(ImageError::Remote).at(param));
    }
    if !is_scheme("data:") {
        return Err(ApiError::from(ImageError::BadDataUri).at(param));
    }
    Ok(())
}
