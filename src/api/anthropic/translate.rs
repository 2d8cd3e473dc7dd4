//! Anthropic's request as the chat that asks for the same.

use crate::api::error::ApiError;
use crate::api::generate::SharedFields;
use crate::api::names::{MessageNames, Names, flat_tool};
use crate::api::translation::Turns;
use crate::api::types::{
    ChatMessage, ChatRequest, Content, ImageSource, ImageUrl, InputBlock, InputMessage,
    MessagesRequest, Object, Part, Stop, TextOr,
};
use crate::error::ImageError;

/// A chat with the client's names for what is in it.
pub(super) struct Translated {
    pub(super) chat: ChatRequest,
    pub(super) shared: SharedFields,
    pub(super) names: Names,
}

/// # Errors
/// 400 with the path of what a chat has no place for.
pub(super) fn translate(request: MessagesRequest) -> Result<Translated, ApiError> {
    check_service_tier(request.service_tier.as_deref())?;
    check_unserved(&request)?;
    let mut shared = SharedFields::default();
    let sampling = &mut shared.sampling;
    sampling.max_tokens = request.max_tokens;
    sampling.temperature = temperature(request.temperature)?;
    sampling.top_p = request.top_p;
    sampling.top_k = request.top_k;
    sampling.stop = request.stop_sequences.map(Stop::Several);

    if request.messages.is_empty() {
        return Err(ApiError::invalid_value(
            "messages",
            "'messages' must not be empty.",
        ));
    }
    let mut turns = Turns::default();
    if let Some(system) = request.system {
        let path = "system".to_owned();
        let names = MessageNames {
            whole: path.clone(),
            content: path.clone(),
            parts: Vec::new(),
        };
        let message = InputMessage {
            role: "system".to_owned(),
            content: system,
        };
        translate_message(message, names, &mut turns)?;
    }
    for (message_idx, Object(message)) in request.messages.into_iter().enumerate() {
        let whole = format!("messages[{message_idx}]");
        let names = MessageNames {
            content: format!("{whole}.content"),
            whole,
            parts: Vec::new(),
        };
        check_role(&message.role, &names)?;
        translate_message(message, names, &mut turns)?;
    }
    Ok(Translated {
        chat: ChatRequest {
            model: request.model,
            messages: turns.messages,
            ..ChatRequest::default()
        },
        shared,
        names: Names::new(turns.names, field_name),
    })
}

/// The client's name of a chat's field.
fn field_name(param: &str) -> Option<String> {
    if let Some(inside) = param.strip_prefix("stop[") {
        return Some(format!("stop_sequences[{inside}"));
    }
    match param {
        "stop" => Some("stop_sequences".to_owned()),
        _ => flat_tool(param, "input_schema"),
    }
}

fn check_unserved(request: &MessagesRequest) -> Result<(), ApiError> {
    let thinking = request.thinking.as_ref().map(|thinking| &thinking.0);
    let config = request.output_config.as_ref().map(|config| &config.0);
    let unserved = [
        (
            "tools",
            request
                .tools
                .as_ref()
                .is_some_and(|tools| !tools.is_empty()),
        ),
        ("tool_choice", request.tool_choice.is_some()),
        (
            "thinking",
            thinking.is_some_and(|thinking| thinking.kind != "disabled"),
        ),
        (
            "output_config.effort",
            config.is_some_and(|config| config.effort.is_some()),
        ),
        (
            "output_config.format",
            config.is_some_and(|config| config.format.is_some()),
        ),
    ];
    match unserved.iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::unsupported(
            *name,
            format!("The parameter '{name}' is not supported by this server. Leave it out."),
        )),
    }
}

fn check_role(role: &str, names: &MessageNames) -> Result<(), ApiError> {
    match role {
        "user" | "assistant" | "system" => Ok(()),
        _ => Err(ApiError::invalid_value(
            format!("{}.role", names.whole),
            format!("A role must be user, assistant or system, got '{role}'."),
        )),
    }
}

fn check_service_tier(tier: Option<&str>) -> Result<(), ApiError> {
    match tier {
        None | Some("auto" | "standard_only") => Ok(()),
        Some(_) => Err(ApiError::invalid_value(
            "service_tier",
            "'service_tier' must be auto or standard_only.",
        )),
    }
}

/// Anthropic's range is half of OpenAI's.
fn temperature(temperature: Option<f64>) -> Result<Option<f64>, ApiError> {
    match temperature {
        Some(temperature) if !(0.0..=1.0).contains(&temperature) => Err(ApiError::invalid_value(
            "temperature",
            format!("'temperature' must be 0–1, got {temperature}."),
        )),
        temperature => Ok(temperature),
    }
}

fn translate_message(
    message: InputMessage,
    mut names: MessageNames,
    turns: &mut Turns,
) -> Result<(), ApiError> {
    let InputMessage { role, content } = message;
    let content = match content {
        TextOr::Text(text) => Content::Text(text),
        TextOr::List(blocks) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (block_idx, block) in blocks.into_iter().enumerate() {
                let path = format!("{}[{block_idx}]", names.content);
                if let Some(part) = translate_block(block, &role, &path)? {
                    parts.push(part);
                    names.parts.push(path);
                }
            }
            Content::Parts(parts)
        }
    };
    turns.add(
        ChatMessage {
            role,
            content: Some(content),
            ..ChatMessage::default()
        },
        names,
    );
    Ok(())
}

/// `None` for what is known and has no place in a prompt.
fn translate_block(block: InputBlock, role: &str, path: &str) -> Result<Option<Part>, ApiError> {
    match (block.kind.as_str(), role) {
        ("text", _) => Ok(Some(Part {
            kind: "text".to_owned(),
            text: Some(
                block
                    .text
                    .ok_or_else(|| ApiError::missing(format!("{path}.text")))?,
            ),
            ..Part::default()
        })),
        ("image", "user") => {
            let Some(Object(source)) = block.source else {
                return Err(ApiError::missing(format!("{path}.source")));
            };
            Ok(Some(Part {
                kind: "image_url".to_owned(),
                image_url: Some(ImageUrl {
                    url: data_uri(source, path)?,
                }),
                ..Part::default()
            }))
        }
        // What was thought before is no part of what the model reads.
        ("thinking" | "redacted_thinking", "assistant") => Ok(None),
        (kind, _) => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!(
                "A block of type '{kind}' in a message of role {role} is not supported by this server."
            ),
        )),
    }
}

fn data_uri(source: ImageSource, path: &str) -> Result<String, ApiError> {
    let path = format!("{path}.source");
    match source.kind.as_str() {
        "base64" => {}
        "url" => return Err(ApiError::from(ImageError::Remote).at(path)),
        kind => {
            return Err(ApiError::unsupported(
                format!("{path}.type"),
                format!(
                    "A picture's source must be base64; '{kind}' is not supported by this server."
                ),
            ));
        }
    }
    let missing = |name: &str| ApiError::missing(format!("{path}.{name}"));
    let media_type = source.media_type.ok_or_else(|| missing("media_type"))?;
    let data = source.data.ok_or_else(|| missing("data"))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.+-".contains(&byte);
    if !media_type.bytes().all(is_plain) {
        return Err(ApiError::invalid_value(
            format!("{path}.media_type"),
            "A picture's media type must be like image/png.",
        ));
    }
    Ok(format!("data:{media_type};base64,{data}"))
}
