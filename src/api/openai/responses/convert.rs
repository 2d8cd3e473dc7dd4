//! Translates a response request to an equivalent chat request.

use super::request::{ReasoningConfig, ResponsesRequest, TextConfig};
use super::tools::{tool_choice, tools};
use super::turns::{push, say};
use crate::api::generate::field_names::{Names, flat_tool};
use crate::api::generate::types::output_format::{NamedSchema, ResponseFormat};
use crate::api::generate::types::text_or::TextOr;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::request::ChatRequest;
use crate::api::openai::chat::translation::Turns;

/// The value of `include` that asks for log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";
/// Values of `include` without effect: reasoning is returned as text, and the others ask for more
/// of items that no answer of this server has.
const WITHOUT_EFFECT: [&str; 6] = [
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// A chat request with the client's field names.
pub(super) struct Translated {
    pub(super) chat: ChatRequest,
    pub(super) names: Names,
}

/// Translates a request.
///
/// # Errors
/// 400 with the path of a field that a chat cannot represent.
pub(super) fn translate(request: ResponsesRequest) -> Result<Translated, ApiError> {
    let logprobs = includes_logprobs(request.include.as_deref())?;
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
                push(item, format!("input[{item_idx}]"), &mut turns)?;
            }
        }
    }
    let has_tools = request
        .tools
        .as_ref()
        .is_some_and(|tools| !tools.is_empty());
    let mut chat = ChatRequest {
        model: request.model,
        messages: turns.messages,
        logprobs: Some(logprobs),
        top_logprobs: request.top_logprobs,
        tools: request.tools.map(tools).transpose()?,
        tool_choice: request.tool_choice.map(tool_choice).transpose()?,
        // Clients send it without tools too, where it has no effect.
        parallel_tool_calls: request.parallel_tool_calls.filter(|_| has_tools),
        ..ChatRequest::default()
    };
    if let Some(JsonObject(reasoning)) = request.reasoning {
        chat.reasoning_effort = effort(reasoning)?;
    }
    if let Some(JsonObject(text)) = request.text {
        shape(text, &mut chat)?;
    }
    Ok(Translated {
        chat,
        names: Names::new(turns.names, field_name),
    })
}

/// Returns the client's name of a chat's field.
fn field_name(param: &str) -> Option<String> {
    if let Some(inside) = param.strip_prefix("response_format.json_schema") {
        return Some(format!("text.format{inside}"));
    }
    let name = match param {
        "messages" => "input",
        "max_completion_tokens" => "max_output_tokens",
        "reasoning_effort" => "reasoning.effort",
        "response_format" => "text.format",
        "response_format.type" => "text.format.type",
        "tool_choice.function"
        | "tool_choice.function.name"
        | "tool_choice.custom"
        | "tool_choice.custom.name" => "tool_choice.name",
        _ if param.starts_with("tool_choice.allowed_tools") => return allowed_tool(param),
        _ => return flat_tool(param, "parameters"),
    };
    Some(name.to_owned())
}

/// Returns the client's name of a field of the allowed tools, which have no object of their own.
fn allowed_tool(param: &str) -> Option<String> {
    let rest = param.strip_prefix("tool_choice.allowed_tools")?;
    let rest = rest.replace(".function", "").replace(".custom", "");
    Some(format!("tool_choice{rest}"))
}

fn includes_logprobs(include: Option<&[String]>) -> Result<bool, ApiError> {
    let include = include.unwrap_or_default();
    for (idx, name) in include.iter().enumerate() {
        if name != LOGPROBS && !WITHOUT_EFFECT.contains(&name.as_str()) {
            return Err(ApiError::unsupported(
                format!("include[{idx}]"),
                format!("'include' does not take '{name}'; it takes \"{LOGPROBS}\"."),
            ));
        }
    }
    Ok(include.iter().any(|name| name == LOGPROBS))
}

/// Returns the reasoning effort.
///
/// # Errors
/// 400 for a summary: the reasoning is returned unchanged.
fn effort(reasoning: ReasoningConfig) -> Result<Option<String>, ApiError> {
    for (name, summary) in [
        ("summary", &reasoning.summary),
        ("generate_summary", &reasoning.generate_summary),
    ] {
        if summary.as_deref().is_some_and(|summary| summary != "auto") {
            return Err(ApiError::unsupported(
                format!("reasoning.{name}"),
                format!(
                    "Reasoning is returned in full; summaries are not supported. Omit \
                     'reasoning.{name}' or send \"auto\"."
                ),
            ));
        }
    }
    Ok(reasoning.effort)
}

/// Sets the output format.
///
/// # Errors
/// 400 for unsupported settings.
fn shape(text: TextConfig, chat: &mut ChatRequest) -> Result<(), ApiError> {
    if text
        .verbosity
        .is_some_and(|verbosity| verbosity != "medium")
    {
        return Err(unsupported("text.verbosity"));
    }
    let Some(JsonObject(format)) = text.format else {
        return Ok(());
    };
    let is_schema = format.kind == "json_schema";
    chat.response_format = Some(JsonObject(ResponseFormat {
        kind: format.kind,
        json_schema: is_schema.then(|| {
            JsonObject(NamedSchema {
                name: format.name.unwrap_or_default(),
                schema: format.schema,
                ..NamedSchema::default()
            })
        }),
        schema: None,
    }));
    Ok(())
}

fn unsupported(param: &str) -> ApiError {
    let message = format!("The parameter '{param}' is not supported by this server. Leave it out.");
    ApiError::unsupported(param, message)
}
