//! A request for a response as the chat that asks for the same.

use crate::api::error::ApiError;
use crate::api::names::{MessageNames, Names, flat_tool};
use crate::api::translation::Turns;
use crate::api::types::{
    ChatMessage, ChatRequest, Content, ImageUrl, InputItem, InputPart, Object, Part, Presence,
    ReasoningConfig, ResponsesRequest, TextConfig, TextOr,
};

/// What `include` takes.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A chat with the client's names for what is in it.
pub(super) struct Translated {
    pub(super) chat: ChatRequest,
    pub(super) names: Names,
}

/// # Errors
/// 400 with the path of what a chat has no place for.
pub(super) fn translate(request: ResponsesRequest) -> Result<Translated, ApiError> {
    check_unserved(&request)?;
    let logprobs = includes_logprobs(request.include.as_deref())?;
    check_reasoning(request.reasoning.map(|reasoning| reasoning.0))?;
    check_text(request.text.map(|text| text.0))?;
    if !logprobs && request.top_logprobs.is_some_and(|top| top != 0) {
        return Err(ApiError::contradiction(
            "top_logprobs",
            format!("'top_logprobs' needs 'include': [\"{LOGPROBS}\"]."),
        ));
    }

    let mut turns = Turns::default();
    if let Some(instructions) = request.instructions {
        say("system", instructions, "instructions", &mut turns);
    }
    match request.input {
        TextOr::Text(text) => say("user", text, "input", &mut turns),
        TextOr::List(items) if items.is_empty() => {
            return Err(ApiError::invalid_value(
                "input",
                "'input' must not be empty.",
            ));
        }
        TextOr::List(items) => {
            for (item_idx, item) in items.into_iter().enumerate() {
                translate_item(item, format!("input[{item_idx}]"), &mut turns)?;
            }
        }
    }
    Ok(Translated {
        chat: ChatRequest {
            model: request.model,
            messages: turns.messages,
            logprobs: Some(logprobs),
            top_logprobs: request.top_logprobs,
            ..ChatRequest::default()
        },
        names: Names::new(turns.names, field_name),
    })
}

/// A text that is no item.
fn say(role: &str, text: String, path: &str, turns: &mut Turns) {
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

/// The client's name of a chat's field.
fn field_name(param: &str) -> Option<String> {
    match param {
        "messages" => Some("input".to_owned()),
        "max_completion_tokens" => Some("max_output_tokens".to_owned()),
        _ => flat_tool(param, "parameters"),
    }
}

fn check_unserved(request: &ResponsesRequest) -> Result<(), ApiError> {
    let tools = request.tools.as_ref();
    let unserved = [
        ("tools", tools.is_some_and(|tools| !tools.is_empty())),
        ("tool_choice", request.tool_choice.is_some()),
    ];
    match unserved.iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((name, _)) => Err(unsupported((*name).to_owned())),
    }
}

fn unsupported(param: String) -> ApiError {
    let message = format!("The parameter '{param}' is not supported by this server. Leave it out.");
    ApiError::unsupported(param, message)
}

fn includes_logprobs(include: Option<&[String]>) -> Result<bool, ApiError> {
    let include = include.unwrap_or_default();
    for (idx, name) in include.iter().enumerate() {
        if name != LOGPROBS {
            return Err(ApiError::unsupported(
                format!("include[{idx}]"),
                format!("'include' takes \"{LOGPROBS}\" only."),
            ));
        }
    }
    Ok(!include.is_empty())
}

fn check_reasoning(reasoning: Option<ReasoningConfig>) -> Result<(), ApiError> {
    let Some(reasoning) = reasoning else {
        return Ok(());
    };
    for (name, summary) in [
        ("summary", &reasoning.summary),
        ("generate_summary", &reasoning.generate_summary),
    ] {
        if summary.as_deref().is_some_and(|summary| summary != "auto") {
            return Err(ApiError::unsupported(
                format!("reasoning.{name}"),
                format!(
                    "Thoughts are not summarised by this server, they come as they are: leave \
                     'reasoning.{name}' out or send \"auto\"."
                ),
            ));
        }
    }
    match reasoning.effort {
        None => Ok(()),
        Some(_) => Err(unsupported("reasoning.effort".to_owned())),
    }
}

fn check_text(text: Option<TextConfig>) -> Result<(), ApiError> {
    let Some(text) = text else {
        return Ok(());
    };
    if text
        .verbosity
        .is_some_and(|verbosity| verbosity != "medium")
    {
        return Err(unsupported("text.verbosity".to_owned()));
    }
    match text.format {
        Some(Object(format)) if format.kind != "text" => Err(unsupported("text.format".to_owned())),
        _ => Ok(()),
    }
}

fn translate_item(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    match item.kind.as_deref() {
        None | Some("message") => translate_message(item, path, turns),
        // What was thought before is no part of what the model reads.
        Some("reasoning") => Ok(()),
        Some(kind) => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!("An item of type '{kind}' is not supported by this server."),
        )),
    }
}

fn translate_message(item: InputItem, path: String, turns: &mut Turns) -> Result<(), ApiError> {
    let Some(role) = item.role else {
        return Err(ApiError::missing(format!("{path}.role")));
    };
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

fn translate_part(part: InputPart, path: &str) -> Result<Part, ApiError> {
    let missing = |name: &str| ApiError::missing(format!("{path}.{name}"));
    match part.kind.as_str() {
        "input_text" | "output_text" => Ok(Part {
            kind: "text".to_owned(),
            text: Some(part.text.ok_or_else(|| missing("text"))?),
            ..Part::default()
        }),
        "input_image" => {
            if part.file_id == Presence::Set {
                return Err(unsupported(format!("{path}.file_id")));
            }
            check_detail(part.detail.as_deref(), path)?;
            Ok(Part {
                kind: "image_url".to_owned(),
                image_url: Some(ImageUrl {
                    url: part.image_url.ok_or_else(|| missing("image_url"))?,
                }),
                ..Part::default()
            })
        }
        kind => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!(
                "A part's type must be input_text, output_text or input_image; '{kind}' is not \
                 supported by this server."
            ),
        )),
    }
}

fn check_detail(detail: Option<&str>, path: &str) -> Result<(), ApiError> {
    match detail {
        None | Some("auto" | "low" | "high" | "original") => Ok(()),
        Some(detail) => Err(ApiError::invalid_value(
            format!("{path}.detail"),
            format!("A picture's detail must be auto, low, high or original, got '{detail}'."),
        )),
    }
}
