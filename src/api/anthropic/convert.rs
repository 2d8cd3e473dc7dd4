//! Translates an Anthropic request to an equivalent chat request.

use super::request::{InputMessage, MessagesRequest, OutputFormat};
use super::turns::push;
use super::{thinking, tools};
use crate::api::generate::SharedFields;
use crate::api::generate::field_names::{Names, flat_tool};
use crate::api::generate::types::output_format::{NamedSchema, ResponseFormat};
use crate::api::generate::types::sampling_fields::Stop;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::request::ChatRequest;
use crate::api::openai::chat::translation::Turns;

/// A chat request with the client's field names.
pub(super) struct Translated {
    pub(super) chat: ChatRequest,
    pub(super) shared: SharedFields,
    pub(super) names: Names,
}

/// Translates a request.
///
/// # Errors
/// 400 with the path of a field that a chat cannot represent.
pub(super) fn translate(request: MessagesRequest) -> Result<Translated, ApiError> {
    check_service_tier(request.service_tier.as_deref())?;
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
    // If the last message is the assistant's, the answer continues it.
    let last = request
        .messages
        .last()
        .map(|message| message.0.role.as_str());
    let goes_on = (last == Some("assistant")).then_some(true);

    let mut turns = Turns::default();
    if let Some(content) = request.system {
        let role = "system".to_owned();
        push(InputMessage { role, content }, "system", &mut turns)?;
    }
    for (message_idx, JsonObject(message)) in request.messages.into_iter().enumerate() {
        let path = format!("messages[{message_idx}]");
        check_role(&message.role, &path)?;
        push(message, &path, &mut turns)?;
    }
    let mut chat = ChatRequest {
        model: request.model,
        messages: turns.messages,
        tools: request.tools.map(tools::tools).transpose()?,
        continue_final_message: goes_on,
        add_generation_prompt: goes_on.map(|goes_on| !goes_on),
        ..ChatRequest::default()
    };
    if let Some(JsonObject(choice)) = request.tool_choice {
        tools::choose(choice, &mut chat)?;
    }
    if let Some(JsonObject(thinking)) = request.thinking {
        thinking::think(thinking, request.max_tokens, &mut chat)?;
    }
    if let Some(JsonObject(config)) = request.output_config {
        chat.reasoning_effort = thinking::effort(&config);
        if let Some(JsonObject(format)) = config.format {
            chat.response_format = Some(JsonObject(schema(format)?));
        }
    }
    Ok(Translated {
        chat,
        shared,
        names: Names::new(turns.names, field_name),
    })
}

/// Returns the client's name of a chat's field.
fn field_name(param: &str) -> Option<String> {
    if let Some(inside) = param.strip_prefix("stop[") {
        return Some(format!("stop_sequences[{inside}"));
    }
    if let Some(inside) = param.strip_prefix("response_format.json_schema") {
        return Some(format!("output_config.format{inside}"));
    }
    let name = match param {
        "stop" => "stop_sequences",
        "tool_choice.function" | "tool_choice.function.name" => "tool_choice.name",
        "parallel_tool_calls" => "tool_choice.disable_parallel_tool_use",
        "reasoning_effort" => "output_config.effort",
        "thinking_token_budget" => "thinking.budget_tokens",
        "chat_template_kwargs" | "chat_template_kwargs.enable_thinking" => "thinking",
        "continue_final_message" | "add_generation_prompt" => "messages",
        "response_format" => "output_config.format",
        _ => return flat_tool(param, "input_schema"),
    };
    Some(name.to_owned())
}

/// Converts an output format.
///
/// # Errors
/// 400 for a format that is not a schema.
fn schema(format: OutputFormat) -> Result<ResponseFormat, ApiError> {
    if format.kind != "json_schema" {
        return Err(ApiError::invalid_value(
            "output_config.format.type",
            format!(
                "'output_config.format.type' must be json_schema, got '{}'.",
                format.kind
            ),
        ));
    }
    let Some(schema) = format.schema else {
        return Err(ApiError::missing("output_config.format.schema"));
    };
    Ok(ResponseFormat {
        kind: format.kind,
        json_schema: Some(JsonObject(NamedSchema {
            // Anthropic's formats have no name.
            name: "answer".to_owned(),
            schema: Some(schema),
            ..NamedSchema::default()
        })),
        schema: None,
    })
}

fn check_role(role: &str, path: &str) -> Result<(), ApiError> {
    match role {
        "user" | "assistant" | "system" => Ok(()),
        _ => Err(ApiError::invalid_value(
            format!("{path}.role"),
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

/// Checks the temperature: Anthropic's range is half of OpenAI's.
fn temperature(temperature: Option<f64>) -> Result<Option<f64>, ApiError> {
    match temperature {
        Some(temperature) if !(0.0..=1.0).contains(&temperature) => Err(ApiError::invalid_value(
            "temperature",
            format!("'temperature' must be 0–1, got {temperature}."),
        )),
        temperature => Ok(temperature),
    }
}
